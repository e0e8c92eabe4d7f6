"""What a server checks of keys and shares before it takes them, and relays of them.

``unmasking`` has what it checks of revealed shares.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, TypeVar

from secagg import transcript
from secagg.declaration import FULL, expand
from secagg.errors import AgreementError, KeyAgreementError, ShareError, UnexpectedMessageError
from secagg.keys import check_public
from secagg.messages import AdvertiseKeys, MaskedInput, Participant, ShareKeys

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from secagg.identity import Directory, NoDirectory
    from secagg.messages import SealedShares
    from secagg.session import Session

Signed = TypeVar("Signed", AdvertiseKeys, ShareKeys, MaskedInput)


def check_keys(message: AdvertiseKeys, others: Iterable[AdvertiseKeys]) -> None:
    """Refuses keys that are malformed, of low order, or used twice.

    Args:
        message: What a client advertises.
        others: What others have advertised before.

    Raises:
        KeyAgreementError: They are.
    """
    known = {key for other in others for key in (other.masking_key, other.transport_key)}
    mine = {message.masking_key, message.transport_key}
    if len(mine) < 2 or mine & known:
        raise KeyAgreementError("a public key is used twice")
    for key in mine:
        check_public(key)


def check_shares(message: ShareKeys, session: Session, h1: bytes, neighbours: Collection[int]) -> None:
    """Refuses shares and declarations that do not fit the session.

    Args:
        message: What a client sent in ShareKeys.
        session: As the server knows it.
        h1: Likewise.
        neighbours: Of that client.

    Raises:
        AgreementError: Other settings, another layout, or another transcript.
        ShareError: Not exactly one pair of shares for each neighbour.
        UnexpectedMessageError: A weight or a mask that such a session does not declare.
        DecodingError: A declaration that does not fit the layout.
    """
    for name, theirs, ours in (
        ("parameters", message.params, session.params.digest),
        ("a layout", message.layout, session.layout.digest),
        ("a transcript", message.transcript, h1),
    ):
        if not hmac.compare_digest(theirs, ours):
            raise AgreementError(f"client {message.sender} holds {name} other than the server's")
    if [(s.dealer, s.holder) for s in message.shares] != [(message.sender, holder) for holder in sorted(neighbours)]:
        raise ShareError("shares are not for exactly the neighbours of their dealer")
    public = session.weighted and session.params.weighting == "public"
    if (message.weight_bucket is not None) != public:
        raise UnexpectedMessageError("a public weight where none belongs, or none where one does")
    if session.mode == "uniform" and message.declaration != FULL:
        raise UnexpectedMessageError("a uniform session declares no masks")
    expand(session.layout, message.declaration)


def by_holder(shared: Iterable[ShareKeys]) -> dict[int, list[SealedShares]]:
    """The sealed shares of all dealers by who holds them, in the order of the dealers."""
    found: dict[int, list[SealedShares]] = {}
    for message in shared:
        for sealed in message.shares:
            found.setdefault(sealed.holder, []).append(sealed)
    return found


def signatures(answers: Mapping[int, Signed], clients: Iterable[int]) -> tuple[bytes, ...]:
    """What these clients signed in a round, in this order; nothing where nobody signs."""
    signed = (answers[client].signature for client in clients)
    return tuple(signature for signature in signed if signature is not None)


def check_signed_shares(message: ShareKeys, directory: Directory | NoDirectory, h1: bytes) -> None:
    """Refuses what a client did not sign of what it sent in ShareKeys.

    Raises:
        SignatureError: It did not.
    """
    declared = Participant(message.sender, message.declaration, message.weight_bucket)
    directory.check(message.sender, message.signature, transcript.says_first(h1, declared))
    for sealed in message.shares:
        directory.check(message.sender, sealed.signature, transcript.says_dealt(h1, sealed))
