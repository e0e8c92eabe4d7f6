"""Which test examples models are judged on: one model for all, and each client's own.

Places are places in the test set, ascending. Clients may have some in common, for they only judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secagg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from protocols.datasets.dataset import Dataset
    from protocols.datasets.division import Partition


def judged_on(
    dataset: Dataset,
    partition: Partition,
    dealt: Sequence[NDArray[np.intp]],
    kept: Sequence[NDArray[np.intp]],
    generator: np.random.Generator,
) -> tuple[NDArray[np.intp], list[NDArray[np.intp]]]:
    """The test set of a division, and the test examples of each client in it.

    A client's own are those of its natural clients; where the partition or the test set knows none, as many as an even
    share of the test set, drawn in the label shares of what the client trains on; of sequences the whole test set. With
    few labels they are those of its natural clients that have its labels, or else all that have them.

    Args:
        dataset: What is divided.
        partition: How.
        dealt: For each client the places of all its training examples.
        kept: Those of them that it trains on.
        generator: The only source of randomness.

    Raises:
        InputError: With few labels: the test set has none of a client's labels.
    """
    if partition == "few-labels":
        own = [_of_labels(dataset, part) for part in dealt]
        return np.unique(np.concatenate(own)), own
    pool, own = np.arange(len(dataset.test)), [np.empty(0, np.intp) for _ in dealt]
    if partition == "natural" and _shares_owners(dataset):
        own = [_of_owners(dataset, part) for part in dealt]
        pool = np.unique(np.concatenate(own))
    size = max(1, len(pool) // len(own))
    for client, part in enumerate(kept):
        if not len(own[client]):
            own[client] = pool if dataset.sequential else _in_shares(dataset, part, pool, size, generator)
    return pool, own


def _shares_owners(dataset: Dataset) -> bool:
    """Whether natural clients of the training set have test examples too."""
    if dataset.owners is None or dataset.test_owners is None:
        return False
    return bool(np.isin(dataset.test_owners, dataset.owners).any())


def _of_owners(dataset: Dataset, part: NDArray[np.intp]) -> NDArray[np.intp]:
    """The test examples of the natural clients of a part."""
    if dataset.owners is None or dataset.test_owners is None:
        return np.empty(0, np.intp)
    return np.flatnonzero(np.isin(dataset.test_owners, dataset.owners[part]))


def _of_labels(dataset: Dataset, part: NDArray[np.intp]) -> NDArray[np.intp]:
    """The test examples with the labels of a part, of its own natural clients or, where there are none, of all."""
    alike = np.flatnonzero(np.isin(dataset.test.labels.numpy(), dataset.train.labels.numpy()[part]))
    own = np.intersect1d(_of_owners(dataset, part), alike)
    if not len(alike):
        raise InputError(f"{dataset.name}: no test example has a label of one of the clients")
    return own if len(own) else alike


def _in_shares(
    dataset: Dataset, part: NDArray[np.intp], pool: NDArray[np.intp], size: int, generator: np.random.Generator
) -> NDArray[np.intp]:
    """Test examples drawn without replacement in the label shares of a part.

    Labels get places as parties get seats by A. Sainte-Laguë's method: the k-th example of a label is worth the label's
    share over k - 1/2, and the worthiest are taken. Where a label has run out, the others take its places.
    """
    shares = np.bincount(dataset.train.labels.numpy()[part], minlength=dataset.classes) / len(part)
    drawn = generator.permutation(pool)
    labels = dataset.test.labels.numpy()[drawn]
    worth = np.empty(len(drawn))
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        worth[places] = shares[label] / (np.arange(len(places)) + 0.5)
    return np.sort(drawn[np.argsort(-worth, kind="stable")[:size]])
