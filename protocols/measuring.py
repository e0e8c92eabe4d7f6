"""What a round took each client: operations counted, bytes on the wire, seconds on its device, and who is late."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from protocols.results import ClientRound
from protocols.simulation.clock import TrainingCosts, client_time, round_seconds
from secagg import counts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from protocols.aggregators import Aggregated, Aggregator, Client
    from protocols.federation import Federation
    from protocols.round import Work
    from protocols.simulation.calibration import Calibration
    from secagg.declaration import Provenance


class SideSession(Protocol):
    """A small uniform session beside that of the updates, such as a ``Tally`` or ``Averages``."""

    @property
    def length(self) -> int:
        """Numbers in a client's vector."""

    @property
    def upload_bytes(self) -> Mapping[Client, int]:
        """Client to bytes that it sent."""

    @property
    def download_bytes(self) -> Mapping[Client, int]:
        """Client to bytes that it received."""

    @property
    def verdict(self) -> str:
        """Who learned what, in a sentence."""

    @property
    def provenance(self) -> Provenance:
        """What was summed: something about data, or about devices only."""


@dataclass(frozen=True, eq=False)
class Talk:
    """What clients said to each other besides their updates, in small sessions of their own.

    Args:
        sessions: In order.
    """

    sessions: tuple[SideSession, ...] = ()

    def uploaded(self, client: Client) -> int:
        """Bytes that a client sent."""
        return sum(session.upload_bytes.get(client, 0) for session in self.sessions)

    def downloaded(self, client: Client) -> int:
        """Bytes that a client received."""
        return sum(session.download_bytes.get(client, 0) for session in self.sessions)


SILENCE = Talk()


class Measuring:
    """Measures the rounds of one system.

    Args:
        federation: Says what training costs, how fast the devices are, and how long a round waits.
        aggregator: Says what an update weighs on the wire.
        calibration: Where the times of secure aggregation are kept.
    """

    def __init__(self, federation: Federation, aggregator: Aggregator, calibration: Calibration) -> None:
        self._federation = federation
        self._aggregator = aggregator
        self.calibration = calibration
        self.costs = TrainingCosts(federation.batch)

    def seconds_of_work(self, work: Mapping[Client, Work]) -> dict[Client, float]:
        """Seconds by operations and the bytes of model and vector alone, as far as they are known beforehand.

        A measured time, such as that of secure aggregation, must not decide what is trained, or runs would not repeat.
        """
        rounds = self.clients(work, None, SILENCE)
        return {client: replace(one.seconds, secure=0.0).total for client, one in rounds.items()}

    def late(self, work: Mapping[Client, Work]) -> frozenset[Client]:
        """Who would not have sent its vector by the deadline."""
        deadline = self._federation.deadline
        if deadline is None:
            return frozenset()
        return frozenset(client for client, seconds in self.seconds_of_work(work).items() if seconds > deadline)

    def clients(
        self,
        work: Mapping[Client, Work],
        aggregated: Aggregated | None,
        talk: Talk,
        late: Collection[Client] = (),
    ) -> dict[Client, ClientRound]:
        """What every client did and how long it took; who is late, or without an aggregate, by its vector alone.

        Args:
            work: Their finished work.
            aggregated: Says what was sent and received; None where nothing came of the round.
            talk: What was said besides.
            late: Who missed the deadline.
        """
        secure, keys = self._secure_seconds(work, talk)
        weights = {client: self._wire(one, len(work), aggregated, talk) for client, one in work.items()}
        server = self._server_seconds(weights, late)
        return {
            client: self._client(one, weights[client], (secure[client], keys), server, late=client in late)
            for client, one in work.items()
        }

    def round_seconds(self, clients: Mapping[Any, ClientRound]) -> float:
        """A round ends with the slowest client that is in time, and not before the deadline where another is late."""
        in_time = [client.seconds for client in clients.values() if not client.late]
        waited = self._federation.deadline if len(in_time) < len(clients) else None
        return max(waited or 0.0, round_seconds(in_time) if in_time else 0.0)

    def _secure_seconds(self, work: Mapping[Client, Work], talk: Talk) -> tuple[dict[Client, float], float]:
        """Calibrated seconds of the round's session, of the counting before it, and of what was said besides.

        Returns:
            Them by client, and what of the round's session runs while clients train.
        """
        params, session, layout = self._aggregator.params, self._aggregator.session, self._aggregator.layout
        if params is None or session is None:
            return dict.fromkeys(work, 0.0), 0.0
        pruned = any(one.mask.kind != "full" for one in work.values())
        lengths = [session.length for session in talk.sessions]
        if pruned and self._aggregator.counts_masks:
            lengths.append(counts.counting_layout(layout).size)
        besides = sum(
            self.calibration.time("uniform", len(work), params).seconds(length, length * len(work))
            for length in lengths
        )
        held = {client: self._aggregator.length_of(one.mask) for client, one in work.items()}
        time, total = self.calibration.time(self._aggregator.mode, len(work), session), sum(held.values())
        return {client: time.seconds(own, total) + besides for client, own in held.items()}, time.keys

    def _wire(self, one: Work, cohort: int, aggregated: Aggregated | None, talk: Talk) -> _Wire:
        vector = self._aggregator.upload_of(one.mask, cohort)
        received, sent = one.fetched_bytes, vector
        if aggregated is not None:
            received += aggregated.download_bytes.get(one.client, 0)
            sent = aggregated.upload_bytes.get(one.client, 0)
        return _Wire(received + talk.downloaded(one.client), sent + talk.uploaded(one.client), vector)

    def _server_seconds(self, weights: Mapping[Client, _Wire], late: Collection[Client]) -> tuple[float, float]:
        """What the server's links take to send to everybody, and to receive from those who are in time."""
        to_all = sum(one.received for one in weights.values())
        from_all = sum(one.sent for client, one in weights.items() if client not in late)
        return self._federation.fleet.server.seconds(to_all, from_all)

    def _client(
        self, one: Work, wire: _Wire, secure: tuple[float, float], server: tuple[float, float], *, late: bool
    ) -> ClientRound:
        steps = self._federation.training.steps + one.further_steps
        flops = steps * self.costs.of(one.model).step_flops
        seconds = client_time(
            self._federation.fleet.device(one.client),
            flops=flops,
            download_bytes=wire.received,
            upload_bytes=wire.vector if late else wire.sent,
            secure_seconds=secure[0],
            key_seconds=secure[1],
            server_seconds=server,
        )
        return ClientRound(
            keep=one.keep,
            parameters=sum(parameter.numel() for parameter in one.model.parameters()),
            flops=flops,
            download_bytes=wire.received,
            upload_bytes=wire.sent,
            seconds=seconds,
            joules=seconds.compute * self._federation.watts,
            late=late,
        )


@dataclass(frozen=True)
class _Wire:
    """Bytes of one client: all that it received and sent, and its vector alone."""

    received: int
    sent: int
    vector: int
