"""Every client gets its part of the model exactly, and the server sends each coordinate once."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.arrivals.distribution import opened, split
from pruning.masks import Mask
from pruning.pr_fl import ranking
from pruning.units import Units
from secagg.errors import DecodingError, InputError, LayoutMismatchError, NotFiniteError, ParameterError
from secagg.layout import Layout, Tensor

if TYPE_CHECKING:
    from protocols.aggregators import Client


def layout_of(size: int) -> Layout:
    return Layout((Tensor("w", (size,)),))


def mask_of(held: list[int]) -> Mask:
    return Mask.of_coordinates(layout_of(len(held)), np.array(held, bool))


VECTOR = np.arange(1.0, 13.0)
MASKS: dict[Client, Mask] = {
    "whole": Mask.full(layout_of(12)),
    "least": mask_of([0, 1] + [0] * 10),
    "half": mask_of([1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1]),
    "same": mask_of([1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1]),
}


def test_increments_are_what_each_mask_adds() -> None:
    sent = split(MASKS, VECTOR)
    values = [np.frombuffer(one.values, "<f4").tolist() for one in sent.increments]
    assert values == [[2], [1, 3, 4, 5, 12], [6, 7, 8, 9, 10, 11]]
    assert sent.needed == {"whole": 3, "least": 1, "half": 2, "same": 2}
    # 12 and 11 bits take two bytes, and an increment that takes all the rest needs no index.
    assert [len(one.index.data) for one in sent.increments] == [2, 2, 0]
    assert sent.increments[0].index.data == bytes([0b01000000, 0])
    assert sent.increments[1].index.data == bytes([0b11110000, 0b00100000])


def test_bytes_of_a_hand_computed_example() -> None:
    sent = split(MASKS, VECTOR)
    assert sent.server_bytes == 4 * 12 + 2 + 2
    assert [sent.download_bytes(client) for client in MASKS] == [52, 6, 28, 28]
    assert sent.whole_bytes == 4 * 4 * 12
    assert sent.masked_bytes == 4 * 12 + (4 + 2) + 2 * (4 * 6 + 2)


def test_a_client_opens_what_its_mask_holds_and_nothing_else() -> None:
    sent = split(MASKS, VECTOR)
    nan = math.nan
    assert opened(12, sent.fetched("whole")).tolist() == VECTOR.tolist()
    np.testing.assert_equal(opened(12, sent.fetched("half")), [1, 2, 3, 4, 5, *[nan] * 6, 12])
    np.testing.assert_equal(opened(12, sent.fetched("least")), [nan, 2, *[nan] * 10])


@given(
    size=st.integers(1, 400),
    densities=st.lists(st.sampled_from([0.001, 0.05, 0.3, 1.0]) | st.floats(0.001, 1), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_whatever_the_densities_models_come_back_and_bytes_stay_within_their_bounds(
    size: int, densities: list[float], seed: int
) -> None:
    draws = np.random.default_rng(seed)
    units = Units(layout_of(size), frozenset({"w"}))
    ranked = ranking(units, draws.random(size))
    masks: dict[Client, Mask] = {client: ranked.mask(density) for client, density in enumerate(densities)}
    vector = draws.standard_normal(size)
    sent = split(masks, vector)
    for client, mask in masks.items():
        expected = np.where(mask.coordinates, vector, np.nan).astype(np.float32)
        np.testing.assert_array_equal(opened(size, sent.fetched(client)), expected)
        assert 4 * mask.coordinates.sum() <= sent.download_bytes(client) <= sent.server_bytes
    model, index = 4 * size, -(-size // 8)
    assert len(sent.increments) == len({int(mask.coordinates.sum()) for mask in masks.values()})
    assert sent.server_bytes <= model + len(sent.increments) * index <= model + len(masks) * index
    assert sent.whole_bytes == len(masks) * model
    assert sent.masked_bytes <= len(masks) * (model + index)


def test_the_index_of_a_rare_increment_is_shorter_than_a_bit_a_coordinate() -> None:
    size = 10_000
    units = Units(layout_of(size), frozenset({"w"}))
    ranked = ranking(units, np.random.default_rng(0).random(size))
    sent = split({"a": ranked.mask(0.01), "b": ranked.mask(1)}, np.zeros(size))
    assert len(sent.increments[0].index.data) < size // 8 // 5


def test_a_client_may_hold_nothing() -> None:
    sent = split({"none": mask_of([0, 0, 0]), "some": mask_of([0, 1, 0])}, np.array([math.nan, 2, math.inf]))
    assert np.isnan(opened(3, sent.fetched("none"))).all()
    np.testing.assert_equal(opened(3, sent.fetched("some")), [math.nan, 2, math.nan])


@pytest.mark.parametrize("other", [[0, 0, 1], [1, 0, 1], [0, 1, 0]])
def test_masks_that_are_not_nested_are_refused(other: list[int]) -> None:
    masks: dict[Client, Mask] = {"a": mask_of([1, 0, 0]), "b": mask_of([0, 1, 1]), "c": mask_of(other)}
    with pytest.raises(ParameterError, match="nested"):
        split(masks, np.zeros(3))


def test_masks_of_equal_density_that_differ_are_not_nested() -> None:
    with pytest.raises(ParameterError, match="nested"):
        split({"a": mask_of([1, 0, 1]), "b": mask_of([0, 1, 1])}, np.zeros(3))


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(InputError, match="at least one client"):
        split({}, VECTOR)
    with pytest.raises(LayoutMismatchError, match="one layout"):
        split(MASKS, np.zeros(11))
    with pytest.raises(LayoutMismatchError, match="one layout"):
        split({"a": mask_of([1, 1]), "b": mask_of([1, 1, 1])}, np.zeros(2))
    for value in (math.nan, math.inf, 1e39):
        with pytest.raises(NotFiniteError):
            split({"a": mask_of([1, 1])}, np.array([0.0, value]))
    with pytest.raises(InputError, match="client nobody"):
        split(MASKS, VECTOR).download_bytes("nobody")


def test_increments_that_the_server_did_not_make_are_refused() -> None:
    first, second, third = split(MASKS, VECTOR).increments
    with pytest.raises(DecodingError, match="another number of values"):
        opened(12, [replace(first, values=first.values + bytes(4))])
    with pytest.raises(DecodingError):
        opened(12, [first, replace(second, index=first.index)])
    with pytest.raises(DecodingError, match="covers all the rest"):
        opened(12, [first, second, third, third])
    with pytest.raises(DecodingError, match="bytes"):
        opened(30, [first])
