"""Attacks on the protocol itself: what a server that lies gains, with every check in place and with one left out.

``attempt(attack)`` carries one out against the clients as they are, ``attempt(attack, attack.weakness)`` against a
build without the check that stops it.
"""

from attacks.wire.attack import Attack, Outcome, Weakness, attempt
from attacks.wire.rounds import DIFFERENCING, REUSE
from attacks.wire.survivors import LATE, SECOND_UNMASK, TOO_FEW, TWO_LISTS
from attacks.wire.views import LOW_ORDER_KEYS, MODEL_FOR_ONE, SMALLER_COHORT, SUBSTITUTED_KEYS

ATTACKS = (
    TWO_LISTS,
    SECOND_UNMASK,
    TOO_FEW,
    LATE,
    SMALLER_COHORT,
    SUBSTITUTED_KEYS,
    LOW_ORDER_KEYS,
    MODEL_FOR_ONE,
    REUSE,
    DIFFERENCING,
)
"""Every attack of this package."""

__all__ = ["ATTACKS", "Attack", "Outcome", "Weakness", "attempt"]
