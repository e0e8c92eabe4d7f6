"""Label-skewed partitions of one data set over many clients."""

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
    size = len(labels) // clients if clients > 0 else 0
    if alpha <= 0:
        raise ParameterError("alpha must be positive")
    if size < 1:
        raise ParameterError(f"{len(labels)} examples do not make {clients} parts")
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
    return tuple(parts)
