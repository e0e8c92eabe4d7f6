"""What distributed noise costs: published figures, dropouts, coverage, calibration, and rings that are too narrow."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from secagg.errors import InputError, ParameterError
from secagg.privacy.calibrate import LEAST, epsilon_after, noise_for
from secagg.privacy.events import DiscreteGaussianSum, Event, Gaussian, SampledGaussian, SkellamSum
from secagg.privacy.noisy_sum import Coverage, NoisySum, weakest
from secagg.privacy.scale import ring_scale, rotated_ring_scale
from secagg.privacy.sensitivity import Sensitivity, rounded_sensitivity

DELTA = 1e-5
PUBLISHED = NoisySum(clients=100, dimension=2**20, clip=1.0, rotated=True, stds=4.0, beta=math.exp(-0.5))
"""Conditional rounding, 4 standard deviations in the ring, flat after a rotation, integer orders for Skellam."""


# ---------------------------------------------------------------------------------- published figures


@pytest.mark.parametrize(("bits", "epsilon"), [(14, 20.21), (16, 11.39), (20, 10.80), (24, 10.80), (32, 10.80)])
def test_skellam_noise_costs_what_is_published(bits: int, epsilon: float) -> None:
    event = replace(PUBLISHED, ring_bits=bits).event(5.0)
    assert round(epsilon_after(100, event, DELTA), 2) == epsilon


def test_central_gaussian_noise_costs_what_is_published() -> None:
    assert round(epsilon_after(100, Gaussian(noise_multiplier=5.0), DELTA), 3) == 10.726


def test_discrete_gaussian_noise_costs_as_much_as_central_where_the_ring_is_wide() -> None:
    event = replace(PUBLISHED, mechanism="discrete-gaussian").event(5.0)
    assert epsilon_after(100, event, DELTA) == pytest.approx(10.726, abs=1e-3)


def test_without_a_rotation_24_bits_are_enough() -> None:
    event = replace(PUBLISHED, rotated=False, ring_bits=24).event(5.0)
    assert round(epsilon_after(100, event, DELTA), 2) == 10.80


@pytest.mark.parametrize(("survivors", "epsilon"), [(100, 10.8), (70, 13.4)])
def test_dropouts_cost_what_is_published_where_noise_is_sized_for_all(survivors: int, epsilon: float) -> None:
    event = PUBLISHED.event(5.0, [Coverage(survivors, 100)])
    assert round(epsilon_after(100, event, DELTA), 1) == epsilon


@pytest.mark.parametrize(("coverage", "exact", "accounted"), [(10, 4.4, 4.73), (3, 8.9, 9.60), (1, 17.9, 19.05)])
def test_a_coordinate_of_small_coverage_costs_more_where_noise_is_sized_for_all(
    coverage: int, exact: float, accounted: float
) -> None:
    def delta_at(epsilon: float) -> float:
        cdf = NormalDist().cdf
        return cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * cdf(-mu / 2 - epsilon / mu)

    z = math.sqrt(weakest([Coverage(10, 10), Coverage(coverage, 10)]))
    mu = 1 / z
    assert delta_at(exact + 0.05) <= DELTA <= delta_at(exact - 0.05)
    assert round(epsilon_after(1, Gaussian(noise_multiplier=z), DELTA), 2) == accounted


# ---------------------------------------------------------------------------------- shares


def test_shares_are_sized_for_the_fewest_honest_survivors() -> None:
    one = NoisySum(clients=10, dimension=100, clip=2.0, min_survivors=7, colluders=2)
    central = 3.0 * 2.0 * one.scale(3.0)
    assert one.honest == 5
    assert one.central_std(3.0) == pytest.approx(central)
    assert one.local_std(3.0) == pytest.approx(central / math.sqrt(5))
    assert one.local_std(3.0, sized_for=2) == pytest.approx(central / math.sqrt(2))
    assert one.event(3.0).variance == pytest.approx(central**2)
    assert one.event(3.0, one.survived_by(7)) == one.event(3.0)
    assert one.event(3.0, one.survived_by(10)).variance == pytest.approx(central**2 * 8 / 5)
    for survivors in (6, 11):
        with pytest.raises(InputError, match="survivors"):
            one.survived_by(survivors)


def test_the_weakest_class_of_coverage_counts() -> None:
    classes = [Coverage(8, 5), Coverage(3, 2), Coverage(4, 4)]
    assert weakest(classes) == 1
    skellam = NoisySum(clients=10, dimension=100, clip=1.0)
    assert skellam.event(2.0, classes) == skellam.event(2.0)
    discrete = replace(skellam, mechanism="discrete-gaussian")
    event = discrete.event(2.0, classes)
    assert isinstance(event, DiscreteGaussianSum)
    assert (event.contributors, event.local_std) == (8, discrete.local_std(2.0, 5))
    assert event.variance == pytest.approx(discrete.central_std(2.0) ** 2)
    nobody = skellam.event(2.0, [Coverage(0, 2)])
    assert epsilon_after(1, nobody, DELTA) == math.inf


@pytest.mark.parametrize("classes", [[], [Coverage(-1, 3)], [Coverage(3, 0)]])
def test_impossible_coverage_is_refused(classes: list[Coverage]) -> None:
    with pytest.raises(InputError, match="coverage"):
        weakest(classes)


# ---------------------------------------------------------------------------------- sensitivity


def test_sensitivity_is_the_published_bound() -> None:
    unconditional = rounded_sensitivity(2.0, 5.0, 16, beta=0)
    assert unconditional == Sensitivity(14 * 4, 14)
    l2 = math.sqrt(100 + 4 + 1 * (10 + 2))
    assert rounded_sensitivity(2.0, 5.0, 16) == pytest.approx((l2 * 4, l2))
    assert rounded_sensitivity(0.1, 1.0, 16, beta=0) == pytest.approx((4.1 * 4, 4.1))
    assert rounded_sensitivity(0.5, 1.0, 1, beta=0) == Sensitivity(1.5, 1.5)


@given(point=st.lists(st.floats(-3, 3), min_size=1, max_size=4), scale=st.floats(0.1, 5))
def test_no_rounding_is_longer_than_the_unconditional_bound(point: list[float], scale: float) -> None:
    clip = max(math.hypot(*point), 1e-3)
    bound = rounded_sensitivity(clip, scale, len(point), beta=0)
    for ways in itertools.product((math.floor, math.ceil), repeat=len(point)):
        rounded = [way(value * scale) for way, value in zip(ways, point, strict=True)]
        assert math.hypot(*rounded) <= bound.l2 * (1 + 1e-9)
        assert sum(map(abs, rounded)) <= bound.l1 * (1 + 1e-9)


def test_rounding_is_seldom_refused_by_the_conditional_bound() -> None:
    rng = np.random.default_rng(0)
    point = rng.normal(size=200)
    point *= 10 / np.linalg.norm(point)
    rounded = np.floor(point + rng.random((4000, 200)))
    bound = rounded_sensitivity(1.0, 10.0, 200).l2
    assert (np.linalg.norm(rounded, axis=1) <= bound).mean() >= 1 - math.exp(-0.5)
    assert bound < rounded_sensitivity(1.0, 10.0, 200, beta=0).l2


@pytest.mark.parametrize("wrong", [{"clip": 0}, {"scale": math.inf}, {"dimension": 0}, {"beta": 1}])
def test_senseless_rounding_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        rounded_sensitivity(**{"clip": 1.0, "scale": 1.0, "dimension": 1} | wrong)


# ---------------------------------------------------------------------------------- rings


@pytest.mark.parametrize(("bits", "clients", "z"), [(8, 5, 0.5), (10, 20, 2.0), (12, 3, 30.0)])
def test_the_worst_sum_wraps_no_more_often_than_allowed(bits: int, clients: int, z: float) -> None:
    d, allowed, surplus = 1000, 1e-6, 1.5
    scale = ring_scale(bits, z, clients=clients, clip=3.0, dimension=d, surplus=surplus, wrap_probability=allowed)
    room = 2 ** (bits - 1) - 1 - clients * (3.0 * scale + 1)
    variance = surplus * (z * 3.0 * scale) ** 2
    beyond = 2 * d * stats.skellam.sf(math.floor(room), variance / 2, variance / 2)
    assert 0 < beyond <= allowed
    assert room <= 1.5 * math.sqrt(variance) * stats.norm.isf(allowed / (2 * d)) + 10


def test_a_rotated_sum_fills_the_ring_with_its_standard_deviations() -> None:
    n, d, z, stds = 50, 4096, 3.0, 5.0
    scale = rotated_ring_scale(14, z, clients=n, clip=0.5, dimension=d, surplus=2.0, stds=stds)
    std = math.sqrt((n * 0.5 * scale) ** 2 / d + n / 4 + 2 * (z * 0.5 * scale) ** 2)
    assert 2 * stds * std == pytest.approx(2**14)


def test_a_wide_ring_stops_where_a_finer_grid_gains_nothing() -> None:
    for d in (1, 10**6):
        one = NoisySum(clients=10, dimension=d, clip=0.1, ring_bits=64)
        assert one.scale(1.0) == replace(one, rotated=True).scale(1.0)
        length = 0.1 * one.scale(1.0)
        assert one.sensitivity(1.0).l2 ** 2 <= length**2 * (1 + 2.1e-4)


@pytest.mark.parametrize("rotated", [False, True])
def test_a_ring_that_cannot_hold_so_many_clients_says_so(*, rotated: bool) -> None:
    with pytest.raises(ParameterError, match="ring_bits 6 cannot hold a sum of 1000 clients"):
        NoisySum(clients=1000, dimension=10, clip=1.0, ring_bits=6, rotated=rotated)


# ---------------------------------------------------------------------------------- calibration

MECHANISMS = [
    NoisySum(clients=100, dimension=1000, clip=1.0, min_survivors=70, colluders=5),
    NoisySum(clients=100, dimension=1000, clip=1.0, mechanism="discrete-gaussian"),
    NoisySum(clients=30, dimension=10**6, clip=0.3, ring_bits=20, rotated=True, sampler_error=1e-12),
]


@pytest.mark.parametrize("one", MECHANISMS)
@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_calibrated_noise_is_enough_and_a_hair_less_is_not(one: NoisySum, epsilon: float) -> None:
    z = one.noise_for(epsilon, DELTA, 50)
    assert epsilon_after(50, one.event(z), DELTA) <= epsilon
    assert epsilon_after(50, one.event(z * (1 - 1e-6)), DELTA) > epsilon


def test_calibration_also_serves_sampled_and_central_noise() -> None:
    def sampled(z: float) -> Event:
        return SampledGaussian(sample_rate=0.02, noise_multiplier=z, steps=50)

    z = noise_for(2.0, DELTA, 10, sampled)
    assert epsilon_after(10, sampled(z), DELTA) <= 2 < epsilon_after(10, sampled(z * (1 - 1e-6)), DELTA)
    assert noise_for(10.7256, DELTA, 100, lambda z: Gaussian(noise_multiplier=z)) == pytest.approx(5, rel=1e-4)


@given(z=st.floats(0.05, 50), more=st.floats(1.001, 4), bits=st.integers(16, 40), rotated=st.booleans())
def test_more_noise_never_costs_more_although_the_grid_grows_coarser(
    *, z: float, more: float, bits: int, rotated: bool
) -> None:
    one = NoisySum(clients=50, dimension=5000, clip=1.0, ring_bits=bits, rotated=rotated)
    assert epsilon_after(10, one.event(z * more), DELTA) <= epsilon_after(10, one.event(z), DELTA) * (1 + 1e-12)
    wider = replace(one, ring_bits=bits + 1)
    assert epsilon_after(10, wider.event(z), DELTA) <= epsilon_after(10, one.event(z), DELTA) * (1 + 1e-12)


@given(rounds=st.integers(1, 200), survivors=st.integers(8, 20))
def test_more_rounds_cost_more_and_more_survivors_less(rounds: int, survivors: int) -> None:
    one = NoisySum(clients=20, dimension=50, clip=1.0, min_survivors=7)
    assert epsilon_after(rounds, one.event(2.0), DELTA) < epsilon_after(rounds + 1, one.event(2.0), DELTA)
    fewer, more = (one.event(2.0, one.survived_by(count)) for count in (survivors - 1, survivors))
    assert epsilon_after(rounds, more, DELTA) < epsilon_after(rounds, fewer, DELTA)


def test_a_ring_that_is_too_narrow_names_the_width_that_would_do() -> None:
    one = replace(PUBLISHED, ring_bits=12)
    with pytest.raises(ParameterError, match="raise ring_bits to 16, raise epsilon, or lower clients or rounds"):
        one.noise_for(4.0, DELTA, 100)
    assert replace(one, ring_bits=16).noise_for(4.0, DELTA, 100) > 5
    with pytest.raises(ParameterError, match="ring_bits 15 leaves too coarse a grid"):
        replace(one, ring_bits=15).noise_for(4.0, DELTA, 100)


def test_a_budget_that_no_noise_keeps_names_epsilon_and_rounds() -> None:
    with pytest.raises(ParameterError, match="raise epsilon or delta, or lower rounds"):
        PUBLISHED.noise_for(1e-3, DELTA, 100)


@pytest.mark.parametrize("budget", [(0, DELTA, 1), (math.inf, DELTA, 1), (1.0, 0, 1), (1.0, DELTA, 0)])
def test_a_senseless_budget_is_refused(budget: tuple[float, float, int]) -> None:
    with pytest.raises(ParameterError, match=r"must be|no noise"):
        PUBLISHED.noise_for(*budget)


def test_a_budget_that_needs_no_noise_gets_the_least() -> None:
    assert noise_for(1e15, DELTA, 1, lambda z: Gaussian(noise_multiplier=z)) == pytest.approx(LEAST)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mechanism": "laplace"},
        {"clients": 0},
        {"clip": 0.0},
        {"ring_bits": 65},
        {"sampler_error": 2.0},
        {"colluders": 10},
        {"min_survivors": 11},
        {"surplus": 0.5},
        {"wrap_probability": 0.0},
        {"stds": 0.0, "rotated": True},
        {"beta": 1.0},
    ],
)
def test_a_senseless_sum_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        NoisySum(**{"clients": 10, "dimension": 10, "clip": 1.0} | wrong)


def test_an_event_says_what_was_in_the_sum() -> None:
    one = NoisySum(clients=10, dimension=64, clip=1.0, ring_bits=24, sampler_error=1e-20)
    l1, l2 = one.sensitivity(2.0)
    expected = SkellamSum(l1=l1, l2=l2, variance=one.central_std(2.0) ** 2, dimension=64, sampler_error=1e-20)
    assert one.event(2.0) == expected


def test_a_grid_too_coarse_for_anything_but_zeros_still_has_a_sensitivity() -> None:
    assert rounded_sensitivity(1.0, 1e-6, 1).l2 < 1
    assert rounded_sensitivity(1.0, 1e-6, 1).l1 >= rounded_sensitivity(1.0, 1e-6, 1).l2
