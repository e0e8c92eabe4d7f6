"""The handwritten digits that come with scikit-learn: 1,797 gray images of 8 x 8 pixels, without any download."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from protocols.datasets.dataset import Dataset
from protocols.training import Examples

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = 10
_LARGEST_PIXEL = 16.0
_TEST_SHARE = 0.2
_SPLIT_SEED = 0


def load(_folder: Path | None = None) -> Dataset:
    """The digits, a fifth of them for testing; who wrote which is not known.

    scikit-learn leaves them in one set. It is split here at random, always the same way. Inputs are (n, 1, 8, 8)
    float32 in [0, 1], labels (n,) int64.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    inputs = torch.from_numpy((digits.images / _LARGEST_PIXEL).astype(np.float32)).unsqueeze(1)
    everything = Examples(inputs, torch.from_numpy(digits.target.astype(np.int64)))
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(everything)).tolist()
    test_size = round(_TEST_SHARE * len(order))
    return Dataset("digits", everything.subset(order[test_size:]), everything.subset(order[:test_size]), CLASSES)
