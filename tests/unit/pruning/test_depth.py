"""Depth counts layers with weights, freezing saves their backward pass, and statistics are everybody's."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from msgspec import msgpack
from torch import nn

import secagg
from protocols.models import char_lstm, mlp
from pruning import Mask, Units, UnsupportedModelError, cost_of, extract, find_units, scatter
from pruning.depth import Block, blocks, depth_mask, whole_blocks
from secagg.declaration import Provenance
from secagg.errors import LayoutMismatchError, ParameterError
from secagg.layout import Layout, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.float64]]

POINTS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
TOKENS = torch.zeros(2, 5, dtype=torch.long)


def conv_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.PReLU(5), nn.Flatten(),
        nn.Linear(20, 3),
    )  # fmt: skip


def of(model: nn.Module, inputs: torch.Tensor) -> tuple[Units, tuple[Block, ...]]:
    units = find_units(model, inputs)
    return units, blocks(units, model)


def held_tensors(mask: Mask) -> list[str]:
    """Names of the tensors that a mask holds; it holds none in part."""
    held = mask.by_tensor()
    assert all(bools.all() == bools.any() for bools in held.values())
    return [name for name, bools in held.items() if bools.all()]


def test_every_dense_layer_is_a_block() -> None:
    _, found = of(mlp(6, (5, 4), 3), POINTS)
    assert found == (Block("fc1", ("fc1",)), Block("fc2", ("fc2",)), Block("fc3", ("fc3",)))


def test_a_normalisation_and_an_activation_are_of_the_block_whose_weights_come_before_them() -> None:
    _, found = of(conv_net(), IMAGES)
    assert found == (Block("0", ("0", "1")), Block("3", ("3", "4", "5")), Block("7", ("7",)))


def test_an_embedding_and_all_layers_of_an_lstm_are_a_block_each() -> None:
    _, found = of(char_lstm(7, embedding=3, hidden=4, layers=2), TOKENS)
    assert [block.name for block in found] == ["embedding", "lstm", "output"]


def test_what_is_registered_before_the_first_weights_is_of_their_block() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.norm = nn.BatchNorm1d(6)
            self.first = nn.Linear(6, 4)
            self.last = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.first(self.scale * self.norm(x))))

    units, found = of(Scaled(), POINTS)
    assert found == (Block("first", ("scale", "norm", "first")), Block("last", ("last",)))
    assert held_tensors(depth_mask(units, found, 1)) == [
        "norm.running_mean", "norm.running_var", "last.weight", "last.bias",
    ]  # fmt: skip


def test_a_normalisation_over_two_axes_has_weights_of_two_axes_and_is_no_block() -> None:
    class Pixelwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(6, 4)
            self.norm = nn.LayerNorm((6, 4))
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.dense(x)))

    model = Pixelwise()
    tensors = tuple(Tensor(name, tuple(p.shape)) for name, p in model.named_parameters())
    units = Units(Layout(tensors), frozenset(tensor.name for tensor in tensors))
    assert blocks(units, model) == (Block("dense", ("dense", "norm")), Block("head", ("head",)))


def test_a_model_that_is_one_layer_has_one_depth() -> None:
    units, found = of(nn.Linear(6, 2), POINTS)
    assert found == (Block("", ("weight", "bias")),)
    assert depth_mask(units, found, 1) == Mask.full(units.layout, Provenance.DEVICE)


@pytest.mark.parametrize(
    ("depth", "frozen"),
    [(1, {"0", "1", "3", "4", "5"}), (2, {"0", "1"}), (3, set())],
)
def test_a_depth_holds_the_last_blocks_and_all_statistics(depth: int, frozen: set[str]) -> None:
    units, found = of(conv_net(), IMAGES)
    mask = depth_mask(units, found, depth)
    statistics = ["1.running_mean", "1.running_var", "4.running_mean", "4.running_var"]
    trained = [name for name in sorted(units.parameters) if name.partition(".")[0] not in frozen]
    assert sorted(held_tensors(mask)) == sorted(statistics + trained)


def test_a_depth_mask_is_declared_in_a_bit_a_layer_and_the_whole_model_without_any() -> None:
    units, found = of(conv_net(), IMAGES)
    declared = depth_mask(units, found, 2).declaration()
    assert (declared.kind, declared.provenance) == ("layers", Provenance.DEVICE)
    # 0, 1, 1.statistics, 3, 4, 4.statistics, 5, 7
    assert declared.data == bytes([0b00111111])
    assert depth_mask(units, found, 3, Provenance.PUBLIC) == Mask.full(units.layout)


@pytest.mark.parametrize(
    ("model", "inputs"), [(mlp(6, (5, 4), 3), POINTS), (conv_net(), IMAGES), (char_lstm(7, hidden=4), TOKENS)]
)
def test_masks_of_growing_depth_are_nested(model: nn.Module, inputs: torch.Tensor) -> None:
    units, found = of(model, inputs)
    masks = [depth_mask(units, found, depth).coordinates for depth in range(1, len(found) + 1)]
    assert all((small < large).any() and (small <= large).all() for small, large in pairwise(masks))
    assert [whole_blocks(units, found, held) for held in masks] == [
        (False, False, True),
        (False, True, True),
        (True, True, True),
    ]


def test_a_block_that_lacks_one_coordinate_is_not_whole() -> None:
    units, found = of(conv_net(), IMAGES)
    for tensor, place in units.layout.slices():
        held = np.ones(units.layout.size, bool)
        held[place.start] = False
        expected = tuple(tensor.layer not in block.layers for block in found)
        assert whole_blocks(units, found, held) == expected
        assert all(expected) == (tensor.name not in units.parameters)


@pytest.mark.parametrize("depth", [-1, 0, 4])
def test_a_depth_that_the_model_does_not_have_is_refused(depth: int) -> None:
    units, found = of(mlp(6, (5, 4), 3), POINTS)
    with pytest.raises(ParameterError, match=f"from 1 to the model's 3 blocks, not {depth}"):
        depth_mask(units, found, depth)


# ---------------------------------------------------------------------------------- what freezing saves


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_frozen_dense_layer_costs_its_forward_product_only(depth: int) -> None:
    model = mlp(6, (5, 4), 3)
    units, found = of(model, POINTS)
    products = [2 * 4 * size for size in (6 * 5, 5 * 4, 4 * 3)]
    trained = products[-depth:]
    # The first trained layer needs the gradient of its weights, and nobody that of its inputs.
    expected = sum(products) + 2 * sum(trained) - trained[0]
    assert cost_of(extract(model, depth_mask(units, found, depth)), POINTS).step_flops == expected


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_frozen_convolution_costs_its_forward_pass_only(depth: int) -> None:
    model = conv_net()
    units, found = of(model, IMAGES)
    products = [2 * 4 * 4 * 9 * 16, 2 * 4 * 4 * 5 * 9 * 4, 2 * 4 * 20 * 3]
    trained = products[-depth:]
    expected = sum(products) + 2 * sum(trained) - trained[0]
    assert cost_of(extract(model, depth_mask(units, found, depth)), IMAGES).step_flops == expected


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_frozen_lstm_costs_its_forward_products_only(depth: int) -> None:
    model = char_lstm(7, embedding=3, hidden=4, layers=2)
    units, found = of(model, TOKENS)
    reads, inner, output = 3 * 16, 3 * 4 * 16, 4 * 7  # layer 0 reads the embedding; the other three are hidden by gates
    backward = {1: output, 2: 2 * output + 2 * inner + reads, 3: 2 * (output + inner + reads)}[depth]
    expected = 2 * 2 * 5 * (reads + inner + output + backward)
    assert cost_of(extract(model, depth_mask(units, found, depth)), TOKENS).step_flops == expected


@pytest.mark.parametrize(
    ("model", "inputs"), [(mlp(6, (5, 4), 3), POINTS), (conv_net(), IMAGES), (char_lstm(7, hidden=4), TOKENS)]
)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_autograd_records_nothing_of_what_is_frozen(model: nn.Module, inputs: torch.Tensor, depth: int) -> None:
    units, found = of(model, inputs)
    submodel = extract(model, depth_mask(units, found, depth)).train()
    recorded: list[str] = []
    for block in found:
        submodel.get_submodule(block.name).register_forward_hook(
            lambda _module, _inputs, output, name=block.name: recorded.extend(
                [name] * (output[0] if isinstance(output, tuple) else output).requires_grad
            )
        )
    submodel(inputs).sum().backward()
    assert recorded == [block.name for block in found[-depth:]]
    frozen = {layer for block in found[:-depth] for layer in block.layers}
    for name, parameter in submodel.named_parameters():
        assert (parameter.grad is None) == (name.rpartition(".")[0] in frozen)


def test_the_trained_blocks_get_the_gradient_of_the_whole_model() -> None:
    model = conv_net()
    units, found = of(model, IMAGES)
    submodel = extract(model, depth_mask(units, found, 2))
    for one in (model, submodel):
        nn.functional.cross_entropy(one(IMAGES), torch.tensor([0, 1, 2, 0])).backward()
    own = {name: p.grad for name, p in submodel.named_parameters() if p.grad is not None}
    assert {name.partition(".")[0] for name in own} == {"3", "4", "5", "7"}
    for name, gradient in own.items():
        whole = model.get_parameter(name).grad
        assert whole is not None
        assert torch.equal(gradient, whole)


def test_statistics_of_frozen_normalisations_move_and_are_uploaded() -> None:
    model = conv_net()
    units, found = of(model, IMAGES)
    mask = depth_mask(units, found, 1)
    submodel = extract(model, mask).train()
    submodel(IMAGES)
    before, after = model.state_dict(), submodel.state_dict()
    update = scatter({name: after[name] - before[name] for name in after}, mask)
    for name in ("1.running_mean", "1.running_var", "4.running_mean", "4.running_var"):
        assert update[name].all()


# ---------------------------------------------------------------------------------- the release rule


DEPTHS = [1, 1, 1, 2, 2, 2, 3, 3, 3, 3]


def play_depths(
    units: Units, found: tuple[Block, ...], participation: float = 0.0
) -> tuple[secagg.Result, list[Arrays]]:
    """Ten clients with random updates and these depths, in one mask-indexed session."""
    draws = np.random.default_rng(5)
    deltas: list[Arrays] = [{t.name: draws.uniform(-1, 1, t.shape) for t in units.layout.tensors} for _ in DEPTHS]
    masks = {client: depth_mask(units, found, depth).declaration() for client, depth in enumerate(DEPTHS)}
    params = secagg.Params(min_cohort=3, max_dropouts=2, participation=participation)
    result = secagg.simulate(
        dict(enumerate(deltas)), masks, mode="mask-indexed", params=params, layout=units.layout, seed=1
    )
    return result, deltas


@pytest.mark.parametrize(
    ("participation", "aggregated"),
    [(0.0, (False, True, True)), (0.5, (False, True, True)), (0.8, (False, False, True))],
)
def test_a_block_that_too_few_clients_train_is_withheld(participation: float, aggregated: tuple[bool, ...]) -> None:
    """Four clients train the first block, seven the second, ten the last; the release rule asks for 3 + 2."""
    units, found = of(conv_net(), IMAGES)
    result, _ = play_depths(units, found, participation=participation)
    released = result.aggregate.plan.released
    assert whole_blocks(units, found, released) == aggregated
    withheld = {layer for block, whole in zip(found, aggregated, strict=True) if not whole for layer in block.layers}
    for tensor, place in units.layout.slices():
        assert released[place].tolist() == [tensor.layer not in withheld] * tensor.size


def test_each_block_is_the_mean_of_those_who_train_it_and_statistics_are_everybodys() -> None:
    units, found = of(conv_net(), IMAGES)
    result, deltas = play_depths(units, found)
    for tensor in units.layout.tensors:
        step = next((len(found) - n for n, block in enumerate(found) if tensor.layer in block.layers), 0)
        trainers = [delta[tensor.name] for delta, depth in zip(deltas, DEPTHS, strict=True) if depth >= step]
        assert len(trainers) == {0: 10, 1: 10, 2: 7, 3: 4}[step]
        if len(trainers) < 5:
            assert np.isnan(result.mean[tensor.name]).all()
        else:
            np.testing.assert_allclose(result.mean[tensor.name], np.mean(trainers, axis=0), atol=1e-5)


def test_a_shallow_client_uploads_less_and_nobody_a_withheld_block() -> None:
    units, found = of(conv_net(), IMAGES)
    result, _ = play_depths(units, found)
    uploads = result.stats.upload_bytes
    held = [depth_mask(units, found, depth).coordinates.sum() for depth in (1, 2)]
    assert uploads[3] - uploads[0] > 2 * (held[1] - held[0])  # a place of the vector takes more than two bytes
    middle, whole = (len(msgpack.encode(depth_mask(units, found, depth).declaration())) for depth in (2, 3))
    assert uploads[3] - uploads[9] == middle - whole


# ---------------------------------------------------------------------------------- what has no depth


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.mix = nn.Linear(4, 4)
        self.output = nn.Linear(4, 7)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.output(torch.tanh(self.mix(self.embedding(tokens))))


class OneLayerTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.again = self.first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(torch.relu(self.first(x)))


class SharedNormalisation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        norm = nn.LayerNorm(6)
        self.first = nn.Linear(6, 6)
        self.norm1 = norm
        self.second = nn.Linear(6, 6)
        self.norm2 = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm2(self.second(self.norm1(self.first(x))))


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (Tied(), TOKENS, "'output.weight' is tied to block 'embedding'"),
        (OneLayerTwice(), POINTS, "'again.weight' is tied to block 'first'"),
        (SharedNormalisation(), POINTS, "'norm2.weight' is tied to block 'first'"),
        (nn.BatchNorm1d(6), POINTS, "has no depth"),
    ],
)
def test_a_model_whose_layers_cannot_be_frozen_apart_is_refused(
    model: nn.Module, inputs: torch.Tensor, message: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        of(model, inputs)


def test_statistics_in_the_layer_of_their_weights_are_refused() -> None:
    """With them in one layer, a client that freezes the weights would keep its statistics to itself."""
    model = conv_net()
    units = find_units(model, IMAGES)
    joined = tuple(Tensor(tensor.name, tensor.shape) for tensor in units.layout.tensors)
    with pytest.raises(UnsupportedModelError, match="layer '1' holds more than"):
        blocks(Units(Layout(joined), units.parameters), model)


def test_a_layer_over_two_blocks_is_refused() -> None:
    model = mlp(6, (5, 4), 3)
    units = find_units(model, POINTS)
    joined = tuple(Tensor(tensor.name, tensor.shape, layer="all") for tensor in units.layout.tensors)
    with pytest.raises(UnsupportedModelError, match="layer 'all' holds more than"):
        blocks(Units(Layout(joined), units.parameters), model)


def test_units_of_another_model_are_refused() -> None:
    with pytest.raises(LayoutMismatchError, match="those of another model"):
        blocks(find_units(mlp(6, (5,), 3), POINTS), mlp(6, (5, 4), 3))
