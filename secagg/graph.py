"""Who masks with whom: the complete graph, or a random Harary graph for large cohorts.

Harary graph: clients in a random ring, each joined to its k/2 nearest on either side (Bell et al., CCS 2020,
section 3). The ring permutation follows from the keys that everybody advertised, so that nobody can choose a place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from secagg.errors import ParameterError
from secagg.prg import SeededEntropy

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

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

    @cached_property
    def _place(self) -> dict[int, int]:
        return {client: place for place, client in enumerate(self.order)}

    def connects(self, clients: Collection[int]) -> bool:
        """Whether the given clients stay connected when all others are gone."""
        if self.degree >= len(self.order) - 1:
            return True
        left, frontier = set(clients), set(list(clients)[:1])
        while frontier:
            left -= frontier
            frontier = {peer for client in frontier for peer in self.neighbours(client) if peer in left}
        return not left

    def neighbours(self, client: int) -> frozenset[int]:
        """The clients joined to ``client``."""
        if self.degree >= len(self.order) - 1:
            return frozenset(self.order) - {client}
        place = self._place[client]
        steps = range(1, self.degree // 2 + 1)
        return frozenset(self.order[(place + sign * step) % len(self.order)] for step in steps for sign in (1, -1))


def majority(holders: int) -> int:
    """The smallest number that is more than half."""
    return holders // 2 + 1


@dataclass(frozen=True)
class Failures:
    """How likely a random Harary graph fails, as log2 of probabilities over the ring permutation, for all clients.

    Args:
        split: The clients that are neither lost nor corrupt fall apart, and each part's sum opens.
        opened: Somebody has so many corrupt neighbours that a secret of its own is not safe.
        starved: Somebody keeps too few live share holders, and the round aborts.
    """

    split: float
    opened: float
    starved: float


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What a random Harary graph has to bear.

    Args:
        lost: Most clients that drop out.
        corrupt: Most clients that collude with the server.
        security_bits: ``split`` and ``opened`` stay below 2^-security_bits.
    """

    lost: int
    corrupt: int
    security_bits: int = SECURITY_BITS

    def failures(self, clients: int, degree: int, threshold: int) -> Failures:
        """Union bounds over hypergeometric tails (Bell et al., CCS 2020, section 3.3)."""
        each = math.log2(clients)
        # A dropout's own share is lost with it: only its neighbours can rebuild its key.
        spare = degree - threshold + 1
        return Failures(
            split=_log2_all_gone(clients, self.lost + self.corrupt, degree // 2) + each,
            opened=_log2_tail(clients, self.corrupt, degree, threshold) + each,
            starved=_log2_tail(clients, self.lost, degree, spare) + each,
        )

    def met_by(self, failures: Failures) -> bool:
        """Whether a graph is good enough."""
        return (
            failures.split <= -self.security_bits
            and failures.opened <= -self.security_bits
            and failures.starved <= -LIVENESS_BITS
        )


def smallest_degree(clients: int, demands: Demands) -> tuple[int, int]:
    """Degree k and share threshold t of the sparsest random Harary graph that meets the demands.

    Args:
        clients: Clients on the ring, n.
        demands: What it has to bear.

    Raises:
        ParameterError: No degree below the complete graph suffices.
    """
    for degree in range(2, clients - 1, 2):
        threshold = threshold_for(degree, clients, demands)
        if threshold is not None:
            return degree, threshold
    raise ParameterError(
        f"no sparse graph of {clients} clients tolerates {demands.lost} dropouts and {demands.corrupt} corrupt ones: "
        "lower max_dropouts or corrupt, or set neighbours to the number of clients"
    )


def threshold_for(degree: int, clients: int, demands: Demands) -> int | None:
    """The share threshold t with which a random Harary graph of this degree meets the demands, or None.

    The largest that does, up to a majority of the share holders.
    """
    for threshold in range(majority(degree + 1), 1, -1):
        if demands.met_by(demands.failures(clients, degree, threshold)):
            return threshold
    return None


def _log2_all_gone(clients: int, gone: int, window: int) -> float:
    """log2 of the probability that the next ``window`` clients on the ring are all among ``gone``."""
    if gone < window:
        return -math.inf
    return sum(math.log2((gone - j) / (clients - 1 - j)) for j in range(window))


def _log2_tail(clients: int, marked: int, drawn: int, least: int) -> float:
    """log2 of P[at least ``least`` of ``drawn`` neighbours are among ``marked`` of the other clients]."""
    total = math.comb(clients - 1, drawn)
    counts = range(max(least, 0), drawn + 1)
    hits = sum(math.comb(marked, j) * math.comb(clients - 1 - marked, drawn - j) for j in counts)
    return math.log2(hits) - math.log2(total) if hits else -math.inf
