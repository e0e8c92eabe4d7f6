"""The prunable weights of a model: kernels, numbered through, and the masks that hold the best of them.

Only kernels are pruned, weight by weight; biases and normalisations are always held. Such a mask saves bytes, not
operations. Of equal scores the lower coordinate is the better one, so that everybody computes the same mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from pruning.changes import values_of
from pruning.masks import Mask
from secagg.declaration import Provenance
from secagg.errors import LayoutMismatchError, NotFiniteError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from pruning.changes import State
    from secagg.layout import Layout

    Vector: TypeAlias = NDArray[np.float64]
    """A number for each coordinate of the kernels, (kernels.size,)."""

Scope: TypeAlias = Literal["layer", "global"]
"""Whether every kernel is pruned to the same density, or one ranking goes over all of them."""

FLOOR = 0.02
"""Least density of a kernel, so that none is cut through."""


@dataclass(frozen=True)
class Group:
    """Coordinates that are ranked together.

    Args:
        place: Their range among the coordinates of all kernels.
        floors: The kernels among them: range inside ``place``, and the fewest coordinates that one keeps.
    """

    place: slice
    floors: tuple[tuple[slice, int], ...]

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return int(self.place.stop - self.place.start)

    @property
    def least(self) -> int:
        """Fewest coordinates that are kept."""
        return sum(least for _, least in self.floors)

    def nearest(self, density: float) -> int:
        """How many coordinates a density leaves: the nearest number, halves up, and never fewer than the floors say."""
        return max(self.least, math.floor(density * self.size + 0.5))

    def keep(self, scores: Vector, active: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
        """The active coordinates that stay: in each kernel as many as its floor says, beyond that the best of all.

        Args:
            scores: One a coordinate, (size,).
            active: Those to choose from, (size,) bool.
            count: How many stay.
        """
        kept = np.zeros_like(active)
        for place, least in self.floors:
            kept[place] = best(scores[place], active[place], least)
        return kept | best(scores, active & ~kept, max(0, count - int(kept.sum())))


@dataclass(frozen=True)
class Kernels:
    """The prunable coordinates of a layout, numbered through: tensors of at least two axes, such as weights of layers.

    Args:
        layout: Of the model.

    Raises:
        ParameterError: The layout has no kernel.
    """

    layout: Layout

    def __post_init__(self) -> None:
        if not self.places:
            raise ParameterError("there is nothing to prune: the layout has no tensor of at least two axes")

    @cached_property
    def places(self) -> tuple[slice, ...]:
        """The range of each kernel among the coordinates of all kernels."""
        ends = np.cumsum([tensor.size for tensor in self.layout.tensors if _is_kernel(tensor.shape)]).tolist()
        return tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False))

    @cached_property
    def size(self) -> int:
        """Number of coordinates of all kernels."""
        return int(self.places[-1].stop)

    def values(self, state: State) -> Vector:
        """The kernels of a state, or of gradients by name, as one vector.

        Raises:
            LayoutMismatchError: A kernel is missing or has another shape.
        """
        kernels = (tensor for tensor in self.layout.tensors if _is_kernel(tensor.shape))
        return np.concatenate([values_of(state, tensor).reshape(-1) for tensor in kernels])

    def active(self, mask: Mask) -> NDArray[np.bool_]:
        """Which coordinates of the kernels a mask holds, (size,) bool.

        Raises:
            LayoutMismatchError: The mask is one of another layout.
        """
        if mask.layout != self.layout:
            raise LayoutMismatchError("the mask is one of another layout than the kernels")
        return mask.coordinates[self._prunable]

    def mask(self, active: NDArray[np.bool_], provenance: Provenance = Provenance.PUBLIC) -> Mask:
        """The mask that holds these coordinates of the kernels, and all that belongs to none.

        Args:
            active: (size,) bool.
            provenance: By default public: means over a cluster, and what follows from them, are.

        Raises:
            LayoutMismatchError: Another number of coordinates.
        """
        if active.shape != (self.size,):
            raise LayoutMismatchError(f"{self.size} coordinates need as many bools, not an array of {active.shape}")
        held = ~self._prunable
        held[self._prunable] = active
        return Mask.of_coordinates(self.layout, held, provenance)

    def density(self, mask: Mask) -> float:
        """Share of the kernels' coordinates that a mask holds; ``Mask.density`` counts those that are always held."""
        return float(self.active(mask).mean())

    def checked(self, what: str, values: ArrayLike) -> Vector:
        """The values as a vector.

        Raises:
            LayoutMismatchError: Not one for each coordinate.
            NotFiniteError: One is NaN or infinite.
        """
        vector = np.asarray(values, np.float64)
        if vector.shape != (self.size,):
            raise LayoutMismatchError(f"{what}: {self.size} coordinates need as many numbers, not {vector.shape}")
        if not np.isfinite(vector).all():
            raise NotFiniteError(f"{what}: NaN or infinity")
        return vector

    def groups(self, floor: float, scope: Scope) -> Iterator[Group]:
        """The kernels by what is ranked together: each by itself, or all of them.

        Args:
            floor: Least density of every kernel; at least one coordinate stays in any case.
            scope: Which of the two.
        """
        sizes = [place.stop - place.start for place in self.places]
        least = [max(1, math.ceil(floor * size - 1e-9)) for size in sizes]
        if scope == "global":
            yield Group(slice(0, self.size), tuple(zip(self.places, least, strict=True)))
            return
        for place, size, fewest in zip(self.places, sizes, least, strict=True):
            yield Group(place, ((slice(0, size), fewest),))

    @cached_property
    def _prunable(self) -> NDArray[np.bool_]:
        tensors = self.layout.tensors
        return np.repeat([_is_kernel(tensor.shape) for tensor in tensors], [tensor.size for tensor in tensors])


