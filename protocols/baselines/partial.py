"""FedPMT and FedDrop: clients train some of the last layers, chosen without regard to their devices' times.

FedPMT (H. Wu et al., "Straggler-resilient Federated Learning: Tackling Computation Heterogeneity with Layer-wise
Partial Model Training", 2023) gives everybody a fixed depth; FedDrop, as MA-CLAMP compares with it, a random one.
Reconstructed from how MA-CLAMP's public code uses them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from protocols.ma_clamp import DepthSystem
from protocols.randomness import generator

if TYPE_CHECKING:
    from protocols.aggregators import Client


@final
class FedPmt(DepthSystem):
    """A fixed depth for everybody: the layers before it never change."""

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"FedPMT {self.aggregator.name}"


@final
class FedDrop(DepthSystem):
    """A random depth for each client in each round."""

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"FedDrop {self.aggregator.name}"

    def depth_of(self, client: Client, number: int) -> int:
        """Drawn from the seed, the round and the client's number."""
        setup = self.federation
        stream = generator(setup.seed, "depth", number, setup.fleet.number(client))
        return int(stream.integers(1, len(self.blocks), endpoint=True))
