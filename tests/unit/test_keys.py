"""Key agreement against RFC 7748, and the sealing of shares."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attacks.wire.keys import LOW_ORDER
from secagg.errors import KeyAgreementError, ShareError
from secagg.keys import KeyPair, check_public, seal, unseal
from secagg.prg import SeededEntropy

# RFC 7748, section 6.1.
ALICE = KeyPair(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
BOB = KeyPair(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
AGREED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")

FIELD = 2**255 - 19


def test_the_public_keys_are_those_of_rfc_7748() -> None:
    assert ALICE.public == ALICE_PUBLIC
    assert BOB.public == BOB_PUBLIC


def test_both_ends_agree_on_the_secret_of_rfc_7748() -> None:
    assert ALICE.agree(BOB_PUBLIC) == BOB.agree(ALICE_PUBLIC) == AGREED


@pytest.mark.parametrize(
    ("scalar", "point", "product"),
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_scalar_multiplication_gives_the_vectors_of_rfc_7748_section_5_2(scalar: str, point: str, product: str) -> None:
    assert KeyPair(bytes.fromhex(scalar)).agree(bytes.fromhex(point)).hex() == product


@pytest.mark.parametrize("point", LOW_ORDER.values(), ids=LOW_ORDER)
def test_a_public_key_of_low_order_is_refused(point: str) -> None:
    with pytest.raises(KeyAgreementError, match="malformed or of low order"):
        ALICE.agree(bytes.fromhex(point))


@pytest.mark.parametrize("point", LOW_ORDER.values(), ids=LOW_ORDER)
def test_a_public_key_of_low_order_is_refused_before_it_is_used(point: str) -> None:
    with pytest.raises(KeyAgreementError):
        check_public(bytes.fromhex(point))


def test_the_points_of_low_order_are_what_they_are_called() -> None:
    named = {name: int.from_bytes(bytes.fromhex(point), "little") for name, point in LOW_ORDER.items()}
    orders = {named.pop("order 8"), named.pop("order 8, other")}
    assert len(orders) == 2
    assert named == {"zero": 0, "one": 1, "minus one": FIELD - 1, "p": FIELD, "p plus one": FIELD + 1}


def test_of_the_spellings_of_a_public_key_only_the_smallest_is_accepted() -> None:
    """X25519 ignores the top bit and reduces mod 2^255 - 19: all of these agree on the same secret."""
    nine = (9).to_bytes(32, "little")
    others = [(9 + FIELD).to_bytes(32, "little"), (9 + 2**255).to_bytes(32, "little")]
    assert {ALICE.agree(spelling) for spelling in others} == {ALICE.agree(nine)}
    check_public(nine)  # does not refuse
    for spelling in others:
        with pytest.raises(KeyAgreementError, match="not in canonical form"):
            check_public(spelling)


def test_honest_public_keys_pass() -> None:
    entropy = SeededEntropy(b"keys")
    for _ in range(50):
        check_public(KeyPair.generate(entropy).public)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_public_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(KeyAgreementError, match="malformed or of low order"):
        ALICE.agree(b"\x09" * length)


def test_a_pair_is_rebuilt_from_its_seed_and_does_not_print_it() -> None:
    pair = KeyPair.generate(SeededEntropy(b"pair"))
    assert pair.seed == SeededEntropy(b"pair")(32)
    assert KeyPair(pair.seed).public == pair.public
    assert pair.seed.hex() not in repr(pair)
    assert repr(pair.seed) not in repr(pair)


def test_a_pair_that_was_used_is_copied_by_its_seed() -> None:
    pair = KeyPair.generate(SeededEntropy(b"pair"))
    assert pair.public
    assert pickle.loads(pickle.dumps(pair)) == pair  # noqa: S301 - our own
    assert pair.__getstate__() == {"seed": pair.seed}


CONTEXT = (b"transcript", b"sender", b"recipient")


@given(st.binary(max_size=100), st.lists(st.binary(max_size=9), max_size=3))
def test_a_box_opens_under_its_secret_and_context(plaintext: bytes, context: list[bytes]) -> None:
    box = seal(AGREED, plaintext, *context)
    assert len(box) == len(plaintext) + 16
    assert unseal(AGREED, box, *context) == plaintext


@pytest.mark.parametrize(
    "context",
    [
        (b"other", b"sender", b"recipient"),
        (b"transcript", b"recipient", b"sender"),
        (b"transcriptsender", b"", b"recipient"),
        (b"transcript", b"senderrecipient"),
        (),
    ],
)
def test_a_box_does_not_open_in_another_context(context: tuple[bytes, ...]) -> None:
    box = seal(AGREED, b"share", *CONTEXT)
    with pytest.raises(ShareError, match="does not open"):
        unseal(AGREED, box, *context)


def test_a_box_does_not_open_under_another_secret() -> None:
    with pytest.raises(ShareError, match="does not open"):
        unseal(bytes(32), seal(AGREED, b"share", *CONTEXT), *CONTEXT)


def test_no_altered_byte_of_a_box_goes_unnoticed() -> None:
    box = seal(AGREED, b"share", *CONTEXT)
    for place in range(len(box)):
        altered = bytearray(box)
        altered[place] ^= 1
        with pytest.raises(ShareError):
            unseal(AGREED, bytes(altered), *CONTEXT)


@pytest.mark.parametrize("length", [0, 15, 20])
def test_a_truncated_box_does_not_open(length: int) -> None:
    with pytest.raises(ShareError, match="does not open"):
        unseal(AGREED, seal(AGREED, b"share", *CONTEXT)[:length], *CONTEXT)


def test_boxes_of_two_contexts_share_no_keystream() -> None:
    """One nonce for all boxes is safe only because each context has a key of its own."""
    first, second = (seal(AGREED, bytes(32), b"transcript", sender)[:32] for sender in (b"1", b"2"))
    assert first != second
