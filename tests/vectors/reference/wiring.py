"""Degree, share threshold and quorum of a session, with exact integers where the definition speaks of logarithms."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import comb
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.vectors.reference.declaring import Json


def quorum(params: Json, clients: int) -> int:
    return (clients + params["corrupt"]) // 2 + 1 if params["adversary"] == "active" else 0


def lost(params: Json, clients: int) -> int:
    most = clients // 3 if params["max_dropouts"] is None else params["max_dropouts"]
    floor = max(params["min_cohort"] + params["corrupt"], quorum(params, clients))
    return max(0, min(most, clients - floor))


@dataclass(frozen=True)
class Wiring:
    """What follows from settings and the number of clients that advertised keys."""

    degree: int
    threshold: int
    quorum: int
    needed: int
    window_floor: int


def wired(params: Json, clients: int, mode: str = "uniform") -> Wiring:
    """The complete graph, or the sparsest one that is good enough, or the one that is set."""
    neighbours = params["neighbours"]
    if mode == "uniform" and (clients > 200 if neighbours is None else neighbours < clients - 1):
        for degree in range(2, clients - 1, 2) if neighbours is None else [neighbours]:
            found = sparse(params, clients, degree)
            if found is not None:
                return found
    return complete(params, clients)


def complete(params: Json, clients: int) -> Wiring:
    agree = quorum(params, clients)
    least = agree or max(2, params["corrupt"] + 1)
    threshold = params["share_threshold"] or max(least, min(clients // 2 + 1, clients - lost(params, clients)))
    return Wiring(clients - 1, threshold, agree, max(threshold, agree), 0)


@cache
def tail(others: int, marked: int, drawn: int, least: int) -> Fraction:
    """P[at least ``least`` of ``drawn`` out of ``others`` are among ``marked`` of them]."""
    hits = sum(comb(marked, j) * comb(others - marked, drawn - j) for j in range(max(least, 0), drawn + 1))
    return Fraction(hits, comb(others, drawn))


def sparse(params: Json, clients: int, degree: int) -> Wiring | None:
    """The Harary graph of this degree, or None where it is not good enough."""
    active, corrupt, gone = params["adversary"] == "active", params["corrupt"], lost(params, clients)
    bound = Fraction(1, 2 ** (params["security_bits"] + 60 * active))
    window, half, floor = degree // 2, (degree + 1) // 2 + 1, 1

    def likely(marked: int, drawn: int, least: int) -> Fraction:
        return clients * tail(clients - 1, marked, drawn, least)

    if active:
        floor = next((crowd for crowd in range(1, window + 1) if likely(corrupt, window, crowd) <= bound), window + 1)
    if (likely(corrupt, window, floor) if active else likely(gone + corrupt, window, window)) > bound:
        return None
    for threshold in sorted(range(2, degree + 2), key=lambda threshold: abs(threshold - half)):
        opened = likely(corrupt, degree, 2 * threshold - degree - 1 if active else threshold)
        starved = likely(gone, degree, degree - threshold + 1) + likely(gone, window, window - floor + 1)
        if opened <= bound and starved <= Fraction(1, 2**20):
            agree = quorum(params, clients)
            return Wiring(degree, threshold, agree, max(threshold, agree or clients - gone), floor)
    return None
