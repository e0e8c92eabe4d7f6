"""Curves bound the exact divergences and hockey sticks of small cases, wrapped around or not."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ive

from secagg.errors import InputError, ParameterError
from secagg.privacy.calibrate import epsilon_after
from secagg.privacy.events import (
    Composed,
    DiscreteGaussianSum,
    Event,
    Gaussian,
    NonPrivate,
    SampledGaussian,
    SkellamSum,
)
from secagg.privacy.rdp import (
    LEAST_SAMPLED_MULTIPLIER,
    ORDERS,
    _binomial_moment,
    _moment,
    epsilon_of,
    rdp,
    sum_inflation,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pmf = NDArray[np.float64]

INTEGERS = tuple(order for order in ORDERS if order in {2, 3, 4, 8, 16, 64})
EPSILONS = (0.1, 0.5, 1.0, 2.0, 4.0)


def skellam(l2: float, variance: float, *, dimension: int = 1, l1: float | None = None, error: float = 0) -> SkellamSum:
    return SkellamSum(l1=l1 or l2, l2=l2, variance=variance, dimension=dimension, sampler_error=error)


def discrete_gaussian(shift: int, local_std: float, contributors: int) -> DiscreteGaussianSum:
    return DiscreteGaussianSum(
        l1=shift,
        l2=shift,
        variance=contributors * local_std**2,
        local_std=local_std,
        contributors=contributors,
        dimension=1,
    )


def skellam_pmf(variance: float, half: int = 120) -> Pmf:
    return ive(np.abs(np.arange(-half, half + 1)), variance)


def discrete_gaussian_sum_pmf(local_std: float, contributors: int, half: int) -> Pmf:
    k = np.arange(-half, half + 1)
    one = np.exp(-(k**2) / (2 * local_std**2))
    pmf = one / one.sum()
    total = pmf
    for _ in range(contributors - 1):
        total = np.convolve(total, pmf)
    return total


def divergence(pmf: Pmf, shift: int, order: int) -> float:
    """The exact Renyi divergence of a shifted distribution from itself: all terms are positive, and summed as logs."""
    logs = np.log(pmf)
    terms = order * logs[:-shift] + (1 - order) * logs[shift:]
    return float(np.logaddexp.reduce(terms)) / (order - 1)


def hockey_stick(one: Pmf, other: Pmf, epsilon: float) -> float:
    """The exact delta of two distributions, sum of max(0, p - e^epsilon q)."""
    return float(np.maximum(0, one - math.exp(epsilon) * other).sum())


def accounted_delta(event: Event, epsilon: float) -> float:
    """The smallest delta at which the accountant promises no more than epsilon, to a hundredth."""
    for tenths in range(-1500, 0):
        delta = 10 ** (tenths / 100)
        if epsilon_after(1, event, delta) <= epsilon:
            return delta
    return 1.0


# ---------------------------------------------------------------------------------- curves


@pytest.mark.parametrize(("shift", "variance"), [(1, 0.5), (1, 4), (5, 16), (3, 100)])
@pytest.mark.parametrize("order", [2, 3, 5, 8])
def test_the_skellam_curve_bounds_the_exact_divergence_and_is_close_to_it(
    shift: int, variance: float, order: int
) -> None:
    exact = divergence(skellam_pmf(variance), shift, order)
    bound = rdp(skellam(shift, variance))[ORDERS.index(order)]
    assert exact <= bound
    if variance == 100:
        assert bound <= 1.1 * exact


def test_the_skellam_curve_bounds_vectors_and_holds_at_integers_only() -> None:
    both = 2 * divergence(skellam_pmf(40), 1, 4)
    curve = rdp(skellam(math.sqrt(2), 40, dimension=2, l1=2))
    assert both <= curve[ORDERS.index(4)] <= 1.1 * both
    assert [math.isfinite(value) for value in curve] == [order == int(order) for order in ORDERS]


def test_curves_are_the_published_formulas() -> None:
    two, four = ORDERS.index(2), ORDERS.index(4)
    by_squares, by_length = rdp(skellam(2, 10, dimension=9, l1=6)), rdp(skellam(4, 0.5, dimension=1, l1=4))
    assert by_squares[two] == pytest.approx(2 * 4 / 20 + (3 * 4 + 36) / 400)
    assert by_squares[four] == pytest.approx(4 * 4 / 20 + (7 * 4 + 36) / 400)
    assert by_length[two] == pytest.approx(2 * 16 / 1 + 3 * 4 / 1)
    tau = 10 * (math.exp(-4 * math.pi**2) + math.exp(-16 / 3 * math.pi**2))
    for branch, l1 in ((1, 1e3), (2, 1e17)):
        dimension = 10**18
        event = DiscreteGaussianSum(l1=l1, l2=60, variance=12, local_std=2, contributors=3, dimension=dimension)
        e1, e2 = l1 / math.sqrt(12), 60 / math.sqrt(12)
        bounds = (
            2 * e2**2 + tau * dimension,
            2 * (e2**2 + 2 * e1 * tau + tau**2 * dimension),
            2 * (e2 + math.sqrt(dimension) * tau) ** 2,
        )
        assert rdp(event)[four] == pytest.approx(min(bounds), rel=1e-12)
        assert bounds.index(min(bounds)) == branch


@pytest.mark.parametrize(("shift", "local_std", "contributors"), [(1, 2.0, 1), (3, 2.0, 3), (4, 2.5, 2)])
@pytest.mark.parametrize("order", [2, 5, 8])
def test_the_discrete_gaussian_curve_bounds_the_exact_divergence_of_sums(
    shift: int, local_std: float, contributors: int, order: int
) -> None:
    total = discrete_gaussian_sum_pmf(local_std, contributors, half=60)
    exact = divergence(total[len(total) // 2 - 60 : len(total) // 2 + 61], shift, order)
    assert exact <= rdp(discrete_gaussian(shift, local_std, contributors))[ORDERS.index(order)] * (1 + 1e-9)
    assert exact >= 0.98 * order * shift**2 / (2 * contributors * local_std**2)


def test_sums_of_discrete_gaussians_are_as_near_to_one_as_tau_says() -> None:
    local_std, contributors = 1.0, 4
    total = discrete_gaussian_sum_pmf(local_std, contributors, half=40)
    k = np.arange(len(total)) - len(total) // 2
    one = np.exp(-(k**2) / (2 * contributors * local_std**2))
    centre = np.abs(k) <= 20
    ratios = np.abs(np.log(total[centre] / (one / one.sum())[centre]))
    assert 0 < ratios.max() <= sum_inflation(contributors, local_std)
    assert sum_inflation(1, local_std) == sum_inflation(0, local_std) == 0


def test_the_sampled_gaussian_moment_is_the_same_by_two_ways() -> None:
    for q, z in ((0.01, 1.0), (0.3, 0.4), (0.9, 5.0)):
        for order in (2.0, 3.0, 10.0):
            assert _moment(q, z, order) == pytest.approx(_binomial_moment(q, z, order), rel=1e-9, abs=1e-12)


def test_sampling_everybody_is_no_sampling_and_sampling_fewer_costs_less() -> None:
    whole = rdp(SampledGaussian(sample_rate=1, noise_multiplier=2, steps=3))
    assert np.array_equal(whole, 3 * rdp(Gaussian(noise_multiplier=2)))
    assert np.array_equal(rdp(Gaussian(noise_multiplier=2)), np.array(ORDERS) / 8)
    almost = rdp(SampledGaussian(sample_rate=1 - 1e-9, noise_multiplier=2, steps=3))
    assert almost == pytest.approx(whole, rel=1e-6)
    assert (rdp(SampledGaussian(sample_rate=0.1, noise_multiplier=2, steps=3)) < whole).all()


def test_dp_sgd_costs_what_opacus_says() -> None:
    event = SampledGaussian(sample_rate=0.01, noise_multiplier=1.0, steps=100)
    assert epsilon_after(1, event, 1e-5) == pytest.approx(1.2141452107864754, rel=1e-6)


def test_composition_adds_curves() -> None:
    one, other = skellam(3, 100), Gaussian(noise_multiplier=4)
    both = Composed(events=(one, Composed(events=(other,), times=2)), times=3)
    assert rdp(both) == pytest.approx(3 * (rdp(one) + 2 * rdp(other)))


@pytest.mark.parametrize(
    "event",
    [
        NonPrivate(reason="masks were computed from data"),
        Gaussian(noise_multiplier=0),
        SampledGaussian(sample_rate=0.1, noise_multiplier=0),
        skellam(1, 0),
        discrete_gaussian(1, 3.0, 0),
        discrete_gaussian(1, 1.9, 10),
        Composed(events=(Gaussian(noise_multiplier=1), NonPrivate(reason="plain"))),
    ],
)
def test_what_guarantees_nothing_costs_infinity(event: Event) -> None:
    assert np.isinf(rdp(event)).all()
    assert epsilon_after(1, event, 0.5) == math.inf


def test_an_unknown_event_is_an_error_and_not_free() -> None:
    with pytest.raises(InputError, match="Laplace"):
        rdp(type("Laplace", (), {})())
    with pytest.raises(InputError, match="int"):
        rdp(Composed(events=(0,)))  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------- epsilon and delta


def test_epsilon_is_above_the_exact_one_of_a_gaussian_by_less_than_a_tenth() -> None:
    def exact(mu: float, epsilon: float) -> float:
        return cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * cdf(-mu / 2 - epsilon / mu)

    cdf = NormalDist().cdf
    for z in (0.5, 1.0, 2.0, 10.0):
        spent = epsilon_after(1, Gaussian(noise_multiplier=z), 1e-5)
        assert exact(1 / z, spent) <= 1e-5 < exact(1 / z, 0.9 * spent)


@pytest.mark.parametrize("ring", [None, 16, 64])
@pytest.mark.parametrize(
    "event", [skellam(1, 2), skellam(2, 12), discrete_gaussian(2, 2.0, 3), discrete_gaussian(1, 2.5, 1)]
)
def test_the_exact_delta_of_a_noisy_sum_is_at_most_the_accountants(
    event: SkellamSum | DiscreteGaussianSum, ring: int | None
) -> None:
    half = 96
    if isinstance(event, SkellamSum):
        noise = skellam_pmf(event.variance, half)[:-1]
    else:
        whole = discrete_gaussian_sum_pmf(event.local_std, event.contributors, half=60)
        padded = np.pad(whole, 2 * half)
        noise = padded[len(padded) // 2 - half : len(padded) // 2 + half]
    shifted = np.roll(noise, round(event.l2))
    if ring is not None:
        noise, shifted = (part.reshape(-1, ring).sum(axis=0) for part in (noise, shifted))
    for epsilon in EPSILONS:
        bound = accounted_delta(event, epsilon)
        for pair in ((noise, shifted), (shifted, noise)):
            assert hockey_stick(*pair, epsilon) <= bound
    assert hockey_stick(noise, shifted, 0.1) > 0.01


def test_sampler_errors_take_their_part_of_delta() -> None:
    curve, delta, error = rdp(Gaussian(noise_multiplier=2)), 1e-5, 1e-8
    spent = epsilon_of(curve, delta, error)
    assert epsilon_of(curve, delta) < spent
    assert epsilon_of(curve, delta - (1 + math.exp(spent)) * error) <= spent
    assert epsilon_of(curve, delta, 1e-5) == math.inf
    assert epsilon_of(np.full(len(ORDERS), math.inf), delta, error) == math.inf
    assert epsilon_after(3, skellam(2, 9, error=1e-9), delta) == epsilon_of(3 * rdp(skellam(2, 9)), delta, 3e-9)
    twice = Composed(events=(skellam(2, 9, error=1e-9), Gaussian(noise_multiplier=9)), times=2)
    assert epsilon_after(1, twice, delta) == epsilon_of(rdp(twice), delta, 2e-9)


def test_delta_is_a_probability() -> None:
    for delta in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(ParameterError, match="delta"):
            epsilon_of(np.zeros(len(ORDERS)), delta)


@given(
    l2=st.floats(1, 100),
    spread=st.floats(1, 10),
    variance=st.floats(1, 1e6),
    more=st.floats(1, 10),
    delta=st.floats(1e-9, 1e-2),
)
def test_more_noise_less_sensitivity_and_more_delta_never_cost_more(
    l2: float, spread: float, variance: float, more: float, delta: float
) -> None:
    def cost(l2: float, variance: float, delta: float) -> float:
        return epsilon_after(1, skellam(l2, variance, dimension=100, l1=l2 * spread), delta)

    base = cost(l2, variance, delta)
    assert cost(l2, variance * more, delta) <= base
    assert base <= cost(l2 * more, variance, delta)
    assert cost(l2, variance, min(0.5, delta * more)) <= base


# ---------------------------------------------------------------------------------- records


@pytest.mark.parametrize(
    "make",
    [
        lambda: skellam(-1, 1),
        lambda: skellam(2, 1, l1=1),
        lambda: skellam(1, math.nan),
        lambda: skellam(1, 1, dimension=0),
        lambda: skellam(1, 1, error=2),
        lambda: Gaussian(noise_multiplier=-1),
        lambda: Gaussian(noise_multiplier=math.inf),
        lambda: SampledGaussian(sample_rate=0, noise_multiplier=1),
        lambda: SampledGaussian(sample_rate=0.5, noise_multiplier=1, steps=0),
        lambda: Composed(events=(), times=0),
        lambda: discrete_gaussian(1, 0, 3),
        lambda: DiscreteGaussianSum(l1=1, l2=1, variance=10, local_std=2, contributors=2, dimension=1),
    ],
)
def test_an_event_that_cannot_have_happened_is_refused(make: Callable[[], Event]) -> None:
    with pytest.raises(ParameterError):
        make()


def test_steps_on_a_sample_with_hardly_any_noise_count_as_none_and_take_no_time() -> None:
    for multiplier in (1e-6, 0.99 * LEAST_SAMPLED_MULTIPLIER):
        assert np.isinf(rdp(SampledGaussian(sample_rate=0.1, noise_multiplier=multiplier))).all()
    assert np.isfinite(rdp(SampledGaussian(sample_rate=0.1, noise_multiplier=LEAST_SAMPLED_MULTIPLIER))).all()
