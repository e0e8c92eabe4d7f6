from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocols.results import ClientRound, LostRound, RoundResult, RunResult
from protocols.simulation import calibration
from protocols.simulation.calibration import SESSIONS, Calibration, SecureTime
from protocols.simulation.clock import ClientTime, TrainingCosts, client_time, round_seconds, speed_up
from protocols.simulation.devices import REFERENCE, Device, Fleet, ServerLinks
from pruning.cost import cost_of
from secagg.errors import InputError, ParameterError
from secagg.params import Params
from secagg.privacy.settings import Privacy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from inspect import BoundArguments
    from pathlib import Path


DIFFERENCES = (None, 0.0, 0.5)
"""To the twin in the clear, in the first rounds of a made-up run."""

DEVICE = Device(
    name="board", flops_per_second=2e9, upload_bytes_per_second=1e5, download_bytes_per_second=4e5, straggler=True
)


def test_a_clients_time_is_operations_over_speed_plus_bytes_over_links_plus_secure_aggregation() -> None:
    time = client_time(DEVICE, flops=3e9, download_bytes=1e6, upload_bytes=5e4, secure_seconds=0.25)
    assert time == ClientTime(download=2.5, compute=1.5, upload=0.5, secure=0.25)
    assert time.network == 3.0
    assert time.total == 4.75


@pytest.mark.parametrize(("keys", "secure"), [(0.0, 2.0), (1.25, 0.75), (1.5, 0.5), (1.75, 0.5)])
def test_keys_are_waited_for_only_as_far_as_they_take_longer_than_training(keys: float, secure: float) -> None:
    time = client_time(DEVICE, flops=3e9, download_bytes=0, upload_bytes=0, secure_seconds=2.0, key_seconds=keys)
    assert (time.compute, time.secure) == (1.5, secure)


@pytest.mark.parametrize(
    ("server_seconds", "download", "upload"), [((0, 0), 2.5, 0.5), ((2, 0.75), 2.5, 0.75), ((3, 0.25), 3, 0.5)]
)
def test_a_client_waits_for_the_servers_links_where_they_are_slower_than_its_own(
    server_seconds: tuple[float, float], download: float, upload: float
) -> None:
    time = client_time(DEVICE, flops=3e9, download_bytes=1e6, upload_bytes=5e4, server_seconds=server_seconds)
    assert time == ClientTime(download=download, compute=1.5, upload=upload)


def test_a_round_takes_as_long_as_its_slowest_client() -> None:
    fast, slow = ClientTime(download=1, compute=1, upload=1), ClientTime(download=0, compute=4, upload=1)
    assert round_seconds([fast, slow, fast]) == 5


@pytest.mark.parametrize(("after", "expected"), [(3.0, 0.25), (4.0, 0.0), (5.0, -0.25)])
def test_speed_up_is_the_share_of_time_saved(after: float, expected: float) -> None:
    assert speed_up(4.0, after) == expected


def client(seconds: float, *, upload_bytes: int = 100) -> ClientRound:
    time = ClientTime(download=0.5, compute=seconds - 1, upload=0.5)
    return ClientRound(keep=0.5, parameters=10, flops=7, download_bytes=40, upload_bytes=upload_bytes, seconds=time)


def run(
    seconds: Sequence[tuple[float, float]],
    accuracies: Sequence[float],
    lost: Sequence[float] = (),
) -> RunResult:
    """A fast and a slow client, round after round."""
    rounds, clock = [], 0.0
    for number, (fast, slow) in enumerate(seconds):
        clock += max(fast, slow)
        rounds.append(
            RoundResult(
                number=number,
                accuracy=accuracies[number],
                finished_at=clock,
                seconds=max(fast, slow),
                clients={"fast": client(fast), "slow": client(slow, upload_bytes=60)},
                survivors=("fast", "slow"),
                withheld_share=0.0,
                difference=DIFFERENCES[number] if number < len(DIFFERENCES) else None,
                verdict=f"round {number}",
            )
        )
    return RunResult(
        system="one",
        aggregator="float",
        stragglers=("slow",),
        rounds=tuple(rounds),
        lost=tuple(LostRound(number=9, reason="late", seconds=one) for one in lost),
    )


def test_a_run_knows_how_long_its_rounds_are_and_would_be_without_waiting_for_stragglers() -> None:
    one = run([(4.0, 10.0), (4.0, 3.0)], [0.5, 0.7])
    assert one.round_seconds == 7
    assert one.round_seconds_of_rest == 4
    assert run([(4.0, 10.0), (4.0, 3.0)], [0.5, 0.7], lost=[1.0]).round_seconds == 5


def test_accuracy_is_the_mean_of_the_last_five_rounds() -> None:
    accuracies = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.9]
    one = run([(1.0, 2.0)] * 7, accuracies)
    assert one.accuracy == pytest.approx((0.2 + 0.3 + 0.4 + 0.5 + 0.9) / 5)
    assert run([(1.0, 2.0)] * 2, [0.5, 0.7]).accuracy == pytest.approx(0.6)


