"""CIFAR-10 (A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009): colour images, 10 classes.

Images are (n, 3, 32, 32) float32, standardised channel by channel. There are no natural clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from protocols.datasets.dataset import Dataset
from protocols.datasets.files import Distribution, read_npz, reading
from protocols.datasets.images import Scale, halves
from protocols.datasets.pickled import read_batch
from secagg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES = 10
_SHAPE = (3, 32, 32)
_VALUES = 3 * 32 * 32
_ARCHIVE = "cifar10_18k.npz"
_BINARY, _PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
_TRAIN_BATCHES, _TEST_BATCH = tuple(f"data_batch_{number}" for number in range(1, 6)), "test_batch"

_CIFAR10 = Distribution(
    "cifar10",
    (
        f"{_BINARY}/ with data_batch_1.bin to data_batch_5.bin and test_batch.bin",
        f"{_PYTHON}/ with data_batch_1 to data_batch_5 and test_batch",
        _ARCHIVE,
    ),
    ("https://www.cs.toronto.edu/~kriz/cifar.html",),
)
_SCALE = Scale((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def load(folder: Path | None) -> Dataset:
    """CIFAR-10, 50,000 and 10,000 images, or as many as an archive of numpy holds of them.

    Args:
        folder: Where its files are, or what holds the folder of a distribution.

    Raises:
        ParameterError: No folder.
        InputError: No files there, or damaged ones.
    """
    places = _CIFAR10.places(folder, _BINARY, _PYTHON)
    for place in places:
        if any((place / f"{name}.bin").is_file() for name in _TRAIN_BATCHES):
            return _from_batches(place, ".bin", _records)
        if any((place / name).is_file() for name in _TRAIN_BATCHES):
            return _from_batches(place, "", _pickled)
    for place in places:
        if (path := place / _ARCHIVE).is_file():
            return _from_archive(path)
    raise _CIFAR10.missing(folder)


def _from_archive(path: Path) -> Dataset:
    arrays = read_npz(path, {"X": _SHAPE, "y": (), "split": ()})
    train, test = (
        _SCALE.examples(arrays["X"][half], arrays["y"][half], CLASSES, path) for half in halves(arrays["split"], path)
    )
    return Dataset(_CIFAR10.name, train, test, CLASSES)


def _from_batches(place: Path, suffix: str, read: Callable[[Path], tuple[NDArray[np.uint8], NDArray[Any]]]) -> Dataset:
    """All batches of one kind; a set without one of them would pass for the whole."""
    paths = [place / f"{name}{suffix}" for name in (*_TRAIN_BATCHES, _TEST_BATCH)]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path.name} is missing in {place}, beside other batches of {_CIFAR10.name}")
    *train, (test_pixels, test_labels) = (read(path) for path in paths)
    pixels, labels = (np.concatenate(each) for each in zip(*train, strict=True))
    return Dataset(
        _CIFAR10.name,
        _SCALE.examples(pixels.reshape(-1, *_SHAPE), labels, CLASSES, place),
        _SCALE.examples(test_pixels.reshape(-1, *_SHAPE), test_labels, CLASSES, paths[-1]),
        CLASSES,
    )


def _records(path: Path) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """The binary version: a label and the values of an image, byte after byte."""
    with reading(path):
        content = np.frombuffer(path.read_bytes(), np.uint8)
    if len(content) % (1 + _VALUES) or not len(content):
        raise InputError(f"{path} must hold records of {1 + _VALUES} bytes, at least one, not {len(content)} bytes")
    records = content.reshape(-1, 1 + _VALUES)
    return records[:, 1:], records[:, 0]


def _pickled(path: Path) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """The version for Python."""
    return read_batch(path, _VALUES)
