"""CLIP: a client drops the units that hardly change (arXiv 2510.16694), chosen by the client alone.

Reconstructed: the paper's scoring rule is not public. ``largest_relative_change`` follows its plaintext ancestor FLuID,
which calls a unit invariant if every one of its weights is; ``relative_norm`` is the alternative that a few large
changes of tiny weights cannot decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from pruning.changes import all_but, fold, largest_by_unit, parameter_tensors, relative, values_of
from pruning.masks import keep_units
from secagg.declaration import Provenance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pruning.changes import State
    from pruning.masks import Mask
    from pruning.units import Units
    from secagg.layout import Tensor

EPSILON = 1e-3
"""Added to a weight's or unit's size before dividing: below a typical trained weight, and above those still at zero."""


class Score(Protocol):
    """A number for each unit, (unit_count,) float64, from the parameters before and after; low is invariant."""

    def __call__(self, units: Units, before: State, after: State) -> NDArray[np.float64]:
        """Scores all units."""


def largest_relative_change(
    units: Units, before: State, after: State, *, epsilon: float = EPSILON
) -> NDArray[np.float64]:
    """For each unit the maximum of ``|after - before| / (|before| + epsilon)`` over its parameters, (unit_count,).

    A unit's parameters are its incoming weights, its bias and its outgoing weights; running statistics do not count.
    Reconstructed from FLuID's rule; the alternative is ``relative_norm``.

    Args:
        units: Of the model that the states belong to.
        before: Parameters by name at full shape; more entries than the parameters may be there.
        after: The same, later.
        epsilon: See ``EPSILON``; with 0 it is FLuID's measure (``pruning.fluid.relative_change``).

    Raises:
        LayoutMismatchError: A parameter is missing or has another shape.
    """
    pairs = _parameters(units, before, after)
    return largest_by_unit(units, ((tensor, relative(old, new, epsilon)) for tensor, old, new in pairs))


def relative_norm(units: Units, before: State, after: State, *, epsilon: float = EPSILON) -> NDArray[np.float64]:
    """For each unit ``norm(after - before) / (norm(before) + epsilon)`` over its parameters, (unit_count,).

    Arguments, errors and the set of parameters are those of ``largest_relative_change``, to which this is the
    alternative: also reconstructed, and closer to full training in trials.
    """
    changed, sizes = np.zeros((2, units.layout.unit_count))
    for tensor, old, new in _parameters(units, before, after):
        for squares, totals in (((new - old) ** 2, changed), (old**2, sizes)):
            for axis, owners in tensor.unit_axes.items():
                fold(np.add, totals, owners, squares.sum(axis=all_but(axis, squares)))
                # A weight from a unit to itself is one of its parameters once, not once along each axis.
                squares = _without_own(tensor, squares)  # noqa: PLW2901 - the second axis sees what the first left
    ratio: NDArray[np.float64] = np.sqrt(changed) / (np.sqrt(sizes) + epsilon)
    return ratio


def invariant_mask(
    units: Units,
    before: State,
    after: State,
    keep: float,
    *,
    statistic: Literal["local", "global"],
    score: Score = largest_relative_change,
) -> Mask:
    """Drops the lowest-scored, most invariant, units of each group.

    Args:
        units: Of the model that the states belong to.
        before: Parameters by name at full shape.
        after: The same, later.
        keep: Share of each group that is kept, in (0, 1].
        statistic: ``local``: the states are around the client's own last full update (a dropped unit has no local
            change, so a full round is needed now and then), and the mask is information about its data. ``global``:
            they are two consecutive public models, and the mask tells nothing that is not public.
        score: ``largest_relative_change`` (default), ``relative_norm`` or another.

    Raises:
        LayoutMismatchError: A parameter is missing or has another shape.
        ParameterError: ``keep`` is not in (0, 1].
    """
    provenance = Provenance.PUBLIC if statistic == "global" else Provenance.DATA
    return keep_units(units.layout, score(units, before, after), keep, provenance=provenance)


def _parameters(
    units: Units, before: State, after: State
) -> Iterator[tuple[Tensor, NDArray[np.float64], NDArray[np.float64]]]:
    for tensor in parameter_tensors(units):
        yield tensor, values_of(before, tensor), values_of(after, tensor)


def _without_own(tensor: Tensor, squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same squares, zero where both axes belong to the same unit."""
    if len(tensor.unit_axes) == 1:
        return squares
    (first, rows), (second, columns) = tensor.unit_axes.items()
    own = np.array(rows)[:, None] == np.array(columns)
    shape = [1] * squares.ndim
    shape[first], shape[second] = len(rows), len(columns)
    return np.where((own if first < second else own.T).reshape(shape), 0, squares)
