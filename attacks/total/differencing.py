"""n versus n - 1: two sums whose cohorts differ in one client are, subtracted, that client's update.

Threat: a server that has a round summed again from the same model without one of its clients, because that one dropped
out, or so it says; whoever is asked again for the same model sends the same update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attacks.attack import Reconstruction, Threat
from attacks.likeness import cosine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from attacks.total.rounds import Sum


@dataclass(frozen=True, eq=False)
class TwoSums:
    """What the server sees.

    Args:
        whole: The sum over everybody.
        without: The sum over everybody but the victim.
    """

    whole: Sum
    without: Sum


class Differencing(Reconstruction[TwoSums, "NDArray[np.float64]", "NDArray[np.float64]"]):
    """Subtracts one sum from the other wherever both were released."""

    name = "n versus n - 1"
    threat = Threat.SEVERAL_ROUNDS
    source = "Dwork and Roth, The Algorithmic Foundations of Differential Privacy, 2014, section 1.1"
    unit = "cosine"
    success = 0.95

    def guess(self, view: TwoSums, rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG002 - no chance
        """The victim's update, (d,), zero where one of the sums is withheld."""
        both = (view.whole.holders > 0) & (view.without.holders > 0)
        return np.where(both, view.whole.values - view.without.values, 0.0)

    def quality(self, guess: NDArray[np.float64], secret: NDArray[np.float64]) -> float:
        """Cosine with the victim's update."""
        return cosine(guess, secret)
