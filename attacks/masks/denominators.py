"""Hidden weights and hidden masks that are not: what exact denominators say.

Threat: a server that sees the declared masks and, for each pattern of holders, the sum of their weights. Every pattern
is a linear equation; with enough of them the system has one solution. This is why ``secagg`` sums hidden weights only
over groups of equal masks, each as large as the release rule demands.

In a uniform session, which hides the masks, the denominators themselves are what says too much, where they are exact:
the weight between two units is held by the clients that hold both, and from how many those are the masks follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from attacks.attack import Reconstruction, Threat
from attacks.masks.equations import solve
from secagg.counts import DENSE, STRUCTURED, UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from attacks.masks.coverage import Client
    from secagg import Layout

_MOST_CLIENTS = 10
"""Of which all sets are tried, for each unit."""

_MOST_STEPS = 5_000
"""After which a search is given up."""


def opened_weights(masks: Mapping[Client, NDArray[np.bool_]], denominators: NDArray[np.float64]) -> dict[Client, float]:
    """The weights that follow from the denominators.

    Args:
        masks: Client to the coordinates that it holds, (d,) bool.
        denominators: Sum of the weights of the holders of each coordinate, (d,); NaN where it was not released.

    Returns:
        Client to weight, for the clients whose weight the equations determine; the others are left out.
    """
    known = ~np.isnan(denominators)
    patterns, first = np.unique(np.array(list(masks.values()), bool)[:, known], axis=1, return_index=True)
    weights = solve(patterns.T, denominators[known][first])
    return {client: float(value) for client, value in zip(masks, weights, strict=True) if not np.isnan(value)}


@dataclass(frozen=True, eq=False)
class Counted:
    """What a server knows after one uniform session of clients that hold units.

    Args:
        layout: Of the session.
        sums: What its counting session summed, as ``secagg.counts.bits``.
        weight: The denominator of each coordinate, (d,); 0 where withheld.
        exact: Whether that is how many clients really hold the coordinate.
    """

    layout: Layout
    sums: Mapping[str, NDArray[np.float64]]
    weight: NDArray[np.float64]
    exact: bool


Masks = frozenset[tuple[int, bytes]]
"""Masks of clients that have no names: (how many of them are equal to it, units held, packed)."""


def nameless(held: NDArray[np.bool_]) -> Masks:
    """The masks of some clients without their order. ``held``: (clients, unit_count) bool."""
    rows, times = np.unique(np.packbits(held, axis=1), axis=0, return_counts=True)
    return frozenset((int(many), row.tobytes()) for row, many in zip(rows, times, strict=True))


class MasksFromDenominators(Reconstruction[Counted, Masks, Masks]):
    """Finds masks that agree with every count, unit after unit, the one with the fewest choices first.

    Which clients hold a unit is one of the sets of as many clients; of two units that meet in a weight, the sets must
    share as many clients as the weight has holders. Clients have no names in this, so the masks come without an order.
    """

    name: ClassVar[str] = "masks from denominators"
    threat: ClassVar[Threat] = Threat.THE_SUM
    source: ClassVar[str] = "of this project; counts of pairs are a Gram matrix of the masks"
    unit: ClassVar[str] = "share of masks"
    success: ClassVar[float] = 1.0

    def guess(self, view: Counted, rng: np.random.Generator) -> Masks:
        """The masks of those that are not dense, or no mask where the search fails."""
        dense = round(float(view.sums[DENSE][0]))
        clients = round(float(view.sums[STRUCTURED][0])) - dense
        if not 0 < clients <= _MOST_CLIENTS:
            return frozenset()
        sizes = np.rint(view.sums[UNITS]).astype(int) - dense
        pairs = self._pairs(view, dense)
        sets = np.array([[number >> client & 1 for client in range(clients)] for number in range(2**clients)], bool)
        shared = sets.astype(int) @ sets.T.astype(int)
        choices = sizes[:, None] == np.diag(shared)
        found = self._search(choices, pairs, shared, rng)
        return frozenset() if found is None else nameless(sets[found].T)

    def quality(self, guess: Masks, secret: Masks) -> float:
        """Share of the clients whose whole mask was found."""
        found = {row: many for many, row in guess}
        right = sum(min(many, found.get(row, 0)) for many, row in secret)
        return right / sum(many for many, _ in secret)

    @staticmethod
    def _pairs(view: Counted, dense: int) -> dict[int, list[tuple[int, int]]]:
        """Unit to the units that it meets, and how many of the clients that are not dense hold both."""
        pairs: dict[int, list[tuple[int, int]]] = {unit: [] for unit in range(view.layout.unit_count)}
        for tensor, place in view.layout.slices() if view.exact else ():
            if len(tensor.unit_axes) != 2:
                continue
            (first, rows), (second, columns) = sorted(tensor.unit_axes.items())
            rest = tuple(axis for axis in range(len(tensor.shape)) if axis not in {first, second})
            both = view.weight[place].reshape(tensor.shape).max(axis=rest)
            for row, of_row in zip(rows, both, strict=True):
                for column, holders in zip(columns, of_row, strict=True):
                    if row >= 0 and column >= 0 and row != column and holders:
                        count = round(float(holders)) - dense
                        pairs[row].append((column, count))
                        pairs[column].append((row, count))
        return pairs

    @staticmethod
    def _search(
        choices: NDArray[np.bool_],
        pairs: Mapping[int, list[tuple[int, int]]],
        shared: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> NDArray[np.int64] | None:
        """The number of the set of each unit, (units,), by depth-first search; None if there is none."""
        stack = [(choices, np.full(len(choices), -1))]
        for _ in range(_MOST_STEPS):
            if not stack:
                return None
            left, taken = stack.pop()
            open_ = np.flatnonzero(taken < 0)
            if not open_.size:
                return taken
            few = left[open_].sum(axis=1)
            unit = int(open_[few.argmin()])
            for number in rng.permutation(np.flatnonzero(left[unit])):
                narrowed, now = left.copy(), taken.copy()
                narrowed[unit], now[unit] = False, number
                narrowed[unit, number] = True
                for other, count in pairs[unit]:
                    narrowed[other] &= shared[number] == count
                if narrowed.any(axis=1).all():
                    stack.append((narrowed, now))
        return None
