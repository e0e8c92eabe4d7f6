"""How long a clipped vector may be once it is scaled and rounded to integers.

Each coordinate is rounded up or down at random, so that its mean stays, and all of it again until the result is no
longer than the bound: conditional stochastic rounding. The bound then holds for certain, at no cost in delta; it costs
a bias that ``beta`` limits, the probability with which a first attempt is allowed to be refused. Source: P. Kairouz,
Z. Liu, T. Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation" (ICML
2021), section 4.1 and Proposition 22.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from secagg.errors import ParameterError

BETA = math.exp(-0.5)
"""What the paper proposes: sqrt(2 ln(1 / beta)) is 1."""


class Sensitivity(NamedTuple):
    """Largest norms of one contribution, in integers."""

    l1: float
    l2: float


def rounded_sensitivity(clip: float, scale: float, dimension: int, beta: float = BETA) -> Sensitivity:
    """The norms that a vector may have after clipping, scaling and conditional rounding.

    With Delta = clip * scale, the L2 norm is at most Delta + sqrt(d), however it is rounded, and with probability
    1 - beta at most sqrt(Delta^2 + d / 4 + sqrt(2 ln(1 / beta)) (Delta + sqrt(d) / 2)). The L1 norm of an integer
    vector is at most the square of its L2 norm, and at most sqrt(d) times it.

    Args:
        clip: L2 norm to which vectors are clipped, positive.
        scale: By what they are multiplied before rounding, positive.
        dimension: Coordinates d that are rounded, at least 1.
        beta: Bias of the rounding, in [0, 1); at 0 nothing is ever rounded again.

    Raises:
        ParameterError: A setting outside its domain.
    """
    if not (0 < clip < math.inf and 0 < scale < math.inf and dimension >= 1):
        raise ParameterError("clip and scale must be positive and finite, dimension at least 1")
    if not 0 <= beta < 1:
        raise ParameterError(f"beta must be in [0, 1), not {beta}")
    length, root = clip * scale, math.sqrt(dimension)
    l2 = length + root
    if beta > 0:
        l2 = min(l2, math.sqrt(length**2 + dimension / 4 + math.sqrt(-2 * math.log(beta)) * (length + root / 2)))
    return Sensitivity(l2 * min(root, max(1.0, l2)), l2)  # below 1 the only integer vector is zero
