"""Windows of recorded signals and their labels, made into what models take.

Windows that are cut from one recording overlap their neighbours. Cut at random they would put the same samples on both
sides of a split; so a data set decides by recordings and by time which windows are for training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from protocols.datasets.dataset import Dataset
from protocols.training import Examples
from secagg.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of signals, those of one recording one after another and in the order of time.

    Args:
        signals: (n, channels, samples) real numbers.
        labels: (n,) integers from 0.
        owners: (n,) the person recorded.
        recordings: (n,) the recording, of one person and one label: only neighbours in it share samples.
    """

    signals: NDArray[Any]
    labels: NDArray[Any]
    owners: NDArray[Any]
    recordings: NDArray[np.intp]

    def dataset(self, name: str, classes: int, train: NDArray[np.intp], test: NDArray[np.intp], path: Path) -> Dataset:
        """The windows as a data set, each channel standardised by the moments of the training windows alone.

        Args:
            name: In the catalogue.
            classes: Number of labels.
            train: Places of the windows for training, ascending.
            test: Those for judging.
            path: Where the windows come from, for errors.

        Returns:
            Inputs (n, channels, samples) float32, labels (n,) int64.

        Raises:
            InputError: No window for the one or the other, a value that is not finite, or a channel that never varies.
        """
        if not len(train) or not len(test):
            raise InputError(f"{path}: the recordings are too short to be cut into training and test windows")
        if not np.isfinite(self.signals).all():
            raise InputError(f"{path}: every value must be finite")
        seen = self.signals[train]
        means = seen.mean(axis=(0, 2), dtype=np.float64, keepdims=True)
        deviations = seen.std(axis=(0, 2), dtype=np.float64, keepdims=True)
        if not deviations.all():
            raise InputError(f"{path}: channel {int(deviations.argmin())} never varies")
        scaled = ((self.signals - means) / deviations).astype(np.float32)
        labels, owners = self.labels.astype(np.int64), self.owners.astype(np.intp)
        return Dataset(
            name=name,
            train=Examples(torch.from_numpy(scaled[train]), torch.from_numpy(labels[train])),
            test=Examples(torch.from_numpy(scaled[test]), torch.from_numpy(labels[test])),
            classes=classes,
            owners=owners[train],
            test_owners=owners[test],
            recordings=self.recordings[train],
        )


def runs(*columns: NDArray[Any], joined: NDArray[np.bool_] | None = None) -> NDArray[np.intp]:
    """Numbers the runs of successive rows that have the same values in every column.

    Args:
        columns: (n,) each.
        joined: (n - 1,) whether a row may go on with the run of the row before; None for yes.

    Returns:
        (n,) from 0, ascending.
    """
    same = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    if joined is not None:
        same &= joined
    return np.concatenate([[0], np.cumsum(~same)]).astype(np.intp)
