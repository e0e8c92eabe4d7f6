"""How much of a model a straggler can train and still keep up: keep ratios from real operations and bytes."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Literal

from protocols.fetch import Served, leaves_for
from protocols.simulation.clock import ClientTime, client_time
from pruning.cost import SubmodelCosts
from pruning.masks import Mask, ordered_units

if TYPE_CHECKING:
    from protocols.aggregators import Aggregator
    from protocols.federation import Federation
    from protocols.simulation.devices import Device
    from secagg.layout import Layout

Budget = Literal["compute", "round"]
"""What has to fit: training into the others' training, or training and links into their round."""


class KeepRatios:
    """Solves for the keep ratio with which a device keeps up.

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
        mask = of_size(layout, keep)
        fetched = leaves_for(mask if self._fetches_parts else Mask.full(layout))
        return client_time(
            device,
            flops=setup.training.steps * self._costs.at(keep).step_flops,
            download_bytes=self._served.fetch(fetched).nbytes,
            upload_bytes=self._aggregator.upload_of(mask, setup.cohort_size),
        )

    def seconds(self, device: Device, keep: float, budget: Budget) -> float:
        """The part of ``time`` that a budget is about."""
        time = self.time(device, keep)
        return time.compute if budget == "compute" else time.total

    def solve(self, device: Device, budget: Budget, deadline: float, least_keep: float) -> float:
        """The largest keep ratio with which a device meets a deadline, but at least ``least_keep``.

        Operations and bytes are counted on real submodels: half the units leave a quarter of the operations between
        two layers, so the ratio of two times taken as a share of units would prune too much.

        Args:
            device: Whose.
            budget: Which part of the time has to fit.
            deadline: Into how many seconds.
            least_keep: The floor.
        """
        ratios = self._costs.keep_ratios()
        within = bisect_right(ratios, deadline, key=lambda keep: self.seconds(device, keep, budget))
        return max(ratios[within - 1] if within else 0.0, least_keep)


def of_size(layout: Layout, keep: float) -> Mask:
    """A mask of the size that a keep ratio leaves; which units it keeps changes neither operations nor bytes."""
    return ordered_units(layout, keep) if keep < 1 else Mask.full(layout)
