"""What runs leave behind: frozen records that become JSON as they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from protocols.simulation.clock import ClientTime, round_seconds, speed_up

if TYPE_CHECKING:
    from collections.abc import Mapping

LAST_ROUNDS = 5
"""Rounds at the end of a run over which an accuracy is averaged: one round's is a noisy number."""


@dataclass(frozen=True, kw_only=True)
class ClientRound:
    """One client in one round.

    Args:
        keep: Share of the units that it trained.
        parameters: Parameters of the module that it trained.
        flops: Operations of its training.
        download_bytes: The model and the messages of the session.
        upload_bytes: All that it sent.
        seconds: Where its time went.
    """

    keep: float
    parameters: int
    flops: int
    download_bytes: int
    upload_bytes: int
    seconds: ClientTime


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """One round.

    Args:
        number: Of the round.
        accuracy: Of the global model after it, on the test set.
        finished_at: Simulated seconds since the first round of all.
        clients: Client to what it did.
        survivors: The clients in the mean.
        withheld_share: Share of the coordinates that the release rule kept back.
        difference: Largest difference of any tensor or integer sum to the twin in the clear; None without a twin.
        verdict: Who learned what.
    """

    number: int
    accuracy: float
    finished_at: float
    clients: Mapping[str, ClientRound]
    survivors: tuple[str, ...]
    withheld_share: float
    difference: float | None
    verdict: str

    @property
    def seconds(self) -> float:
        """Simulated length of the round."""
        return round_seconds(client.seconds for client in self.clients.values())


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One system, round after round.

    Args:
        system: Its name.
        aggregator: What joined the updates.
        stragglers: The slow clients.
        rounds: At least one.
        refused: Numbers of the rounds that a client's ledger refused; their time is not counted.
    """

    system: str
    aggregator: str
    stragglers: tuple[str, ...]
    rounds: tuple[RoundResult, ...]
    refused: tuple[int, ...] = ()

    @property
    def accuracy(self) -> float:
        """Mean test accuracy over the last ``LAST_ROUNDS`` rounds."""
        return fmean(one.accuracy for one in self.rounds[-LAST_ROUNDS:])

    @property
    def round_seconds(self) -> float:
        """Mean simulated length of a round."""
        return fmean(one.seconds for one in self.rounds)

    @property
    def round_seconds_of_rest(self) -> float:
        """The same if the stragglers were as fast as the slowest of the others."""
        return fmean(
            round_seconds(client.seconds for name, client in one.clients.items() if name not in self.stragglers)
            for one in self.rounds
        )

    @property
    def difference(self) -> float | None:
        """Largest difference to the twin in the clear in any round; None without a twin."""
        differences = [one.difference for one in self.rounds if one.difference is not None]
        return max(differences) if differences else None

    @property
    def verdict(self) -> str:
        """That of the last round."""
        return self.rounds[-1].verdict

    def of_stragglers(self) -> tuple[ClientRound, ...]:
        """Every straggler in every round."""
        return tuple(one.clients[name] for one in self.rounds for name in self.stragglers)

    def to_json(self) -> dict[str, Any]:
        """The run as plain data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One system beside a baseline, in the numbers that count. Stragglers' numbers are means over them and the rounds.

    Args:
        system: Its name.
        accuracy: Mean test accuracy over the last rounds.
        round_seconds: Mean simulated length of a round.
        speed_up: Share of the baseline's round time that is saved.
        bound: The same if the baseline's stragglers were as fast as the slowest of the others: what no pruning of
            stragglers can exceed.
        keep: Share of the units that a straggler trains.
        straggler_compute_seconds: Its training.
        straggler_network_seconds: Its links.
        straggler_upload_bytes: What it sends a round.
        difference: Largest difference to the twin in the clear.
    """

    system: str
    accuracy: float
    round_seconds: float
    speed_up: float
    bound: float
    keep: float
    straggler_compute_seconds: float
    straggler_network_seconds: float
    straggler_upload_bytes: float
    difference: float | None

    @classmethod
    def of(cls, run: RunResult, baseline: RunResult) -> Comparison:
        """Compares two runs with the same stragglers, of which there is at least one."""
        slow = run.of_stragglers()
        return cls(
            system=run.system,
            accuracy=run.accuracy,
            round_seconds=run.round_seconds,
            speed_up=speed_up(baseline.round_seconds, run.round_seconds),
            bound=speed_up(baseline.round_seconds, baseline.round_seconds_of_rest),
            keep=fmean(client.keep for client in slow),
            straggler_compute_seconds=fmean(client.seconds.compute for client in slow),
            straggler_network_seconds=fmean(client.seconds.network for client in slow),
            straggler_upload_bytes=fmean(client.upload_bytes for client in slow),
            difference=run.difference,
        )
