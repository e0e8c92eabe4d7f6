"""The leaves of a model, unit by unit and tensor by tensor, and their Merkle tree (RFC 9162, section 2.1)."""

from __future__ import annotations

import hashlib
import struct
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.vectors.reference.declaring import Json

FORMATS = {"float16": "<e", "float32": "<f", "bfloat16": "<f", "float64": "<d"}


def leaves(layout: Json, model: dict[str, list[float]]) -> list[bytes]:
    units = sum(size for _, size in layout["unit_groups"])
    found = [b""] * (units + len(layout["tensors"]))
    for number, tensor in enumerate(layout["tensors"]):
        axes = {int(axis): of for axis, of in tensor["unit_axes"].items() if set(of) != {-1}}
        owners = axes[min(axes)] if axes else []
        of_slice: dict[int, bytes] = {}
        indices = product(*map(range, tensor["shape"]))
        for index, value in zip(indices, model[tensor["name"]], strict=True):
            place = index[min(axes)] if axes else 0
            of_slice[place] = of_slice.get(place, b"") + struct.pack(FORMATS[tensor["dtype"]], value)
        for place in sorted(of_slice):
            owner = owners[place] if axes else -1
            found[units + number if owner < 0 else owner] += of_slice[place]
    return found


def root(of: Sequence[bytes]) -> bytes:
    if len(of) == 1:
        return hashlib.sha256(b"\x00" + of[0]).digest()
    middle = 1
    while 2 * middle < len(of):
        middle *= 2
    return hashlib.sha256(b"\x01" + root(of[:middle]) + root(of[middle:])).digest()
