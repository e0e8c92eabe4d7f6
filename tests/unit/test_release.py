"""The release rule on cases worked by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import declaration
from secagg.declaration import FULL, Declaration, Provenance
from secagg.errors import CoverageError, DecodingError, TooFewClientsError, UnmaskRefusedError
from secagg.layout import Layout, Tensor
from secagg.messages import Participant
from secagg.params import Params
from secagg.release import Plan
from secagg.ring import Ring
from secagg.session import CountedCoverage, Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from secagg.params import Mode

LAYOUT = Layout((Tensor("fc1.weight", (2, 2)), Tensor("fc2.weight", (3,))))
WIDE = "1111 111"


def declared(bits: str) -> Declaration:
    held = np.array([bit == "1" for bit in bits.replace(" ", "")])
    return declaration.of_coordinates(LAYOUT, held, Provenance.DATA)


def plan_of(
    masks: Sequence[str],
    mode: Mode = "mask-indexed",
    *,
    threshold: int = 2,
    weighted: bool = False,
    counted: CountedCoverage | None = None,
    **settings: Any,
) -> Plan:
    session = Session(
        id=bytes(16), params=Params(**settings), layout=LAYOUT, mode=mode, weighted=weighted, counted=counted
    )
    bucket = 0 if weighted and session.params.weighting == "public" else None
    return Plan(session, threshold, [Participant(10 + k, declared(mask), bucket) for k, mask in enumerate(masks)])


def as_text(bits: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    return "".join("01"[bit] for bit in bits.astype(int))


SIX = ["1111 111", "1111 111", "1111 110", "1111 100", "1100 100", "1000 000"]
"""Coverage 6 5 4 4 5 3 2; with min_cohort 3 and max_dropouts 1 four holders are required."""


def test_coordinates_with_enough_holders_are_released() -> None:
    plan = plan_of(SIX, max_dropouts=1)
    assert plan.clients == (10, 11, 12, 13, 14, 15)
    assert plan.coverage.tolist() == [6, 5, 4, 4, 5, 3, 2]
    assert (plan.dropouts, plan.fewest_survivors, plan.required) == (1, 5, 4)
    assert as_text(plan.released) == "1111100"
    assert plan.released_count == plan.length == 5


def test_corrupt_clients_and_participation_raise_what_is_required() -> None:
    assert as_text(plan_of(SIX, max_dropouts=1, corrupt=1).released) == "1100100"
    assert as_text(plan_of(SIX, max_dropouts=0, participation=0.8).released) == "1100100"
    assert as_text(plan_of(SIX, max_dropouts=0).released) == "1111110"


def test_a_client_sends_the_released_coordinates_that_it_holds() -> None:
    plan = plan_of(SIX, max_dropouts=1)
    assert [as_text(plan.held(client)) for client in plan.clients] == [
        "11111",
        "11111",
        "11111",
        "11111",
        "11001",
        "10000",
    ]
    assert [as_text(plan.places(client)) for client in plan.clients] == [
        as_text(plan.held(client)) for client in plan.clients
    ]


def test_clients_are_grouped_by_what_they_send_not_by_what_they_declare() -> None:
    plan = plan_of(SIX, max_dropouts=1)
    assert plan.groups == ((10, 11, 12, 13), (14,), (15,))


def test_an_overlap_counts_the_places_of_the_one_that_the_other_fills() -> None:
    plan = plan_of(SIX, max_dropouts=1)
    assert plan.overlap(10, 11) is None  # equal declarations
    assert plan.overlap(10, 13) is None  # other declarations, equal places
    assert plan.overlap(14, 10) is None  # the peer fills all places of the client
    overlap = plan.overlap(10, 14)
    assert overlap is not None
    assert as_text(overlap) == "11001"
    overlap = plan.overlap(14, 15)
    assert overlap is not None
    assert as_text(overlap) == "100"


def test_without_weights_there_are_no_slots() -> None:
    plan = plan_of(SIX, max_dropouts=1)
    assert (plan.slots, plan.slot_count) == ("none", 0)


def test_public_weights_need_no_slots() -> None:
    plan = plan_of(SIX, weighted=True, weighting="public", max_dropouts=1)
    assert (plan.slots, plan.length) == ("none", 5)


def test_average_weighting_has_one_slot_that_everybody_fills() -> None:
    plan = plan_of(SIX, weighted=True, weighting="average", max_dropouts=1)
    assert (plan.slots, plan.slot_count, plan.length) == ("total", 1, 6)
    assert as_text(plan.places(15)) == "10000" + "1"


def test_hidden_weights_of_a_uniform_session_have_one_slot() -> None:
    plan = plan_of([WIDE] * 4, "uniform", weighted=True, max_dropouts=1)
    assert (plan.slots, plan.slot_count, plan.length) == ("total", 1, 8)
    assert as_text(plan.places(13)) == "1" * 8


def test_hidden_weights_of_masks_have_one_slot_a_group_that_its_members_fill() -> None:
    plan = plan_of([WIDE] * 4 + ["1111 000"] * 4, weighted=True, max_dropouts=1)
    assert plan.groups == ((10, 11, 12, 13), (14, 15, 16, 17))
    assert (plan.slots, plan.slot_count, plan.length) == ("groups", 2, 9)
    assert as_text(plan.places(10)) == "1111111" + "10"
    assert as_text(plan.places(17)) == "1111000" + "01"
    overlap = plan.overlap(10, 17)
    assert overlap is not None
    assert as_text(overlap) == "1111000" + "0"


def test_two_declarations_of_one_group_fill_the_slot_of_the_group() -> None:
    """The last coordinate is withheld, so the first two masks send the same."""
    plan = plan_of(["1111 111", "1111 111", "1111 110", "1111 110"], weighted=True, max_dropouts=0)
    assert plan.groups == ((10, 11, 12, 13),)
    assert {as_text(plan.places(client)) for client in plan.clients} == {"111111" + "1"}


def test_exact_denominators_have_one_slot_a_coordinate_and_one_for_the_total() -> None:
    plan = plan_of([WIDE] * 4, "uniform", exact_denominators=True, max_dropouts=1)
    assert (plan.slots, plan.slot_count, plan.length) == ("coordinates", 8, 15)
    assert as_text(plan.places(10)) == "1" * 15


def test_counts_decide_what_a_uniform_session_releases() -> None:
    counted = CountedCoverage(frozenset(range(10, 15)), np.array([5, 5, 4, 4, 5, 3, 0], np.int32))
    plan = plan_of([WIDE] * 5, "uniform", counted=counted, max_dropouts=1)
    assert as_text(plan.released) == "1111100"
    assert as_text(plan.held(10)) == "11111"


def test_a_counted_client_that_is_missing_may_have_held_everything() -> None:
    counted = CountedCoverage(frozenset({10, 11, 12, 13, 14, 15, 99}), np.array([7, 6, 5, 4, 1, 0, 0], np.int32))
    plan = plan_of([WIDE] * 6, "uniform", counted=counted, max_dropouts=1)
    assert plan.coverage.tolist() == [6, 5, 4, 3, 0, 0, 0]
    assert as_text(plan.released) == "1110000"


def test_an_uncounted_client_adds_nothing_to_the_counts() -> None:
    counted = CountedCoverage(frozenset({10, 11, 12}), np.full(7, 3, np.int32))
    plan = plan_of([WIDE] * 4, "uniform", counted=counted, max_dropouts=0)
    assert plan.coverage.tolist() == [3] * 7


def test_survivors_are_counted_at_released_coordinates() -> None:
    plan = plan_of(SIX, max_dropouts=1)
    assert plan.survivors_coverage(plan.clients).tolist() == [6, 5, 4, 4, 5]
    assert plan.survivors_coverage((10, 11, 12, 13, 15)).tolist() == [5, 4, 4, 4, 4]
    assert plan.survivors_coverage((11, 12, 13, 14, 15)).tolist() == [5, 4, 3, 3, 4]


def test_counted_survivors_are_a_lower_bound() -> None:
    counted = CountedCoverage(frozenset(range(10, 15)), np.array([5, 5, 4, 4, 5, 3, 0], np.int32))
    plan = plan_of([WIDE] * 5, "uniform", counted=counted, max_dropouts=1)
    assert plan.survivors_coverage((10, 11, 13, 14)).tolist() == [4, 4, 3, 3, 4]


@given(st.lists(st.integers(0, 2**7 - 1), min_size=4, max_size=7), st.data())
def test_whoever_drops_out_every_released_coordinate_keeps_its_floor(masks: list[int], data: st.DataObject) -> None:
    """The rule's whole point: D more holders than the floor survive any D dropouts."""
    texts = [f"{mask:07b}" for mask in masks]
    dropouts = data.draw(st.integers(0, 2))
    try:
        plan = plan_of(texts, min_cohort=2, max_dropouts=dropouts)
    except CoverageError:
        return
    lost = data.draw(st.lists(st.sampled_from(plan.clients), max_size=plan.dropouts, unique=True))
    survivors = tuple(client for client in plan.clients if client not in lost)
    expected = [
        sum(texts[client - 10][place] == "1" for client in survivors) for place in np.flatnonzero(plan.released)
    ]
    assert plan.survivors_coverage(survivors).tolist() == expected
    assert min(expected) >= 2
    plan.check_survivors(survivors)  # does not refuse


