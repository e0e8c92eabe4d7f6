"""The rounds of a session, as data: their order against each adversary, and the one message that each accepts."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from secagg.messages import AdvertiseKeys, ConsistencyCheck, MaskedInput, Message, ShareKeys, Unmask

if TYPE_CHECKING:
    from secagg.params import Adversary


class Round(enum.Enum):
    """What the server is waiting for."""

    ADVERTISE_KEYS = "AdvertiseKeys"
    SHARE_KEYS = "ShareKeys"
    MASKED_INPUT = "MaskedInput"
    CONSISTENCY_CHECK = "ConsistencyCheck"
    UNMASK = "Unmask"
    DONE = "Done"

    def follows(self, other: Round) -> bool:
        """Whether it comes after another round."""
        order = list(Round)
        return order.index(self) > order.index(other)


ACCEPTS: dict[Round, type[Message] | None] = {
    Round.ADVERTISE_KEYS: AdvertiseKeys,
    Round.SHARE_KEYS: ShareKeys,
    Round.MASKED_INPUT: MaskedInput,
    Round.CONSISTENCY_CHECK: ConsistencyCheck,
    Round.UNMASK: Unmask,
    Round.DONE: None,
}
"""The one message that each round accepts."""

ROUNDS: dict[Adversary, tuple[Round, ...]] = {
    "semi-honest": tuple(round_ for round_ in Round if round_ is not Round.CONSISTENCY_CHECK),
    "active": tuple(Round),
}
"""The rounds of a session, in order."""
