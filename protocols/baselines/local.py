"""Local only: every client trains alone. What collaboration has to beat, at no communication."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, final

from protocols.aggregators import FloatMean
from protocols.baselines.fedavg import FedAvg
from protocols.clustered import Clustered
from protocols.results import RoundResult
from protocols.simulation.clock import ClientTime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.aggregators import Client, Dropouts, Ledgers
    from protocols.federation import Checkpoint, Federation
    from protocols.results import ClientRound, Outcome


VERDICT = "nobody sends anything."


@final
class LocalOnly(Clustered):
    """A cluster for each client, in which nothing is sent: so nobody is drawn, drops out or is late."""

    @property
    def name(self) -> str:
        """The system."""
        return "local only"

    def inner_of(self, federation: Federation) -> FedAvg:
        """A mean over one."""
        alone = replace(federation, participants=None, deadline=None)
        return FedAvg(alone, FloatMean(federation.units.layout), calibration=self.measuring.calibration)

    def find(self, checkpoint: Checkpoint) -> tuple[Mapping[Client, int], Mapping[Client, ClientRound], str]:  # noqa: ARG002 - there is nothing to find
        """Everybody alone."""
        return {client: place for place, client in enumerate(self.federation.fleet.names)}, {}, VERDICT

    def step(self, checkpoint: Checkpoint, dropouts: Dropouts, ledgers: Ledgers | None) -> tuple[Outcome, Checkpoint]:  # noqa: ARG002 - nobody leaves
        """As ``Clustered``, at no bytes."""
        outcome, after = super().step(checkpoint, {}, ledgers)
        if not isinstance(outcome, RoundResult) or not outcome.clients:
            return outcome, after
        clients = {name: _alone(client) for name, client in outcome.clients.items()}
        seconds = max(client.seconds.total for client in clients.values())
        finished_at = checkpoint.seconds + seconds
        told = replace(outcome, clients=clients, seconds=seconds, finished_at=finished_at, verdict=VERDICT)
        return told, replace(after, seconds=finished_at)


def _alone(client: ClientRound) -> ClientRound:
    seconds = ClientTime(download=0.0, compute=client.seconds.compute, upload=0.0)
    return replace(client, download_bytes=0, upload_bytes=0, seconds=seconds)
