"""Fixed point: from the floats of an update to integers that sum exactly, and back.

A value x in [-range, range] with normalised weight w in (0, 1] becomes ``rint(x * w * magnitude / range)``; rounding is
to nearest, so runs repeat. The weight is rounded first, to a multiple of 1 / magnitude, and the rounded one is used
throughout. With step = range / magnitude, n survivors and W the sum of their rounded normalised weights, a decoded
mean is within ``n * step / (2 * W)`` of the mean under the rounded weights: within step / 2 for equal weights.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from secagg.errors import LayoutMismatchError, NotFiniteError, OutOfRangeError, WeightError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from secagg.layout import Layout
    from secagg.params import Params
    from secagg.release import Plan

_BUCKETS_PER_OCTAVE = 2


def encode_weight(params: Params, weight: float) -> int:
    """A weight as an integer from 1 to ``params.magnitude``.

    Raises:
        WeightError: Not in (0, max_weight], or so small that it rounds to zero.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise WeightError("a weight must be positive and finite")
    if weight > params.max_weight:
        raise WeightError(f"a weight exceeds max_weight {params.max_weight:g}: set it to the largest one possible")
    encoded = round(weight / params.max_weight * params.magnitude)
    if encoded == 0:
        raise WeightError(f"a weight rounds to zero beside max_weight {params.max_weight:g}: lower it or raise levels")
    return encoded


def weight_bucket(params: Params, weight: float) -> int:
    """A weight as a public bucket j: max_weight * 2^(-j/2), the nearest on a logarithmic scale.

    Raises:
        WeightError: As ``encode_weight``.
    """
    encode_weight(params, weight)
    return round(-_BUCKETS_PER_OCTAVE * math.log2(weight / params.max_weight))


def bucket_weight(params: Params, bucket: int) -> int:
    """The encoded weight that a public bucket stands for, at least 1."""
    return max(1, round(math.exp2(-bucket / _BUCKETS_PER_OCTAVE) * params.magnitude))


