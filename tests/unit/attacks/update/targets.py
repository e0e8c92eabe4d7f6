"""Uploads of clients whose examples are known, made by real training, and uploads that are nothing but noise."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from attacks.attack import Trial
from attacks.update.quality import Originals
from attacks.update.upload import Upload
from protocols.datasets import load
from protocols.models import mlp
from protocols.training import Examples, Training, with_state

if TYPE_CHECKING:
    from protocols.training import State

STEP = Training(steps=1, batch_size=1, learning_rate=0.1, momentum=0.0)


@cache
def digits() -> Examples:
    return load("digits", None).train


def some(count: int, rng: np.random.Generator) -> Examples:
    return digits().subset(rng.choice(len(digits()), count, replace=False).tolist())


def uploaded(model: nn.Module, examples: Examples, training: Training) -> Trial[Upload, Originals]:
    """What a client uploads, and what it trained on."""
    after = with_state(model, {})
    training.train(after, examples, 0)
    before = model.state_dict()
    return _trial(model, examples, training, {name: one - before[name] for name, one in after.state_dict().items()})


def unrelated(
    model: nn.Module, examples: Examples, training: Training, rng: np.random.Generator
) -> Trial[Upload, Originals]:
    """An upload that nobody's examples went into."""
    noise = {name: torch.from_numpy(rng.normal(0, 0.01, one.shape)).float() for name, one in model.state_dict().items()}
    return _trial(model, examples, training, noise)


def of_one_digit(count: int, rng: np.random.Generator, *, leaks: bool) -> list[Trial[Upload, Originals]]:
    """Clients that take one step on one digit."""
    model = mlp(64, (32, 16), seed=0)
    return [
        uploaded(model, some(1, rng), STEP) if leaks else unrelated(model, some(1, rng), STEP, rng)
        for _ in range(count)
    ]


def _trial(model: nn.Module, examples: Examples, training: Training, update: State) -> Trial[Upload, Originals]:
    view = Upload(model, update, training, tuple(examples.inputs.shape[1:]), 0.0, 1.0, 10)
    return Trial(view, Originals(examples.inputs.numpy().astype(np.float64), 0.0, 1.0))
