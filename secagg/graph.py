"""Who masks with whom: the complete graph, or a random Harary graph for large cohorts.

Harary graph: clients in a random ring, each joined to its k/2 nearest on either side (Bell et al., CCS 2020,
section 3). The ring permutation is drawn after the keys are advertised, so that nobody can choose a place in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secagg.errors import ParameterError
from secagg.prg import SeededEntropy

if TYPE_CHECKING:
    from collections.abc import Sequence

COMPLETE_UP_TO = 200
SECURITY_BITS = 40
LIVENESS_BITS = 20
SEED_BYTES = 32


@dataclass(frozen=True)
class Graph:
    """An undirected graph on the clients that advertised keys.

    Args:
        order: The clients in ring order.
        degree: Neighbours of each client: even, or ``len(order) - 1`` for the complete graph.
    """

    order: tuple[int, ...]
    degree: int

    @classmethod
    def build(cls, clients: Sequence[int], degree: int, seed: bytes) -> Graph:
        """The complete graph if ``degree`` reaches everybody, else a Harary graph on a ring permuted by ``seed``."""
        if degree >= len(clients) - 1:
            return cls(tuple(sorted(clients)), len(clients) - 1)
        entropy = SeededEntropy(b"graph" + seed)
        keyed = sorted((entropy(SEED_BYTES), client) for client in sorted(clients))
        return cls(tuple(client for _, client in keyed), degree)

    def neighbours(self, client: int) -> frozenset[int]:
        """The clients joined to ``client``."""
        if self.degree >= len(self.order) - 1:
            return frozenset(self.order) - {client}
        place = self.order.index(client)
        steps = range(1, self.degree // 2 + 1)
        return frozenset(self.order[(place + sign * step) % len(self.order)] for step in steps for sign in (1, -1))


def majority(holders: int) -> int:
    """The smallest number that is more than half."""
    return holders // 2 + 1


def smallest_degree(clients: int, lost: int, corrupt: int) -> tuple[int, int]:
    """Degree k and share threshold t of a random Harary graph that holds with the failure probabilities below.

    Except with probability 2^-40 over the ring permutation, the clients that are neither lost nor corrupt stay
    connected (else a part's sum would open), and nobody has t corrupt neighbours. Except with probability 2^-20,
    everybody keeps t live share holders (else the round aborts). Union bounds over hypergeometric tails, as in Bell
    et al., section 3.3. The threshold is the largest that qualifies, up to a majority of the holders.

    Args:
        clients: Clients on the ring, n.
        lost: Most clients that drop out.
        corrupt: Most clients that collude with the server.

    Raises:
        ParameterError: No degree below the complete graph suffices.
    """
    for degree in range(2, clients - 1, 2):
        if _log2_all_gone(clients, lost + corrupt, degree // 2) + math.log2(clients) > -SECURITY_BITS:
            continue
        holders = degree + 1
        least = _smallest_safe_threshold(clients, corrupt, degree)
        for threshold in range(majority(holders), least - 1, -1):
            if _log2_tail(clients, lost, degree, holders - threshold + 1) + math.log2(clients) <= -LIVENESS_BITS:
                return degree, threshold
    raise ParameterError(
        f"no sparse graph of {clients} clients tolerates {lost} dropouts and {corrupt} corrupt ones: "
        "lower max_dropouts or corrupt, or set neighbours to the number of clients"
    )


def _smallest_safe_threshold(clients: int, corrupt: int, degree: int) -> int:
    for threshold in range(2, degree + 1):
        if _log2_tail(clients, corrupt, degree, threshold) + math.log2(clients) <= -SECURITY_BITS:
            return threshold
    return degree + 1


def _log2_all_gone(clients: int, gone: int, window: int) -> float:
    """log2 of the probability that the next ``window`` clients on the ring are all among ``gone``."""
    if gone < window:
        return -math.inf
    return sum(math.log2((gone - j) / (clients - 1 - j)) for j in range(window))


def _log2_tail(clients: int, marked: int, drawn: int, least: int) -> float:
    """log2 of P[at least ``least`` of ``drawn`` neighbours are among ``marked`` of the other clients]."""
    total = math.comb(clients - 1, drawn)
    hits = sum(math.comb(marked, j) * math.comb(clients - 1 - marked, drawn - j) for j in range(least, drawn + 1))
    return math.log2(hits) - math.log2(total) if hits else -math.inf
