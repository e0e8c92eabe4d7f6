"""PR-FL's buffer: what each client last contributed, and how all of it together becomes the next global model.

ArXiv 2403.15439, buffer and MaskFedAvg. A slow client's contribution stays in the buffer and keeps its say, less with
each version, until the client sends another. Every coordinate is averaged over those who hold it, and one that nobody
trained keeps its value: divided by nothing, it would become 0. The server sees every contribution here; encrypted, one
running sum takes the buffer's place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from secagg.errors import InputError, LayoutMismatchError, NotFiniteError, ParameterError, WeightError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray

    from protocols.aggregators import Client
    from protocols.arrivals.staleness import Staleness

Kind = Literal["model", "update"]

_BLOCK = 1 << 15
"""Coordinates that are summed at once: the sums stay in the processor's cache while the clients pass by."""


@dataclass(frozen=True, eq=False)
class Contribution:
    """What one client last contributed.

    Args:
        values: The client's model or update at full shape; what is outside its mask is ignored and kept as 0. (size,),
            kept read-only as float32.
        held: Whether the client holds each coordinate, (size,) bool; a read-only copy is kept.
        weight: Number of its examples, or another positive weight.
        version: The version of the global model that the client started from.

    Raises:
        LayoutMismatchError: ``values`` and ``held`` are no vectors of one length, or ``held`` is no bool.
        NotFiniteError: A value inside the mask is NaN or infinite, or has no float32.
        WeightError: ``weight`` is not positive and finite.
    """

    values: NDArray[np.floating] = field(repr=False)
    held: NDArray[np.bool_] = field(repr=False)
    weight: float
    version: int

    def __post_init__(self) -> None:
        values, held = np.asarray(self.values), np.array(self.held)
        if held.dtype != np.bool_ or held.ndim != 1 or values.shape != held.shape:
            raise LayoutMismatchError(f"values of shape {values.shape} do not fit a mask of shape {held.shape}")
        if not 0 < self.weight < math.inf:
            raise WeightError("a contribution's weight must be positive and finite")
        with np.errstate(over="ignore"):
            kept = np.where(held, values, 0).astype(np.float32)
        if not np.isfinite(kept).all():
            raise NotFiniteError("a contribution is not finite")
        for name, array in (("values", kept), ("held", held)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)


@dataclass(frozen=True, eq=False)
class Buffer:
    """Each client's latest contribution.

    Args:
        size: Number of coordinates.
        contributions: Client to its latest contribution, in the order in which they are summed.

    Raises:
        LayoutMismatchError: A contribution has another number of coordinates.
    """

    size: int
    contributions: Mapping[Client, Contribution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for client, one in self.contributions.items():
            if len(one.values) != self.size:
                raise LayoutMismatchError(
                    f"client {client}: {len(one.values)} coordinates, not {self.size}", culprits=[client]
                )

    def put(self, client: Client, contribution: Contribution) -> Buffer:
        """The buffer with a contribution in place of the client's last one."""
        return Buffer(self.size, {**self.contributions, client: contribution})

    def staleness(self, version: int) -> dict[Client, int]:
        """Client to the versions since the one that its contribution started from.

        Args:
            version: Of the global model now.

        Raises:
            InputError: A contribution started from a later version.
        """
        ages = {client: version - one.version for client, one in self.contributions.items()}
        ahead = [client for client, tau in ages.items() if tau < 0]
        if ahead:
            raise InputError(f"a contribution started from a version after {version}", culprits=ahead)
        return ages

    def to_memory(self) -> dict[Client, Any]:
        """The buffer as dicts, numbers and tensors, for a system's ``remember``."""
        return {
            client: {
                "values": torch.tensor(one.values),
                "held": torch.tensor(one.held),
                "weight": one.weight,
                "version": one.version,
            }
            for client, one in self.contributions.items()
        }

    @classmethod
    def from_memory(cls, size: int, memory: Mapping[Client, Any]) -> Buffer:
        """What ``to_memory`` gave; an empty memory is an empty buffer."""
        return cls(
            size,
            {
                client: Contribution(one["values"].numpy(), one["held"].numpy(), one["weight"], one["version"])
                for client, one in memory.items()
            },
        )


@dataclass(frozen=True, kw_only=True)
class MaskFedAvg:
    """The mean over those who hold a coordinate, weighted by ``weight * staleness(tau)``.

    Args:
        kind: What is contributed. ``"model"``, as published: the global model moves towards the clients' mean.
            ``"update"``: it moves by their mean, which is the form that encryption needs.
        staleness: What a contribution counts by its staleness.
        learning_rate: Of the server (eta), in (0, 1]: ``(1 - eta) * previous + eta * mean`` for models,
            ``previous + eta * mean`` for updates.

    Raises:
        ParameterError: A setting outside its domain.
    """

    kind: Kind
    staleness: Staleness
    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ParameterError(f"kind must be one of {get_args(Kind)}, not {self.kind!r}")
        if not 0 < self.learning_rate <= 1:
            raise ParameterError(f"learning_rate must be in (0, 1], not {self.learning_rate}")

    def merge(self, buffer: Buffer, previous: ArrayLike, version: int) -> NDArray[np.float64]:
        """The next global model, (size,) float64; exactly ``previous`` wherever no contribution counts.

        Args:
            buffer: All that counts; each value is taken in float64.
            previous: The global model now, (size,) real.
            version: Its version.

        Raises:
            InputError: A contribution started from a later version.
            LayoutMismatchError: ``previous`` has another number of coordinates than the buffer.
        """
        before = np.asarray(previous, np.float64)
        if before.shape != (buffer.size,):
            raise LayoutMismatchError(f"the buffer holds {buffer.size} coordinates, the model {before.shape}")
        ages = buffer.staleness(version)
        weighted = [(one, one.weight * self.staleness(ages[client])) for client, one in buffer.contributions.items()]
        kept = 1 - self.learning_rate if self.kind == "model" else 1.0
        after = before.copy()
        for place, total, share in _sums(buffer.size, weighted):
            counts = share > 0
            mean = np.divide(total, share, out=total, where=counts)
            np.add(kept * before[place], self.learning_rate * mean, out=after[place], where=counts)
        return after


def _sums(
    size: int, weighted: list[tuple[Contribution, float]]
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]:
    """Block by block, the weighted sum of the values and that of the masks."""
    for start in range(0, size, _BLOCK):
        place = slice(start, min(start + _BLOCK, size))
        total, share, product = np.zeros((3, place.stop - start))
        for one, weight in weighted:
            total += np.multiply(one.values[place], weight, out=product, dtype=np.float64)
            share += np.multiply(one.held[place], weight, out=product, dtype=np.float64)
        yield place, total, share
