"""Named fleets: the device tables that stand beside every speed-up.

A speed-up says as much about the table as about the system. So there are few tables, each with a name, and results
carry the whole table with them. How CLIP's own tables look is not public. The three fleets with stragglers isolate one
cause of slowness each; the mixed fleet draws its speeds as the public code of MA-CLAMP's authors does; the published
links are PR-FL's, without the jitter of some percent that its authors draw.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from protocols.simulation.devices import REFERENCE, Device, Fleet, ServerLinks
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MOST_KINDS = 4
"""Kinds of device up to which an outline tells all of them."""

STRAGGLER_SHARE = 0.2
"""Of a fleet with stragglers: four of twenty."""

SLOW_UPLINK = 0.8
"""Megabytes a second below which a device with published links is a straggler."""

SLOW, FAST = 0.8, 1.8
"""In a mixed fleet a device below the one speed is slow, above the other fast, in multiples of the reference."""


@dataclass(frozen=True)
class Profile:
    """A way to make a fleet of any size.

    Args:
        name: What settings call it.
        about: What it isolates, in a sentence.
        fleet: Number of devices and a generator, its only source of randomness, to the fleet.
    """

    name: str
    about: str
    fleet: Callable[[int, np.random.Generator], Fleet]


def profile(name: str) -> Profile:
    """The profile of this name.

    Raises:
        ParameterError: There is none.
    """
    if name not in PROFILES:
        raise ParameterError(f"profile must be one of {', '.join(PROFILES)}, not {name!r}")
    return PROFILES[name]


def _with_stragglers(speed: float, links: float) -> Callable[[int, np.random.Generator], Fleet]:
    def fleet(devices: int, generator: np.random.Generator) -> Fleet:  # noqa: ARG001 - nothing is drawn
        slow = max(1, round(STRAGGLER_SHARE * devices))
        return Fleet.with_stragglers(devices - slow, slow, speed=speed, links=links)

    return fleet


def _mixed(uplink: float) -> Callable[[int, np.random.Generator], Fleet]:
    """A tenth of the devices is slow, a tenth fast. Slow ones are the stragglers of the table.

    Args:
        uplink: Of every device, as a share of the reference's.
    """

    def fleet(devices: int, generator: np.random.Generator) -> Fleet:
        tenth = max(1, round(devices / 10))
        speeds = np.concatenate(
            [
                generator.uniform(0.3, 0.6, tenth),
                generator.uniform(1.8, 2.5, tenth),
                generator.uniform(0.8, 1.4, devices - 2 * tenth),
            ]
        )
        return Fleet(
            tuple(
                replace(
                    REFERENCE,
                    name=f"device-{number:02}",
                    flops_per_second=REFERENCE.flops_per_second * float(speed),
                    upload_bytes_per_second=REFERENCE.upload_bytes_per_second * uplink,
                    straggler=bool(speed < SLOW),
                )
                for number, speed in enumerate(generator.permutation(speeds), 1)
            )
        )

    return fleet


def _published_links(devices: int, generator: np.random.Generator) -> Fleet:  # noqa: ARG001 - nothing is drawn
    """Ten kinds of link behind one server, as PR-FL publishes them; more devices than ten begin the table anew."""
    down = (20, 18, 12, 10, 6, 4, 2.5, 2, 2, 1.5)
    up = (5, 4, 3, 2.5, 1.5, 1, 0.6, 0.5, 0.5, 0.4)
    return Fleet(
        tuple(
            replace(
                REFERENCE,
                name=f"device-{number + 1:02}",
                upload_bytes_per_second=up[number % len(up)] * 1e6,
                download_bytes_per_second=down[number % len(down)] * 1e6,
                straggler=up[number % len(up)] < SLOW_UPLINK,
            )
            for number in range(devices)
        ),
        ServerLinks(upload_bytes_per_second=10e6, download_bytes_per_second=50e6),
    )


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        one.name: one
        for one in (
            Profile(
                "half-speed", "stragglers compute at .5 of the others' speed, all links equal", _with_stragglers(0.5, 1)
            ),
            Profile(
                "near-speed", "stragglers compute at .7 of the others' speed, all links equal", _with_stragglers(0.7, 1)
            ),
            Profile("slow-links", "stragglers compute alike and have links 4 times slower", _with_stragglers(1, 0.25)),
            Profile("half-everything", "stragglers have half the speed and half the links", _with_stragglers(0.5, 0.5)),
            Profile("mixed", "a tenth of the devices slow, a tenth fast, links equal", _mixed(1.0)),
            Profile("mixed-slow-uplink", "as mixed, with uplinks 4 times slower", _mixed(0.25)),
            Profile(
                "published-links",
                "equal devices on ten kinds of link, .4 to 5 MB/s up; the server sends 10 MB/s and receives 50",
                _published_links,
            ),
        )
    }
)
"""All profiles, by name."""


def table(fleet: Fleet) -> list[dict[str, float | str]]:
    """A fleet as rows: devices that are alike share one, with their number."""
    rows: dict[Device, int] = {}
    for device in fleet.devices:
        alike = replace(device, name="straggler" if device.straggler else "other")
        rows[alike] = rows.get(alike, 0) + 1
    return [
        {
            "device": device.name,
            "number": number,
            "GFLOP/s": device.flops_per_second / 1e9,
            "up Mbit/s": device.upload_bytes_per_second * 8e-6,
            "down Mbit/s": device.download_bytes_per_second * 8e-6,
        }
        for device, number in rows.items()
    ]


def outline(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a table to be shown: all where they are few, else the slowest, the median and the fastest device."""
    if len(rows) <= MOST_KINDS:
        return [dict(row) for row in rows]
    devices = [row for row in sorted(rows, key=_quickness) for _ in range(row["number"])]
    shown = {"slowest": devices[0], "median": devices[(len(devices) - 1) // 2], "fastest": devices[-1]}
    return [{**row, "device": f"{name} of {len(devices)}"} for name, row in shown.items()]


def _quickness(row: Mapping[str, Any]) -> tuple[float, ...]:
    return row["GFLOP/s"], row["up Mbit/s"], row["down Mbit/s"]
