from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from attacks.update.upload import Replay, first_dense, last_dense
from protocols.models import conv_bn, digits_cnn, mlp, vgg9
from tests.unit.attacks.update.targets import STEP, some, uploaded

if TYPE_CHECKING:
    from protocols.training import Training


def normalised() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10), nn.BatchNorm1d(10)
        )


@pytest.mark.parametrize("model", [mlp(64, (32, 16)), digits_cnn(), normalised()], ids=["dense", "cnn", "normalised"])
@pytest.mark.parametrize(
    "training",
    [
        replace(STEP, batch_size=4),
        replace(STEP, batch_size=4, steps=3),
        replace(STEP, batch_size=4, steps=3, momentum=0.9),
    ],
    ids=["one step", "three steps", "momentum"],
)
def test_the_true_examples_replay_to_the_update(model: nn.Module, training: Training) -> None:
    """Four examples, all of them in every batch of four: their order in it changes nothing."""
    examples = some(4, np.random.default_rng(0))
    replay = Replay(uploaded(model, examples, training).view)
    labels = functional.one_hot(examples.labels, 10).double()
    found = replay.update(
        examples.inputs.double().repeat(training.steps, 1, 1, 1), labels.repeat(training.steps, 1)
    ).detach()
    assert len(found) == sum(one.numel() for one in model.parameters())
    assert float((found - replay.target).norm() / replay.target.norm()) < 1e-4


def test_of_a_pruned_upload_only_what_is_held_is_replayed() -> None:
    view = uploaded(mlp(64, (8,)), some(1, np.random.default_rng(0)), STEP).view
    held = {name: torch.zeros_like(one, dtype=torch.bool) for name, one in view.update.items()}
    held["fc2.bias"][3:5] = True
    replay = Replay(replace(view, held=held))
    inputs = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
    assert replay.update(inputs, torch.full((1, 10), 0.1, dtype=torch.float64)).shape == (2,)
    np.testing.assert_allclose(replay.target.numpy(), view.update["fc2.bias"][3:5].numpy())


def test_the_layers_that_attacks_read_are_found() -> None:
    view = uploaded(mlp(64, (8,)), some(1, np.random.default_rng(0)), STEP).view
    assert (first_dense(view), last_dense(view)) == ("fc1", "fc2")
    assert first_dense(replace(view, model=digits_cnn())) is None
    assert last_dense(replace(view, model=digits_cnn())) == "fc2"
    assert last_dense(replace(view, model=vgg9(classes=3))) is None
    assert last_dense(replace(view, model=conv_bn())) == "fc3"
    assert first_dense(replace(view, model=nn.Sequential(nn.Linear(64, 8, bias=False)))) is None
    for empty in (nn.Sequential(), nn.Sequential(nn.ReLU())):
        assert (first_dense(replace(view, model=empty)), last_dense(replace(view, model=empty))) == (None, None)
