"""Squared gradients are those of hand-made models, and masks of all densities lie one within another."""

from __future__ import annotations

import copy
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from pruning.pr_fl import ALWAYS, ranking, squared_gradients
from pruning.units import Units, find_units
from secagg.declaration import Provenance
from secagg.errors import InputError, LayoutMismatchError, NotFiniteError, ParameterError
from secagg.layout import Layout, Tensor


def squared_error(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return ((outputs - labels) ** 2).sum()


def with_statistics(weights: int, statistics: int) -> Units:
    """Some parameters, then some running statistics, then one parameter more."""
    tensors = (
        Tensor("weight", (weights,)),
        Tensor("running_mean", (statistics,), layer="statistics"),
        Tensor("bias", (1,)),
    )
    return Units(Layout(tensors), frozenset({"weight", "bias"}))


@pytest.fixture
def line() -> nn.Linear:
    """y = 2a - b + 1."""
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, -1.0]]))
        model.bias.fill_(1.0)
    return model


@pytest.fixture
def normalised() -> tuple[nn.Module, Units]:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    return model, find_units(model, torch.zeros(2, 3))


# ---------------------------------------------------------------------------------- squared gradients


def test_squared_gradients_are_averaged_over_batches_after_squaring(line: nn.Linear) -> None:
    units = find_units(line, torch.zeros(1, 2))
    # Errors 3 and -1: gradients 6 * (1, 0, 1) and -2 * (0, 2, 1) for both weights and the bias.
    batches = [
        (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0]])),
        (torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0]])),
    ]
    found = squared_gradients(units, line, batches, squared_error)
    assert found.dtype == np.float64
    assert found.tolist() == [36 / 2, 16 / 2, (36 + 4) / 2]


@pytest.mark.parametrize("training", [True, False])
def test_squared_gradients_are_those_of_backward_and_leave_the_model_as_it_was(
    normalised: tuple[nn.Module, Units], *, training: bool
) -> None:
    model, units = normalised
    model.train(training)
    batches = [(torch.randn(6, 3), torch.randint(2, (6,))) for _ in range(3)]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        found = units.layout.by_tensor(squared_gradients(units, model, batches, functional.cross_entropy))
    assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    expected = {name: np.zeros(1) for name in units.parameters}
    for inputs, labels in batches:
        twin = copy.deepcopy(model)
        functional.cross_entropy(twin(inputs), labels).backward()
        for name, parameter in twin.named_parameters():
            assert parameter.grad is not None
            expected[name] = expected[name] + parameter.grad.double().numpy() ** 2 / 3
    for name in units.parameters:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
    assert not found["1.running_mean"].any()
    assert not found["1.running_var"].any()


def test_what_is_frozen_or_unused_has_no_importance(line: nn.Linear) -> None:
    units = find_units(line, torch.zeros(1, 2))
    line.bias.requires_grad_(False)
    batch = (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0]]))
    assert squared_gradients(units, line, [batch], squared_error).tolist() == [36, 0, 0]

    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    layout = Layout((Tensor("used.weight", (1, 1)), Tensor("spare.weight", (1, 1))))
    units = Units(layout, frozenset({"used.weight", "spare.weight"}))
    used, spare = squared_gradients(units, Spare(), [(torch.ones(1, 1), torch.full((1, 1), 9.0))], squared_error)
    assert used > 0
    assert spare == 0


def test_squared_gradients_that_cannot_be_had_are_refused(line: nn.Linear) -> None:
    units = find_units(line, torch.zeros(1, 2))
    batch = (torch.ones(1, 2), torch.zeros(1, 1))
    with pytest.raises(InputError, match="at least one batch"):
        squared_gradients(units, line, [], squared_error)
    with pytest.raises(NotFiniteError, match="gradient"):
        squared_gradients(units, line, [(batch[0] * math.inf, batch[1])], squared_error)
    with pytest.raises(LayoutMismatchError, match="has shape"):
        squared_gradients(units, nn.Linear(3, 1), [(torch.ones(1, 3), batch[1])], squared_error)
    with pytest.raises(LayoutMismatchError, match="missing"):
        squared_gradients(units, nn.Linear(2, 1, bias=False), [batch], squared_error)


