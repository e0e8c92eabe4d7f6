"""Statistics over clients: exact without noise, bounded whatever a client says, and within the budget with noise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import Params, PrivacyBudget
from secagg.analytics import MOST_STEPS, Histogram, Mean, histogram, mean, quantile
from secagg.errors import InputError, NotFiniteError, ParameterError, TooFewClientsError
from secagg.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Hashable

PARAMS = Params(max_dropouts=0)
BUDGET = PrivacyBudget(epsilon=2.0)
AGES: dict[Hashable, float] = {client: float(20 + client) for client in range(40)}
numbers = st.lists(st.floats(-20, 120), min_size=3, max_size=8)


def of(values: list[float]) -> dict[Hashable, float]:
    return dict(enumerate(values))


# ---------------------------------------------------------------------------------- without noise


@given(values=numbers)
def test_a_mean_is_that_of_the_values_in_range(values: list[float]) -> None:
    answer = mean(of(values), 0, 100, params=PARAMS, seed=1)
    assert answer.value == pytest.approx(np.clip(values, 0, 100).mean(), abs=100 / PARAMS.levels)
    assert (answer.clients, answer.epsilon) == (len(values), None)


def test_a_mean_of_vectors_is_taken_number_by_number() -> None:
    vectors: dict[Hashable, Any] = {client: [client, -client] for client in range(5)}
    assert mean(vectors, -5, 5, seed=1).value == pytest.approx([2, -2], abs=1e-4)


@given(values=numbers)
def test_a_histogram_counts_every_client_once(values: list[float]) -> None:
    edges = (0, 10, 50, 100)
    counted = histogram(of(values), edges, params=PARAMS, seed=1).value
    inside = np.clip(values, 0, np.nextafter(100, 0))
    assert counted.tolist() == np.histogram(inside, edges)[0].tolist()


@given(values=numbers, share=st.floats(0.05, 0.95))
def test_a_quantile_is_as_near_as_its_steps_allow(values: list[float], share: float) -> None:
    found, width = quantile(of(values), share, -20, 121, steps=12, params=PARAMS, seed=1).value, 141 / 2**12
    ordered = sorted(values)
    exact = ordered[math.ceil(share * len(values) - 1e-9) - 1]
    assert abs(found - exact) <= width


def test_the_verdict_of_several_sessions_that_say_the_same_is_told_once() -> None:
    said = quantile(of([1.0, 2.0, 3.0]), 0.5, 0, 4, steps=3, seed=1).verdict
    assert said.count("simulation:") == 1


# ---------------------------------------------------------------------------------- with noise


def test_noisy_answers_keep_to_the_budget_and_are_near() -> None:
    average = mean(AGES, 0, 100, budget=BUDGET, seed=1)
    counted = histogram(AGES, range(0, 101, 20), budget=BUDGET, seed=2)
    middle = quantile(AGES, 0.5, 0, 100, steps=3, budget=BUDGET, seed=3)
    for answer in (average, counted, middle):
        assert answer.epsilon is not None
        assert 0.5 * BUDGET.epsilon < answer.epsilon <= BUDGET.epsilon
        assert "differential privacy" in answer.verdict
    spread = 7 * _noise(Histogram(edges=(0.0, 1.0)))
    assert np.abs(counted.value - [0, 20, 20, 0, 0]).max() < spread
    assert abs(average.value[0] - 39.5) < 50 * spread / len(AGES)
    assert 20 < middle.value < 60


def test_noisy_counts_are_no_whole_numbers() -> None:
    assert (histogram(AGES, (0, 50, 100), budget=BUDGET, seed=1).value % 1 != 0).all()


def test_several_sessions_share_one_budget() -> None:
    question = Histogram(edges=(0.0, 50.0, 100.0))
    once, ten = (question.params(None, BUDGET, clients=40, sessions=sessions) for sessions in (1, 10))
    assert once.privacy is not None
    assert ten.privacy is not None
    assert ten.privacy.noise_multiplier > 2 * once.privacy.noise_multiplier


@given(value=st.floats(allow_nan=False), low=st.floats(-100, 0), width=st.floats(0.1, 1000))
def test_no_value_makes_a_contribution_longer_than_its_sensitivity(value: float, low: float, width: float) -> None:
    average = Mean(low=low, high=low + width, size=3)
    binned = Histogram(edges=(low, low + width / 2, low + width))
    for question, contributed in ((average, average.numbers([value] * 3)), (binned, binned.numbers(value))):
        assert np.linalg.norm(contributed) <= question.norm * (1 + 1e-12)
        assert np.abs(contributed).max() <= question.bound * (1 + 1e-12)


def _noise(question: Histogram) -> float:
    privacy = question.params(None, BUDGET, clients=len(AGES)).privacy
    assert privacy is not None
    # Sized for the two thirds that surely survive, and nobody drops out.
    return privacy.noise_multiplier * privacy.clip * math.sqrt(1.5)


# ---------------------------------------------------------------------------------- elsewhere


def test_a_question_can_be_asked_of_any_session() -> None:
    question = Histogram(edges=(0.0, 30.0, 100.0))
    settings = question.params(PARAMS, clients=len(AGES))
    result = simulate({client: question.update(age) for client, age in AGES.items()}, params=settings, seed=1)
    assert question.read(result.aggregate).tolist() == [10, 30]


def test_thresholds_are_those_of_the_settings() -> None:
    with pytest.raises(TooFewClientsError):
        mean(of([1.0, 2.0, 3.0]), 0, 10, params=replace(PARAMS, min_cohort=4))


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: mean(AGES, 1, 1), "low must be below high"),
        (lambda: mean(AGES, 0, math.inf), "low must be below high"),
        (lambda: Mean(low=0, high=1, size=0), "size must be at least 1"),
        (lambda: histogram(AGES, (0.0,)), "edges must"),
        (lambda: histogram(AGES, (0.0, 2.0, 1.0)), "edges must"),
        (lambda: quantile(AGES, 1.0, 0, 1), "share must"),
        (lambda: quantile(AGES, 0.5, 0, 1, steps=0), "steps from 1"),
        (lambda: quantile(AGES, 0.5, 0, 1, steps=MOST_STEPS + 1), "steps from 1"),
        (lambda: mean(AGES, 0, 1, budget=PrivacyBudget(epsilon=1e-4)), "raise epsilon or delta"),
    ],
)
def test_settings_outside_their_domain_are_refused_by_name(ask: Any, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        ask()


def test_values_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match="no client"):
        mean({}, 0, 1)
    with pytest.raises(InputError, match="must have 2 numbers, not 1"):
        mean({0: [1.0, 2.0], 1: [1.0], 2: [1.0, 1.0]}, 0, 1)
    nothing = of([math.nan] * 3)
    with pytest.raises(NotFiniteError):
        mean(nothing, 0, 1)
    with pytest.raises(NotFiniteError):
        histogram(nothing, (0, 1))
