"""FedAvg: everybody trains the whole model, and the slowest client decides how long a round takes.

H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017.
"""

from __future__ import annotations

from typing import final

from protocols.synchronous import SynchronousSystem


@final
class FedAvg(SynchronousSystem):
    """Federated averaging. All clients weigh the same; put ``Weigh`` last where their examples differ in number."""

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"FedAvg {self.aggregator.name}"
