"""A data set divided for an experiment: a part for each client, out of these a validation set, and the test set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from protocols.datasets.judging import judged_on
from protocols.datasets.partition import by_owner, dirichlet, evenly, label_shards, of_few_labels
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from protocols.datasets.dataset import Dataset
    from protocols.training import Examples

Partition: TypeAlias = Literal["label-skewed", "even", "natural", "few-labels"]
"""How examples come to clients."""

ALPHA = 0.5
LABELS_PER_CLIENT = 2
VALIDATION_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Division:
    """What each client trains on, and on what a model is judged.

    Args:
        parts: One for each client.
        validation: What the clients set aside, pooled: for choosing settings and rounds.
        test: For the final verdict alone.
        validations: What each client set aside; None where that is nothing.
        tests: For the final verdict on each client's own model: the test examples of its natural clients or, where the
            partition knows none, such as have the label shares of its part; of sequences then all.
    """

    parts: tuple[Examples, ...]
    validation: Examples
    test: Examples
    validations: tuple[Examples | None, ...]
    tests: tuple[Examples, ...]


def divide(
    dataset: Dataset,
    clients: int,
    *,
    partition: Partition,
    generator: np.random.Generator,
    alpha: float = ALPHA,
    labels_per_client: int = LABELS_PER_CLIENT,
    validation_share: float = VALIDATION_SHARE,
    most_examples: int | None = None,
    owners_per_client: int | None = None,
) -> Division:
    """Divides a data set.

    Each client sets aside a share of its examples for validation: drawn at random, or of sequences those that are
    latest in the text of their role, so that no training sequence of a client comes after. Of recordings the latest
    windows are set aside, those of each owner and label by themselves, and training windows that share samples with
    them are left out.

    Args:
        dataset: What to divide.
        clients: Number of clients.
        partition: Parts of equal size with label shares of their own (``dirichlet``), or without (``evenly``), or parts
            made of whole natural clients (``by_owner``), or parts with few labels: of these natural clients where the
            data set has enough (``of_few_labels``), else shards (``label_shards``). Where a natural client has test
            examples too, the test set of ``natural`` is restricted to the natural clients that were dealt out; that of
            ``few-labels`` is what any client's own test examples are.
        generator: The only source of randomness.
        alpha: Label skew of ``label-skewed``; smaller is more skewed.
        labels_per_client: Of ``few-labels``: how many different labels each client has.
        validation_share: Of each client's examples, in (0, 1).
        most_examples: Of a client, those for validation among them; what is more is left out at random.
        owners_per_client: Natural clients of each client, of ``natural`` and ``few-labels``: the largest; None deals
            out all of them.

    Raises:
        ParameterError: A setting outside its domain, a partition that the data set does not allow, or parts too small
            to train on and to set something aside.
    """
    if not 0 < validation_share < 1:
        raise ParameterError(f"validation_share must be in (0, 1), not {validation_share}")
    if most_examples is not None and most_examples < 2:
        raise ParameterError(f"most_examples must be at least 2, not {most_examples}")
    dealt = parts = _parts(
        dataset,
        clients,
        partition=partition,
        generator=generator,
        alpha=alpha,
        labels_per_client=labels_per_client,
        owners_per_client=owners_per_client,
    )
    if most_examples is not None:
        parts = [np.sort(generator.permutation(part)[:most_examples]) for part in parts]
    most = max(map(len, parts))
    if most < 2:
        raise ParameterError(f"clients: {clients} have one example each, and nothing to set aside: take fewer")
    kept, aside = _set_aside(dataset, parts, validation_share, generator)
    if not all(map(len, kept)):
        raise ParameterError(f"validation_share {validation_share} leaves a client nothing: lower it")
    if not any(map(len, aside)):
        other = "raise most_examples" if most == most_examples else f"take fewer clients than {clients}"
        raise ParameterError(
            f"validation_share {validation_share} of at most {most} examples a client is nothing: raise it, or {other}"
        )
    # The last to draw, so that the parts are what they were before clients had test examples of their own.
    pool, own = judged_on(dataset, partition, dealt, kept, generator)
    train = dataset.train
    test = dataset.test if len(pool) == len(dataset.test) else dataset.test.subset(pool.tolist())
    return Division(
        parts=tuple(train.subset(part.tolist()) for part in kept),
        validation=train.subset(np.concatenate(aside).tolist()),
        test=test,
        validations=tuple(train.subset(part.tolist()) if len(part) else None for part in aside),
        tests=tuple(test if len(places) == len(pool) else dataset.test.subset(places.tolist()) for places in own),
    )


def _parts(
    dataset: Dataset,
    clients: int,
    *,
    partition: Partition,
    generator: np.random.Generator,
    alpha: float,
    labels_per_client: int,
    owners_per_client: int | None,
) -> Sequence[NDArray[np.intp]]:
    if partition in ("label-skewed", "few-labels") and dataset.sequential:
        raise ParameterError(f"partition: sequences as in {dataset.name} have no label to skew parts by")
    labels = dataset.train.labels.numpy()
    match partition:
        case "label-skewed":
            return dirichlet(labels, clients, alpha, generator)
        case "even":
            return evenly(len(dataset.train), clients, generator)
        case "natural":
            if dataset.owners is None:
                raise ParameterError(f"partition: no natural clients of {dataset.name} are known")
            return by_owner(dataset.owners, clients, generator, owners_per_client)
        case "few-labels":
            if dataset.owners is None or len(np.unique(dataset.owners)) < clients * (owners_per_client or 1):
                return label_shards(labels, clients, labels_per_client, generator)
            parts = by_owner(dataset.owners, clients, generator, owners_per_client)
            return of_few_labels(parts, labels, labels_per_client, generator)
    raise ParameterError(f"partition must be one of {get_args(Partition)}")


def _set_aside(
    dataset: Dataset, parts: Sequence[NDArray[np.intp]], share: float, generator: np.random.Generator
) -> tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]]:
    """What each client trains on, and what it sets aside for validation."""
    lateness = _lateness(dataset, generator)
    kept, aside = [], []
    for part in parts:
        size = len(part) - round(share * len(part))
        order = part[np.argsort(lateness[part], kind="stable")]
        kept.append(np.sort(order[:size]))
        aside.append(np.sort(order[size:]))
    if dataset.recordings is not None:
        overlapping = _neighbours(dataset.recordings, np.concatenate(aside))
        kept = [np.setdiff1d(part, overlapping) for part in kept]
    return kept, aside


def _lateness(dataset: Dataset, generator: np.random.Generator) -> NDArray[np.float64]:
    """What decides who is set aside: how far in its text, or in what its owner did of one kind, each is; in [0, 1)."""
    if dataset.owners is None or not (dataset.sequential or dataset.recordings is not None):
        return generator.random(len(dataset.train))
    streams = dataset.owners
    if not dataset.sequential:
        streams = streams * dataset.classes + dataset.train.labels.numpy()
    lateness = np.empty(len(dataset.train))
    for stream in np.unique(streams):
        places = np.flatnonzero(streams == stream)
        lateness[places] = (np.arange(len(places)) + 0.5) / len(places)
    return lateness


def _neighbours(recordings: NDArray[np.intp], places: NDArray[np.intp]) -> NDArray[np.intp]:
    """The places before and after the given ones in the same recording."""
    beside = np.concatenate([places - 1, places + 1])
    # Beyond either end stands the end itself, which was given.
    beside = np.clip(beside, 0, len(recordings) - 1)
    neighbours: NDArray[np.intp] = beside[recordings[beside] == recordings[np.concatenate([places, places])]]
    return neighbours
