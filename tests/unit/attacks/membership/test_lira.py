from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from attacks.attack import Trial
from attacks.measurement import measure_distinguisher
from attacks.membership.lira import Lira, Shadowed, confidence, spread
from attacks.membership.loss import Asked, LossThreshold
from tests.unit.attacks.conformance import DistinguisherContract

LEARNT = np.array([True, False] * 4)


def shadowed(rng: np.random.Generator, gain: float, *, spread_of_examples: float = 3.0) -> list[Trial[Any, Any]]:
    """Examples that are easy or hard to everybody, and of which models are surer by ``gain`` if they learnt them."""
    trials = []
    for member in (True, False) * 60:
        easy, label = rng.normal(scale=spread_of_examples), int(rng.integers(4))
        logits = rng.normal(scale=0.3, size=(9, 4))
        logits[:, label] += easy + gain * np.array([member, *LEARNT])
        trials.append(Trial(Shadowed(logits[0], label, logits[1:], LEARNT, (0.5, 0.5)), member))
    return trials


class TestLira(DistinguisherContract):
    def attack(self) -> Lira:
        return Lira()

    def leaking(self, rng: np.random.Generator) -> list[Trial[Any, Any]]:
        return shadowed(rng, 1.0)

    def silent(self, rng: np.random.Generator) -> list[Trial[Any, Any]]:
        return shadowed(rng, 0.0)


def test_confidence_is_the_logit_of_the_probability_and_never_overflows() -> None:
    probabilities = np.array([[0.5, 0.25, 0.25], [0.1, 0.7, 0.2]])
    own = np.array([0.5, 0.7])
    np.testing.assert_allclose(confidence(np.log(probabilities), np.array([0, 1])), np.log(own / (1 - own)))
    assert confidence(np.array([800.0, 0.0, 0.0]), np.asarray(0)) == pytest.approx(800 - np.log(2))


def test_the_spread_is_pooled_over_examples_about_their_own_means() -> None:
    confidences = np.array([[1.0, 10.0], [3.0, 14.0], [5.0, 0.0], [5.0, 2.0]])
    learnt = np.array([[1, 1], [1, 1], [0, 0], [0, 0]], bool)
    assert spread(confidences, learnt) == pytest.approx((np.sqrt((2 + 8) / 2), np.sqrt((0 + 2) / 2)))


def test_the_score_is_the_log_of_a_ratio_of_normal_densities() -> None:
    shadows = np.array([[2.0, 0.0], [4.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    view = Shadowed(np.array([2.5, 0.0]), 0, shadows, np.array([True, True, False, False]), (1.0, 2.0))
    expected = stats.norm.logpdf(2.5, 3, 1) - stats.norm.logpdf(2.5, 0.5, 2)
    assert Lira().guess(view, np.random.default_rng(0)) == pytest.approx(expected)


def test_shadow_models_find_what_the_loss_alone_cannot() -> None:
    trials, rng = shadowed(np.random.default_rng(1), 1.0, spread_of_examples=6.0), np.random.default_rng(0)
    by_loss = [Trial(Asked(trial.view.logits, trial.view.label), trial.secret) for trial in trials]
    alone = measure_distinguisher(LossThreshold(), by_loss, rng, "loss")
    beside = measure_distinguisher(Lira(), trials, rng, "LiRA")
    assert beside.value > 0.9
    assert alone.value < 0.65
