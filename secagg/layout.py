"""The public order of coordinates: which tensors a round aggregates, and which coordinates belong together.

A layout is known to everybody and secret to nobody. It fixes the canonical order (tensors as listed, each in
row-major order), the layers (tensors that are held together, as a rule those of one module) and the prunable units. A
unit, one neuron or one filter, owns slices of several tensors: its row of the weights that feed it, its bias, its
column of the weights that read it. A coordinate is held exactly when every unit that it belongs to is held.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

NO_UNIT = -1
"""Marks a slice of a tensor that belongs to no unit and is therefore always held."""


@dataclass(frozen=True)
class Tensor:
    """One aggregated tensor.

    Args:
        name: Its key in the update, for instance ``"fc1.weight"``.
        shape: Its shape; ``()`` for a scalar.
        dtype: Name of the floating-point type in which the result is returned, for instance ``"float32"``.
        unit_axes: Axis to the unit of each slice along it: a tuple as long as that axis, of unit numbers in the
            layout or ``NO_UNIT``. At most two axes.
        layer: Name of the layer that it belongs to; by default the module that owns it, ``"fc1"`` for ``"fc1.weight"``.

    Raises:
        ParameterError: ``unit_axes`` does not fit ``shape``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    unit_axes: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    layer: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        axes = {int(axis): tuple(int(unit) for unit in units) for axis, units in self.unit_axes.items()}
        object.__setattr__(self, "unit_axes", axes)
        object.__setattr__(self, "layer", self.layer or _module_of(self.name))
        if len(self.unit_axes) > 2:
            raise ParameterError(f"{self.name}: units on more than two axes")
        for axis, units in self.unit_axes.items():
            if not 0 <= axis < len(self.shape) or len(units) != self.shape[axis]:
                raise ParameterError(f"{self.name}: units of axis {axis} do not fit shape {self.shape}")

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The tensors of a round in canonical order, and their units.

    Args:
        tensors: In the order in which their coordinates are numbered.
        unit_groups: Group name (say, the layer whose outputs the units are) to its number of units. Units are
            numbered through, group after group.

    Raises:
        ParameterError: No tensor, a repeated name, or a unit number that no group holds.
    """

    tensors: tuple[Tensor, ...]
    unit_groups: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if not names:
            raise ParameterError("a layout needs at least one floating-point tensor")
        if not self.size:
            raise ParameterError("a layout needs at least one coordinate: all its tensors are empty")
        if len(set(names)) != len(names):
            raise ParameterError("a layout names a tensor twice")
        if any(size < 1 for size in self.unit_groups.values()):
            raise ParameterError("a unit group needs at least one unit")
        for tensor in self.tensors:
            for units in tensor.unit_axes.values():
                if units and not (min(units) >= NO_UNIT and max(units) < self.unit_count):
                    raise ParameterError(f"{tensor.name}: a unit number is outside the layout's {self.unit_count}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Layout:
        """The layout of named arrays, without units."""
        return cls(tuple(Tensor(name, array.shape, array.dtype.name) for name, array in arrays.items()))

    @cached_property
    def size(self) -> int:
        """Number of coordinates, d."""
        return sum(tensor.size for tensor in self.tensors)

    @cached_property
    def unit_count(self) -> int:
        """Number of units over all groups."""
        return sum(self.unit_groups.values())

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Layer names in order of first appearance."""
        return tuple(dict.fromkeys(tensor.layer for tensor in self.tensors))

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over all of the above: two parties whose digests agree number coordinates alike."""
        text = repr(([_described(tensor) for tensor in self.tensors], list(self.unit_groups.items())))
        return hashlib.sha256(b"secagg layout" + text.encode()).digest()

    def slices(self) -> Iterator[tuple[Tensor, slice]]:
        """Each tensor with the range of its coordinates."""
        start = 0
        for tensor in self.tensors:
            yield tensor, slice(start, start + tensor.size)
            start += tensor.size

    def units_of(self, group: str) -> range:
        """Unit numbers of a group.

        Raises:
            ParameterError: The layout has no such group.
        """
        start = 0
        for name, size in self.unit_groups.items():
            if name == group:
                return range(start, start + size)
            start += size
        raise ParameterError(f"no unit group {group!r}; there are {', '.join(self.unit_groups) or 'none'}")

    def by_tensor(self, vector: NDArray[Scalar]) -> dict[str, NDArray[Scalar]]:
        """A vector of ``size`` coordinates as views, named and shaped like the tensors."""
        return {tensor.name: vector[place].reshape(tensor.shape) for tensor, place in self.slices()}

    def coordinates_of_units(self, held_units: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which coordinates are held when exactly the given units are. Shapes (unit_count,) to (size,)."""
        held = np.empty(self.size, bool)
        for tensor, place in self.slices():
            held[place] = np.broadcast_to(_along_axes(tensor, held_units), tensor.shape).reshape(-1)
        return held

    def coordinates_of_layers(self, held_layers: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which coordinates are held when exactly the given layers are. Shapes (len(layers),) to (size,)."""
        number = {layer: index for index, layer in enumerate(self.layers)}
        sizes = [tensor.size for tensor in self.tensors]
        return np.repeat(held_layers[[number[tensor.layer] for tensor in self.tensors]], sizes)

    def count_by_units(self, held_units: NDArray[np.bool_]) -> NDArray[np.int32]:
        """How many clients hold each coordinate, from their units alone. Shapes (n, unit_count) to (size,).

        A weight between units u and v is held by the clients that hold both, so a tensor's counts are a product of
        two bit matrices: n = 1000 clients cost a matrix product, not n passes over all coordinates.
        """
        clients = len(held_units)
        counts = np.empty(self.size, np.int32)
        for tensor, place in self.slices():
            bits = [_bits_along(units, held_units).astype(np.float32) for _, units in sorted(tensor.unit_axes.items())]
            match bits:
                case [rows, columns]:
                    product = rows.T @ columns
                case [single]:
                    product = single.sum(axis=0)
                case _:
                    product = np.full(1, clients, np.float32)
            shape = [size if axis in tensor.unit_axes else 1 for axis, size in enumerate(tensor.shape)]
            counts[place] = np.broadcast_to(np.reshape(product, shape), tensor.shape).reshape(-1)
        return counts


def _module_of(name: str) -> str:
    return name.rpartition(".")[0] or name


def _described(tensor: Tensor) -> tuple[object, ...]:
    """What the digest says of a tensor: its layer only where another than the default is given."""
    given = (tensor.layer,) * (tensor.layer != _module_of(tensor.name))
    return tensor.name, tensor.shape, tensor.dtype, sorted(tensor.unit_axes.items()), *given


def _bits_along(units: Sequence[int], held_units: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each slice of an axis is held; the last axis of ``held_units`` is the unit, slices without one are."""
    always = np.ones((*held_units.shape[:-1], 1), bool)
    return np.concatenate([held_units, always], axis=-1)[..., np.asarray(units, np.intp)]


def _along_axes(tensor: Tensor, held_units: NDArray[np.bool_]) -> NDArray[np.bool_]:
    held = np.ones((1,) * len(tensor.shape), bool)
    for axis, units in tensor.unit_axes.items():
        shape = [1] * len(tensor.shape)
        shape[axis] = -1
        held = held & _bits_along(units, held_units).reshape(shape)
    return held
