from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from attacks.update.cosine import Cosine
from attacks.update.quality import matching
from protocols.models import mlp
from tests.unit.attacks.conformance import ReconstructionContract
from tests.unit.attacks.update.targets import STEP, of_one_digit, some, uploaded

if TYPE_CHECKING:
    from attacks.attack import Trial
    from attacks.update.quality import Originals
    from attacks.update.upload import Upload


def best(attack: Cosine, trial: Trial[Upload, Originals]) -> float:
    return attack.quality(attack.guess(trial.view, np.random.default_rng(0)), trial.secret)


class TestCosine(ReconstructionContract):
    def attack(self) -> Cosine:
        return Cosine(iterations=80)

    def leaking(self, rng: np.random.Generator) -> list[Trial[Upload, Originals]]:
        return of_one_digit(6, rng, leaks=True)

    def silent(self, rng: np.random.Generator) -> list[Trial[Upload, Originals]]:
        return of_one_digit(3, rng, leaks=False)


def test_all_examples_of_two_steps_with_momentum_come_out_of_most_clients() -> None:
    training, worst = replace(STEP, steps=2, momentum=0.9), []
    for seed in range(4):
        trial = uploaded(mlp(64, (256, 32), seed=0), some(2, np.random.default_rng(seed)), training)
        guess = Cosine(iterations=120).guess(trial.view, np.random.default_rng(0))
        worst.append(matching(guess, trial.secret).psnr.min())
    assert np.median(worst) > 20


def normalised() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(1024, 10),
        )


def test_batch_normalisation_is_replayed_with_the_statistics_of_the_guess() -> None:
    assert best(Cosine(), uploaded(normalised(), some(1, np.random.default_rng(1)), STEP)) > 20


def test_a_tenth_of_the_coordinates_is_enough() -> None:
    trial = uploaded(mlp(64, (64, 32), seed=0), some(1, np.random.default_rng(0)), STEP)
    sizes = torch.cat([one.abs().flatten() for one in trial.view.update.values()])
    least = sizes.sort(descending=True).values[len(sizes) // 10]
    held = {name: one.abs() > least for name, one in trial.view.update.items()}
    sparse = {name: torch.where(held[name], one, 0) for name, one in trial.view.update.items()}
    kept = replace(trial, view=replace(trial.view, update=sparse, held=held))
    assert best(Cosine(), kept) > 20


def test_vectors_have_no_total_variation() -> None:
    trial = of_one_digit(1, np.random.default_rng(0), leaks=True)[0]
    flat = replace(trial, view=replace(trial.view, shape=(64,)))
    assert Cosine(iterations=2).guess(flat.view, np.random.default_rng(0)).shape == (1, 64)
