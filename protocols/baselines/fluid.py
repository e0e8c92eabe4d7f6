"""FLuID: the server looks at every update, and tells stragglers which units not to train.

I. Wang, P. J. Nair, D. Mahajan, "FLuID: Mitigating Stragglers in Federated Learning using Invariant Dropout", NeurIPS
2023; the rules are in ``pruning.fluid``. It needs single updates in the clear, and so has no encryption.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final, get_args

import numpy as np
import torch

from protocols.randomness import generator
from protocols.submodels import SubmodelSettings, SubmodelSystem
from pruning.fluid import (
    Raising,
    agreed_change,
    fluid_mask,
    initial_thresholds,
    invariant_units,
    published_keep,
    raise_thresholds,
    relative_change,
)
from pruning.masks import Mask
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from protocols.aggregators import Aggregated, Aggregator, Client
    from protocols.federation import Federation, Memory
    from protocols.results import ClientRound
    from protocols.round import RoundContext, Work
    from protocols.simulation.calibration import Calibration
    from protocols.stages import MaskPolicy

OBSERVED = range(2, 4)
"""Rounds whose changes set the first thresholds, from 1, as published; until then units are dropped at random."""

KeepRule = Literal["budget", "published"]


@dataclass(frozen=True, kw_only=True)
class FluidSettings(SubmodelSettings):
    """The settings of FLuID.

    Args:
        keep_rule: ``"published"``: the paper's table from the ratio of two times; ``"budget"``: solved for, as in the
            other systems, so that only the choice of units differs from them.
        step: By how much thresholds are raised.
        every: Rounds from one raise to the next.
        after: Rounds from the first thresholds to the first raise.
    """

    keep_rule: KeepRule = "budget"
    step: float = 0.2
    every: int = 1
    after: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_rule not in get_args(KeepRule):
            raise ParameterError(f"keep_rule must be one of {get_args(KeepRule)}, not {self.keep_rule!r}")
        _ = self.raising

    @property
    def raising(self) -> Raising:
        """When thresholds are raised, and by how much."""
        return Raising(step=self.step, every=self.every, after=self.after)


@final
class Fluid(SubmodelSystem):
    """FedAvg in which the server prunes stragglers by the invariant units of everybody else's updates.

    Args:
        federation: What it runs on.
        aggregator: One without encryption.
        settings: How to prune.
        twin: As ``System``.
        calibration: As ``System``.

    Raises:
        ParameterError: The aggregator encrypts, so that the server could not look.
    """

    settings: FluidSettings

    accounts = False  # the server reads single updates

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: FluidSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        if aggregator.encrypted:
            raise ParameterError("FLuID reads every update: set aggregation to 'float' or 'plain'")
        settings = settings or FluidSettings()
        self._seen = 0
        self._observed: list[NDArray[np.float64]] = []
        self._thresholds: dict[str, float] = {}
        self._invariant = np.zeros(federation.units.layout.unit_count, bool)
        self._dropped: dict[Client, NDArray[np.bool_]] = {}
        super().__init__(federation, aggregator, settings, twin=twin, calibration=calibration, fetches_parts=True)
        if settings.keep_rule == "published" and settings.keep is None:
            self.keep = {client: self._published(client) for client in self.keep}

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"FLuID {self.aggregator.name}"

    def policy(self) -> MaskPolicy:
        """The server's choice, drawn from the seed, the round and the client's number where it is free."""
        setup = self.federation
        layout = setup.units.layout

        def chosen(client: Client, context: RoundContext) -> Mask:
            keep = self.keep.get(client, 1.0)
            if keep >= 1:
                return Mask.full(layout)
            stream = generator(setup.seed, "units", context.number, setup.fleet.number(client))
            before = self._dropped.get(client, np.zeros(layout.unit_count, bool))
            return fluid_mask(layout, self._invariant, before, keep, stream)

        return chosen

    def learn(
        self,
        context: RoundContext,  # noqa: ARG002 - it counts the rounds that it has seen
        clients: Mapping[Client, ClientRound],
        work: Mapping[Client, Work],
        aggregated: Aggregated | None,
    ) -> Mapping[str, float]:
        """Lets the others' updates that arrived vote on which units are invariant; without any nothing is learned."""
        layout = self.federation.units.layout
        self._dropped = {client: ~one.mask.held for client, one in work.items() if one.mask.kind == "units"}
        in_time = [client for client, one in clients.items() if not one.late]
        arrived = in_time if aggregated is None else aggregated.survivors
        voters = [work[client] for client in arrived if client not in self.keep]
        if not voters:
            return {}
        states = [one.model.state_dict() for one in voters]
        self._seen += 1
        if self._seen in OBSERVED:
            pairs = [(one.start, state) for one, state in zip(voters, states, strict=True)]
            self._observed.append(np.stack([relative_change(self.federation.units, *pair) for pair in pairs]))
        if self._seen < max(OBSERVED):
            return {}
        thresholds = self._thresholds or initial_thresholds(layout, self._observed)
        changed = agreed_change(self.federation.units, voters[0].start, states)
        self._invariant = invariant_units(layout, changed, thresholds)
        self._thresholds = self._raised(thresholds)
        return {"invariant units": float(self._invariant.mean())}

    def remember(self) -> Memory:
        """Thresholds, votes, and what each straggler did without."""
        return {
            **super().remember(),
            "observed": [torch.from_numpy(changes) for changes in self._observed],
            "thresholds": dict(self._thresholds),
            "invariant": torch.from_numpy(self._invariant),
            "dropped": {str(client): torch.from_numpy(units) for client, units in self._dropped.items()},
            "seen": self._seen,
        }

    def recall(self, memory: Memory) -> None:
        """Takes up where ``remember`` left off."""
        super().recall(memory)
        nothing = torch.zeros(self.federation.units.layout.unit_count, dtype=torch.bool)
        self._seen = int(memory.get("seen", 0))
        self._observed = [changes.numpy() for changes in memory.get("observed", ())]
        self._thresholds = dict(memory.get("thresholds", {}))
        self._invariant = memory.get("invariant", nothing).numpy()
        self._dropped = {client: units.numpy() for client, units in memory.get("dropped", {}).items()}

    def _raised(self, thresholds: dict[str, float]) -> dict[str, float]:
        """The thresholds of the next round."""
        raising = self.settings.raising
        if not raising.due(self._seen - max(OBSERVED) + 1):
            return thresholds
        smallest = min(self.keep.values(), default=1.0)
        layout = self.federation.units.layout
        return raise_thresholds(layout, thresholds, self._invariant, smallest, raising.step)

    def _published(self, straggler: Client) -> float:
        """By the paper's table."""
        return published_keep(min(1.0, self.identified.deadline / self.seconds[straggler]))
