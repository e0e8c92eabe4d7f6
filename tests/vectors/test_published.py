"""The primitives give what their standards print, through the paths by which secagg calls them.

secagg fixes salt, info, nonce and first block of what it derives and seals; where a standard's vector needs others,
the library that secagg calls and the reference, which wrote the vectors beside this file, are held to it.
"""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secagg import prg
from secagg.errors import KeyAgreementError
from secagg.identity import Directory, Identity
from secagg.keys import KeyPair, check_public
from tests.vectors.reference import primitives
from tests.vectors.replay import cases, load

PUBLISHED = load("published")

Json = dict[str, Any]

unhex = bytes.fromhex


@cases(PUBLISHED["aes_128_ctr"], "source")
def test_the_stream_cipher_is_aes_in_counter_mode(case: Json) -> None:
    key, plaintext = unhex(case["key"]), unhex(case["plaintext"])
    first = int(case["first_block"], 16)
    assert prg._counter_mode(key, first).update(plaintext).hex() == case["ciphertext"]
    stream = primitives.keystream(key, len(plaintext), first)
    assert bytes(a ^ b for a, b in zip(stream, plaintext, strict=True)).hex() == case["ciphertext"]


@cases(PUBLISHED["hkdf_sha256"], "source")
def test_keys_are_derived_as_hkdf_does(case: Json) -> None:
    secret, salt, info, output = (unhex(case[name]) for name in ("secret", "salt", "info", "output"))
    assert primitives.hkdf(secret, salt, info, len(output)) == output
    assert HKDF(hashes.SHA256(), len(output), salt, info).derive(secret) == output


@cases(PUBLISHED["x25519"], "source")
def test_agreement_is_x25519(case: Json) -> None:
    assert KeyPair(unhex(case["scalar"])).agree(unhex(case["point"])).hex() == case["output"]


def test_a_thousand_agreements_in_a_row_are_x25519() -> None:
    """RFC 7748, 5.2."""
    scalar = point = (9).to_bytes(32, "little")
    for _ in range(1000):
        scalar, point = KeyPair(scalar).agree(point), scalar
    assert scalar.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


@cases(PUBLISHED["x25519_public"], "source")
def test_public_keys_are_those_of_x25519(case: Json) -> None:
    assert KeyPair(unhex(case["seed"])).public.hex() == case["public"]
    check_public(unhex(case["public"]))


@cases(PUBLISHED["x25519_low_order"])
def test_keys_of_low_order_are_refused(case: str) -> None:
    with pytest.raises(KeyAgreementError):
        KeyPair(b"\x01" * 32).agree(unhex(case))
    with pytest.raises(KeyAgreementError):
        check_public(unhex(case))


def test_a_second_spelling_of_a_public_key_is_refused() -> None:
    """RFC 7748, 5.2, second: the top bit, which X25519 ignores, is set."""
    with pytest.raises(KeyAgreementError, match="canonical"):
        check_public(unhex(PUBLISHED["x25519"][1]["point"]))


@cases(PUBLISHED["ed25519"], "source")
def test_signatures_are_those_of_ed25519(case: Json) -> None:
    identity, message = Identity(unhex(case["seed"])), unhex(case["message"])
    assert identity.public.hex() == case["public"]
    assert identity.sign(message).hex() == case["signature"]
    Directory({0: identity.public}).check(0, unhex(case["signature"]), message)


@cases(PUBLISHED["chacha20_poly1305"], "source")
def test_boxes_are_those_of_chacha20_poly1305(case: Json) -> None:
    key, nonce, plaintext, context = (unhex(case[name]) for name in ("key", "nonce", "plaintext", "associated_data"))
    assert ChaCha20Poly1305(key).encrypt(nonce, plaintext, context).hex() == case["box"]
