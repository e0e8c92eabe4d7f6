"""Declarations: every kind round trips, and each set has one coding."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import declaration
from secagg.declaration import FULL, Declaration, Provenance, expand, of_coordinates, of_layers, of_units
from secagg.errors import DecodingError, LayoutMismatchError
from secagg.layout import Layout, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Kind = Literal["full", "layers", "units", "bitmap", "sparse"]

FLAT = Layout((Tensor("w", (40,)),))
UNITS = Layout(
    (
        Tensor("fc1.weight", (3, 2), unit_axes={0: (0, 1, 2)}),
        Tensor("fc1.bias", (3,), unit_axes={0: (0, 1, 2)}),
        Tensor("fc2.weight", (2, 3), unit_axes={1: (0, 1, 2)}),
        Tensor("fc2.bias", (2,)),
    ),
    {"fc1": 3},
)


def bools(size: int) -> st.SearchStrategy[NDArray[np.bool_]]:
    return st.lists(st.booleans(), min_size=size, max_size=size).map(lambda bits: np.array(bits, bool))


def flat(size: int) -> Layout:
    return Layout((Tensor("w", (size,)),))


@st.composite
def sets(draw: st.DrawFn) -> NDArray[np.bool_]:
    """Sets of any size and density, rare symbols of either kind included."""
    size = draw(st.integers(1, 600))
    rare = draw(st.lists(st.integers(0, size - 1), max_size=size // 3, unique=True))
    held = np.full(size, draw(st.booleans()))
    held[rare] = ~held[rare]
    return held


@given(sets())
def test_any_set_of_coordinates_round_trips_in_its_shortest_kind(held: NDArray[np.bool_]) -> None:
    layout = flat(len(held))
    declared = of_coordinates(layout, held, Provenance.DATA)
    assert np.array_equal(expand(layout, declared), held)
    assert declared.provenance is Provenance.DATA
    assert len(declared.data) <= -(-len(held) // 8)


@given(bools(UNITS.size))
def test_any_set_over_a_layout_with_units_round_trips(held: NDArray[np.bool_]) -> None:
    assert np.array_equal(expand(UNITS, of_coordinates(UNITS, held, Provenance.DATA)), held)


def test_every_set_of_units_round_trips_and_is_recognised_from_its_coordinates() -> None:
    for bits in product([False, True], repeat=3):
        units = np.array(bits)
        declared = of_units(UNITS, units, Provenance.DEVICE)
        held = UNITS.coordinates_of_units(units)
        assert np.array_equal(expand(UNITS, declared), held)
        assert np.array_equal(declaration.read_units(UNITS, declared), units)
        recognised = of_coordinates(UNITS, held, Provenance.DEVICE)
        assert recognised == (declared if not units.all() else Declaration("full", b"", Provenance.DEVICE))


def test_every_set_of_layers_round_trips_and_is_recognised_from_its_coordinates() -> None:
    for bits in product([False, True], repeat=2):
        layers = np.array(bits)
        declared = of_layers(UNITS, layers, Provenance.DEVICE)
        held = UNITS.coordinates_of_layers(layers)
        assert np.array_equal(expand(UNITS, declared), held)
        recognised = of_coordinates(UNITS, held, Provenance.DEVICE)
        assert recognised == (declared if not layers.all() else Declaration("full", b"", Provenance.DEVICE))


def test_the_full_declaration_holds_everything_and_carries_nothing() -> None:
    assert expand(FLAT, FULL).all()
    assert FULL.data == b""
    with pytest.raises(DecodingError, match="a full declaration carries no data"):
        expand(FLAT, Declaration("full", b"\0"))


@pytest.mark.parametrize(("kind", "count"), [("layers", 2), ("units", 3), ("bitmap", 17)])
def test_bit_codings_refuse_another_length_and_padding_bits(kind: Kind, count: int) -> None:
    layout = UNITS
    size = -(-count // 8)
    for length in {0, size - 1, size + 1}:
        with pytest.raises(DecodingError, match=f"{count} bits take {size} bytes, not {length}"):
            expand(layout, Declaration(kind, bytes(length)))
    with pytest.raises(DecodingError, match="a padding bit is set"):
        expand(layout, Declaration(kind, bytes(size - 1) + b"\x01"))


@pytest.mark.parametrize("density", [0.0, 0.01, 0.05, 0.2, 0.8, 0.95, 0.99])
def test_sparse_coding_is_chosen_where_it_beats_a_bitmap(density: float) -> None:
    size = 10_000
    held = np.random.default_rng(3).random(size) < density
    declared = of_coordinates(flat(size + 1), np.append(held, not held[0]), Provenance.DATA)
    assert declared.kind == "sparse"
    assert len(declared.data) < -(-(size + 1) // 8)


@pytest.mark.parametrize("density", [0.3, 0.5, 0.7])
def test_a_bitmap_is_chosen_near_one_half(density: float) -> None:
    held = np.random.default_rng(3).random(10_000) < density
    assert of_coordinates(flat(10_000), held, Provenance.DATA).kind == "bitmap"


@pytest.mark.parametrize("density", [0.001, 0.01, 0.1])
def test_sparse_coding_is_within_half_a_bit_and_the_head_of_its_known_length(density: float) -> None:
    """Elias-Fano takes at most 2 + log2(size / count) bits a position; the entropy is the floor for any coding."""
    size = 50_000
    held = np.random.default_rng(7).random(size) < density
    declared = of_coordinates(flat(size), held, Provenance.DATA)
    count = int(held.sum())
    entropy = -size * (density * math.log2(density) + (1 - density) * math.log2(1 - density)) / 8
    assert declared.kind == "sparse"
    assert 0.95 * entropy < len(declared.data) <= 8 + 2 + count * (2 + math.log2(size / count)) / 8


@given(sets())
def test_of_the_two_codings_of_a_set_only_the_shorter_is_accepted(held: NDArray[np.bool_]) -> None:
    layout = flat(len(held))
    bitmap = Declaration("bitmap", np.packbits(held).tobytes())
    sparse = Declaration("sparse", declaration._elias_fano_encode(held))
    shorter, other = (sparse, bitmap) if len(sparse.data) < len(bitmap.data) else (bitmap, sparse)
    assert np.array_equal(expand(layout, shorter), held)
    with pytest.raises(DecodingError, match="another than the canonical form"):
        expand(layout, other)


def smallest_sparse() -> tuple[Layout, Declaration]:
    layout = flat(300)
    held = np.zeros(300, bool)
    held[[3, 77, 78, 255, 290]] = True
    return layout, of_coordinates(layout, held, Provenance.PUBLIC)


def smallest_bitmap() -> tuple[Layout, Declaration]:
    return FLAT, of_coordinates(FLAT, np.arange(40) % 3 == 0, Provenance.PUBLIC)


def some_units() -> tuple[Layout, Declaration]:
    return UNITS, of_units(UNITS, np.array([True, False, True]), Provenance.PUBLIC)


def some_layers() -> tuple[Layout, Declaration]:
    return UNITS, of_layers(UNITS, np.array([True, False]), Provenance.PUBLIC)


@pytest.mark.parametrize("case", [smallest_sparse, smallest_bitmap, some_units, some_layers])
def test_every_change_of_one_byte_is_malformed_or_means_another_set(
    case: Callable[[], tuple[Layout, Declaration]],
) -> None:
    layout, declared = case()
    held = expand(layout, declared)
    rejected = 0
    for place, change in product(range(len(declared.data)), range(1, 256)):
        altered = bytearray(declared.data)
        altered[place] ^= change
        try:
            other = expand(layout, Declaration(declared.kind, bytes(altered)))
        except DecodingError:
            rejected += 1
        else:
            assert not np.array_equal(other, held)
    assert rejected or declared.kind == "bitmap"


@given(st.sampled_from(["full", "layers", "units", "bitmap", "sparse"]), st.binary(max_size=60))
def test_arbitrary_bytes_expand_to_a_set_that_they_code_or_are_refused(kind: Kind, data: bytes) -> None:
    for layout in (UNITS, flat(300)):
        try:
            held = expand(layout, Declaration(kind, data))
        except DecodingError:
            continue
        assert held.shape == (layout.size,)
        assert held.dtype == np.bool_
        if kind == "sparse":
            assert declaration._elias_fano_encode(held) == data
        if kind == "bitmap":
            assert np.packbits(held).tobytes() == data


def head(rare: bool, count: int) -> bytes:  # noqa: FBT001 - the coding's own order
    return (rare << 63 | count).to_bytes(8, "big")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "shorter than its head"),
        (bytes(7), "shorter than its head"),
        (head(True, 301), "too short for its count"),
        (head(True, 2**63 - 1), "too short for its count"),
        (head(True, 4) + bytes(2), "too short for its count"),
        (head(True, 1) + b"\x00" + bytes(1), "another number of positions"),
        (head(True, 1) + b"\xc0" + bytes(1), "another number of positions"),
        (head(True, 0) + b"\x00", "another than the canonical form"),
        (head(True, 1) + b"\x40" + b"\xff", "outside the layout"),
        (head(True, 1) + b"\x80" + b"\x00\x00", "another number of positions|canonical"),
    ],
)
def test_malformed_sparse_codings_are_refused_with_their_fault(data: bytes, reason: str) -> None:
    with pytest.raises(DecodingError, match=reason):
        expand(flat(300), Declaration("sparse", data))


@pytest.mark.parametrize(("held", "coded"), [(False, head(True, 0)), (True, head(False, 0))])
def test_nothing_and_everything_are_coded_by_their_head_alone(held: bool, coded: bytes) -> None:  # noqa: FBT001 - a case
    assert expand(flat(300), Declaration("sparse", coded)).tolist() == [held] * 300


def test_the_same_position_twice_is_refused() -> None:
    """Two positions with equal high and low parts: distinct on the wire, one in the set."""
    twice = head(True, 2) + np.packbits([True, True]).tobytes() + bytes(2)
    with pytest.raises(DecodingError):
        expand(flat(300), Declaration("sparse", twice))


@pytest.mark.parametrize("make", [of_units, of_layers, of_coordinates])
def test_a_mask_of_another_shape_or_type_is_refused(
    make: Callable[[Layout, NDArray[Any], Provenance], Declaration],
) -> None:
    for held in (np.ones(99, bool), np.ones((1, 3), bool), np.ones(3, np.uint8)):
        with pytest.raises(LayoutMismatchError, match="a mask over"):
            make(UNITS, held, Provenance.DATA)


@given(
    st.lists(st.tuples(st.sampled_from(["full", "layers", "units", "bitmap"]), st.integers(0, 2**17 - 1)), max_size=9)
)
def test_coverage_is_the_sum_of_what_each_declaration_holds(choices: list[tuple[str, int]]) -> None:
    declared = []
    for kind, number in choices:
        bits = np.array([number >> place & 1 for place in range(UNITS.size)], bool)
        match kind:
            case "full":
                declared.append(FULL)
            case "layers":
                declared.append(of_layers(UNITS, bits[:2], Provenance.DATA))
            case "units":
                declared.append(of_units(UNITS, bits[:3], Provenance.DATA))
            case _:
                declared.append(of_coordinates(UNITS, bits, Provenance.DATA))
    expected = np.sum([np.zeros(UNITS.size), *(expand(UNITS, one) for one in declared)], axis=0)
    counts = declaration.coverage(UNITS, declared)
    assert counts.dtype == np.int32
    assert counts.tolist() == expected.tolist()
