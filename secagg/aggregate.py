"""The end of a session: from integer sums to the weighted mean, with what is withheld marked as such."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from secagg import encoding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from secagg.privacy.events import Event
    from secagg.release import Plan


@dataclass(frozen=True, eq=False)
class Aggregate:
    """What a session released, over the coordinates of its layout.

    Args:
        plan: The plan that it followed.
        survivors: Clients in the sums, U3, ascending.
        integers: The ring sums as signed integers, one for each place of the plan's vector. Two aggregations of the
            same updates agree exactly here, encrypted or not.
        sum: Weighted sum, in units of weight times value. NaN where withheld. (layout.size,) float64.
        weight: Total weight behind each coordinate, zero where withheld. (layout.size,) float64.
        total_weight: Total weight of the survivors.
    """

    plan: Plan = field(repr=False)
    survivors: tuple[int, ...]
    integers: NDArray[np.int64] = field(repr=False)
    sum: NDArray[np.float64] = field(repr=False)
    weight: NDArray[np.float64] = field(repr=False)
    total_weight: float

    @property
    def mean(self) -> NDArray[np.float64]:
        """``sum / weight``: the weighted mean over those who hold a coordinate. NaN where withheld."""
        with np.errstate(invalid="ignore"):
            return np.divide(self.sum, self.weight, out=np.full_like(self.sum, np.nan), where=self.weight > 0)

    @property
    def event(self) -> Event | None:
        """What this session was to whoever accounts for privacy (``PrivacyLedger.record``); see ``Plan.event``."""
        return self.plan.event(self.survivors)

    @property
    def smallest_group(self) -> int:
        """Fewest survivors in any released sum."""
        return int(self.plan.survivors_coverage(self.survivors).min())


def decode(plan: Plan, survivors: tuple[int, ...], integers: NDArray[np.int64]) -> Aggregate:
    """Reads an aggregate off the sums of the plan's vector over the survivors, (plan.length,) int64."""
    params, layout = plan.session.params, plan.session.layout
    slots = integers[plan.released_count :]
    unit = params.max_weight if plan.session.weighted else 1.0
    weight, total = _denominators(plan, survivors, slots)
    sums = np.full(layout.size, np.nan)
    sums[plan.released] = plan.values(integers) * unit
    weights = np.zeros(layout.size)
    weights[plan.released] = weight * unit
    return Aggregate(plan, survivors, integers, sums, weights, total * unit)


def _denominators(
    plan: Plan, survivors: tuple[int, ...], slots: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    """Weight behind each released coordinate and in total, in units of ``max_weight`` (of 1 without weights)."""
    session = plan.session
    per_unit = session.params.magnitude if session.weighted else 1
    count = plan.released_count
    match plan.slots:
        case "coordinates":
            return (slots[:-1] / per_unit).astype(np.float64), int(slots[-1]) / per_unit
        case "total":
            total = int(slots[0]) / per_unit
            if session.mode == "uniform":
                return np.full(count, total), total
            mean_weight = total / len(survivors)
            return np.multiply(plan.survivors_coverage(survivors), mean_weight, dtype=np.float64), total
        case "groups":
            weight = np.zeros(count)
            for group, slot in zip(plan.groups, slots, strict=True):
                weight[plan.held(group[0])] += slot / per_unit
            return weight, float(slots.sum()) / per_unit
        case "none" if session.weighted:
            weight, total = np.zeros(count), 0.0
            for client in survivors:
                share = public_weight(plan, client) / per_unit
                weight[plan.held(client)] += share
                total += share
            return weight, total
        case "none":
            if session.mode == "uniform":
                return np.full(count, float(len(survivors))), float(len(survivors))
            return plan.survivors_coverage(survivors).astype(np.float64), float(len(survivors))


def public_weight(plan: Plan, client: int) -> int:
    """The encoded weight that a client declared."""
    bucket = plan.participants[client].weight_bucket
    return encoding.bucket_weight(plan.session.params, 0 if bucket is None else bucket)
