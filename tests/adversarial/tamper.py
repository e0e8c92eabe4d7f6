"""Messages with something about them changed."""

from __future__ import annotations

from typing import Any

import msgspec

from secagg import messages


def changed(data: bytes, **fields: Any) -> bytes:
    """A message with some fields replaced."""
    return messages.encode(msgspec.structs.replace(messages.decode(data), **fields))


def part(data: bytes, field: str, index: int, **fields: Any) -> bytes:
    """A message with some fields of one of its parts replaced."""
    parts = list(getattr(messages.decode(data), field))
    parts[index] = msgspec.structs.replace(parts[index], **fields)
    return changed(data, **{field: tuple(parts)})


def without(data: bytes, field: str, index: int) -> bytes:
    """A message without one of its parts."""
    parts = list(getattr(messages.decode(data), field))
    del parts[index]
    return changed(data, **{field: tuple(parts)})


def swapped(data: bytes, field: str) -> bytes:
    """A message with its first two parts in each other's place."""
    first, second, *rest = getattr(messages.decode(data), field)
    return changed(data, **{field: (second, first, *rest)})


def twice(data: bytes, field: str) -> bytes:
    """A message with its first part repeated."""
    parts = getattr(messages.decode(data), field)
    return changed(data, **{field: (parts[0], *parts)})


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]
