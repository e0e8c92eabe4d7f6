from __future__ import annotations

import numpy as np
import pytest
import torch

from protocols.datasets.digits import partition, split_digits
from protocols.datasets.partition import dirichlet
from secagg.errors import ParameterError

LABELS = np.repeat(np.arange(5), 40)


def shares(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.array([np.bincount(LABELS[part], minlength=5) / len(part) for part in parts])


@pytest.mark.parametrize("alpha", [0.01, 0.5, 100.0])
def test_parts_are_disjoint_and_of_one_size(alpha: float) -> None:
    parts = dirichlet(LABELS, 7, alpha, np.random.default_rng(0))
    assert [len(part) for part in parts] == [28] * 7
    assert len(np.unique(np.concatenate(parts))) == 7 * 28


def test_a_small_alpha_skews_labels_and_a_large_one_does_not() -> None:
    skewed, even = (
        np.array([shares(dirichlet(LABELS, 4, alpha, np.random.default_rng(seed))).max(axis=1) for seed in range(10)])
        for alpha in (0.05, 1000.0)
    )
    assert skewed.mean() > 0.6
    assert even.mean() < 0.35
    assert even[1].max() < 0.4


def test_a_partition_repeats_with_its_seed() -> None:
    one, same, other = (dirichlet(LABELS, 4, 0.5, np.random.default_rng(seed)) for seed in (2, 2, 3))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("clients", "alpha", "message"), [(4, 0.0, "alpha"), (0, 1.0, "parts"), (500, 1.0, "parts")])
def test_a_partition_that_cannot_be_is_refused(clients: int, alpha: float, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        dirichlet(LABELS, clients, alpha, np.random.default_rng(0))


def test_digits_are_split_without_overlap_and_scaled() -> None:
    split = split_digits(np.random.default_rng(0), test_share=0.25)
    assert (len(split.train), len(split.test)) == (1348, 449)
    assert split.train.inputs.shape[1:] == (1, 8, 8)
    assert float(split.train.inputs.min()) == 0
    assert float(split.train.inputs.max()) == 1
    rows = torch.cat([split.train.inputs, split.test.inputs]).reshape(1797, 64)
    assert len(torch.unique(rows, dim=0)) == 1797


def test_every_client_gets_digits_of_its_own() -> None:
    train = split_digits(np.random.default_rng(0)).train
    parts = partition(train, 20, 0.5, np.random.default_rng(0))
    assert [len(part) for part in parts] == [len(train) // 20] * 20
