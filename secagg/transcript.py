"""The two hashes that bind every secret to what its owner saw.

h1 covers the session and all keys; it authenticates every sealed share. h2 adds who completed ShareKeys and what they
declared; it goes into every mask key. Two clients that were shown different things therefore produce masks that do
not cancel, instead of a sum over a smaller group than they believe.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from secagg import messages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from secagg.messages import Participant, Roster
    from secagg.session import Session


def h1(session: Session, roster: Roster, degree: int, threshold: int) -> bytes:
    """Hash of version, session, all parameters, graph and the sorted ids and keys of U1."""
    rule = f"{messages.VERSION} {degree} {threshold}".encode()
    return _digest(b"secagg h1", rule, session.digest, messages.encode(roster))


def h2(first: bytes, participants: Iterable[Participant]) -> bytes:
    """Hash of h1, U2, and the declaration and public weight of everyone in it."""
    encoder = messages.encode_part
    return _digest(b"secagg h2", first, *(encoder(participant) for participant in participants))


def share_commitment(salt: bytes, dealer: int, holder: int, share: bytes) -> bytes:
    """Commitment to one share: hiding through the salt, binding to both ids."""
    return _digest(b"secagg share", salt, id_bytes(dealer), id_bytes(holder), share)


def seed_commitment(first: bytes, owner: int, seed: bytes) -> bytes:
    """Commitment to a self seed, so that a seed rebuilt from shares can be told from a wrong one."""
    return _digest(b"secagg seed", first, id_bytes(owner), seed)


def id_bytes(client: int) -> bytes:
    """A client id as 8 bytes, for hashing."""
    return client.to_bytes(8, "big")


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
