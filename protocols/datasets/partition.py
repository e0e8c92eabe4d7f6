"""Partitions of one data set over many clients: by skewed labels, evenly, or by natural clients.

Each gives for every client the places of its examples, ascending and disjoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secagg.errors import ParameterError

if TYPE_CHECKING:
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


def _part_size(count: int, clients: int) -> int:
    size = count // clients if clients > 0 else 0
    if size < 1:
        raise ParameterError(f"{count} examples do not make {clients} parts")
    return size
