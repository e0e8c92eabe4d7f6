"""FedAvg: everybody trains the whole model, and the slowest client decides how long a round takes.

H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from protocols.stages import Delta, Fetch, LocalTraining
from protocols.system import System

if TYPE_CHECKING:
    from protocols.round import Stage


@final
class FedAvg(System):
    """Federated averaging. All clients weigh the same; put ``Weigh`` last where their examples differ in number."""

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"FedAvg {self.aggregator.name}"

    def stages(self) -> tuple[Stage, ...]:
        """Fetch, train, subtract."""
        setup = self.federation
        return Fetch(), LocalTraining(setup.examples, setup.training, setup.seed), Delta()
