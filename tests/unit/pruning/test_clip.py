from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from pruning import Units, find_units, invariant_mask, largest_relative_change, relative_norm
from secagg.declaration import Provenance
from secagg.errors import LayoutMismatchError


def dense(inner: list[list[float]], bias: list[float], outer: list[list[float]]) -> dict[str, torch.Tensor]:
    return {
        "0.weight": torch.tensor(inner),
        "0.bias": torch.tensor(bias),
        "2.weight": torch.tensor(outer),
        "2.bias": torch.tensor([1.0]),
    }


# Two neurons: of the first one incoming and one outgoing weight move, of the second only the bias, slightly.
BEFORE = dense([[1, -2], [4, 2]], [1, 2], [[1, 4]])
AFTER = dense([[1, -3], [4, 2]], [1, 2.5], [[0, 4]])


@pytest.fixture
def units() -> Units:
    return find_units(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), torch.zeros(1, 2))


def test_the_largest_relative_change_of_a_hand_computed_example(units: Units) -> None:
    scores = largest_relative_change(units, BEFORE, AFTER, epsilon=1e-12)
    np.testing.assert_allclose(scores, [max(1 / 2, 1 / 1), 0.5 / 2])


def test_the_relative_norm_of_a_hand_computed_example(units: Units) -> None:
    scores = relative_norm(units, BEFORE, AFTER, epsilon=1e-12)
    np.testing.assert_allclose(scores, [np.sqrt((1 + 1) / (1 + 4 + 1 + 1)), np.sqrt(0.25 / (16 + 4 + 4 + 16))])


def test_epsilon_keeps_a_weight_at_zero_from_deciding_alone(units: Units) -> None:
    before = dense([[0, 1], [1, 1]], [1, 1], [[1, 1]])
    after = dense([[1e-4, 1], [1, 1.5]], [1, 1], [[1, 1]])
    assert np.argmax(largest_relative_change(units, before, after)) == 1
    assert np.argmax(largest_relative_change(units, before, after, epsilon=1e-9)) == 0


def test_a_weight_from_a_unit_to_itself_counts_once() -> None:
    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(1, 2, bias=False)
            self.step = nn.Linear(2, 2, bias=False)
            self.head = nn.Linear(2, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.first(x))
            return self.head(x + torch.relu(self.step(x)))

    units = find_units(Step(), torch.zeros(1, 1))
    before = {
        "first.weight": torch.zeros(2, 1),
        "step.weight": torch.tensor([[3.0, 4.0], [0.0, 0.0]]),
        "head.weight": torch.zeros(1, 2),
    }
    after = {name: 2 * value for name, value in before.items()}
    np.testing.assert_allclose(relative_norm(units, before, after, epsilon=1.0), [5 / (5 + 1), 4 / (4 + 1)])


def test_running_statistics_do_not_count() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    units = find_units(model, torch.zeros(2, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(8, 2))
    after = model.state_dict()
    assert not torch.equal(before["1.running_mean"], after["1.running_mean"])
    assert not largest_relative_change(units, before, after).any()
    assert not relative_norm(units, before, after).any()


@pytest.mark.parametrize(("statistic", "provenance"), [("local", Provenance.DATA), ("global", Provenance.PUBLIC)])
def test_the_most_invariant_units_are_dropped(
    units: Units, statistic: Literal["local", "global"], provenance: Provenance
) -> None:
    for score in (largest_relative_change, relative_norm):
        mask = invariant_mask(units, BEFORE, AFTER, 0.5, statistic=statistic, score=score)
        assert mask.held.tolist() == [True, False]
        assert mask.provenance is provenance


def test_states_of_another_model_are_refused(units: Units) -> None:
    with pytest.raises(LayoutMismatchError, match=r"'0\.weight' is missing"):
        largest_relative_change(units, {}, AFTER)
    with pytest.raises(LayoutMismatchError, match="has shape"):
        relative_norm(units, BEFORE, AFTER | {"0.bias": torch.zeros(3)})
