"""The exact epsilon of a noisy sum, held against other formulas and against the accountant."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import special, stats

from attacks.dp import gaussian, oracle
from attacks.dp.bound import MOST_EPSILON
from secagg import PrivacyLedger
from secagg.errors import ParameterError
from secagg.privacy.events import DiscreteGaussianSum, SkellamSum
from secagg.privacy.noise import DiscreteGaussian, Skellam

if TYPE_CHECKING:
    from secagg.privacy.events import Event

DELTA = 1e-5
RING = 20


def skellam(variance: float, shift: float) -> SkellamSum:
    return SkellamSum(l1=shift, l2=shift, variance=variance, dimension=1)


def discrete_gaussian(std: float, clients: int, shift: float) -> DiscreteGaussianSum:
    return DiscreteGaussianSum(
        l1=shift, l2=shift, variance=clients * std**2, local_std=std, contributors=clients, dimension=1
    )


def claimed(event: Event) -> float:
    ledger = PrivacyLedger()
    ledger.record(event)
    return ledger.epsilon(DELTA)


def of_fewest_errors(law: oracle.Law, shift: int) -> float:
    errors = np.minimum(law, np.roll(law, shift)).sum()
    return gaussian.epsilon_at(-2 * float(stats.norm.ppf(errors / 2)), DELTA)


@pytest.mark.parametrize("noise", [Skellam(0.3), Skellam(50.0), DiscreteGaussian(0.7), DiscreteGaussian(9.0)], ids=str)
def test_the_law_is_the_one_that_the_sampler_tabulates(noise: Skellam | DiscreteGaussian) -> None:
    weights = noise.weights()
    total = 2 * sum(weights) - weights[0]
    exact = np.array([weight / total for weight in weights[:200]])
    mechanism: oracle.Mechanism = "skellam" if isinstance(noise, Skellam) else "discrete-gaussian"
    law = oracle.share_law(mechanism, noise.variance if isinstance(noise, Skellam) else noise.sigma**2, 1024)
    np.testing.assert_allclose(law[: len(exact)], exact, atol=1e-14)
    np.testing.assert_allclose(law[:0:-1][: len(exact) - 1], exact[1:], atol=1e-14)


def test_skellam_shares_sum_to_skellam_noise() -> None:
    np.testing.assert_allclose(
        oracle.sum_law(oracle.share_law("skellam", 3.0, 512), 7), oracle.share_law("skellam", 21.0, 512), atol=1e-15
    )


def test_in_a_small_ring_the_law_wraps_around() -> None:
    wide, ring = oracle.share_law("discrete-gaussian", 9.0, 1024), oracle.share_law("discrete-gaussian", 9.0, 8)
    np.testing.assert_allclose(ring, wide.reshape(-1, 8).sum(0), atol=1e-15)
    assert oracle.epsilon_at(DELTA, ring, 1) < oracle.epsilon_at(DELTA, wide, 1), "wrapping is post-processing"


def test_delta_is_the_sum_over_what_one_law_has_more_of() -> None:
    law = np.array([0.5, 0.25, 0.0, 0.25])
    assert oracle.delta_at(0.0, law, 2) == pytest.approx(0.5)
    assert oracle.delta_at(0.0, law, 1) == pytest.approx(0.5)
    assert oracle.delta_at(math.log(2), law, 1) == pytest.approx(0.25), "a 0 where there is none, and 0.25 at 3"
    assert oracle.delta_at(5.0, law, 0) == 0


def test_noise_of_many_steps_costs_what_gaussian_noise_costs() -> None:
    exact = gaussian.epsilon_at(1.0, DELTA)
    for event in (skellam(1e4, 100), skellam(1.44e9, 37947), discrete_gaussian(10.0, 100, 100)):
        assert oracle.epsilon_of(event, DELTA, 24) == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize(
    "event",
    [skellam(100.0, 5), skellam(2e3, 90), discrete_gaussian(3.0, 11, 5), discrete_gaussian(20.0, 3, 40)],
    ids=str,
)
def test_the_accountant_says_at_least_the_truth_and_not_far_above_it(event: SkellamSum | DiscreteGaussianSum) -> None:
    exact = oracle.epsilon_of(event, DELTA, RING)
    assert 0.7 * claimed(event) < exact <= claimed(event)


def test_an_event_that_counts_on_noise_that_is_not_there_says_too_little() -> None:
    assert oracle.epsilon_of(skellam(25.0, 5), DELTA, RING) > 1.5 * claimed(skellam(100.0, 5))


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
@pytest.mark.parametrize("shift", [20, 50, 100, 300])
def test_from_a_hundred_steps_on_the_gaussian_formula_says_hardly_more_than_is_true(
    mechanism: oracle.Mechanism, shift: int
) -> None:
    """What the fewest errors that any test makes let one conclude."""
    law = oracle.share_law(mechanism, gaussian.LEAST_STD**2, 4096)
    assert of_fewest_errors(law, shift) <= 1.001 * oracle.epsilon_at(DELTA, law, shift)
    event = skellam(1e4, shift) if mechanism == "skellam" else discrete_gaussian(100.0, 1, shift)
    assert of_fewest_errors(law, shift) <= claimed(event)


def test_on_a_coarser_grid_it_says_far_more() -> None:
    law = oracle.share_law("skellam", 1.0, 1024)
    assert of_fewest_errors(law, 2) > 1.3 * oracle.epsilon_at(DELTA, law, 2)


def test_small_noise_has_no_use_and_none_has_no_law() -> None:
    nearly_none = oracle.share_law("skellam", 1e-3, 4096)
    assert oracle.epsilon_at(1e-300, nearly_none, 1000) == MOST_EPSILON
    with pytest.raises(ParameterError, match="epsilon is infinite"):
        oracle.noise_of(skellam(0.0, 1), RING)
    with pytest.raises(ParameterError, match="lower noise_multiplier or ring_bits"):
        oracle.noise_of(skellam(1e14, 1), 64)


def test_the_law_of_much_noise_is_that_of_many_shares() -> None:
    law = oracle.noise_of(skellam(4e9, 1), 24)
    np.testing.assert_allclose(law[:5], stats.norm.pdf(np.arange(5), scale=math.sqrt(4e9)), rtol=1e-6)
    assert np.isnan(special.ive(0, 4e9)), "which the Bessel function itself cannot tell"
