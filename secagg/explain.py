"""The preflight: what a round with given masks would withhold, and which setting frees it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from secagg import counts, declaration
from secagg.declaration import Declaration, Provenance
from secagg.errors import InputError
from secagg.layout import Layout, Tensor
from secagg.session import ID_BYTES, Session, refuse_forgeable_counts
from secagg.structure import mask_vector, named_leaves

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from secagg.params import Mode, Params


@dataclass(frozen=True)
class TensorRelease:
    """What happens to one tensor: its coordinates, how many are withheld, and the least coverage among them."""

    name: str
    coordinates: int
    withheld: int
    least_coverage: int


@dataclass(frozen=True)
class Explanation:
    """What a round would withhold.

    Args:
        clients: Number of clients.
        max_dropouts: Dropouts that the round would tolerate.
        required: Coverage that a coordinate needs.
        reason: ``required`` with the settings that it comes from.
        tensors: One entry for each tensor.
        mode: The mode explained.
        privacy_floor: ``min_cohort + corrupt``.
        participation: The participation threshold.
    """

    clients: int
    max_dropouts: int
    required: int
    reason: str
    tensors: tuple[TensorRelease, ...]
    mode: Mode
    privacy_floor: int
    participation: float

    @property
    def withheld_share(self) -> float:
        """Share of all coordinates that would be withheld."""
        return sum(t.withheld for t in self.tensors) / max(1, sum(t.coordinates for t in self.tensors))

    @property
    def remedy(self) -> str:
        """Which settings free what is withheld; empty if nothing is."""
        if not self.withheld_share:
            return ""
        least = min(t.least_coverage for t in self.tensors if t.withheld)
        if least < self.privacy_floor:
            return (
                f"let {self.required - least} more clients hold the least covered coordinates, "
                "or send whole updates in mode='uniform', without masks"
            )
        settings = []
        if self.privacy_floor + self.max_dropouts > least:
            settings.append(f"max_dropouts={least - self.privacy_floor}")
        if self.participation * self.clients > least:
            settings.append(f"participation={math.floor(100 * least / self.clients) / 100:g}")
        return f"{' and '.join(settings)} would release everything"

    def __str__(self) -> str:
        width = max(len(t.name) for t in self.tensors)
        lines = [f"{self.clients} clients, {self.mode}: a coordinate needs coverage {self.reason}"]
        lines += [
            f"  {t.name:{width}}  least coverage {t.least_coverage:4}  withheld {t.withheld} of {t.coordinates}"
            for t in self.tensors
        ]
        return "\n".join([*lines, self.remedy] if self.remedy else lines)


def explain(params: Params, masks: Mapping[Any, Any], mode: Mode, layout: Layout | None = None) -> Explanation:
    """See ``Params.explain``."""
    if not masks:
        raise InputError("masks holds no client")
    if layout is None:
        layout = _layout_of(masks)
    declared = [
        mask
        if isinstance(mask, Declaration)
        else declaration.of_coordinates(layout, mask_vector(layout, mask, client), Provenance.DATA)
        for client, mask in ((client, declaration.FULL if mask is None else mask) for client, mask in masks.items())
    ]
    session = Session(id=bytes(ID_BYTES), params=params, layout=layout, mode=mode)
    _, wired = session.topology(range(len(declared)), bytes(32))
    dropouts = params.dropouts_tolerated(len(declared), wired.needed)
    required = params.coverage_required(len(declared), dropouts)
    coverage = _coverage(params, layout, declared, mode)
    return Explanation(
        clients=len(declared),
        max_dropouts=dropouts,
        required=required,
        reason=params.explain_requirement(len(declared), dropouts),
        tensors=tuple(
            TensorRelease(
                tensor.name,
                tensor.size,
                int((coverage[place] < required).sum()),
                int(coverage[place].min(initial=len(declared))),
            )
            for tensor, place in layout.slices()
        ),
        mode=mode,
        privacy_floor=params.privacy_floor,
        participation=params.participation,
    )


def _layout_of(masks: Mapping[Any, Any]) -> Layout:
    """The layout that the first mask has whose tensors show."""
    shown = next((mask for mask in masks.values() if mask is not None and not isinstance(mask, Declaration)), None)
    if shown is None:
        raise InputError("layout must be given: declarations, and None for the whole model, name no tensors")
    return Layout(tuple(Tensor(name, tuple(leaf.shape)) for name, leaf in named_leaves(shown).items()))


def _coverage(params: Params, layout: Layout, declared: list[Declaration], mode: Mode) -> NDArray[np.int32]:
    if mode == "mask-indexed":
        return declaration.coverage(layout, declared)
    refuse_forgeable_counts(params)
    return counts.least_coverage(layout, counts.summed(layout, declared))
