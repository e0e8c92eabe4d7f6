"""How parameters changed between two states of a model, and what that says of the units that own them.

A unit's parameters are its incoming weights, its bias and its outgoing weights; running statistics do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from secagg.errors import LayoutMismatchError
from secagg.layout import NO_UNIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import torch
    from numpy.typing import NDArray

    from pruning.units import Units
    from secagg.layout import Tensor

    State: TypeAlias = Mapping[str, torch.Tensor]


def parameter_tensors(units: Units) -> Iterator[Tensor]:
    """The tensors of the layout that gradients change, in its order."""
    return (tensor for tensor in units.layout.tensors if tensor.name in units.parameters)


def values_of(state: State, tensor: Tensor) -> NDArray[np.float64]:
    """The values of one tensor in a state at full shape.

    Raises:
        LayoutMismatchError: It is missing or has another shape.
    """
    if tensor.name not in state:
        raise LayoutMismatchError(f"{tensor.name!r} is missing")
    values: NDArray[np.float64] = state[tensor.name].detach().cpu().double().numpy()
    if values.shape != tensor.shape:
        raise LayoutMismatchError(f"{tensor.name!r} has shape {values.shape}, not {tensor.shape}")
    return values


def relative(old: NDArray[np.float64], new: NDArray[np.float64], epsilon: float = 0.0) -> NDArray[np.float64]:
    """``|new - old| / (|old| + epsilon)`` element by element; 0 where nothing changed, even if ``old`` is 0.

    Without ``epsilon`` a value that leaves 0 has changed infinitely.
    """
    moved = np.abs(new - old)
    with np.errstate(divide="ignore", over="ignore"):
        return np.divide(moved, np.abs(old) + epsilon, out=np.zeros_like(moved), where=moved != 0)


def largest_by_unit(units: Units, changes: Iterable[tuple[Tensor, NDArray[np.float64]]]) -> NDArray[np.float64]:
    """For each unit the largest change of its parameters, (unit_count,); at least 0.

    Args:
        units: Of the model.
        changes: Tensors, each with a change for each of its elements.
    """
    largest = np.zeros(units.layout.unit_count)
    for tensor, change in changes:
        for axis, owners in tensor.unit_axes.items():
            fold(np.maximum, largest, owners, change.max(axis=all_but(axis, change)))
    return largest


def fold(into: np.ufunc, totals: NDArray[np.float64], owners: tuple[int, ...], slices: NDArray[np.float64]) -> None:
    """Folds one value a slice into the totals of the slices' units, in place."""
    owned = np.array(owners)
    into.at(totals, owned[owned != NO_UNIT], slices[owned != NO_UNIT])


def all_but(axis: int, values: NDArray[np.float64]) -> tuple[int, ...]:
    """All other axes of an array."""
    return tuple(other for other in range(values.ndim) if other != axis)
