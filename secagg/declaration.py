"""Declarations: how a client says which coordinates it holds.

Canonical, so that each choice of layers, units or coordinates has one valid coding: padding bits are zero, and of two
codings of a bitmap only the shorter one is accepted. Unstructured bitmaps use Elias-Fano coding (P. Elias, JACM 21(2),
1974) where that beats one bit a coordinate, which is below about a quarter of either symbol.
"""

from __future__ import annotations

import enum
from collections import Counter
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from secagg.errors import DecodingError, LayoutMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from secagg.layout import Layout


class Provenance(enum.StrEnum):
    """What a mask was computed from, and so what its declaration tells the server."""

    PUBLIC = "public"
    """Issued by the server or by a secure vote: says nothing about the client."""
    DEVICE = "device"
    """Depends on the device only (its speed, its link), not on its data."""
    DATA = "data"
    """Depends on the client's data: its declaration is information about them."""


class Declaration(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The coordinates that one client holds, in compact form.

    Args:
        kind: ``full`` (everything), ``layers`` or ``units`` (a bit each, in layout order), ``bitmap`` (a bit a
            coordinate) or ``sparse`` (Elias-Fano positions of the rarer symbol).
        data: The coding; empty for ``full``.
        provenance: Where the mask came from.
    """

    kind: Literal["full", "layers", "units", "bitmap", "sparse"]
    data: bytes = b""
    provenance: Provenance = Provenance.PUBLIC


FULL = Declaration("full")
"""Every coordinate."""


def of_layers(layout: Layout, held: NDArray[np.bool_], provenance: Provenance) -> Declaration:
    """Declares whole layers. ``held``: (len(layout.layers),) bool."""
    _fits(held, len(layout.layers), "layers")
    return Declaration("layers", _packed(held), provenance)


def of_units(layout: Layout, held: NDArray[np.bool_], provenance: Provenance) -> Declaration:
    """Declares units. ``held``: (layout.unit_count,) bool, group after group."""
    _fits(held, layout.unit_count, "units")
    return Declaration("units", _packed(held), provenance)


def of_coordinates(layout: Layout, held: NDArray[np.bool_], provenance: Provenance) -> Declaration:
    """Declares any set of coordinates in the most compact kind that expresses it. ``held``: (layout.size,) bool."""
    _fits(held, layout.size, "coordinates")
    if held.all():
        return Declaration("full", b"", provenance)
    layers = _whole_layers(layout, held)
    if layers is not None:
        return of_layers(layout, layers, provenance)
    units = _whole_units(layout, held)
    if units is not None:
        return of_units(layout, units, provenance)
    if _sparse_is_shorter(held):
        return Declaration("sparse", _elias_fano_encode(held), provenance)
    return Declaration("bitmap", _packed(held), provenance)


def expand(layout: Layout, declaration: Declaration) -> NDArray[np.bool_]:
    """The coordinates that a declaration holds, (layout.size,) bool.

    Raises:
        DecodingError: Wrong length, a padding bit set, or a coding that is not the canonical one.
    """
    match declaration.kind:
        case "full":
            if declaration.data:
                raise DecodingError("a full declaration carries no data")
            return np.ones(layout.size, bool)
        case "layers":
            return layout.coordinates_of_layers(_unpacked(declaration.data, len(layout.layers)))
        case "units":
            return layout.coordinates_of_units(read_units(layout, declaration))
        case "bitmap":
            held = _unpacked(declaration.data, layout.size)
            canonical = not _sparse_is_shorter(held)
        case "sparse":
            held = _elias_fano_decode(declaration.data, layout.size)
            canonical = _sparse_is_shorter(held) and _elias_fano_encode(held) == declaration.data
    if not canonical:
        raise DecodingError("a bitmap is coded in another than the canonical form")
    return held


def read_units(layout: Layout, declaration: Declaration) -> NDArray[np.bool_]:
    """The units that a declaration of kind ``units`` holds, (layout.unit_count,) bool.

    Raises:
        DecodingError: Wrong length, or a padding bit set.
    """
    return _unpacked(declaration.data, layout.unit_count)


def coverage(layout: Layout, declarations: Iterable[Declaration]) -> NDArray[np.int32]:
    """How many of the declarations hold each coordinate, (layout.size,) int32.

    Raises:
        DecodingError: As ``expand``.
    """
    counted = Counter(declarations)
    structured = [(d, times) for d, times in counted.items() if d.kind == "units"]
    if structured:
        rows = np.array([read_units(layout, d) for d, _ in structured])
        counts = layout.count_by_units(np.repeat(rows, [times for _, times in structured], axis=0))
    else:
        counts = np.zeros(layout.size, np.int32)
    for declaration, times in counted.items():
        if declaration == FULL:
            counts += np.int32(times)
        elif declaration.kind != "units":
            counts += expand(layout, declaration) * np.int32(times)
    return counts


def _fits(held: NDArray[np.bool_], count: int, what: str) -> None:
    if held.dtype != np.bool_ or held.shape != (count,):
        raise LayoutMismatchError(f"a mask over {what} must be {count} bools, not {held.dtype} of shape {held.shape}")


def _packed(bits: NDArray[np.bool_]) -> bytes:
    return np.packbits(bits).tobytes()


def _unpacked(data: bytes, count: int) -> NDArray[np.bool_]:
    if len(data) != -(-count // 8):
        raise DecodingError(f"{count} bits take {-(-count // 8)} bytes, not {len(data)}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).view(bool)
    if bits[count:].any():
        raise DecodingError("a padding bit is set")
    return bits[:count]


def _whole_layers(layout: Layout, held: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The layers that make up exactly ``held``, if there are any."""
    layers = dict.fromkeys(layout.layers, True)
    for tensor, place in layout.slices():
        layers[tensor.layer] &= bool(held[place].all())
    chosen = np.array(list(layers.values()))
    return chosen if np.array_equal(layout.coordinates_of_layers(chosen), held) else None


def _whole_units(layout: Layout, held: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The units that make up exactly ``held``, if there are any: a unit is held where any of its slices is."""
    if not layout.unit_count:
        return None
    chosen = np.zeros(layout.unit_count, bool)
    for tensor, place in layout.slices():
        block = held[place].reshape(tensor.shape)
        for axis, units in tensor.unit_axes.items():
            number = np.asarray(units, np.intp)
            slice_held = block.any(axis=tuple(a for a in range(block.ndim) if a != axis))
            chosen[number[slice_held & (number >= 0)]] = True
    return chosen if np.array_equal(layout.coordinates_of_units(chosen), held) else None


_COUNT_BYTES = 8


def _sparse_is_shorter(held: NDArray[np.bool_]) -> bool:
    """Whether Elias-Fano coding beats a bit a coordinate; its length is known without coding."""
    rare, count = _rarer_symbol(held)
    low_bits = _low_bits(len(held), count)
    last = len(held) - 1 - int(np.argmax(held[::-1] == rare)) if count else 0
    unary = (last >> low_bits) + count if count else 0
    return _COUNT_BYTES + -(-unary // 8) + -(-count * low_bits // 8) < -(-len(held) // 8)


def _rarer_symbol(held: NDArray[np.bool_]) -> tuple[bool, int]:
    ones = int(np.count_nonzero(held))
    return (True, ones) if 2 * ones <= len(held) else (False, len(held) - ones)


def _elias_fano_encode(held: NDArray[np.bool_]) -> bytes:
    """A head of 8 bytes (rarer symbol in the top bit, its count below), then high parts in unary, low parts plain."""
    rare, _ = _rarer_symbol(held)
    positions = np.flatnonzero(held == rare).astype(np.uint64)
    low_bits = _low_bits(len(held), len(positions))
    head = (int(rare) << 63 | len(positions)).to_bytes(_COUNT_BYTES, "big")
    if not len(positions):
        return head
    high = positions >> np.uint64(low_bits)
    unary = np.zeros(int(high[-1]) + len(positions), bool)
    unary[high.astype(np.intp) + np.arange(len(positions))] = True
    place = np.arange(low_bits, dtype=np.uint64)
    low = (positions[:, None] >> place & np.uint64(1)).astype(bool)
    return head + _packed(unary) + _packed(low.reshape(-1))


def _elias_fano_decode(data: bytes, size: int) -> NDArray[np.bool_]:
    """Inverse of ``_elias_fano_encode`` on its range; elsewhere any set, which then fails the canonical comparison."""
    if len(data) < _COUNT_BYTES:
        raise DecodingError("a sparse declaration is shorter than its head")
    head = int.from_bytes(data[:_COUNT_BYTES], "big")
    rare, count = bool(head >> 63), head & ((1 << 63) - 1)
    low_bits = _low_bits(size, min(count, size))
    low_bytes = -(-count * low_bits // 8)
    unary_bytes = len(data) - _COUNT_BYTES - low_bytes
    if count > size or unary_bytes < -(-count // 8):
        raise DecodingError("a sparse declaration is too short for its count")
    body = np.frombuffer(data, np.uint8, offset=_COUNT_BYTES)
    ones = np.flatnonzero(np.unpackbits(body[:unary_bytes]))
    if len(ones) != count:
        raise DecodingError("a sparse declaration holds another number of positions than it says")
    low = np.unpackbits(body[unary_bytes:])[: count * low_bits].reshape(count, low_bits)
    positions = (ones - np.arange(count)) * (1 << low_bits) + low @ (1 << np.arange(low_bits, dtype=np.int64))
    if count and positions.max() >= size:
        raise DecodingError("a sparse declaration names a coordinate outside the layout")
    held = np.full(size, not rare)
    held[positions] = rare
    return held


def _low_bits(size: int, count: int) -> int:
    """Bits of a position that are written plain: floor(log2(size / count))."""
    return (size // count).bit_length() - 1 if count else 0
