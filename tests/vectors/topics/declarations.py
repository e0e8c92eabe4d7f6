"""Vectors of declarations: what they hold, and codings that must be refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.vectors.reference.declaring import (
    bits,
    bits_to_bytes,
    elias_fano,
    held_by_layers,
    held_by_units,
    layout,
    tensor,
)

if TYPE_CHECKING:
    from tests.vectors.reference.declaring import Json

UNITS = layout(
    tensor("fc1.weight", [3, 2], axis0=[0, 1, 2]),
    tensor("fc1.bias", [3], axis0=[0, 1, 2]),
    tensor("fc2.weight", [2, 3], axis1=[0, 1, 2]),
    tensor("fc2.bias", [2]),
    unit_groups=[("fc1", 3)],
)
TWO_AXES = layout(
    tensor("a", [2, 3, 2], axis0=[0, -1], axis1=[1, 2, 3]),
    tensor("scale", []),
    unit_groups=[("in", 1), ("out", 3)],
)
FLAT = layout(tensor("w", [200]))
STATISTICS = layout(
    tensor("norm.weight", [2]),
    tensor("norm.running_mean", [2], layer="norm.statistics"),
    tensor("fc.weight", [1, 2]),
    tensor("fc.running_scale", [], layer="norm.statistics"),
)
"""The layer of statistics begins between two others and goes on behind them."""


def spread(size: int, places: list[int], symbol: str = "1") -> str:
    return bits((place in places) == (symbol == "1") for place in range(size))


def declarations() -> Json:
    """Sets of coordinates are text with a character for each."""
    few, most = spread(200, [0, 3, 64, 65, 199]), spread(200, [7, 8, 9, 100], "0")
    half, coded = "10" * 100, elias_fano(few)
    valid: list[tuple[str, str, bytes, str]] = [
        ("units", "full", b"", "1" * 17),
        ("units", "layers", bits_to_bytes("01"), held_by_layers(UNITS, "01")),
        ("units", "units", bits_to_bytes("101"), held_by_units(UNITS, "101")),
        ("two axes", "units", bits_to_bytes("0101"), held_by_units(TWO_AXES, "0101")),
        ("two axes", "units", bits_to_bytes("1010"), held_by_units(TWO_AXES, "1010")),
        ("two axes", "layers", bits_to_bytes("01"), held_by_layers(TWO_AXES, "01")),
        ("units", "bitmap", bits_to_bytes("1" + "0" * 16), "1" + "0" * 16),
        ("flat", "bitmap", bits_to_bytes(half), half),
        ("flat", "sparse", coded, few),
        ("flat", "sparse", elias_fano(most), most),
        ("flat", "sparse", elias_fano("0" * 200), "0" * 200),
        ("statistics", "layers", bits_to_bytes("010"), held_by_layers(STATISTICS, "010")),
        ("statistics", "layers", bits_to_bytes("110"), held_by_layers(STATISTICS, "110")),
    ]
    invalid = [
        ("units", "full", b"\x80", "carries no data"),
        ("units", "layers", b"\x41", "padding bit"),
        ("units", "units", b"", "take 1 bytes"),
        ("units", "units", b"\xa0\x00", "take 1 bytes"),
        ("units", "units", b"\xb0", "padding bit"),
        ("flat", "bitmap", bits_to_bytes(few), "canonical"),
        ("flat", "sparse", elias_fano(half), "canonical"),
        ("flat", "sparse", coded[:7], "head"),
        ("flat", "sparse", coded[:-1], "number of positions"),
        ("flat", "sparse", coded[:8] + b"\x00" + coded[8:], "canonical|outside"),
        ("flat", "sparse", b"\xff" * 8 + coded[8:], "too short"),
        ("flat", "sparse", coded[:-1] + bytes([coded[-1] | 1]), "canonical"),
    ]
    return {
        "layouts": {"units": UNITS, "two axes": TWO_AXES, "flat": FLAT, "statistics": STATISTICS},
        "valid": [{"layout": of, "kind": kind, "data": data, "held": held} for of, kind, data, held in valid],
        "invalid": [{"layout": of, "kind": kind, "data": data, "why": why} for of, kind, data, why in invalid],
    }
