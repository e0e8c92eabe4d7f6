from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from torch import nn

from attacks.update.labels import labels
from protocols.models import mlp
from tests.unit.attacks.update.targets import STEP, some, uploaded

if TYPE_CHECKING:
    from protocols.training import Training


def overlap(model: nn.Module, training: Training, seed: int, count: int) -> float:
    """Share of a client's labels that were found, however often each is there."""
    examples = some(count, np.random.default_rng(seed))
    found = labels(uploaded(model, examples, training).view, np.random.default_rng(seed))
    assert len(found) == count
    true, guessed = (np.bincount(one, minlength=10) for one in (examples.labels.numpy(), found))
    return float(np.minimum(true, guessed).sum() / count)


@pytest.mark.parametrize("seed", range(5))
def test_the_label_of_one_example_is_exact(seed: int) -> None:
    assert overlap(mlp(64, (32,), seed=seed), STEP, seed, 1) == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_labels_of_a_batch_are_exact_for_a_model_that_has_learnt_nothing(seed: int) -> None:
    assert overlap(mlp(64, (64, 32), seed=0), replace(STEP, batch_size=8), seed, 8) == 1


def test_the_labels_of_several_steps_are_nearly_all_found() -> None:
    training = replace(STEP, batch_size=8, steps=4)
    assert np.mean([overlap(mlp(64, (64, 32), seed=0), training, seed, 32) for seed in range(5)]) > 0.85


def test_a_last_layer_without_a_bias_tells_the_label_too() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10, bias=False))
    assert [overlap(model, STEP, seed, 1) for seed in range(3)] == [1, 1, 1]


def test_a_model_that_ends_otherwise_leaves_the_labels_to_chance() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 20), nn.GLU())
    view = uploaded(model, some(8, np.random.default_rng(0)), replace(STEP, batch_size=8)).view
    found = labels(view, np.random.default_rng(0))
    assert len(set(found.tolist())) > 1
    assert not np.array_equal(found, labels(view, np.random.default_rng(1)))
