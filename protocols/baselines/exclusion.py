"""Exclusion: stragglers are left out, and with them what only their data say.

What pruning for slow clients has to beat: rounds are as short as they can be, at no computation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from protocols.synchronous import SynchronousSystem

if TYPE_CHECKING:
    from protocols.aggregators import Client


@final
class Exclusion(SynchronousSystem):
    """Federated averaging among the clients that the device table does not call stragglers."""

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"exclusion {self.aggregator.name}"

    def cohort(self, number: int) -> tuple[Client, ...]:
        """Drawn among the rest."""
        rest = tuple(device.name for device in self.federation.fleet.rest)
        return self.federation.cohort(number, rest)
