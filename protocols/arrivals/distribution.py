"""PR-FL's differential distribution: the server sends every coordinate once, however many clients hold it.

ArXiv 2403.15439. Masks are nested. Sorted by density, the first increment is the smallest mask, and each further one
what the next mask adds, so that the client with the i-th mask fetches increments 1 to i. Clients of equal density share
their increments, and the server sends at most ``size`` values, not one model a client.

The index of an increment says which of the coordinates that no earlier one covers are in it: a declaration
(``secagg.declaration``) over those alone, in whichever of its codings is shortest. It is exact, at most one bit a
coordinate, nothing at all for an increment that takes all the rest, and shorter than a bit a coordinate for one that
takes few. Where every client knows the ranking behind the masks, one number an increment would do; but the ranking
comes from an importance that changes as training goes on, and to send that costs as much as a model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from secagg import declaration
from secagg.declaration import Declaration, Provenance
from secagg.errors import DecodingError, InputError, LayoutMismatchError, NotFiniteError, ParameterError
from secagg.layout import Layout, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from protocols.aggregators import Client
    from pruning.masks import Mask

_VALUE = np.dtype("<f4")


@dataclass(frozen=True)
class Increment:
    """What one mask holds beyond all smaller ones.

    Args:
        index: Which of the coordinates that no earlier increment covers.
        values: Their values in order of coordinates, float32 little-endian.
    """

    index: Declaration
    values: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """Its bytes, without what frames it on its way (a kind and two lengths)."""
        return len(self.index.data) + len(self.values)


@dataclass(frozen=True, eq=False)
class Distribution:
    """One model on its way to all clients, made by ``split``.

    Args:
        increments: In ascending order of density.
        needed: Client to how many of them, from the first on, it fetches.
        whole_bytes: What the server would send if every client got the whole model.
        masked_bytes: What it would send if every client got its own mask and values.
    """

    increments: tuple[Increment, ...]
    needed: Mapping[Client, int]
    whole_bytes: int
    masked_bytes: int

    @property
    def server_bytes(self) -> int:
        """What the server sends, each increment once: at most one model and one bit a coordinate and increment."""
        return sum(increment.size for increment in self.increments)

    def fetched(self, client: Client) -> tuple[Increment, ...]:
        """The increments that a client fetches; ``opened`` makes its model of them.

        Raises:
            InputError: No mask of this client was split.
        """
        if client not in self.needed:
            raise InputError(f"client {client} has no mask in this distribution")
        return self.increments[: self.needed[client]]

    def download_bytes(self, client: Client) -> int:
        """Bytes that a client fetches.

        Raises:
            InputError: No mask of this client was split.
        """
        return sum(increment.size for increment in self.fetched(client))


def split(masks: Mapping[Client, Mask], vector: NDArray[np.floating]) -> Distribution:
    """Cuts a model into increments.

    Args:
        masks: Client to the coordinates that it holds; of any two masks one lies within the other.
        vector: The model's coordinates, (size,) real; sent as float32.

    Raises:
        InputError: No client.
        LayoutMismatchError: Masks of several layouts, or a vector of another.
        NotFiniteError: A value that is held is NaN or infinite, or has no float32.
        ParameterError: The masks are not nested.
    """
    if not masks:
        raise InputError("a distribution needs at least one client")
    if len({mask.layout for mask in masks.values()}) > 1 or vector.shape != (next(iter(masks.values())).layout.size,):
        raise LayoutMismatchError("the vector and all masks must be of one layout")
    with np.errstate(over="ignore"):
        values = vector.astype(_VALUE)
    counts = {client: int(np.count_nonzero(mask.coordinates)) for client, mask in masks.items()}
    nested = _tiers([masks[client].coordinates for client in sorted(masks, key=counts.__getitem__)])
    if not np.isfinite(values[nested[-1]]).all():
        raise NotFiniteError("the model is not finite")
    tiers = {int(np.count_nonzero(held)): number for number, held in enumerate(nested, start=1)}
    return Distribution(
        increments=tuple(_increments(nested, values)),
        needed={client: tiers[count] for client, count in counts.items()},
        whole_bytes=len(masks) * values.nbytes,
        masked_bytes=sum(counts[c] * _VALUE.itemsize + len(mask.declaration().data) for c, mask in masks.items()),
    )


def opened(size: int, increments: Iterable[Increment]) -> NDArray[np.float32]:
    """The model that a client makes of what it fetched.

    Args:
        size: Number of coordinates of the model.
        increments: The first ones, in their order.

    Returns:
        (size,) float32, NaN where not held.

    Raises:
        DecodingError: An increment that is not what ``split`` made.
    """
    vector = np.full(size, np.nan, np.float32)
    rest = np.arange(size)
    for increment in increments:
        if not len(rest):
            raise DecodingError("an increment after the one that covers all the rest")
        inside = declaration.expand(_layout(len(rest)), increment.index)
        if len(increment.values) != _VALUE.itemsize * np.count_nonzero(inside):
            raise DecodingError("an increment has another number of values than its index says")
        vector[rest[inside]] = np.frombuffer(increment.values, _VALUE)
        rest = rest[~inside]
    return vector


def _tiers(ascending: list[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
    """The different masks among those given, each within the next."""
    tiers = ascending[:1]
    for held in ascending[1:]:
        if np.array_equal(held, tiers[-1]):
            continue
        if (tiers[-1] & ~held).any():
            raise ParameterError("masks must be nested: take them from one ranking")
        tiers.append(held)
    return tiers


def _increments(nested: list[NDArray[np.bool_]], values: NDArray[np.float32]) -> Iterable[Increment]:
    rest = np.arange(len(values))
    for held in nested:
        inside = held[rest]
        index = declaration.of_coordinates(_layout(len(rest)), inside, Provenance.PUBLIC)
        yield Increment(index, values[rest[inside]].tobytes())
        rest = rest[~inside]


def _layout(size: int) -> Layout:
    """Coordinates without any structure, such as those that are still to be covered."""
    return Layout((Tensor("rest", (size,)),))
