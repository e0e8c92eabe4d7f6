"""A flight: one client on its way in an asynchronous system, from the model that it fetched to what it brings back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from protocols.simulation.clock import ClientTime
from pruning.masks import Mask
from secagg.declaration import Provenance

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from protocols.aggregators import Client
    from secagg.layout import Layout


@dataclass(frozen=True, eq=False, kw_only=True)
class Flight:
    """One client on its way.

    Args:
        client: Whose.
        trip: How often it has come back before; numbers its batches.
        version: Of the model that it fetched.
        start: That model, zero where the mask leaves nothing, (size,) float32.
        mask: What it holds.
        left_at: When it asked for the model.
        time: What fetching, training and sending take; fetching begins with the wait for the server's uplink.
        fetched_bytes: What it received.
        sent_bytes: What it is to send.
        side_seconds: How long a session beside its update kept it from sending.
        side_bytes: What it sent in that session.
        side_flops: What it computed beside its training: for that session, and on trips that it gave up.
    """

    client: Client
    trip: int
    version: int
    start: NDArray[np.float32]
    mask: Mask
    left_at: float
    time: ClientTime
    fetched_bytes: int
    sent_bytes: int
    side_seconds: float = 0.0
    side_bytes: int = 0
    side_flops: int = 0

    @property
    def trained_at(self) -> float:
        """When it is ready to send."""
        return self.left_at + self.time.download + self.time.compute + self.side_seconds

    @property
    def back_at(self) -> float:
        """When all of it has arrived."""
        return self.trained_at + self.time.upload


@dataclass(frozen=True, eq=False)
class Arrival:
    """What a flight brings: the change that training made, (size,) float32, zero outside the mask."""

    flight: Flight
    update: NDArray[np.float32]

    @property
    def model(self) -> NDArray[np.float32]:
        """The trained model."""
        trained: NDArray[np.float32] = self.flight.start + self.update
        return trained


def packed(flight: Flight) -> dict[str, object]:
    """A flight as plain data and tensors, for a checkpoint."""
    time = flight.time
    return {
        "trip": flight.trip,
        "version": flight.version,
        "start": torch.from_numpy(flight.start),
        "held": None if flight.mask.kind == "full" else torch.tensor(flight.mask.coordinates),
        "provenance": flight.mask.provenance.name,
        "left_at": flight.left_at,
        "time": [time.download, time.compute, time.upload, flight.side_seconds],
        "bytes": [flight.fetched_bytes, flight.sent_bytes, flight.side_bytes],
        "side_flops": flight.side_flops,
    }


def unpacked(client: Client, packed: Mapping[str, Any], layout: Layout) -> Flight:
    """What ``packed`` gave."""
    provenance = Provenance[packed["provenance"]]
    full = packed["held"] is None
    mask = Mask.full(layout, provenance) if full else Mask.of_coordinates(layout, packed["held"].numpy(), provenance)
    download, compute, upload, side_seconds = packed["time"]
    fetched, sent, side_bytes = packed["bytes"]
    return Flight(
        client=client,
        trip=int(packed["trip"]),
        version=int(packed["version"]),
        start=packed["start"].numpy(),
        mask=mask,
        left_at=float(packed["left_at"]),
        time=ClientTime(download=download, compute=compute, upload=upload),
        fetched_bytes=int(fetched),
        sent_bytes=int(sent),
        side_seconds=side_seconds,
        side_bytes=int(side_bytes),
        side_flops=int(packed["side_flops"]),
    )
