"""Layouts as plain data, and declarations bit by bit. Sets are strings with a character 0 or 1 for each place."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Json = dict[str, Any]


def tensor(name: str, shape: list[int], dtype: str = "float32", layer: str = "", **unit_axes: list[int]) -> Json:
    """``unit_axes``: ``axis0`` and ``axis1`` to the unit of each slice; ``layer``: where not by name."""
    axes = {axis.removeprefix("axis"): units for axis, units in unit_axes.items()}
    given = {"layer": layer} if layer else {}
    return {"name": name, "shape": shape, "dtype": dtype, "unit_axes": axes} | given


def layout(*tensors: Json, unit_groups: list[tuple[str, int]] | None = None) -> Json:
    return {"tensors": list(tensors), "unit_groups": unit_groups or []}


def layer_of(one: Json) -> str:
    return one.get("layer") or one["name"].rpartition(".")[0] or one["name"]


def size_of(one: Json) -> int:
    return math.prod(one["shape"])


def coordinates(of: Json) -> Iterator[tuple[str, list[int]]]:
    """Layer and units of each coordinate, in canonical order."""
    for one in of["tensors"]:
        for index in product(*map(range, one["shape"])):
            units = [units[index[int(axis)]] for axis, units in one["unit_axes"].items()]
            yield layer_of(one), [unit for unit in units if unit >= 0]


def held_by_units(of: Json, units: str) -> str:
    return bits(all(units[unit] == "1" for unit in belongs_to) for _, belongs_to in coordinates(of))


def held_by_layers(of: Json, layers: str) -> str:
    names = list(dict.fromkeys(layer for layer, _ in coordinates(of)))
    return bits(layers[names.index(layer)] == "1" for layer, _ in coordinates(of))


def bits(values: Iterable[bool]) -> str:
    return "".join("01"[value] for value in values)


def bits_to_bytes(of: str) -> bytes:
    """First bit in the highest place of the first byte, zeros at the end."""
    padded = of + "0" * (-len(of) % 8)
    return bytes(int(padded[at : at + 8], 2) for at in range(0, len(padded), 8))


def elias_fano(held: str) -> bytes:
    rare = "1" if 2 * held.count("1") <= len(held) else "0"
    positions = [place for place, bit in enumerate(held) if bit == rare]
    head = ((rare == "1") << 63 | len(positions)).to_bytes(8, "big")
    if not positions:
        return head
    low_bits = 0
    while len(positions) << (low_bits + 1) <= len(held):
        low_bits += 1
    high, low, reached = "", "", 0
    for position in positions:
        high += "0" * ((position >> low_bits) - reached) + "1"
        reached = position >> low_bits
        low += "".join("01"[position >> place & 1] for place in range(low_bits))
    return head + bits_to_bytes(high) + bits_to_bytes(low)


def declaration(kind: str, data: bytes = b"", provenance: str = "public") -> Json:
    return {"kind": kind, "data": data, "provenance": provenance}
