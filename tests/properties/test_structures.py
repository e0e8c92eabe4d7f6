"""``simulate`` gives back what it was given: the same structure, names, shapes, dtypes, and ties."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from secagg import Params, delta, simulate
from secagg.errors import InputError, LayoutMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable

torch = pytest.importorskip("torch")

PARAMS = Params(value_range=8.0, levels=2**32)
EXACT = 8 / 2**30

FORMS: dict[str, Callable[[float], Any]] = {
    "a dict": lambda v: {"a": np.full((2, 3), v), "b": np.full(4, -v, np.float32)},
    "a dict with numbers as keys": lambda v: {0: np.full(2, v), 1: np.full(3, v)},
    "a list": lambda v: [np.full((2, 2), v), np.full(1, v, np.float16)],
    "a tuple": lambda v: (np.full((2, 2), v), np.full((), v)),
    "one array": lambda v: np.full((3, 1, 2), v),
    "one scalar array": np.array,
    "one tensor": lambda v: torch.full((3, 2), v),
    "a transposed tensor": lambda v: torch.full((3, 2), v).T,
    "a tensor with gradients": lambda v: torch.full((2,), v, requires_grad=True),
    "a list of tensors": lambda v: [torch.full((2,), v), torch.full((3,), v, dtype=torch.float64)],
    "a state_dict": lambda v: OrderedDict(w=torch.full((2, 2), v), steps=torch.tensor(7)),
    "half precision": lambda v: {"h": torch.full((4,), v, dtype=torch.float16)},
    "brain floats": lambda v: {"h": torch.full((4,), v, dtype=torch.bfloat16)},
    "an empty tensor beside others": lambda v: {"none": np.zeros((0, 2)), "some": np.full(2, v)},
}


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple)) else [value]


def as_floats(leaf: Any) -> Any:
    return leaf.detach().double().numpy() if isinstance(leaf, torch.Tensor) else np.asarray(leaf, np.float64)


@pytest.mark.parametrize("form", FORMS)
def test_the_mean_comes_back_in_the_form_of(form: str) -> None:
    make = FORMS[form]
    result = simulate({client: make(client / 2) for client in range(1, 5)}, params=PARAMS, seed=1)
    example = make(1.25)  # the mean of 0.5, 1, 1.5 and 2
    assert isinstance(result.mean, dict if isinstance(example, dict) else type(example))
    if isinstance(example, dict):
        assert list(result.mean) == list(example)
    for got, want in zip(leaves(result.mean), leaves(example), strict=True):
        assert (type(got), got.dtype, got.shape) == (type(want), want.dtype, want.shape)
        expected = as_floats(want) * (want.dtype is not torch.int64)
        np.testing.assert_allclose(as_floats(got), expected, rtol=2**-8, atol=EXACT)


def test_integer_tensors_are_not_aggregated_and_survive_apply() -> None:
    norm = torch.nn.BatchNorm1d(3)
    start = norm.state_dict()
    start["num_batches_tracked"] = torch.tensor(5)
    update = {name: torch.full_like(value, 1) for name, value in start.items()}
    result = simulate(dict.fromkeys("abcd", update), params=PARAMS)
    assert result.unchanged == ("num_batches_tracked",)
    assert result.mean["num_batches_tracked"] == 0
    after = result.apply(start)
    assert after["num_batches_tracked"] == 5
    torch.testing.assert_close(after["weight"], start["weight"] + 1)
    assert result.apply(norm) is norm
    torch.testing.assert_close(norm.weight.detach(), torch.full((3,), 2.0))


def tied() -> Any:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    return model


def test_tied_parameters_are_aggregated_once_and_stay_tied() -> None:
    model = tied()
    start = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model[0].weight += 0.5
    changes = {client: delta(model, start) for client in range(4)}
    result = simulate(changes, params=PARAMS)
    assert [tensor.name for tensor in result.aggregate.plan.session.layout.tensors] == ["0.weight"]
    assert result.mean["0.weight"].data_ptr() == result.mean["1.weight"].data_ptr()
    fresh = tied()
    fresh.load_state_dict(start)
    result.apply(fresh)
    torch.testing.assert_close(fresh[1].weight.detach(), start["1.weight"] + 0.5)
    assert fresh[0].weight is fresh[1].weight


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_delta_refuses_a_start_that_trained_along(dtype: str) -> None:
    model = torch.nn.Linear(2, 2).to(getattr(torch, dtype))
    with pytest.raises(InputError, match="deepcopy"):
        delta(model, model.state_dict())
    start = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.bias += 1
    change = delta(model, start)
    assert not change["weight"].any()
    assert change["bias"].dtype is getattr(torch, dtype)
    torch.testing.assert_close(start["bias"] + change["bias"], model.bias.detach())


def test_withheld_coordinates_are_nan_or_the_fallback_and_apply_leaves_them_alone() -> None:
    updates = {client: {"w": np.array([1.0, 2.0, 3.0])} for client in range(4)}
    masks = {client: {"w": np.array([True, client < 1, True])} for client in range(4)}
    for fallback, filler in ((None, np.nan), (-1.0, -1.0)):
        result = simulate(updates, masks, mode="mask-indexed", params=PARAMS, fallback=fallback)
        np.testing.assert_array_equal(result.withheld["w"], [False, True, False])
        np.testing.assert_array_equal(result.coverage["w"], [4, 1, 4])
        np.testing.assert_allclose(result.mean["w"], [1, filler, 3], atol=EXACT)
        np.testing.assert_allclose(result.sum["w"], [4, filler, 12], atol=4 * EXACT)
        after = result.apply({"w": np.array([10.0, 20.0, 30.0])})
        np.testing.assert_allclose(after["w"], [11, 20, 33], atol=EXACT)


def test_a_uniform_session_tells_nobody_the_coverage() -> None:
    updates = {client: [np.array([1.0, 2.0]), np.array([3.0])] for client in range(4)}
    masks = {client: [np.array([True, True]), np.array([client < 1])] for client in range(4)}
    result = simulate(updates, masks, mode="uniform", params=PARAMS)
    assert result.coverage is None
    assert [leaf.tolist() for leaf in result.withheld] == [[False, False], [True]]


def test_clients_that_bring_other_forms_are_named() -> None:
    updates: dict[str, Any] = {client: [np.ones(2)] for client in "abcd"}
    for odd in ([np.ones(3)], [np.ones(2, np.float32)], (np.ones(2),), np.ones(2), [np.ones(2)] * 2):
        with pytest.raises(LayoutMismatchError) as raised:
            simulate(updates | {"c": odd})
        assert raised.value.culprits == ("c",)
    empty: list[Any] = [{"a": np.arange(3)}, [], {}]
    for nothing in empty:
        with pytest.raises(InputError):
            simulate(dict.fromkeys("abcd", nothing))
    with pytest.raises(InputError):
        simulate({})
