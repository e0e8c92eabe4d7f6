"""Key derivation and the mask stream, against the published vectors and independent recomputation."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from secagg import prg
from secagg.prg import PIECE, SeededEntropy, Stream, check_masks, derive
from secagg.ring import Ring

KEY = bytes(range(16))
WIDTHS = (16, 24, 32, 64)

# NIST SP 800-38A, F.5.1: AES-128 in counter mode.
NIST_KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
NIST_COUNTER = int("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 16)
NIST_PLAIN = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
NIST_CIPHER = bytes.fromhex(
    "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
    "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
)


def hkdf(secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 with SHA-256 and no salt, as a library has it."""
    return HKDF(SHA256(), length, salt=None, info=info).derive(secret)


def keystream(key: bytes, first_block: int, count: int) -> bytes:
    """AES-128 of a counter, block by block: no counter mode of the library is involved."""
    block = Cipher(AES(key), ECB()).encryptor()  # noqa: S305 - the building block of counter mode
    return b"".join(block.update((first_block + index).to_bytes(16, "big")) for index in range(-(-count // 16)))[:count]


def read_all(stream: Stream, counts: list[int]) -> bytes:
    return b"".join(stream.take(count).tobytes() for count in counts)


def test_counter_mode_gives_the_nist_vector() -> None:
    cipher = prg._counter_mode(NIST_KEY, NIST_COUNTER)
    assert cipher.update(NIST_PLAIN) == NIST_CIPHER


def test_the_reference_keystream_of_these_tests_gives_the_nist_vector_too() -> None:
    stream = keystream(NIST_KEY, NIST_COUNTER, 64)
    assert bytes(a ^ b for a, b in zip(stream, NIST_PLAIN, strict=True)) == NIST_CIPHER


def test_the_reference_hkdf_of_these_tests_gives_rfc_5869_case_3() -> None:
    """Test case 3: no salt, no info."""
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert hkdf(b"\x0b" * 22, b"", 42).hex() == expected


@given(st.binary(max_size=40), st.text(max_size=10), st.lists(st.binary(max_size=40), max_size=4), st.integers(1, 100))
def test_a_derived_key_is_hkdf_over_tag_purpose_and_binders_with_their_lengths(
    secret: bytes, purpose: str, binders: list[bytes], length: int
) -> None:
    parts = [b"secagg 1", purpose.encode(), *binders]
    info = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    assert derive(secret, purpose, *binders, length=length) == hkdf(secret, info, length)


def test_moving_a_byte_from_one_binder_to_the_next_gives_another_key() -> None:
    keys = {
        derive(KEY, "p", b"ab", b"c"),
        derive(KEY, "p", b"a", b"bc"),
        derive(KEY, "p", b"abc"),
        derive(KEY, "pa", b"b", b"c"),
        derive(KEY, "p", b"abc", b""),
    }
    assert len(keys) == 5


def test_a_derived_key_has_16_bytes_by_default() -> None:
    assert len(derive(b"secret", "purpose")) == prg.KEY_BYTES == 16


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_stream_is_the_keystream_after_its_first_block(bits: int) -> None:
    ring = Ring(bits)
    expected = keystream(KEY, 1, 100 * ring.dtype.itemsize)
    assert Stream(KEY, ring).take(100).tobytes() == expected


def test_the_checksum_masks_are_the_first_block_as_two_little_endian_numbers() -> None:
    head = keystream(KEY, 0, 16)
    assert check_masks(KEY) == (int.from_bytes(head[:8], "little"), int.from_bytes(head[8:], "little"))


@given(st.sampled_from(WIDTHS), st.integers(0, 200), st.lists(st.integers(0, 50), max_size=5))
def test_a_stream_started_anywhere_reads_what_a_sequential_one_reads_there(
    bits: int, start: int, counts: list[int]
) -> None:
    ring = Ring(bits)
    stop = start + sum(counts)
    sequential = Stream(KEY, ring).take(stop).tobytes()
    assert read_all(Stream(KEY, ring, start), counts) == sequential[start * ring.dtype.itemsize :]


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_start_far_beyond_one_piece_is_reached_directly(bits: int) -> None:
    ring = Ring(bits)
    start = 2**40 + 3
    byte = start * ring.dtype.itemsize
    expected = keystream(KEY, 1 + byte // 16, 16 + 8 * ring.dtype.itemsize)[byte % 16 :][: 8 * ring.dtype.itemsize]
    assert Stream(KEY, ring, start).take(8).tobytes() == expected


@given(st.sampled_from(WIDTHS), st.lists(st.integers(0, PIECE), min_size=1, max_size=4))
def test_how_a_stream_is_cut_into_pieces_does_not_matter(bits: int, counts: list[int]) -> None:
    ring = Ring(bits)
    whole = Cipher(AES(KEY), CTR((1).to_bytes(16, "big"))).encryptor().update(bytes(sum(counts) * ring.dtype.itemsize))
    assert read_all(Stream(KEY, ring), counts) == whole


def test_the_elements_of_a_piece_are_overwritten_by_the_next_as_documented() -> None:
    stream = Stream(KEY, Ring(32))
    first = stream.take(4)
    before = first.copy()
    stream.take(4)
    assert not np.array_equal(first, before)


def test_every_key_has_its_own_stream() -> None:
    streams = {Stream(bytes([number]) * 16, Ring(64)).take(4).tobytes() for number in range(20)}
    assert len(streams) == 20


def test_the_bits_of_a_stream_are_balanced() -> None:
    """A stuck or biased bit of the element would show far outside 6 standard deviations."""
    for bits in WIDTHS:
        drawn = Stream(KEY, Ring(bits)).take(PIECE).view(np.uint8)
        ones = np.unpackbits(drawn).reshape(PIECE, -1).sum(axis=0)
        assert np.abs(ones - PIECE / 2).max() < 6 * np.sqrt(PIECE) / 2


def test_seeded_entropy_repeats_and_goes_on_where_it_stopped() -> None:
    once, again = SeededEntropy(b"seed"), SeededEntropy(b"seed")
    assert once(5) + once(0) + once(40) == again(45)
    assert SeededEntropy(b"other")(45) != SeededEntropy(b"seed")(45)


def test_seeded_entropy_is_the_keystream_under_a_hash_of_its_seed() -> None:
    key = hashlib.sha256(b"secagg entropyseed").digest()[:16]
    assert SeededEntropy(b"seed")(50) == keystream(key, 0, 50)


@pytest.mark.parametrize("secret", [Stream(KEY, Ring(32)), SeededEntropy(KEY)])
def test_neither_streams_nor_entropy_print_what_they_hold(secret: object) -> None:
    assert "<redacted>" in repr(secret)
    assert KEY.hex() not in repr(secret)
