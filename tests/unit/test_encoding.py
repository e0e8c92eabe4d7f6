"""Fixed point: rounding, ranges, weights, and what is refused before anything is sent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import declaration, encoding
from secagg.aggregate import decode
from secagg.declaration import FULL, Provenance
from secagg.encoding import bucket_weight, check_update, encode_update, encode_weight, weight_bucket
from secagg.errors import LayoutMismatchError, NotFiniteError, OutOfRangeError, WeightError
from secagg.layout import Layout, Tensor
from secagg.messages import Participant
from secagg.params import Params
from secagg.release import Plan
from secagg.session import CountedCoverage, Session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

LAYOUT = Layout((Tensor("a", (2, 2)), Tensor("b", (3,))))
ALL = np.ones(7, bool)
TENTHS = Params(levels=21, value_range=1.0, max_dropouts=0)
"""Magnitude 10: a value x becomes rint(10 x)."""


def plan_of(params: Params, *, weighted: bool = False, clients: int = 3, layout: Layout = LAYOUT) -> Plan:
    session = Session(id=bytes(16), params=params, layout=layout, mode="uniform", weighted=weighted)
    return Plan(session, 2, [Participant(client, FULL, None) for client in range(clients)])


def update_of(*values: float) -> dict[str, NDArray[np.float64]]:
    return {"a": np.array(values[:4]).reshape(2, 2), "b": np.array(values[4:])}


def whole(
    plan: Plan, client: int, update: Mapping[str, ArrayLike], own: NDArray[np.bool_], weight: int | None
) -> tuple[NDArray[np.int64], float]:
    """All integers of a client, and the share of its values that was clipped."""
    read = encode_update(plan, client, update, own, weight)
    return read.take(int(plan.places(client).sum())), read.clipped_share


def encoded(params: Params, *values: float, own: NDArray[np.bool_] = ALL, weight: int | None = None) -> list[int]:
    plan = plan_of(params, weighted=weight is not None)
    integers, _ = whole(plan, 0, update_of(*values), own, weight)
    assert integers.dtype == np.int64
    return list(map(int, integers))


def test_values_are_scaled_to_the_magnitude_and_rounded_to_nearest() -> None:
    assert encoded(TENTHS, 1.0, -1.0, 0.0, 0.14, 0.16, -0.14, -0.16) == [10, -10, 0, 1, 2, -1, -2]


def test_halves_go_to_the_even_neighbour_so_that_they_cancel() -> None:
    assert encoded(TENTHS, 0.25, 0.75, -0.25, -0.75, 0.5, -0.5, 0.05) == [2, 8, -2, -8, 5, -5, 0]


def test_every_tensor_has_its_own_range() -> None:
    params = Params(levels=21, value_range={"a": 2.0, "*": 0.5}, max_dropouts=0)
    assert encoded(params, 2.0, 1.0, -2.0, 0.0, 0.5, 0.25, -0.5) == [10, 5, -10, 0, 10, 5, -10]


def test_a_weighted_value_is_scaled_by_the_rounded_weight_which_follows_in_its_slot() -> None:
    assert encoded(TENTHS, 1.0, -1.0, 0.5, 0.0, 1.0, 0.25, 0.0, weight=4) == [4, -4, 2, 0, 4, 1, 0, 4]


def test_the_extremes_of_every_range_encode_to_the_magnitude_exactly() -> None:
    """x * (magnitude / range) may be off by an ulp; it must still round to the magnitude, for any range."""
    for limit in (0.1, 0.3, 1 / 3, 0.7, 4.9, math.pi, 1e-30, 1e30):
        params = Params(value_range=limit, levels=2**48, max_dropouts=0)
        values = encoded(params, *[limit, -limit] * 3, limit)
        assert values == [params.magnitude, -params.magnitude] * 3 + [params.magnitude]


@given(
    st.lists(st.lists(st.floats(-4, 4), min_size=7, max_size=7), min_size=3, max_size=6),
    st.integers(2, 20).map(lambda bits: 2**bits),
    st.data(),
)
def test_a_decoded_mean_is_within_its_stated_distance_of_the_true_one(
    rows: list[list[float]], levels: int, data: st.DataObject
) -> None:
    """Within n * step / (2 W) under the rounded weights: half a step where all weigh the same."""
    params = Params(levels=levels, max_dropouts=0)
    weighted = data.draw(st.booleans())
    shares = data.draw(st.lists(st.integers(1, params.magnitude), min_size=len(rows), max_size=len(rows)))
    plan = plan_of(params, weighted=weighted, clients=len(rows))
    sums = np.zeros(plan.length, np.int64)
    for client, row in enumerate(rows):
        weight = shares[client] if weighted else None
        sums += whole(plan, client, update_of(*row), ALL, weight)[0]
    weights = np.array(shares) / params.magnitude if weighted else np.ones(len(rows))
    expected = np.average(np.array(rows), axis=0, weights=weights)
    bound = len(rows) * (4 / params.magnitude) / (2 * weights.sum())
    mean = decode(plan, tuple(range(len(rows))), sums).mean
    assert np.abs(mean - expected).max() <= bound * (1 + 1e-9)


def test_a_client_sends_zero_where_it_holds_nothing_even_if_its_values_are_not_finite() -> None:
    counted = CountedCoverage(frozenset(range(3)), np.full(7, 3, np.int32))
    session = Session(id=bytes(16), params=TENTHS, layout=LAYOUT, mode="uniform", counted=counted)
    plan = Plan(session, 2, [Participant(client, FULL, None) for client in range(3)])
    own = np.array([True, False, True, False, True, True, False])
    update = update_of(0.1, math.nan, 0.2, math.inf, 0.3, 0.4, 99.0)
    check_update(LAYOUT, TENTHS, update, own)  # does not refuse
    integers, _ = whole(plan, 0, update, own, None)
    assert integers.tolist() == [1, 0, 2, 0, 3, 4, 0]


def test_only_released_coordinates_that_the_client_holds_are_sent() -> None:
    params = Params(levels=21, value_range=1.0, max_dropouts=0)
    session = Session(id=bytes(16), params=params, layout=LAYOUT, mode="mask-indexed")
    masks = ["1111111", "1111111", "1010101", "1000000"]
    declared = [
        declaration.of_coordinates(LAYOUT, np.array([bit == "1" for bit in mask]), Provenance.DATA) for mask in masks
    ]
    plan = Plan(session, 2, [Participant(client, one, None) for client, one in enumerate(declared)])
    update = update_of(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    sent = [whole(plan, k, update, declaration.expand(LAYOUT, declared[k]), None)[0].tolist() for k in range(4)]
    assert sent == [[1, 3, 5, 7], [1, 3, 5, 7], [1, 3, 5, 7], [1]]


def test_exact_denominators_carry_the_weight_of_every_held_coordinate_and_the_total() -> None:
    counted = CountedCoverage(frozenset(range(3)), np.array([3, 3, 3, 3, 3, 3, 0], np.int32))
    params = Params(levels=21, value_range=1.0, max_dropouts=0, exact_denominators=True)
    session = Session(id=bytes(16), params=params, layout=LAYOUT, mode="uniform", counted=counted, weighted=True)
    plan = Plan(session, 2, [Participant(client, FULL, None) for client in range(3)])
    own = np.array([True, True, False, True, True, False, True])
    integers, _ = whole(plan, 0, update_of(*[1.0] * 7), own, 6)
    assert integers.tolist() == [6, 6, 0, 6, 6, 0, 6, 6, 0, 6, 6, 0, 6]
    unweighted = Session(id=bytes(16), params=params, layout=LAYOUT, mode="uniform", counted=counted)
    plan = Plan(unweighted, 2, [Participant(client, FULL, None) for client in range(3)])
    integers, _ = whole(plan, 0, update_of(*[1.0] * 7), own, None)
    assert integers.tolist() == [10, 10, 0, 10, 10, 0, 1, 1, 0, 1, 1, 0, 1]


def test_saturation_clips_and_reports_the_share_of_own_values_that_it_clipped() -> None:
    params = Params(levels=21, value_range=1.0, max_dropouts=0, out_of_range="saturate")
    plan = plan_of(params)
    update = update_of(1.0, 1.5, -2.0, 0.5, 0.0, 1e300, -1.0)
    check_update(LAYOUT, params, update, ALL)  # does not refuse
    integers, share = whole(plan, 0, update, ALL, None)
    assert integers.tolist() == [10, 10, -10, 5, 0, 10, -10]
    assert share == 3 / 7


def test_saturation_takes_every_finite_number() -> None:
    params = Params(max_dropouts=0, out_of_range="saturate")
    huge = np.finfo(np.float64).max
    values = encoded(params, huge, -huge, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert values[:2] == [params.magnitude, -params.magnitude]


def test_what_a_client_does_not_hold_is_not_counted_as_clipped() -> None:
    counted = CountedCoverage(frozenset(range(3)), np.full(7, 3, np.int32))
    params = Params(levels=21, value_range=1.0, max_dropouts=0, out_of_range="saturate")
    session = Session(id=bytes(16), params=params, layout=LAYOUT, mode="uniform", counted=counted)
    plan = Plan(session, 2, [Participant(client, FULL, None) for client in range(3)])
    own = np.arange(7) < 4
    _, share = whole(plan, 0, update_of(5.0, 0, 0, 0, 5.0, 5.0, math.nan), own, None)
    assert share == 1 / 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("limit", [0.1, 1 / 3, 1e6])
def test_saturation_never_passes_the_magnitude_whatever_the_type(dtype: type[np.floating[Any]], limit: float) -> None:
    """The nearest narrow float to a limit may lie beyond it, and a limit may lie beyond all narrow floats."""
    params = Params(value_range=limit, levels=2**48, max_dropouts=0, out_of_range="saturate")
    above = np.nextafter(np.full(3, min(limit, 60_000), dtype), dtype(np.inf))
    integers, _ = whole(plan_of(params), 0, {"a": np.zeros((2, 2), dtype), "b": above}, ALL, None)
    assert integers.max() <= params.magnitude


def test_a_value_at_the_limit_is_not_clipped() -> None:
    for limit in (0.1, 0.3, 1 / 3, 0.7, 4.9, math.pi):
        params = Params(value_range=limit, max_dropouts=0, out_of_range="saturate")
        _, share = whole(plan_of(params), 0, update_of(*[limit] * 7), ALL, None)
        assert share == 0.0


def test_without_saturation_nothing_is_clipped() -> None:
    assert whole(plan_of(TENTHS), 0, update_of(*[1.0] * 7), ALL, None)[1] == 0.0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_narrow_floats_are_scaled_in_double_precision(dtype: type[np.floating[Any]]) -> None:
    """16 bits could not hold the magnitude 2^23 - 1, nor 1/3 of it; the value itself is what the type could hold."""
    params = Params(levels=2**24, value_range=1.0, max_dropouts=0)
    third = dtype(1 / 3)
    update = {"a": np.full((2, 2), third, dtype), "b": np.zeros(3, dtype)}
    integers, _ = whole(plan_of(params), 0, update, ALL, None)
    assert integers[:4].tolist() == [round(float(third) * params.magnitude)] * 4


def test_an_update_with_other_tensors_is_refused_and_they_are_named() -> None:
    with pytest.raises(LayoutMismatchError, match="the update and the layout differ in b, c"):
        check_update(LAYOUT, TENTHS, {"a": np.zeros((2, 2)), "c": np.zeros(3)}, ALL)


def test_an_update_of_another_shape_is_refused() -> None:
    with pytest.raises(LayoutMismatchError, match=r"b has shape \(4,\), the layout says \(3,\)"):
        check_update(LAYOUT, TENTHS, {"a": np.zeros((2, 2)), "b": np.zeros(4)}, ALL)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("out_of_range", ["refuse", "saturate"])
def test_a_value_that_is_not_finite_is_refused_whatever_the_setting(bad: float, out_of_range: Any) -> None:
    params = Params(out_of_range=out_of_range)
    with pytest.raises(NotFiniteError, match="b holds NaN or infinity"):
        check_update(LAYOUT, params, update_of(0, 0, 0, 0, 0, bad, 0), ALL)


@pytest.mark.parametrize("value", [1.0000001, -1.0000001, 77.125])
def test_a_value_out_of_range_is_refused_naming_tensor_and_setting_but_never_the_value(value: float) -> None:
    with pytest.raises(OutOfRangeError) as error:
        check_update(LAYOUT, TENTHS, update_of(0, value, 0, 0, 0, 0, 0), ALL)
    assert str(error.value) == "a holds a value beyond value_range 1: raise it, or set out_of_range='saturate'"


def test_an_empty_tensor_and_a_tensor_not_held_are_not_looked_at() -> None:
    layout = Layout((Tensor("a", (2,)), Tensor("b", (0,))))
    check_update(layout, TENTHS, {"a": np.array([math.nan, 0.5]), "b": np.zeros(0)}, np.array([False, True]))
    with pytest.raises(NotFiniteError):
        check_update(layout, TENTHS, {"a": np.array([math.nan, 0.5]), "b": np.zeros(0)}, np.array([True, True]))


@pytest.mark.parametrize(
    ("weight", "expected"), [(1.0, 10), (0.5, 5), (0.26, 3), (0.05000001, 1), (1e-1, 1), (np.float32(0.5), 5)]
)
def test_a_weight_is_rounded_to_a_share_of_the_largest(weight: float, expected: int) -> None:
    assert encode_weight(TENTHS, weight) == expected


def test_a_weight_is_relative_to_max_weight() -> None:
    params = Params(levels=21, max_weight=200.0)
    assert [encode_weight(params, weight) for weight in (200, 100, 20)] == [10, 5, 1]


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_weight_that_is_not_positive_and_finite_is_refused(weight: float) -> None:
    with pytest.raises(WeightError, match="a weight must be positive and finite"):
        encode_weight(TENTHS, weight)


def test_a_weight_beyond_max_weight_is_refused() -> None:
    with pytest.raises(WeightError, match="a weight exceeds max_weight 1: set it to the largest one possible"):
        encode_weight(TENTHS, 1.0000001)


def test_a_weight_that_rounds_to_zero_is_refused() -> None:
    with pytest.raises(WeightError, match="a weight rounds to zero beside max_weight 1"):
        encode_weight(TENTHS, 0.04)
    with pytest.raises(WeightError, match="a weight rounds to zero"):
        weight_bucket(TENTHS, 0.04)


@given(st.floats(1e-5, 1.0), st.floats(0.5, 1000.0))
def test_a_bucket_is_within_a_quarter_octave_of_the_weight(share: float, largest: float) -> None:
    params = Params(max_weight=largest, levels=2**40)
    bucket = weight_bucket(params, share * largest)
    stands_for = bucket_weight(params, bucket) / params.magnitude
    assert abs(math.log2(stands_for / share)) <= 0.25 + 1e-6


def test_the_largest_weight_is_bucket_zero_and_every_second_bucket_halves_it() -> None:
    params = Params(levels=2**21)
    assert weight_bucket(params, 1.0) == 0
    assert [weight_bucket(params, 2.0**-k) for k in range(5)] == [0, 2, 4, 6, 8]
    assert bucket_weight(params, 0) == params.magnitude
    assert bucket_weight(params, 2) == round(params.magnitude / 2)
    assert bucket_weight(params, 127) == 1


def test_every_weight_that_can_be_encoded_has_a_bucket_that_the_wire_carries() -> None:
    params = Params(levels=2**48)
    least = 0.5000001 / params.magnitude
    assert encode_weight(params, least) == 1
    assert 90 < weight_bucket(params, least) <= 127


def test_selecting_everything_copies_nothing() -> None:
    values = np.arange(3)
    assert encoding._select(values, np.ones(3, bool)) is values
    assert encoding._select(values, np.array([True, False, True])).tolist() == [0, 2]


def test_numbers_that_are_not_real_are_refused() -> None:
    update = {"a": np.zeros((2, 2)), "b": np.zeros(3, complex)}
    with pytest.raises(LayoutMismatchError, match="b holds complex128"):
        check_update(LAYOUT, TENTHS, update, ALL)


@pytest.mark.parametrize("late", [math.nan, math.inf, 2.0])
def test_an_update_that_changes_after_its_check_is_not_encoded(late: float) -> None:
    update = update_of(*[0.5] * 7)
    check_update(LAYOUT, TENTHS, update, ALL)
    read = encode_update(plan_of(TENTHS), 0, update, ALL, None)
    update["b"][1] = late
    with pytest.raises(OutOfRangeError, match="changed while it was encoded"):
        read.take(7)


def test_what_is_encoded_prints_neither_values_nor_weight() -> None:
    plan, update = plan_of(TENTHS, weighted=True), update_of(*[0.123456] * 7)
    read = encode_update(plan, 0, update, ALL, 7)
    read.take(1)
    assert repr(read) == "Encoded(<redacted>)"
    assert "0.123" not in repr(read._part)
    assert "7" not in repr(read._part)
