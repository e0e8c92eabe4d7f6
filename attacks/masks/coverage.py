"""Who stands alone: coordinates whose released sum is over too few clients.

Threat: a server that sees the declared masks and the released sums of one round, and nothing else.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from secagg import Layout

Client = TypeVar("Client", bound=Hashable)


@dataclass(frozen=True)
class Isolation(Generic[Client]):
    """What the released sums of one round say about single clients.

    Args:
        smallest_group: Fewest holders of any released coordinate; None if nothing is released.
        exposed_share: Share of the released coordinates with fewer holders than asked for.
        in_clear: Client to the number of its coordinates that it alone holds: the server reads those off the sum.
    """

    smallest_group: int | None
    exposed_share: float
    in_clear: Mapping[Client, int]


def isolation(
    masks: Mapping[Client, NDArray[np.bool_]], released: NDArray[np.bool_], min_cohort: int = 3
) -> Isolation[Client]:
    """Counts the holders of every released coordinate.

    Args:
        masks: Surviving client to the coordinates that it holds, (d,) bool.
        released: Which coordinates left the protocol, (d,) bool.
        min_cohort: Fewest holders that count as safe.

    Returns:
        The isolation of each client. A release rule that works leaves ``exposed_share`` at zero.
    """
    held = np.array(list(masks.values()), bool).reshape(len(masks), len(released))[:, released]
    holders = held.sum(axis=0)
    alone = held[:, holders == 1].sum(axis=1)
    return Isolation(
        smallest_group=int(holders.min()) if holders.size else None,
        exposed_share=float((holders < min_cohort).mean()) if holders.size else 0.0,
        in_clear={client: int(count) for client, count in zip(masks, alone, strict=True) if count},
    )


@dataclass(frozen=True, eq=False)
class Coverage:
    """How many clients are behind the coordinates of one round.

    Args:
        holders: Clients that hold each, of the coordinates that at least one holds, (k,) int.
        contributor_sets: How many different sets of clients those are.
    """

    holders: NDArray[np.int64]
    contributor_sets: int

    @property
    def smallest(self) -> int:
        """Fewest clients behind any coordinate; 0 if nobody holds anything."""
        return int(self.holders.min()) if self.holders.size else 0

    @property
    def singletons(self) -> float:
        """Share of the coordinates that one client alone holds."""
        return self.below(2) / len(self.holders) if self.holders.size else 0.0

    def below(self, min_cohort: int) -> int:
        """How many coordinates fewer clients hold."""
        return int((self.holders < min_cohort).sum())

    def histogram(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Numbers of holders, and the share of the coordinates that have so many."""
        values, times = np.unique(self.holders, return_counts=True)
        return values.astype(np.float64), times / max(1, times.sum())


def coverage(layout: Layout, held: NDArray[np.bool_], released: NDArray[np.bool_]) -> dict[str, Coverage]:
    """The coverage of all released coordinates, and of those of each layer.

    Args:
        layout: Of the coordinates.
        held: What each client holds, (clients, d) bool.
        released: Which coordinates are summed, (d,) bool.

    Returns:
        ``"all layers"`` and every layer's name, to its coverage.
    """
    touched = held.any(axis=0) & released
    layer = np.repeat(
        [layout.layers.index(tensor.layer) for tensor in layout.tensors], [tensor.size for tensor in layout.tensors]
    )
    parts = {"all layers": touched} | {name: touched & (layer == place) for place, name in enumerate(layout.layers)}
    return {
        name: Coverage(held[:, part].sum(axis=0), len(np.unique(np.packbits(held[:, part], axis=0), axis=1).T))
        for name, part in parts.items()
    }
