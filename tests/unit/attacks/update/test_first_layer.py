from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from attacks.update.first_layer import FirstLayer
from attacks.update.quality import matching
from protocols.models import digits_cnn, mlp
from tests.unit.attacks.conformance import ReconstructionContract
from tests.unit.attacks.update.targets import STEP, of_one_digit, some, unrelated, uploaded

if TYPE_CHECKING:
    from attacks.attack import Trial
    from attacks.update.quality import Originals
    from attacks.update.upload import Upload
    from protocols.training import Examples

EIGHT = replace(STEP, batch_size=8)


class TestFirstLayer(ReconstructionContract):
    def attack(self) -> FirstLayer:
        return FirstLayer()

    def leaking(self, rng: np.random.Generator) -> list[Trial[Upload, Originals]]:
        return of_one_digit(8, rng, leaks=True)

    def silent(self, rng: np.random.Generator) -> list[Trial[Upload, Originals]]:
        return of_one_digit(8, rng, leaks=False)


def with_a_neuron_for_each(examples: Examples, neurons: int = 64) -> nn.Module:
    """A dense ReLU network with one neuron that each example alone activates, among others that many activate.

    Neuron n has weights w with w · x_m = 1 where m = n, else 0, and the bias -1/2.
    """
    model = mlp(64, (neurons, 32), seed=3)
    inputs = examples.inputs.flatten(1).double()
    first = model.get_submodule("fc1")
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        first.weight[: len(inputs)] = torch.linalg.pinv(inputs).T.float()
        first.bias[: len(inputs)] = -0.5
    return model


def test_eight_examples_are_exact_where_each_has_a_neuron_of_its_own() -> None:
    examples = some(8, np.random.default_rng(0))
    trial = uploaded(with_a_neuron_for_each(examples, neurons=8), examples, EIGHT)
    found = matching(FirstLayer().guess(trial.view, np.random.default_rng(0)), trial.secret)
    assert found.psnr.min() > 60


def test_of_eight_examples_most_are_exact_among_neurons_that_several_share() -> None:
    examples = some(8, np.random.default_rng(0))
    trial = uploaded(with_a_neuron_for_each(examples), examples, EIGHT)
    found = matching(FirstLayer().guess(trial.view, np.random.default_rng(0)), trial.secret)
    assert (found.psnr > 60).mean() > 0.5


def test_an_example_that_several_neurons_agree_on_comes_before_mixtures() -> None:
    """Three neurons, worked by hand: two say the same, and one a mixture within the range."""
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 10))
    trial = uploaded(mlp(64, (4,)), some(1, np.random.default_rng(0)), STEP)
    update = {
        "0.weight": torch.tensor([[0.1, 0.7], [0.2, 0.4], [0.3, 0.6]]),
        "0.bias": torch.tensor([1.0, 0.5, 0.75]),
    }
    view = replace(trial.view, model=model, update=update, shape=(2,))
    np.testing.assert_allclose(FirstLayer().guess(view, np.random.default_rng(0)), [[0.4, 0.8]], atol=1e-6)


def test_a_quotient_beyond_the_range_comes_last() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 10))
    trial = uploaded(mlp(64, (4,)), some(1, np.random.default_rng(0)), STEP)
    update = {"0.weight": torch.tensor([[3.0, -2.0], [0.2, 0.4]]), "0.bias": torch.tensor([1.0, 1.0])}
    view = replace(trial.view, model=model, update=update, shape=(2,))
    np.testing.assert_allclose(FirstLayer().guess(view, np.random.default_rng(0)), [[0.2, 0.4]], atol=1e-6)


def test_where_there_is_nothing_to_divide_the_guess_is_gray() -> None:
    examples = some(2, np.random.default_rng(0))
    two = replace(STEP, batch_size=2)
    for view in (
        uploaded(digits_cnn(), examples, two).view,
        replace(unrelated(mlp(64, (4,)), examples, two, np.random.default_rng(0)).view, update=nothing()),
    ):
        guess = FirstLayer().guess(view, np.random.default_rng(0))
        assert guess.shape == (2, 1, 8, 8)
        assert (guess == 0.5).all()


def nothing() -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(one) for name, one in mlp(64, (4,)).state_dict().items()}
