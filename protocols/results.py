"""What runs leave behind: frozen records that become JSON as they are, and come back from it."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - msgspec reads the annotations of these records
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, TypeAlias

from protocols.simulation.clock import ClientTime  # noqa: TC001 - likewise

LAST_ROUNDS = 5
"""Rounds at the end of a run over which an accuracy is averaged: one round's is a noisy number."""

SUSTAINED = 3
"""Rounds in a row for which an accuracy has to hold: one may be luck."""

Begin: TypeAlias = tuple[float, float]
"""Where a run begins: simulated seconds, and the test accuracy of its model at that time."""


@dataclass(frozen=True, kw_only=True)
class ClientRound:
    """One client in one round.

    Args:
        keep: Share of the units that it trained; with a mask of layers, of the layers.
        parameters: Parameters of the module that it held.
        flops: Operations of its training.
        download_bytes: The model and the messages of the session.
        upload_bytes: All that it sent.
        seconds: Where its time went.
        joules: Energy of its training.
        late: It would have missed the deadline, and so sent nothing.
    """

    keep: float
    parameters: int
    flops: int
    download_bytes: int
    upload_bytes: int
    seconds: ClientTime
    joules: float = 0.0
    late: bool = False


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """One round.

    Args:
        number: Of the round.
        accuracy: Of the global model after it, on the test set.
        finished_at: Simulated seconds since the first round of all.
        seconds: Simulated length of the round.
        clients: Client that took part to what it did.
        survivors: The clients in the mean.
        withheld_share: Share of the coordinates that the release rule kept back.
        difference: Largest difference of any tensor or integer sum to the twin in the clear; None without a twin.
        verdict: Who learned what.
        details: What the system measured besides, by name.
    """

    number: int
    accuracy: float
    finished_at: float
    seconds: float
    clients: Mapping[str, ClientRound]
    survivors: tuple[str, ...]
    withheld_share: float
    difference: float | None
    verdict: str
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LostRound:
    """A round that left the model as it was.

    Args:
        number: Of the round.
        reason: Why, in the words of the error.
        seconds: Simulated time that it took.
    """

    number: int
    reason: str
    seconds: float


Outcome: TypeAlias = RoundResult | LostRound
"""What comes of a round."""


@dataclass(frozen=True, kw_only=True)
class Personal:
    """How clients fare at the end of a run with models of their own, each on its own test examples.

    Args:
        steps: Of each client's training after the run.
        before: Client to accuracy before it.
        masked: After it, under the mask that the run left.
        whole: After it without a mask: a dense model.
    """

    steps: int
    before: Mapping[str, float]
    masked: Mapping[str, float]
    whole: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One system, round after round.

    Args:
        system: Its name.
        aggregator: What joined the updates.
        stragglers: The slow clients.
        rounds: At least one.
        lost: Those that a client's ledger refused, or too few clients finished.
        notes: What the system says of itself, for instance how it found its stragglers.
        personal: How clients fare with models of their own; None where nobody asked.
    """

    system: str
    aggregator: str
    stragglers: tuple[str, ...]
    rounds: tuple[RoundResult, ...]
    lost: tuple[LostRound, ...] = ()
    notes: tuple[str, ...] = ()
    personal: Personal | None = None

    @property
    def accuracy(self) -> float:
        """Mean test accuracy over the last ``LAST_ROUNDS`` rounds."""
        return fmean(one.accuracy for one in self.rounds[-LAST_ROUNDS:])

    @property
    def round_seconds(self) -> float:
        """Mean simulated length of a round; lost ones count unless a ledger refused them, which takes no time."""
        return fmean([one.seconds for one in self.rounds] + [one.seconds for one in self.lost if one.seconds])

    @property
    def round_seconds_of_rest(self) -> float:
        """Mean length of the rounds if the stragglers were as fast as the slowest of the others.

        No round gets longer by it: where one of the others is late, it ends with the deadline, as it did.
        """
        rest = [
            (one.seconds, [client.seconds.total for name, client in one.clients.items() if name not in self.stragglers])
            for one in self.rounds
        ]
        return fmean(min(length, max(times, default=length)) for length, times in rest)

    @property
    def difference(self) -> float | None:
        """Largest difference to the twin in the clear in any round; None without a twin."""
        differences = [one.difference for one in self.rounds if one.difference is not None]
        return max(differences) if differences else None

    @property
    def verdict(self) -> str:
        """That of the last round."""
        return self.rounds[-1].verdict

    def accuracy_at(self, seconds: float, since: float | None = None) -> float | None:
        """Mean test accuracy over rounds that ended by a simulated time; None before any.

        Args:
            seconds: By when.
            since: After when, though the last one counts whenever it ended; None for the last ``LAST_ROUNDS``.
        """
        ended = [one for one in self.rounds if one.finished_at <= seconds]
        recent = ended[-LAST_ROUNDS:] if since is None else [one for one in ended if one.finished_at > since]
        return fmean(one.accuracy for one in recent or ended[-1:]) if ended else None

    def seconds_to(self, target: float) -> float | None:
        """Simulated seconds until the test accuracy reaches a target and stays there for ``SUSTAINED`` rounds; or None.

        Args:
            target: Accuracy.
        """
        reached = [one.accuracy >= target for one in self.rounds]
        for place in range(len(reached) - SUSTAINED + 1):
            if all(reached[place : place + SUSTAINED]):
                return self.rounds[place].finished_at
        return None

    def of_stragglers(self) -> tuple[ClientRound, ...]:
        """Every straggler in every round in which it took part."""
        return tuple(one.clients[name] for one in self.rounds for name in self.stragglers if name in one.clients)

    def to_json(self) -> dict[str, Any]:
        """The run as plain data."""
        return asdict(self)
