"""Random and Ordered Dropout: stragglers train submodels of units that no data choose.

Neither needs a look at the global model, so a straggler whose mask is declared fetches its submodel only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from protocols.budget import of_size
from protocols.randomness import generator
from protocols.submodels import SubmodelSettings, SubmodelSystem
from pruning.masks import Mask, random_units

if TYPE_CHECKING:
    from protocols.aggregators import Aggregator, Client
    from protocols.federation import Federation
    from protocols.round import RoundContext
    from protocols.simulation.calibration import Calibration
    from protocols.stages import MaskPolicy


class _Chosen(SubmodelSystem):
    """Units chosen without data.

    Args:
        federation: As ``SubmodelSystem``.
        aggregator: As ``SubmodelSystem``.
        settings: As ``SubmodelSystem``.
        twin: As ``System``.
        calibration: As ``System``.
    """

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: SubmodelSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(
            federation,
            aggregator,
            settings or SubmodelSettings(),
            twin=twin,
            calibration=calibration,
            fetches_parts=True,
        )


@final
class RandomDropout(_Chosen):
    """Every straggler draws units anew each round.

    S. Caldas et al., "Expanding the Reach of Federated Learning by Reducing Client Resource Requirements", 2018.
    """

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"random dropout {self.aggregator.name}"

    def policy(self) -> MaskPolicy:
        """Drawn from the seed, the round and the client's number."""
        setup = self.federation

        def drawn(client: Client, context: RoundContext) -> Mask:
            keep, layout = self.keep.get(client, 1.0), setup.units.layout
            stream = generator(setup.seed, "units", context.number, setup.fleet.number(client))
            return random_units(layout, keep, stream) if keep < 1 else Mask.full(layout)

        return drawn


@final
class OrderedDropout(_Chosen):
    """Every straggler keeps the first units of each layer (S. Horvath et al., "FjORD", NeurIPS 2021)."""

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"ordered dropout {self.aggregator.name}"

    def policy(self) -> MaskPolicy:
        """The same in every round."""
        return lambda client, _: of_size(self.federation.units.layout, self.keep.get(client, 1.0))