def test_accuracy_at_a_time_is_that_of_the_last_rounds_that_had_ended() -> None:
    one = run([(1.0, 2.0)] * 7, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.9])
    assert one.accuracy_at(1.9) is None
    assert one.accuracy_at(2.0) == 0.0
    assert one.accuracy_at(5.9) == pytest.approx(0.05)
    assert one.accuracy_at(12.0) == pytest.approx((0.1 + 0.2 + 0.3 + 0.4 + 0.5) / 5)
    assert one.accuracy_at(99.0) == one.accuracy


def test_a_target_is_reached_when_it_holds_for_three_rounds_in_a_row() -> None:
    one = run([(1.0, 2.0)] * 9, [0.5, 0.7, 0.6, 0.7, 0.8, 0.7, 0.9, 0.9, 0.8])
    assert one.seconds_to(0.5) == 2.0
    assert one.seconds_to(0.6) == 4.0
    assert one.seconds_to(0.7) == 8.0
    assert one.seconds_to(0.8) == 14.0
    assert one.seconds_to(0.9) is None  # in two rounds only
    assert run([(1.0, 2.0)] * 2, [0.9, 0.9]).seconds_to(0.5) is None


def test_stragglers_of_a_run_are_those_of_every_round_in_which_they_took_part() -> None:
    one = run([(4.0, 10.0), (4.0, 3.0)], [0.5, 0.7])
    assert [slow.seconds.compute for slow in one.of_stragglers()] == [9.0, 2.0]
    assert {slow.upload_bytes for slow in one.of_stragglers()} == {60}
    alone = replace(one.rounds[1], clients={"fast": client(4.0)})
    assert len(replace(one, rounds=(one.rounds[0], alone)).of_stragglers()) == 1


def test_the_difference_of_a_run_is_its_largest_and_none_without_a_twin() -> None:
    assert run([(1, 1)] * 3, [0.1] * 3).difference == 0.5
    assert run([(1, 1)], [0.1]).difference is None


def test_the_verdict_of_a_run_is_that_of_its_last_round() -> None:
    assert run([(1, 1)] * 3, [0.1] * 3).verdict == "round 2"


def test_a_run_becomes_json() -> None:
    plain = json.loads(json.dumps(run([(2, 3)], [0.25], lost=[1.5]).to_json()))
    assert plain["rounds"][0]["clients"]["slow"]["seconds"]["compute"] == 2
    assert plain["stragglers"] == ["slow"]
    assert plain["lost"] == [{"number": 9, "reason": "late", "seconds": 1.5}]


def test_a_run_comes_back_from_json_as_it_was() -> None:
    one = run([(2, 3)] * 3, [0.25] * 3, lost=[1.5])
    assert msgspec.json.decode(msgspec.json.encode(one.to_json()), type=RunResult) == one


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


def test_a_server_is_faster_than_everybody_unless_it_is_said_how_fast_it_is() -> None:
    assert Fleet.with_stragglers(2, 1).server == ServerLinks()
    assert ServerLinks().upload_bytes_per_second == ServerLinks().download_bytes_per_second == float("inf")


@pytest.mark.parametrize("link", ["upload_bytes_per_second", "download_bytes_per_second"])
@pytest.mark.parametrize("speed", [0.0, -1.0])
def test_a_server_without_a_link_is_refused(link: str, speed: float) -> None:
    with pytest.raises(ParameterError, match="the server's links"):
        ServerLinks(**{link: speed})


def test_a_fleet_of_stragglers_is_refused() -> None:
    with pytest.raises(ParameterError, match="no straggler"):
        Fleet((DEVICE,))


def test_two_devices_of_one_name_are_refused() -> None:
    fast = Device(**(asdict(DEVICE) | {"straggler": False}))
    with pytest.raises(ParameterError, match="same name"):
        Fleet((fast, fast))


def test_a_device_is_found_by_its_name() -> None:
    fleet = Fleet.with_stragglers(2, 1)
    assert [fleet.device(name) for name in fleet.names] == list(fleet.devices)
    assert fleet.device("straggler-01").straggler
    for stranger in ("fast-03", "", 1):
        with pytest.raises(ParameterError, match="no device"):
            fleet.device(stranger)


def test_training_costs_are_those_of_the_model() -> None:
    wide, narrow = torch.nn.Linear(6, 4), torch.nn.Linear(3, 4)
    costs = TrainingCosts(torch.zeros(5, 6))
    assert costs.of(wide) == cost_of(wide, torch.zeros(5, 6))
    assert costs.of(torch.nn.Linear(6, 4)) is costs.of(wide)
    assert TrainingCosts(torch.zeros(5, 3)).of(narrow).step_flops < costs.of(wide).step_flops