def test_fewer_survivors_than_the_dropouts_allow_are_refused() -> None:
    plan = plan_of(SIX, max_dropouts=1)
    with pytest.raises(UnmaskRefusedError, match=r"4 survivors < 5 \(6 clients - max_dropouts 1\)"):
        plan.check_survivors((10, 11, 12, 13))


def test_a_coordinate_with_too_few_surviving_holders_is_refused() -> None:
    """Cannot happen while the rule holds, so the rule is weakened by hand: the refusal stands on its own."""
    plan = plan_of(SIX, max_dropouts=1)
    plan.fewest_survivors = 4
    with pytest.raises(UnmaskRefusedError, match="a released coordinate has fewer than 3 surviving holders"):
        plan.check_survivors((12, 13, 14, 15))


def test_a_weight_slot_with_too_few_surviving_holders_is_refused() -> None:
    plan = plan_of([WIDE] * 4 + ["1111 000"] * 4, weighted=True, max_dropouts=1)
    plan.fewest_survivors = 6
    with pytest.raises(UnmaskRefusedError, match="a weight slot has fewer than 3 surviving holders"):
        plan.check_survivors((10, 11, 12, 13, 14, 15))


def test_the_ring_holds_the_sum_of_all_clients() -> None:
    assert plan_of(SIX, max_dropouts=1, levels=2**12).ring == Ring(16)
    assert plan_of(SIX, max_dropouts=1, levels=2**20).ring == Ring(24)
    assert plan_of(SIX, max_dropouts=1, levels=2**24).ring == Ring(32)
    assert plan_of(SIX, max_dropouts=1, levels=2**40).ring == Ring(64)


