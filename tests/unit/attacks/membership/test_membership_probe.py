from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from attacks.digits import deployment
from attacks.finding import Effort
from attacks.membership import probe as module
from attacks.membership.federated import trained
from attacks.membership.probe import probe
from attacks.protections import side_by_side
from protocols.models import mlp
from protocols.training import Examples, Training, accuracy, one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN, UNIFORM, MASKED, PRIVATE = side_by_side(deployment())
EFFORT = Effort(decisions=100, shadows=4)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with one_thread():
        yield


def test_a_model_that_learns_by_heart_gives_its_examples_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are drawn, so that the model can only remember them: 60 of them."""
    monkeypatch.setattr(module, "ROUNDS", 10)
    drawn = torch.Generator().manual_seed(0)
    pool = Examples(PLAIN.test.inputs[:180], torch.randint(10, (180,), generator=drawn))
    by_heart = PLAIN.variant(
        "by heart",
        model=lambda: mlp(64, (64, 32), seed=0),
        clients=[pool.subset(range(start, start + 15)) for start in range(0, 60, 15)],
        test=pool.subset(range(60, 180)),
        training=Training(steps=20, batch_size=15, learning_rate=0.5, momentum=0.0),
    )
    loss, lira = probe(by_heart, EFFORT, np.random.default_rng(0))
    for finding in (loss, lira):
        assert finding.measurement is not None
        assert finding.measurement.value > 0.85
        assert finding.leaks(0.001)
        assert not finding.claimed


def test_a_model_that_learnt_nothing_gives_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUNDS", 1)
    for finding in probe(UNIFORM, EFFORT, np.random.default_rng(0)):
        assert not finding.leaks(0.01)
        assert finding.cures


def test_noise_bounds_what_any_attack_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUNDS", 10)
    notes = [finding.note for finding in probe(PRIVATE, EFFORT, np.random.default_rng(0))]
    assert all("epsilon 8.0" in note or "epsilon 7." in note for note in notes)  # the budget is made for ten rounds


def test_sequences_are_not_asked_about() -> None:
    labels = PLAIN.test.labels[:, None].repeat(1, 3)
    text = PLAIN.variant("text", test=Examples(PLAIN.test.inputs, labels))
    findings = list(probe(text, EFFORT, np.random.default_rng(0)))
    assert [one.measurement for one in findings] == [None, None]
    assert "sequences" in findings[0].note


@pytest.mark.parametrize("one", [PLAIN, MASKED], ids=["plain", "mask-indexed"])
def test_rounds_of_a_deployment_train_its_model(one: object) -> None:
    chosen = MASKED if one is MASKED else PLAIN
    model = trained(chosen, 15, np.random.default_rng(0))
    assert accuracy(model, chosen.test) > 0.35
    assert accuracy(chosen.model(), chosen.test) < 0.25
