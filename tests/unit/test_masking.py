"""Masks go on and come off; checksums equal what plain integers give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.masking import (
    CHECKS,
    Accumulator,
    Checksums,
    MaskKey,
    Term,
    checksums,
    hide,
    packed,
    pairwise_key,
    self_key,
    terms,
)
from secagg.prg import PIECE, Stream, check_masks, derive
from secagg.ring import Ring
from secagg.transcript import id_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY = bytes(range(16))
H2 = b"\x42" * 32
WIDTHS = (16, 24, 32, 64)


def elements(key: bytes, ring: Ring, count: int) -> list[int]:
    """The first ``count`` elements of a stream, one at a time."""
    stream = Stream(key, ring)
    return [int(stream.take(1)[0]) for _ in range(count)]


def slow_apply(vector: list[int], mask: MaskKey, ring: Ring) -> list[int]:
    """Adds a stream place by place: the next element goes to the next place that the mask covers."""
    covered = [all(np.unpackbits(places)[place] for places in mask.places) for place in range(len(vector))]
    drawn = iter(elements(mask.key, ring, sum(covered)))
    return [value + mask.sign * next(drawn) if here else value for value, here in zip(vector, covered, strict=True)]


def slow_checksums(integers: list[int], transcript: bytes, places: list[bool]) -> tuple[int, ...]:
    """Sum of coefficient times value over the chosen places, in integers without bound."""
    sums = []
    for k in range(CHECKS):
        coefficients = elements(derive(transcript, "checksum", bytes([k])), Ring(32), len(places))
        chosen = [coefficient for coefficient, here in zip(coefficients, places, strict=True) if here]
        sums.append(sum(c * x for c, x in zip(chosen, integers, strict=True)) % 2**64)
    return tuple(sums)


def test_a_client_adds_its_self_mask_and_one_mask_a_neighbour_signed_by_order_of_id() -> None:
    assert list(terms(5, {9, 2, 7})) == [Term(1, None), Term(-1, 2), Term(1, 7), Term(1, 9)]


@given(st.sets(st.integers(0, 2**63 - 1), min_size=2, max_size=6))
def test_the_two_ends_of_every_pair_have_opposite_signs(clients: set[int]) -> None:
    sign = {(client, term.peer): term.sign for client in clients for term in terms(client, clients - {client})}
    assert all(sign[one, other] == -sign[other, one] for one in clients for other in clients if one != other)
    assert all(sign[client, None] == 1 for client in clients)


def test_a_pairwise_key_is_the_same_at_both_ends_and_bound_to_pair_and_transcript() -> None:
    agreed = bytes(32)
    assert pairwise_key(agreed, H2, 3, 8) == pairwise_key(agreed, H2, 8, 3)
    assert pairwise_key(agreed, H2, 8, 3) == derive(agreed, "pairwise mask", H2, id_bytes(3), id_bytes(8))
    keys = {
        pairwise_key(agreed, H2, 3, 8),
        pairwise_key(agreed, H2, 3, 9),
        pairwise_key(agreed, bytes(32), 3, 8),
        pairwise_key(b"\x01" * 32, H2, 3, 8),
        self_key(agreed, H2),
    }
    assert len(keys) == 5


def test_a_self_key_is_bound_to_the_transcript() -> None:
    assert self_key(KEY, H2) == derive(KEY, "self mask", H2)
    assert self_key(KEY, H2) != self_key(KEY, bytes(32))


@given(
    st.sampled_from(WIDTHS), st.sampled_from([1, -1]), st.lists(st.tuples(st.integers(), st.booleans()), max_size=50)
)
def test_a_stream_covers_exactly_its_places_in_order(bits: int, sign: int, cells: list[tuple[int, bool]]) -> None:
    ring = Ring(bits)
    values = [value % 2**bits for value, _ in cells]
    places = np.array([here for _, here in cells], bool)
    for mask in (MaskKey(sign, KEY, packed(places)), MaskKey(sign, KEY)):
        accumulator = Accumulator(ring, np.array(values, ring.dtype))
        accumulator.apply([mask])
        expected = slow_apply(values, mask, ring)
        assert ring.pack(accumulator.vector) == b"".join(
            (value % 2**bits).to_bytes(bits // 8, "little") for value in expected
        )


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_places_across_several_pieces_take_one_uninterrupted_stream(bits: int, density: float) -> None:
    """Pieces that are full, partial and empty, and a last one that is short."""
    ring, length = Ring(bits), 3 * PIECE + 17
    places = np.random.default_rng(5).random(length) < density
    places[PIECE : 2 * PIECE] = density == 0.3  # one whole piece, or none of it
    accumulator = Accumulator(ring, ring.zeros(length))
    accumulator.apply([MaskKey(1, KEY, packed(places))])
    stream, count = Stream(KEY, ring), int(places.sum())
    pieces = [stream.take(min(PIECE, count - start)).copy() for start in range(0, count, PIECE)]
    assert not accumulator.vector[~places].any()
    assert np.array_equal(accumulator.vector[places], np.concatenate([ring.zeros(0), *pieces]))


@given(st.sampled_from(WIDTHS), st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_mask_comes_off_as_it_went_on_checksums_included(bits: int, covered: list[bool]) -> None:
    ring = Ring(bits)
    before = np.arange(len(covered), dtype=ring.dtype)
    accumulator = Accumulator(ring, before.copy(), (2**64 - 1, 5))
    places = np.array(covered)
    accumulator.apply([MaskKey(1, KEY, packed(places))])
    first, second = check_masks(KEY)
    assert accumulator.checks == ((first - 1) % 2**64, (second + 5) % 2**64)
    accumulator.apply([MaskKey(-1, KEY, packed(places))])
    assert np.array_equal(accumulator.vector, before)
    assert accumulator.checks == (2**64 - 1, 5)


@pytest.mark.parametrize("bits", WIDTHS)
def test_pairwise_masks_cancel_place_by_place_where_the_vectors_differ(bits: int) -> None:
    """Client 1 fills all of 6 places, client 2 some: the stream covers what both fill, whatever its rank in each."""
    ring = Ring(bits)
    both = np.array([True, False, True, True, False, True])
    one = Accumulator(ring, ring.zeros(6))
    one.apply([MaskKey(1, KEY, packed(both))])
    other = Accumulator(ring, ring.zeros(int(both.sum())))
    other.apply([MaskKey(-1, KEY)])
    total = one.vector
    total[both] += other.vector
    assert not ring.centred(total).any()
    first, second = ((a + b) % 2**64 for a, b in zip(one.checks, other.checks, strict=True))
    assert (first, second) == (0, 0)


int64s = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.tuples(int64s, st.booleans()), max_size=40))
def test_checksums_equal_the_sum_in_plain_integers(cells: list[tuple[int, bool]]) -> None:
    places = [here for _, here in cells]
    kept = [value for value, here in cells if here]
    assert checksums(np.array(kept, np.int64), H2, np.array(places, bool)) == slow_checksums(kept, H2, places)
    everything = [value for value, _ in cells]
    assert checksums(np.array(everything, np.int64), H2) == slow_checksums(everything, H2, [True] * len(cells))


def test_checksums_run_on_over_several_pieces() -> None:
    length = 2 * PIECE + 5
    values = np.random.default_rng(1).integers(-(2**62), 2**62, length)
    places = np.random.default_rng(2).random(length) < 0.4
    coefficients: list[NDArray[Any]] = []
    for k in range(CHECKS):
        stream = Stream(derive(H2, "checksum", bytes([k])), Ring(32))
        coefficients.append(np.concatenate([stream.take(count).copy() for count in (PIECE, PIECE, 5)]))
    for chosen in (np.ones(length, bool), places):
        expected = tuple(
            sum(c * x for c, x in zip(row[chosen].tolist(), values[chosen].tolist(), strict=True)) % 2**64
            for row in coefficients
        )
        assert checksums(values[chosen], H2, chosen) == expected
    assert checksums(values, H2) == checksums(values, H2, np.ones(length, bool))


@given(st.lists(st.lists(st.tuples(st.integers(-(2**40), 2**40), st.booleans()), min_size=9, max_size=9), max_size=4))
def test_the_checksums_of_clients_add_up_to_that_of_their_sum(clients: list[list[tuple[int, bool]]]) -> None:
    total, sums = np.zeros(9, np.int64), [0, 0]
    for cells in clients:
        places = np.array([here for _, here in cells])
        values = np.array([value for value, here in cells if here], np.int64)
        total[places] += values
        for k, share in enumerate(checksums(values, H2, places)):
            sums[k] = (sums[k] + share) % 2**64
    assert checksums(total, H2) == tuple(sums)


def test_a_value_in_the_wrong_place_changes_both_checksums() -> None:
    one, other = checksums(np.array([5, 0, 0]), H2), checksums(np.array([0, 5, 0]), H2)
    assert all(a != b for a, b in zip(one, other, strict=True))
    assert checksums(np.array([5, 0, 0]), bytes(32)) != one


def test_a_mask_key_prints_neither_key_nor_places() -> None:
    assert repr(MaskKey(1, KEY, packed(np.ones(3, bool)))) == "MaskKey(sign=1, start=0)"


class Read:
    """Integers that are read in order."""

    def __init__(self, integers: NDArray[np.int64]) -> None:
        self.integers, self.read = integers, 0

    def take(self, count: int) -> NDArray[np.int64]:
        self.read += count
        return self.integers[self.read - count : self.read]


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("length", [0, 1, PIECE, 2 * PIECE + 5])
def test_a_vector_that_is_hidden_piece_by_piece_is_the_one_that_is_hidden_whole(bits: int, length: int) -> None:
    """The client fills ``length`` places of a longer vector, so that pieces of the two do not coincide."""
    rng, ring = np.random.default_rng(bits + length), Ring(bits)
    integers = rng.integers(-(2**40), 2**40, length)
    filled = rng.permutation(np.arange(length + 1000) < length)
    masks = [MaskKey(1, KEY), MaskKey(-1, KEY[::-1], packed(rng.random(length) < 0.6))]
    expected = Accumulator(ring, ring.wrap(integers), checksums(integers, H2, filled))
    expected.apply(masks)
    vector, check = hide(Read(integers), length, ring, masks, Checksums(H2, len(filled), filled))
    assert vector == ring.pack(expected.vector)
    assert check == b"".join(number.to_bytes(8, "little") for number in expected.checks)


@given(st.lists(st.tuples(int64s, st.booleans()), max_size=40), st.data())
def test_checksums_are_the_same_in_whatever_pieces_the_integers_come(
    cells: list[tuple[int, bool]], data: st.DataObject
) -> None:
    places = np.array([here for _, here in cells], bool)
    integers = np.array([value for value, here in cells if here], np.int64)
    both, read = Checksums(H2, len(places), places), 0
    while read < len(integers):
        count = data.draw(st.integers(1, len(integers) - read))
        both.add(integers[read : read + count])
        read += count
    assert both.sums == checksums(integers, H2, places)
