"""Hashes, key derivation, streams, agreements, signatures and boxes, each as its standard writes it down.

Hashes are hashlib's, HKDF is written out over hmac, counter mode is single AES blocks.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB


def joined(*parts: bytes) -> bytes:
    """Each part after its length in 8 bytes."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def digest(*parts: bytes) -> bytes:
    return hashlib.sha256(joined(*parts)).digest()


def id_bytes(client: int) -> bytes:
    return client.to_bytes(8, "big")


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    pseudorandom = hmac.digest(salt or bytes(32), secret, "sha256")
    block, output = b"", b""
    for index in range(1, 1 + -(-length // 32)):
        block = hmac.digest(pseudorandom, block + info + bytes([index]), "sha256")
        output += block
    return output[:length]


def derive(secret: bytes, purpose: str, *binders: bytes, length: int = 16) -> bytes:
    return hkdf(secret, b"", joined(b"secagg 1", purpose.encode(), *binders), length)


def keystream(key: bytes, count: int, first_block: int = 0) -> bytes:
    block = Cipher(AES(key), ECB()).encryptor()  # noqa: S305 - the building block of counter mode
    blocks = range(first_block, first_block + -(-count // 16))
    return b"".join(block.update((index % 2**128).to_bytes(16, "big")) for index in blocks)[:count]


def seeded(seed: bytes, count: int) -> bytes:
    """The first bytes of the repeatable stand-in for a source of randomness."""
    return keystream(hashlib.sha256(b"secagg entropy" + seed).digest()[:16], count)


def public_key(seed: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def agree(seed: bytes, peer_public: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(seed).exchange(X25519PublicKey.from_public_bytes(peer_public))


def public_identity(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, statement: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(statement)


def seal(secret: bytes, plaintext: bytes, *context: bytes) -> bytes:
    key = derive(secret, "seal", *context, length=32)
    return ChaCha20Poly1305(key).encrypt(bytes(12), plaintext, b"".join(context))
