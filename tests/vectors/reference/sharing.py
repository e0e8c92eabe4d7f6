"""Shamir's sharing with coefficients that are handed in, commitments, and sealed pairs of shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.vectors.reference.primitives import digest, id_bytes, seal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.vectors.reference.declaring import Json

PRIME = 2**256 + 297


def coefficients(entropy: bytes) -> list[int]:
    """The random coefficients that 48 bytes each give, in the order in which they are drawn: highest power first."""
    return [int.from_bytes(entropy[at : at + 48], "big") % PRIME for at in range(0, len(entropy), 48)]


def shares(secret: bytes, drawn: Sequence[int], points: Sequence[int]) -> dict[int, int]:
    ascending = [int.from_bytes(secret, "big"), *reversed(drawn)]
    return {x: sum(a * pow(x, power, PRIME) for power, a in enumerate(ascending)) % PRIME for x in points}


def value_at_zero(known: Mapping[int, int]) -> int:
    total = 0
    for x, y in known.items():
        weight = 1
        for other in known:
            if other != x:
                weight = weight * other * pow(other - x, -1, PRIME) % PRIME
        total += weight * y
    return total % PRIME


def share_bytes(share: int) -> bytes:
    return share.to_bytes(33, "big")


def share_commitment(salt: bytes, dealer: int, holder: int, share: bytes) -> bytes:
    return digest(b"secagg share", salt, id_bytes(dealer), id_bytes(holder), share)


def seed_commitment(h1: bytes, owner: int, seed: bytes) -> bytes:
    return digest(b"secagg seed", h1, id_bytes(owner), seed)


def sealed_shares(dealer: int, holder: int, agreed: bytes, h1: bytes, pair: Sequence[tuple[bytes, bytes]]) -> Json:
    """``pair``: share and salt of the self seed, then of the masking key."""
    plaintext = b"".join(share + salt for share, salt in pair)
    of_self, of_key = (share_commitment(salt, dealer, holder, share) for share, salt in pair)
    return {
        "dealer": dealer,
        "holder": holder,
        "box": seal(agreed, plaintext, h1, id_bytes(dealer), id_bytes(holder)),
        "self_seed_commitment": of_self,
        "masking_key_commitment": of_key,
        "signature": None,
    }
