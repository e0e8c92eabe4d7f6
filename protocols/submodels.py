"""What systems share in which stragglers train submodels: they find out that they are stragglers, and how much to keep.

Nobody tells them. A secure time histogram (``protocols.sessions.stragglers``) says how long the others take; whoever is
slower solves for the largest submodel that keeps up. Subclasses say which units it consists of.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from protocols.budget import Budget, KeepRatios, of_size
from protocols.measuring import SILENCE, Talk
from protocols.randomness import session_seed
from protocols.sessions.stragglers import identify
from protocols.stages import Delta, Fetch, LocalTraining, Submodel
from protocols.synchronous import SynchronousSystem
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.aggregators import Aggregator, Client
    from protocols.federation import Federation, Memory
    from protocols.round import RoundContext, Stage, Work
    from protocols.simulation.calibration import Calibration
    from protocols.stages import MaskPolicy
    from pruning.masks import Mask


@dataclass(frozen=True, kw_only=True)
class SubmodelSettings:
    """How stragglers are found, and how much they keep.

    Args:
        budget: What has to fit. ``"compute"``: a straggler's training into the longest training of the others;
            ``"round"``: its training and its links together into their longest round.
        share: The slowest share of the clients that call themselves stragglers, in (0, 0.5].
        keep: Share of the units that every straggler keeps, whatever the budget; None to solve for it. In (0, 1].
        least_keep: Never keep a smaller share of the units, even if the budget is missed; in (0, 1].

    Raises:
        ParameterError: A setting outside its domain.
    """

    budget: Budget = "round"
    share: float = 0.2
    keep: float | None = None
    least_keep: float = 0.05

    def __post_init__(self) -> None:
        if self.budget not in get_args(Budget):
            raise ParameterError(f"budget must be one of {get_args(Budget)}, not {self.budget!r}")
        if not 0 < self.share <= 0.5:
            raise ParameterError("share must be in (0, 0.5]")
        if not 0 < self.least_keep <= 1 or not (self.keep is None or 0 < self.keep <= 1):
            raise ParameterError("least_keep and keep must be in (0, 1]")


class SubmodelSystem(SynchronousSystem):
    """FedAvg in which stragglers train submodels.

    Args:
        federation: What it runs on.
        aggregator: ``Uniform`` or ``MaskIndexed``, or one without encryption.
        settings: How stragglers are found, and how much they keep.
        twin: As ``System``.
        calibration: As ``System``.
        fetches_parts: Whether a straggler chooses its units without a look at the global model, and so fetches its
            submodel only: the server, asked for some parts and not for others, learns the mask.
    """

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: SubmodelSettings,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
        fetches_parts: bool = False,
    ) -> None:
        super().__init__(federation, aggregator, twin=twin, calibration=calibration)
        self.settings: SubmodelSettings = settings
        self._charged = False
        self._fetches_parts = fetches_parts and aggregator.mode == "mask-indexed"
        ratios = KeepRatios(federation, aggregator, fetches_parts=self._fetches_parts)
        self.seconds: Mapping[Client, float] = {
            device.name: ratios.seconds(device, 1.0, settings.budget) for device in federation.fleet.devices
        }
        self.identified = identify(
            self.seconds,
            share=settings.share,
            params=aggregator.params,
            seed=session_seed("identify", federation.seed, settings, aggregator.name, sorted(self.seconds.items())),
            encrypted=aggregator.encrypted,
        )
        self.keep: Mapping[Client, float] = {
            client: settings.keep
            or ratios.solve(
                federation.fleet.device(client), settings.budget, self.identified.deadline, settings.least_keep
            )
            for client in self.identified.stragglers
        }

    @abstractmethod
    def policy(self) -> MaskPolicy:
        """Which units each straggler keeps; whoever is none keeps all."""

    @property
    def notes(self) -> tuple[str, ...]:
        """How the stragglers found themselves."""
        found = self.identified
        said = (
            f"{len(found.stragglers)} clients called themselves stragglers; the others are done in "
            f"{found.deadline:.4g} s. Histogram of times: {found.tally.verdict}"
        )
        return (said,)

    def foreseen_masks(self) -> Mapping[Client, Mask]:
        """Stragglers hold as many units as they will, and all the same ones: with others, coverage can only grow."""
        layout = self.federation.units.layout
        masks = super().foreseen_masks()
        return {client: of_size(layout, self.keep.get(client, 1.0)) for client in masks}

    def stages(self) -> tuple[Stage, ...]:
        """Fetch and choose a submodel, train it, look at what came of it, subtract."""
        setup, submodel = self.federation, Submodel(self.policy())
        begin = (submodel, Fetch()) if self._fetches_parts else (Fetch(), submodel)
        return *begin, LocalTraining(setup.examples, setup.training, setup.seed), *self.watchers(), Delta()

    def confer(self, context: RoundContext, work: Mapping[Client, Work]) -> Talk:  # noqa: ARG002 - it came before
        """Charges the identification of stragglers to the first round."""
        if self._charged:
            return SILENCE
        self._charged = True
        return Talk((self.identified.tally,))

    def remember(self) -> Memory:
        """Whether the identification has been charged."""
        return {"charged": self._charged}

    def recall(self, memory: Memory) -> None:
        """Takes up where ``remember`` left off."""
        self._charged = bool(memory.get("charged", False))

    def watchers(self) -> tuple[Stage, ...]:
        """Stages that look at a trained model on its client and pass it on."""
        return ()
