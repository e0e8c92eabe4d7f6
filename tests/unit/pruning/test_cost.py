from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from protocols.models import char_lstm, digits_cnn, mlp
from pruning import Mask, SubmodelCosts, cost_of, extract, find_units, keep_for_budget
from secagg.errors import ParameterError

IMAGES = torch.zeros(5, 1, 8, 8)


def test_a_dense_step_costs_its_matrix_products() -> None:
    cost = cost_of(mlp(6, (4,), 2), torch.zeros(5, 6))
    products = 2 * 5 * (6 * 4), 2 * 5 * (4 * 2)
    # Backward takes two products a layer, but one in the first: nothing asks for the gradient of the data.
    assert cost.inference_flops == sum(products)
    assert cost.step_flops == 2 * products[0] + 3 * products[1]
    assert cost.parameter_bytes == 4 * (6 * 4 + 4 + 4 * 2 + 2)


def test_an_lstm_costs_the_products_of_its_gates() -> None:
    layers = nn.LSTM(8, 16, 2, batch_first=True)
    assert cost_of(layers, torch.zeros(4, 5, 8)).inference_flops == 2 * 4 * 5 * 4 * 16 * ((8 + 16) + (16 + 16))


def test_an_lstm_that_is_given_a_state_costs_the_same() -> None:
    class TimeMajor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            start = x.new_zeros(1, x.shape[1], 16)
            hidden, (last, _) = self.lstm(x, (start, start))
            return hidden + last

    assert cost_of(TimeMajor(), torch.zeros(4, 5, 8)).inference_flops == 2 * 4 * 5 * 4 * 16 * (8 + 16)


def test_tied_tensors_count_once_and_integer_buffers_do_not() -> None:
    norm = nn.BatchNorm1d(3)
    assert cost_of(nn.Sequential(norm, norm), torch.zeros(2, 3)).parameter_bytes == 4 * 12


def test_frozen_layers_save_their_share_of_the_backward_pass() -> None:
    model = digits_cnn()
    layout = find_units(model, IMAGES).layout
    steps = []
    for trained in range(5):
        mask = Mask.of_layers(layout, np.arange(4) >= 4 - trained)
        cost = cost_of(extract(model, mask), IMAGES)
        steps.append(cost.step_flops)
    assert steps[0] == cost.inference_flops
    assert steps == sorted(set(steps))


def test_operations_and_bytes_fall_with_the_keep_ratio() -> None:
    model = char_lstm(7, embedding=4, hidden=16)
    tokens = torch.zeros(2, 5, dtype=torch.long)
    costs = SubmodelCosts(model, find_units(model, tokens), tokens)
    full, half = costs.at(1.0), costs.at(0.5)
    assert costs.at(1.0) == cost_of(model, tokens)
    assert half.step_flops < 0.5 * full.step_flops
    assert half.inference_flops < 0.5 * full.inference_flops
    assert half.parameter_bytes < 0.5 * full.parameter_bytes


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_solved_keep_ratio_is_the_largest_within_the_budget(share: float) -> None:
    model = digits_cnn()
    units = find_units(model, IMAGES)
    costs = SubmodelCosts(model, units, IMAGES)
    budget = share * costs.at(1.0).step_flops
    keep = keep_for_budget(model, units, IMAGES, budget)
    ratios = costs.keep_ratios()
    assert costs.at(keep).step_flops <= budget < costs.at(ratios[ratios.index(keep) + 1]).step_flops
    assert keep > share


def test_every_keep_ratio_is_another_submodel() -> None:
    model = mlp(6, (4, 3), 2)
    costs = SubmodelCosts(model, find_units(model, torch.zeros(2, 6)), torch.zeros(2, 6))
    sizes = [costs.at(keep).parameter_bytes for keep in costs.keep_ratios()]
    assert len(sizes) == 1 + (4 - 1) + (3 - 1)
    assert sizes == sorted(set(sizes))


def test_a_budget_that_covers_everything_keeps_everything() -> None:
    model = mlp(6, (4, 3), 2)
    assert keep_for_budget(model, find_units(model, torch.zeros(2, 6)), torch.zeros(2, 6), 1e12) == 1


def test_a_budget_below_the_smallest_submodel_is_an_error() -> None:
    model = mlp(6, (4, 3), 2)
    with pytest.raises(ParameterError, match="smallest submodel needs"):
        keep_for_budget(model, find_units(model, torch.zeros(2, 6)), torch.zeros(2, 6), 10)
