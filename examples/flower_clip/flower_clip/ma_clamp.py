"""MA-CLAMP: a node trains as many of the last blocks as its device bears, and each block is averaged by itself.

A depth follows the round times of its own device alone. The mask says how fast that is, and nothing about data. A block
that fewer than ``PARTICIPATION`` of the nodes train leaves none of them: nodes count the depths that were declared with
the shares, before they mask a vector.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from flwr.app import ConfigRecord

from protocols import ma_clamp
from protocols.aggregators import MaskIndexed
from protocols.depth import DepthState, DeviceSignals, by_time
from protocols.fetch import Served, leaves_for
from protocols.ma_clamp import DepthSettings
from protocols.simulation.clock import client_time
from pruning.depth import depth_mask
from pruning.masks import Mask
from pruning.submodel import extract
from secagg import Params

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Context

    from .task import Task

STATE = "ma-clamp"

PARTICIPATION = 0.5
"""Share of the nodes that have to train a block (tau)."""

WHOLE = 1000
"""More blocks than a model has: everybody begins with all of it."""


class MaClamp:
    """What MA-CLAMP decides.

    Args:
        task: What is trained, on which devices.
    """

    def __init__(self, task: Task) -> None:
        self._federation = task.federation
        self.params = Params(min_cohort=2, max_dropouts=task.max_dropouts, participation=PARTICIPATION)
        # The jitter of MA-CLAMP's thresholds is for fleets in which many devices would change their depth at once.
        settings = DepthSettings(depth=WHOLE, patience=task.patience, jitter=False)
        self._system = ma_clamp.MaClamp(
            self._federation, MaskIndexed(self._federation.units.layout, self.params), settings
        )

    def mask(self, partition: int, context: Context, received: ArrayRecord) -> Mask:  # noqa: ARG002 - the device decides
        """The blocks that a partition trains, and the depth of its next round from the time that it takes."""
        rule, name = self._system.rule, self._federation.fleet.names[partition]
        run, kept = str(context.run_id), dict(context.state.get(STATE, {}))
        standing = DepthState.from_json(kept) if kept.pop("run", None) == run else rule.start(WHOLE)
        signals = DeviceSignals(seconds=self.seconds(partition, standing.depth))
        following = rule.next(standing, by_time(signals, rule.thresholds(self._federation.fleet.number(name))))
        context.state[STATE] = ConfigRecord({"run": run, **following.to_json()})
        return self.blocks(standing.depth)

    def blocks(self, depth: int) -> Mask:
        """The last so many blocks."""
        return depth_mask(self._federation.units, self._system.blocks, depth)

    def seconds(self, partition: int, depth: int) -> float:
        """Simulated seconds that a partition's device takes for a round with the last so many blocks."""
        federation, mask = self._federation, self.blocks(depth)
        step = self._system.measuring.costs.of(extract(federation.model, mask))
        return client_time(
            federation.fleet.devices[partition],
            flops=federation.training.steps * step.step_flops,
            download_bytes=self._download_bytes,
            upload_bytes=self._system.aggregator.upload_of(mask, federation.cohort_size),
        ).total

    def about(self, partition: int) -> str:
        """What a partition trains, for the log."""
        return f"all {len(self._system.blocks)} blocks at first; {self._within(partition)} of them within the limit"

    def _within(self, partition: int) -> int:
        """Most blocks with which a device is not slow; 0 if it always is."""
        depths = range(1, len(self._system.blocks) + 1)
        return max((one for one in depths if self.seconds(partition, one) <= self._system.rule.t_high), default=0)

    @cached_property
    def _download_bytes(self) -> int:
        layout = self._federation.units.layout
        return Served(layout, self._federation.start().state).fetch(leaves_for(Mask.full(layout))).nbytes