def test_if_nothing_is_released_the_error_names_coverage_requirement_layer_and_remedies() -> None:
    layout = Layout((Tensor("fc1.weight", (2,)), Tensor("fc2.weight", (2,)), Tensor("none", (0,))))
    held = [declaration.of_coordinates(layout, np.array([k < 5] * 2 + [k < 4] * 2), Provenance.DATA) for k in range(10)]
    session = Session(id=bytes(16), params=Params(), layout=layout, mode="mask-indexed")
    with pytest.raises(CoverageError) as error:
        Plan(session, 5, [Participant(k, one, None) for k, one in enumerate(held)])
    assert str(error.value) == (
        "coverage 4 < 6 (min_cohort 3 + max_dropouts 3) for fc2: lower max_dropouts or use uniform"
    )


def test_without_dropouts_to_lower_only_the_other_remedy_is_named() -> None:
    counted = CountedCoverage(frozenset(range(10, 14)), np.full(7, 2, np.int32))
    with pytest.raises(CoverageError) as error:
        plan_of([WIDE] * 4, "uniform", counted=counted, max_dropouts=0)
    assert str(error.value) == "coverage 2 < 3 (min_cohort 3 + max_dropouts 0) for fc1: use mask-indexed"


def test_lowering_max_dropouts_is_not_advised_where_participation_decides() -> None:
    with pytest.raises(CoverageError, match=r"coverage 3 < 5 \(participation 0\.8 of 6 clients\)") as error:
        plan_of(["1110 000"] * 3 + ["0001 111"] * 3, participation=0.8, max_dropouts=1)
    assert "lower max_dropouts" not in str(error.value)


def test_too_few_clients_are_refused_with_both_thresholds() -> None:
    with pytest.raises(
        TooFewClientsError, match=r"3 clients completed ShareKeys, but 4 are needed .*share_threshold 4"
    ):
        plan_of([WIDE] * 3, threshold=4)
    with pytest.raises(TooFewClientsError, match=r"but 5 are needed \(min_cohort 3 \+ corrupt 2;"):
        plan_of([WIDE] * 3, corrupt=2)


def test_a_group_too_small_for_hidden_weights_is_refused_with_the_ways_out() -> None:
    with pytest.raises(CoverageError) as error:
        plan_of([WIDE] * 5 + ["1111 000"] * 3, weighted=True, max_dropouts=1)
    assert str(error.value).startswith(
        "3 clients share one mask, but hidden weights need 4 (min_cohort 3 + corrupt 0 + max_dropouts 1): "
    )
    assert "weighting='public'" in str(error.value)
    assert "weighting='average'" in str(error.value)


def test_a_declaration_that_does_not_fit_is_refused() -> None:
    session = Session(id=bytes(16), params=Params(), layout=LAYOUT, mode="mask-indexed")
    odd = [Participant(k, Declaration("bitmap", b"\x00"), None) for k in range(3)]
    odd.append(Participant(3, Declaration("bitmap", b"\x00\x00"), None))
    with pytest.raises(DecodingError, match="7 bits take 1 bytes, not 2"):
        Plan(session, 2, odd)


def test_participants_may_come_in_any_order() -> None:
    session = Session(id=bytes(16), params=Params(), layout=LAYOUT, mode="uniform")
    plan = Plan(session, 2, [Participant(k, FULL, None) for k in (5, 1, 3)])
    assert plan.clients == (1, 3, 5)
