"""The two hashes that bind every secret to what its owner saw.

h1 covers the session and all keys; it authenticates every sealed share. h2 adds who completed ShareKeys and what they
declared; it goes into every mask key. Two clients that were shown different things therefore produce masks that do
not cancel, instead of a sum over a smaller group than they believe.

Against an active server clients also sign: their keys, h1 with their declaration and the shares that they deal, h2,
and h2 with the survivors. Each statement has a purpose of its own, so that no signature can stand for another.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from msgspec import structs

from secagg import messages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from secagg.messages import Member, Participant, SealedShares
    from secagg.session import Session


def graph_seed(session: Session, members: Iterable[Member]) -> bytes:
    """Seed of the ring permutation: fixed by the keys of everybody, so that nobody can choose a place in it."""
    return _digest(b"secagg graph", session.digest, *map(messages.encode_part, members))


def h1(session: Session, members: Iterable[Member], degree: int, threshold: int) -> bytes:
    """Hash of version, session, all parameters, graph and the sorted ids and keys of U1."""
    rule = f"{messages.VERSION} {degree} {threshold}".encode()
    return _digest(b"secagg h1", rule, session.digest, *map(messages.encode_part, members))


def h2(first: bytes, participants: Iterable[Participant]) -> bytes:
    """Hash of h1, U2, and the declaration and public weight of everyone in it."""
    return _digest(b"secagg h2", first, *map(messages.encode_part, participants))


def share_commitment(salt: bytes, dealer: int, holder: int, share: bytes) -> bytes:
    """Commitment to one share: hiding through the salt, binding to both ids."""
    return _digest(b"secagg share", salt, id_bytes(dealer), id_bytes(holder), share)


def seed_commitment(first: bytes, owner: int, seed: bytes) -> bytes:
    """Commitment to a self seed, so that a seed rebuilt from shares can be told from a wrong one."""
    return _digest(b"secagg seed", first, id_bytes(owner), seed)


def says_keys(session: Session, member: Member) -> bytes:
    """Statement of a client: in this session, these are its keys."""
    return _digest(b"secagg signs keys", session.digest, messages.encode_part(member))


def says_first(first: bytes, participant: Participant) -> bytes:
    """Statement of a client: it saw h1, and it declares this."""
    return _digest(b"secagg signs h1", first, messages.encode_part(participant))


def says_dealt(first: bytes, sealed: SealedShares) -> bytes:
    """Statement of a dealer: under h1 it made these shares, with these commitments, for this holder."""
    return _digest(b"secagg signs shares", first, messages.encode_part(structs.replace(sealed, signature=None)))


def says_second(second: bytes, client: int) -> bytes:
    """Statement of a client: it saw h2, and masked under it."""
    return _digest(b"secagg signs h2", second, id_bytes(client))


def says_survivors(second: bytes, survivors: bytes, client: int) -> bytes:
    """Statement of a client: under h2 it was told that these survived."""
    return _digest(b"secagg signs survivors", second, survivors, id_bytes(client))


def id_bytes(client: int) -> bytes:
    """A client id as 8 bytes, for hashing."""
    return client.to_bytes(8, "big")


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
