"""The end of a session: from integer sums to the weighted mean, with what is withheld marked as such."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from secagg import encoding
from secagg.declaration import FULL, Provenance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from secagg.layout import Layout
    from secagg.params import Mode, Params
    from secagg.privacy.events import Event
    from secagg.release import Plan, Slots

SeenOfMasks: TypeAlias = Literal["nothing", "counts", "denominators", "each"]
"""Nothing; counts by unit and layer; how many hold each coordinate, from which masks follow; everybody's mask."""


@dataclass(frozen=True)
class Revealed:
    """What a session shows besides the sums of values.

    Args:
        masks: What it shows of masks.
        from_data: Declared masks that were computed from data.
        weights: The slots in which weights are summed, ``"none"`` where each is public; None if all weigh the same.
    """

    masks: SeenOfMasks
    from_data: int
    weights: Slots | None


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
    def layout(self) -> Layout:
        """The layout of the updates."""
        return self.plan.session.layout

    @property
    def mode(self) -> Mode:
        """The mode of the session."""
        return self.plan.session.mode

    @property
    def params(self) -> Params:
        """The settings of the session."""
        return self.plan.session.params

    @property
    def mean(self) -> NDArray[np.float64]:
        """``sum / weight``: the weighted mean over those who hold a coordinate. NaN where withheld."""
        return mean_of(self.sum, self.weight)

    @property
    def released(self) -> NDArray[np.bool_]:
        """Whether each coordinate is released, (layout.size,) bool."""
        return self.plan.released

    @property
    def coverage(self) -> NDArray[np.int32] | None:
        """Clients that declared each coordinate, (layout.size,) int32; None in uniform mode, where nobody knows."""
        return None if self.mode == "uniform" else self.plan.coverage

    @property
    def event(self) -> Event | None:
        """What this session was to whoever accounts for privacy (``PrivacyLedger.record``); see ``Plan.event``."""
        return self.plan.event(self.survivors)

    @property
    def smallest_group(self) -> int:
        """Fewest survivors in any released sum."""
        return int(self.plan.survivors_coverage(self.survivors).min())

    @property
    def revealed(self) -> Revealed:
        """What the session showed besides these sums."""
        session = self.plan.session
        declared = [participant.declaration for participant in self.plan.participants.values()]
        masks: SeenOfMasks = "nothing" if all(one == FULL for one in declared) else "each"
        if session.params.exact_denominators:
            masks = "denominators"
        elif session.counted is not None:
            masks = "counts"
        from_data = sum(one.provenance is Provenance.DATA for one in declared)
        return Revealed(masks, from_data, self.plan.slots if session.weighted else None)


def mean_of(sums: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """``sums / weight``, NaN where there is no weight or no sum."""
    with np.errstate(invalid="ignore"):
        return np.divide(sums, weight, out=np.full_like(sums, np.nan), where=weight > 0)


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
