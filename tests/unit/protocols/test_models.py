"""The reference models: their layers, their sizes, and that units are found on every one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from protocols.models import char_lstm, conv_bn, digits_cnn, har_cnn, mlp, mnist_cnn, vgg9
from pruning import extract, find_units, random_units
from pruning.cost import cost_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

MODELS: dict[str, tuple[Callable[[int], nn.Module], torch.Tensor, dict[str, int], int]] = {
    "mlp": (lambda seed: mlp(6, (5, 4), 3, seed=seed), torch.ones(2, 6), {"fc1": 5, "fc2": 4}, 74),
    "digits_cnn": (
        lambda seed: digits_cnn(seed=seed),
        torch.ones(1, 1, 8, 8),
        {"conv1": 16, "conv2": 32, "fc1": 128},
        # 9 weights and a bias for each of 16 filters, and so on.
        16 * 10 + 32 * (16 * 9 + 1) + 128 * (32 * 16 + 1) + 10 * 129,
    ),
    "mnist_cnn": (
        lambda seed: mnist_cnn(seed=seed),
        torch.ones(1, 1, 28, 28),
        {"conv1": 32, "conv2": 64, "fc1": 128},
        32 * 26 + 64 * (32 * 25 + 1) + 128 * (64 * 49 + 1) + 10 * 129,
    ),
    "vgg9": (
        lambda seed: vgg9(seed=seed),
        torch.ones(1, 3, 32, 32),
        {"conv1": 32, "conv2": 32, "conv3": 64, "conv4": 64, "conv5": 128, "conv6": 128, "fc1": 512, "fc2": 256},
        1_469_994,
    ),
    "conv_bn": (
        lambda seed: conv_bn(seed=seed),
        torch.ones(1, 3, 32, 32),
        {"conv1": 32, "conv2": 32, "conv3": 64, "conv4": 64, "conv5": 128, "conv6": 128, "fc1": 256, "fc2": 128},
        # The convolutions of VGG-9, a scale and a shift for each of 448 filters, and other dense layers.
        1_469_994 - (512 * 2049 + 256 * 513 + 10 * 257) + 2 * 448 + 256 * 2049 + 128 * 257 + 10 * 129,
    ),
    "har_cnn": (
        lambda seed: har_cnn(9, 128, seed=seed),
        torch.ones(2, 9, 128),
        {"conv1": 64, "conv2": 64, "fc1": 32},
        # Two convolutions take 8 of 128 samples off, and the pooling halves the 120 that are left.
        64 * (9 * 5 + 1) + 64 * (64 * 5 + 1) + 32 * (64 * 60 + 1) + 6 * 33,
    ),
    "char_lstm": (
        lambda seed: char_lstm(7, embedding=3, hidden=4, seed=seed),
        torch.zeros(2, 5, dtype=torch.int64),
        {"embedding": 3, "lstm": 4},
        7 * 3 + 4 * 4 * (3 + 4 + 2) + 4 * 4 * (4 + 4 + 2) + 7 * 5,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_units_are_found_on_every_model_and_a_submodel_without_some_predicts_as_much(name: str) -> None:
    make, inputs, groups, size = MODELS[name]
    model = make(0).eval()
    layout = find_units(model, inputs).layout
    assert layout.unit_groups == groups
    assert sum(parameter.numel() for parameter in model.parameters()) == size
    submodel = extract(model, random_units(layout, 0.5, np.random.default_rng(0)))
    assert submodel(inputs).shape == model(inputs).shape
    assert sum(parameter.numel() for parameter in submodel.parameters()) < size


@pytest.mark.parametrize("name", MODELS)
def test_the_seed_decides_the_initial_weights_and_nothing_else_is_drawn(name: str) -> None:
    make, *_ = MODELS[name]
    before = torch.get_rng_state()
    one, same, other = (torch.nn.utils.parameters_to_vector(make(seed).parameters()) for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_classes_and_channels_of_the_image_models_can_be_set() -> None:
    assert mnist_cnn(62, 3)(torch.ones(2, 3, 28, 28)).shape == (2, 62)
    assert conv_bn(100, 1).eval()(torch.ones(2, 1, 32, 32)).shape == (2, 100)


def test_every_convolution_of_conv_bn_is_normalised_before_its_relu() -> None:
    names = [name for name, _ in conv_bn().named_children()]
    for number in range(1, 7):
        start = names.index(f"conv{number}")
        assert names[start + 1 : start + 3] == [f"bn{number}", f"relu_bn{number}"]
        assert names[start + 3].startswith("pool") == (number % 2 == 0)
    assert names[-6:] == ["flatten", "fc1", "relu_fc1", "fc2", "relu_fc2", "fc3"]


def test_a_network_on_signals_has_the_window_and_the_width_of_choice_and_its_operations_are_counted() -> None:
    model = har_cnn(3, 200, 4, width=8)
    assert model(torch.ones(2, 3, 200)).shape == (2, 4)
    # A multiply-add of every filter at every place, and one of every dense weight; two operations each, two windows.
    products = 196 * 8 * 3 * 5 + 192 * 8 * 8 * 5 + 32 * 8 * 96 + 4 * 32
    assert cost_of(model, torch.ones(2, 3, 200)).inference_flops == 2 * 2 * products
    assert har_cnn(3, 201, width=8)(torch.ones(2, 3, 201)).shape == (2, 6)
