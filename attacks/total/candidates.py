"""Two candidates: which of two known updates is in the sum?

Threat: a server that sees the sum of one round, suspects that a client has one of two data sets, and can train on both;
so it knows the two updates, one of which was added. Of the other clients it knows how many they are, and from data of
its own of the same kind, how their updates spread.

The others' sum is close to Gaussian, so the best test is a linear one (Neyman and Pearson): with updates of mean m and
covariance C, the logarithm of how much likelier the first candidate a is than the second, b, is
(a - b)' C^-1 (S - (n-1) m - (a+b)/2) / (n-1). Without data of its own the server takes m = 0 and C = I: inner products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attacks.attack import Distinguisher, Threat

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHRINKAGE = 0.1
"""Share of the spread of the background that counts as alike in all directions: few updates say little of most."""


@dataclass(frozen=True, eq=False)
class TwoCandidates:
    """What the server sees.

    Args:
        total: The sum, (d,).
        holders: Clients in each coordinate's sum, 0 where it is withheld, (d,).
        candidates: The two updates, (2, d).
        background: Updates that the server trained on data of its own, (m, d); m may be 0.
        noise: Standard deviation of the noise in each coordinate of the sum; public.
    """

    total: NDArray[np.float64]
    holders: NDArray[np.int64]
    candidates: NDArray[np.float64]
    background: NDArray[np.float64]
    noise: float = 0.0


class CandidateTest(Distinguisher[TwoCandidates]):
    """Yes is the first candidate."""

    name = "two candidates"
    threat = Threat.THE_SUM
    source = "Ngo et al., Secure Aggregation Is Not Private Against Membership Inference Attacks, ECML PKDD 2024"

    def guess(self, view: TwoCandidates, rng: np.random.Generator) -> float:  # noqa: ARG002 - nothing is random
        """The logarithm of how much likelier the first candidate is; only its order counts."""
        summed = view.holders > 0
        others = np.maximum(view.holders[summed] - 1, 1)
        first, second = view.candidates[:, summed]
        background = view.background[:, summed]
        mean = background.mean(axis=0) if len(background) else 0.0
        residual = (view.total[summed] - others * mean - (first + second) / 2) / np.sqrt(others)
        direction = (first - second) / np.sqrt(others)
        return float(direction @ _solved(background - mean, view.noise**2 / float(others.mean()), residual))


def _solved(centred: NDArray[np.float64], noise: float, vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """C^-1 times a vector, C the shrunk covariance of these rows plus noise; by Woodbury's identity, rows are few."""
    if not len(centred):
        return vector
    spread = (1 - SHRINKAGE) / len(centred)
    alike = SHRINKAGE * float((centred**2).sum()) / centred.size + noise
    inner = np.eye(len(centred)) * (alike / spread) + centred @ centred.T
    return (vector - centred.T @ np.linalg.solve(inner, centred @ vector)) / alike
