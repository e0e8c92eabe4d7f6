"""How long secure aggregation takes: measured once for each kind of session, so that simulated times repeat.

The time of one session jitters with the machine, and a simulation that added it afresh every round would never give
the same result twice. Two lengths of vector are measured where the code runs, the fastest of a few sessions each,
because whatever else the machine does only adds. What keys and shares take, and what a coordinate takes, follow from
the two; both are recorded beside the results, and a run that goes on later, or elsewhere, takes them along.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import msgspec
import torch

from protocols.aggregators import MaskIndexed, Uniform
from secagg.errors import InputError
from secagg.layout import Layout, Tensor
from secagg.params import Mode  # noqa: TC001 - msgspec reads the annotations of these records
from secagg.privacy.settings import Privacy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from protocols.aggregators import Client
    from secagg.params import Params

CALIBRATION = "calibration.json"
"""How the file of known times is called in the folder of a run."""

SESSIONS = 3
"""Sessions measured of each length, at most."""

LONG = 20.0
"""Seconds after which no further session is measured: of a long one, what else the machine does is a small part."""

LENGTHS = (1 << 10, 1 << 18)
"""Coordinates of the sessions that are measured."""


@dataclass(frozen=True, kw_only=True)
class SecureTime:
    """What a session of one mode, cohort and ``Params`` takes, in seconds of one core.

    Args:
        mode: Of the session.
        clients: Size of the cohort.
        settings: Digest of the ``Params`` with values up to 1, and with noise of unit size if with any, in hexadecimal.
        client: What a client computes for any vector: keys and shares.
        client_per_coordinate: What a client computes for a coordinate that it holds, masks with all others included.
        server: What the server computes for vectors of any length.
        server_per_coordinate: What the server computes for a coordinate of one client.
        keys: What of ``client`` and ``server`` is over before anybody needs an update, and so runs while clients train:
            advertising keys and dealing shares.
    """

    mode: Mode
    clients: int
    settings: str
    client: float
    client_per_coordinate: float
    server: float
    server_per_coordinate: float
    keys: float = 0.0

    def seconds(self, held: int, total: int) -> float:
        """What a session takes one client: its own part, and the server's, for which everybody waits.

        Args:
            held: Coordinates that the client holds.
            total: Coordinates that all clients hold together.
        """
        own = self.client + held * self.client_per_coordinate
        return own + self.server + total * self.server_per_coordinate


class Calibration:
    """The kinds of session measured so far.

    Args:
        times: Those that are known already.
    """

    def __init__(self, times: Iterable[SecureTime] = ()) -> None:
        self._times = {(time.mode, time.clients, time.settings): time for time in times}

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """What ``save`` wrote; nothing is known where there is no such file.

        Raises:
            InputError: The file is damaged.
        """
        if not path.exists():
            return cls()
        try:
            return cls(msgspec.json.decode(path.read_bytes(), type=list[SecureTime]))
        except msgspec.DecodeError:
            raise InputError(f"{path} is damaged: remove it, and the times are measured anew") from None

    def save(self, path: Path) -> None:
        """Keeps the times, for runs that go on later."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(list(self.times)), indent=1) + b"\n")
        fresh.replace(path)

    def joined(self, other: Calibration) -> Self:
        """What either knows; where both do, what this one knows."""
        return type(self)((*other.times, *self.times))

    @property
    def times(self) -> tuple[SecureTime, ...]:
        """All that was measured, in that order."""
        return tuple(self._times.values())

    def time(self, mode: Mode, clients: int, params: Params) -> SecureTime:
        """The times of one kind of session, measured where they are not known yet.

        How far values range changes nothing, nor how much noise there is: one kind stands for all sessions that draw it
        in the same way.
        """
        params = _like(params)
        key = (mode, clients, params.digest.hex())
        if key not in self._times:
            self._times[key] = _measured(mode, clients, params)
        return self._times[key]


def _like(params: Params) -> Params:
    """The same settings with values up to 1, and noise of unit size, if with any."""
    privacy = params.privacy
    if privacy is not None:
        privacy = replace(privacy, clip=1.0, noise_multiplier=1.0, delta=Privacy.delta)
    return replace(params, value_range=1.0, privacy=privacy)


def _measured(mode: Mode, clients: int, params: Params) -> SecureTime:
    (short_client, short_server, keys), (long_client, long_server, _) = (
        _fastest(mode, clients, params, length) for length in LENGTHS
    )
    length = LENGTHS[1] - LENGTHS[0]
    client = max(0.0, long_client - short_client) / length
    server = max(0.0, long_server - short_server) / length
    return SecureTime(
        mode=mode,
        clients=clients,
        settings=params.digest.hex(),
        client=max(0.0, short_client - client * LENGTHS[0]),
        client_per_coordinate=client,
        server=max(0.0, short_server - server * LENGTHS[0]),
        server_per_coordinate=server / clients,
        keys=keys,
    )


def _fastest(mode: Mode, clients: int, params: Params, length: int) -> tuple[float, float, float]:
    """Seconds of one client and of the server in the fastest of the sessions, and of both on keys."""
    layout = Layout((Tensor("vector", (length,)),))
    aggregator = (Uniform if mode == "uniform" else MaskIndexed)(layout, params)
    updates: dict[Client, dict[str, torch.Tensor]] = {
        client: {"vector": torch.zeros(length)} for client in range(clients)
    }
    spent: list[Mapping[str, float]] = []
    while len(spent) < SESSIONS and sum(sum(one.values()) for one in spent) < LONG:
        spent.append(aggregator.aggregate(updates).seconds)
    of_clients = [sum(s for stage, s in one.items() if stage.startswith("client")) / clients for one in spent]
    of_server = [sum(s for stage, s in one.items() if not stage.startswith("client")) for one in spent]
    on_keys = [
        sum(one[f"client {stage}"] / clients + one[f"server {stage}"] for stage in ("advertise_keys", "share_keys"))
        for one in spent
    ]
    return min(of_clients), min(of_server), min(on_keys)
