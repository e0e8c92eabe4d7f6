"""A named fleet is what its table says, of any size, and the same again with the same seed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from protocols.simulation.devices import REFERENCE, ServerLinks
from protocols.simulation.profiles import FAST, PROFILES, SLOW, outline, profile, table
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from protocols.simulation.devices import Device, Fleet

ISOLATING = {"half-speed": (0.5, 1), "near-speed": (0.7, 1), "slow-links": (1, 0.25), "half-everything": (0.5, 0.5)}
"""Profile to a straggler's speed and links, in those of the reference."""

MIXED = {"mixed": 1.0, "mixed-slow-uplink": 0.25}
"""Profile to every device's uplink, in those of the reference."""

LINKS = "published-links"
UPLINKS = [5, 4, 3, 2.5, 1.5, 1, 0.6, 0.5, 0.5, 0.4]
DOWNLINKS = [20, 18, 12, 10, 6, 4, 2.5, 2, 2, 1.5]
"""PR-FL's, in megabytes a second."""


def fleet(name: str, devices: int, seed: int = 0) -> Fleet:
    return profile(name).fleet(devices, np.random.default_rng(seed))


def speed(device: Device) -> float:
    return device.flops_per_second / REFERENCE.flops_per_second


def test_every_profile_is_known_by_its_own_name_and_all_are_here() -> None:
    assert set(PROFILES) == set(ISOLATING) | set(MIXED) | {LINKS}
    assert all(profile(name).name == name for name in PROFILES)


def test_an_unknown_profile_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ParameterError, match=r"profile must be one of half-speed, .*not 'quick'"):
        profile("quick")


@pytest.mark.parametrize("devices", [2, 3, 5, 20, 33])
@pytest.mark.parametrize("name", PROFILES)
def test_a_fleet_has_as_many_devices_as_asked_for_each_with_its_own_name(name: str, devices: int) -> None:
    assert len(set(fleet(name, devices).names)) == devices


@pytest.mark.parametrize(("devices", "slow"), [(2, 1), (4, 1), (8, 2), (20, 4), (50, 10)])
@pytest.mark.parametrize("name", ISOLATING)
def test_a_fifth_but_at_least_one_are_stragglers_of_the_speed_and_links_that_the_name_says(
    name: str, devices: int, slow: int
) -> None:
    made, (processor, links) = fleet(name, devices), ISOLATING[name]
    assert len(made.stragglers) == slow
    for device in made.stragglers:
        assert speed(device) == processor
        assert device.upload_bytes_per_second == REFERENCE.upload_bytes_per_second * links
        assert device.download_bytes_per_second == REFERENCE.download_bytes_per_second * links
    for device in made.rest:
        assert (speed(device), device.upload_bytes_per_second) == (1, REFERENCE.upload_bytes_per_second)


