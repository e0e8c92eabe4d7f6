"""MA-CLAMP: each client trains as many of the last layers as its device bears, and each layer is averaged by itself.

Frozen layers cost no backward pass and no upload. A layer is averaged over those who trained it, if they are at least
the share ``participation`` of the cohort (tau in MA-CLAMP), and otherwise keeps its global value. Under encryption the
share holds before values leave a client: depths are declared with the shares, every client counts them and withholds
each layer below the rule, since a layer with one participant would be that client's update in the clear. Running
statistics of normalisations are averaged over everybody.

CLAMP, its predecessor, averages only the layers that all have trained (a share of one). ``Diluted`` is what its public
code does instead: all layers are averaged over everybody, frozen copies included.

Reconstructed from the authors' slides and public code. The depth rule is in ``protocols.depth``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import TYPE_CHECKING, final

import numpy as np

from protocols.depth import DepthRule, DepthState, DeviceSignals, by_time, layers_recovered
from protocols.fetch import Served, leaves_for
from protocols.round import Stage
from protocols.simulation.clock import client_time
from protocols.stages import Delta, Fetch, LocalTraining
from protocols.synchronous import SynchronousSystem
from pruning.depth import blocks, depth_mask, whole_blocks
from pruning.masks import Mask
from pruning.submodel import extract
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.aggregators import Aggregated, Aggregator, Client
    from protocols.depth import Suggest
    from protocols.federation import Federation, Memory
    from protocols.results import ClientRound
    from protocols.round import RoundContext, Work
    from protocols.simulation.calibration import Calibration


@dataclass(frozen=True, kw_only=True)
class DepthSettings:
    """How deep clients train.

    Args:
        depth: Blocks that everybody trains at first, D0; more than the model has mean all. None: half, rounded up.
        slow: Round time above which a client goes one block less deep, in medians of the fleet's full rounds.
        fast: Round time below which it goes one deeper, likewise.
        patience: Equal suggestions in a row that it takes.
        jitter: Whether thresholds differ between clients.

    Raises:
        ParameterError: A setting outside its domain.
    """

    depth: int | None = None
    slow: float = 1.0
    fast: float = 0.7
    patience: int = 3
    jitter: bool = True

    def __post_init__(self) -> None:
        if self.depth is not None and self.depth < 1:
            raise ParameterError(f"depth must be at least 1, not {self.depth}")
        if not 0 <= self.fast < self.slow < math.inf:
            raise ParameterError(f"fast {self.fast} must be less than slow {self.slow}, and neither negative")
        if self.patience < 1:
            raise ParameterError(f"patience must be at least 1, not {self.patience}")


class DepthSystem(SynchronousSystem):
    """FedAvg in which clients train some of the last blocks; subclasses say how many.

    Args:
        federation: As ``System``.
        aggregator: As ``System``.
        settings: How deep clients train.
        twin: As ``System``.
        calibration: As ``System``.

    Raises:
        UnsupportedModelError: The model has no blocks that can be frozen apart.
    """

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: DepthSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(federation, aggregator, twin=twin, calibration=calibration)
        self.settings: DepthSettings = settings or DepthSettings()
        self.blocks = blocks(federation.units, federation.model)
        half = (len(self.blocks) + 1) // 2
        self._first_depth = min(self.settings.depth or half, len(self.blocks))

    def depth_of(self, client: Client, number: int) -> int:  # noqa: ARG002 - subclasses know better
        """Blocks that a client trains in a round: by default the first depth for everybody."""
        return self._first_depth

    def foreseen_masks(self) -> Mapping[Client, Mask]:
        """Those of the first round."""
        units = self.federation.units
        return {client: depth_mask(units, self.blocks, self.depth_of(client, 0)) for client in self.cohort(0)}

    def stages(self) -> tuple[Stage, ...]:
        """Fetch, freeze the first blocks, train the others, subtract."""
        setup = self.federation
        return Fetch(), Freeze(self), LocalTraining(setup.examples, setup.training, setup.seed), Delta()

    def learn(
        self,
        context: RoundContext,
        clients: Mapping[Client, ClientRound],  # noqa: ARG002 - for subclasses
        work: Mapping[Client, Work],
        aggregated: Aggregated | None,
    ) -> Mapping[str, float]:
        """Measures what became of the blocks."""
        if aggregated is None:
            return {}
        released = whole_blocks(self.federation.units, self.blocks, ~np.isnan(aggregated.vector))
        depths = [self.depth_of(client, context.number) for client in work]
        return {
            "layers recovered": float(layers_recovered(released, depths)),
            "layers averaged": float(sum(released)),
            "mean depth": fmean(depths),
        }


@final
class Freeze(Stage):
    """Gives a client a copy of the model whose first blocks have no gradient.

    Args:
        system: Says how deep the client trains.
    """

    def __init__(self, system: DepthSystem) -> None:
        self._system = system

    def on_client(self, context: RoundContext, work: Work) -> Work:
        """Freezes all but the client's blocks."""
        depth = self._system.depth_of(work.client, context.number)
        mask = depth_mask(self._system.federation.units, self._system.blocks, depth)
        return replace(work, model=extract(work.model, mask), mask=mask, keep=depth / len(self._system.blocks))


