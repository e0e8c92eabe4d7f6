"""What the lower bounds on epsilon share: how surely they hold, and where a rising function crosses a value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attacks.measurement import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Callable

ALPHA = 1 - CONFIDENCE
"""How often a bound may exceed the true epsilon."""

MOST_EPSILON = 700.0
"""Beyond it e^epsilon is no float64, and no epsilon of any use."""

LEAST_P = 1e-30
"""Below it p-values are not told apart."""

SAYS = "epsilon of one sum, at least"
"""What every bound measures."""


@dataclass(frozen=True)
class Claim:
    """What is claimed of one release.

    Args:
        epsilon: Infinite where nothing is claimed.
        delta: In (0, 1).
    """

    epsilon: float
    delta: float


def crossing(rising: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Where a non-decreasing function exceeds a value, between two ends, to 2^-40 of their distance; by bisection.

    Returns ``low`` where it exceeds it everywhere, ``high`` where it does so nowhere.
    """
    if rising(high) <= value:
        return high
    for _ in range(40):
        middle = (low + high) / 2
        if rising(middle) <= value:
            low = middle
        else:
            high = middle
    return low


def p_value(bound: Callable[[float], float], claimed: float) -> float:
    """The smallest alpha at which a bound rules out what is claimed, at least ``LEAST_P``.

    A bound that exceeds the truth with probability at most alpha, for every alpha, exceeds a claim that holds with
    probability at most alpha too: so this is a p-value.

    Args:
        bound: From alpha to the bound, non-decreasing.
        claimed: An epsilon; infinity is never ruled out.
    """
    if math.isinf(claimed):
        return 1.0
    return 10 ** crossing(lambda exponent: bound(10**exponent), claimed, math.log10(LEAST_P), 0.0)
