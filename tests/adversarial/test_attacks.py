"""Every attack on the protocol fails by name, and reaches its goal once the checks in its way are left out."""

from __future__ import annotations

import pytest

from attacks.wire import ATTACKS, Attack, attempt
from secagg.errors import (
    SERVER,
    AgreementError,
    ChecksumError,
    DecodingError,
    DifferencingError,
    DuplicateMessageError,
    KeyAgreementError,
    LocalProtocolError,
    OutOfRangeError,
    SecAggError,
    ShareError,
    SignatureError,
    TooFewClientsError,
    UnexpectedMessageError,
    UnknownClientError,
    UnmaskRefusedError,
    WeightError,
)

End = tuple[type[SecAggError] | None, tuple[object, ...]]
"""The error that ends an attack, and the culprits; None where nothing is refused, and nothing is gained."""

ENDS: dict[str, End] = {
    "substituted keys": (SignatureError, (SERVER,)),
    "low-order keys": (KeyAgreementError, (SERVER,)),
    "equal keys": (KeyAgreementError, (SERVER,)),
    "replayed shares": (SignatureError, (SERVER,)),
    "second unmask": (LocalProtocolError, ()),
    "overlapping unmask lists": (DecodingError, (SERVER,)),
    "two survivor lists": (UnmaskRefusedError, (SERVER,)),
    "two lists and colluders who sign both": (UnmaskRefusedError, (SERVER,)),
    "survivors below the rule": (UnmaskRefusedError, (SERVER,)),
    "late vector": (None, ()),
    "smaller cohort": (TooFewClientsError, ()),
    "second plan under the same seeds": (TooFewClientsError, ()),
    "forged mask declarations": (SignatureError, (SERVER,)),
    "a model for one": (SignatureError, (SERVER,)),
    "parts of a model for one": (AgreementError, (SERVER,)),
    "settings for one": (SignatureError, (SERVER,)),
    "session reuse": (LocalProtocolError, ()),
    "differencing": (DifferencingError, ()),
    "seed reuse": (None, ()),
    "lost connections": (DifferencingError, ()),
    "poisoned ledgers": (DifferencingError, ()),
    "behind their backs": (DifferencingError, ()),
    "padded roster": (SignatureError, (SERVER,)),
    "two stories on a ring": (TooFewClientsError, ()),
    "parted ring": (UnmaskRefusedError, (SERVER,)),
    "a vector counted twice": (DuplicateMessageError, (4,)),
    "a vector after the round": (UnexpectedMessageError, ()),
    "corrupted shares of a dealer": (ShareError, (4,)),
    "corrupted shares of a dealer that drops out": (ShareError, (4,)),
    "a corrupted share of a holder": (ShareError, (0,)),
    "ring overflow": (OutOfRangeError, ()),
    "weight overflow": (WeightError, ()),
}

ALONE: dict[str, tuple[End, ...]] = {
    # name: how it ends where only one of the checks in its way is left, for each of them
    "equal keys": ((KeyAgreementError, (SERVER,)), (None, ())),
    "replayed shares": (
        (SignatureError, (SERVER,)),
        (ShareError, (0,)),
        (ShareError, (0,)),
        (TooFewClientsError, ()),
    ),
    "overlapping unmask lists": ((DecodingError, (SERVER,)), (DecodingError, ())),
    "two survivor lists": ((UnmaskRefusedError, (SERVER,)), (TooFewClientsError, ())),
    "two lists and colluders who sign both": ((UnmaskRefusedError, (SERVER,)), (TooFewClientsError, ())),
    "smaller cohort": ((SignatureError, (SERVER,)), (TooFewClientsError, ())),
    "second plan under the same seeds": ((LocalProtocolError, ()), (TooFewClientsError, ())),
    "forged mask declarations": ((SignatureError, (SERVER,)), (SignatureError, (SERVER,))),
    "two stories on a ring": ((TooFewClientsError, ()), (UnmaskRefusedError, (SERVER,))),
    "a vector after the round": ((UnexpectedMessageError, ()), (UnknownClientError, (4,))),
    "corrupted shares of a dealer": ((ShareError, (4,)), (ChecksumError, ())),
    "corrupted shares of a dealer that drops out": ((ShareError, (4,)), (ChecksumError, ())),
    "a corrupted share of a holder": ((ShareError, (0,)), (ShareError, (3,)), (ChecksumError, ())),
    "low-order keys": ((KeyAgreementError, (SERVER,)), (KeyAgreementError, (SERVER,))),
    "ring overflow": ((OutOfRangeError, ()), (OutOfRangeError, ()), (ChecksumError, ())),
    "weight overflow": ((WeightError, ()), (ChecksumError, ())),
}
by_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


def code_attacked(attack: Attack) -> list[object]:
    """What stands where the attack's checks are."""
    return [vars(one.owner)[one.name] for one in attack.weakness]


def test_every_attack_has_an_end() -> None:
    assert {attack.name for attack in ATTACKS} == set(ENDS)
    assert {attack.name: len(attack.weakness) for attack in ATTACKS if len(attack.weakness) > 1} == {
        name: len(ends) for name, ends in ALONE.items()
    }


@by_attack
def test_an_attack_fails_by_name(attack: Attack) -> None:
    outcome = attempt(attack)
    error, culprits = ENDS[attack.name]
    assert not outcome.succeeded
    assert type(outcome.error) is (error or type(None))
    assert (outcome.error.culprits if outcome.error else ()) == culprits


@by_attack
def test_without_the_checks_in_its_way_an_attack_reaches_its_goal(attack: Attack) -> None:
    before = code_attacked(attack)
    outcome = attempt(attack, attack.weakness)
    assert outcome.error is None
    assert outcome.succeeded
    assert code_attacked(attack) == before


SEVERAL = [(attack, left) for attack in ATTACKS if len(attack.weakness) > 1 for left in range(len(attack.weakness))]


@pytest.mark.parametrize(("attack", "left"), SEVERAL, ids=lambda value: getattr(value, "name", value))
def test_where_several_checks_stand_in_the_way_each_is_enough(attack: Attack, left: int) -> None:
    outcome = attempt(attack, tuple(one for place, one in enumerate(attack.weakness) if place != left))
    error, culprits = ALONE[attack.name][left]
    assert not outcome.succeeded
    assert type(outcome.error) is (error or type(None))
    assert (outcome.error.culprits if outcome.error else ()) == culprits
