"""The public order of coordinates."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import counts
from secagg.declaration import Provenance, of_coordinates
from secagg.errors import ParameterError
from secagg.layout import NO_UNIT, Layout, Tensor

# Two hidden units feed two outputs; the bias of the output belongs to no unit.
PERCEPTRON = Layout(
    (
        Tensor("fc1.weight", (2, 3), unit_axes={0: (0, 1)}),
        Tensor("fc1.bias", (2,), unit_axes={0: (0, 1)}),
        Tensor("fc2.weight", (2, 4), unit_axes={0: (2, 3), 1: (0, 0, 1, 1)}),
        Tensor("fc2.bias", (2,), "float64"),
        Tensor("scale", ()),
    ),
    {"fc1": 2, "fc2": 2},
)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Layouts with zero to two unit axes a tensor, on any of up to four axes, some slices without a unit."""
    units = draw(st.integers(2, 5))
    tensors = []
    for index in range(draw(st.integers(1, 4))):
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
        chosen = draw(st.lists(st.sampled_from(range(len(shape))), max_size=2, unique=True)) if shape else []
        axes = {
            axis: tuple(draw(st.lists(st.integers(NO_UNIT, units - 1), min_size=shape[axis], max_size=shape[axis])))
            for axis in chosen
        }
        tensors.append(Tensor(f"layer{index // 2}.{index}", shape, unit_axes=axes))
    tensors.append(Tensor("last", ()))  # a layout has at least one coordinate
    return Layout(tuple(tensors), {"first": 1, "second": units - 1})


def holds(tensor: Tensor, place: tuple[int, ...], units: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> bool:
    """By definition: a coordinate is held when every unit that it belongs to is."""
    numbers = [along[place[axis]] for axis, along in tensor.unit_axes.items()]
    return all(number == NO_UNIT or bool(units[number]) for number in numbers)


def test_coordinates_are_numbered_tensor_after_tensor() -> None:
    assert PERCEPTRON.size == 6 + 2 + 8 + 2 + 1
    assert [(t.name, p.start, p.stop) for t, p in PERCEPTRON.slices()] == [
        ("fc1.weight", 0, 6),
        ("fc1.bias", 6, 8),
        ("fc2.weight", 8, 16),
        ("fc2.bias", 16, 18),
        ("scale", 18, 19),
    ]


def test_a_vector_is_cut_into_named_views_in_row_major_order() -> None:
    vector = np.arange(PERCEPTRON.size)
    named = PERCEPTRON.by_tensor(vector)
    assert list(named) == [tensor.name for tensor in PERCEPTRON.tensors]
    assert named["fc2.weight"].tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]
    assert named["scale"].shape == ()
    named["fc1.bias"][0] = -1
    assert vector[6] == -1


def test_layers_are_modules_in_order_and_a_bare_name_is_its_own_layer() -> None:
    assert PERCEPTRON.layers == ("fc1", "fc2", "scale")
    assert Tensor("block.0.conv.weight", (1,)).layer == "block.0.conv"


NORMALISED = Layout(
    (
        Tensor("norm.weight", (2,)),
        Tensor("norm.mean", (2,), layer="statistics"),
        Tensor("fc.weight", (1, 2)),
        Tensor("fc.scale", (), layer="statistics"),
        Tensor("fc.bias", (1,)),
    )
)


def test_a_layer_that_is_given_joins_tensors_of_several_modules() -> None:
    assert NORMALISED.layers == ("norm", "statistics", "fc")
    held = NORMALISED.by_tensor(NORMALISED.coordinates_of_layers(np.array([False, True, False])))
    assert [name for name, values in held.items() if values.all()] == ["norm.mean", "fc.scale"]
    assert not any(held[name].any() for name in ("norm.weight", "fc.weight", "fc.bias"))


