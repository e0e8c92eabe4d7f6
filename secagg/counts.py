"""Counting before aggregating: how a uniform session learns what to withhold without learning anybody's mask.

A session of its own, with keys of its own, sums a few bits a client: is it dense, does it hold layer l whole, does it
hold unit u. From the sums follows a lower bound of every coordinate's coverage; nothing finer is ever summed, because
pairwise counts of units would be the masks' Gram matrix, from which the masks can be read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from secagg import declaration
from secagg.layout import Layout, Tensor
from secagg.session import refuse_forgeable_counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from secagg.declaration import Declaration
    from secagg.params import Params

DENSE, STRUCTURED, LAYERS, UNITS = "dense", "structured", "layers", "units"


def counting_layout(layout: Layout) -> Layout:
    """The layout of the counting session that goes with a layout."""
    sizes = {DENSE: 1, STRUCTURED: 1, LAYERS: len(layout.layers), UNITS: layout.unit_count}
    return Layout(tuple(Tensor(name, (size,)) for name, size in sizes.items()))


def counting_params(params: Params) -> Params:
    """The settings of the counting session.

    Raises:
        ParameterError: The server is active.
    """
    refuse_forgeable_counts(params)
    return bit_params(params)


def bit_params(params: Params) -> Params:
    """The settings of a session that counts: the same thresholds and adversary, and values that are bits."""
    return replace(
        params,
        value_range=1.0,
        levels=4,
        out_of_range="refuse",
        weighting="hidden",
        exact_denominators=False,
        participation=0.0,
        privacy=None,
    )


def bits(layout: Layout, declared: Declaration) -> dict[str, NDArray[np.float64]]:
    """What a client contributes to the counting session.

    Args:
        layout: The layout of the session proper.
        declared: What the client holds. A mask that is not made of units counts for the layers that it holds whole.
    """
    own = declaration.expand(layout, declared)
    dense = bool(own.all())
    layers = dict.fromkeys(layout.layers, True)
    for tensor, place in layout.slices():
        layers[tensor.layer] &= bool(own[place].all())
    units = np.zeros(layout.unit_count)
    if dense:
        units[:] = 1
    elif declared.kind == "units":
        units[:] = declaration.read_units(layout, declared)
    return {
        DENSE: np.array([dense], float),
        STRUCTURED: np.array([dense or declared.kind == "units"], float),
        LAYERS: np.array(list(layers.values()), float),
        UNITS: units,
    }


def summed(layout: Layout, declared: Iterable[Declaration]) -> dict[str, NDArray[np.float64]]:
    """What the counting session of clients that declare this comes to.

    Args:
        layout: The layout of the session proper.
        declared: What each client holds; at least one client.
    """
    brought = [bits(layout, one) for one in declared]
    return {name: np.sum([one[name] for one in brought], axis=0) for name in brought[0]}


def least_coverage(layout: Layout, sums: Mapping[str, NDArray[np.float64]]) -> NDArray[np.int32]:
    """A lower bound of each coordinate's coverage, from the summed bits. (layout.size,) int32.

    A coordinate of units u and v is held by every unit-structured client that holds both; of s such clients at least
    count_u + count_v - s do. Dense clients, and those that hold its whole layer, hold it as well.
    """
    count = {name: np.rint(np.asarray(value)).astype(np.int64) for name, value in sums.items()}
    structured = int(count[STRUCTURED][0])
    of_layer = dict(zip(layout.layers, count[LAYERS], strict=True))
    per_unit = np.append(count[UNITS], structured)  # NO_UNIT, -1: every structured client holds the slice
    least = np.empty(layout.size, np.int32)
    for tensor, place in layout.slices():
        bound = np.full((1,) * len(tensor.shape), structured)
        for axis, units in tensor.unit_axes.items():
            shape = [1] * len(tensor.shape)
            shape[axis] = -1
            bound = bound + per_unit[np.asarray(units, np.intp)].reshape(shape) - structured
        floor = max(int(count[DENSE][0]), int(of_layer[tensor.layer]))
        least[place] = np.broadcast_to(np.maximum(bound, floor), tensor.shape).reshape(-1)
    return least