# ---------------------------------------------------------------------------------- masks


def test_the_most_important_coordinates_are_held_and_the_first_of_equal_ones() -> None:
    units = with_statistics(weights=4, statistics=2)
    importance = [3.0, 1.0, 3.0, 0.0, 0.0, 9.0, 1.0]
    ranks = ranking(units, importance).ranks
    assert ranks.tolist() == [0, 2, 1, 4, ALWAYS, ALWAYS, 3]
    held = {density: ranking(units, importance).mask(density).coordinates.tolist() for density in (0.2, 0.5, 0.8, 1)}
    assert held[0.2] == [True, False, False, False, True, True, False]
    assert held[0.5] == [True, True, True, False, True, True, False]  # ceil(2.5) of 5
    assert held[0.8] == [True, True, True, False, True, True, True]
    assert all(held[1])


def test_at_density_one_the_mask_is_full() -> None:
    units = with_statistics(weights=4, statistics=2)
    mask = ranking(units, np.zeros(7)).mask(1)
    assert mask.kind == "full"
    assert mask.provenance is Provenance.DEVICE
    assert ranking(units, np.zeros(7)).mask(0.2, provenance=Provenance.DATA).provenance is Provenance.DATA


def test_a_models_own_running_statistics_are_always_held(normalised: tuple[nn.Module, Units]) -> None:
    model, units = normalised
    batches = [(torch.randn(6, 3), torch.randint(2, (6,)))]
    importance = squared_gradients(units, model, batches, functional.cross_entropy)
    held = ranking(units, importance).mask(0.01).by_tensor()
    assert held["1.running_mean"].all()
    assert held["1.running_var"].all()
    assert sum(int(held[name].sum()) for name in units.parameters) == 1


@given(
    importance=st.lists(st.sampled_from([0.0, 0.5, 1.0, 7.0]) | st.floats(0, 10), min_size=4, max_size=30),
    densities=st.lists(st.floats(1e-6, 1), min_size=2, max_size=6),
)
def test_the_mask_of_a_smaller_density_lies_within_that_of_a_larger(
    importance: list[float], densities: list[float]
) -> None:
    units = with_statistics(weights=len(importance) - 3, statistics=2)
    places = [*range(len(importance) - 3), len(importance) - 1]
    ranked = ranking(units, importance)
    masks = [ranked.mask(density).coordinates for density in sorted(densities)]
    for smaller, larger in pairwise(masks):
        assert not (smaller & ~larger).any()
    best_first = sorted(places, key=lambda place: (-importance[place], place))
    for density, held in zip(sorted(densities), masks, strict=True):
        kept = math.ceil(Fraction(str(density)) * len(places))
        assert set(np.flatnonzero(held)) == {*best_first[:kept], len(importance) - 3, len(importance) - 2}


def test_a_density_is_taken_as_the_decimal_that_it_is_written_as() -> None:
    units = with_statistics(weights=99, statistics=0)
    density = 0.07
    assert math.ceil(density * 100) == 8  # in floating point
    assert ranking(units, np.arange(100)).mask(density).coordinates.sum() == 7


def test_what_cannot_be_ranked_is_refused() -> None:
    units = with_statistics(weights=4, statistics=2)
    with pytest.raises(LayoutMismatchError, match="7 coordinates"):
        ranking(units, np.zeros(6))
    with pytest.raises(NotFiniteError, match="NaN"):
        ranking(units, [0, 1, 2, 3, 4, 5, math.nan])


@pytest.mark.parametrize("density", [0, -0.1, 1.01, math.nan])
def test_a_density_outside_its_domain_is_refused_by_name(density: float) -> None:
    with pytest.raises(ParameterError, match="density"):
        ranking(with_statistics(weights=4, statistics=2), np.zeros(7)).mask(density)