def snip_scores(weights: Vector, mean_gradient: Vector) -> Vector:
    """``|w * g|``: how much the loss changes, to first order, without a weight (SNIP, N. Lee et al., ICLR 2019)."""
    return np.abs(weights * mean_gradient)


def keep_top(
    kernels: Kernels,
    scores: ArrayLike,
    density: float,
    *,
    floor: float = FLOOR,
    scope: Scope = "global",
    provenance: Provenance = Provenance.PUBLIC,
) -> Mask:
    """Keeps the highest-scored coordinates of the kernels; of equal scores the lower coordinates.

    Args:
        kernels: Of the model.
        scores: One a coordinate, (kernels.size,).
        density: Share of the coordinates that is kept, to the nearest number, in (0, 1].
        floor: Least density of every kernel, at most ``density``.
        scope: One ranking over all kernels, as SNIP, or one in each.
        provenance: What the scores were computed from.

    Raises:
        LayoutMismatchError: Another number of scores than of coordinates.
        NotFiniteError: A score is NaN or infinite.
        ParameterError: A setting outside its domain.
    """
    check_density(density, floor, scope)
    order, active = kernels.checked("scores", scores), np.zeros(kernels.size, bool)
    for group in kernels.groups(floor, scope):
        everything = np.ones(group.size, bool)
        active[group.place] = group.keep(order[group.place], everything, group.nearest(density))
    return kernels.mask(active, provenance)


def best(scores: Vector, among: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """The ``count`` best of some coordinates; of equal ones the first."""
    places = np.flatnonzero(among)
    chosen = np.zeros_like(among)
    chosen[places[np.argsort(-scores[places], kind="stable")[:count]]] = True
    return chosen


def check_density(density: float, floor: float, scope: str) -> None:
    """Refuses settings outside their domains.

    Raises:
        ParameterError: ``density`` is not in (0, 1], ``floor`` above it or negative, or ``scope`` unknown.
    """
    if not 0 < density <= 1:
        raise ParameterError(f"a density must be in (0, 1], not {density}")
    if not 0 <= floor <= density:
        raise ParameterError(f"floor must be from 0 to the density {density}, not {floor}")
    if scope not in {"layer", "global"}:
        raise ParameterError(f"scope must be layer or global, not {scope!r}")


def _is_kernel(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 2 and math.prod(shape) > 0
