from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from protocols.models import char_lstm, digits_cnn, mlp
from pruning import Mask, NotASubmodelError, extract, find_units, gather, ordered_units, random_units, scatter
from secagg.errors import LayoutMismatchError, ParameterError

if TYPE_CHECKING:
    from secagg.layout import Layout

IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def cnn_layout() -> Layout:
    return find_units(digits_cnn(), IMAGES).layout


def random_mask(layout: Layout, keep: float = 0.5) -> Mask:
    return random_units(layout, keep, np.random.default_rng(0))


def test_the_sizes_of_a_smaller_module_are_those_of_its_tensors(cnn_layout: Layout) -> None:
    submodel = extract(digits_cnn(), random_mask(cnn_layout, 0.25))
    sizes = {
        name: (module.in_channels, module.out_channels)
        if isinstance(module, nn.Conv2d)
        else (module.in_features, module.out_features)
        for name, module in submodel.named_children()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    }
    assert sizes == {"conv1": (1, 4), "conv2": (4, 8), "fc1": (128, 32), "fc2": (32, 10)}


def test_an_lstm_shrinks_with_its_embedding() -> None:
    model = char_lstm(7, embedding=4, hidden=8)
    small = extract(model, ordered_units(find_units(model, torch.randint(7, (2, 5))).layout, 0.5))
    lstm, embedding = small.get_submodule("lstm"), small.get_submodule("embedding")
    assert isinstance(lstm, nn.LSTM)
    assert isinstance(embedding, nn.Embedding)
    assert (embedding.embedding_dim, lstm.input_size, lstm.hidden_size) == (2, 2, 4)
    small(torch.randint(7, (2, 5))).sum().backward()
    assert all(p.grad is not None for p in small.parameters())


def test_the_model_keeps_its_weights_and_the_submodel_its_own(cnn_layout: Layout) -> None:
    model = digits_cnn()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    submodel = extract(model, random_mask(cnn_layout))
    with torch.no_grad():
        for parameter in submodel.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_modes_frozen_parameters_and_dtypes_carry_over_and_gradients_do_not(cnn_layout: Layout) -> None:
    model = digits_cnn().double().eval()
    model(IMAGES.double()).sum().backward()
    model.get_parameter("conv1.weight").requires_grad_(False)
    submodel = extract(model, random_mask(cnn_layout))
    assert not submodel.training
    assert [name for name, p in submodel.named_parameters() if not p.requires_grad] == ["conv1.weight"]
    assert all(p.dtype == torch.float64 and p.grad is None for p in submodel.parameters())


def test_tied_parameters_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 4)
            self.output = nn.Linear(4, 7)
            self.output.weight = self.embedding.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.output(self.embedding(tokens))

    model = Tied()
    tokens = torch.randint(7, (2, 5))
    small = extract(model, ordered_units(find_units(model, tokens).layout, 0.5))
    assert small.get_parameter("embedding.weight") is small.get_parameter("output.weight")
    assert small(tokens).shape == (2, 5, 7)


def test_a_gradient_of_the_submodel_is_that_of_the_masked_model(cnn_layout: Layout) -> None:
    model, mask = digits_cnn(), random_mask(cnn_layout)
    held = {name: torch.from_numpy(bools) for name, bools in mask.by_tensor().items()}
    submodel = extract(model, mask)
    loss = nn.CrossEntropyLoss()
    labels = torch.tensor([1, 2, 3, 4])
    loss(submodel(IMAGES), labels).backward()
    masked = {name: value.detach() * held[name] for name, value in model.state_dict().items()}
    leaves = {name: value.requires_grad_() for name, value in masked.items()}
    loss(torch.func.functional_call(model, leaves, (IMAGES,)), labels).backward()
    small = scatter({name: p.grad for name, p in submodel.named_parameters() if p.grad is not None}, mask)
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        torch.testing.assert_close(small[name], leaf.grad * held[name], rtol=1e-4, atol=1e-6)


def test_what_is_scattered_is_zero_where_the_mask_does_not_hold(cnn_layout: Layout) -> None:
    model, mask = digits_cnn(), random_mask(cnn_layout)
    full = scatter(extract(model, mask).state_dict(), mask)
    for name, held in mask.by_tensor().items():
        assert torch.equal(full[name], model.state_dict()[name] * torch.from_numpy(held))


def test_gathering_is_the_opposite_of_scattering(cnn_layout: Layout) -> None:
    model, mask = digits_cnn(), random_mask(cnn_layout)
    small = extract(model, mask).state_dict()
    assert {n: t.shape for n, t in gather(model.state_dict(), mask).items()} == {n: t.shape for n, t in small.items()}
    again = gather(scatter(small, mask), mask)
    assert all(torch.equal(again[name], small[name]) for name in small)


def test_a_mask_of_layers_freezes_the_others_and_scatters_only_its_own(cnn_layout: Layout) -> None:
    model = digits_cnn()
    mask = Mask.of_layers(cnn_layout, np.array([False, False, True, True]))
    submodel = extract(model, mask)
    assert [name for name, p in submodel.named_parameters() if p.requires_grad] == [
        "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias",
    ]  # fmt: skip
    assert gather(model.state_dict(), mask).keys() == submodel.state_dict().keys()
    full = scatter(submodel.state_dict(), mask)
    assert not full["conv1.weight"].any()
    assert torch.equal(full["fc1.weight"], model.state_dict()["fc1.weight"])


def test_a_full_mask_gives_an_equal_copy(cnn_layout: Layout) -> None:
    model = digits_cnn()
    assert torch.equal(extract(model, Mask.full(cnn_layout))(IMAGES), model(IMAGES))


def test_single_coordinates_make_no_smaller_module(cnn_layout: Layout) -> None:
    mask = Mask.of_coordinates(cnn_layout, np.random.default_rng(0).random(cnn_layout.size) < 0.5)
    model = digits_cnn()
    with pytest.raises(NotASubmodelError, match="single coordinates"):
        extract(model, mask)
    assert (
        torch.count_nonzero(scatter(model.state_dict(), mask)["fc1.weight"]) < model.get_parameter("fc1.weight").numel()
    )


def test_a_group_without_units_is_refused(cnn_layout: Layout) -> None:
    held = np.ones(cnn_layout.unit_count, bool)
    held[:16] = False
    with pytest.raises(ParameterError, match="no unit of 'conv1'"):
        extract(digits_cnn(), Mask.of_units(cnn_layout, held))


def test_another_models_mask_is_refused(cnn_layout: Layout) -> None:
    with pytest.raises(LayoutMismatchError, match=r"'conv1\.weight' is missing"):
        extract(mlp(6), Mask.full(cnn_layout))
    with pytest.raises(LayoutMismatchError, match="has shape"):
        extract(digits_cnn(classes=3), Mask.full(cnn_layout))


def test_tensors_of_another_submodel_are_refused(cnn_layout: Layout) -> None:
    smaller = extract(digits_cnn(), random_mask(cnn_layout, 0.25)).state_dict()
    with pytest.raises(LayoutMismatchError, match="has shape"):
        scatter(smaller, random_mask(cnn_layout, 0.5))
    with pytest.raises(LayoutMismatchError, match="is missing"):
        gather({}, random_mask(cnn_layout))
