"""The handwritten digits that come with scikit-learn: 1,797 gray images of 8 x 8 pixels, without any download."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits

from protocols.datasets.partition import dirichlet
from protocols.training import Examples

_LARGEST_PIXEL = 16.0


class Split(NamedTuple):
    """A training set and a test set, disjoint."""

    train: Examples
    test: Examples


def split_digits(generator: np.random.Generator, test_share: float = 0.2) -> Split:
    """The digits in random order, a share of them kept for testing.

    Inputs are (n, 1, 8, 8) float32 in [0, 1], labels (n,) int64.

    Args:
        generator: The only source of randomness.
        test_share: In (0, 1).
    """
    digits = load_digits()
    inputs = torch.from_numpy((digits.images / _LARGEST_PIXEL).astype(np.float32)).unsqueeze(1)
    everything = Examples(inputs, torch.from_numpy(digits.target.astype(np.int64)))
    order = generator.permutation(len(everything)).tolist()
    test_size = round(test_share * len(order))
    return Split(everything.subset(order[test_size:]), everything.subset(order[:test_size]))


def partition(examples: Examples, clients: int, alpha: float, generator: np.random.Generator) -> tuple[Examples, ...]:
    """A label-skewed part of the examples for each client, as ``dirichlet``."""
    parts = dirichlet(examples.labels.numpy(), clients, alpha, generator)
    return tuple(examples.subset(part.tolist()) for part in parts)
