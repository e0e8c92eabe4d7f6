from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attacks.attack import Trial
from attacks.membership.loss import Asked, LossThreshold
from tests.unit.attacks.conformance import DistinguisherContract


def asked(rng: np.random.Generator, gain: float) -> list[Trial[Any, Any]]:
    """Examples of which the model is surer by ``gain`` where it learnt them."""
    trials = []
    for member in (True, False) * 60:
        logits, label = rng.normal(size=5), int(rng.integers(5))
        logits[label] += gain * member
        trials.append(Trial(Asked(logits, label), member))
    return trials


class TestLossThreshold(DistinguisherContract):
    def attack(self) -> LossThreshold:
        return LossThreshold()

    def leaking(self, rng: np.random.Generator) -> list[Trial[Any, Any]]:
        return asked(rng, 2.0)

    def silent(self, rng: np.random.Generator) -> list[Trial[Any, Any]]:
        return asked(rng, 0.0)


def test_the_score_is_minus_the_cross_entropy() -> None:
    view = Asked(np.log(np.array([0.5, 0.25, 0.25])), 1)
    assert LossThreshold().guess(view, np.random.default_rng(0)) == pytest.approx(np.log(0.25))
