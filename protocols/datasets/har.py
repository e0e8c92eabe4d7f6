"""UCI HAR: six activities of 30 people who carried a phone at the waist (D. Anguita et al., ESANN 2013).

Windows are (n, 9, 128) float32: 128 samples at 50 Hz of body acceleration, angular velocity and total acceleration,
each along x, y and z. Neighbours overlap by half. The inertial signals are read, not the 561 features made of them. The
distribution's own split, by people, is not used: every client is to be judged on windows of its own. Its README.txt
asks for citation and forbids commercial use; the page at UCI says CC BY 4.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from protocols.datasets.files import Distribution, read_npz, reading, stored
from protocols.datasets.signals import Windows, runs
from secagg.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from protocols.datasets.dataset import Dataset

CLASSES = 6
SIGNALS = tuple(f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc") for axis in "xyz")
"""The channels, by the names of their files, in their order."""

LENGTH = 128
_TEST_SHARE = 0.2
_ARCHIVE = "ucihar_inertial.npz"
_OFFICIAL = "UCI HAR Dataset"
_HALVES = ("train", "test")
_HAR = Distribution(
    "har",
    (_ARCHIVE, f"{_OFFICIAL}/ with y_*.txt, subject_*.txt and Inertial Signals/*.txt in both train/ and test/"),
    ("https://archive.ics.uci.edu/dataset/240/human+activity+recognition+using+smartphones",),
)


def load(folder: Path | None) -> Dataset:
    """UCI HAR, 10,299 windows; the owner of a window is its subject, 1 to 30.

    Of every subject and activity the latest recordings, as near to a fifth of the windows as whole recordings allow and
    at least one of several, are for testing. A recording is a run of windows that overlap: so no sample is on both
    sides.

    Args:
        folder: Where its files are, or what has a folder ``har`` or ``UCI HAR Dataset`` with them.

    Raises:
        ParameterError: No folder.
        InputError: No files there, or damaged ones.
    """
    for place in _HAR.places(folder, _OFFICIAL):
        if (path := place / _ARCHIVE).is_file():
            arrays = read_npz(path, {"X": (len(SIGNALS), LENGTH), "y": (), "subject": ()}, real=("X",))
            return _dataset(arrays["X"], arrays["y"], arrays["subject"], path)
        if any((place / half / "Inertial Signals").is_dir() for half in _HALVES):
            signals, labels, subjects = map(np.concatenate, zip(*(_half(place, half) for half in _HALVES), strict=True))
            return _dataset(signals, labels - 1, subjects, place)
    raise _HAR.missing(folder)


def _dataset(signals: NDArray[Any], labels: NDArray[Any], subjects: NDArray[Any], path: Path) -> Dataset:
    overlap = (signals[:-1, :, LENGTH // 2 :] == signals[1:, :, : LENGTH // 2]).all(axis=(1, 2))
    windows = Windows(signals, labels, subjects, runs(subjects, labels, joined=overlap))
    tested = np.zeros(len(labels), bool)
    for subject, label in np.unique(np.stack([subjects, labels], axis=1), axis=0):
        places = np.flatnonzero((subjects == subject) & (labels == label))
        tested[places[_first_tested(windows.recordings[places]) :]] = True
    return windows.dataset(_HAR.name, CLASSES, np.flatnonzero(~tested), np.flatnonzero(tested), path)


def _first_tested(recordings: NDArray[np.intp]) -> int:
    """Where the recordings for testing begin; after all where there is only one."""
    _, starts = np.unique(recordings, return_index=True)
    if len(starts) == 1:
        return len(recordings)
    distances = np.abs(starts[1:] - (1 - _TEST_SHARE) * len(recordings))
    return int(starts[1:][distances.argmin()])


def _half(place: Path, half: str) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """The windows of a half of the official files, their labels from 1, and their subjects."""
    inner = place / half / "Inertial Signals"
    signals = [_table(inner, f"{name}_{half}.txt", LENGTH, np.float32) for name in SIGNALS]
    labels, subjects = (_table(place / half, f"{name}_{half}.txt", 1, np.int64)[:, 0] for name in ("y", "subject"))
    if len({len(rows) for rows in (*signals, labels, subjects)}) > 1:
        raise InputError(f"{place / half}: all files must have as many rows, one for each window")
    return np.stack(signals, axis=1), labels, subjects


def _table(folder: Path, name: str, columns: int, dtype: type[np.generic]) -> NDArray[Any]:
    """A text file of numbers."""
    path = stored(folder, name)
    if path is None:
        raise InputError(f"{name} is missing in {folder}, beside other files of {_HAR.name}")
    with reading(path):
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        if not lines:
            raise ValueError("it is empty")
        rows = np.loadtxt(lines, dtype, comments=None, ndmin=2)
    if rows.shape[1] != columns:
        raise InputError(f"{path} must have {columns} numbers a row, not {rows.shape[1]}")
    return rows
