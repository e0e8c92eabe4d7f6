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
