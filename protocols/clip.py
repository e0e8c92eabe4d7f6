"""CLIP: stragglers train a submodel without the units that hardly change (arXiv 2510.16694).

A straggler needs nobody's help for it. It knows how long training takes it and which round time the others reach, so
it solves for the largest submodel that keeps up; and it chooses the units by itself, from its own last full update or
from two consecutive global models. Reconstructed, since the paper's rules are not public: see ``pruning.clip`` for the
score and ``keep_ratio`` for the budget.

As published, its update travels at full size, padded with zeros, because pairwise masks need equal vectors: the
aggregator ``Uniform``. With ``MaskIndexed`` the upload shrinks too, and so does the download of a straggler that
chooses its units without a look at the global model: the server learns the mask in any case.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, final

from protocols.fetch import Served, leaves_for
from protocols.round import Stage
from protocols.simulation.clock import ClientTime, client_time
from protocols.stages import Delta, Fetch, LocalTraining, Submodel
from protocols.system import System
from pruning.clip import Score, invariant_mask, largest_relative_change
from pruning.cost import SubmodelCosts
from pruning.masks import Mask, ordered_units
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.aggregators import Aggregator, Client
    from protocols.round import RoundContext, Work
    from protocols.simulation.calibration import Calibration
    from protocols.simulation.devices import Device
    from protocols.system import Federation
    from protocols.training import State
    from pruning.units import Units
    from secagg.layout import Layout

Budget = Literal["compute", "round"]
Statistic = Literal["local", "global"]


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """The settings of CLIP.

    Args:
        statistic: What tells which units are invariant. ``"global"``: two consecutive global models, so that the mask
            says nothing about the client's data; ``"local"``: the client's own last full update.
        budget: What has to fit. ``"compute"``: a straggler's training into the longest training of the others;
            ``"round"``: its training and its links together into their longest round.
        least_keep: Never keep a smaller share of the units, even if the budget is missed; in (0, 1].
        refresh_every: With ``"local"``, a straggler trains the whole model every so many rounds, since a unit that is
            dropped has no change of its own to be scored by.
        score: How invariance is measured, ``pruning.largest_relative_change`` or ``pruning.relative_norm``.

    Raises:
        ParameterError: A setting outside its domain.
    """

    statistic: Statistic = "global"
    budget: Budget = "compute"
    least_keep: float = 0.05
    refresh_every: int = 5
    score: Score = field(default=largest_relative_change)

    def __post_init__(self) -> None:
        if self.statistic not in ("local", "global"):
            raise ParameterError(f"statistic must be 'local' or 'global', not {self.statistic!r}")
        if self.budget not in ("compute", "round"):
            raise ParameterError(f"budget must be 'compute' or 'round', not {self.budget!r}")
        if not 0 < self.least_keep <= 1 or self.refresh_every < 1:
            raise ParameterError("least_keep must be in (0, 1] and refresh_every at least 1")


@final
class Clip(System):
    """FedAvg in which stragglers train submodels without their most invariant units.

    What a straggler remembers of its own last full update lasts for one call of ``run``.

    Args:
        federation: What it runs on; its fleet says who is a straggler.
        aggregator: ``Uniform`` or ``MaskIndexed``, or an unencrypted one.
        settings: How stragglers prune.
        twin: As ``System``.
        calibration: As ``System``.
    """

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: ClipSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(federation, aggregator, twin=twin, calibration=calibration)
        self._settings = settings or ClipSettings()
        self._fetches_parts = self._settings.statistic == "local" and aggregator.mode == "mask-indexed"
        budgets = KeepRatios(federation, aggregator, fetches_parts=self._fetches_parts)
        self.keep: Mapping[Client, float] = {
            device.name: budgets.solve(device, self._settings.budget, self._settings.least_keep)
            for device in federation.fleet.stragglers
        }

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"CLIP {self.aggregator.name}"

    def foreseen_masks(self) -> Mapping[Client, Mask]:
        """Stragglers hold as many units as they will, and all the same ones: with others, coverage can only grow."""
        layout = self.federation.units.layout
        return {**super().foreseen_masks(), **{client: _of_size(layout, keep) for client, keep in self.keep.items()}}

    def stages(self) -> tuple[Stage, ...]:
        """Fetch and choose a submodel, train it, remember what a full update showed, subtract."""
        setup, memory = self.federation, FullUpdates(self.keep)
        submodel = Submodel(InvariantUnits(setup.units, self.keep, self._settings, memory))
        begin = (submodel, Fetch()) if self._fetches_parts else (Fetch(), submodel)
        return *begin, LocalTraining(setup.examples, setup.training, setup.seed), memory, Delta()


class KeepRatios:
    """Solves for the keep ratio with which a straggler keeps up.

    The time of secure aggregation is left out: it is nearly the same for everybody, and a measured time must not
    decide what is trained, or runs would not repeat.

    Args:
        federation: Says what training costs, and how fast the devices are.
        aggregator: Says what an update weighs on the wire.
        fetches_parts: Whether a straggler fetches its submodel only, and not the whole model.
    """

    def __init__(self, federation: Federation, aggregator: Aggregator, *, fetches_parts: bool = False) -> None:
        self._federation = federation
        self._aggregator = aggregator
        self._fetches_parts = fetches_parts
        self._served = Served(federation.units.layout, federation.start().state)
        self._costs = SubmodelCosts(federation.model, federation.units, federation.batch)

    def time(self, device: Device, keep: float) -> ClientTime:
        """Seconds that a device takes with a keep ratio, by its operations and its vector's bytes alone."""
        setup, layout = self._federation, self._federation.units.layout
        mask = _of_size(layout, keep)
        fetched = leaves_for(mask if self._fetches_parts else Mask.full(layout))
        return client_time(
            device,
            flops=setup.training.steps * self._costs.at(keep).step_flops,
            download_bytes=self._served.fetch(fetched).nbytes,
            upload_bytes=self._aggregator.upload_of(mask, len(setup.fleet.devices)),
        )

    def solve(self, straggler: Device, budget: Budget, least_keep: float) -> float:
        """The largest keep ratio within the time of the slowest other device, but at least ``least_keep``.

        Operations and bytes are counted on real submodels: half the units leave a quarter of the operations between
        two layers, so the ratio of two times taken as a share of units would prune too much.

        Args:
            straggler: Whose.
            budget: Which part of the time has to fit.
            least_keep: The floor.
        """

        def seconds(device: Device, keep: float) -> float:
            time = self.time(device, keep)
            return time.compute if budget == "compute" else time.total

        deadline = max(seconds(device, 1.0) for device in self._federation.fleet.rest)
        ratios = self._costs.keep_ratios()
        within = bisect_right(ratios, deadline, key=lambda keep: seconds(straggler, keep))
        return max(ratios[within - 1] if within else 0.0, least_keep)


