"""Long-lived identities: Ed25519 signing keys (RFC 8032) whose public halves users pin to each other.

They are for an active server. Where it is semi-honest nobody signs anything, and the two null objects stand in.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from secagg.errors import ParameterError, SignatureError, UnexpectedMessageError, UnknownClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from secagg.params import Params

IDENTITY_BYTES = 32


@dataclass(frozen=True)
class Identity:
    """A client's signing key, kept from session to session.

    Args:
        seed: The private key, 32 bytes: store it like a password.
    """

    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, entropy: Callable[[int], bytes] = os.urandom) -> Identity:
        """A fresh identity."""
        return cls(entropy(IDENTITY_BYTES))

    @property
    def public(self) -> bytes:
        """What others pin, 32 bytes."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()

    def sign(self, statement: bytes) -> bytes:
        """A signature of 64 bytes on a statement, which names its purpose (``transcript`` makes them)."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(statement)


class Directory:
    """The public identities that one party has pinned.

    Args:
        pinned: Client id to public identity, 32 bytes each. From a source that the server does not control.

    Raises:
        ParameterError: A key of another length, or one key for two clients.
    """

    def __init__(self, pinned: Mapping[int, bytes]) -> None:
        if any(len(key) != IDENTITY_BYTES for key in pinned.values()):
            raise ParameterError(f"a public identity has {IDENTITY_BYTES} bytes")
        if len(set(pinned.values())) != len(pinned):
            raise ParameterError("a public identity is pinned for two clients")
        self.pinned = MappingProxyType(dict(pinned))

    def check(self, client: int, signature: bytes | None, statement: bytes) -> None:
        """Refuses a statement that this client did not sign.

        Raises:
            UnknownClientError: Nothing is pinned for it.
            SignatureError: No signature, another key, another statement, or an altered signature.
        """
        if client not in self.pinned:
            raise UnknownClientError(f"no identity is pinned for client {client}")
        try:
            Ed25519PublicKey.from_public_bytes(self.pinned[client]).verify(signature or b"", statement)
        except (InvalidSignature, ValueError):
            raise SignatureError(f"client {client} did not sign this: its pinned identity does not fit") from None


def directory(params: Params, pinned: Mapping[int, bytes] | None) -> Directory | NoDirectory:
    """What authenticates the other clients of a session.

    Raises:
        ParameterError: An active server without pinned identities, or the other way round.
    """
    if params.active and pinned is None:
        raise ParameterError("with an active server, pin the identity of every client, or set adversary='semi-honest'")
    if pinned is not None and not params.active:
        raise ParameterError("identities are for adversary='active': set it, or pin none")
    return NoDirectory() if pinned is None else Directory(pinned)


def introduce(
    params: Params, entropy_of: Mapping[int, Callable[[int], bytes]]
) -> tuple[dict[int, Identity], dict[int, bytes] | None]:
    """Fresh identities for clients in one place, and what all of them pin; neither where the server is semi-honest.

    Args:
        params: The settings.
        entropy_of: Source of random bytes of each client.
    """
    if not params.active:
        return {}, None
    identities = {id_: Identity.generate(entropy) for id_, entropy in entropy_of.items()}
    return identities, {id_: identity.public for id_, identity in identities.items()}


class NoIdentity:
    """A client that signs nothing."""

    def sign(self, _statement: bytes) -> None:
        """No signature."""


class NoDirectory:
    """Nobody's identity is pinned, and no signature is expected."""

    def check(self, _client: int, signature: bytes | None, _statement: bytes) -> None:
        """Refuses a signature: one value, one spelling.

        Raises:
            UnexpectedMessageError: There is one.
        """
        if signature is not None:
            raise UnexpectedMessageError("a signature in a session whose adversary is 'semi-honest'")
