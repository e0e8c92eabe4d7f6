"""Who masks with whom: the complete graph, or a random Harary graph for large cohorts.

Harary graph: clients in a random ring, each joined to its k/2 nearest on either side (Bell et al., CCS 2020,
section 3). The ring permutation follows from the keys that everybody advertised, so that nobody can choose a place.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from secagg.prg import SeededEntropy

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

COMPLETE_UP_TO = 200
SECURITY_BITS = 40
LIVENESS_BITS = 20
GRINDING_BITS = 60
"""How many rings an active server may try: it chooses whom to list, and its colluders their keys, until one suits."""
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

    def fewest_in_window(self, clients: Collection[int]) -> int:
        """The fewest of the given clients in any window: as many places in a row as neighbours on one side of a client.

        Where no window is empty, the given clients are connected: the next one on the ring is always a neighbour.
        """
        window = (self.degree + 1) // 2
        given = np.isin(self.order, list(clients))
        sums = np.cumsum(np.concatenate([[0], given, given[: window - 1]]))
        return int((sums[window:] - sums[:-window]).min())

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
        split: The honest clients fall apart, and each part's sum opens.
        opened: Somebody has so many corrupt neighbours that a secret of its own is not safe.
        starved: Chance alone takes so many clients that the round aborts.
    """

    split: float
    opened: float
    starved: float


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What a random Harary graph has to bear.

    Honest survivors are connected if every window of the ring holds one. With a semi-honest server dropouts fall at
    random, like corrupt clients. An active one drops whom it likes after it has seen the ring, but whom it corrupts is
    settled before; so clients insist on more survivors in every window than corrupt ones fall into any.

    Args:
        lost: Most clients that drop out.
        corrupt: Most clients that collude with the server.
        security_bits: ``split`` and ``opened`` stay below 2^-security_bits.
        active: Whether the server is.
    """

    lost: int
    corrupt: int
    security_bits: int = SECURITY_BITS
    active: bool = False

    @property
    def bits(self) -> int:
        """log2 of how unlikely a bad ring has to be, with a margin for a server that tries many."""
        return self.security_bits + GRINDING_BITS * self.active

    def window_floor(self, clients: int, degree: int) -> int:
        """Survivors that every window must hold."""
        if not self.active:
            return 1
        window = degree // 2
        return 1 + bisect_left(
            range(1, window + 1),
            True,
            key=lambda crowd: self._likely(clients, self.corrupt, window, crowd) <= -self.bits,
        )

    def failures(self, clients: int, degree: int, threshold: int) -> Failures:
        """Union bounds over hypergeometric tails (Bell et al., CCS 2020, sections 3.3 and 4.3)."""
        window, floor = degree // 2, self.window_floor(clients, degree)
        # A dropout's own share is lost with it: only its neighbours can rebuild its key.
        spare = degree - threshold + 1
        if self.active:
            split = self._likely(clients, self.corrupt, window, floor)
            # Holders that are told different stories open both secrets if 2t <= K + corrupt, of K = degree + 1 holders.
            opened = self._likely(clients, self.corrupt, degree, 2 * threshold - degree - 1)
        else:
            split = self._likely(clients, self.lost + self.corrupt, window, window)
            opened = self._likely(clients, self.corrupt, degree, threshold)
        starved = np.logaddexp2(
            self._likely(clients, self.lost, degree, spare),
            self._likely(clients, self.lost, window, window - floor + 1),
        )
        return Failures(split, opened, float(starved))

    def safe(self, failures: Failures) -> bool:
        """Whether a graph keeps everybody's secrets."""
        return failures.split <= -self.bits and failures.opened <= -self.bits

    def met_by(self, failures: Failures) -> bool:
        """Whether it does, and rounds do not abort."""
        return self.safe(failures) and failures.starved <= -LIVENESS_BITS

    def _likely(self, clients: int, marked: int, drawn: int, least: int) -> float:
        """log2 of the expected number of clients whose ``drawn`` companions hold at least ``least`` marked ones."""
        tails = log2_tails(clients - 1, marked, drawn)
        return float(tails[min(max(least, 0), drawn + 1)]) + math.log2(clients)


def smallest_degree(clients: int, demands: Demands) -> tuple[int, int] | None:
    """Degree k and share threshold t of the sparsest random Harary graph that meets the demands, or None.

    Args:
        clients: Clients on the ring, n.
        demands: What it has to bear.
    """
    for degree in range(2, clients - 1, 2):
        threshold = threshold_for(degree, clients, demands)
        if threshold is not None:
            return degree, threshold
    return None


def threshold_for(degree: int, clients: int, demands: Demands) -> int | None:
    """The share threshold t with which a random Harary graph of this degree meets the demands, or None.

    The largest that does, up to a majority of the share holders; else the smallest above.
    """
    thresholds = range(2, degree + 2)

    def failures(threshold: int) -> Failures:
        return demands.failures(clients, degree, threshold)

    # More shares are safer, and harder to come by.
    least = bisect_left(thresholds, True, key=lambda t: failures(t).opened <= -demands.bits)
    most = bisect_left(thresholds, True, key=lambda t: failures(t).starved > -LIVENESS_BITS) - 1
    if least > most or not demands.met_by(failures(thresholds[least])):
        return None
    return min(max(majority(degree + 1), thresholds[least]), thresholds[most])


@lru_cache(maxsize=64)
def log2_tails(others: int, marked: int, drawn: int) -> NDArray[np.float64]:
    """How likely chance gathers marked clients: log2 of hypergeometric tails.

    Args:
        others: Clients to draw from.
        marked: How many of them are marked, at most all.
        drawn: How many are drawn without replacement, at most all.

    Returns:
        log2 of P[at least j of those drawn are marked], for j from 0 to ``drawn + 1``. (drawn + 2,) float64.
    """
    factorials = np.concatenate([[0.0], np.cumsum(np.log2(np.arange(1, others + 1)))])

    def choices(among: int, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(factorials[among] - factorials[chosen] - factorials[among - chosen])

    hits = np.arange(max(0, drawn - (others - marked)), min(marked, drawn) + 1)
    likely = np.full(drawn + 2, -np.inf)
    likely[hits] = choices(marked, hits) + choices(others - marked, drawn - hits) - choices(others, np.array(drawn))
    tails = np.asarray(np.logaddexp2.accumulate(likely[::-1])[::-1])
    tails.setflags(write=False)  # it is kept, and shared
    return tails
