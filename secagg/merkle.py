"""The model root: one hash of the model that updates start from, with proofs for the parts that a client fetched.

Everybody puts the root into the ``Session``, so that a server that hands different models to different clients ends
the session instead of reading updates off it. A client that trains a submodel fetches some leaves only, and checks
them against the root. The tree is that of Certificate Transparency (RFC 9162, section 2.1), with SHA-256.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from secagg.errors import SERVER, AgreementError, LayoutMismatchError, ParameterError
from secagg.layout import NO_UNIT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from secagg.layout import Layout, Tensor

_LEAF, _NODE = b"\x00", b"\x01"


def root(leaves: Sequence[bytes]) -> bytes:
    """The root of a tree, 32 bytes.

    Raises:
        ParameterError: No leaves.
    """
    if not leaves:
        raise ParameterError("a model root needs at least one leaf")
    return _subtree(leaves, 0, len(leaves))


def prove(leaves: Sequence[bytes], chosen: Collection[int]) -> tuple[bytes, ...]:
    """What it takes to check the chosen leaves: the roots of the largest subtrees without any of them, left to right.

    Args:
        leaves: All leaves.
        chosen: Numbers of those that the client has fetched.
    """
    return tuple(_subtree(leaves, first, last) for first, last in _uncovered(frozenset(chosen), 0, len(leaves)))


def check(model_root: bytes, count: int, fetched: Mapping[int, bytes], proof: Sequence[bytes]) -> None:
    """Refuses leaves that are not those under the root.

    Args:
        model_root: Of the session.
        count: Leaves of the whole tree; follows from the layout.
        fetched: Number of a leaf to the leaf.
        proof: As ``prove`` makes it.

    Raises:
        AgreementError: They are not, or the proof does not fit them; the culprit is the server.
    """
    subtrees = list(_uncovered(frozenset(fetched), 0, count))
    if len(subtrees) != len(proof) or not set(fetched) <= set(range(count)):
        raise AgreementError("the proof does not fit the parts of the model that were fetched", culprits=[SERVER])
    if _rebuilt(fetched, dict(zip(subtrees, proof, strict=True)), 0, count) != model_root:
        raise AgreementError(
            "the parts of the model that were fetched are not those under the session's model root", culprits=[SERVER]
        )


def model_leaves(layout: Layout, model: Mapping[str, ArrayLike]) -> tuple[bytes, ...]:
    """The leaves of a model: one for each unit in layout order, then one for each tensor.

    A unit's leaf holds the coordinates that it owns: its slices along the first axis of units of each tensor, so the
    weights that feed it, whole, its bias, and the weights that read it in a layer without units. A tensor's leaf holds
    what no unit owns. Values are little-endian, tensor after tensor, each in row-major order; bfloat16 as float32.

    Args:
        layout: The layout of the session.
        model: Tensor name to values, in the shapes of the layout.

    Raises:
        LayoutMismatchError: Other names or shapes.
    """
    if set(model) != {tensor.name for tensor in layout.tensors}:
        raise LayoutMismatchError("the model has other tensors than the layout")
    leaves = [bytearray() for _ in range(leaf_count(layout))]
    for number, tensor in enumerate(layout.tensors):
        values = np.asarray(model[tensor.name], dtype=_stored(tensor))
        if values.shape != tensor.shape:
            raise LayoutMismatchError(
                f"{tensor.name} has shape {values.shape} in the model, {tensor.shape} in the layout"
            )
        slices, owners = _by_owner(layout, number, values)
        for place, leaf in enumerate(owners):
            leaves[leaf] += slices[place].tobytes()
    return tuple(map(bytes, leaves))


def model_of(layout: Layout, fetched: Mapping[int, bytes]) -> dict[str, NDArray[np.floating[Any]]]:
    """The model that leaves hold, NaN wherever those that were not fetched do.

    Args:
        layout: The layout of the session.
        fetched: Number of a leaf to the leaf.

    Raises:
        AgreementError: A leaf is longer or shorter than the layout says; the culprit is the server.
    """
    rest = {number: memoryview(leaf) for number, leaf in fetched.items()}
    model = {}
    for number, tensor in enumerate(layout.tensors):
        values = np.full(tensor.shape, np.nan, _stored(tensor))
        slices, owners = _by_owner(layout, number, values)
        nbytes = slices[:1].nbytes
        for place, leaf in enumerate(owners):
            if leaf not in rest:
                continue
            part, rest[leaf] = rest[leaf][:nbytes], rest[leaf][nbytes:]
            if len(part) != nbytes:
                raise AgreementError("a part of the model is shorter than the layout says", culprits=[SERVER])
            slices[place] = np.frombuffer(part, values.dtype).reshape(slices.shape[1:])
        model[tensor.name] = values
    if any(rest.values()):
        raise AgreementError("a part of the model is longer than the layout says", culprits=[SERVER])
    return model


def leaf_count(layout: Layout) -> int:
    """Leaves of a model."""
    return layout.unit_count + len(layout.tensors)


def leaves_of_units(layout: Layout, held: NDArray[np.bool_]) -> frozenset[int]:
    """The leaves that a submodel of some units needs: theirs, and those of all tensors.

    Args:
        layout: The layout of the session.
        held: Whether the submodel has a unit, (layout.unit_count,) bool.
    """
    return frozenset(np.flatnonzero(held).tolist()) | frozenset(range(layout.unit_count, leaf_count(layout)))


def _stored(tensor: Tensor) -> np.dtype[np.floating[Any]]:
    """How a tensor's values stand in leaves; numpy has no bfloat16, and float32 holds each exactly."""
    return np.dtype("float32" if tensor.dtype == "bfloat16" else tensor.dtype).newbyteorder("<")


def _by_owner(
    layout: Layout, number: int, values: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.floating[Any]], list[int]]:
    """A view of a tensor as slices, and the number of the leaf that each stands in; a tensor without units is one."""
    of_tensor = layout.unit_count + number
    for axis, units in sorted(layout.tensors[number].unit_axes.items()):
        if set(units) != {NO_UNIT}:
            return np.moveaxis(values, axis, 0), [of_tensor if unit == NO_UNIT else unit for unit in units]
    return values[np.newaxis], [of_tensor]


def _split(first: int, last: int) -> int:
    """Where a range of leaves parts: after the largest power of two below their number."""
    return first + (1 << (last - first - 1).bit_length() - 1)


def _subtree(leaves: Sequence[bytes], first: int, last: int) -> bytes:
    return _rebuilt(dict(zip(range(first, last), leaves[first:last], strict=True)), {}, first, last)


def _rebuilt(leaves: Mapping[int, bytes], known: Mapping[tuple[int, int], bytes], first: int, last: int) -> bytes:
    if (first, last) in known:
        return known[first, last]
    if last - first == 1:
        return hashlib.sha256(_LEAF + leaves[first]).digest()
    middle = _split(first, last)
    left, right = _rebuilt(leaves, known, first, middle), _rebuilt(leaves, known, middle, last)
    return hashlib.sha256(_NODE + left + right).digest()


def _uncovered(chosen: frozenset[int], first: int, last: int) -> Iterator[tuple[int, int]]:
    """The largest subtrees that hold none of the chosen leaves, as ranges of leaves."""
    if chosen.isdisjoint(range(first, last)):
        yield first, last
    elif last - first > 1:
        middle = _split(first, last)
        yield from _uncovered(chosen, first, middle)
        yield from _uncovered(chosen, middle, last)
