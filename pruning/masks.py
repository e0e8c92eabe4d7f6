"""Masks: which coordinates of a layout one client holds, and generic policies that choose units.

A mask is made of whole units (it has a smaller module), of whole layers (their training can be skipped) or of single
coordinates (it saves bytes only).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from secagg import declaration
from secagg.declaration import Declaration, Provenance
from secagg.errors import LayoutMismatchError, NotFiniteError, ParameterError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from secagg.layout import Layout


@dataclass(frozen=True, eq=False)
class Mask:
    """The coordinates that one client holds; made by ``full``, ``of_units``, ``of_layers`` or ``of_coordinates``.

    Two masks are equal when their layouts, kinds, held sets and provenances are.

    Args:
        layout: What the coordinates belong to.
        kind: What ``held`` counts. A ``full`` mask has no ``held`` of its own: it is that of all units.
        held: (unit_count,), (len(layers),) or (size,) bool; a read-only copy is kept.
        provenance: What the mask was computed from.

    Raises:
        LayoutMismatchError: ``held`` is no bool vector of the length that the layout asks for.
    """

    layout: Layout
    kind: Literal["full", "units", "layers", "coordinates"]
    held: NDArray[np.bool_]
    provenance: Provenance

    def __post_init__(self) -> None:
        held = np.array(self.held)
        held.setflags(write=False)
        object.__setattr__(self, "held", held)
        if self.kind != "full":
            self.declaration()

    @classmethod
    def full(cls, layout: Layout, provenance: Provenance = Provenance.PUBLIC) -> Mask:
        """Everything."""
        return cls(layout, "full", np.ones(layout.unit_count, bool), provenance)

    @classmethod
    def of_units(cls, layout: Layout, held: NDArray[np.bool_], provenance: Provenance = Provenance.DATA) -> Mask:
        """Whole units: a coordinate is held when all of its units are. ``held``: (unit_count,) bool."""
        return cls(layout, "units", held, provenance)

    @classmethod
    def of_layers(cls, layout: Layout, held: NDArray[np.bool_], provenance: Provenance = Provenance.DATA) -> Mask:
        """Whole layers. ``held``: (len(layout.layers),) bool."""
        return cls(layout, "layers", held, provenance)

    @classmethod
    def of_coordinates(cls, layout: Layout, held: NDArray[np.bool_], provenance: Provenance = Provenance.DATA) -> Mask:
        """Any coordinates, ``held``: (size,) bool. A set of whole units or layers becomes a mask of those."""
        coded = declaration.of_coordinates(layout, held, provenance)
        match coded.kind:
            case "full":
                return cls.full(layout, provenance)
            case "units":
                return cls(layout, "units", _bits(coded.data, layout.unit_count), provenance)
            case "layers":
                return cls(layout, "layers", _bits(coded.data, len(layout.layers)), provenance)
            case _:
                return cls(layout, "coordinates", held, provenance)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[bytes, str, bytes, Provenance]:
        return self.layout.digest, self.kind, self.held.tobytes(), self.provenance

    def declaration(self) -> Declaration:
        """The mask as the server is told it."""
        return self._declaration

    @cached_property
    def _declaration(self) -> Declaration:
        match self.kind:
            case "full":
                return Declaration("full", b"", self.provenance)
            case "units":
                return declaration.of_units(self.layout, self.held, self.provenance)
            case "layers":
                return declaration.of_layers(self.layout, self.held, self.provenance)
            case "coordinates":
                return declaration.of_coordinates(self.layout, self.held, self.provenance)

    @cached_property
    def coordinates(self) -> NDArray[np.bool_]:
        """Whether each coordinate is held, (layout.size,) bool, read-only."""
        match self.kind:
            case "full":
                held = np.ones(self.layout.size, bool)
            case "units":
                held = self.layout.coordinates_of_units(self.held)
            case "layers":
                held = self.layout.coordinates_of_layers(self.held)
            case "coordinates":
                held = self.held
        held.setflags(write=False)
        return held

    @property
    def density(self) -> float:
        """Share of the coordinates that is held."""
        return float(self.coordinates.mean())

    def by_tensor(self) -> dict[str, NDArray[np.bool_]]:
        """Tensor name to bools in the tensor's shape, as a session takes its masks; the arrays are the caller's."""
        return {name: held.astype(bool) for name, held in self.layout.by_tensor(self.coordinates).items()}


def kept_units(size: int, keep: float) -> int:
    """How many units of a group of ``size`` a keep ratio leaves: the nearest number, halves up, and at least one.

    Raises:
        ParameterError: ``keep`` is not in (0, 1].
    """
    if not 0 < keep <= 1:
        raise ParameterError(f"a keep ratio must be in (0, 1], not {keep}")
    return max(1, math.floor(keep * size + 0.5))


def keep_units(layout: Layout, scores: ArrayLike, keep: float, *, provenance: Provenance = Provenance.DATA) -> Mask:
    """Keeps the highest-scored units of each group; of equal scores the first units.

    Args:
        layout: Says which units there are.
        scores: One a unit, (unit_count,) real; only their order within a group counts.
        keep: Share of each group that is kept, as ``kept_units``.
        provenance: What the scores were computed from.

    Raises:
        LayoutMismatchError: Another number of scores than of units.
        NotFiniteError: A score is NaN, which has no place in an order.
        ParameterError: ``keep`` is not in (0, 1].
    """
    values = np.asarray(scores, np.float64)
    if values.shape != (layout.unit_count,):
        raise LayoutMismatchError(f"{layout.unit_count} units need as many scores, not an array of {values.shape}")
    if np.isnan(values).any():
        raise NotFiniteError("a unit's score is NaN")
    held = np.zeros(layout.unit_count, bool)
    for group, size in layout.unit_groups.items():
        start = layout.units_of(group).start
        best_first = np.argsort(-values[start : start + size], kind="stable")
        held[start + best_first[: kept_units(size, keep)]] = True
    return Mask.of_units(layout, held, provenance)


def random_units(
    layout: Layout, keep: float, generator: np.random.Generator, *, provenance: Provenance = Provenance.DEVICE
) -> Mask:
    """Keeps units of each group at random (Random Dropout). ``generator`` is the only source of randomness."""
    return keep_units(layout, generator.random(layout.unit_count), keep, provenance=provenance)


def ordered_units(layout: Layout, keep: float, *, provenance: Provenance = Provenance.DEVICE) -> Mask:
    """Keeps the first units of each group (Ordered Dropout, S. Horvath et al., "FjORD", NeurIPS 2021).

    Masks are nested: a unit held at one keep ratio is held at every larger one.
    """
    return keep_units(layout, np.zeros(layout.unit_count), keep, provenance=provenance)


def _bits(data: bytes, count: int) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count).astype(bool)