def test_the_text_of_the_digest_names_a_layer_only_where_another_than_the_module_is_given() -> None:
    text = (
        "([('norm.weight', (2,), 'float32', []), ('norm.mean', (2,), 'float32', [], 'statistics'), "
        "('fc.weight', (1, 2), 'float32', []), ('fc.scale', (), 'float32', [], 'statistics'), "
        "('fc.bias', (1,), 'float32', [])], [])"
    )
    assert NORMALISED.digest == sha256(b"secagg layout" + text.encode()).digest()
    named = [replace(tensor, layer=tensor.name.partition(".")[0]) for tensor in NORMALISED.tensors]
    derived = [Tensor(tensor.name, tensor.shape) for tensor in NORMALISED.tensors]
    assert Layout(tuple(named)) == Layout(tuple(derived)) != NORMALISED


@given(st.lists(st.booleans(), min_size=3, max_size=3), st.lists(st.booleans(), min_size=8, max_size=8))
def test_masks_of_given_layers_are_declared_and_counted_as_layers(layers: list[bool], others: list[bool]) -> None:
    whole, any_set = NORMALISED.coordinates_of_layers(np.array(layers)), np.array(others)
    declared = [of_coordinates(NORMALISED, held, Provenance.DEVICE) for held in (whole, any_set)]
    assert declared[0].kind == ("full" if all(layers) else "layers")
    assert counts.bits(NORMALISED, declared[0])["layers"].tolist() == layers
    names = [tensor.layer for tensor in NORMALISED.tensors for _ in range(tensor.size)]
    assert counts.bits(NORMALISED, declared[1])["layers"].tolist() == [
        all(held for held, name in zip(any_set, names, strict=True) if name == layer) for layer in NORMALISED.layers
    ]


def test_units_are_numbered_group_after_group() -> None:
    assert PERCEPTRON.unit_count == 4
    assert list(PERCEPTRON.units_of("fc1")) == [0, 1]
    assert list(PERCEPTRON.units_of("fc2")) == [2, 3]


def test_an_unknown_group_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(ParameterError, match="no unit group 'fc3'; there are fc1, fc2"):
        PERCEPTRON.units_of("fc3")
    with pytest.raises(ParameterError, match="there are none"):
        Layout((Tensor("w", (1,)),)).units_of("fc1")


def test_a_layout_is_read_off_arrays() -> None:
    layout = Layout.of({"a": np.zeros((2, 3), np.float32), "b": np.zeros(4)})
    assert layout == Layout((Tensor("a", (2, 3), "float32"), Tensor("b", (4,), "float64")))


def test_dropping_a_unit_drops_its_rows_its_bias_and_the_columns_that_read_it() -> None:
    held = PERCEPTRON.by_tensor(PERCEPTRON.coordinates_of_units(np.array([True, False, False, True])))
    assert held["fc1.weight"].tolist() == [[True] * 3, [False] * 3]
    assert held["fc1.bias"].tolist() == [True, False]
    assert held["fc2.weight"].tolist() == [[False] * 4, [True, True, False, False]]
    assert held["fc2.bias"].tolist() == [True, True]
    assert bool(held["scale"])


@given(layouts(), st.data())
def test_a_coordinate_is_held_exactly_when_all_its_units_are(layout: Layout, data: st.DataObject) -> None:
    bits = data.draw(st.lists(st.booleans(), min_size=layout.unit_count, max_size=layout.unit_count))
    units = np.array(bits, bool)
    expected = [holds(tensor, place, units) for tensor in layout.tensors for place in np.ndindex(tensor.shape)]
    assert layout.coordinates_of_units(units).tolist() == expected


@given(layouts(), st.integers(0, 6), st.integers(0, 2**32))
def test_counting_by_units_equals_counting_every_client(layout: Layout, clients: int, chance: int) -> None:
    rows = np.random.default_rng(chance).random((clients, layout.unit_count)) < 0.6
    expected = np.sum([layout.coordinates_of_units(row) for row in rows], axis=0, dtype=np.int32)
    counts = layout.count_by_units(rows)
    assert counts.dtype == np.int32
    assert counts.tolist() == np.broadcast_to(expected, layout.size).tolist()


def test_whole_layers_hold_all_tensors_of_the_module() -> None:
    held = PERCEPTRON.by_tensor(PERCEPTRON.coordinates_of_layers(np.array([False, True, True])))
    assert {name: bool(values.all()) for name, values in held.items()} == {
        "fc1.weight": False,
        "fc1.bias": False,
        "fc2.weight": True,
        "fc2.bias": True,
        "scale": True,
    }
    assert not held["fc1.weight"].any()


