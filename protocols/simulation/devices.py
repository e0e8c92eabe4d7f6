"""The devices of a simulated fleet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Hashable


@dataclass(frozen=True, kw_only=True)
class Device:
    """One client's device.

    Args:
        name: Also the name of its client.
        flops_per_second: Floating-point operations that it trains with; a multiply-add counts as two.
        upload_bytes_per_second: Its uplink.
        download_bytes_per_second: Its downlink.
        straggler: Whether it is known to be slower than the others.

    Raises:
        ParameterError: A speed that is not positive.
    """

    name: str
    flops_per_second: float
    upload_bytes_per_second: float
    download_bytes_per_second: float
    straggler: bool = False

    def __post_init__(self) -> None:
        if min(self.flops_per_second, self.upload_bytes_per_second, self.download_bytes_per_second) <= 0:
            raise ParameterError(f"device {self.name}: every speed must be positive")


@dataclass(frozen=True, kw_only=True)
class ServerLinks:
    """The server's own links, which all clients share.

    Args:
        upload_bytes_per_second: What it can send, to all clients together.
        download_bytes_per_second: What it can receive.

    Raises:
        ParameterError: A speed that is not positive.
    """

    upload_bytes_per_second: float = math.inf
    download_bytes_per_second: float = math.inf

    def __post_init__(self) -> None:
        if min(self.upload_bytes_per_second, self.download_bytes_per_second) <= 0:
            raise ParameterError("the server's links: every speed must be positive")

    def seconds(self, sent: float, received: float) -> tuple[float, float]:
        """How long it sends, and how long it receives, so many bytes to and from all clients together."""
        return sent / self.upload_bytes_per_second, received / self.download_bytes_per_second


@dataclass(frozen=True)
class Fleet:
    """All devices of an experiment, in the order in which their clients are numbered.

    Args:
        devices: At least one, each with a name of its own.
        server: What they are connected to; by default faster than all of them together.

    Raises:
        ParameterError: No device, a name used twice, or nothing but stragglers.
    """

    devices: tuple[Device, ...]
    server: ServerLinks = ServerLinks()

    def __post_init__(self) -> None:
        if len({device.name for device in self.devices}) != len(self.devices):
            raise ParameterError("two devices have the same name")
        if not self.rest:
            raise ParameterError("a fleet needs a device that is no straggler")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all devices."""
        return tuple(device.name for device in self.devices)

    def device(self, name: Hashable) -> Device:
        """The device of this name.

        Raises:
            ParameterError: There is none.
        """
        for device in self.devices:
            if device.name == name:
                return device
        raise ParameterError(f"no device {name!r} in the fleet")

    def number(self, name: Hashable) -> int:
        """The place of a device in the fleet, from 0, which numbers its client.

        Raises:
            ValueError: There is no device of this name.
        """
        return self.names.index(str(name))

    @property
    def stragglers(self) -> tuple[Device, ...]:
        """The slow devices. The table says which; a vote of the clients on their round times can take its place."""
        return tuple(device for device in self.devices if device.straggler)

    @property
    def rest(self) -> tuple[Device, ...]:
        """The devices that are no stragglers."""
        return tuple(device for device in self.devices if not device.straggler)

    @classmethod
    def with_stragglers(
        cls,
        fast: int = 16,
        stragglers: int = 4,
        *,
        speed: float = 0.5,
        links: float = 0.5,
        reference: Device | None = None,
    ) -> Fleet:
        """Equally fast devices and equally slow ones.

        Args:
            fast: Number of fast devices.
            stragglers: Number of stragglers.
            speed: Of a straggler's processor, as a share of the others'; in (0, 1].
            links: Of a straggler's links, likewise.
            reference: What a fast device is like, ``REFERENCE`` by default.

        Raises:
            ParameterError: A share outside (0, 1], or no fast device.
        """
        if not (0 < speed <= 1 and 0 < links <= 1):
            raise ParameterError("speed and links of a straggler must be in (0, 1]")
        like = reference or REFERENCE

        def devices(name: str, count: int, processor: float, link: float, *, straggler: bool) -> tuple[Device, ...]:
            return tuple(
                Device(
                    name=f"{name}-{number:02}",
                    flops_per_second=like.flops_per_second * processor,
                    upload_bytes_per_second=like.upload_bytes_per_second * link,
                    download_bytes_per_second=like.download_bytes_per_second * link,
                    straggler=straggler,
                )
                for number in range(1, count + 1)
            )

        return cls(
            devices("fast", fast, 1, 1, straggler=False)
            + devices("straggler", stragglers, speed, links, straggler=True)
        )


REFERENCE = Device(
    name="reference",
    flops_per_second=4e9,
    upload_bytes_per_second=1e6,
    download_bytes_per_second=4e6,
)
"""A phone without an accelerator on a mobile link: 4 GFLOP/s in training, 8 Mbit/s up, 32 Mbit/s down."""
