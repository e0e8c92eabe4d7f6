"""Ring elements, streams, masked vectors and checksums, with Python integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.vectors.reference.primitives import derive, id_bytes, keystream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WORD_BYTES = {16: 2, 24: 4, 32: 4, 64: 8}


def elements(key: bytes, bits: int, count: int) -> list[int]:
    size = WORD_BYTES[bits]
    data = keystream(key, 16 + count * size)[16:]
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]


def check_masks(key: bytes) -> list[int]:
    head = keystream(key, 16)
    return [int.from_bytes(head[:8], "little"), int.from_bytes(head[8:], "little")]


def packed_vector(bits: int, values: Sequence[int]) -> bytes:
    return b"".join((value % 2**bits).to_bytes(bits // 8, "little") for value in values)


def ring_bits(largest: int) -> int:
    return next(bits for bits in WORD_BYTES if largest < 2 ** (bits - 1))


def self_key(seed: bytes, h2: bytes) -> bytes:
    return derive(seed, "self mask", h2)


def pairwise_key(agreed: bytes, h2: bytes, one: int, other: int) -> bytes:
    return derive(agreed, "pairwise mask", h2, *map(id_bytes, sorted((one, other))))


def checksums(h2: bytes, places: str, values: Sequence[int]) -> list[int]:
    """Before masking: ``values`` stand at the places whose character is 1."""
    filled = [place for place, bit in enumerate(places) if bit == "1"]
    streams = [elements(derive(h2, "checksum", bytes([k])), 32, len(places)) for k in range(2)]
    return [sum(drawn[place] * value for place, value in zip(filled, values, strict=True)) % 2**64 for drawn in streams]


def masked(
    client: int,
    bits: int,
    h2: bytes,
    integers: Sequence[int],
    places: Mapping[int, str],
    *,
    self_seed: bytes,
    agreed: Mapping[int, bytes],
) -> tuple[bytes, bytes]:
    """Masked checksums and masked vector, as they travel.

    ``places`` has the filled places of this client and of each neighbour; ``agreed`` the secret shared with each.
    """
    own = [place for place, bit in enumerate(places[client]) if bit == "1"]
    vector = dict(zip(own, integers, strict=True))
    checks = checksums(h2, places[client], integers)
    streams = [(1, self_key(self_seed, h2), places[client])]
    streams += [
        (1 if client < peer else -1, pairwise_key(secret, h2, client, peer), places[peer])
        for peer, secret in agreed.items()
    ]
    for sign, key, theirs in streams:
        common = [place for place in own if theirs[place] == "1"]
        for place, element in zip(common, elements(key, bits, len(common)), strict=True):
            vector[place] += sign * element
        checks = [(mine + sign * mask) % 2**64 for mine, mask in zip(checks, check_masks(key), strict=True)]
    check = b"".join(number.to_bytes(8, "little") for number in checks)
    return check, packed_vector(bits, list(vector.values()))
