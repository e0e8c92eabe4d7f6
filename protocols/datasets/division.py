"""A data set divided for an experiment: a part for each client, out of these a validation set, and the test set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from protocols.datasets.partition import by_owner, dirichlet, evenly
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from protocols.datasets.dataset import Dataset
    from protocols.training import Examples

Partition: TypeAlias = Literal["label-skewed", "even", "natural"]
"""How examples come to clients."""

ALPHA = 0.5
VALIDATION_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Division:
    """What each client trains on, and on what a model is judged.

    Args:
        parts: One for each client.
        validation: What the clients set aside, pooled: for choosing settings and rounds.
        test: For the final verdict alone.
    """

    parts: tuple[Examples, ...]
    validation: Examples
    test: Examples


def divide(
    dataset: Dataset,
    clients: int,
    *,
    partition: Partition,
    generator: np.random.Generator,
    alpha: float = ALPHA,
    validation_share: float = VALIDATION_SHARE,
    most_examples: int | None = None,
    owners_per_client: int | None = None,
) -> Division:
    """Divides a data set.

    Each client sets aside a share of its examples for validation: drawn at random, or of sequences those that are
    latest in the text of their role, so that no training sequence of a client comes after.

    Args:
        dataset: What to divide.
        clients: Number of clients.
        partition: Parts of equal size with label shares of their own (``dirichlet``), or without (``evenly``), or parts
            made of whole natural clients (``by_owner``). Of the last kind, where a natural client has test examples
            too, the test set is restricted to the natural clients that were dealt out.
        generator: The only source of randomness.
        alpha: Label skew of ``label-skewed``; smaller is more skewed.
        validation_share: Of each client's examples, in (0, 1).
        most_examples: Of a client, those for validation among them; what is more is left out at random.
        owners_per_client: Natural clients of each client, of ``natural``: the largest; None deals out all of them.

    Raises:
        ParameterError: A setting outside its domain, a partition that the data set does not allow, or parts too small
            to train on and to set something aside.
    """
    if not 0 < validation_share < 1:
        raise ParameterError(f"validation_share must be in (0, 1), not {validation_share}")
    if most_examples is not None and most_examples < 2:
        raise ParameterError(f"most_examples must be at least 2, not {most_examples}")
    parts = _parts(
        dataset, clients, partition=partition, generator=generator, alpha=alpha, owners_per_client=owners_per_client
    )
    test = _test(dataset, np.concatenate(parts)) if partition == "natural" else dataset.test
    if most_examples is not None:
        parts = [np.sort(generator.permutation(part)[:most_examples]) for part in parts]
    lateness = _lateness(dataset, generator)
    kept, set_aside = [], []
    for part in parts:
        size = len(part) - round(validation_share * len(part))
        order = part[np.argsort(lateness[part], kind="stable")]
        kept.append(np.sort(order[:size]))
        set_aside.append(np.sort(order[size:]))
    if not all(map(len, kept)) or not any(map(len, set_aside)):
        raise ParameterError(f"validation_share {validation_share} of such small parts takes all of one, or nothing")
    train = dataset.train
    pooled = train.subset(np.concatenate(set_aside).tolist())
    return Division(tuple(train.subset(part.tolist()) for part in kept), pooled, test)


def _parts(
    dataset: Dataset,
    clients: int,
    *,
    partition: Partition,
    generator: np.random.Generator,
    alpha: float,
    owners_per_client: int | None,
) -> Sequence[NDArray[np.intp]]:
    match partition:
        case "label-skewed":
            if dataset.sequential:
                raise ParameterError(f"partition: sequences as in {dataset.name} have no label to skew parts by")
            return dirichlet(dataset.train.labels.numpy(), clients, alpha, generator)
        case "even":
            return evenly(len(dataset.train), clients, generator)
        case "natural":
            if dataset.owners is None:
                raise ParameterError(f"partition: no natural clients of {dataset.name} are known")
            return by_owner(dataset.owners, clients, generator, owners_per_client)
    raise ParameterError(f"partition must be one of {get_args(Partition)}")


def _test(dataset: Dataset, taken: NDArray[np.intp]) -> Examples:
    """The test examples of the natural clients of these training examples, or all where the two sets share none."""
    if dataset.owners is None or dataset.test_owners is None:
        return dataset.test
    if not np.isin(dataset.test_owners, dataset.owners).any():
        return dataset.test
    kept = np.isin(dataset.test_owners, dataset.owners[taken])
    return dataset.test.subset(np.flatnonzero(kept).tolist())


def _lateness(dataset: Dataset, generator: np.random.Generator) -> NDArray[np.float64]:
    """What decides who is set aside: for sequences, how far in the text of its role each is; in [0, 1)."""
    if not dataset.sequential or dataset.owners is None:
        return generator.random(len(dataset.train))
    lateness = np.empty(len(dataset.train))
    for owner in np.unique(dataset.owners):
        places = np.flatnonzero(dataset.owners == owner)
        lateness[places] = (np.arange(len(places)) + 0.5) / len(places)
    return lateness