def test_equal_layouts_are_equal_and_hash_alike() -> None:
    twin = Layout(tuple(replace(tensor) for tensor in PERCEPTRON.tensors), dict(PERCEPTRON.unit_groups))
    assert twin is not PERCEPTRON
    assert twin == PERCEPTRON
    assert hash(twin) == hash(PERCEPTRON)
    assert twin != "layout"


def test_unit_numbers_from_numpy_give_the_same_layout_as_integers() -> None:
    plain = Layout((Tensor("w", (2,), unit_axes={0: (0, 1)}),), {"g": 2})
    from_numpy = Layout((Tensor("w", (2,), unit_axes={0: tuple(np.arange(2))}),), {"g": 2})
    assert plain == from_numpy


def test_layouts_that_differ_in_anything_have_different_digests() -> None:
    base, *others = PERCEPTRON.tensors

    def with_first(tensor: Tensor) -> Layout:
        return Layout((tensor, *others), PERCEPTRON.unit_groups)

    variants = [
        PERCEPTRON,
        with_first(replace(base, name="fc1.weights")),
        with_first(replace(base, shape=(2, 4))),
        with_first(replace(base, shape=(2, 3, 1))),
        with_first(replace(base, dtype="float16")),
        with_first(replace(base, unit_axes={})),
        with_first(replace(base, unit_axes={0: (1, 0)})),
        with_first(replace(base, unit_axes={0: (0, NO_UNIT)})),
        with_first(replace(base, unit_axes={1: (0, 1, 1)})),
        with_first(replace(base, layer="fc2")),
        with_first(replace(base, layer="other")),
        Layout((*others, base), PERCEPTRON.unit_groups),
        Layout(PERCEPTRON.tensors[:-1], PERCEPTRON.unit_groups),
        Layout(PERCEPTRON.tensors, {"fc1": 2, "fc3": 2}),
        Layout(PERCEPTRON.tensors, {"fc1": 3, "fc2": 1}),
        Layout(PERCEPTRON.tensors, {"fc2": 2, "fc1": 2}),
        Layout(PERCEPTRON.tensors, {"fc1": 2, "fc2": 2, "fc3": 1}),
    ]
    assert len({layout.digest for layout in variants}) == len(variants)


@pytest.mark.parametrize(
    ("axes", "reason"),
    [
        ({0: (0,)}, "units of axis 0 do not fit"),
        ({2: (0, 0)}, "units of axis 2 do not fit"),
        ({-1: (0, 0, 0)}, "units of axis -1 do not fit"),
        ({0: (0, 0), 1: (0, 0, 0), 2: ()}, "units on more than two axes"),
    ],
)
def test_units_that_do_not_fit_the_shape_are_refused(axes: dict[int, tuple[int, ...]], reason: str) -> None:
    with pytest.raises(ParameterError, match=f"w: {reason}"):
        Tensor("w", (2, 3), unit_axes=axes)


@pytest.mark.parametrize("number", [-2, 2])
def test_a_unit_number_outside_the_groups_is_refused(number: int) -> None:
    with pytest.raises(ParameterError, match="w: a unit number is outside the layout's 2"):
        Layout((Tensor("w", (2,), unit_axes={0: (0, number)}),), {"g": 2})


def test_a_layout_needs_tensors_of_different_names() -> None:
    with pytest.raises(ParameterError, match="at least one"):
        Layout(())
    with pytest.raises(ParameterError, match="at least one coordinate"):
        Layout((Tensor("w", (0,)), Tensor("v", (3, 0))))
    with pytest.raises(ParameterError, match="twice"):
        Layout((Tensor("w", (1,)), Tensor("w", (2,))))


@pytest.mark.parametrize("size", [0, -1])
def test_a_unit_group_without_units_is_refused(size: int) -> None:
    with pytest.raises(ParameterError, match="a unit group needs at least one unit"):
        Layout((Tensor("w", (1,)),), {"fc1": 2, "fc2": size})
