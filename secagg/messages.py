"""The messages of a session, typed and frozen, and their strict wire format.

A message on the wire is one version byte and one MessagePack array whose first element is the tag. Decoding accepts
exactly what encoding produces: a known version and tag, the right types and lengths, no trailing bytes, no second
spelling of the same value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
import numpy as np

from secagg.declaration import Declaration
from secagg.errors import DecodingError, UnexpectedMessageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


VERSION = 1

LARGEST_ID = 2**63 - 1
ClientId = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_ID)]
SessionId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Salt = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
FieldElement = Annotated[bytes, msgspec.Meta(min_length=33, max_length=33)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Check = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Bucket = Annotated[int, msgspec.Meta(ge=0, le=127)]


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A piece of a message."""


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=True):
    """Base of all messages."""

    session: SessionId


class AdvertiseKeys(Message, frozen=True, tag="AdvertiseKeys"):
    """Client to server: two fresh public keys; signed if active."""

    sender: ClientId
    masking_key: Key
    transport_key: Key
    signature: Signature | None = None


class Member(Part, frozen=True):
    """A client and the keys that it advertised."""

    id: ClientId
    masking_key: Key
    transport_key: Key


class Roster(Message, frozen=True, tag="Roster"):
    """Server to clients: U1 in ascending order of id; if active, the signature of each on its keys, in that order."""

    members: tuple[Member, ...]
    signatures: tuple[Signature, ...] = ()


class SealedShares(Part, frozen=True):
    """Both shares that ``dealer`` made for ``holder``, sealed, and a commitment to each; signed if active."""

    dealer: ClientId
    holder: ClientId
    box: Annotated[bytes, msgspec.Meta(min_length=114, max_length=114)]
    self_seed_commitment: Digest
    masking_key_commitment: Digest
    signature: Signature | None = None


class ShareKeys(Message, frozen=True, tag="ShareKeys"):
    """Client to server: what it holds, its shares for its neighbours, and what it believes the session to be.

    The signature, if active, is on h1 and the declaration.
    """

    sender: ClientId
    params: Digest
    layout: Digest
    transcript: Digest
    declaration: Declaration
    weight_bucket: Bucket | None
    seed_commitment: Digest
    shares: tuple[SealedShares, ...]
    signature: Signature | None = None


class Participant(Part, frozen=True):
    """What all clients learn of a client that completed ShareKeys."""

    id: ClientId
    declaration: Declaration
    weight_bucket: Bucket | None


class RelayedShares(Message, frozen=True, tag="RelayedShares"):
    """Server to one client: U2 in ascending order of id, and the shares dealt to this client.

    If active, the signature of each participant on h1 and its declaration, in the same order; otherwise none.
    """

    participants: tuple[Participant, ...]
    shares: tuple[SealedShares, ...]
    signatures: tuple[Signature, ...] = ()


class MaskedInput(Message, frozen=True, tag="MaskedInput"):
    """Client to server: two masked checksums (64 bits each) and the masked vector, packed; if active, h2 signed."""

    sender: ClientId
    check: Check
    vector: bytes
    signature: Signature | None = None


class ConsistencyRequest(Message, frozen=True, tag="ConsistencyRequest"):
    """Server to survivors, if active: U3 as in ``UnmaskRequest``, and each survivor's signature on h2, in order."""

    survivors: bytes
    signatures: tuple[Signature, ...]


class ConsistencyCheck(Message, frozen=True, tag="ConsistencyCheck"):
    """Client to server, if active: its signature on h2 and U3."""

    sender: ClientId
    signature: Signature


class Endorsement(Part, frozen=True):
    """A client's signature on h2 and U3."""

    id: ClientId
    signature: Signature


class UnmaskRequest(Message, frozen=True, tag="UnmaskRequest"):
    """Server to survivors: U3 as a bitmap over U2 in ascending order of id, padding bits zero.

    If active, the quorum that agrees on it, in ascending order of id; otherwise nobody.
    """

    survivors: bytes
    quorum: tuple[Endorsement, ...] = ()


