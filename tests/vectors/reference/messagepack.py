"""The shortest MessagePack coding, as far as messages need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

INTEGERS = {1: 0xCC, 2: 0xCD, 4: 0xCE, 8: 0xCF}
BINARIES = {1: 0xC4, 2: 0xC5, 4: 0xC6}


def packed(value: object) -> bytes:
    """Nil, unsigned integers, bytes, text and arrays; a mapping is written as the array of its values."""
    match value:
        case None:
            return b"\xc0"
        case int():
            return bytes([value]) if value < 128 else sized(INTEGERS, value)
        case bytes():
            return sized(BINARIES, len(value)) + value
        case str():
            return bytes([0xA0 | len(value)]) + value.encode()
        case Mapping():
            return array(list(value.values()))
        case Sequence():
            return array(value)
    raise TypeError("messages hold no other types")


def sized(heads: Mapping[int, int], number: int) -> bytes:
    size = next(size for size in heads if number < 256**size)
    return bytes([heads[size]]) + number.to_bytes(size, "big")


def array(values: Sequence[object]) -> bytes:
    head = bytes([0x90 | len(values)]) if len(values) < 16 else b"\xdc" + len(values).to_bytes(2, "big")
    return head + b"".join(map(packed, values))


def on_wire(tag: str, *fields: object) -> bytes:
    return b"\x01" + packed([tag, *fields])
