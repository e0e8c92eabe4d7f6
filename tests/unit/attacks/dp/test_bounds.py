"""The three lower bounds on epsilon, on scores whose law is known."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from attacks.dp import clopper_pearson, gaussian, one_run, oracle
from attacks.dp.bound import ALPHA, Claim, crossing, p_value
from attacks.measurement import Rate
from secagg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from attacks.measurement import Bound

    Scores = NDArray[np.float64]

DELTA = 1e-5
TRIALS = 1000
RUNS = 100
CDF, QUANTILE = NormalDist().cdf, NormalDist().inv_cdf


def one_and_other(mu: float, rng: np.random.Generator) -> tuple[Scores, Scores]:
    """Scores of so many sums with Gaussian noise, half of them with the canary."""
    return rng.normal(mu, 1, TRIALS // 2), rng.normal(0, 1, TRIALS // 2)


def of_one_sum(mu: float, rng: np.random.Generator) -> tuple[Scores, NDArray[np.bool_]]:
    inside = rng.random(TRIALS) < 0.5
    return rng.normal(inside * mu, 1), inside


def by_clopper_pearson(mu: float, claim: Claim, rng: np.random.Generator) -> Bound:
    return clopper_pearson.bound(*one_and_other(mu, rng), claim)


def by_gaussian(mu: float, claim: Claim, rng: np.random.Generator) -> Bound:
    return gaussian.bound(*one_and_other(mu, rng), mu / 2, claim)


def by_one_run(mu: float, claim: Claim, rng: np.random.Generator) -> Bound:
    return one_run.bound(*of_one_sum(mu, rng), mu / 2, 200, claim)


BOUNDS = (by_clopper_pearson, by_gaussian, by_one_run)


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_bound_is_flagged_exactly_where_it_exceeds_the_claim(bound: Callable[..., Bound]) -> None:
    rng = np.random.default_rng(0)
    for claimed in (0.5, 1.0, 2.0, 4.0):
        found = bound(1.0, Claim(claimed, DELTA), rng)
        assert (found.p_value <= ALPHA) == (found.epsilon >= claimed)
        assert 0 <= found.epsilon <= found.ceiling
        assert found.trials == TRIALS
    assert bound(1.0, Claim(math.inf, DELTA), rng).p_value == 1


@pytest.mark.parametrize("bound", BOUNDS)
def test_scores_that_never_overlap_come_to_the_ceiling_and_no_further(bound: Callable[..., Bound]) -> None:
    found = bound(100.0, Claim(math.inf, DELTA), np.random.default_rng(0))
    assert found.epsilon == found.ceiling > 2


@pytest.mark.parametrize("bound", BOUNDS)
def test_scores_that_say_nothing_rule_out_nothing(bound: Callable[..., Bound]) -> None:
    rng = np.random.default_rng(0)
    found = [bound(0.0, Claim(0.1, DELTA), rng) for _ in range(20)]
    assert sum(one.epsilon > 0 for one in found) <= 5


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("bound", BOUNDS)
def test_noise_that_is_as_claimed_is_seldom_flagged(bound: Callable[..., Bound], sigma: float) -> None:
    """At the exact epsilon of the noise, of which the Gaussian bound is to be wrong nearly as often as it may."""
    rng, claim = np.random.default_rng(1), Claim(gaussian.epsilon_at(1 / sigma, DELTA), DELTA)
    flagged = sum(bound(1 / sigma, claim, rng).p_value <= ALPHA for _ in range(RUNS))
    assert stats.binom.sf(flagged - 1, RUNS, ALPHA) > 1e-3
    if bound is by_gaussian:
        assert stats.binom.cdf(flagged, RUNS, ALPHA) > 1e-3, "a bound that could be tighter"


def test_a_thousand_trials_find_out_noise_that_is_half_of_what_is_claimed() -> None:
    rng, claim = np.random.default_rng(2), Claim(gaussian.epsilon_at(1, DELTA), DELTA)
    for _ in range(RUNS):
        found = by_gaussian(2.0, claim, rng)
        assert found.p_value < 1e-4
        assert claim.epsilon < found.epsilon < gaussian.epsilon_at(2.5, DELTA)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
@pytest.mark.parametrize(("variance", "shift"), [(1.0, 2), (3400.0, 101)])
def test_no_bound_exceeds_the_exact_epsilon_of_a_discrete_sum_oftener_than_it_may(
    mechanism: oracle.Mechanism, variance: float, shift: int
) -> None:
    """Of three clients, whose noise spans few steps of the grid, and as many as the Gaussian bound asks for."""
    law = oracle.sum_law(oracle.share_law(mechanism, variance, 4096), 3)
    truth = Claim(oracle.epsilon_at(DELTA, law, shift), DELTA)
    numbers, rng = (np.arange(4096) + 2048) % 4096 - 2048, np.random.default_rng(3)
    over = dict.fromkeys(("clopper-pearson", "gaussian", "one run"), 0)
    for _ in range(RUNS):
        noise = rng.choice(numbers, TRIALS, p=law / law.sum()).astype(np.float64)
        yes, no, inside = noise[::2] + shift, noise[1::2], rng.random(TRIALS) < 0.5
        over["clopper-pearson"] += clopper_pearson.bound(yes, no, truth).epsilon > truth.epsilon
        over["one run"] += one_run.bound(noise + shift * inside, inside, shift / 2, 300, truth).epsilon > truth.epsilon
        if math.sqrt(3 * variance) >= gaussian.LEAST_STD:
            over["gaussian"] += gaussian.bound(yes, no, shift / 2, truth).epsilon > truth.epsilon
    for often in over.values():
        assert stats.binom.sf(often - 1, RUNS, ALPHA) > 1e-3


# Clopper and Pearson.


def test_the_bound_is_the_formula_at_both_upper_limits() -> None:
    misses, alarms = Rate(100, 250), Rate(0, 250)
    fnr, fpr = stats.beta.ppf(0.975, 101, 150), 1 - 0.025 ** (1 / 250)
    assert clopper_pearson.epsilon(misses, alarms, DELTA) == pytest.approx(math.log((1 - DELTA - fnr) / fpr))
    assert clopper_pearson.epsilon(alarms, misses, DELTA) == clopper_pearson.epsilon(misses, alarms, DELTA)
    assert clopper_pearson.epsilon(Rate(250, 250), alarms, DELTA) == 0
    assert clopper_pearson.epsilon(Rate(125, 250), Rate(125, 250), DELTA) == 0


def test_the_trials_that_choose_the_bar_do_not_count() -> None:
    yes, no = np.tile([2.0, 7.0, 3.0, 0.0], 20), np.tile([1.0, 9.0, 0.0, 0.0], 20)
    assert clopper_pearson.errors(yes, no, 0.0) == (Rate(20, 40), Rate(20, 40)), "the bar is 2, as 1 < 2 < 3"


def test_clopper_pearson_needs_trials_to_choose_by() -> None:
    with pytest.raises(InputError, match="2 trials or more"):
        clopper_pearson.bound(np.ones(1), np.zeros(9), Claim(1.0, DELTA))


def test_a_p_value_is_the_level_at_which_the_bound_reaches_the_claim() -> None:
    assert p_value(lambda alpha: 10 * alpha, 2.0) == pytest.approx(0.2)
    assert p_value(lambda _: 1.0, 2.0) == 1
    assert p_value(lambda _: 3.0, 2.0) < 1e-29
    assert p_value(lambda _: math.inf, math.inf) == 1


def test_a_crossing_is_found_between_the_ends_only() -> None:
    assert crossing(lambda x: x**2, 2.0, 0.0, 5.0) == pytest.approx(math.sqrt(2))
    assert crossing(lambda x: x, 9.0, 0.0, 5.0) == 5
    assert crossing(lambda x: x, -9.0, 0.0, 5.0) == pytest.approx(0)


# Gaussian.


@pytest.mark.parametrize("mu", [0.1, 0.5, 1.0, 2.0, 8.0])
def test_epsilon_of_gaussian_noise_is_where_its_exact_delta_is_the_one_asked_for(mu: float) -> None:
    """Against an integral over the density of the privacy loss, which is N(mu^2 / 2, mu^2)."""
    found = gaussian.epsilon_at(mu, DELTA)
    loss = mu**2 / 2 + mu * (np.arange(-120_000, 120_000) + 0.5) / 10_000
    density = stats.norm.pdf(loss, mu**2 / 2, mu) * mu / 10_000
    assert (np.maximum(0, 1 - np.exp(found - loss)) * density).sum() == pytest.approx(DELTA, rel=1e-4)
    assert gaussian.mu_at(found, DELTA) == pytest.approx(mu)


def test_mu_is_what_so_few_errors_rule_out() -> None:
    wrong, trials = 200, TRIALS
    rate = CDF(-gaussian.mu(wrong, trials) / 2)
    assert stats.binom.cdf(wrong, trials, rate) == pytest.approx(ALPHA)
    assert gaussian.mu(trials, trials) == gaussian.mu(trials // 2, trials) == 0
    claim = Claim(gaussian.epsilon_at(gaussian.mu(wrong, trials), DELTA), DELTA)
    assert gaussian.p_value(wrong, trials, claim) == pytest.approx(ALPHA)
    assert gaussian.p_value(trials // 2, trials, claim) == 1


@pytest.mark.parametrize("skew", [-1.0, -0.3, 0.0, 0.6])
def test_wherever_the_bar_is_so_few_errors_are_no_likelier_than_hoeffding_says(skew: float) -> None:
    half, mu = 40, 1.0
    missed, alarmed = (stats.binom.pmf(np.arange(half + 1), half, CDF(-mu / 2 + sign * skew)) for sign in (1, -1))
    exact = np.cumsum(np.convolve(missed, alarmed))
    for wrong in range(20):
        assert exact[wrong] <= gaussian.p_value(wrong, 2 * half, Claim(gaussian.epsilon_at(mu, DELTA), DELTA)) + 1e-9


def test_the_gaussian_bound_needs_as_many_trials_of_either_kind() -> None:
    for yes, no in ((3, 4), (0, 0)):
        with pytest.raises(InputError, match="as many trials"):
            gaussian.bound(np.ones(yes), np.zeros(no), 0.5, Claim(1.0, DELTA))


# One run.


def test_without_delta_the_p_value_is_a_binomial_tail() -> None:
    claim = Claim(math.log(3), 0.0)
    assert one_run.p_value(50, 20, 18, claim) == pytest.approx(stats.binom.sf(17, 20, 0.75))
    assert one_run.p_value(50, 20, 0, claim) == 1


def test_delta_adds_the_steepest_part_of_the_tail() -> None:
    def f(right: int) -> float:
        return float(stats.binom.sf(right - 1, 20, 0.75))

    extra = max((f(18 - i) - f(18)) / i for i in range(1, 51))
    assert one_run.p_value(50, 20, 18, Claim(math.log(3), 1e-3)) == pytest.approx(f(18) + 2 * 50 * 1e-3 * extra)


def test_epsilon_of_right_guesses_alone_is_known_in_closed_form() -> None:
    chance = 0.05 ** (1 / 100)
    assert one_run.epsilon(100, 100, 100, 0.0) == pytest.approx(math.log(chance / (1 - chance)))
    assert one_run.epsilon(100, 100, 50, 0.0) == pytest.approx(0)


def test_the_guesses_are_those_furthest_from_the_bar() -> None:
    scores, inside = np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, True, False, True])
    sure, all_ = (one_run.bound(scores, inside, 0.5, guesses, Claim(1.0, 0.0)) for guesses in (2, 4))
    assert sure.p_value == pytest.approx((math.e / (1 + math.e)) ** 2), "both right"
    assert all_.p_value == pytest.approx(one_run.p_value(4, 4, 2, Claim(1.0, 0.0)))
    for guesses in (0, 5):
        with pytest.raises(InputError, match="guesses must be"):
            one_run.bound(scores, inside, 0.5, guesses, Claim(1.0, 0.0))


def test_the_louder_the_noise_the_more_guesses_it_takes_to_say_anything() -> None:
    dared = [one_run.best_guesses(TRIALS, mu, DELTA) for mu in (0.3, 1.0, 3.0, math.inf)]
    assert dared[-1] == TRIALS
    assert all(1 <= one <= TRIALS for one in dared)
    rng = np.random.default_rng(4)
    scores, inside = of_one_sum(2.0, rng)
    best, few, all_ = (
        one_run.bound(scores, inside, 1.0, guesses, Claim(1.0, DELTA)).epsilon
        for guesses in (one_run.best_guesses(TRIALS, 2.0, DELTA), 20, TRIALS)
    )
    assert best > max(few, all_)
