from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from attacks.attack import Reconstruction, Threat, Trial
from attacks.measurement import (
    Bound,
    Detection,
    Exposure,
    Rate,
    Recovery,
    measure_distinguisher,
    measure_reconstruction,
)
from secagg.errors import InputError

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=8).map(lambda scores: np.array(scores, float))


class Echo(Reconstruction[float, float, float]):
    """Guesses what it sees."""

    name = "echo"
    threat = Threat.ONE_UPLOAD
    source = "none"
    unit = "nearness"
    success = -0.1

    def guess(self, view: float, rng: np.random.Generator) -> float:  # noqa: ARG002 - it has nothing to draw
        return view

    def quality(self, guess: float, secret: float) -> float:
        return -abs(guess - secret)


@given(trials=st.integers(1, 60), data=st.data())
def test_the_interval_of_a_rate_is_the_exact_one(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    exact = stats.binomtest(hits, trials).proportion_ci(0.95, "exact")
    assert Rate(hits, trials).interval == pytest.approx((exact.low, exact.high), abs=1e-9)


@given(yes=SCORES, no=SCORES)
def test_the_area_is_how_often_a_yes_scores_above_a_no(yes: np.ndarray, no: np.ndarray) -> None:
    pairs = [1.0 if one > other else 0.5 if one == other else 0.0 for one, other in itertools.product(yes, no)]
    found = Detection("answers", yes, no)
    assert found.value == pytest.approx(np.mean(pairs))
    low, high = found.interval
    assert 0 <= low <= found.value <= high <= 1


@given(yes=SCORES, no=SCORES, fpr=st.floats(0, 1))
def test_a_true_positive_rate_is_that_of_the_best_bar_with_so_few_false_ones(
    yes: np.ndarray, no: np.ndarray, fpr: float
) -> None:
    bars = [-np.inf, *np.concatenate([yes, no])]
    allowed = [(yes > bar).sum() for bar in bars if (no > bar).sum() <= int(fpr * len(no) + 1e-9)]
    assert Detection("answers", yes, no).tpr(fpr).hits == max(allowed)


@given(yes=SCORES, no=SCORES)
def test_the_curve_goes_from_corner_to_corner_and_its_area_is_the_figure(yes: np.ndarray, no: np.ndarray) -> None:
    false, true = Detection("answers", yes, no).curve()
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()
    assert np.trapezoid(true, false) == pytest.approx(Detection("answers", yes, no).value)


def test_the_interval_of_an_area_holds_the_true_one_as_often_as_it_says() -> None:
    rng, truth = np.random.default_rng(0), stats.norm.cdf(1 / np.sqrt(2))
    inside = 0
    for _ in range(400):
        low, high = Detection("answers", rng.normal(1, 1, 40), rng.normal(0, 1, 60)).interval
        inside += low <= truth <= high
    assert 0.92 <= inside / 400 <= 0.98


def test_chance_is_called_a_leak_no_oftener_than_it_should_be() -> None:
    rng = np.random.default_rng(0)
    found = [Detection("answers", rng.random(30), rng.random(30)).p_value for _ in range(1000)]
    assert np.mean(np.array(found) <= 0.05) <= 0.065


def test_a_guess_is_held_against_its_own_secret_and_against_the_next_ones() -> None:
    trials = [Trial(float(value), float(value)) for value in (1, 2, 3, 1)]
    found = measure_reconstruction(Echo(), trials, np.random.default_rng(0), "guesses that are right")
    assert found.qualities.tolist() == [0, 0, 0, 0]
    assert found.elsewhere.tolist() == [-1, -1, -2, 0]
    assert (found.value, found.chance, found.median) == (1.0, 0.25, 0.0)
    assert found.p_value == pytest.approx(1 / 14)  # of C(8, 5) tables one row holds four of five hits: 4 * C(4, 1) / 56


def test_one_trial_cannot_be_judged() -> None:
    with pytest.raises(InputError, match="two trials"):
        measure_reconstruction(Echo(), [Trial(1.0, 1.0)], np.random.default_rng(0), "guesses")
    with pytest.raises(InputError, match="both answers"):
        measure_distinguisher(Echo(), [Trial(1.0, True)], np.random.default_rng(0), "answers")  # type: ignore[arg-type]


def test_what_was_counted_has_no_interval_and_no_chance() -> None:
    assert (Exposure("alone", 3, 12).value, Exposure("alone", 3, 12).p_value) == (0.25, 0.0)
    assert (Exposure("alone", 0, 0).value, Exposure("alone", 0, 12).p_value) == (0.0, 1.0)


def test_measurements_are_json_without_infinities() -> None:
    bound = Bound("epsilon", 1.5, float("inf"), 5.0, 1e-5, 1000, 1.0)
    recovery = Recovery("guesses", 20.0, "dB", np.array([30.0]), np.array([10.0]))
    detection = Detection("answers", np.array([1.0, 2.0]), np.array([0.0, 1.0]))
    for one in (bound, recovery, detection, Exposure("alone", 0, 1)):
        assert json.loads(json.dumps(one.to_json(), allow_nan=False))["measures"] == one.says
    assert bound.to_json()["claimed"] is None
