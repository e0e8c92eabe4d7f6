"""How much noise a budget needs: the smallest noise multiplier at which so many rounds cost at most so much."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from secagg.errors import ParameterError
from secagg.privacy.rdp import epsilon_of, rdp, sampler_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from secagg.privacy.events import Event

LEAST, MOST = 2.0**-20, 2.0**20
"""The noise multipliers that are looked at."""
_PRECISION = 1e-9


def epsilon_after(rounds: int, event: Event, delta: float) -> float:
    """The epsilon that ``rounds`` equal rounds cost at ``delta``.

    Raises:
        ParameterError: ``delta`` or ``rounds`` is outside its domain.
        InputError: The event is of no known kind.
    """
    if rounds < 1:
        raise ParameterError("rounds must be at least 1")
    return epsilon_of(rounds * rdp(event), delta, rounds * sampler_error(event))


def noise_for(epsilon: float, delta: float, rounds: int, event: Callable[[float], Event]) -> float:
    """The smallest noise multiplier at which ``rounds`` rounds cost at most (epsilon, delta).

    More noise must not cost more, as holds for every mechanism here.

    Args:
        epsilon: What may be spent, positive.
        delta: In (0, 1).
        rounds: How many equal rounds, at least 1.
        event: A round at a noise multiplier, for instance ``NoisySum(...).event``.

    Returns:
        The multiplier, at most a billionth above the smallest, relatively.

    Raises:
        ParameterError: A setting outside its domain, or no noise is enough.
    """
    if not 0 < epsilon < math.inf:
        raise ParameterError(f"epsilon must be positive and finite, not {epsilon}")

    def enough(noise_multiplier: float) -> bool:
        return epsilon_after(rounds, event(noise_multiplier), delta) <= epsilon

    if not enough(MOST):
        raise ParameterError(
            f"no noise makes {rounds} rounds cost at most epsilon {epsilon:g} at delta {delta:g}: raise epsilon or "
            "delta, or lower rounds"
        )
    low, high = LEAST, MOST
    while high > low * (1 + _PRECISION):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
