"""Which clients learn together: clusters of clients whose updates point the same way.

``agglomerative`` is for a server that sees every update (CA-AFP, arXiv 2603.01739: cosine distance, average linkage).

``secure_clusters`` needs only sums: spherical k-means (I. Dhillon and D. Modha, Machine Learning 42, 2001) on a public
random sketch of the updates. In each iteration every client picks the centroid of the largest cosine, by itself, and
puts its sketch, of length 1, into that centroid's slot of an otherwise empty vector; the secure sum of these vectors
holds each slot's sum, whose direction is the new centroid. Slots are counted before, in a session of bits: one that
fewer than ``smallest`` clients picked is closed, and its clients pick another, so that no small group is ever summed.

The server learns the counts of every pick, the sum of the sketches in every slot, and at last who is in which cluster,
which it has to know. Two sums that differ by one client, which picked another slot the next time, show that client's
sketch: fresh ones in each iteration, of another training with other batches, blur it hardly at all (a client's two
sketches have a cosine of .99; ``docs/security.md`` has what was measured). Only the few numbers of a sketch bound what
there is to see. Groups whose sketches must stay hidden are to be formed without clustering.

It starts from the sums of public random groups of ``smallest`` clients: of twice as many as clusters are wanted, those
that point the least the same way. After the second iteration the centroids that do so are kept. Random directions, the
usual start without data, are as far from one client as from another, so that several clusters share a slot for good.
In simulated runs with 30 clients, three clusters and a drift common to all, random directions found the clusters in one
of ten, as many groups as clusters in six to nine, twice as many in about nine or all.

Ours: the sketch, the counting and the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from protocols.randomness import generator, session_seed
from protocols.sessions.averaging import averages
from protocols.sessions.tally import tally
from secagg.errors import InputError, LayoutMismatchError, ParameterError, TooFewClientsError
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from protocols.aggregators import Client
    from protocols.sessions.averaging import Averages
    from protocols.sessions.tally import Tally

SKETCH_SIZE = 64
ITERATIONS = 5

_SPARE = 2
"""Slots that a cluster has at first."""

_SPARED = 2
"""Iterations with spare slots."""

_SLOTS = "slots"


@dataclass(frozen=True, eq=False)
class Clustering:
    """What a secure clustering returns.

    Args:
        membership: Client to its cluster, numbered by their first clients.
        sessions: What was counted and summed, in order.
    """

    membership: Mapping[Client, int]
    sessions: tuple[Tally | Averages, ...]

    @property
    def clusters(self) -> int:
        """How many there are."""
        return len(set(self.membership.values()))


def agglomerative(updates: Mapping[Client, NDArray[np.float64]], clusters: int, smallest: int) -> dict[Client, int]:
    """Clusters of updates by cosine distance and average linkage, none of them small.

    Args:
        updates: Client to its update, (length,), the same for all; none of them zero.
        clusters: How many to cut the tree into; fewer if there are fewer clients.
        smallest: A cluster of fewer clients is merged into the one at the smallest average distance, the smallest
            cluster first, until none is left.

    Returns:
        Client to its cluster, numbered by their first clients.

    Raises:
        InputError: An update is zero or not finite, so that it has no direction; ``culprits`` names its client.
        LayoutMismatchError: An update has another length than the first client's.
        ParameterError: ``clusters`` or ``smallest`` is below 1.
        TooFewClientsError: Fewer clients than ``smallest``.
    """
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    _check(len(updates), clusters, smallest)
    directions = _directions(updates)
    distances = np.clip(1 - directions @ directions.T, 0, 2)
    np.fill_diagonal(distances, 0)
    found = np.zeros(len(updates), np.int64)
    if len(updates) > 1:
        tree = linkage(squareform(distances, checks=False), "average")
        found = cut_tree(tree, min(clusters, len(updates)))[:, 0]
    return _numbered(updates, _merge_small(found, distances, smallest))


def sketch(update: NDArray[np.float64], size: int = SKETCH_SIZE, *, public_seed: int = 0) -> NDArray[np.float64]:
    """A random projection of an update to a few numbers that keeps angles, of length 1; (size,) float64.

    Each coordinate is added, with a random sign, to one number chosen at random (M. Charikar et al., "Finding frequent
    items in data streams", 2002). Products of sketches are right on average and scatter by about ``1 / sqrt(size)`` of
    the lengths, as with a dense projection, at the cost of one addition a coordinate.

    Args:
        update: (length,).
        size: Of the sketch.
        public_seed: Of the projection, the same for all clients.

    Raises:
        InputError: The update, or its sketch, is zero or not finite.
    """
    draws = generator(public_seed, "sketch", size, update.size)
    places, signs = draws.integers(size, size=update.size), 2.0 * draws.integers(2, size=update.size) - 1
    return _direction(np.bincount(places, signs * update.reshape(-1), size).astype(np.float64))


def secure_clusters(
    clients: Sequence[Client],
    sketch_of: Callable[[Client, int], NDArray[np.float64]],
    *,
    clusters: int,
    smallest: int,
    params: Params | None = None,
    iterations: int = ITERATIONS,
    public_seed: int = 0,
    seed: bytes | None = None,
    encrypted: bool = True,
) -> Clustering:
    """Clusters of sketches by spherical k-means on secure sums; see the module for what the server learns.

    Args:
        clients: Who is clustered; all of them take part in every session.
        sketch_of: Gives a client's sketch, as ``sketch``, in an iteration from 0 to ``iterations + 1``: the first is
            for the start, the last for the final choice alone and never summed. It must come of training of its own.
        clusters: Most clusters; there are fewer where small ones were closed.
        smallest: Fewest clients of a cluster, and in any sum.
        params: The thresholds, as in any session.
        iterations: How often the centroids move, at least 1.
        public_seed: Of the groups that it starts from.
        seed: Makes the secrets of the sessions repeatable: for simulations, and a new one each clustering.
        encrypted: False computes the same in the clear; it agrees bit for bit.

    Raises:
        InputError: A sketch is zero or not finite; ``culprits`` names its client.
        LayoutMismatchError: A sketch has another length than the first client's.
        ParameterError: A setting below 1, ``smallest`` so small that dropouts could leave too small a sum, or a server
            that may lie.
        TooFewClientsError: Fewer clients than ``smallest`` or than a threshold demands.
    """
    if iterations < 1:
        raise ParameterError(f"iterations must be at least 1, not {iterations}")
    params = params or Params()
    _check(len(clients), clusters, smallest)
    _check_privacy(params, len(clients), smallest)
    sums = _Sums(tuple(clients), smallest, params, seed, encrypted=encrypted)

    def directions(iteration: int) -> NDArray[np.float64]:
        return _directions({client: sketch_of(client, iteration) for client in clients})

    groups = _groups(len(clients), smallest, public_seed)
    centroids = _far_apart(sums.directions(directions(0), groups), _SPARE * clusters)
    for iteration in range(1, iterations + 1):
        sketches = directions(iteration)
        centroids = sums.directions(sketches, sums.choose(sketches, centroids))
        if iteration == min(_SPARED, iterations):
            centroids = _far_apart(centroids, clusters)
    choices = sums.choose(directions(iterations + 1), centroids)
    return Clustering(_numbered(clients, choices), tuple(sums.sessions))


@dataclass
class _Sums:
    """What the server adds up, and the sessions that it took.

    Args:
        clients: Who takes part.
        smallest: Fewest clients in a slot.
        params: The thresholds.
        seed: Of all sessions, or None.
        encrypted: Whether they are.
    """

    clients: tuple[Client, ...]
    smallest: int
    params: Params
    seed: bytes | None
    encrypted: bool = field(kw_only=True)
    sessions: list[Tally | Averages] = field(default_factory=list)

    def choose(self, sketches: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.intp]:
        """Each client's nearest centroid among those that stay open; every one of them is somebody's.

        Args:
            sketches: Of each client, (clients, size), of length 1.
            centroids: (slots, size), of length 1.
        """
        while True:
            choices: NDArray[np.intp] = (sketches @ centroids.T).argmax(axis=1)
            bits = {client: np.arange(len(centroids)) == own for client, own in zip(self.clients, choices, strict=True)}
            counted = tally(bits, params=self.params, seed=self._new_seed(), encrypted=self.encrypted)
            self.sessions.append(counted)
            if counted.counts.min() >= self.smallest:
                return choices
            centroids = np.delete(centroids, counted.counts.argmin(), axis=0)

    def directions(self, sketches: NDArray[np.float64], slots: NDArray[np.intp]) -> NDArray[np.float64]:
        """The direction of the sum in each slot, (slots, size); slots are numbered through and have clients enough."""
        vectors = {}
        for client, own, slot in zip(self.clients, sketches, slots, strict=True):
            vector = torch.zeros(int(slots.max()) + 1, len(own), dtype=torch.float64)
            vector[int(slot)] = torch.from_numpy(own)
            vectors[client] = {_SLOTS: vector}
        averaged = averages(
            vectors, ranges={_SLOTS: 1.0}, params=self.params, seed=self._new_seed(), encrypted=self.encrypted
        )
        self.sessions.append(averaged)
        return np.stack([_direction(row) for row in averaged.mean[_SLOTS].numpy()])

    def _new_seed(self) -> bytes | None:
        return None if self.seed is None else session_seed(self.seed, "clusters", len(self.sessions))


def _groups(clients: int, smallest: int, public_seed: int) -> NDArray[np.intp]:
    """A random group for each client, of ``smallest`` clients or, for what is left over, a few more."""
    order = generator(public_seed, "groups", clients, smallest).permutation(clients)
    groups = np.empty(clients, np.intp)
    groups[order] = np.minimum(np.arange(clients) // smallest, clients // smallest - 1)
    return groups


def _far_apart(directions: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Those that point the least the same way: first the one farthest from the middle, then from all taken before."""
    taken = [int((directions @ directions.sum(axis=0)).argmin())]
    while len(taken) < min(most, len(directions)):
        nearest = (directions @ directions[taken].T).max(axis=1)
        nearest[taken] = np.inf
        taken.append(int(nearest.argmin()))
    return directions[taken]


def _merge_small(found: NDArray[np.int64], distances: NDArray[np.float64], smallest: int) -> NDArray[np.int64]:
    merged = found.copy()
    while True:
        clusters, counts = np.unique(merged, return_counts=True)
        if counts.min() >= smallest:
            return merged
        small = clusters[counts.argmin()]
        others = clusters[clusters != small]
        apart = [distances[np.ix_(merged == small, merged == other)].mean() for other in others]
        merged[merged == small] = others[int(np.argmin(apart))]


def _numbered(clients: Iterable[Client], found: NDArray[np.integer[Any]]) -> dict[Client, int]:
    """Client to its cluster, renumbered in order of first appearance."""
    numbers: dict[int, int] = {}
    return {client: numbers.setdefault(int(own), len(numbers)) for client, own in zip(clients, found, strict=True)}


def _directions(vectors: Mapping[Client, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Every client's vector at length 1, (clients, length)."""
    shape = next(iter(vectors.values())).shape
    rows = []
    for client, vector in vectors.items():
        if vector.shape != shape or vector.ndim != 1:
            raise LayoutMismatchError(f"client {client}: its vector has another shape", culprits=[client])
        try:
            rows.append(_direction(vector))
        except InputError as error:
            raise InputError(f"client {client}: {error}", culprits=[client]) from None
    return np.stack(rows)


def _direction(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    if not 0 < length < math.inf:
        raise InputError("a vector that is zero or not finite has no direction")
    return vector / length


def _check(clients: int, clusters: int, smallest: int) -> None:
    for name, value in (("clusters", clusters), ("smallest", smallest)):
        if value < 1:
            raise ParameterError(f"{name} must be at least 1, not {value}")
    if clients < smallest:
        raise TooFewClientsError(f"{clients} clients are fewer than smallest {smallest}")


def _check_privacy(params: Params, clients: int, smallest: int) -> None:
    """A slot must have clients enough after every dropout that its session tolerates, and be counted truly."""
    if params.active:
        raise ParameterError(
            "counts and centroids come from the server, and an active one could leave a client alone in its slot: set "
            "adversary='semi-honest', or do without clusters"
        )
    dropouts = params.dropouts_tolerated(clients, params.topology(clients).needed)
    needed = params.privacy_floor + dropouts
    if smallest < needed:
        raise ParameterError(
            f"smallest must be at least {needed} (min_cohort + corrupt + the {dropouts} dropouts tolerated), "
            f"not {smallest}: raise it, or lower max_dropouts"
        )
