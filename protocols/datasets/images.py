"""Images and their labels as files hold them, made into what models take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from protocols.training import Examples
from secagg.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_WHITE = 255.0


@dataclass(frozen=True)
class Scale:
    """How the pixels of a data set are standardised: by public constants, so that no client's data enters them.

    Args:
        means: Of each channel of the training images, in [0, 1].
        deviations: Standard deviations, likewise.
    """

    means: tuple[float, ...]
    deviations: tuple[float, ...]

    def examples(self, pixels: NDArray[np.uint8], labels: NDArray[Any], classes: int, path: Path) -> Examples:
        """Images as float32 and their labels as int64.

        Args:
            pixels: (n, channels, height, width).
            labels: (n,) integers.
            classes: How many labels there are.
            path: Where they come from, for errors.

        Raises:
            InputError: Other pixels than bytes, not one label for each image, or a label outside [0, classes).
        """
        if pixels.dtype != np.uint8:
            raise InputError(f"{path}: pixels must be bytes, not {pixels.dtype}")
        if len(pixels) != len(labels) or not len(labels):
            raise InputError(f"{path}: {len(pixels)} images and {len(labels)} labels")
        if labels.min() < 0 or labels.max() >= classes:
            raise InputError(f"{path}: every label must be in [0, {classes})")
        inputs = torch.from_numpy(pixels.astype(np.float32)).div_(_WHITE)
        means, deviations = (torch.tensor(each).view(-1, 1, 1) for each in (self.means, self.deviations))
        return Examples(inputs.sub_(means).div_(deviations), torch.from_numpy(labels.astype(np.int64)))


def halves(split: NDArray[Any], path: Path) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The places of the training and of the test examples, where 0 marks the former and 1 the latter.

    Raises:
        InputError: Another mark, or none of the one or the other.
    """
    if set(np.unique(split).tolist()) != {0, 1}:
        raise InputError(f"{path}: split must be 0 for training and 1 for test, both there")
    return np.flatnonzero(split == 0), np.flatnonzero(split == 1)
