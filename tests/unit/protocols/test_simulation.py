from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
import torch

from protocols.aggregators import FloatMean, Uniform
from protocols.results import ClientRound, Comparison, RoundResult, RunResult
from protocols.round import Work
from protocols.simulation.calibration import SESSIONS, Calibration
from protocols.simulation.clock import ClientTime, TrainingCosts, client_time, round_seconds, speed_up
from protocols.simulation.devices import REFERENCE, Device, Fleet
from pruning.cost import cost_of
from pruning.masks import Mask
from secagg.errors import ParameterError
from secagg.layout import Layout, Tensor

if TYPE_CHECKING:
    from collections.abc import Hashable

DEVICE = Device(
    name="board", flops_per_second=2e9, upload_bytes_per_second=1e5, download_bytes_per_second=4e5, straggler=True
)


def test_a_clients_time_is_operations_over_speed_plus_bytes_over_links_plus_secure_aggregation() -> None:
    time = client_time(DEVICE, flops=3e9, download_bytes=1e6, upload_bytes=5e4, secure_seconds=0.25)
    assert time == ClientTime(download=2.5, compute=1.5, upload=0.5, secure=0.25)
    assert time.network == 3.0
    assert time.total == 4.75


def test_a_round_takes_as_long_as_its_slowest_client() -> None:
    fast, slow = ClientTime(download=1, compute=1, upload=1), ClientTime(download=0, compute=4, upload=1)
    assert round_seconds([fast, slow, fast]) == 5


@pytest.mark.parametrize(("after", "expected"), [(3.0, 0.25), (4.0, 0.0), (5.0, -0.25)])
def test_speed_up_is_the_share_of_time_saved(after: float, expected: float) -> None:
    assert speed_up(4.0, after) == expected


def client(seconds: float, *, upload_bytes: int = 100) -> ClientRound:
    time = ClientTime(download=0.5, compute=seconds - 1, upload=0.5)
    return ClientRound(keep=0.5, parameters=10, flops=7, download_bytes=40, upload_bytes=upload_bytes, seconds=time)


def run(name: str, seconds: list[tuple[float, float]], accuracies: list[float]) -> RunResult:
    """A fast and a slow client, round after round."""
    rounds = tuple(
        RoundResult(
            number=number,
            accuracy=accuracy,
            finished_at=0.0,
            clients={"fast": client(fast), "slow": client(slow, upload_bytes=60)},
            survivors=("fast", "slow"),
            withheld_share=0.0,
            difference=difference,
            verdict=f"round {number}",
        )
        for number, ((fast, slow), accuracy, difference) in enumerate(
            zip(seconds, accuracies, [None, 0.0, 0.5], strict=False)
        )
    )
    return RunResult(system=name, aggregator="float", stragglers=("slow",), rounds=rounds)


def test_a_comparison_measures_speed_up_and_bound_against_the_baseline() -> None:
    baseline = run("FedAvg", [(4.0, 10.0), (4.0, 10.0)], [0.5, 0.7])
    row = Comparison.of(run("CLIP", [(4.0, 5.0), (4.0, 3.0)], [0.4, 0.6]), baseline)
    assert row.round_seconds == 4.5
    assert row.speed_up == pytest.approx(0.55)
    assert row.bound == pytest.approx(0.6)
    assert row.accuracy == pytest.approx(0.5)
    assert row.straggler_upload_bytes == 60
    assert row.straggler_compute_seconds == 3.0
    assert row.straggler_network_seconds == 1.0


def test_the_difference_of_a_run_is_its_largest_and_none_without_a_twin() -> None:
    assert run("one", [(1, 1)] * 3, [0.1] * 3).difference == 0.5
    assert run("one", [(1, 1)], [0.1]).difference is None


def test_a_run_becomes_json() -> None:
    plain = json.loads(json.dumps(run("one", [(2, 3)], [0.25]).to_json()))
    assert plain["rounds"][0]["clients"]["slow"]["seconds"]["compute"] == 2
    assert plain["stragglers"] == ["slow"]


def test_the_default_fleet_has_sixteen_fast_devices_and_four_stragglers() -> None:
    fleet = Fleet.with_stragglers(speed=0.5, links=0.25)
    assert (len(fleet.rest), len(fleet.stragglers)) == (16, 4)
    assert fleet.rest[0].flops_per_second == REFERENCE.flops_per_second
    assert fleet.stragglers[0].flops_per_second == 0.5 * REFERENCE.flops_per_second
    assert fleet.stragglers[0].upload_bytes_per_second == 0.25 * REFERENCE.upload_bytes_per_second
    assert len(set(fleet.names)) == 20


def test_a_device_without_speed_is_refused() -> None:
    with pytest.raises(ParameterError, match="board"):
        Device(**(asdict(DEVICE) | {"upload_bytes_per_second": 0.0}))


@pytest.mark.parametrize("shares", [{"speed": 0.0}, {"links": 1.5}])
def test_a_straggler_is_slower_and_not_stopped(shares: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match="straggler"):
        Fleet.with_stragglers(**shares)  # type: ignore[arg-type]


def test_a_fleet_of_stragglers_is_refused() -> None:
    with pytest.raises(ParameterError, match="no straggler"):
        Fleet((DEVICE,))


def test_two_devices_of_one_name_are_refused() -> None:
    fast = Device(**(asdict(DEVICE) | {"straggler": False}))
    with pytest.raises(ParameterError, match="same name"):
        Fleet((fast, fast))


def test_training_costs_are_those_of_the_model() -> None:
    wide, narrow = torch.nn.Linear(6, 4), torch.nn.Linear(3, 4)
    costs = TrainingCosts(torch.zeros(5, 6))
    assert costs.of(wide) == cost_of(wide, torch.zeros(5, 6))
    assert costs.of(torch.nn.Linear(6, 4)) is costs.of(wide)
    assert TrainingCosts(torch.zeros(5, 3)).of(narrow).step_flops < costs.of(wide).step_flops


LAYOUT = Layout((Tensor("weight", (30,)),))
WORK: dict[Hashable, Work] = {
    number: Work(number, torch.nn.Identity(), Mask.full(LAYOUT), update={"weight": torch.full((30,), 0.5)})
    for number in range(4)
}


def test_secure_aggregation_is_calibrated_once_for_each_size() -> None:
    calibration, aggregator = Calibration(), Uniform(LAYOUT)
    seconds = calibration.seconds(aggregator, WORK)
    assert seconds > 0
    assert calibration.seconds(aggregator, WORK) == seconds
    (recorded,) = calibration.times
    assert (recorded.clients, recorded.coordinates, recorded.sessions) == (4, 120, SESSIONS)
    assert recorded.seconds == seconds


def test_without_encryption_there_is_no_time_to_calibrate() -> None:
    assert Calibration().seconds(FloatMean(LAYOUT), WORK) == 0
