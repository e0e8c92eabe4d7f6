"""Under a mask of single coordinates a model is zero where the mask says so, and training leaves it zero."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from pruning.masks import Mask
from pruning.sparse import held_by
from pruning.units import find_units

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch.optim import Optimizer

OPTIMISERS: dict[str, Callable[[Iterable[nn.Parameter]], Optimizer]] = {
    "momentum": lambda own: torch.optim.SGD(own, 0.1, momentum=0.9),
    "weight decay": lambda own: torch.optim.SGD(own, 0.1, weight_decay=0.1),
    "adam": lambda own: torch.optim.Adam(own, 0.1),
}


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def thinned(model: nn.Module, share: float = 0.5) -> Mask:
    """Parameters at random; running statistics whole."""
    units = find_units(model, torch.zeros(2, 4))
    held = np.random.default_rng(4).random(units.layout.size) < share
    for tensor, place in units.layout.slices():
        held[place] |= tensor.name not in units.parameters
    return Mask.of_coordinates(units.layout, held)


def train(model: nn.Module, optimiser: Optimizer, steps: int = 4) -> None:
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(8, 4)), torch.randint(3, (8,))).backward()
        optimiser.step()


def outside(mask: Mask, model: nn.Module) -> torch.Tensor:
    """What the model has where the mask leaves nothing."""
    held, own = mask.by_tensor(), model.state_dict()
    return torch.cat([own[name][~torch.from_numpy(bits)] for name, bits in held.items()])


@pytest.mark.parametrize("name", OPTIMISERS)
def test_what_a_mask_leaves_out_is_zero_and_stays_zero_while_the_rest_is_trained(name: str) -> None:
    model = network()
    mask, before = thinned(model), copy.deepcopy(model.state_dict())
    assert outside(mask, model).any()
    with held_by(mask, model):
        train(model, OPTIMISERS[name](model.parameters()))
    assert len(outside(mask, model)) > 10
    assert not outside(mask, model).any()
    moved = {key: tensor != before[key] for key, tensor in model.state_dict().items()}
    held = {key: torch.from_numpy(bits) for key, bits in mask.by_tensor().items()}
    assert all(moved[key][held[key]].any() for key in ("0.weight", "3.weight", "3.bias", "1.running_mean"))


def test_a_model_is_zeroed_at_once() -> None:
    model = network()
    mask = thinned(model)
    with held_by(mask, model):
        assert not outside(mask, model).any()


def test_gradients_are_zero_outside_and_those_of_the_thinned_model_inside() -> None:
    model, free, inputs = nn.Linear(4, 3), nn.Linear(4, 3), torch.randn(5, 4)
    mask = thinned(model)
    with held_by(mask, model):
        model(inputs).square().sum().backward()
    free.load_state_dict(model.state_dict())
    free(inputs).square().sum().backward()
    for (name, held), own, other in zip(mask.by_tensor().items(), model.parameters(), free.parameters(), strict=True):
        assert own.grad is not None
        assert other.grad is not None
        assert torch.equal(own.grad, torch.where(torch.from_numpy(held), other.grad, 0)), name


def test_a_gradient_that_is_infinite_outside_is_zero_all_the_same() -> None:
    model = nn.Linear(4, 1, bias=False)
    mask = Mask.of_coordinates(find_units(model, torch.zeros(1, 4)).layout, np.array([True, False, True, True]))
    with held_by(mask, model):
        model.weight.backward(torch.tensor([[1.0, float("inf"), 2.0, 3.0]]))
    assert model.weight.grad is not None
    assert model.weight.grad.tolist() == [[1.0, 0.0, 2.0, 3.0]]


def test_a_gradient_may_come_from_another_device_than_the_model_was_on() -> None:
    model = nn.Linear(4, 1, bias=False)
    mask = Mask.of_coordinates(find_units(model, torch.zeros(1, 4)).layout, np.array([True, False, True, True]))
    with held_by(mask, model):
        hooks = model.weight._backward_hooks
        assert hooks is not None
        (hook,) = hooks.values()
        cut = hook(torch.zeros(1, 4, device="meta"))
        assert cut is not None
        assert cut.device.type == "meta"


def test_a_model_is_free_again_afterwards_even_if_training_broke_off() -> None:
    model = network()
    mask = thinned(model)
    with pytest.raises(ZeroDivisionError), held_by(mask, model):
        raise ZeroDivisionError
    train(model, OPTIMISERS["momentum"](model.parameters()))
    assert outside(mask, model).any()


def test_a_full_mask_changes_nothing() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    with held_by(Mask.full(find_units(model, torch.zeros(2, 4)).layout), model):
        assert all(not parameter._backward_hooks for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_frozen_parameters_are_zeroed_too() -> None:
    model = network()
    model[0].requires_grad_(requires_grad=False)
    mask = thinned(model)
    with held_by(mask, model):
        train(model, OPTIMISERS["adam"]([one for one in model.parameters() if one.requires_grad]))
    assert not outside(mask, model).any()


def test_masks_of_whole_units_are_held_as_well() -> None:
    model = network()
    layout = find_units(model, torch.zeros(2, 4)).layout
    kept = np.ones(layout.unit_count, bool)
    kept[0] = False
    mask = Mask.of_units(layout, kept)
    with held_by(mask, model):
        train(model, OPTIMISERS["momentum"](model.parameters()))
    weight = model.state_dict()["0.weight"]
    assert not weight[0].any()
    assert weight[1:].all()
