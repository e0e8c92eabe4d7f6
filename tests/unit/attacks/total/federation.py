"""A federation so small that crafted rounds are played in no time."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attacks.deployment import Deployment
from attacks.total.crafted import crafted_round, one_step, with_model
from protocols.models import mlp
from protocols.training import Examples, Training
from secagg import Params, PrivacyBudget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from attacks.total.crafted import CraftedRound

CLIENTS, INPUTS, CLASSES = 5, 9, 3


def examples(count: int, rng: np.random.Generator) -> Examples:
    inputs = rng.random((count, 1, 3, 3)) + rng.random((count, 1, 1, 1))
    return Examples(torch.from_numpy(inputs).float(), torch.from_numpy(rng.integers(CLASSES, size=count)))


@cache
def federation(clients: int = CLIENTS, each: int = 8, **settings: Any) -> Deployment:
    rng = np.random.default_rng(0)
    plain = Deployment(
        name="tiny",
        model=lambda: mlp(INPUTS, (8,), CLASSES),
        clients=[examples(each, rng) for _ in range(clients)],
        test=examples(60, rng),
        training=Training(steps=2, batch_size=4, learning_rate=0.1),
        mode="uniform",
        params=Params(min_cohort=3, max_dropouts=1),
    )
    return plain.variant("tiny", **settings)


@cache
def private() -> Deployment:
    plain = federation()
    budget = PrivacyBudget(epsilon=8.0, delta=1e-5, clip=0.1)
    privacy = budget.privacy(plain.params, rounds=1, clients=CLIENTS, coordinates=plain.layout.size)
    return plain.variant("private", params=replace(plain.params, privacy=privacy))


def played(deployment: Deployment, models: Sequence[nn.Module], number: int, rng: np.random.Generator) -> CraftedRound:
    """A round of one step with these models."""
    return crafted_round(with_model(one_step(deployment), models[0]), models, number, rng)
