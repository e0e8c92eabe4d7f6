"""Key pairs, their agreement (X25519, RFC 7748), and the sealing of shares (ChaCha20-Poly1305, RFC 8439)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from secagg.errors import KeyAgreementError, ShareError
from secagg.prg import derive

if TYPE_CHECKING:
    from collections.abc import Callable

SEED_BYTES = 32
PUBLIC_BYTES = 32
_CURVE_PRIME = 2**255 - 19
LOW_ORDER = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _CURVE_PRIME - 1,
    }
)
"""The points whose order divides 8, on the curve and its twist: every private key agrees with them on zero."""
_NONCE = bytes(12)  # every sealing key is used for one message


@dataclass(frozen=True)
class KeyPair:
    """An X25519 key pair, kept as the 32-byte seed that it can be rebuilt from.

    Args:
        seed: The private key.
    """

    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, entropy: Callable[[int], bytes]) -> KeyPair:
        """A fresh pair."""
        return cls(entropy(SEED_BYTES))

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return self._private.public_key().public_bytes_raw()

    def agree(self, peer_public: bytes) -> bytes:
        """The 32-byte secret shared with a peer; feed it to ``prg.derive``, never use it as a key.

        Raises:
            KeyAgreementError: The peer's key is malformed, or of low order (RFC 7748, section 6.1).
        """
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError:
            raise KeyAgreementError("a public key is malformed or of low order") from None

    def __getstate__(self) -> dict[str, bytes]:
        """The seed alone: what is read from it is not for copies."""
        return {"seed": self.seed}

    @cached_property
    def _private(self) -> X25519PrivateKey:
        """Reading it costs as much as an agreement, so it is read once for all peers."""
        return X25519PrivateKey.from_private_bytes(self.seed)


def check_public(public: bytes) -> None:
    """Refuses a public key that is of low order, or not the canonical encoding of its point.

    X25519 reads 32 bytes as a number mod 2^255 - 19 and ignores the top bit, so a key has several spellings; only the
    smallest is accepted, which makes comparing keys as bytes sound.

    Raises:
        KeyAgreementError: It is either, or has another length than 32 bytes.
    """
    point = int.from_bytes(public, "little")
    if len(public) != PUBLIC_BYTES or point >= _CURVE_PRIME:
        raise KeyAgreementError("a public key is not in canonical form")
    if point in LOW_ORDER:
        raise KeyAgreementError("a public key is malformed or of low order")


def seal(secret: bytes, plaintext: bytes, *context: bytes) -> bytes:
    """Encrypts and authenticates one message under a secret shared with its reader.

    Args:
        secret: Output of ``KeyPair.agree``.
        plaintext: The message.
        context: Bound into key and tag: transcript hash, sender, recipient. Must never repeat for one secret.
    """
    return ChaCha20Poly1305(derive(secret, "seal", *context, length=32)).encrypt(_NONCE, plaintext, b"".join(context))


def unseal(secret: bytes, box: bytes, *context: bytes) -> bytes:
    """The message in a box.

    Raises:
        ShareError: Wrong key, wrong context, or an altered box.
    """
    try:
        return ChaCha20Poly1305(derive(secret, "seal", *context, length=32)).decrypt(_NONCE, box, b"".join(context))
    except InvalidTag:
        raise ShareError("a sealed share does not open: it was altered, or its sender saw another transcript") from None
