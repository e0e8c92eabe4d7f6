"""How long secure aggregation takes: measured once for each size of session, so that simulated times repeat.

The time of one session jitters with the machine, and a simulation that added it afresh every round would never give
the same result twice. The fastest of a few sessions is measured where the code runs, charged to every client of that
size of session, and recorded beside the results. The fastest, because whatever else the machine does only adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocols.round import aggregate_work

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.aggregators import Aggregator, Client
    from protocols.round import Work

SESSIONS = 3
"""Sessions measured for each size."""


@dataclass(frozen=True, kw_only=True)
class SecureTime:
    """The calibrated time of one size of session.

    Args:
        aggregator: Its name.
        clients: Size of the cohort.
        coordinates: What all clients hold together.
        sessions: Sessions measured.
        seconds: Of the fastest: what one client computes on average, and all that the server computes.
    """

    aggregator: str
    clients: int
    coordinates: int
    sessions: int
    seconds: float


class Calibration:
    """The sizes of session measured so far, for one layout and one set of ``Params``."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, tuple[int, ...]], SecureTime] = {}

    @property
    def times(self) -> tuple[SecureTime, ...]:
        """Every size measured, in the order of measuring."""
        return tuple(self._times.values())

    def seconds(self, aggregator: Aggregator, work: Mapping[Client, Work]) -> float:
        """Seconds of a session over this work; zero for an aggregator without encryption."""
        held = tuple(sorted(int(one.mask.coordinates.sum()) for one in work.values()))
        if (aggregator.name, held) not in self._times:
            self._times[aggregator.name, held] = SecureTime(
                aggregator=aggregator.name,
                clients=len(held),
                coordinates=sum(held),
                sessions=SESSIONS,
                seconds=min(_session_seconds(aggregator, work) for _ in range(SESSIONS)),
            )
        return self._times[aggregator.name, held].seconds


def _session_seconds(aggregator: Aggregator, work: Mapping[Client, Work]) -> float:
    spent = aggregate_work(aggregator, work).seconds
    of_clients = sum(seconds for stage, seconds in spent.items() if "client" in stage)
    return of_clients / len(work) + sum(spent.values()) - of_clients
