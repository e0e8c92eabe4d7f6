"""A merge is the weighted mean over those who hold a coordinate, and what nobody trained keeps its value."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocols.arrivals.buffer import Buffer, Contribution, Kind, MaskFedAvg
from protocols.arrivals.staleness import Staleness
from secagg.errors import InputError, LayoutMismatchError, NotFiniteError, ParameterError, WeightError

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = get_args(Kind)
HALVING = Staleness("geometric", decay=0.5)


def contribution(values: list[float], held: list[int], weight: float = 1.0, version: int = 0) -> Contribution:
    return Contribution(np.array(values, np.float32), np.array(held, bool), weight, version)


def one_by_one(rule: MaskFedAvg, buffer: Buffer, previous: NDArray[np.float64], version: int) -> list[float]:
    """The formulas of the paper, a coordinate at a time."""
    after = []
    for place, before in enumerate(previous.tolist()):
        pairs = [
            (one.weight * rule.staleness(version - one.version), float(one.values[place]))
            for one in buffer.contributions.values()
            if one.held[place]
        ]
        if not pairs:
            after.append(before)
            continue
        mean = math.fsum(weight * value for weight, value in pairs) / math.fsum(weight for weight, _ in pairs)
        eta = rule.learning_rate
        after.append(before + eta * mean if rule.kind == "update" else (1 - eta) * before + eta * mean)
    return after


@st.composite
def buffers(draw: st.DrawFn) -> Buffer:
    size = draw(st.integers(1, 6))
    value = st.floats(-10, 10, width=32)
    buffer = Buffer(size)
    for client in range(draw(st.integers(0, 4))):
        values = draw(st.lists(value, min_size=size, max_size=size))
        held = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
        one = contribution(values, held, draw(st.floats(0.5, 50)), draw(st.integers(0, 9)))
        buffer = buffer.put(client, one)
    return buffer


# ---------------------------------------------------------------------------------- merging

PREVIOUS = np.array([10.0, 20.0, 30.0, 40.0])
TWO = (
    Buffer(4)
    .put("fresh", contribution([1, 2, 3, 4], [1, 1, 0, 0], weight=3, version=5))
    .put("stale", contribution([5, 6, 7, 8], [0, 1, 1, 0], weight=4, version=4))
)
"""At version 5 they weigh 3 and, once halved, 2."""


@pytest.mark.parametrize(
    ("kind", "learning_rate", "expected"),
    [
        ("model", 1.0, [1, (3 * 2 + 2 * 6) / 5, 7, 40]),
        ("model", 0.5, [5.5, 10 + 1.8, 18.5, 40]),
        ("update", 1.0, [11, 20 + 3.6, 37, 40]),
        ("update", 0.5, [10.5, 20 + 1.8, 33.5, 40]),
    ],
)
def test_a_merge_computed_by_hand(kind: Kind, learning_rate: float, expected: list[float]) -> None:
    rule = MaskFedAvg(kind=kind, staleness=HALVING, learning_rate=learning_rate)
    after = rule.merge(TWO, PREVIOUS, 5)
    assert after.dtype == np.float64
    np.testing.assert_allclose(after, expected, rtol=1e-15)
    assert PREVIOUS.tolist() == [10, 20, 30, 40]


@given(
    buffer=buffers(),
    kind=st.sampled_from(KINDS),
    staleness=st.sampled_from([Staleness("const"), Staleness("poly"), Staleness("hinge"), HALVING]),
    learning_rate=st.floats(0.01, 1),
    data=st.data(),
)
def test_a_merge_is_the_papers_formula_at_every_coordinate(
    buffer: Buffer, kind: Kind, staleness: Staleness, learning_rate: float, data: st.DataObject
) -> None:
    previous = np.array(data.draw(st.lists(st.floats(-10, 10), min_size=buffer.size, max_size=buffer.size)))
    rule = MaskFedAvg(kind=kind, staleness=staleness, learning_rate=learning_rate)
    after = rule.merge(buffer, previous, 9)
    np.testing.assert_allclose(after, one_by_one(rule, buffer, previous, 9), rtol=1e-12, atol=1e-12)
    untrained = ~np.any([one.held for one in buffer.contributions.values()] or np.zeros((1, buffer.size), bool), axis=0)
    assert after[untrained].tolist() == previous[untrained].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_of_many_blocks_is_merged_alike(kind: Kind) -> None:
    draws, size = np.random.default_rng(0), 3 * (1 << 15) + 17
    buffer = Buffer(size)
    for client in range(3):
        values, held = draws.standard_normal(size).astype(np.float32), draws.random(size) < 0.5
        buffer = buffer.put(client, Contribution(values, held, 1.0 + client, client))
    previous = draws.standard_normal(size)
    rule = MaskFedAvg(kind=kind, staleness=HALVING, learning_rate=0.7)
    weights = [(1.0 + client) * 0.5 ** (4 - client) for client in range(3)]
    every = list(buffer.contributions.values())
    share = sum(w * one.held for w, one in zip(weights, every, strict=True))
    total = sum(w * one.values.astype(np.float64) for w, one in zip(weights, every, strict=True))
    mean = total / np.where(share > 0, share, 1)
    moved = previous + 0.7 * mean if kind == "update" else 0.3 * previous + 0.7 * mean
    np.testing.assert_allclose(rule.merge(buffer, previous, 4), np.where(share > 0, moved, previous), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_buffer_leaves_the_model_as_it_is(kind: Kind) -> None:
    rule = MaskFedAvg(kind=kind, staleness=HALVING, learning_rate=0.3)
    assert rule.merge(Buffer(4), PREVIOUS, 0).tolist() == PREVIOUS.tolist()


@pytest.mark.parametrize("staleness", [Staleness("const"), Staleness("geometric", decay=0.8)])
def test_a_running_sum_without_single_contributions_finds_the_same_model(staleness: Staleness) -> None:
    """``S <- factor * S + new - weight(tau) * old``, for the values and for the masks."""
    draws, size = np.random.default_rng(1), 50
    rule = MaskFedAvg(kind="update", staleness=staleness)
    buffer, total, share = Buffer(size), np.zeros(size), np.zeros(size)
    for version in range(12):
        total, share = total * staleness.factor, share * staleness.factor
        for client in draws.choice(5, 2, replace=False).tolist():
            old = buffer.contributions.get(client)
            held = draws.random(size) < 0.3
            new = Contribution(draws.standard_normal(size).astype(np.float32), held, 1.0 + client, version)
            for one, sign in ((new, 1.0), (old, -1.0)):
                if one is not None:
                    weight = sign * one.weight * staleness(version - one.version)
                    total, share = total + weight * one.values.astype(np.float64), share + weight * one.held
            buffer = buffer.put(client, new)
        trained = np.any([one.held for one in buffer.contributions.values()], axis=0)
        expected = np.where(trained, total / np.where(trained, share, 1), 0)
        np.testing.assert_allclose(rule.merge(buffer, np.zeros(size), version), expected, atol=1e-12)


# ---------------------------------------------------------------------------------- buffer


def test_a_clients_next_contribution_takes_the_place_of_its_last() -> None:
    rule = MaskFedAvg(kind="model", staleness=HALVING)
    again = TWO.put("fresh", contribution([9, 9, 9, 9], [0, 0, 0, 1], version=5))
    assert list(again.contributions) == ["fresh", "stale"]
    assert rule.merge(again, PREVIOUS, 5).tolist() == [10, 6, 7, 9]
    assert TWO.contributions["fresh"].values.tolist() == [1, 2, 0, 0]


def test_values_outside_the_mask_are_ignored_whatever_they_are() -> None:
    one = contribution([1, math.nan, math.inf, -5], [1, 0, 0, 0])
    assert one.values.tolist() == [1, 0, 0, 0]
    after = MaskFedAvg(kind="model", staleness=HALVING).merge(Buffer(4).put("a", one), PREVIOUS, 0)
    assert after.tolist() == [1, 20, 30, 40]


def test_a_contribution_does_not_follow_the_arrays_that_it_was_made_of() -> None:
    values, held = np.ones(3, np.float32), np.ones(3, bool)
    one = Contribution(values, held, 1.0, 0)
    values[:], held[:] = 7, False
    assert one.values.tolist() == [1, 1, 1]
    assert one.held.all()
    with pytest.raises(ValueError, match="read-only"):
        one.values[0] = 2


def test_a_buffer_comes_back_from_a_checkpoint_as_it_was() -> None:
    file = io.BytesIO()
    torch.save(TWO.to_memory(), file)
    file.seek(0)
    again = Buffer.from_memory(4, torch.load(file, weights_only=True))
    assert list(again.contributions) == list(TWO.contributions)
    for client, one in TWO.contributions.items():
        other = again.contributions[client]
        assert (other.weight, other.version) == (one.weight, one.version)
        assert np.array_equal(other.values, one.values)
        assert np.array_equal(other.held, one.held)
    assert not Buffer.from_memory(4, {}).contributions


def test_staleness_counts_versions_and_a_later_start_is_refused_by_client() -> None:
    assert TWO.staleness(7) == {"fresh": 2, "stale": 3}
    with pytest.raises(InputError, match="after 4") as refused:
        MaskFedAvg(kind="model", staleness=HALVING).merge(TWO, PREVIOUS, 4)
    assert refused.value.culprits == ("fresh",)


def test_a_contribution_that_cannot_count_is_refused() -> None:
    for value in (math.nan, math.inf, 1e39):
        with pytest.raises(NotFiniteError):
            Contribution(np.array([value]), np.array([True]), 1.0, 0)
    for weight in (0, -1, math.inf, math.nan):
        with pytest.raises(WeightError, match="weight"):
            contribution([1], [1], weight=weight)
    with pytest.raises(LayoutMismatchError, match="fit"):
        contribution([1, 2], [1])
    with pytest.raises(LayoutMismatchError, match="fit"):
        Contribution(np.zeros(2, np.float32), np.zeros(2), 1.0, 0)  # type: ignore[arg-type]


def test_another_number_of_coordinates_is_refused() -> None:
    with pytest.raises(LayoutMismatchError, match="client late: 1 coordinates, not 4") as refused:
        TWO.put("late", contribution([1], [1]))
    assert refused.value.culprits == ("late",)
    with pytest.raises(LayoutMismatchError, match="4 coordinates"):
        MaskFedAvg(kind="model", staleness=HALVING).merge(TWO, np.zeros(5), 5)


@pytest.mark.parametrize("setting", [{"kind": "sum"}, {"learning_rate": 0.0}, {"learning_rate": 1.1}])
def test_a_setting_outside_its_domain_is_refused_by_name(setting: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(setting))):
        MaskFedAvg(**{"kind": "model", "staleness": HALVING, **setting})
