"""Reading the pickled batches of CIFAR-10 without running what a pickle may hold.

A pickle is a program: whatever function it names, loading it calls. Here the only names are the three by which numpy
pickles an array, and they stand for an object that does nothing but keep what it is given. From that the array is then
built by hand.
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from secagg.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class _Kept:
    """Stands for an array or its dtype: the arguments and the state by which it would have been built."""

    def __init__(self, *args: object) -> None:
        self.args = args
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


_NAMES = {
    (module, name)
    for module, name in (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    )
}


class _Unpickler(pickle._Unpickler):  # noqa: SLF001 - the one in C reserves as much memory as a damaged number says
    """Knows no names but those of an array of numpy."""

    def find_class(self, module: str, name: str) -> type[_Kept]:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and only arrays of numpy are read")
        return _Kept


def read_batch(path: Path, values: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A batch: a dict of ``data``, (n, values) bytes, and ``labels``, a list of n integers.

    Args:
        path: The file, of either generation of Python.
        values: Bytes of an image.

    Raises:
        InputError: The file is damaged, or names anything else than an array of numpy, or holds something else.
    """
    try:
        batch = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except (
        *(pickle.UnpicklingError, EOFError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError),
        *(OverflowError, MemoryError, RecursionError, struct.error),
    ) as error:
        raise InputError(f"{path} is no batch of CIFAR-10: {error}") from error
    data, labels = _entry(batch, "data"), _entry(batch, "labels")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise InputError(f"{path} must hold a list of labels")
    content = _bytes_of(data, (len(labels), values))
    if content is None:
        raise InputError(f"{path} must hold {values} bytes for each of its {len(labels)} labels")
    return np.frombuffer(content, np.uint8).reshape(len(labels), values), np.array(labels, np.int64)


def _entry(batch: object, name: str) -> Any:
    """Keys were bytes in the older generation of Python."""
    return batch.get(name.encode(), batch.get(name)) if isinstance(batch, dict) else None


def _bytes_of(kept: object, shape: tuple[int, ...]) -> bytes | None:
    """What is in an array of bytes of that shape, or None if this is none.

    The state of an array is a version, its shape, its dtype, whether columns come first, and its content.
    """
    match kept:
        case _Kept(state=(_, found, _Kept(args=("u1" | b"u1", *_)), False, bytes(content))):
            return content if found == shape and len(content) == shape[0] * shape[1] else None
    return None
