"""Asynchronous systems: every client fetches, trains and sends at its own pace; the server joins what has arrived.

A virtual clock decides who comes when. A flight is one client on its way: it fetched a version of the model, trains on
it, and sends what it made of it while others move the model on. Its staleness is how many versions came in between.

Flights are ordered by operations and by the bytes of models and vectors alone. The time of secure aggregation is
measured, and a measured time must not decide what is trained, or runs would not repeat; it is added to the clock that
results show. Bytes of keys and shares are counted, but take no time.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from protocols.arrivals.flight import Arrival, Flight, packed, unpacked
from protocols.arrivals.staleness import Kind as StalenessKind
from protocols.arrivals.staleness import Staleness
from protocols.federation import Checkpoint
from protocols.randomness import number
from protocols.results import ClientRound, RoundResult
from protocols.simulation.clock import ClientTime, client_time
from protocols.stages import VALUE_BYTES
from protocols.system import System
from protocols.training import accuracy, with_state
from protocols.vectors import state_of, vector_of
from pruning.masks import Mask
from pruning.sparse import held_by
from secagg.errors import AbortError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from protocols.aggregators import Aggregator, Client, Dropouts, Ledgers
    from protocols.federation import Federation, Memory
    from protocols.results import Outcome
    from protocols.simulation.calibration import Calibration


@dataclass(frozen=True, kw_only=True)
class AsynchronousSettings:
    """What asynchronous systems have in common.

    Args:
        interval: Arrivals from one evaluation of the global model to the next: what results call a round.

    Raises:
        ParameterError: A setting outside its domain.
    """

    interval: int = 50

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ParameterError(f"interval must be at least 1, not {self.interval}")


@dataclass(frozen=True, kw_only=True)
class StaleSettings(AsynchronousSettings):
    """Those of systems that let stale contributions count less; see ``protocols.arrivals.staleness``.

    Args:
        staleness: How.
        exponent: Of poly, and the slope of hinge.
        grace: The staleness that hinge forgives.
        decay: Of geometric, in (0, 1].

    Raises:
        ParameterError: A setting outside its domain.
    """

    staleness: StalenessKind = "poly"
    exponent: float = 0.6
    grace: float = 2.0
    decay: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.weighing

    @property
    def weighing(self) -> Staleness:
        """Staleness to weight."""
        return Staleness(self.staleness, self.exponent, self.grace, self.decay)


@dataclass(frozen=True, eq=False, kw_only=True)
class Joined:
    """What came of joining some arrivals.

    Args:
        vector: The new global model, (size,) float32.
        verdict: Who learned what.
        missed: Whose arrivals do not count, since they dropped out.
        sent_bytes: Client to bytes that it sent, where they are others than its flight foresaw.
        received_bytes: Client to bytes that it received, the model aside.
        secure_seconds: Calibrated time of secure aggregation.
        withheld_share: Of what the arrivals held, the share that the release rule kept back.
        missing_share: Share of the coordinates where nobody's contribution is left.
        difference: Largest difference to the twin in the clear; None without a twin.
        lost: Whether the session broke off, so that the arrivals were in vain.
    """

    vector: NDArray[np.float32]
    verdict: str
    missed: frozenset[Client] = frozenset()
    sent_bytes: Mapping[Client, int] = field(default_factory=dict)
    received_bytes: Mapping[Client, int] = field(default_factory=dict)
    secure_seconds: float = 0.0
    withheld_share: float = 0.0
    missing_share: float = 0.0
    difference: float | None = None
    lost: bool = False


@dataclass(frozen=True, eq=False)
class _Landing:
    """A flight that is over, with the bytes that it is charged: its staleness, and whether it counts in the model."""

    flight: Flight
    staleness: int
    counted: bool


class AsynchronousSystem(System):
    """A federated system without rounds; subclasses say how arrivals are joined.

    Args:
        federation: What it runs on; everybody takes part, and nobody waits for a deadline.
        aggregator: As ``System``.
        settings: How often it is judged, and more.
        twin: As ``System``.
        calibration: As ``System``.

    Raises:
        ParameterError: The federation draws participants or has a deadline, or the aggregator encrypts and the system
            cannot.
    """

    encrypts = True
    """Whether it can do without the server's seeing single arrivals."""

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: AsynchronousSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        if federation.participants is not None or federation.deadline is not None:
            raise ParameterError("asynchronous systems have no rounds: leave participants and deadline unset")
        super().__init__(federation, aggregator, twin=twin, calibration=calibration)
        if aggregator.encrypted and not self.encrypts:
            raise ParameterError(f"{self.name} joins single updates: set aggregation to 'float'")
        self.settings: AsynchronousSettings = settings or AsynchronousSettings()
        self.layout = federation.units.layout
        self.now, self.version, self.secure_seconds = 0.0, 0, 0.0
        self.model: NDArray[np.float32] = np.zeros(0, np.float32)
        self.flights: dict[Client, Flight] = {}
        self._uplink_free_at, self._served_bytes = 0.0, 0

    @abstractmethod
    def join(self, arrivals: Sequence[Arrival], dropouts: Dropouts) -> Joined:
        """The next version of the model.

        Args:
            arrivals: What is there, in the order of arrival.
            dropouts: Client to the last stage of a session that it completes, for systems that play one.
        """

    def due(self) -> tuple[list[Flight], float]:
        """Which flights are joined next, and when: by default the first that is back."""
        first = min(self.flights.values(), key=lambda one: (one.back_at, self.federation.fleet.number(one.client)))
        return [first], first.back_at

    def mask_of(self, client: Client) -> Mask:  # noqa: ARG002 - by default everything
        """What a client that leaves now holds."""
        return Mask.full(self.layout)

    def upload_of(self, client: Client, mask: Mask) -> int:  # noqa: ARG002 - by default all alike
        """Bytes that a client is to send."""
        return self.aggregator.upload_of(mask, 1)

    def serve(self, masks: Mapping[Client, Mask]) -> tuple[Mapping[Client, int], int]:
        """What clients that leave together fetch of the model, and what the server sends for it.

        Args:
            masks: Client to what it holds.

        Returns:
            Client to bytes that it receives, and the bytes that the server sends: by default everything once for each.
        """
        fetched = {client: VALUE_BYTES * int(mask.coordinates.sum()) for client, mask in masks.items()}
        return fetched, sum(fetched.values())

    def trip_seconds(self, client: Client) -> float:
        """What a trip takes a client that waits for nobody."""
        mask = self.mask_of(client)
        fetched, served = self.serve({client: mask})
        return self._time_of(client, fetched[client], served, self.upload_of(client, mask)).total

    def conclude(self, model: nn.Module) -> tuple[Mapping[str, float], tuple[str, ...]]:  # noqa: ARG002 - most learn nothing
        """Takes in the end of an interval.

        Args:
            model: The global model as it is now.

        Returns:
            What it measured, for the results; and of what it asked clients besides, who learned what.
        """
        return {}, ()

    def step(self, checkpoint: Checkpoint, dropouts: Dropouts, ledgers: Ledgers | None) -> tuple[Outcome, Checkpoint]:
        """Plays one interval; see ``System.step``."""
        if ledgers:
            raise ParameterError("ledgers need the same cohort in every round, and an asynchronous system has none")
        self.model, served_before = vector_of(self.layout, checkpoint.state), self._served_bytes
        if not self.flights:
            self.now = checkpoint.seconds
            self._depart(self.federation.fleet.names)
        joined: list[Joined] = []
        landed: list[_Landing] = []
        while len(landed) < self.settings.interval:
            flights, self.now = self.due()
            one = self._joined([self._fly(flight) for flight in flights], dropouts)
            landed += [self._landing(flight, one) for flight in flights]
            joined.append(one)
            self.model, self.version = one.vector, self.version + (not one.lost)
            self.secure_seconds += one.secure_seconds
            self._depart([flight.client for flight in flights])
        return self._concluded(checkpoint, joined, landed, served_before)

    def remember(self) -> Memory:
        """The clock, and who is under way with what."""
        return {
            "now": self.now,
            "version": self.version,
            "secure_seconds": self.secure_seconds,
            "uplink_free_at": self._uplink_free_at,
            "served_bytes": self._served_bytes,
            "flights": {str(client): packed(flight) for client, flight in self.flights.items()},
        }

    def recall(self, memory: Memory) -> None:
        """Takes up where ``remember`` left off; the model itself comes with the checkpoint."""
        self.now = float(memory.get("now", 0.0))
        self.version = int(memory.get("version", 0))
        self.secure_seconds = float(memory.get("secure_seconds", 0.0))
        self._uplink_free_at = float(memory.get("uplink_free_at", 0.0))
        self._served_bytes = int(memory.get("served_bytes", 0))
        self.flights = {client: unpacked(client, one, self.layout) for client, one in memory.get("flights", {}).items()}

    def module_of(self, vector: NDArray[np.float32]) -> nn.Module:
        """A module with the parameters of a vector."""
        return with_state(self.federation.model, state_of(self.layout, vector))

    def _send(self, served: int) -> tuple[float, float]:
        """Puts bytes on the server's uplink: seconds until it is free, and those that they take on it."""
        waited = max(0.0, self._uplink_free_at - self.now)
        seconds = served / self.federation.fleet.server.upload_bytes_per_second
        self._uplink_free_at = self.now + waited + seconds
        self._served_bytes += served
        return waited, seconds

    def _depart(self, clients: Sequence[Client], *, anew: bool = False) -> None:
        """Sends clients on their way with the model as it is, when the server's uplink is done with those before.

        Args:
            clients: Who leaves.
            anew: Whether they give up the trips that they are on. Of those count the bytes so far, and the training if
                it had ended.
        """
        masks = {client: self.mask_of(client) for client in clients}
        fetched, served = self.serve(masks)
        waited, _ = self._send(served)
        for client, mask in masks.items():
            before, sent = self.flights.get(client), self.upload_of(client, mask)
            time = self._time_of(client, fetched[client], served, sent)
            vain = before if anew else None
            self.flights[client] = Flight(
                client=client,
                trip=0 if before is None else before.trip + (not anew),
                version=self.version,
                start=np.where(mask.coordinates, self.model, np.float32(0)),
                mask=mask,
                left_at=self.now,
                time=replace(time, download=waited + time.download),
                fetched_bytes=fetched[client] + (0 if vain is None else vain.fetched_bytes),
                sent_bytes=sent,
                side_bytes=0 if vain is None else vain.side_bytes,
                side_flops=0 if vain is None else self._flops_of(vain),
            )

    @property
    def _training_flops(self) -> int:
        """Operations of one trip's training; a mask of coordinates saves none."""
        return self.federation.training.steps * self.measuring.costs.of(self.federation.model).step_flops

    def _flops_of(self, flight: Flight) -> int:
        """Operations up to now, all that is over included; of a training under way none."""
        return flight.side_flops + (self._training_flops if flight.trained_at <= self.now else 0)

    def _time_of(self, client: Client, fetched: int, served: int, sent: int) -> ClientTime:
        """What a trip takes if the server's uplink is free; a mask of coordinates saves bytes only."""
        fleet = self.federation.fleet
        return client_time(
            fleet.device(client),
            flops=self._training_flops,
            download_bytes=fetched,
            upload_bytes=sent,
            server_seconds=fleet.server.seconds(served, sent),
        )

    def _joined(self, arrivals: Sequence[Arrival], dropouts: Dropouts) -> Joined:
        """What came of joining; a session that breaks off leaves the model as it is."""
        try:
            return self.join(arrivals, dropouts)
        except AbortError as error:
            return Joined(vector=self.model, verdict=f"nothing was learned: {error}", withheld_share=1.0, lost=True)

    def _fly(self, flight: Flight) -> Arrival:
        """Trains what the client has fetched."""
        setup, model = self.federation, self.module_of(flight.start)
        seed = number(setup.seed, "training", flight.trip, setup.fleet.number(flight.client))
        with held_by(flight.mask, model):
            setup.training.train(model, setup.examples[flight.client], seed)
        update = vector_of(self.layout, model.state_dict()) - flight.start
        return Arrival(flight, np.where(flight.mask.coordinates, update, np.float32(0)))

    def _landing(self, flight: Flight, joined: Joined) -> _Landing:
        """A flight after it was joined, before there is a next version."""
        client = flight.client
        charged = replace(
            flight,
            fetched_bytes=flight.fetched_bytes + joined.received_bytes.get(client, 0),
            sent_bytes=joined.sent_bytes.get(client, flight.sent_bytes),
        )
        return _Landing(charged, self.version - flight.version, not joined.lost and client not in joined.missed)

    def _concluded(
        self, checkpoint: Checkpoint, joined: Sequence[Joined], landed: Sequence[_Landing], served_before: int
    ) -> tuple[Outcome, Checkpoint]:
        setup = self.federation
        details, besides = self.conclude(self.module_of(self.model))
        judged = accuracy(self.module_of(self.model), setup.test, setup.training.precision)
        finished_at = self.now + self.secure_seconds
        trips = [flight.trip for flight in self.flights.values()]
        differences = [one.difference for one in joined if one.difference is not None]
        missing = [one.missing_share for one in joined if not one.lost]
        said = dict.fromkeys((joined[-1].verdict, *(one.verdict for one in joined if one.lost), *besides))
        own = {client: [one for one in landed if one.flight.client == client] for client in setup.examples}
        result = RoundResult(
            number=checkpoint.number,
            accuracy=judged,
            finished_at=finished_at,
            seconds=finished_at - checkpoint.seconds,
            clients={str(client): self._client([one.flight for one in ones]) for client, ones in own.items() if ones},
            survivors=tuple(str(client) for client, ones in own.items() if any(one.counted for one in ones)),
            withheld_share=fmean(one.withheld_share for one in joined),
            difference=max(differences) if differences else None,
            verdict=" Besides: ".join(said),
            details={
                "versions": float(self.version),
                "staleness": fmean(one.staleness for one in landed),
                "trips of the slowest over the fastest's": min(trips) / max(trips),
                "missing share": missing[-1] if missing else 1.0,
                "lost joins": float(sum(one.lost for one in joined)),
                "server uploads MB": (self._served_bytes - served_before) / 1e6,
                "whole models MB": VALUE_BYTES * self.layout.size * len(landed) / 1e6,
                **details,
            },
        )
        after = Checkpoint(
            checkpoint.number + 1,
            state_of(self.layout, self.model),
            checkpoint.state,
            finished_at,
            self.remember(),
        )
        return result, after

    def _client(self, flights: Sequence[Flight]) -> ClientRound:
        """What one client did in an interval: bytes and operations of all of its trips, the time of a mean one."""
        seconds = ClientTime(
            download=fmean(flight.time.download for flight in flights),
            compute=fmean(flight.time.compute for flight in flights),
            upload=fmean(flight.side_seconds + flight.time.upload for flight in flights),
        )
        setup = self.federation
        flops = sum(self._training_flops + flight.side_flops for flight in flights)
        return ClientRound(
            keep=fmean(flight.mask.density for flight in flights),
            parameters=sum(parameter.numel() for parameter in setup.model.parameters()),
            flops=flops,
            download_bytes=sum(flight.fetched_bytes for flight in flights),
            upload_bytes=sum(flight.sent_bytes + flight.side_bytes for flight in flights),
            seconds=seconds,
            joules=flops / setup.fleet.device(flights[0].client).flops_per_second * setup.watts,
        )
