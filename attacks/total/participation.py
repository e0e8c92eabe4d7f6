"""Known participation: many sums over changing cohorts, solved for single clients.

Threat: a server that sees the sums of several rounds and who took part in each, as every server does. Where a client's
update changes little from round to round, each sum is a linear equation with one unknown per client, and about as many
rounds as there are clients give them away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attacks.attack import Reconstruction, Threat
from attacks.likeness import cosine

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAINTEST = 0.1
"""Singular values below this share of the largest count as zero: what varies from round to round hides those."""


@dataclass(frozen=True, eq=False)
class KnownCohorts:
    """What the server sees.

    Args:
        sums: Of each round, zero where withheld, (rounds, d).
        held: Whether a client is in a round's sum at a coordinate, (rounds, clients, d) bool.
        victim: The client that it is after.
    """

    sums: NDArray[np.float64]
    held: NDArray[np.bool_]
    victim: int


class LeastSquares(Reconstruction[KnownCohorts, "NDArray[np.float64]", "NDArray[np.float64]"]):
    """The update of least norm among those that fit the sums best.

    Coordinates that are held by the same clients in the same rounds share their equations.
    """

    name = "known participation"
    threat = Threat.SEVERAL_ROUNDS
    source = "So et al., Securing Secure Aggregation: Mitigating Multi-Round Privacy Leakage, AAAI 2023"
    unit = "cosine"
    success = 0.8

    def guess(self, view: KnownCohorts, rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG002 - no chance
        """The victim's update, (d,)."""
        rounds, clients, size = view.held.shape
        bits = np.packbits(view.held.reshape(rounds * clients, size), axis=0)
        _, kind, count = np.unique(bits, axis=1, return_inverse=True, return_counts=True)
        found = np.zeros(size)
        for alike in np.split(np.argsort(kind.ravel(), kind="stable"), np.cumsum(count)[:-1]):
            equations = view.held[:, :, alike[0]].astype(np.float64)
            found[alike] = np.linalg.pinv(equations, rcond=FAINTEST)[view.victim] @ view.sums[:, alike]
        return found

    def quality(self, guess: NDArray[np.float64], secret: NDArray[np.float64]) -> float:
        """Cosine with the victim's update, the mean of those that it sent."""
        return cosine(guess, secret)
