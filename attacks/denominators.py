"""Hidden weights that are not: solving the denominators for single weights.

Threat: a server that sees the declared masks and, for each pattern of holders, the sum of their weights. Every pattern
is a linear equation; with enough of them the system has one solution. This is why ``secagg`` sums hidden weights only
over groups of equal masks, each as large as the release rule demands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from attacks.coverage import Client


def opened_weights(masks: Mapping[Client, NDArray[np.bool_]], denominators: NDArray[np.float64]) -> dict[Client, float]:
    """The weights that follow from the denominators.

    Args:
        masks: Client to the coordinates that it holds, (d,) bool.
        denominators: Sum of the weights of the holders of each coordinate, (d,); NaN where it was not released.

    Returns:
        Client to weight, for the clients whose weight the equations determine; the others are left out.
    """
    known = ~np.isnan(denominators)
    patterns, first = np.unique(np.array(list(masks.values()), bool)[:, known], axis=1, return_index=True)
    equations, sums = patterns.T.astype(np.float64), denominators[known][first]
    solution, *_ = np.linalg.lstsq(equations, sums, rcond=None)
    _, singular, directions = np.linalg.svd(equations)
    rank = int((singular > singular.max(initial=0) * max(equations.shape) * np.finfo(float).eps).sum())
    undetermined = (np.abs(directions[rank:]) > np.sqrt(np.finfo(float).eps)).any(axis=0)
    return {
        client: float(value) for client, value, open_ in zip(masks, solution, undetermined, strict=True) if not open_
    }
