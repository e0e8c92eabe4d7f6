"""Sums over known sets of clients, solved for what single clients brought."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CLOSE = 1e-6
"""How near to one a diagonal entry of a projector counts as one: those of small 0/1 matrices are far from it or it."""


def solve(holders: NDArray[np.bool_], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each client brought, where sums over its and others' contributions leave no choice.

    Every sum is a linear equation in the clients' contributions; those are determined whose unit vector lies in the
    span of the equations, which the projector onto it says. Systems are solved in a batch.

    Args:
        holders: Who is in each sum, (..., sums, clients); a row of zeros says nothing.
        sums: The sums, (..., sums).

    Returns:
        The contributions, (..., clients); NaN where the sums do not determine one. Sums that contradict each other
        give the least squares.
    """
    equations = holders.astype(np.float64)
    inverse = np.linalg.pinv(equations)
    determined = np.einsum("...cs,...sc->...c", inverse, equations) > 1 - _CLOSE
    return np.where(determined, (inverse @ sums[..., None])[..., 0], np.nan)
