"""MNIST, by writer where the writers are known, and Fashion-MNIST, which comes in files of the same names.

Images are (n, 1, 28, 28) float32, standardised. Of MNIST's writers tell two files: an archive of numpy, and the
extended labels of QMNIST (C. Yadav and L. Bottou, "Cold Case: The Lost MNIST Digits", 2019) beside the official files.
The writers of the training images are others than those of the test images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from protocols.datasets.dataset import Dataset
from protocols.datasets.files import IDX_BYTES, IDX_INTEGERS, Distribution, read_idx, read_npz, stored
from protocols.datasets.images import Scale, halves
from secagg.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from protocols.training import Examples

CLASSES = 10
_ARCHIVE = "mnist_writers.npz"
_SIDE = 28
_OFFICIAL = "train-images-idx3-ubyte, train-labels-idx1-ubyte and the same of t10k, plain or .gz"

_MNIST = Distribution(
    "mnist",
    (_ARCHIVE, f"{_OFFICIAL}, with qmnist-train-labels-idx2-int beside them where writers are wanted"),
    ("http://yann.lecun.com/exdb/mnist/", "https://github.com/facebookresearch/qmnist"),
)
_FASHION = Distribution("fashion-mnist", (_OFFICIAL,), ("https://github.com/zalandoresearch/fashion-mnist",))

_MNIST_SCALE = Scale((0.1307,), (0.3081,))
_FASHION_SCALE = Scale((0.2860,), (0.3530,))

_FIRST_LABELS = {"mnist": [5, 0, 4, 1, 9], "fashion-mnist": [9, 0, 0, 3, 0]}
"""How the training labels begin: all that tells apart two data sets whose files have the same names and form."""

_QMNIST_COLUMNS = 8
_LABEL, _WRITER = 0, 2
"""Columns of QMNIST's extended labels."""


def load(folder: Path | None) -> Dataset:
    """MNIST, 60,000 and 10,000 images of digits.

    Args:
        folder: Where its files are, or what has a folder ``mnist`` with them.

    Raises:
        ParameterError: No folder.
        InputError: No files there, or damaged ones.
    """
    for place in _MNIST.places(folder):
        if (archive := place / _ARCHIVE).is_file():
            return _from_archive(archive)
        if stored(place, "train-images-idx3-ubyte") is not None:
            return _official(place, _MNIST, _MNIST_SCALE)
    raise _MNIST.missing(folder)


def load_fashion(folder: Path | None) -> Dataset:
    """Fashion-MNIST, 60,000 and 10,000 images of clothes, without natural clients.

    Args:
        folder: Where its files are, or what has a folder ``fashion-mnist`` with them.

    Raises:
        ParameterError: No folder.
        InputError: No files there, or damaged ones.
    """
    for place in _FASHION.places(folder):
        if stored(place, "train-images-idx3-ubyte") is not None:
            return _official(place, _FASHION, _FASHION_SCALE)
    raise _FASHION.missing(folder)


def _from_archive(path: Path) -> Dataset:
    arrays = read_npz(path, {"X": (_SIDE, _SIDE), "y": (), "split": (), "writer": ()})
    writers = arrays["writer"].astype(np.intp)
    train, test = halves(arrays["split"], path)
    images, labels = arrays["X"][:, np.newaxis], arrays["y"]
    return Dataset(
        name=_MNIST.name,
        train=_MNIST_SCALE.examples(images[train], labels[train], CLASSES, path),
        test=_MNIST_SCALE.examples(images[test], labels[test], CLASSES, path),
        classes=CLASSES,
        owners=writers[train],
        test_owners=writers[test],
    )


def _official(place: Path, distribution: Distribution, scale: Scale) -> Dataset:
    train = _official_half(place, "train", distribution, scale)
    first = _FIRST_LABELS[distribution.name]
    if train.labels[: len(first)].tolist() != first:
        raise InputError(f"{place} holds another data set than {distribution.name}: its labels do not begin {first}")
    test = _official_half(place, "t10k", distribution, scale)
    owners = test_owners = None
    if distribution is _MNIST:
        owners = _writers(place, "qmnist-train-labels-idx2-int", train)
        test_owners = _writers(place, "qmnist-test-labels-idx2-int", test)
    return Dataset(distribution.name, train, test, CLASSES, owners, test_owners)


def _official_half(place: Path, half: str, distribution: Distribution, scale: Scale) -> Examples:
    images, image_path = _read(place, f"{half}-images-idx3-ubyte", distribution, IDX_BYTES, (_SIDE, _SIDE))
    labels, _ = _read(place, f"{half}-labels-idx1-ubyte", distribution, IDX_BYTES)
    return scale.examples(images[:, np.newaxis], labels, CLASSES, image_path)


def _read(
    place: Path, name: str, distribution: Distribution, code: int, item: tuple[int, ...] = ()
) -> tuple[NDArray[Any], Path]:
    path = stored(place, name)
    if path is None:
        raise InputError(f"{name} is missing in {place}, beside other files of {distribution.name}")
    return read_idx(path, code, item), path


def _writers(place: Path, name: str, examples: Examples) -> NDArray[np.intp] | None:
    """Who wrote each image. QMNIST's test set is longer than MNIST's and begins with it."""
    path = stored(place, name)
    if path is None:
        return None
    rows = read_idx(path, IDX_INTEGERS, (_QMNIST_COLUMNS,))[: len(examples)]
    if not np.array_equal(rows[:, _LABEL], examples.labels.numpy()):
        raise InputError(f"{path} holds other labels than those of the images beside it")
    return rows[:, _WRITER].astype(np.intp)