# ---------------------------------------------------------------------------------- calibration


PARAMS = Params()
TIME = SecureTime(
    mode="uniform",
    clients=4,
    settings=PARAMS.digest.hex(),
    client=0.25,
    client_per_coordinate=0.5,
    server=2.0,
    server_per_coordinate=0.125,
)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, sessions: list[BoundArguments]) -> list[BoundArguments]:
    """Sessions so short that measuring takes no time."""
    monkeypatch.setattr(calibration, "LENGTHS", (16, 64))
    return sessions


def lengths(sessions: list[BoundArguments]) -> list[int]:
    return [session.arguments["layout"].size for session in sessions]


def test_a_session_takes_a_client_its_own_part_and_the_servers() -> None:
    assert TIME.seconds(0, 0) == 2.25
    assert TIME.seconds(30, 100) == 0.25 + 30 * 0.5 + 2.0 + 100 * 0.125


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**7))
def test_the_time_of_a_session_is_linear_in_the_coordinates(held: int, more: int, total: int) -> None:
    # Powers of two, so that sums are exact.
    assert TIME.seconds(held + more, total + more) - TIME.seconds(held, total) == more * (0.5 + 0.125)


def test_what_two_lengths_take_says_what_any_length_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fastest(mode: str, clients: int, params: Params, length: int) -> tuple[float, float, float]:  # noqa: ARG001
        return 0.5 + length / 1024, 2.0 + length / 256, 1.5

    monkeypatch.setattr(calibration, "_fastest", fastest)
    time = Calibration().time("mask-indexed", 8, PARAMS)
    settings = replace(PARAMS, value_range=1.0).digest.hex()
    assert (time.mode, time.clients, time.settings, time.keys) == ("mask-indexed", 8, settings, 1.5)
    for length in (0, 1, 1000, 10**6):
        assert time.seconds(length, 8 * length) == pytest.approx(2.5 + length / 1024 + length / 256)


def test_secure_aggregation_is_calibrated_once_for_each_kind_of_session(short: list[BoundArguments]) -> None:
    known = Calibration()
    first = known.time("uniform", 4, PARAMS)
    assert first.seconds(30, 100) > 0
    assert lengths(short) == [16] * SESSIONS + [64] * SESSIONS
    assert known.time("uniform", 4, PARAMS) is first
    assert len(short) == 2 * SESSIONS
    known.time("mask-indexed", 4, PARAMS)
    known.time("uniform", 4, replace(PARAMS, levels=64))
    known.time("uniform", 5, PARAMS)
    assert [(time.mode, time.clients) for time in known.times] == [
        ("uniform", 4),
        ("mask-indexed", 4),
        ("uniform", 4),
        ("uniform", 5),
    ]
    assert len(short) == 8 * SESSIONS


def test_a_long_session_is_measured_once(short: list[BoundArguments], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "LONG", 1e-9)
    Calibration().time("uniform", 4, PARAMS)
    assert lengths(short) == [16, 64]


def test_known_times_come_back_from_their_file(tmp_path: Path, short: list[BoundArguments]) -> None:
    path = tmp_path / "results" / "times.json"
    assert Calibration.load(path).times == ()
    known = Calibration([TIME])
    known.time("mask-indexed", 4, PARAMS)
    known.save(path)
    again, measured = Calibration.load(path), len(short)
    assert again.times == known.times
    assert len(again.times) == 2
    assert again.time("mask-indexed", 4, PARAMS) == known.time("mask-indexed", 4, PARAMS)
    assert len(short) == measured


@pytest.mark.parametrize("damage", [lambda text: text[:-5], lambda _: b'[{"mode": "uniform"}]', lambda _: b"\xff"])
def test_a_damaged_file_of_times_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "times.json"
    Calibration([TIME]).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="damaged"):
        Calibration.load(path)


def test_sessions_that_differ_in_how_far_values_range_are_of_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "LENGTHS", (8, 16))
    monkeypatch.setattr(calibration, "SESSIONS", 1)
    known = Calibration()
    for params in (PARAMS, replace(PARAMS, value_range={"*": 2.0, "a": 0.5}), replace(PARAMS, levels=2**10)):
        known.time("uniform", 4, params)
    assert len(known.times) == 2


def test_sessions_that_differ_in_how_much_noise_there_is_are_of_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "LENGTHS", (8, 16))
    monkeypatch.setattr(calibration, "SESSIONS", 1)
    known = Calibration()
    for privacy in (
        Privacy(clip=1.0, noise_multiplier=2.0),
        Privacy(clip=0.1, noise_multiplier=9.0, delta=1e-7),
        Privacy(clip=1.0, noise_multiplier=2.0, ring_bits=32),
        None,
    ):
        known.time("uniform", 4, replace(PARAMS, privacy=privacy))
    assert len(known.times) == 3
