"""WISDM, the watch's accelerometer: six activities of 51 people (G. M. Weiss et al., IEEE Access 7, 2019).

Windows are (n, 3, 200) float32: 200 samples at 20 Hz of the acceleration along x, y and z, a new window every 100. Of
the 18 activities six are read: walking, jogging, stairs, sitting, standing and kicking. This is not WISDM v1.1, which
other people recorded with a phone. The page at UCI says CC BY 4.0.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from protocols.datasets.files import Distribution, read_npz, reading
from protocols.datasets.signals import Windows, runs
from secagg.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from protocols.datasets.dataset import Dataset

ACTIVITIES = "ABCDEM"
"""The letters of walking, jogging, stairs, sitting, standing and kicking: the labels, from 0."""

AXES, LENGTH, STEP = 3, 200, 100
_FIELDS = 6
_TRAIN_SHARE = 0.8
_ARCHIVE = "wisdm19_watch.npz"
_OFFICIAL, _RAW, _FILES = "wisdm-dataset", "raw/watch/accel", "data_*_accel_watch.txt"
_WISDM = Distribution(
    "wisdm",
    (f"{_OFFICIAL}/{_RAW}/{_FILES}", _ARCHIVE),
    ("https://archive.ics.uci.edu/dataset/507/wisdm+smartphone+and+smartwatch+activity+and+biometrics+dataset",),
)


def load(folder: Path | None) -> Dataset:
    """WISDM, the official recordings of three minutes, or as much as an archive of numpy holds of them.

    The owner of a window is the person, 1600 to 1650. Each recording is cut in time: test windows begin where 80 % of
    the windows are over, and the training windows that share samples with the first of them are left out.

    Args:
        folder: Where its files are, or what has a folder ``wisdm`` or ``wisdm-dataset`` with them.

    Raises:
        ParameterError: No folder.
        InputError: No files there, or damaged ones.
    """
    places = _WISDM.places(folder, _OFFICIAL)
    for place in places:
        for raw in (place / _RAW, place):
            if paths := sorted(raw.glob(_FILES)):
                return _official(paths, raw)
    for place in places:
        if (path := place / _ARCHIVE).is_file():
            return _from_archive(path)
    raise _WISDM.missing(folder)


def _from_archive(path: Path) -> Dataset:
    items: dict[str, tuple[int, ...]] = {"X": (AXES, LENGTH), "y": (), "user": (), "run": (), "start": ()}
    arrays = read_npz(path, items, real=("X",))
    order = np.lexsort((arrays["start"], arrays["run"]))
    signals, labels, users, recordings, starts = (arrays[name][order] for name in items)
    same = recordings[1:] == recordings[:-1]
    if np.any(same & ((users[1:] != users[:-1]) | (labels[1:] != labels[:-1]))):
        raise InputError(f"{path}: all windows of a run must have one user and one label")
    if np.any(same & (np.diff(starts) < STEP)):
        raise InputError(f"{path}: the windows of a run must begin {STEP} samples apart or more")
    return _dataset(Windows(signals, labels, users, runs(recordings)), starts.astype(np.intp), path)


def _official(paths: list[Path], folder: Path) -> Dataset:
    recorded = [one for path in paths for one in _recordings(path)]
    if not recorded:
        raise InputError(f"{folder}: no recording of the activities {ACTIVITIES} has {LENGTH} samples")
    users, labels, samples = zip(*recorded, strict=True)
    signals = [sliding_window_view(each, LENGTH, axis=0)[::STEP] for each in samples]
    counts = [len(each) for each in signals]
    recordings = np.repeat(np.arange(len(counts)), counts)
    windows = Windows(np.concatenate(signals), np.repeat(labels, counts), np.repeat(users, counts), recordings)
    return _dataset(windows, np.concatenate([STEP * np.arange(count) for count in counts]), folder)


def _recordings(path: Path) -> list[tuple[int, int, NDArray[np.float32]]]:
    """The user, the label and the (n, 3) samples of each recording of a file that is long enough for a window.

    A row that is there twice counts once: it is one sample, and must not come to both sides of a split.
    """
    with reading(path):
        lines = dict.fromkeys(path.read_text().splitlines())
        rows = [line.strip().rstrip(";").split(",") for line in lines if line.strip()]
        if any(len(row) != _FIELDS for row in rows) or len({row[0] for row in rows}) != 1:
            raise ValueError("its rows must be user,activity,timestamp,x,y,z; all of one user")
        found = []
        for activity, run in groupby(rows, key=itemgetter(1)):
            samples = [row[-AXES:] for row in run]
            if activity in ACTIVITIES and len(samples) >= LENGTH:
                found.append((int(rows[0][0]), ACTIVITIES.index(activity), np.array(samples, np.float32)))
    return found


def _dataset(windows: Windows, starts: NDArray[np.intp], path: Path) -> Dataset:
    """Cuts each recording in time.

    Args:
        windows: Of all recordings.
        starts: (n,) the sample of its recording that each begins with.
        path: For errors.
    """
    bounds = np.flatnonzero(np.diff(windows.recordings)) + 1
    train, test = [], []
    for places in np.split(np.arange(len(starts)), bounds):
        first = round(_TRAIN_SHARE * len(places))
        cut = starts[places[first]] if first < len(places) else np.inf
        train.append(places[starts[places] + LENGTH <= cut])
        test.append(places[first:])
    return windows.dataset(_WISDM.name, len(ACTIVITIES), np.concatenate(train), np.concatenate(test), path)
