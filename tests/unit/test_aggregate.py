"""From integer sums to means, for each kind of denominator, on sums made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from secagg import declaration
from secagg.aggregate import decode, public_weight
from secagg.declaration import Provenance
from secagg.layout import Layout, Tensor
from secagg.messages import Participant
from secagg.params import Params
from secagg.release import Plan
from secagg.session import CountedCoverage, Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LAYOUT = Layout((Tensor("a", (2,)), Tensor("b", (2,))))
TENTHS: dict[str, Any] = {"levels": 21, "value_range": {"a": 1.0, "b": 10.0}, "max_dropouts": 1}
"""A unit of the sum is 0.1 in ``a`` and 1 in ``b``; a unit of a weight is a tenth of ``max_weight``."""
NAN = float("nan")


def plan_of(
    masks: Sequence[str],
    mode: Any = "mask-indexed",
    *,
    weighted: bool = False,
    counts: Sequence[int] | None = None,
    buckets: Sequence[int | None] | None = None,
    **settings: Any,
) -> Plan:
    counted = None
    if counts is not None:
        counted = CountedCoverage(frozenset(range(len(masks))), np.array(counts, np.int32))
    session = Session(
        id=bytes(16),
        params=Params(**TENTHS | settings),
        layout=LAYOUT,
        mode=mode,
        weighted=weighted,
        counted=counted,
    )
    held = [np.array([bit == "1" for bit in mask]) for mask in masks]
    return Plan(
        session,
        2,
        [
            Participant(client, declaration.of_coordinates(LAYOUT, one, Provenance.DATA), bucket)
            for client, (one, bucket) in enumerate(zip(held, buckets or [None] * len(held), strict=True))
        ],
    )


def integers(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def check(actual: NDArray[np.float64], expected: Sequence[float]) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_an_unweighted_uniform_mean_divides_by_the_survivors() -> None:
    aggregate = decode(plan_of(["1111"] * 4, "uniform"), (0, 1, 3), integers(3, -6, 9, 30))
    check(aggregate.sum, [0.3, -0.6, 9, 30])
    check(aggregate.weight, [3, 3, 3, 3])
    check(aggregate.mean, [0.1, -0.2, 3, 10])
    assert aggregate.total_weight == 3
    assert aggregate.survivors == (0, 1, 3)
    assert aggregate.smallest_group == 3


def test_a_weighted_uniform_mean_divides_by_the_total_in_the_slot() -> None:
    plan = plan_of(["1111"] * 4, "uniform", weighted=True, max_weight=5.0)
    aggregate = decode(plan, (0, 1, 2), integers(3, -6, 9, 30, 20))
    check(aggregate.sum, [1.5, -3, 45, 150])  # units of max_weight times value
    check(aggregate.weight, [10] * 4)  # 20 tenths of 5
    check(aggregate.mean, [0.15, -0.3, 4.5, 15])
    assert aggregate.total_weight == 10


def test_withheld_coordinates_are_nan_with_no_weight() -> None:
    plan = plan_of(["1111", "1111", "1111", "1101", "1100"], max_dropouts=1)
    aggregate = decode(plan, (0, 1, 2, 3, 4), integers(5, 10, 8))
    check(aggregate.sum, [0.5, 1, NAN, 8])
    check(aggregate.weight, [5, 5, 0, 4])
    check(aggregate.mean, [0.1, 0.2, NAN, 2])
    assert aggregate.smallest_group == 4


def test_an_unweighted_mask_indexed_mean_divides_by_the_surviving_holders() -> None:
    plan = plan_of(["1111", "1111", "1111", "1111", "1100"], max_dropouts=1)
    aggregate = decode(plan, (0, 1, 2, 4), integers(8, 8, 3, 6))
    check(aggregate.weight, [4, 4, 3, 3])
    check(aggregate.mean, [0.2, 0.2, 1, 2])
    assert aggregate.total_weight == 4
    assert aggregate.smallest_group == 3


def test_public_weights_are_added_up_where_their_clients_hold() -> None:
    """Buckets 0 and 2 stand for 10 and 5 tenths of max_weight 2."""
    plan = plan_of(
        ["1111", "1111", "1111", "1111", "1100"],
        weighted=True,
        weighting="public",
        buckets=[0, 0, 2, 2, 0],
        max_weight=2.0,
    )
    assert [public_weight(plan, client) for client in plan.clients] == [10, 10, 5, 5, 10]
    aggregate = decode(plan, (0, 2, 3, 4), integers(30, 6, 10, 20))
    check(aggregate.weight, [6, 6, 4, 4])
    check(aggregate.mean, [1, 0.2, 5, 10])
    assert aggregate.total_weight == 6


def test_average_weighting_divides_by_coverage_times_the_mean_weight() -> None:
    plan = plan_of(["1111", "1111", "1111", "1111", "1100"], weighted=True, weighting="average")
    aggregate = decode(plan, (0, 1, 2, 4), integers(20, 10, 3, 6, 20))
    check(aggregate.weight, [2, 2, 1.5, 1.5])
    check(aggregate.mean, [1, 0.5, 2, 4])
    assert aggregate.total_weight == 2


def test_hidden_weights_are_added_up_over_the_groups_that_hold() -> None:
    plan = plan_of(["1111"] * 4 + ["1100"] * 4, weighted=True)
    aggregate = decode(plan, (0, 1, 2, 4, 5, 6, 7), integers(20, -20, 5, 10, 15, 25))
    check(aggregate.weight, [4, 4, 1.5, 1.5])
    check(aggregate.mean, [0.5, -0.5, 5 / 1.5, 10 / 1.5])
    assert aggregate.total_weight == 4


@pytest.mark.parametrize(("weighted", "per_unit"), [(False, 1), (True, 10)])
def test_exact_denominators_are_read_off_their_slots(weighted: bool, per_unit: int) -> None:  # noqa: FBT001 - a case
    plan = plan_of(
        ["1111"] * 5, "uniform", weighted=weighted, counts=[5, 5, 4, 0], exact_denominators=True, max_dropouts=1
    )
    slots = [per_unit * value for value in (4, 2, 0, 5)]
    aggregate = decode(plan, (0, 1, 2, 3, 4), integers(8, 8, 0, *slots))
    check(aggregate.weight, [4, 2, 0, 0])
    check(aggregate.mean, [0.2, 0.4, NAN, NAN])  # released, but nobody holds the third
    check(aggregate.sum, [0.8, 0.8, 0, NAN])
    assert aggregate.total_weight == 5


def test_the_smallest_group_of_counted_coverage_allows_for_every_dropout() -> None:
    plan = plan_of(["1111"] * 6, "uniform", counts=[6, 5, 5, 0], max_dropouts=1)
    assert decode(plan, (0, 1, 2, 3, 4), integers(0, 0, 0)).smallest_group == 4


def test_the_integers_are_kept_as_they_came() -> None:
    sums = integers(3, -6, 9, 30)
    assert decode(plan_of(["1111"] * 4, "uniform"), (0, 1, 3), sums).integers is sums


def test_printing_an_aggregate_prints_no_values() -> None:
    text = repr(decode(plan_of(["1111"] * 4, "uniform"), (0, 1, 3), integers(3, -6, 9, 777)))
    assert "777" not in text
    assert "survivors=(0, 1, 3)" in text
