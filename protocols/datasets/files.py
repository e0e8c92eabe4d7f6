"""Finding and reading the files of a data set, strictly: what is damaged or of another form is refused by its name.

Nothing is ever downloaded: who has no files learns what was looked for, where, and where it is to be had.
"""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

IDX_BYTES, IDX_INTEGERS = 0x08, 0x0C
"""The codes of value types that occur here in IDX files: unsigned bytes, and integers of 32 bits."""

_IDX_DTYPES: Mapping[int, np.dtype[Any]] = {IDX_BYTES: np.dtype("u1"), IDX_INTEGERS: np.dtype(">i4")}


@dataclass(frozen=True)
class Distribution:
    """The files that a data set comes in.

    Args:
        name: Of the data set, and of a folder that may hold its files.
        files: What is looked for, each line one way to have the data set.
        homes: Addresses of its official homes.
    """

    name: str
    files: tuple[str, ...]
    homes: tuple[str, ...]

    def places(self, folder: Path | None, *inner: str) -> tuple[Path, ...]:
        """Where to look: in the folder within it that is named after the data set, in others within it, in itself.

        Args:
            folder: As the user gave it.
            inner: Names that a distribution's own folder may have.

        Raises:
            ParameterError: No folder was given.
        """
        if folder is None:
            raise ParameterError(f"{self.name} is read from files: say where they are (--data-dir). {self._advice}")
        own = folder / self.name
        within = [base / name for base in (own, folder) for name in inner]
        return tuple(place for place in (own, *within, folder) if place.is_dir())

    def missing(self, folder: Path | None) -> InputError:
        """The error for a folder that holds none of the files."""
        return InputError(f"no {self.name} in {folder}. {self._advice}")

    @property
    def _advice(self) -> str:
        return f"Looked for: {'; or '.join(self.files)}. To be had from {' or '.join(self.homes)}"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns the errors of reading a file into one that names it."""
    try:
        yield
    except (OSError, EOFError, ValueError, KeyError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def stored(folder: Path, name: str) -> Path | None:
    """The file of this name, plain or compressed by gzip, or None."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_idx(path: Path, code: int, item: tuple[int, ...] = ()) -> NDArray[Any]:
    """An IDX file, the format of MNIST's distribution: a magic number, sizes, and big-endian values.

    Args:
        path: The file; decompressed where its name ends in ``.gz``.
        code: Of the values' type, ``IDX_BYTES`` or ``IDX_INTEGERS``.
        item: Shape of one item.

    Returns:
        (n, *item), read-only.

    Raises:
        InputError: The file is damaged, or holds something else or nothing.
    """
    with reading(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = file.read()
    axes = 1 + len(item)
    magic, start = bytes((0, 0, code, axes)), 4 + 4 * axes
    if content[:4] != magic or len(content) < start:
        raise InputError(f"{path} is no IDX file of the kind: it must begin with {magic.hex()} and {axes} sizes")
    shape = tuple(np.frombuffer(content, ">u4", axes, 4).tolist())
    if shape[1:] != item or not shape[0]:
        raise InputError(f"{path} must hold items of shape {item}, at least one, but its shape is {shape}")
    dtype = _IDX_DTYPES[code]
    if len(content) - start != math.prod(shape) * dtype.itemsize:
        raise InputError(f"{path} holds {len(content) - start} bytes of values, other than its shape {shape} says")
    values: NDArray[Any] = np.frombuffer(content, dtype, offset=start)
    return values.reshape(shape)


def read_npz(path: Path, items: Mapping[str, tuple[int, ...]], real: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """Some arrays of an archive of numpy, equally long.

    Args:
        path: The file.
        items: Name of an array to the shape of one item.
        real: Names of those that hold floating-point numbers; the others hold integers.

    Raises:
        InputError: The file is damaged, lacks one of the arrays, or has one of another form.
    """
    with reading(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} is damaged")
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: np.asarray(arrays[name]) for name in items}
    for name, item in items.items():
        array, (kinds, called) = found[name], ("f", "real numbers") if name in real else ("ui", "integers")
        if array.dtype.kind not in kinds or array.ndim != 1 + len(item) or array.shape[1:] != item:
            form = ("n", *item)
            raise InputError(f"{path}: {name} must be {form} {called}, but is {array.shape} of {array.dtype}")
    if len({len(array) for array in found.values()}) > 1:
        raise InputError(f"{path}: {', '.join(items)} must be equally long")
    return found
