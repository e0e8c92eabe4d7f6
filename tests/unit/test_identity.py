"""Signatures: what is signed stays signed, and nothing else passes for it."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.errors import ParameterError, SignatureError, UnexpectedMessageError, UnknownClientError
from secagg.identity import Directory, Identity, NoDirectory, NoIdentity, directory, introduce
from secagg.params import Params
from secagg.prg import SeededEntropy

ONE, OTHER = (Identity(bytes([number]) * 32) for number in (1, 2))
PINNED = {7: ONE.public, 9: OTHER.public}


@given(st.binary())
def test_what_the_pinned_identity_signed_is_accepted(statement: bytes) -> None:
    Directory(PINNED).check(7, ONE.sign(statement), statement)


def test_a_published_vector_is_met() -> None:
    """RFC 8032, section 7.1, TEST 2."""
    identity = Identity(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert identity.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert identity.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


FORGED = {
    "no signature": None,
    "an empty signature": b"",
    "another statement": ONE.sign(b"no"),
    "another identity": OTHER.sign(b"yes"),
    "an altered signature": bytes([ONE.sign(b"yes")[0] ^ 1]) + ONE.sign(b"yes")[1:],
    "a truncated signature": ONE.sign(b"yes")[:-1],
}


@pytest.mark.parametrize("forgery", FORGED)
def test_what_it_did_not_sign_is_refused(forgery: str) -> None:
    with pytest.raises(SignatureError, match="client 7 did not sign"):
        Directory(PINNED).check(7, FORGED[forgery], b"yes")


def test_nobody_can_sign_for_a_client_that_is_not_pinned() -> None:
    with pytest.raises(UnknownClientError, match="client 8"):
        Directory(PINNED).check(8, ONE.sign(b"yes"), b"yes")


@pytest.mark.parametrize("pinned", [{7: b"short"}, {7: ONE.public, 9: ONE.public}])
def test_a_directory_that_cannot_be_right_is_refused(pinned: dict[int, bytes]) -> None:
    with pytest.raises(ParameterError, match="public identity"):
        Directory(pinned)


def test_a_directory_does_not_follow_changes_of_what_it_was_made_from() -> None:
    pinned = dict(PINNED)
    kept = Directory(pinned)
    pinned[7] = OTHER.public
    assert kept.pinned[7] == ONE.public


def test_identities_belong_to_an_active_adversary() -> None:
    active = Params(adversary="active")
    assert isinstance(directory(active, PINNED), Directory)
    assert isinstance(directory(Params(), None), NoDirectory)
    with pytest.raises(ParameterError, match="pin the identity of every client, or set adversary='semi-honest'"):
        directory(active, None)
    with pytest.raises(ParameterError, match="identities are for adversary='active'"):
        directory(Params(), PINNED)


def test_without_identities_a_signature_is_one_too_many() -> None:
    assert NoIdentity().sign(b"yes") is None  # type: ignore[func-returns-value]
    NoDirectory().check(7, None, b"yes")
    with pytest.raises(UnexpectedMessageError, match="semi-honest"):
        NoDirectory().check(7, ONE.sign(b"yes"), b"yes")


def test_an_identity_is_drawn_from_the_entropy_handed_in_and_never_shown() -> None:
    asked: list[int] = []

    def entropy(count: int) -> bytes:
        asked.append(count)
        return os.urandom(count)

    identity = Identity.generate(entropy)
    assert asked == [32]
    assert identity.seed.hex() not in repr(identity)
    assert repr(identity.seed) not in repr(identity)


def test_clients_in_one_place_are_introduced_to_each_other_if_the_server_may_lie() -> None:
    entropy_of = {id_: SeededEntropy(bytes([id_])) for id_ in (3, 8)}
    identities, pinned = introduce(Params(adversary="active"), entropy_of)
    assert pinned == {id_: identity.public for id_, identity in identities.items()}
    assert len(set(pinned.values())) == 2
    assert introduce(Params(), entropy_of) == ({}, None)