@final
class FullUpdates(Stage):
    """Remembers, on each straggler, the parameters before and after it last trained the whole model.

    Args:
        stragglers: Who remembers.
    """

    def __init__(self, stragglers: Mapping[Client, float]) -> None:
        self._stragglers = stragglers
        self._last: dict[Client, tuple[State, State]] = {}

    def on_client(self, context: RoundContext, work: Work) -> Work:  # noqa: ARG002 - work carries all
        """Looks at a trained model and passes it on."""
        if work.client in self._stragglers and work.mask.kind == "full":
            trained = {name: tensor.clone() for name, tensor in work.model.state_dict().items()}
            self._last[work.client] = (work.start, trained)
        return work

    def last(self, client: Client) -> tuple[State, State] | None:
        """Before and after, or None if it has never trained the whole model."""
        return self._last.get(client)


class InvariantUnits:
    """The mask policy of CLIP: a straggler drops the units that changed least, everybody else drops none.

    Args:
        units: Of the global model.
        keep: Straggler to its keep ratio.
        settings: How to score.
        memory: What stragglers remember.
    """

    def __init__(self, units: Units, keep: Mapping[Client, float], settings: ClipSettings, memory: FullUpdates) -> None:
        self._units = units
        self._keep = keep
        self._settings = settings
        self._memory = memory

    def __call__(self, client: Client, context: RoundContext) -> Mask:
        """The client's mask in this round; full where there is nothing yet to score by."""
        keep = self._keep.get(client, 1.0)
        observed = self._observed(client, context)
        if keep >= 1 or observed is None:
            return Mask.full(self._units.layout)
        before, after = observed
        return invariant_mask(
            self._units, before, after, keep, statistic=self._settings.statistic, score=self._settings.score
        )

    def _observed(self, client: Client, context: RoundContext) -> tuple[State, State] | None:
        if self._settings.statistic == "local":
            refresh = context.number % self._settings.refresh_every == 0
            return None if refresh else self._memory.last(client)
        return None if context.previous is None else (context.previous, context.start)


def _of_size(layout: Layout, keep: float) -> Mask:
    """A mask of the size that a keep ratio leaves; which units it keeps changes neither operations nor bytes."""
    return ordered_units(layout, keep) if keep < 1 else Mask.full(layout)
