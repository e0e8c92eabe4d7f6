"""Fixed point: from the floats of an update to integers that sum exactly, and back.

A value x in [-range, range] with normalised weight w in (0, 1] becomes ``rint(x * w * magnitude / range)``; rounding is
to nearest, so runs repeat. The weight is rounded first, to a multiple of 1 / magnitude, and the rounded one is used
throughout. With step = range / magnitude, n survivors and W the sum of their rounded normalised weights, a decoded
mean is within ``n * step / (2 * W)`` of the mean under the rounded weights: within step / 2 for equal weights.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from secagg.errors import LayoutMismatchError, NotFiniteError, OutOfRangeError, WeightError
from secagg.prg import PIECE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
) -> tuple[NDArray[np.int64], float]:
    """The integers that a client contributes, before masking.

    Args:
        plan: What is released.
        client: The client.
        update: Tensor name to values; checked by ``check_update``.
        own: Coordinates that the client holds; others that it has to send are sent as zero. (layout.size,) bool.
        weight: Encoded weight, or None where all weigh the same.
        entropy: Source of the random bytes that differential privacy takes.
        seeds: Of the noise, as ``Shares.encode``.

    Returns:
        The client's places of the vector (int64), and the share of its own values that saturation clipped; with
        differential privacy, 1 or 0: whether all of them were scaled down.
    """
    params, layout = plan.session.params, plan.session.layout
    held = np.zeros(layout.size, bool)
    held[plan.released] = plan.held(client)
    if plan.shares is not None:
        vector = np.concatenate([np.asarray(update[tensor.name], np.float64).reshape(-1) for tensor in layout.tensors])
        return plan.shares.encode(np.where(own, vector, 0.0)[held], plan.held(client), entropy, seeds)
    slots = _encode_slots(plan, own, 1 if weight is None else weight)
    encoded = np.empty(np.count_nonzero(held) + len(slots), np.int64)
    encoded[len(encoded) - len(slots) :] = slots
    clipped, start = 0, 0
    bound = params.magnitude if weight is None else weight
    for tensor, place in layout.slices():
        values = _select(np.asarray(update[tensor.name]).reshape(-1), held[place])
        part = encoded[start : start + len(values)]
        ours = _select(own[place], held[place])
        limit = params.range_of(tensor.name)
        clipped += _encode_tensor(part, values, ours, limit, bound, saturate=params.out_of_range == "saturate")
        start += len(values)
    return encoded, clipped / max(1, int(np.count_nonzero(held & own)))


def _encode_tensor(
    encoded: NDArray[np.int64],
    values: NDArray[Any],
    ours: NDArray[np.bool_],
    limit: float,
    bound: int,
    *,
    saturate: bool,
) -> int:
    """Writes values as integers, zero where they are not ours; returns how many were clipped."""
    clipped, everything = 0, bool(ours.all())
    for start in range(0, len(values), PIECE):
        piece = slice(start, start + PIECE)
        scaled = values[piece].astype(np.float64)
        if not everything:
            scaled[~ours[piece]] = 0.0
        if saturate:
            clipped += int(np.count_nonzero(np.abs(scaled) > limit))
            np.clip(scaled, -limit, limit, out=scaled)
        scaled *= bound / limit
        encoded[piece] = np.rint(scaled, out=scaled)
    return clipped


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
