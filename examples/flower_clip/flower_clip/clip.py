"""CLIP: a straggler trains, and uploads, the units that changed most between the last two global models.

It chooses its units by how the global model has changed, so its mask says nothing about its data.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from flwr.app import ConfigRecord

from protocols.aggregators import MaskIndexed
from protocols.budget import KeepRatios
from pruning.clip import invariant_mask, relative_norm
from pruning.masks import Mask
from secagg import Params

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Context

    from .task import Task

SEEN, BEFORE, RUN = "clip.seen", "clip.before", "clip.run"

LEAST_KEEP = 0.05
"""Share of the units that a straggler keeps at least, however slow it is."""


class Clip:
    """What CLIP decides.

    Args:
        task: What is trained, on which devices.
    """

    def __init__(self, task: Task) -> None:
        self._federation = task.federation
        self.params = Params(min_cohort=2, max_dropouts=task.max_dropouts)

    def mask(self, partition: int, context: Context, received: ArrayRecord) -> Mask:
        """The units that a partition trains, by how two global models differ; all while there is only one of them."""
        before, keep, units = previous(context, received), self.keep(partition), self._federation.units
        if before is None or keep == 1:
            return Mask.full(units.layout)
        states = before.to_torch_state_dict(), received.to_torch_state_dict()
        return invariant_mask(units, *states, keep, statistic="global", score=relative_norm)

    def keep(self, partition: int) -> float:
        """Share of the units that a partition trains: all, or what lets a straggler keep up with the other devices."""
        fleet = self._federation.fleet
        device = fleet.devices[partition]
        if not device.straggler:
            return 1.0
        deadline = max(self._ratios.seconds(other, 1.0, "round") for other in fleet.rest)
        return self._ratios.solve(device, "round", deadline, LEAST_KEEP)

    def seconds(self, partition: int, keep: float) -> float:
        """Simulated seconds that a partition's device takes for a round with a share of the units."""
        return self._ratios.seconds(self._federation.fleet.devices[partition], keep, "round")

    def about(self, partition: int) -> str:
        """What a partition trains, for the log."""
        keep = self.keep(partition)
        return f"{keep:.2f} of the units, {self.seconds(partition, keep):.2f} s" if keep < 1 else "the whole model"

    @cached_property
    def _ratios(self) -> KeepRatios:
        return KeepRatios(self._federation, MaskIndexed(self._federation.units.layout, self.params))


def previous(context: Context, received: ArrayRecord) -> ArrayRecord | None:
    """The global model that this node has seen before this one, in this run; None if there was none.

    The state of a node outlives a run, and a round that was aborted sends the same model again.
    """
    state, run = context.state, ConfigRecord({"id": str(context.run_id)})
    if state.get(RUN) != run:
        for name in (SEEN, BEFORE):
            state.pop(name, None)
    seen = state.get(SEEN)
    if seen is not None and seen != received:
        state[BEFORE] = seen
    state[RUN], state[SEEN] = run, received
    return state.get(BEFORE)
