"""Shares of a client's two secrets: dealt, salted, sealed for their holders, and opened again.

The dealer publishes a commitment to every share and seals the salt along, so that a holder notices a bad share before
it masks anything, and a revealed share can be checked by everybody.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from secagg import field, shamir
from secagg.errors import DecodingError, ShareError
from secagg.keys import seal, unseal
from secagg.messages import RevealedShare, SealedShares
from secagg.states import HeldShares
from secagg.transcript import id_bytes, share_commitment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SALT_BYTES = 16


def deal(
    dealer: int,
    secrets: tuple[bytes, bytes],
    threshold: int,
    points: Mapping[int, int],
    entropy: Callable[[int], bytes],
) -> dict[int, HeldShares]:
    """Shares of the self seed and of the masking key's seed, for each holder.

    Args:
        dealer: Whose secrets they are.
        secrets: Self seed and masking key's seed, 32 bytes each.
        threshold: Shares that rebuild a secret.
        points: Holder to the point at which its shares are taken.
        entropy: Source of random bytes.
    """
    of_self, of_key = (shamir.split(secret, threshold, list(points.values()), entropy) for secret in secrets)

    def salted(share: int) -> RevealedShare:
        return RevealedShare(dealer, field.encode(share), entropy(SALT_BYTES))

    return {holder: HeldShares(salted(of_self[point]), salted(of_key[point])) for holder, point in points.items()}


def seal_shares(shares: HeldShares, holder: int, secret: bytes, h1: bytes) -> SealedShares:
    """Both shares for their holder, sealed under the secret shared with it, with their commitments, unsigned."""
    of_self, of_key = shares.self_seed, shares.masking_key
    dealer = of_self.dealer
    plaintext = of_self.share + of_self.salt + of_key.share + of_key.salt
    return SealedShares(
        dealer=dealer,
        holder=holder,
        box=seal(secret, plaintext, h1, id_bytes(dealer), id_bytes(holder)),
        self_seed_commitment=share_commitment(of_self.salt, dealer, holder, of_self.share),
        masking_key_commitment=share_commitment(of_key.salt, dealer, holder, of_key.share),
    )


def open_shares(sealed: SealedShares, secret: bytes, h1: bytes) -> HeldShares:
    """Inverse of ``seal_shares``.

    Raises:
        ShareError: The box does not open under this secret and this h1, contradicts its commitments, or holds no
            field elements.
    """
    plaintext = unseal(secret, sealed.box, h1, id_bytes(sealed.dealer), id_bytes(sealed.holder))
    half = field.ELEMENT_BYTES + SALT_BYTES
    return HeldShares(
        _checked(sealed, plaintext[:half], sealed.self_seed_commitment),
        _checked(sealed, plaintext[half:], sealed.masking_key_commitment),
    )


def _checked(sealed: SealedShares, part: bytes, commitment: bytes) -> RevealedShare:
    share, salt = part[: field.ELEMENT_BYTES], part[field.ELEMENT_BYTES :]
    if not hmac.compare_digest(share_commitment(salt, sealed.dealer, sealed.holder, share), commitment):
        raise ShareError("a share contradicts its commitment")
    try:
        field.decode(share)
    except DecodingError:
        raise ShareError("a share is no field element") from None
    return RevealedShare(sealed.dealer, share, salt)
