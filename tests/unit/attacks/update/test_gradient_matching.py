from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from attacks.update.gradient_matching import DLG, IDLG
from attacks.update.quality import matching, ssim
from protocols.training import Examples
from tests.unit.attacks.conformance import ReconstructionContract
from tests.unit.attacks.update.targets import STEP, of_one_digit, some, uploaded

if TYPE_CHECKING:
    from attacks.attack import Trial
    from attacks.update.quality import Originals
    from attacks.update.upload import Upload


class TestDLG(ReconstructionContract):
    def attack(self) -> DLG:
        return DLG(iterations=60, starts=3)

    def leaking(self, rng: np.random.Generator) -> list[Trial[Upload, Originals]]:
        return of_one_digit(6, rng, leaks=True)

    def silent(self, rng: np.random.Generator) -> list[Trial[Upload, Originals]]:
        return of_one_digit(2, rng, leaks=False)


class TestIDLG(TestDLG):
    def attack(self) -> IDLG:  # type: ignore[override]
        return IDLG(iterations=60, starts=3)


def lenet(seed: int) -> nn.Module:
    """The sigmoid network that DLG was shown on, with its wide first weights, for one channel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 12, 5, stride=2, padding=2),
            nn.Sigmoid(),
            nn.Conv2d(12, 12, 5, stride=2, padding=2),
            nn.Sigmoid(),
            nn.Conv2d(12, 12, 5, padding=2),
            nn.Sigmoid(),
            nn.Flatten(),
            nn.Linear(588, 10),
        )
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)
    return model


@pytest.mark.parametrize("attack", [DLG(iterations=200, starts=1), IDLG(iterations=200, starts=1)])
def test_a_digit_of_28_pixels_comes_out_of_a_lenet_above_40_db(attack: DLG | IDLG) -> None:
    one = some(1, np.random.default_rng(0))
    large = functional.interpolate(one.inputs, size=(28, 28), mode="bilinear")
    trial = uploaded(lenet(0), Examples(large, one.labels), STEP)
    guess = attack.guess(trial.view, np.random.default_rng(0))
    assert matching(guess, trial.secret).psnr[0] > 40
    likeness = ssim(guess[0], trial.secret.examples[0], 1.0)
    assert likeness is not None
    assert likeness > 0.95


def test_an_upload_of_no_numbers_gives_a_guess_within_the_range() -> None:
    (trial,) = of_one_digit(1, np.random.default_rng(0), leaks=True)
    for name, one in trial.view.update.items():
        one.fill_(torch.nan if name.endswith("weight") else torch.inf)
    guess = DLG(iterations=2, starts=1).guess(trial.view, np.random.default_rng(0))
    assert np.isfinite(guess).all()
    assert 0 <= guess.min() <= guess.max() <= 1
