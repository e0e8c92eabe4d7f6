"""Between a training loop's tensors and the arrays of a layout: forms, ties, types."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from secagg.errors import InputError, LayoutMismatchError
from secagg.layout import Layout, Tensor
from secagg.structure import Structure, mask_vector, named_leaves, same_memory, state_of, ties_in


def rebuilt(example: object) -> Any:
    """The example taken apart and put together again."""
    shape = Structure(example, ties_in(example))
    return shape.build(shape.arrays(example, "me"), lambda name: named_leaves(example)[name])


def two_tensors() -> dict[str, torch.Tensor]:
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor(0.5)}


ARRAYS = {"weight": np.arange(6.0).reshape(2, 3), "bias": np.array(0.5)}


@pytest.mark.parametrize(
    "example",
    [
        ARRAYS,
        OrderedDict(ARRAYS),
        list(ARRAYS.values()),
        tuple(ARRAYS.values()),
        ARRAYS["weight"],
        two_tensors(),
        list(two_tensors().values()),
        tuple(two_tensors().values()),
        two_tensors()["weight"],
    ],
    ids=["dict", "ordered", "list", "tuple", "array", "tensors", "tensor list", "tensor tuple", "tensor"],
)
def test_every_form_comes_back_as_it_was(example: Any) -> None:
    result = rebuilt(example)
    assert isinstance(example, type(result))
    before, after = named_leaves(example), named_leaves(result)
    assert list(before) == list(after)
    for name, value in before.items():
        assert type(after[name]) is type(value)
        assert after[name].dtype == value.dtype
        assert after[name].shape == value.shape
        assert (after[name] == value).all()
        assert after[name] is not value


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_type_of_pytorch_comes_back_in_its_type(dtype: torch.dtype) -> None:
    example = {"w": torch.tensor([0.5, -1.25, 3.0], dtype=dtype)}
    assert Structure(example).layout.tensors[0].dtype == str(dtype).removeprefix("torch.")
    result = rebuilt(example)["w"]
    assert result.dtype == dtype
    assert torch.equal(result, example["w"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_floating_type_of_numpy_comes_back_in_its_type(dtype: type[np.floating[Any]]) -> None:
    result = rebuilt({"w": np.array([0.5, -1.25], dtype)})["w"]
    assert result.dtype == dtype
    assert result.tolist() == [0.5, -1.25]


def test_a_tensor_that_needs_gradients_is_read_without_them() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    result = rebuilt({"w": parameter})["w"]
    assert not result.requires_grad
    assert result.tolist() == [1, 1]


def test_a_strided_tensor_is_read_in_its_own_order() -> None:
    transposed = torch.arange(6.0).reshape(2, 3).T
    assert rebuilt([transposed])[0].tolist() == transposed.tolist()


def test_arrays_are_not_copied() -> None:
    tensors = two_tensors()
    arrays = Structure(tensors).arrays(tensors, "me")
    arrays["weight"][0, 0] = 99
    assert tensors["weight"][0, 0] == 99


def test_integer_and_boolean_buffers_are_passed_by() -> None:
    example = {"w": np.ones(2), "steps": np.array(3), "flags": np.array([True]), "bytes": np.zeros(1, np.uint8)}
    shape = Structure(example)
    assert shape.unchanged == ("steps", "flags", "bytes")
    assert [tensor.name for tensor in shape.layout.tensors] == ["w"]
    result = shape.build({"w": np.zeros(2)}, lambda name: name.upper())
    assert (result["steps"], result["flags"], result["bytes"]) == ("STEPS", "FLAGS", "BYTES")


def test_results_can_be_asked_for_in_another_type() -> None:
    shape = Structure({"w": torch.ones(2), "steps": torch.tensor(3)})
    withheld = shape.build({"w": np.array([True, False])}, lambda name: shape.zeros(name, "bool"), "bool")
    assert withheld["w"].dtype == withheld["steps"].dtype == torch.bool
    assert withheld["w"].tolist() == [True, False]
    assert not withheld["steps"]
    assert shape.zeros("steps").dtype == torch.int64


def test_an_update_without_floats_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to aggregate"):
        Structure({"steps": np.array(3)})
    with pytest.raises(InputError, match="nothing to aggregate"):
        Structure({})


@pytest.mark.parametrize("update", [3, "weights", None, {1.0}, np.float32(1)])
def test_another_form_is_refused_and_named(update: object) -> None:
    with pytest.raises(InputError, match=f"not {type(update).__name__}"):
        Structure(update)


def test_a_leaf_that_is_no_array_is_refused_and_named() -> None:
    with pytest.raises(InputError, match="b is neither a numpy array nor a PyTorch tensor but list"):
        Structure({"a": np.ones(1), "b": [1.0]})


@pytest.mark.parametrize("value", [np.ones(1, complex), np.array(["x"]), torch.ones(1, dtype=torch.complex64)])
def test_a_type_that_cannot_be_summed_is_refused_and_named(value: object) -> None:
    with pytest.raises(InputError, match=r"b holds .* which cannot be aggregated"):
        Structure({"a": np.ones(1), "b": value})


def test_names_that_read_alike_are_refused_rather_than_dropped() -> None:
    with pytest.raises(InputError, match="1"):
        Structure({1: np.ones(1), "1": np.ones(1)})


def test_keys_come_back_as_they_were() -> None:
    assert list(rebuilt({0: np.ones(1), 1: np.ones(2)})) == [0, 1]


class Leaves(list[Any]):
    """What some libraries return instead of a list."""


def test_a_kind_of_list_is_taken_as_a_list() -> None:
    assert type(rebuilt(Leaves([np.ones(2)]))) is list


class Pair(NamedTuple):
    weight: np.ndarray[Any, np.dtype[np.float64]]
    bias: np.ndarray[Any, np.dtype[np.float64]]


def test_a_named_tuple_is_taken_as_a_tuple() -> None:
    result = rebuilt(Pair(np.ones(2), np.zeros(1)))
    assert isinstance(result, tuple)
    assert [leaf.tolist() for leaf in result] == [[1, 1], [0]]


def test_an_update_of_another_form_or_other_names_names_the_client_that_brings_it() -> None:
    shape = Structure({"a": np.ones(2), "b": np.ones(2)})
    cases: list[tuple[object, str]] = [
        ([np.ones(2)], "client bob brings a list, the first client a mapping"),
        ({"a": np.ones(2)}, "client bob and the first client differ in b"),
        ({"a": np.ones(2), "b": np.ones(2), "c": np.ones(2)}, "differ in c"),
        ({"a": np.ones(2), "b": np.ones(3)}, r"b of client bob is float64\[3\], that of the first client float64\[2\]"),
        ({"a": np.ones(2), "b": np.ones(2, np.float32)}, "b of client bob is float32"),
    ]
    for update, reason in cases:
        with pytest.raises(LayoutMismatchError, match=reason) as error:
            shape.arrays(update, "bob")
        assert error.value.culprits == ("bob",)


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(2, 3, bias=False)
        self.head = torch.nn.Linear(2, 3, bias=False)
        self.head.weight = self.embed.weight


def test_tied_parameters_are_found_and_aggregated_once() -> None:
    state = Tied().state_dict()
    assert ties_in(state) == {"head.weight": "embed.weight"}
    shape = Structure.common([state, Tied().state_dict()])
    assert [tensor.name for tensor in shape.layout.tensors] == ["embed.weight"]
    assert list(shape.arrays(state, "me")) == ["embed.weight"]
    result = shape.build({"embed.weight": np.full((3, 2), 7.0)}, lambda name: name)
    assert result["embed.weight"].tolist() == [[7.0, 7.0]] * 3
    assert ties_in(result) == shape.ties


def test_what_is_tied_for_some_clients_only_is_aggregated_apart() -> None:
    shared = np.ones(2)
    shape = Structure.common([{"a": shared, "b": shared}, {"a": np.ones(2), "b": np.zeros(2)}])
    assert not shape.ties
    assert len(shape.layout.tensors) == 2


@pytest.mark.parametrize(
    "untied",
    [
        {"a": np.ones(2), "b": np.ones(2)},
        {"a": np.zeros((0, 2)), "b": np.zeros((0, 2))},
        {"a": torch.zeros(0), "b": torch.zeros(0)},
    ],
)
def test_equal_or_empty_tensors_are_not_tied(untied: dict[str, Any]) -> None:
    assert ties_in(untied) == {}


def test_views_of_one_memory_are_tied_only_if_they_show_the_same() -> None:
    square = np.arange(4.0).reshape(2, 2)
    assert ties_in({"a": square, "b": square.T, "c": square[:1], "d": square.reshape(4), "e": square[:]}) == {"e": "a"}
    tensor = torch.arange(4.0).reshape(2, 2)
    assert ties_in({"a": tensor, "b": tensor.T, "c": tensor[:1], "d": tensor.reshape(4), "e": tensor[:]}) == {"e": "a"}


LAYOUT = Layout((Tensor("a", (2,)), Tensor("b", (1, 2))))


@pytest.mark.parametrize("leaf", [np.array, torch.tensor])
def test_a_mask_becomes_one_vector_in_the_order_of_the_layout(leaf: Any) -> None:
    mask = {"b": leaf([[True, False]]), "steps": leaf([3]), "a": leaf([False, True])}
    assert mask_vector(LAYOUT, mask, "me").tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ({"a": np.ones(2, bool)}, "the mask of client bob lacks b"),
        ({"a": np.ones(2, bool), "b": np.ones((1, 2))}, r"the mask of b of client bob is float64\[1, 2\], not bool"),
        ({"a": np.ones(2, bool), "b": np.ones(2, bool)}, r"is bool\[2\], not bool\[1, 2\]"),
    ],
)
def test_a_mask_that_does_not_fit_names_client_and_tensor(mask: dict[str, Any], reason: str) -> None:
    with pytest.raises(LayoutMismatchError, match=reason) as error:
        mask_vector(LAYOUT, mask, "bob")
    assert error.value.culprits == ("bob",)


def test_memory_is_the_same_only_for_tensors_of_one_kind() -> None:
    array, tensor = np.ones(3), torch.ones(3)
    assert same_memory(array, array[:2])
    assert not same_memory(array, array.copy())
    assert same_memory(tensor, tensor[:2])
    assert not same_memory(tensor, tensor.clone())
    assert not same_memory(torch.from_numpy(array), array)


def test_the_state_of_a_module_is_its_state_dict_and_of_a_state_itself() -> None:
    module = torch.nn.Linear(2, 1)
    assert list(state_of(module)) == ["weight", "bias"]
    assert state_of(ARRAYS) is ARRAYS


def test_no_pytorch_is_needed_where_none_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    assert rebuilt(ARRAYS)["bias"] == 0.5
    with pytest.raises(InputError):
        Structure([two_tensors()["weight"]])
