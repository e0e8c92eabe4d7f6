"""Privacy loss distributions tell the exact epsilon of Gaussian noise, a hair above it, and refuse other noise."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from secagg.errors import ParameterError
from secagg.privacy.events import (
    Composed,
    DiscreteGaussianSum,
    Event,
    Gaussian,
    NonPrivate,
    SampledGaussian,
    SkellamSum,
)
from secagg.privacy.ledger import PrivacyLedger
from secagg.privacy.pld import MOST, ROUNDING, steps_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

DELTA = 1e-5
GAUSSIAN = Gaussian(noise_multiplier=4)
SKELLAM = SkellamSum(l1=30, l2=10, variance=2500, dimension=9)
DISCRETE = DiscreteGaussianSum(l1=30, l2=10, variance=2500, local_std=5, contributors=100, dimension=9)


def ledger_of(*events: Event) -> PrivacyLedger:
    ledger = PrivacyLedger()
    for event in events:
        ledger.record(event)
    return ledger


def sampled(rate: float, noise_multiplier: float, steps: int) -> SampledGaussian:
    return SampledGaussian(sample_rate=rate, noise_multiplier=noise_multiplier, steps=steps)


def solved(delta_at: Callable[[float], float], delta: float) -> float:
    return float(brentq(lambda epsilon: delta_at(epsilon) - delta, 0, 50, xtol=1e-12))


def gaussian_epsilon(noise_multiplier: float, delta: float) -> float:
    """Exact. B. Balle and Y. Wang (ICML 2018), theorem 8."""
    half = 1 / (2 * noise_multiplier)

    def delta_at(epsilon: float) -> float:
        shift = epsilon * noise_multiplier
        return float(ndtr(half - shift) - np.exp(epsilon + log_ndtr(-half - shift)))

    return solved(delta_at, delta)


class Step:
    """A step of sampled Gaussian noise: N(0, z^2) without the contribution, mixed with N(1, z^2) with it."""

    def __init__(self, event: SampledGaussian) -> None:
        self.q, self.z = event.sample_rate, event.noise_multiplier

    def loss(self, x: Numbers) -> Numbers:
        """How much likelier x is with the contribution than without, as a logarithm."""
        return np.logaddexp(np.log1p(-self.q), np.log(self.q) + (2 * x - 1) / (2 * self.z**2))

    def weights(self, x: Numbers, present: bool) -> Numbers:  # noqa: FBT001 - one of the two neighbours
        density = np.exp(-(x**2) / (2 * self.z**2)) / (self.z * math.sqrt(2 * math.pi))
        return density * np.exp(self.loss(x)) if present else density

    def delta(self, epsilon: Numbers, present: bool) -> Numbers:  # noqa: FBT001 - as in weights
        """Mass of one neighbour above e^epsilon times the other: present to absent, or absent to present."""
        odds = np.exp(epsilon if present else -epsilon)
        with np.errstate(divide="ignore"):
            x = 0.5 + self.z**2 * np.log(np.maximum(0, odds - 1 + self.q) / self.q)
        if present:
            absent = ndtr(-x / self.z)
            return (1 - self.q) * absent + self.q * ndtr((1 - x) / self.z) - odds * absent
        return ndtr(x / self.z) - ((1 - self.q) * ndtr(x / self.z) + self.q * ndtr((x - 1) / self.z)) / odds


def two_steps_epsilon(one: SampledGaussian, other: SampledGaussian, delta: float) -> float:
    """By quadrature: what is left of epsilon after the loss of one step, at the other; the worse direction."""
    first, second = Step(one), Step(other)
    x = np.linspace(-12 * first.z, 1 + 12 * first.z, 20001)

    def delta_at(epsilon: float) -> float:
        return max(
            float(
                np.trapezoid(
                    first.weights(x, present)
                    * second.delta(epsilon - (first.loss(x) if present else -first.loss(x)), present),
                    x,
                )
            )
            for present in (True, False)
        )

    return solved(delta_at, delta)


@pytest.mark.parametrize(
    ("noise_multiplier", "times", "delta"),
    [(0.7, 1, 1e-5), (1.0, 1, 1e-3), (8.0, 16, 1e-9), (20.0, 400, 1e-6), (40.0, 3, 1e-5)],
)
def test_composed_gaussians_cost_exactly_one_with_less_noise(noise_multiplier: float, times: int, delta: float) -> None:
    exact = gaussian_epsilon(noise_multiplier / math.sqrt(times), delta)
    for event in (Gaussian(noise_multiplier=noise_multiplier), sampled(1.0, noise_multiplier, 1)):
        ledger = ledger_of(Composed(events=(event,), times=times))
        spent = ledger.epsilon(delta, "pld")
        assert exact - 1e-9 < spent < min(exact + 1e-3, 0.98 * ledger.epsilon(delta))


def test_gaussians_of_different_noise_add_their_precisions() -> None:
    exact = gaussian_epsilon((1 / 9 + 2 / 25 + 1 / 49) ** -0.5, DELTA)
    mixed = ledger_of(*(Gaussian(noise_multiplier=z) for z in (3, 5, 7)), sampled(1.0, 5, 1))
    assert exact - 1e-9 < mixed.epsilon(DELTA, "pld") < exact + 1e-3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (sampled(0.1, 1.0, 1), sampled(0.1, 1.0, 1)),
        (sampled(0.02, 0.7, 1), sampled(0.5, 2.0, 1)),
        (sampled(0.9, 1.5, 1), sampled(0.3, 1.5, 1)),
    ],
)
@pytest.mark.parametrize("delta", [1e-3, 1e-6])
def test_two_steps_on_samples_cost_what_a_double_integral_says(
    one: SampledGaussian, other: SampledGaussian, delta: float
) -> None:
    exact = two_steps_epsilon(one, other, delta)
    assert exact - 1e-7 < ledger_of(one, other).epsilon(delta, "pld") < exact + 1e-3


def test_samples_and_everybody_compose() -> None:
    """A step on nearly everybody is one on everybody, up to a total variation of 1e-9."""
    together = ledger_of(sampled(1 - 1e-9, 3.0, 4), Gaussian(noise_multiplier=2)).epsilon(DELTA, "pld")
    assert together == pytest.approx(gaussian_epsilon((4 / 9 + 1 / 4) ** -0.5, DELTA), abs=1e-3)


def test_rounding_of_many_steps_hides_nothing() -> None:
    """Where all are drawn but for 2^-53, a hundred thousand steps are one; without the margin this is too little."""
    steps = 100_000
    delta = 1.2 * ROUNDING * steps
    spent = ledger_of(sampled(1 - 2.0**-53, math.sqrt(steps), steps)).epsilon(delta, "pld")
    assert gaussian_epsilon(1.0, delta) < spent < gaussian_epsilon(1.0, delta / 10)


@pytest.mark.parametrize(
    "events",
    [
        (sampled(0.01, 1.0, 200),),
        (sampled(0.1, 1.5, 50),) * 4,
        (sampled(0.05, 1.0, 20), GAUSSIAN, Composed(events=(sampled(0.2, 2.0, 10),), times=2)),
    ],
)
def test_it_is_tighter_than_rdp_and_every_round_costs_more(events: tuple[Event, ...]) -> None:
    spent = [ledger_of(*events[:count]).epsilon(DELTA, "pld") for count in range(len(events) + 1)]
    assert all(less < more for less, more in pairwise(spent))
    assert 0.5 * ledger_of(*events).epsilon(DELTA) < spent[-1] < 0.97 * ledger_of(*events).epsilon(DELTA)


def test_the_order_and_the_grouping_of_steps_change_nothing() -> None:
    one, other = sampled(0.1, 1.0, 5), sampled(0.3, 2.0, 2)
    joined = (Composed(events=(one, other), times=3), Gaussian(noise_multiplier=9.0))
    apart = (*[other, one] * 3, sampled(1.0, 9.0, 1))
    assert steps_of(joined) == steps_of(apart) == {(1.0, 0.1): 15, (2.0, 0.3): 6, (9.0, 1.0): 1}
    assert ledger_of(*joined).epsilon(DELTA, "pld") == pytest.approx(ledger_of(*apart).epsilon(DELTA, "pld"))


@pytest.mark.parametrize(
    "events",
    [
        (SKELLAM,),
        (DISCRETE,),
        (GAUSSIAN, SKELLAM),
        (Composed(events=(GAUSSIAN, Composed(events=(DISCRETE,))), times=2),),
    ],
)
def test_sums_with_other_noise_are_refused_also_among_gaussians(events: tuple[Event, ...]) -> None:
    ledger = ledger_of(*events)
    with pytest.raises(ParameterError, match=r"accountant='rdp'.*Sum"):
        ledger.epsilon(DELTA, "pld")
    assert ledger.epsilon(DELTA) < math.inf


def test_nothing_costs_nothing_and_what_has_no_guarantee_costs_everything() -> None:
    assert PrivacyLedger().epsilon(DELTA, "pld") == 0
    for event in (NonPrivate(reason="a mask from data"), Gaussian(noise_multiplier=0), sampled(0.1, 0, 1)):
        assert ledger_of(GAUSSIAN, event).epsilon(DELTA, "pld") == math.inf


@pytest.mark.parametrize(
    ("noise_multiplier", "delta"),
    [(0.05, DELTA), (4.0, ROUNDING), (4.0, 1.1 * ROUNDING)],
    ids=["vast", "delta within rounding", "delta within the tails left out"],
)
def test_where_distributions_say_nothing_rdp_answers(noise_multiplier: float, delta: float) -> None:
    ledger = ledger_of(Gaussian(noise_multiplier=noise_multiplier))
    assert ledger.epsilon(delta, "pld") == ledger.epsilon(delta)
    assert (ledger.epsilon(delta) > MOST) == (delta == DELTA)


def test_a_missing_package_names_the_extra_and_rdp_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    ledger = ledger_of(GAUSSIAN)
    with pytest.raises(ParameterError, match=r"pip install 'secagg\[pld\]'"):
        ledger.epsilon(DELTA, "pld")
    assert ledger.epsilon(DELTA) > 0


@pytest.mark.parametrize(("delta", "accountant", "named"), [(0.0, "pld", "delta"), (DELTA, "guess", "accountant")])
def test_settings_outside_their_domain_are_refused(delta: float, accountant: Any, named: str) -> None:
    for ledger in (PrivacyLedger(), ledger_of(GAUSSIAN)):
        with pytest.raises(ParameterError, match=named):
            ledger.epsilon(delta, accountant)