class RevealedShare(Part, frozen=True):
    """One share that its holder reveals, with the salt that opens its commitment.

    Which of the two secrets it belongs to is not said: it follows from whether the dealer survived.
    """

    dealer: ClientId
    share: FieldElement
    salt: Salt

    def __repr__(self) -> str:
        return f"RevealedShare(dealer={self.dealer})"


class Unmask(Message, frozen=True, tag="Unmask"):
    """Client to server: a share of the self seed of each survivor, of the masking key of each dropout.

    Dealers are in ascending order of id, each once: no answer that decodes holds both shares of one.
    """

    sender: ClientId
    shares: tuple[RevealedShare, ...]


class UnmaskAndReveal(Unmask, frozen=True, tag="UnmaskAndReveal"):
    """``Unmask`` with the seeds of noise that turned out to be surplus (``Privacy.remove_surplus``)."""

    noise_seeds: tuple[Salt, ...] = ()

    def __repr__(self) -> str:
        return f"UnmaskAndReveal(sender={self.sender})"


def unmask(
    session: bytes, sender: int, shares: tuple[RevealedShare, ...], noise_seeds: tuple[bytes, ...] | None
) -> Unmask:
    """A client's last answer; ``noise_seeds`` is None where no noise comes off the sum."""
    if noise_seeds is None:
        return Unmask(session, sender, shares)
    return UnmaskAndReveal(session, sender, shares, noise_seeds)


def member(message: AdvertiseKeys) -> Member:
    """What a roster lists of a client that sent this."""
    return Member(message.sender, message.masking_key, message.transport_key)


PartType = TypeVar("PartType", Member, Participant, Endorsement)


def by_id(parts: tuple[PartType, ...]) -> dict[int, PartType]:
    """The parts of a message by their clients.

    Raises:
        UnexpectedMessageError: Clients are not listed once each in ascending order.
    """
    ids = [part.id for part in parts]
    if ids != sorted(set(ids)):
        raise UnexpectedMessageError("clients are not listed once each in ascending order")
    return dict(zip(ids, parts, strict=True))


def write_bitmap(chosen: Collection[int], clients: Sequence[int]) -> bytes:
    """Which of ``clients`` are chosen, a bit each."""
    return np.packbits(np.array([client in chosen for client in clients], bool)).tobytes()


def read_bitmap(data: bytes, clients: Sequence[int]) -> tuple[int, ...]:
    """Inverse of ``write_bitmap``.

    Raises:
        DecodingError: Another length than the clients take, or a padding bit set.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if len(data) != -(-len(clients) // 8) or bits[len(clients) :].any():
        raise DecodingError("a bitmap does not fit its clients")
    return tuple(client for client, bit in zip(clients, bits, strict=False) if bit)


_AnyMessage = (
    AdvertiseKeys
    | Roster
    | ShareKeys
    | RelayedShares
    | MaskedInput
    | ConsistencyRequest
    | ConsistencyCheck
    | UnmaskRequest
    | Unmask
    | UnmaskAndReveal
)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_AnyMessage)


def encode(message: Message) -> bytes:
    """A message as bytes."""
    return bytes([VERSION]) + _encoder.encode(message)


def encode_part(part: Part) -> bytes:
    """A piece of a message as bytes, for hashing."""
    return _encoder.encode(part)


def decode(data: bytes) -> Message:
    """The message in ``data``.

    Raises:
        DecodingError: Another version, an unknown tag, a field of the wrong type or length, trailing bytes, a second
            spelling of the same message, or two shares of one dealer in an answer.
    """
    if not data or data[0] != VERSION:
        raise DecodingError(f"not a message of wire version {VERSION}")
    try:
        message: Message = _decoder.decode(memoryview(data)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise DecodingError("malformed message") from None
    if encode(message) != data:
        raise DecodingError("message is not in canonical form")
    if isinstance(message, Unmask):
        check_dealers(message)
    return message


def check_dealers(message: Unmask) -> None:
    """Refuses an answer that reveals two shares of one dealer.

    Raises:
        DecodingError: Dealers are not listed once each in ascending order.
    """
    dealers = [share.dealer for share in message.shares]
    if dealers != sorted(set(dealers)):
        raise DecodingError("dealers are not listed once each in ascending order")
