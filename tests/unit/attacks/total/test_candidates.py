"""Two known updates: which one is in the sum is told as well as theory says, and not where neither is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from attacks.attack import Trial
from attacks.measurement import measure_distinguisher
from attacks.total.candidates import CandidateTest, TwoCandidates
from tests.unit.attacks.conformance import DistinguisherContract

if TYPE_CHECKING:
    from attacks.measurement import Detection

    Cases = list[Trial[TwoCandidates, bool]]


def gaussian(clients: int, size: int, trials: int, rng: np.random.Generator, *, neither: bool = False) -> Cases:
    """Random updates: the others' sum is Gaussian, with as many times the variance as there are others."""
    cases: Cases = []
    for number in range(trials):
        candidates = rng.normal(size=(2, size))
        others = rng.normal(size=size) * np.sqrt(clients - 1)
        joins = rng.normal(size=size) if neither else candidates[number % 2]
        holders = np.full(size, clients)
        view = TwoCandidates(others + joins, holders, candidates, np.zeros((0, size)))
        cases.append(Trial(view, number % 2 == 0))
    return cases


def measured(cases: Cases) -> Detection:
    return measure_distinguisher(CandidateTest(), cases, np.random.default_rng(0), "answers")


class TestContract(DistinguisherContract):
    def attack(self) -> CandidateTest:
        return CandidateTest()

    def leaking(self, rng: np.random.Generator) -> Cases:
        return gaussian(10, 200, 60, rng)

    def silent(self, rng: np.random.Generator) -> Cases:
        return gaussian(10, 200, 200, rng, neither=True)


@pytest.mark.parametrize(("clients", "rate"), [(5, 0.99), (20, 0.89), (100, 0.38)])
def test_updates_of_2400_coordinates_are_told_at_one_percent_false_positives(clients: int, rate: float) -> None:
    assert measured(gaussian(clients, 2400, 400, np.random.default_rng(1))).tpr(0.01).value >= rate


@pytest.mark.parametrize(("clients", "size"), [(5, 8), (20, 60), (100, 60)])
def test_the_area_under_the_curve_is_that_of_the_best_test(clients: int, size: int) -> None:
    """Two Gaussians of variance 1, |a - b| / sqrt(n - 1) apart; squared, |a - b| is twice chi squared."""
    apart = np.sqrt(2 * stats.chi2.rvs(size, size=4000, random_state=np.random.default_rng(2)) / (clients - 1))
    # Of two trials each has candidates of its own, so their scores have variances and means of their own.
    one, other = apart[:2000] ** 2, apart[2000:] ** 2
    expected = stats.norm.cdf((one + other) / 2 / np.sqrt(one + other)).mean()
    assert measured(gaussian(clients, size, 2000, np.random.default_rng(3))).value == pytest.approx(expected, abs=0.03)


def test_knowing_how_updates_spread_helps_where_they_have_directions_in_common() -> None:
    rng, size = np.random.default_rng(4), 200
    loud = np.where(np.arange(size) < 5, 30.0, 1.0)
    cases, blind = [], []
    for number in range(200):
        candidates = rng.normal(size=(2, size)) * loud + 3
        total = (rng.normal(size=(9, size)) * loud + 3).sum(axis=0) + candidates[number % 2]
        view = TwoCandidates(total, np.full(size, 10), candidates, rng.normal(size=(30, size)) * loud + 3)
        cases.append(Trial(view, number % 2 == 0))
        blind.append(Trial(replace(view, background=np.zeros((0, size))), number % 2 == 0))
    assert measured(cases).value > measured(blind).value + 0.1


def test_what_is_withheld_is_not_looked_at() -> None:
    view = gaussian(10, 40, 1, np.random.default_rng(5))[0].view
    partly = replace(view, holders=np.where(np.arange(40) < 20, 10, 0))
    garbage = replace(partly, total=np.where(np.arange(40) < 20, view.total, 1e6))
    rng = np.random.default_rng(6)
    assert CandidateTest().guess(partly, rng) == CandidateTest().guess(garbage, rng)


def test_noise_that_the_server_knows_of_makes_it_less_sure() -> None:
    rng = np.random.default_rng(7)
    view = replace(gaussian(10, 40, 1, rng)[0].view, background=rng.normal(size=(30, 40)))
    sure, unsure = (abs(CandidateTest().guess(replace(view, noise=noise), rng)) for noise in (0.0, 100.0))
    assert unsure < sure / 100
