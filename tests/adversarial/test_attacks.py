"""Every attack on the protocol fails by name, and opens the victim's update once its one check is left out."""

from __future__ import annotations

import pytest

from attacks.wire import ATTACKS, Attack, attempt
from secagg.errors import (
    SERVER,
    DifferencingError,
    KeyAgreementError,
    LocalProtocolError,
    SecAggError,
    SignatureError,
    TooFewClientsError,
    UnmaskRefusedError,
)

ENDS: dict[str, tuple[type[SecAggError] | None, tuple[object, ...]]] = {
    # name: the error that ends it, and the culprits; None where nothing is refused, and nothing learned
    "two survivor lists": (UnmaskRefusedError, (SERVER,)),
    "second unmask": (LocalProtocolError, ()),
    "smaller cohort": (TooFewClientsError, ()),
    "substituted keys": (SignatureError, (SERVER,)),
    "low-order keys": (KeyAgreementError, (SERVER,)),
    "survivors below the rule": (UnmaskRefusedError, (SERVER,)),
    "a model for one": (SignatureError, (SERVER,)),
    "session reuse": (LocalProtocolError, ()),
    "differencing": (DifferencingError, ()),
    "late vector": (None, ()),
}
by_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


def test_every_attack_has_an_end() -> None:
    assert {attack.name for attack in ATTACKS} == set(ENDS)


@by_attack
def test_an_attack_fails_by_name(attack: Attack) -> None:
    outcome = attempt(attack)
    error, culprits = ENDS[attack.name]
    assert not outcome.opened
    assert type(outcome.error) is (error or type(None))
    assert (outcome.error.culprits if outcome.error else ()) == culprits


@by_attack
def test_without_its_check_the_attack_opens_the_victims_update_bit_for_bit(attack: Attack) -> None:
    outcome = attempt(attack, attack.weakness)
    assert outcome.error is None
    assert outcome.opened
    assert attempt(attack).opened is False  # and the check is back


SEVERAL = [(attack, left) for attack in ATTACKS if len(attack.weakness) > 1 for left in range(len(attack.weakness))]


@pytest.mark.parametrize(("attack", "left"), SEVERAL, ids=lambda value: getattr(value, "name", value))
def test_where_several_checks_stand_in_the_way_each_is_enough(attack: Attack, left: int) -> None:
    others = tuple(one for place, one in enumerate(attack.weakness) if place != left)
    outcome = attempt(attack, others)
    assert isinstance(outcome.error, SecAggError)
    assert not outcome.opened
