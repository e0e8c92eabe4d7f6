"""Distributions of the privacy loss: for Gaussian noise epsilon itself, which Renyi divergences only bound.

The loss of a release is the logarithm of how much likelier it is on one of two neighbours than on the other. Losses of
events on the same data add up, so their distributions are convolved, for either order of the two neighbours. Google's
dp-accounting does so on a grid, and rounds so that epsilon can only grow: V. Doroshenko et al., "Connect the Dots:
Tighter Discrete Approximations of Privacy Loss Distributions" (PoPETs 2022).

It takes a pair of distributions that no two neighbours are further apart than. With Gaussian noise that is one number
with the same noise, shifted by the sensitivity or not: the noise looks alike from all sides, whatever earlier releases
led to. Poisson sampling mixes both into one of the pair (Y. Zhu, J. Dong, Y.-X. Wang, "Optimal Accounting of
Differential Privacy via Characteristic Function", AISTATS 2022). Skellam and discrete Gaussian noise do not look alike
from all sides: what a vector loses depends on how its norm is spread over the coordinates, and no pair is known here
that bounds every spread. So sums with such noise are refused, and RDP, which bounds them all, counts them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from secagg.errors import ParameterError
from secagg.privacy.events import Composed, Event, Gaussian, NonPrivate, SampledGaussian

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dp_accounting.pld import PLDAccountant

MOST = 50.0
"""Beyond this epsilon by RDP, distributions are not computed: they would take gigabytes."""

GRID = 1e-4
"""Width of the grid of losses."""

ROUNDING = 1e-15
"""How much of delta is given up for each step, since Fourier transforms err in its last digits: a hundred times the
largest error seen, at a hundred thousand steps."""


def epsilon(events: Iterable[Event], delta: float, bound: float) -> float:
    """What events cost together by the distribution of their loss, or ``bound`` where that is less.

    Args:
        events: Of Gaussian noise, on samples or not, or without a guarantee.
        delta: In (0, 1).
        bound: What they cost by RDP. At 0 and beyond ``MOST`` nothing is computed, and it is the answer.

    Raises:
        ParameterError: An event with other noise, or dp-accounting is not installed.
    """
    steps = steps_of(events)
    left = delta - ROUNDING * steps.total()
    if not 0 < bound <= MOST or left <= 0:
        return bound
    return min(bound, float(_accountant(steps).get_epsilon(left)))


def steps_of(events: Iterable[Event], times: int = 1) -> Counter[tuple[float, float]]:
    """How many steps of Gaussian noise there were, by noise multiplier and sample rate.

    Args:
        events: As ``epsilon``; one without a guarantee is a step without noise.
        times: How often all of them happened.

    Raises:
        ParameterError: An event with other noise.
    """
    steps: Counter[tuple[float, float]] = Counter()
    for event in events:
        match event:
            case SampledGaussian():
                steps[event.noise_multiplier, event.sample_rate] += times * event.steps
            case Gaussian():
                steps[event.noise_multiplier, 1.0] += times
            case NonPrivate():
                steps[0.0, 1.0] += times
            case Composed():
                steps.update(steps_of(event.events, times * event.times))
            case _:
                raise ParameterError(f"only accountant='rdp' counts events of kind {type(event).__name__}")
    return steps


def _accountant(steps: Counter[tuple[float, float]]) -> PLDAccountant:
    try:
        import dp_accounting
        from dp_accounting.pld import PLDAccountant
    except ModuleNotFoundError as error:
        raise ParameterError("accountant='pld' needs dp-accounting: pip install 'secagg[pld]'") from error
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL, value_discretization_interval=GRID)
    precision = 0.0  # steps on everybody are together one step: precisions of Gaussian noise add up
    for (multiplier, rate), count in steps.items():
        if rate == 1:
            precision += count / multiplier**2
            continue
        step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(multiplier))
        accountant.compose(step, count)
    if precision > 0:
        accountant.compose(dp_accounting.GaussianDpEvent(precision**-0.5))
    return accountant
