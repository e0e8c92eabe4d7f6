"""Rings of all widths: wrapping, centring, packing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.errors import DecodingError, ParameterError
from secagg.ring import Ring

WIDTHS = (16, 24, 32, 64)
words = st.sampled_from(WIDTHS).flatmap(
    lambda bits: st.tuples(st.just(Ring(bits)), st.lists(st.integers(0, 2**bits - 1), max_size=41))
)
signed = st.sampled_from(WIDTHS).flatmap(
    lambda bits: st.tuples(
        st.just(Ring(bits)), st.lists(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), max_size=41)
    )
)


def reference_bytes(ring: Ring, values: list[int]) -> bytes:
    return b"".join((value % 2**ring.bits).to_bytes(ring.bits // 8, "little") for value in values)


@given(words)
def test_packing_writes_each_element_little_endian(case: tuple[Ring, list[int]]) -> None:
    ring, values = case
    assert ring.pack(np.array(values, ring.dtype)) == reference_bytes(ring, values)


@given(words)
def test_unpacking_reads_what_packing_wrote(case: tuple[Ring, list[int]]) -> None:
    ring, values = case
    unpacked = ring.unpack(reference_bytes(ring, values), len(values))
    assert unpacked.dtype == ring.dtype
    assert unpacked.tolist() == values


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("count", range(10))
def test_every_short_length_packs_to_its_nbytes_and_back(bits: int, count: int) -> None:
    ring = Ring(bits)
    values = [(2**bits - 1 - 7919 * index) % 2**bits for index in range(count)]
    packed = ring.pack(np.array(values, ring.dtype))
    assert len(packed) == ring.nbytes(count) == count * bits // 8
    assert ring.unpack(packed, count).tolist() == values


@given(st.lists(st.integers(0, 2**32 - 1), max_size=30))
def test_packing_reduces_what_the_machine_word_holds_beyond_the_ring(values: list[int]) -> None:
    ring = Ring(24)
    assert ring.pack(np.array(values, ring.dtype)) == reference_bytes(ring, values)


@pytest.mark.parametrize("bits", WIDTHS)
def test_packing_takes_strided_views(bits: int) -> None:
    ring = Ring(bits)
    values = np.arange(20, dtype=ring.dtype)
    assert ring.pack(values[::-3]) == reference_bytes(ring, values[::-3].tolist())


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("surplus", [-1, 1])
def test_unpacking_refuses_another_length(bits: int, surplus: int) -> None:
    ring = Ring(bits)
    with pytest.raises(DecodingError, match=f"5 elements takes {ring.nbytes(5)} bytes, not {ring.nbytes(5) + surplus}"):
        ring.unpack(bytes(ring.nbytes(5) + surplus), 5)


@given(signed)
def test_centring_undoes_wrapping_even_through_the_wire(case: tuple[Ring, list[int]]) -> None:
    ring, values = case
    wrapped = ring.wrap(np.array(values, np.int64))
    assert ring.centred(wrapped).tolist() == values
    assert ring.centred(ring.unpack(ring.pack(wrapped), len(values))).tolist() == values


@given(signed, st.data())
def test_sums_in_the_machine_word_are_sums_in_the_ring(case: tuple[Ring, list[int]], data: st.DataObject) -> None:
    ring, values = case
    others = data.draw(st.permutations(values))
    total = ring.centred(ring.wrap(np.array(values, np.int64)) + ring.wrap(np.array(others, np.int64)))
    half = 2 ** (ring.bits - 1)
    expected = [(one + other + half) % (2 * half) - half for one, other in zip(values, others, strict=True)]
    assert total.tolist() == expected


@given(st.integers(0, 2**63 - 1))
def test_the_ring_holding_a_magnitude_is_the_narrowest_that_keeps_both_signs_apart(largest: int) -> None:
    ring = Ring.holding(largest)
    extremes = np.array([largest, -largest], np.int64)
    assert ring.centred(ring.wrap(extremes)).tolist() == extremes.tolist()
    narrower = [bits for bits in WIDTHS if bits < ring.bits]
    if narrower:
        assert 2 * largest + 1 > 2 ** narrower[-1]


@pytest.mark.parametrize(("bits", "wider"), [(16, 24), (24, 32), (32, 64)])
def test_the_widths_change_exactly_at_half_a_ring(bits: int, wider: int) -> None:
    assert Ring.holding(2 ** (bits - 1) - 1) == Ring(bits)
    assert Ring.holding(2 ** (bits - 1)) == Ring(wider)


def test_a_magnitude_beyond_64_bits_is_refused_and_names_the_setting() -> None:
    with pytest.raises(ParameterError, match="lower levels"):
        Ring.holding(2**63)


@pytest.mark.parametrize("bits", [0, 8, 17, 128])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(ParameterError, match=f"a ring of {bits} bits is not offered"):
        Ring(bits)


@pytest.mark.parametrize("bits", WIDTHS)
def test_zeros_are_zero_words_of_the_ring(bits: int) -> None:
    zeros: np.ndarray[Any, np.dtype[Any]] = Ring(bits).zeros(3)
    assert zeros.dtype == Ring(bits).dtype
    assert zeros.tolist() == [0, 0, 0]