@pytest.mark.parametrize("name", ISOLATING)
def test_fleets_in_which_one_thing_is_isolated_draw_nothing(name: str) -> None:
    assert fleet(name, 10, seed=1) == fleet(name, 10, seed=2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", MIXED)
def test_a_tenth_of_a_mixed_fleet_is_slow_and_a_tenth_fast_and_all_speeds_are_within_the_table(
    name: str, seed: int
) -> None:
    made = fleet(name, 40, seed)
    slow, usual, fast = (
        [speed(device) for device in made.devices if low <= speed(device) < high]
        for low, high in ((0, SLOW), (SLOW, FAST), (FAST, 9))
    )
    assert (len(slow), len(usual), len(fast)) == (4, 32, 4)
    assert 0.3 <= min(slow) < max(slow) <= 0.6
    assert 0.8 <= min(usual) < max(usual) <= 1.4
    assert 1.8 <= min(fast) < max(fast) <= 2.5
    assert sorted(speed(device) for device in made.stragglers) == sorted(slow)


@pytest.mark.parametrize("name", MIXED)
def test_all_links_of_a_mixed_fleet_are_alike(name: str) -> None:
    links = {(one.upload_bytes_per_second, one.download_bytes_per_second) for one in fleet(name, 20).devices}
    assert links == {(REFERENCE.upload_bytes_per_second * MIXED[name], REFERENCE.download_bytes_per_second)}


@pytest.mark.parametrize("name", MIXED)
def test_a_mixed_fleet_repeats_with_its_seed_and_differs_without(name: str) -> None:
    assert fleet(name, 20, seed=3) == fleet(name, 20, seed=3)
    assert fleet(name, 20, seed=3) != fleet(name, 20, seed=4)


def test_slow_devices_stand_anywhere_in_a_mixed_fleet() -> None:
    places = {fleet("mixed", 10, seed).names.index(fleet("mixed", 10, seed).stragglers[0].name) for seed in range(40)}
    assert len(places) > 5


def test_published_links_are_those_of_the_paper_on_devices_that_compute_alike() -> None:
    made = fleet(LINKS, 10, seed=1)
    assert made == fleet(LINKS, 10, seed=2)
    assert [device.upload_bytes_per_second / 1e6 for device in made.devices] == UPLINKS
    assert [device.download_bytes_per_second / 1e6 for device in made.devices] == DOWNLINKS
    assert {speed(device) for device in made.devices} == {1}
    assert [device.name for device in made.stragglers] == ["device-07", "device-08", "device-09", "device-10"]


def test_more_devices_than_published_links_begin_them_anew() -> None:
    links = [(one.upload_bytes_per_second, one.download_bytes_per_second) for one in fleet(LINKS, 23).devices]
    assert links[10:20] == links[:10]
    assert links[20:] == links[:3]


def test_only_with_published_links_does_the_server_bind() -> None:
    assert fleet(LINKS, 10).server == ServerLinks(upload_bytes_per_second=10e6, download_bytes_per_second=50e6)
    assert {fleet(name, 10).server for name in PROFILES if name != LINKS} == {ServerLinks()}


@pytest.mark.parametrize("devices", [2, 20, 33])
@pytest.mark.parametrize("name", PROFILES)
def test_a_table_counts_every_device_once(name: str, devices: int) -> None:
    made = fleet(name, devices)
    counted: Counter[str] = Counter()
    for row in table(made):
        assert isinstance(row["number"], int)
        counted[str(row["device"])] += row["number"]
    assert counted == Counter(straggler=len(made.stragglers), other=len(made.rest))


def test_a_table_has_one_row_for_devices_that_are_alike_in_units_that_people_use() -> None:
    speed, up, down = (
        REFERENCE.flops_per_second / 1e9,
        REFERENCE.upload_bytes_per_second * 8 / 1e6,
        REFERENCE.download_bytes_per_second * 8 / 1e6,
    )
    assert [list(row.values()) for row in table(fleet("half-everything", 20))] == [
        ["other", 16, speed, pytest.approx(up), pytest.approx(down)],
        ["straggler", 4, speed / 2, pytest.approx(up / 2), pytest.approx(down / 2)],
    ]
    assert list(table(fleet("mixed", 2))[0]) == ["device", "number", "GFLOP/s", "up Mbit/s", "down Mbit/s"]


def test_a_table_of_a_mixed_fleet_tells_every_speed() -> None:
    made = fleet("mixed", 20)
    assert sorted(row["GFLOP/s"] for row in table(made)) == sorted(one.flops_per_second / 1e9 for one in made.devices)


def test_an_outline_of_a_few_kinds_is_the_table() -> None:
    rows = table(fleet("half-everything", 20))
    assert outline(rows) == rows


def test_an_outline_of_many_kinds_is_the_slowest_the_median_and_the_fastest_device() -> None:
    rows = table(fleet("mixed", 21))
    speeds = sorted(float(row["GFLOP/s"]) for row in rows)
    shown = outline(rows)
    assert [row["device"] for row in shown] == ["slowest of 21", "median of 21", "fastest of 21"]
    assert [row["GFLOP/s"] for row in shown] == [speeds[0], speeds[10], speeds[20]]
    assert [list(row) for row in shown] == [list(rows[0])] * 3


def test_the_median_is_that_of_devices_and_not_of_kinds() -> None:
    kinds = [{"device": "other", "number": n, "GFLOP/s": n, "up Mbit/s": 1, "down Mbit/s": 1} for n in range(1, 6)]
    assert [row["number"] for row in outline(kinds)] == [1, 4, 5]  # fifteen devices, the eighth of speed 4