class Adaptive(DepthSystem):
    """Depths that follow each device's round times.

    Args:
        federation: As ``System``.
        aggregator: Whose ``participation`` says how many must have trained a layer.
        settings: As ``DepthSystem``.
        suggest: What a device makes of its signals; see ``protocols.depth`` for those that there are. In a simulation
            only the round time is known.
        twin: As ``System``.
        calibration: As ``System``.
    """

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: DepthSettings | None = None,
        *,
        suggest: Suggest = by_time,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(federation, aggregator, settings, twin=twin, calibration=calibration)
        self._suggest = suggest
        typical = self._typical_seconds()
        self.rule = DepthRule(
            t_high=self.settings.slow * typical,
            t_low=self.settings.fast * typical,
            deepest=len(self.blocks),
            patience=self.settings.patience,
            jitter=self.settings.jitter,
        )
        self._states: dict[Client, DepthState] = {}
        self.recall({})

    @property
    def notes(self) -> tuple[str, ...]:
        """The thresholds, which stand before the first round."""
        rule = self.rule
        said = (
            f"depth {self._first_depth} of {len(self.blocks)} at first; one less above {rule.t_high:.4g} s, one more "
            f"below {rule.t_low:.4g} s, after {rule.patience} such rounds in a row"
        )
        return (said,)

    def depth_of(self, client: Client, number: int) -> int:  # noqa: ARG002 - it follows what was learned
        """Where the client stands."""
        return self._states[client].depth

    def learn(
        self,
        context: RoundContext,
        clients: Mapping[Client, ClientRound],
        work: Mapping[Client, Work],
        aggregated: Aggregated | None,
    ) -> Mapping[str, float]:
        """Takes in everybody's round time, by operations and the vector's bytes alone, as the thresholds are."""
        measured = super().learn(context, clients, work, aggregated)
        for client, seconds in self.measuring.seconds_of_work(work).items():
            thresholds = self.rule.thresholds(self.federation.fleet.number(client))
            suggestion = self._suggest(DeviceSignals(seconds=seconds), thresholds)
            self._states[client] = self.rule.next(self._states[client], suggestion)
        return measured

    def remember(self) -> Memory:
        """Where every client stands."""
        return {"depths": {str(client): state.to_json() for client, state in self._states.items()}}

    def recall(self, memory: Memory) -> None:
        """Takes up where ``remember`` left off."""
        known = memory.get("depths", {})
        self._states = {
            client: DepthState.from_json(known[client]) if client in known else self.rule.start(self._first_depth)
            for client in self.federation.fleet.names
        }

    def _typical_seconds(self) -> float:
        """Median of the fleet's rounds with the whole model, by operations and bytes alone."""
        setup = self.federation
        whole = Mask.full(setup.units.layout)
        fetched = Served(setup.units.layout, setup.start().state).fetch(leaves_for(whole)).nbytes
        flops = setup.training.steps * self.measuring.costs.of(setup.model).step_flops
        sent = self.aggregator.upload_of(whole, setup.cohort_size)
        return median(
            client_time(device, flops=flops, download_bytes=fetched, upload_bytes=sent).total
            for device in setup.fleet.devices
        )


@final
class MaClamp(Adaptive):
    """Mask-aware layer aggregation: a layer is averaged by those who trained it, if they are enough."""

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"MA-CLAMP {self.aggregator.name}"


@final
class Clamp(Adaptive):
    """CLAMP: only layers that all have trained are averaged, so the slowest device decides for everybody."""

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"CLAMP {self.aggregator.name}"


@final
class Diluted(Adaptive):
    """CLAMP as public code has it: frozen copies count as if they had been trained, and hold their layer back."""

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"CLAMP diluted {self.aggregator.name}"

    def stages(self) -> tuple[Stage, ...]:
        """As the others; then the whole model counts as held."""
        return *super().stages(), _Whole()

    def learn(
        self,
        context: RoundContext,
        clients: Mapping[Client, ClientRound],
        work: Mapping[Client, Work],
        aggregated: Aggregated | None,
    ) -> Mapping[str, float]:
        """As the others; a layer that most hold back by frozen copies is not recovered."""
        measured = super().learn(context, clients, work, aggregated)
        return {name: value for name, value in measured.items() if name != "layers recovered"}


@final
class _Whole(Stage):
    """Makes an update count at every coordinate."""

    def on_client(self, context: RoundContext, work: Work) -> Work:  # noqa: ARG002 - work carries all
        """Sets the full mask; the update is zero where nothing was trained."""
        return replace(work, mask=Mask.full(work.mask.layout))
