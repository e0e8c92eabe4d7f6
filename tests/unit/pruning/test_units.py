from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from protocols.models import char_lstm, digits_cnn, mlp, vgg9
from pruning import Units, UnsupportedModelError, extract, find_units, random_units
from secagg.layout import NO_UNIT, Tensor


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.inner = nn.Conv2d(6, 4, 3, padding=1)
        self.outer = nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.outer(torch.relu(self.inner(x)))
        return self.head(x.mean((2, 3)))


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 1)
        self.right = nn.Conv2d(3, 5, 1)
        self.merge = nn.Conv2d(9, 3, 1)
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
        return self.head(torch.relu(self.merge(x)).amax((2, 3)))


class TiedLanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.mix = nn.Linear(4, 4)
        self.output = nn.Linear(4, 7)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.output(torch.tanh(self.mix(self.embedding(tokens))))


class AddsItsInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + torch.relu(self.step(x)))


class NamesASize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4 * 16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).view(-1, 64))


class ChannelsLast(nn.Module):
    """Flattens with the channel as the fastest axis, which the tracing takes for the slowest."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4 * 16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).permute(0, 2, 3, 1).flatten(1))


class LastHidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 6, num_layers=2)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = self.lstm(x)
        return self.head(hidden[-1])


def sequential(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def tensor(units: Units, name: str) -> Tensor:
    return next(tensor for tensor in units.layout.tensors if tensor.name == name)


def axis(units: Units, name: str, number: int) -> list[int]:
    return list(tensor(units, name).unit_axes[number])


def assert_submodels_compute_the_masked_model(model: nn.Module, *inputs: torch.Tensor) -> None:
    units = find_units(model, inputs)
    model.eval()
    for seed in range(3):
        mask = random_units(units.layout, 0.4, np.random.default_rng(seed))
        submodel = extract(model, mask)
        assert sum(p.numel() for p in submodel.parameters()) < sum(p.numel() for p in model.parameters())
        state = model.state_dict()
        masked = {name: state[name] * torch.from_numpy(held) for name, held in mask.by_tensor().items()}
        expected = torch.func.functional_call(model, masked, inputs)
        torch.testing.assert_close(submodel(*inputs), expected, rtol=1e-4, atol=1e-5)


def test_a_neuron_owns_its_row_its_bias_and_its_column() -> None:
    units = find_units(mlp(6, (4, 3), 2), torch.randn(2, 6))
    assert units.layout.unit_groups == {"fc1": 4, "fc2": 3}
    assert tensor(units, "fc1.weight").unit_axes == {0: (0, 1, 2, 3)}
    assert tensor(units, "fc1.bias").unit_axes == {0: (0, 1, 2, 3)}
    assert tensor(units, "fc2.weight").unit_axes == {0: (4, 5, 6), 1: (0, 1, 2, 3)}
    assert tensor(units, "fc3.weight").unit_axes == {1: (4, 5, 6)}
    assert tensor(units, "fc3.bias").unit_axes == {}


def test_a_filter_owns_all_columns_of_its_flattened_image() -> None:
    units = find_units(digits_cnn(), torch.randn(2, 1, 8, 8))
    assert units.layout.unit_groups == {"conv1": 16, "conv2": 32, "fc1": 128}
    assert axis(units, "conv2.weight", 1) == list(range(16))
    assert axis(units, "fc1.weight", 1) == np.repeat(np.arange(16, 48), 16).tolist()


def test_the_layers_of_vgg9_make_its_units() -> None:
    units = find_units(vgg9(), torch.randn(1, 3, 32, 32))
    assert list(units.layout.unit_groups.items()) == [
        ("conv1", 32), ("conv2", 32), ("conv3", 64), ("conv4", 64),
        ("conv5", 128), ("conv6", 128), ("fc1", 512), ("fc2", 256),
    ]  # fmt: skip
    assert units.layout.size == 1_469_994


def test_a_filter_owns_its_batch_normalisation_and_no_integer_buffer_is_listed() -> None:
    model = sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    units = find_units(model, torch.randn(2, 1, 4, 4))
    for name in ("1.weight", "1.bias", "1.running_mean", "1.running_var"):
        assert axis(units, name, 0) == [0, 1, 2, 3]
    assert "1.num_batches_tracked" not in {t.name for t in units.layout.tensors}
    assert units.parameters == {"0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"}


def test_running_statistics_are_a_layer_apart_from_the_weights_that_they_normalise() -> None:
    units = find_units(Residual(), torch.randn(2, 3, 4, 4))
    assert units.layout.layers == ("stem", "norm", "norm.statistics", "inner", "outer", "head")
    assert {t.name: t.layer for t in units.layout.tensors if t.name.startswith("norm.")} == {
        "norm.weight": "norm",
        "norm.bias": "norm",
        "norm.running_mean": "norm.statistics",
        "norm.running_var": "norm.statistics",
    }


def test_statistics_that_the_model_itself_owns_are_one_layer_too() -> None:
    layout = find_units(nn.BatchNorm1d(3), torch.randn(2, 3)).layout
    assert layout.layers == ("weight", "bias", "statistics")


def test_residual_sums_couple_their_summands() -> None:
    units = find_units(Residual(), torch.randn(2, 3, 4, 4))
    assert units.layout.unit_groups == {"stem": 6, "inner": 4}
    assert axis(units, "outer.weight", 0) == axis(units, "stem.weight", 0) == axis(units, "head.weight", 1)


def test_a_depthwise_filter_belongs_to_the_channel_it_reads() -> None:
    model = sequential(
        nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.Flatten(), nn.Linear(20, 2)
    )
    units = find_units(model, torch.randn(2, 3, 4, 4))
    assert units.layout.unit_groups == {"0": 4, "3": 5}
    assert axis(units, "1.weight", 0) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert 1 not in tensor(units, "1.weight").unit_axes
    small = extract(model, random_units(units.layout, 0.5, np.random.default_rng(0)))
    depthwise = small.get_submodule("1")
    assert isinstance(depthwise, nn.Conv2d)
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels) == (2, 2, 4)


def test_a_unit_under_group_normalisation_is_a_whole_group() -> None:
    model = sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
    units = find_units(model, torch.randn(2, 1, 4, 4))
    assert units.layout.unit_groups == {"0": 4}
    assert axis(units, "0.weight", 0) == axis(units, "1.weight", 0) == [0, 0, 1, 1, 2, 2, 3, 3]
    norm = extract(model, random_units(units.layout, 0.5, np.random.default_rng(0))).get_submodule("1")
    assert isinstance(norm, nn.GroupNorm)
    assert (norm.num_groups, norm.num_channels) == (2, 4)


def test_what_feeds_a_layer_normalisation_keeps_all_its_outputs() -> None:
    model = sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    assert find_units(model, torch.randn(2, 3)).layout.unit_groups == {"0": 6}


def test_hidden_units_of_all_lstm_layers_are_coupled_index_by_index() -> None:
    units = find_units(char_lstm(7, embedding=3, hidden=4), torch.randint(7, (2, 5)))
    assert units.layout.unit_groups == {"embedding": 3, "lstm": 4}
    gates = [3, 4, 5, 6] * 4
    assert axis(units, "embedding.weight", 1) == axis(units, "lstm.weight_ih_l0", 1) == [0, 1, 2]
    for name in ("weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1", "bias_ih_l0", "bias_hh_l1"):
        assert axis(units, f"lstm.{name}", 0) == gates
    for name in ("lstm.weight_hh_l0", "lstm.weight_ih_l1", "lstm.weight_hh_l1", "output.weight"):
        assert axis(units, name, 1) == [3, 4, 5, 6]


def test_concatenation_keeps_each_part_apart() -> None:
    units = find_units(Concatenated(), torch.randn(2, 3, 4, 4))
    assert units.layout.unit_groups == {"left": 4, "right": 5, "merge": 3}
    assert axis(units, "merge.weight", 1) == list(range(9))


def test_a_tied_tensor_appears_once_and_carries_the_units_of_both_uses() -> None:
    units = find_units(TiedLanguageModel(), torch.randint(7, (2, 5)))
    assert [t.name for t in units.layout.tensors] == ["embedding.weight", "mix.weight", "mix.bias", "output.bias"]
    # One matrix feeds mix and reads it, so column k is unit k of both.
    assert units.layout.unit_groups == {"embedding": 4}
    assert axis(units, "mix.weight", 0) == axis(units, "mix.weight", 1) == axis(units, "embedding.weight", 1)


def test_channels_added_to_the_models_input_are_kept() -> None:
    assert find_units(AddsItsInput(), torch.randn(2, 4)).layout.unit_groups == {}


def test_a_layer_that_the_forward_pass_leaves_out_has_no_units() -> None:
    model = mlp(6, (4,), 2)
    model.get_submodule("fc1").add_module("spare", nn.Linear(3, 5))
    assert find_units(model, torch.randn(2, 6)).layout.unit_groups == {"fc1": 4}


def test_every_returned_tensor_keeps_its_channels() -> None:
    class TwoOutputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 4)
            self.second = nn.Linear(4, 5)
            self.third = nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            features = torch.relu(self.first(x))
            return {"features": features, "logits": self.third(torch.relu(self.second(features)))}

    assert find_units(TwoOutputs(), torch.randn(2, 3)).layout.unit_groups == {"second": 5}


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (mlp(6, (5, 4), 3), (2, 6)),
        (digits_cnn(), (2, 1, 8, 8)),
        (Residual(), (2, 3, 4, 4)),
        (Concatenated(), (2, 3, 4, 4)),
        (LastHidden(), (5, 2, 3)),
        (
            sequential(nn.Conv1d(2, 6, 3), nn.PReLU(6), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 2)),
            (2, 2, 8),
        ),
        (
            sequential(
                nn.Conv2d(2, 6, 3), nn.ConvTranspose2d(6, 4, 2), nn.InstanceNorm2d(4, affine=True), nn.Conv2d(4, 1, 1)
            ),
            (2, 2, 6, 6),
        ),
        (
            sequential(nn.Conv2d(2, 4, 1), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.PReLU(), nn.Conv2d(6, 1, 1)),
            (2, 2, 3, 3),
        ),
    ],
)
def test_a_submodel_computes_what_the_masked_model_computes(model: nn.Module, shape: tuple[int, ...]) -> None:
    assert_submodels_compute_the_masked_model(model, torch.randn(shape))


def test_a_language_submodel_computes_what_the_masked_model_computes() -> None:
    assert_submodels_compute_the_masked_model(char_lstm(7, embedding=4, hidden=6), torch.randint(7, (2, 5)))
    assert_submodels_compute_the_masked_model(TiedLanguageModel(), torch.randint(7, (2, 5)))


def test_a_first_batch_of_one_is_not_taken_for_an_unbatched_input() -> None:
    assert find_units(digits_cnn(), torch.randn(1, 1, 8, 8)) == find_units(digits_cnn(), torch.randn(3, 1, 8, 8))


def test_the_model_and_the_random_state_stay_as_they_were() -> None:
    model = Residual().train()
    model.stem.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    find_units(model, torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(module.training for module in model.modules())
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["stem.weight"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_units_are_found_where_gradients_are_off() -> None:
    with torch.no_grad():
        assert find_units(mlp(6, (4,), 2), torch.randn(2, 6)).layout.unit_groups == {"fc1": 4}


def test_a_column_that_reads_the_models_input_has_no_unit() -> None:
    class ReadsInputAgain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 4)
            self.head = nn.Linear(7, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.cat([torch.relu(self.inner(x)), x], 1))

    units = find_units(ReadsInputAgain(), torch.randn(2, 3))
    assert axis(units, "head.weight", 1) == [0, 1, 2, 3, NO_UNIT, NO_UNIT, NO_UNIT]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.GRU(4, 4), r"which units own 'weight_ih_l0' of 1 \(GRU\)"),
        (nn.LSTM(4, 4, bidirectional=True), "bidirectional"),
        (nn.GroupNorm(2, 4, affine=False), "GroupNorm without weights"),
        (nn.InstanceNorm1d(4), "InstanceNorm1d without weights"),
        (nn.MultiheadAttention(4, 2), "MultiheadAttention"),
    ],
)
def test_an_unknown_layer_is_named(layer: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        find_units(sequential(nn.Linear(4, 4), layer), torch.randn(2, 4))


@pytest.mark.parametrize("model", [NamesASize(), ChannelsLast()])
def test_a_model_that_cannot_be_pruned_right_is_refused(model: nn.Module) -> None:
    with pytest.raises(UnsupportedModelError, match=r"fewer units|something else"):
        find_units(model, torch.randn(2, 1, 4, 4))


def test_inputs_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(UnsupportedModelError, match="cannot be traced"):
        find_units(mlp(6, (4,), 2), torch.randn(2, 5))