def check_update(layout: Layout, params: Params, update: Mapping[str, ArrayLike], own: NDArray[np.bool_]) -> None:
    """Refuses what cannot be encoded.

    Args:
        layout: The layout.
        params: The settings.
        update: Tensor name to values.
        own: Which coordinates the client holds; only those are looked at. (layout.size,) bool.

    Raises:
        LayoutMismatchError: A tensor is missing, unknown, or of another shape.
        NotFiniteError: NaN or infinity.
        OutOfRangeError: A value beyond ``value_range``, unless ``out_of_range`` is ``"saturate"``.
    """
    names = [tensor.name for tensor in layout.tensors]
    if set(names) != set(update):
        odd = sorted(set(names).symmetric_difference(update))
        raise LayoutMismatchError(f"the update and the layout differ in {', '.join(odd)}")
    for tensor, place in layout.slices():
        values = np.asarray(update[tensor.name])
        if values.shape != tensor.shape:
            raise LayoutMismatchError(f"{tensor.name} has shape {values.shape}, the layout says {tensor.shape}")
        if values.dtype.kind not in "fiub":
            raise LayoutMismatchError(f"{tensor.name} holds {values.dtype}, which are no real numbers")
        held = _select(values.reshape(-1), own[place])
        if not len(held):
            continue
        low, high = float(held.min()), float(held.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise NotFiniteError(f"{tensor.name} holds NaN or infinity")
        limit = params.range_of(tensor.name)
        if params.privacy is None and params.out_of_range == "refuse" and max(-low, high) > limit:
            raise OutOfRangeError(
                f"{tensor.name} holds a value beyond value_range {limit:g}: raise it, or set out_of_range='saturate'"
            )


def encode_update(
    plan: Plan,
    client: int,
    update: Mapping[str, ArrayLike],
    own: NDArray[np.bool_],
    weight: int | None,
    *,
    entropy: Callable[[int], bytes] = os.urandom,
    seeds: Sequence[bytes] | None = None,
) -> Encoded:
    """The integers that a client contributes, before masking.

    Args:
        plan: What is released.
        client: The client.
        update: Tensor name to values; checked by ``check_update``.
        own: Coordinates that the client holds; others that it has to send are sent as zero. (layout.size,) bool.
        weight: Encoded weight, or None where all weigh the same.
        entropy: Source of the random bytes that differential privacy takes.
        seeds: Of the noise, as ``Shares.encode``.
    """
    layout, sent = plan.session.layout, plan.held(client)
    if plan.shares is not None:
        vector = np.concatenate([np.asarray(update[tensor.name], np.float64).reshape(-1) for tensor in layout.tensors])
        held = np.where(own, vector, 0.0)[plan.released]
        integers, was_longer = plan.shares.encode(_select(held, sent), sent, entropy, seeds)
        return Encoded([_Part(integers)], clipped_share=was_longer)
    mine = int(np.count_nonzero(_select(own, plan.released) & sent))
    return Encoded(_parts(plan, sent, update, own, weight), mine)


def _parts(
    plan: Plan, sent: NDArray[np.bool_], update: Mapping[str, ArrayLike], own: NDArray[np.bool_], weight: int | None
) -> Iterator[_Part]:
    """Tensor after tensor, and then the weight slots."""
    params, layout = plan.session.params, plan.session.layout
    held = sent
    if plan.released_count < layout.size:
        held = np.zeros(layout.size, bool)
        held[plan.released] = sent
    foreign = (held > own).any()
    for tensor, place in layout.slices():
        yield _Part(
            _select(np.asarray(update[tensor.name]).reshape(-1), held[place]),
            _select(own[place], held[place]) if foreign else None,
            limit=params.range_of(tensor.name),
            bound=params.magnitude if weight is None else weight,
            saturate=params.out_of_range == "saturate",
        )
    yield _Part(_encode_slots(plan, own, 1 if weight is None else weight))


@dataclass(frozen=True)
class _Part:
    """Values of one tensor, or integers as they stand.

    Args:
        values: What is encoded.
        ours: Which of them the client holds; None for all.
        limit: The range of the values; 0 for integers.
        bound: What its end becomes.
        saturate: Whether values beyond it are clipped.
    """

    values: NDArray[Any] = field(repr=False)
    ours: NDArray[np.bool_] | None = field(default=None, repr=False)
    limit: float = 0.0
    bound: int = field(default=0, repr=False)
    saturate: bool = False

    def encode(self, integers: NDArray[np.int64], start: int) -> int:
        """Writes the integers from ``start`` on; returns how many values were clipped.

        Raises:
            OutOfRangeError: Values that have changed since they were checked.
        """
        place, clipped = slice(start, start + len(integers)), 0
        if not self.limit:
            integers[:] = self.values[place]
            return clipped
        scaled = integers.view(np.float64)  # as wide, and overwritten element by element in the end
        scaled[:] = self.values[place]
        if self.ours is not None:
            scaled[~self.ours[place]] = 0.0
        if self.saturate:
            clipped = int(np.count_nonzero(np.abs(scaled) > self.limit))
            np.clip(scaled, -self.limit, self.limit, out=scaled)
        scaled *= self.bound / self.limit
        np.rint(scaled, out=scaled)
        check_encoded(scaled, self.bound)
        integers[:] = scaled
        return clipped


def check_encoded(scaled: NDArray[np.float64], bound: int) -> None:
    """Refuses what ``check_update`` has let pass, and what has changed since.

    Raises:
        OutOfRangeError: A number beyond ``bound``, or none.
    """
    if not (scaled.min() >= -bound and scaled.max() <= bound):
        raise OutOfRangeError("an update was changed while it was encoded")


class Encoded:
    """The integers that a client contributes, encoded as they are read.

    Args:
        parts: What they are made from, in order.
        held: How many of the values the client holds.
        clipped_share: The share of them that was clipped before.
    """

    def __init__(self, parts: Iterable[_Part], held: int = 0, clipped_share: float = 0.0) -> None:
        self._parts, self._held, self._before = iter(parts), held, clipped_share
        self._part, self._read, self._clipped = _Part(np.zeros(0)), 0, 0
        self._buffer = np.empty(0, np.int64)

    def __repr__(self) -> str:
        return "Encoded(<redacted>)"

    @property
    def clipped_share(self) -> float:
        """Of the values read so far, the share of all that the client holds that saturation clipped.

        With differential privacy, 1 or 0: whether the update was scaled down.
        """
        return self._before + self._clipped / max(1, self._held)

    def take(self, count: int) -> NDArray[np.int64]:
        """The next ``count`` integers, (count,) int64, no more than the client has places to fill.

        The next call may overwrite them.
        """
        if count > len(self._buffer):
            self._buffer = np.empty(count, np.int64)
        integers, filled = self._buffer[:count], 0
        while filled < count:
            left = len(self._part.values) - self._read
            if not left:
                self._part, self._read = next(self._parts), 0
                continue
            part = integers[filled : filled + left]
            self._clipped += self._part.encode(part, self._read)
            self._read += len(part)
            filled += len(part)
        return integers


def _encode_slots(plan: Plan, own: NDArray[np.bool_], weight: int) -> NDArray[np.int64]:
    match plan.slots:
        case "none":
            return np.zeros(0, np.int64)
        case "total" | "groups":
            return np.full(1, weight, np.int64)
        case "coordinates":
            return np.append(own[plan.released], True) * np.int64(weight)


def _select(values: NDArray[Any], chosen: NDArray[np.bool_]) -> NDArray[Any]:
    """``values[chosen]``, without a copy where everything is chosen."""
    return values if chosen.all() else values[chosen]
