"""How a cohort is wired: the degree of the masking graph, the share threshold, and how likely chance defeats them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from secagg import graph
from secagg.errors import ParameterError, TooFewClientsError

if TYPE_CHECKING:
    from secagg.graph import Failures
    from secagg.params import Mode, Params


@dataclass(frozen=True, kw_only=True)
class Topology:
    """What follows from settings and the number of clients that advertised keys.

    Args:
        degree: Neighbours of each client, k.
        threshold: Shares that rebuild a secret, t.
        quorum: With an active server, how many clients must agree on the survivors; else 0.
        needed: Clients that must stay to the end, or nothing is unmasked.
        window_floor: Survivors that every window of the ring must hold; 0 in the complete graph.
        failures: How likely a sparse graph fails; None for the complete graph, which leaves nothing to chance.
    """

    degree: int
    threshold: int
    quorum: int
    needed: int
    window_floor: int = 0
    failures: Failures | None = None


@lru_cache(maxsize=256)
def topology(params: Params, mode: Mode, clients: int) -> Topology:
    """The wiring of the clients that advertised keys.

    Raises:
        ParameterError: ``neighbours`` or ``share_threshold`` do not fit this cohort.
        TooFewClientsError: Fewer clients than ``min_cohort + corrupt``.
    """
    if clients < params.privacy_floor:
        reason = f"(min_cohort {params.min_cohort} + corrupt {params.corrupt})"
        raise TooFewClientsError(
            f"{clients} clients < {params.privacy_floor} {reason}: wait for more clients or lower min_cohort"
        )
    demands = graph.Demands(
        lost=params.dropouts_tolerated(clients, params.quorum(clients)),
        corrupt=params.corrupt,
        security_bits=params.security_bits,
        active=params.active,
    )
    everybody = clients - 1
    if params.neighbours is not None:
        degree = min(params.neighbours, everybody)
    elif clients > graph.COMPLETE_UP_TO and mode == "uniform":
        degree, _ = graph.smallest_degree(clients, demands) or (everybody, None)
    else:
        degree = everybody
    if degree == everybody:
        return _complete(params, clients, demands)
    if mode == "mask-indexed":
        raise ParameterError(
            "a mask-indexed session needs the complete graph: leave neighbours unset, or shard the cohort"
        )
    return _sparse(params, degree, clients, demands)


def _complete(params: Params, clients: int, demands: graph.Demands) -> Topology:
    # With an active server, holders that were shown different survivors must not open both secrets of a client.
    quorum = params.quorum(clients)
    least = quorum if params.active else max(2, params.corrupt + 1)
    threshold = params.share_threshold or max(least, min(graph.majority(clients), clients - demands.lost))
    if threshold < least:
        raise ParameterError(
            f"share_threshold {threshold} < {least}: {params.corrupt} corrupt clients and a lying server could do "
            "with as many; raise it or leave it unset"
            if params.active
            else f"share_threshold {threshold} must exceed corrupt {params.corrupt}: raise it or leave it unset"
        )
    if threshold > clients:
        raise ParameterError(f"share_threshold {threshold} exceeds the {clients} share holders of a client")
    return Topology(degree=clients - 1, threshold=threshold, quorum=quorum, needed=max(threshold, quorum))


def _sparse(params: Params, degree: int, clients: int, demands: graph.Demands) -> Topology:
    borne = f"{demands.lost} dropouts and {demands.corrupt} corrupt clients"
    threshold = params.share_threshold or graph.threshold_for(degree, clients, demands)
    if threshold is None:
        raise ParameterError(
            f"neighbours {degree} of {clients} clients is too few for {borne}: raise it or leave it unset"
        )
    failures, floor = demands.failures(clients, degree, threshold), demands.window_floor(clients, degree)
    good_enough = demands.met_by if params.neighbours is None else demands.safe
    if threshold > degree + 1 or floor > degree // 2 or not good_enough(failures):
        raise ParameterError(
            f"share_threshold {threshold} and {degree} neighbours do not suit {borne}: change them, or leave them unset"
        )
    quorum = params.quorum(clients)
    # A semi-honest server's dropouts are part of the bounds: so are those between AdvertiseKeys and ShareKeys.
    stay = quorum if params.active else clients - demands.lost
    return Topology(
        degree=degree,
        threshold=threshold,
        quorum=quorum,
        needed=max(threshold, stay),
        window_floor=floor,
        failures=failures,
    )
