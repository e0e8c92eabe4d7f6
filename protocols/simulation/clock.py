"""Simulated time: a round takes as long as its slowest client.

A client's time is its training operations over its speed, its bytes over its links, and the time that secure
aggregation took when it was calibrated. Downloading, training and uploading follow one another; keys are agreed on
while clients train.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pruning.cost import Cost, cost_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch import nn

    from protocols.simulation.devices import Device


@dataclass(frozen=True, kw_only=True)
class ClientTime:
    """Seconds that one client spends in a round.

    Args:
        download: On its downlink.
        compute: On training.
        upload: On its uplink.
        secure: On secure aggregation beyond its training, the server's part included, for which everybody waits.
    """

    download: float
    compute: float
    upload: float
    secure: float = 0.0

    @property
    def network(self) -> float:
        """Seconds on both links."""
        return self.download + self.upload

    @property
    def total(self) -> float:
        """Seconds from the start of the round to its end."""
        return self.download + self.compute + self.upload + self.secure


def client_time(
    device: Device,
    *,
    flops: float,
    download_bytes: float,
    upload_bytes: float,
    secure_seconds: float = 0.0,
    key_seconds: float = 0.0,
    server_seconds: tuple[float, float] = (0.0, 0.0),
) -> ClientTime:
    """What a round takes on one device.

    Args:
        device: Where.
        flops: Operations of its training, all steps together.
        download_bytes: What it receives.
        upload_bytes: What it sends.
        secure_seconds: Calibrated time of secure aggregation.
        key_seconds: What of it needs no update, and is waited for only as far as it takes longer than training.
        server_seconds: What the server's links take to send to, and to receive from, everybody; nobody is done sooner.
    """
    to_all, from_all = server_seconds
    compute = flops / device.flops_per_second
    return ClientTime(
        download=max(download_bytes / device.download_bytes_per_second, to_all),
        compute=compute,
        upload=max(upload_bytes / device.upload_bytes_per_second, from_all),
        secure=max(0.0, secure_seconds - min(key_seconds, compute)),
    )


def round_seconds(times: Iterable[ClientTime]) -> float:
    """Seconds of a round: those of its slowest client."""
    return max(time.total for time in times)


def speed_up(before: float, after: float) -> float:
    """Share of the time that is saved, ``1 - after / before``; negative for a slow-down."""
    return 1 - after / before


class TrainingCosts:
    """Cost of training on one batch, counted once for each shape of model.

    Args:
        example_inputs: A batch as it is trained on.
    """

    def __init__(self, example_inputs: torch.Tensor) -> None:
        self._inputs = example_inputs
        self._counted: dict[tuple[tuple[tuple[int, ...], bool], ...], Cost] = {}

    def of(self, model: nn.Module) -> Cost:
        """Cost of a model; two with the same shapes and the same frozen parameters cost the same."""
        shapes = tuple((tuple(parameter.shape), parameter.requires_grad) for parameter in model.parameters())
        if shapes not in self._counted:
            self._counted[shapes] = cost_of(model, self._inputs)
        return self._counted[shapes]
