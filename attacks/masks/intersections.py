"""Sums of several rounds held against each other: two that differ in one holder give its part away.

Each round keeps to its smallest cohort; together they need not. What a client brings is taken to be the same in every
round, which it is where a server hands out the same model twice, and nearly so from one round to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from attacks.attack import Reconstruction, Threat
from attacks.likeness import cosine
from attacks.masks.equations import solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH = 4096
"""Systems that are solved at once."""


@dataclass(frozen=True, eq=False)
class Rounds:
    """What a server has of several rounds, and whom it asks about.

    Args:
        sums: Of each round, (rounds, d).
        holders: Who is in each sum as far as the server knows, (rounds, clients, d) bool; nobody where withheld.
        client: Place of a client among them.
    """

    sums: NDArray[np.float64]
    holders: NDArray[np.bool_]
    client: int


def singled_out(holders: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many coordinates of each client the sums of several rounds determine, (clients,).

    Args:
        holders: Who is in each sum, (rounds, clients, d) bool.
    """
    patterns, times = np.unique(np.moveaxis(holders, 2, 0), axis=0, return_counts=True)
    nothing = np.zeros(patterns.shape[:2])
    return (~np.isnan(_solved(patterns, nothing))).T.astype(np.int64) @ times


class CrossRound(Reconstruction[Rounds, "NDArray[np.float64]", "NDArray[np.float64]"]):
    """Solves the sums of all rounds, coordinate by coordinate, for one client's update."""

    name: ClassVar[str] = "cross-round intersection"
    threat: ClassVar[Threat] = Threat.SEVERAL_ROUNDS
    source: ClassVar[str] = "linear algebra: every set of holders is an equation"
    unit: ClassVar[str] = "cosine"
    success: ClassVar[float] = 0.7
    """Half of what was found is the client's: nearer to its update than to whatever is at right angles to it."""

    def guess(self, view: Rounds, rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG002 - nothing is random
        """The client's update, (d,); NaN at coordinates that the sums do not determine."""
        return _solved(np.moveaxis(view.holders, 2, 0), view.sums.T)[:, view.client]

    def quality(self, guess: NDArray[np.float64], secret: NDArray[np.float64]) -> float:
        """Cosine with the true update over the coordinates that were found; -1 where none was."""
        found = ~np.isnan(guess)
        return cosine(guess[found], secret[found])


def _solved(holders: NDArray[np.bool_], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    parts = [slice(start, start + _BATCH) for start in range(0, len(holders), _BATCH)]
    return np.concatenate([solve(holders[part], sums[part]) for part in parts])
