"""Attacks on the protocol itself: what whoever lies gains, with every check in place and with one left out.

``attempt(attack)`` carries one out against the code as it is, ``attempt(attack, attack.weakness)`` against a build
without the checks that stop it.
"""

from attacks.wire.agreements import MODEL_FOR_ONE, PART_FOR_ONE, SETTINGS_FOR_ONE
from attacks.wire.attack import Attack, Goal, Outcome, Weakness, attempt
from attacks.wire.keys import EQUAL_KEYS, LOW_ORDER_KEYS, SUBSTITUTED_KEYS
from attacks.wire.rounds import (
    BEHIND_THEIR_BACKS,
    DIFFERENCING,
    LOST_CONNECTIONS,
    POISONED_LEDGERS,
    REUSE,
    SEED_REUSE,
)
from attacks.wire.shares import OVERLAPPING_LISTS, REFLECTED_SHARES, SECOND_UNMASK
from attacks.wire.sparse import PADDED_ROSTER, PARTED_RING, TWO_STORIES
from attacks.wire.sums import (
    AFTER_THE_ROUND,
    BAD_DEALER,
    BAD_HOLDER,
    BAD_LEAVER,
    COUNTED_TWICE,
    RING_OVERFLOW,
    WEIGHT_OVERFLOW,
)
from attacks.wire.survivors import LATE, SECONDED_TWICE, TOO_FEW, TWO_LISTS
from attacks.wire.views import FORGED_MASKS, SECOND_PLAN, SMALLER_COHORT

ATTACKS = (
    SUBSTITUTED_KEYS,
    LOW_ORDER_KEYS,
    EQUAL_KEYS,
    REFLECTED_SHARES,
    SECOND_UNMASK,
    OVERLAPPING_LISTS,
    TWO_LISTS,
    SECONDED_TWICE,
    TOO_FEW,
    LATE,
    SMALLER_COHORT,
    SECOND_PLAN,
    FORGED_MASKS,
    MODEL_FOR_ONE,
    PART_FOR_ONE,
    SETTINGS_FOR_ONE,
    REUSE,
    SEED_REUSE,
    DIFFERENCING,
    LOST_CONNECTIONS,
    POISONED_LEDGERS,
    BEHIND_THEIR_BACKS,
    PADDED_ROSTER,
    TWO_STORIES,
    PARTED_RING,
    COUNTED_TWICE,
    AFTER_THE_ROUND,
    BAD_DEALER,
    BAD_LEAVER,
    BAD_HOLDER,
    RING_OVERFLOW,
    WEIGHT_OVERFLOW,
)
"""Every attack of this package."""

__all__ = ["ATTACKS", "Attack", "Goal", "Outcome", "Weakness", "attempt"]
