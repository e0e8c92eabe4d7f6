"""Two ways to join arrivals, against sums by hand."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from protocols.aggregators import FloatMean
from protocols.arrivals.buffer import MaskFedAvg
from protocols.arrivals.contributor import Agreement
from protocols.arrivals.flight import Arrival, Flight, packed, unpacked
from protocols.arrivals.joining import InBuffer, InRunningSum
from protocols.arrivals.staleness import Staleness
from protocols.simulation.calibration import Calibration, SecureTime
from protocols.simulation.clock import ClientTime
from protocols.vectors import state_of, vector_of
from pruning.masks import Mask
from secagg.declaration import Provenance
from secagg.errors import OutOfRangeError, ParameterError, TooFewClientsError
from secagg.layout import Layout, Tensor
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Sequence
    from inspect import BoundArguments

    from numpy.typing import NDArray

    from protocols.aggregators import Dropouts
    from protocols.arrivals.buffer import Kind
    from protocols.arrivals.joining import Joining
    from secagg.params import Mode

LAYOUT = Layout((Tensor("fc.weight", (2, 2)), Tensor("fc.bias", (2,))))
CLIENTS = tuple("abcd")
PARAMS = Params(min_cohort=2, max_dropouts=0, value_range=4.0, levels=2**16)
UNIT = 4 / PARAMS.magnitude
MODEL = np.array([1, 2, 3, 4, 5, 6], np.float32)
FULL = Mask.full(LAYOUT)
HALF = Mask.of_coordinates(LAYOUT, np.array([True, False, True, False, True, False]))
DECAY = 0.5


class Metered(Calibration):
    """Powers of two, so that sums are exact."""

    def time(self, mode: Mode, clients: int, params: Params) -> SecureTime:
        assert (mode, params.levels > PARAMS.levels) == ("mask-indexed", True)
        return SecureTime(
            mode=mode,
            clients=clients,
            settings="",
            client=1.0,
            client_per_coordinate=2.0**-4,
            server=2.0,
            server_per_coordinate=2.0**-8,
        )


def arrival(client: str, update: Sequence[float], mask: Mask = FULL, version: int = 0) -> Arrival:
    held = mask.coordinates
    flight = Flight(
        client=client,
        trip=0,
        version=version,
        start=np.where(held, MODEL, np.float32(0)),
        mask=mask,
        left_at=0.0,
        time=ClientTime(download=1, compute=1, upload=1),
        fetched_bytes=24,
        sent_bytes=24,
    )
    return Arrival(flight, np.where(held, np.array(update, np.float32), np.float32(0)))


def in_buffer(kind: Kind, *, rate: float = 1.0, keep: bool = True) -> InBuffer:
    rule = MaskFedAvg(kind=kind, staleness=Staleness("geometric", decay=DECAY), learning_rate=rate)
    return InBuffer(FloatMean(LAYOUT, "mask-indexed"), rule, keep=keep)


def in_running_sum(*, rate: float = 1.0, encrypted: bool = False, check: bool = False, **params: Any) -> InRunningSum:
    agreement = Agreement(layout=LAYOUT, params=replace(PARAMS, **params), decay=DECAY)
    return InRunningSum(
        agreement, CLIENTS, batch=2, server_rate=rate, calibration=Metered(), encrypted=encrypted, check=check
    )


def moved(
    joining: Joining, arrivals: Sequence[Arrival], version: int = 0, model: NDArray[np.float32] = MODEL
) -> list[float]:
    """By how much a join moves the model."""
    seed = hashlib.sha256(f"{version} {arrivals}".encode()).digest()
    return (joining.join(arrivals, model, version, {}, seed).vector - model).tolist()


def constant(value: float) -> list[float]:
    return [value] * LAYOUT.size


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


# ---------------------------------------------------------------------------------- the buffer


def test_a_buffered_model_takes_the_models_place_and_shares_it_with_those_that_came_before() -> None:
    joining = in_buffer("model")
    assert moved(joining, [arrival("a", constant(1))]) == pytest.approx(constant(1))
    # At version 1, a's model counts half: (0.5 * 1 + 2) / 1.5.
    assert moved(joining, [arrival("b", constant(2), version=1)], 1) == pytest.approx(constant(2.5 / 1.5))
    # c started at version 0, so it counts a quarter at version 2, as a does; b counts half.
    expected = (0.25 * 1 + 0.5 * 2 + 0.25 * 5) / (0.25 + 0.5 + 0.25)
    assert moved(joining, [arrival("c", constant(5))], 2) == pytest.approx(constant(expected))


def test_a_later_contribution_takes_the_earlier_ones_place() -> None:
    joining = in_buffer("update")
    moved(joining, [arrival("a", constant(1))])
    assert moved(joining, [arrival("a", constant(3), version=1)], 1) == pytest.approx(constant(3))


def test_a_coordinate_is_averaged_over_its_holders_and_stays_where_there_are_none() -> None:
    joining = in_buffer("update", rate=0.5)
    assert moved(joining, [arrival("a", constant(1), HALF)]) == pytest.approx([0.5, 0] * 3)
    assert moved(joining, [arrival("b", constant(2), version=1)], 1) == pytest.approx([2.5 / 3, 1] * 3)


def test_without_a_buffer_only_what_arrives_counts() -> None:
    joining = in_buffer("model", keep=False)
    moved(joining, [arrival("a", constant(1))])
    assert moved(joining, [arrival("b", constant(2), version=1)], 1) == pytest.approx(constant(2))
    assert joining.remember()["buffer"] == {}


def test_contributions_that_come_back_are_as_old_as_they_were_however_far_versions_went() -> None:
    joining, other = in_buffer("update"), in_buffer("update")
    for one in (joining, other):
        moved(one, [arrival("a", constant(1))])
    memory = copy.deepcopy(joining.remember())
    for version in range(1, 9):
        moved(joining, [arrival("b", constant(9), version=version)], version)
    joining.recall(memory)
    found = moved(joining, [arrival("c", constant(2), version=9)], 9)
    assert found == moved(other, [arrival("c", constant(2), version=1)], 1)
    assert found == pytest.approx(constant((0.5 * 1 + 2) / 1.5))


def test_a_buffer_sends_four_bytes_a_coordinate_that_is_held_and_says_who_sees_what() -> None:
    joining = in_buffer("model")
    assert joining.upload_of(HALF) == 12
    found = joining.join([arrival("a", constant(1))], MODEL, 0, {}, b"")
    assert "sees and keeps every client's model" in found.verdict
    assert (found.secure_seconds, found.difference, found.lost, found.missed) == (0, None, False, frozenset())


# ---------------------------------------------------------------------------------- the running sum


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_running_sum_moves_the_model_by_the_aged_mean_of_everybodys_latest_update(*, encrypted: bool) -> None:
    joining = in_running_sum(rate=0.5, encrypted=encrypted)
    first = moved(joining, [arrival("a", constant(1)), arrival("b", constant(3))])
    assert first == pytest.approx(constant(0.5 * 2), abs=4 * UNIT)
    # a's and b's count half by now; c's, from version 0, too; d's whole.
    second = moved(joining, [arrival("c", constant(2)), arrival("d", constant(-1), version=1)], 1)
    assert second == pytest.approx(constant(0.5 * (0.5 * (1 + 3 + 2) - 1) / 2.5), abs=4 * UNIT)
    # a's new one takes its old one's place where both hold it; the rest, of which nothing new is known, stays.
    third = moved(joining, [arrival("a", constant(4), HALF, 2), arrival("b", constant(0), version=2)], 2)
    total, weight = 0.25 * 2 + 0.5 * -1, 0.25 + 0.5 + 1
    assert third == pytest.approx([0.5 * (total + 4) / (weight + 1), 0] * 3, abs=4 * UNIT)


def test_where_a_flush_releases_nothing_the_model_stays_although_what_was_joined_still_has_a_mean() -> None:
    joining = in_running_sum()
    moved(joining, [arrival("a", constant(1)), arrival("b", constant(3))])
    found = moved(joining, [arrival("a", constant(1), version=1), arrival("b", constant(3), HALF, 1)], 1)
    assert found == pytest.approx([2, 0] * 3, abs=4 * UNIT)


def test_what_comes_of_a_flush_says_bytes_times_and_the_difference_to_its_twin() -> None:
    joining = in_running_sum(encrypted=True, check=True)
    whole = joining.join([arrival("a", constant(1)), arrival("b", constant(1))], MODEL, 0, {}, b"first")
    assert whole.difference == 0
    assert whole.secure_seconds == 3 + 6 * 2.0**-4 + 12 * 2.0**-8
    assert min(whole.sent_bytes.values()) > joining.upload_of(FULL)
    assert "what is alike in a client's successive updates shows in their differences" in whole.verdict
    assert set(whole.received_bytes) == {"a", "b"}
    assert min(whole.received_bytes.values()) > 0
    # b holds half of it now, and what a alone holds is not sent, since it would be withheld.
    batch = [arrival("a", constant(1), version=1), arrival("b", constant(1), HALF, 1)]
    flushed = joining.join(batch, MODEL, 1, {}, b"second")
    assert flushed.difference == 0
    assert flushed.secure_seconds == 3 + 3 * 2.0**-4 + 6 * 2.0**-8
    assert flushed.withheld_share == 3 / 9  # held by a alone
    assert flushed.missing_share == 0  # a's last one is still there


def test_what_clients_send_in_company_is_foreseen_to_the_byte() -> None:
    joining, generator = in_running_sum(), np.random.default_rng(1)
    masks = [FULL, HALF, Mask.of_coordinates(LAYOUT, np.array([True, False, True, False, False, False]))]
    for version in range(20):
        drawn = generator.choice(list(CLIENTS), 2, replace=False)
        batch = [arrival(str(one), constant(1), masks[generator.integers(3)], version) for one in drawn]
        foreseen = joining.foreseen({one.flight.client: one.flight.mask for one in batch})
        assert joining.join(batch, MODEL, version, {}, b"").sent_bytes == foreseen
    alone = in_buffer("update").foreseen({"a": HALF, "b": FULL})
    assert alone == {"a": 12, "b": 24}


@pytest.mark.parametrize("check", [False, True])
def test_a_lost_flush_changes_nothing(*, check: bool) -> None:
    joining = in_running_sum(encrypted=True, check=check)
    moved(joining, [arrival("a", constant(1)), arrival("b", constant(1))])
    before = copy.deepcopy(joining.remember())
    batch = [arrival("a", constant(2), version=1), arrival("b", constant(2), version=1)]
    with pytest.raises(TooFewClientsError):
        joining.join(batch, MODEL, 1, {"b": "ShareKeys"}, b"lost")
    assert same(joining.remember(), before)
    assert joining.join(batch, MODEL, 1, {}, b"again").vector.tolist() == pytest.approx((MODEL + 2).tolist(), abs=UNIT)


def test_who_drops_out_is_missed_and_its_old_contribution_ages_on() -> None:
    agreement = Agreement(layout=LAYOUT, params=replace(PARAMS, max_dropouts=1), decay=DECAY)
    joining = InRunningSum(agreement, CLIENTS, batch=4, server_rate=1, calibration=Metered(), check=True)
    leaving: Dropouts = {"d": "ShareKeys", "stranger": "ShareKeys"}
    nobody: Dropouts = {}
    for version, dropouts in enumerate((nobody, leaving)):
        batch = [arrival(client, constant(1 - 2 * version), version=version) for client in CLIENTS]
        found = joining.join(batch, MODEL, version, dropouts, f"flush {version}".encode())
    assert found.missed == {"d"}
    assert found.difference == 0
    assert (found.vector - MODEL).tolist() == pytest.approx(constant((3 * -1 + 0.5 * 1) / 3.5), abs=4 * UNIT)


def test_every_flush_binds_another_model(sessions: list[BoundArguments]) -> None:
    """Also one that is played after earlier ones came back."""
    joining = in_running_sum(encrypted=True)
    memory = copy.deepcopy(joining.remember())
    for version in range(4):
        if version == 2:
            joining.recall(memory)
        batch = [arrival("a", constant(1), version=version), arrival("b", constant(1), version=version)]
        moved(joining, batch, version)
    assert len({session.arguments["model_root"] for session in sessions}) == len(sessions) == 4


def test_what_was_joined_comes_back_on_both_sides() -> None:
    joining, other = in_running_sum(encrypted=True, check=True), in_running_sum(encrypted=True, check=True)
    moved(joining, [arrival("a", constant(1)), arrival("b", constant(3))])
    memory = copy.deepcopy(joining.remember())
    moved(joining, [arrival("a", constant(2), version=1), arrival("c", constant(3), version=1)], 1)
    joining.recall(memory)
    other.recall(memory)
    assert same(joining.remember(), other.remember())
    batch = [arrival("a", constant(2), version=2), arrival("b", constant(3), version=1)]
    found, expected = (one.join(batch, MODEL, 2, {}, b"seed") for one in (joining, other))
    assert found.difference == expected.difference == 0
    assert np.array_equal(found.vector, expected.vector)
    assert (found.vector - MODEL).tolist() == pytest.approx(constant((2 + 0.5 * 3) / 1.5), abs=4 * UNIT)
    joining.recall({})
    assert same(joining.remember(), in_running_sum(encrypted=True, check=True).remember())


def test_a_batch_that_no_flush_could_release_is_refused_at_once() -> None:
    with pytest.raises(ParameterError, match="a flush of 2 clients is smaller than 3"):
        in_running_sum(max_dropouts=1)


def test_updates_out_of_range_are_refused_by_name_or_clipped() -> None:
    batch = [arrival("a", constant(1)), arrival("b", constant(6))]
    with pytest.raises(OutOfRangeError, match="client b"):
        moved(in_running_sum(), batch)
    clipped = moved(in_running_sum(out_of_range="saturate"), batch)
    assert clipped == pytest.approx(constant(2.5), abs=4 * UNIT)


# ---------------------------------------------------------------------------------- flights and vectors


@pytest.mark.parametrize("mask", [FULL, HALF, Mask.full(LAYOUT, Provenance.DEVICE)])
def test_a_flight_comes_back_from_what_it_was_packed_into(mask: Mask) -> None:
    flight = arrival("a", constant(1), mask, 3).flight
    one = replace(flight, trip=7, left_at=1 / 3, side_seconds=0.1, side_bytes=5, side_flops=6)
    found = unpacked("a", packed(one), LAYOUT)
    assert found.mask == one.mask
    assert np.array_equal(found.start, one.start)
    assert replace(found, start=one.start, mask=one.mask).__dict__ == one.__dict__


def test_a_flight_is_ready_after_training_and_what_it_says_beside_and_back_after_sending() -> None:
    one = replace(arrival("a", constant(1)).flight, left_at=10.0, side_seconds=0.5)
    assert (one.trained_at, one.back_at) == (12.5, 13.5)


def test_an_arrival_knows_the_trained_model() -> None:
    assert arrival("a", constant(1), HALF).model.tolist() == [2, 0, 4, 0, 6, 0]


def test_vectors_are_the_tensors_of_a_layout_in_its_order() -> None:
    state = {
        "fc.bias": torch.tensor([5.0, 6.0]),
        "other": torch.zeros(3),
        "fc.weight": torch.tensor([[1.0, 2], [3, 4]]),
    }
    vector = vector_of(LAYOUT, state)
    assert vector.dtype == np.float32
    assert vector.tolist() == MODEL.tolist()
    back = state_of(LAYOUT, vector)
    assert list(back) == ["fc.weight", "fc.bias"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in back.items())
    vector[0] = 9
    assert back["fc.weight"][0, 0] == state["fc.weight"][0, 0] == 1
