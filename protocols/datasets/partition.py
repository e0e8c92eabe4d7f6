"""Partitions of one data set over many clients: by skewed or few labels, evenly, or by natural clients.

Each gives for every client the places of its examples, ascending and disjoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def dirichlet(
    labels: NDArray[np.int64], clients: int, alpha: float, generator: np.random.Generator
) -> tuple[NDArray[np.intp], ...]:
    """Parts of equal size, each with label shares of its own.

    Every client draws its label shares from a Dirichlet distribution and fills its part accordingly from what is left
    (T.-M. H. Hsu et al., "Measuring the Effects of Non-Identical Data Distribution", 2019). Where a label has run out,
    its share goes to those that are left.

    Args:
        labels: (n,) labels of the whole set.
        clients: Number of parts.
        alpha: Concentration: small, and a client sees few labels; large, and all see the same shares.
        generator: The only source of randomness.

    Returns:
        For each client the places of its examples, ascending: disjoint, n // clients each.

    Raises:
        ParameterError: ``alpha`` is not positive, or there are fewer examples than clients.
    """
    size = _part_size(len(labels), clients)
    if not 0 < alpha < np.inf:
        raise ParameterError("alpha must be positive and finite")
    classes, label_of = np.unique(labels, return_inverse=True)
    left = [list(generator.permutation(np.flatnonzero(label_of == number))) for number in range(len(classes))]
    parts = []
    for _ in range(clients):
        shares = generator.dirichlet(np.full(len(classes), alpha))
        part = []
        for _ in range(size):
            # A share that underflowed to zero must not stop the filling when nothing else is left.
            open_shares = np.array([share + 1e-12 if pool else 0.0 for share, pool in zip(shares, left, strict=True)])
            part.append(left[generator.choice(len(classes), p=open_shares / open_shares.sum())].pop())
        parts.append(np.sort(np.array(part, np.intp)))
    # Parts that are filled late get what is left, and must not all belong to the clients that are numbered last.
    return tuple(parts[place] for place in generator.permutation(clients))


def evenly(count: int, clients: int, generator: np.random.Generator) -> tuple[NDArray[np.intp], ...]:
    """Parts of equal size, drawn from the whole set.

    Args:
        count: Number of examples.
        clients: Number of parts.
        generator: The only source of randomness.

    Returns:
        For each client the places of its examples: count // clients each.

    Raises:
        ParameterError: Fewer examples than clients.
    """
    size = _part_size(count, clients)
    return tuple(np.sort(generator.permutation(count)[: size * clients].reshape(clients, size)))


def by_owner(
    owners: NDArray[np.intp], clients: int, generator: np.random.Generator, owners_per_client: int | None = None
) -> tuple[NDArray[np.intp], ...]:
    """Parts made of whole natural clients.

    They are dealt out in turns, from large to small; in every turn the client with the fewest examples gets the largest
    of the natural clients whose turn it is. So all have as many natural clients, but for one, and about as many
    examples.

    Args:
        owners: (n,) the natural client of each example.
        clients: Number of parts.
        generator: The only source of randomness.
        owners_per_client: How many natural clients make a part, the largest ones; None deals out all of them.

    Returns:
        For each client the places of its examples.

    Raises:
        ParameterError: ``owners_per_client`` is below 1, or there are too few natural clients.
    """
    if owners_per_client is not None and owners_per_client < 1:
        raise ParameterError(f"owners_per_client must be at least 1, not {owners_per_client}")
    names, owner_of, sizes = np.unique(owners, return_inverse=True, return_counts=True)
    wanted = clients * (owners_per_client or 1)
    if clients < 1 or len(names) < wanted:
        raise ParameterError(
            f"a natural partition over {clients} clients takes {wanted} natural clients or more, not {len(names)}"
        )
    drawn = generator.permutation(len(names))
    order = drawn[np.argsort(-sizes[drawn], kind="stable")]
    dealt = order if owners_per_client is None else order[:wanted]
    loads, client_of = np.zeros(clients, np.intp), np.full(len(names), -1)
    for start in range(0, len(dealt), clients):
        turn = dealt[start : start + clients]
        client_of[turn] = np.argsort(loads, kind="stable")[: len(turn)]
        loads[client_of[turn]] += sizes[turn]
    # Whose part is the largest must not depend on a client's number.
    return tuple(np.flatnonzero(client_of[owner_of] == client) for client in generator.permutation(clients))


def label_shards(
    labels: NDArray[np.int64], clients: int, labels_per_client: int, generator: np.random.Generator
) -> tuple[NDArray[np.intp], ...]:
    """Parts of few labels: as many shards a client, each of one label.

    After B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017, section
    3, who sort by label, cut, and deal out two pieces a client. There a piece may straddle two labels and a client get
    two pieces of one; here every client has exactly ``labels_per_client`` labels, and every label is shared out evenly
    among about as many clients.

    Args:
        labels: (n,) labels of the whole set.
        clients: Number of parts.
        labels_per_client: Different labels of each part.
        generator: The only source of randomness.

    Returns:
        For each client the places of its examples. Labels that no client got are left out.

    Raises:
        ParameterError: ``labels_per_client`` is below 1 or beyond the labels there are, or a label has fewer examples
            than clients who share it.
    """
    known = np.unique(labels)
    _part_size(len(labels), clients)
    held = _dealt_labels([known] * clients, labels_per_client, generator)
    shards: list[list[NDArray[np.intp]]] = [[] for _ in range(clients)]
    for label in known:
        holders = [client for client, own in enumerate(held) if label in own]
        places = generator.permutation(np.flatnonzero(labels == label))
        if len(places) < len(holders):
            raise ParameterError(f"clients: {len(holders)} of {clients} would share {len(places)} examples of a label")
        for number, client in enumerate(holders):
            shards[client].append(places[number :: len(holders)])
    return tuple(np.sort(np.concatenate(own)) for own in shards)


def of_few_labels(
    parts: Sequence[NDArray[np.intp]],
    labels: NDArray[np.int64],
    labels_per_client: int,
    generator: np.random.Generator,
) -> tuple[NDArray[np.intp], ...]:
    """Parts restricted to few labels each, drawn so that about as many clients hold every label.

    Args:
        parts: For each client the places of its examples.
        labels: (n,) labels of the whole set.
        labels_per_client: Different labels of each part; one that has fewer keeps them all.
        generator: The only source of randomness.

    Returns:
        For each client the places of its examples that are left.

    Raises:
        ParameterError: ``labels_per_client`` is below 1 or beyond what any part has.
    """
    held = _dealt_labels([np.unique(labels[part]) for part in parts], labels_per_client, generator)
    return tuple(part[np.isin(labels[part], own)] for part, own in zip(parts, held, strict=True))


def _dealt_labels(
    choices: Sequence[NDArray[np.int64]], labels_per_client: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """For each client some of the labels it may have: one client after another takes those that are dealt least."""
    most = max(map(len, choices))
    if not 1 <= labels_per_client <= most:
        raise ParameterError(f"labels_per_client must be from 1 to {most}, not {labels_per_client}")
    held = [choice[:0] for choice in choices]
    dealt = np.zeros(1 + max(int(choice.max()) for choice in choices), np.intp)
    for client in generator.permutation(len(choices)):
        choice = generator.permutation(choices[client])
        held[client] = choice[np.argsort(dealt[choice], kind="stable")[:labels_per_client]]
        dealt[held[client]] += 1
    return held


def _part_size(count: int, clients: int) -> int:
    size = count // clients if clients > 0 else 0
    if size < 1:
        raise ParameterError(f"{count} examples do not make {clients} parts")
    return size
