"""What a client checks of what the server relays: lists for everybody, and the shares that its neighbours dealt it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secagg import dealing, declaration, messages, transcript
from secagg.errors import KeyAgreementError, ShareError, UnexpectedMessageError
from secagg.keys import check_public

if TYPE_CHECKING:
    from collections.abc import Sequence

    from secagg.identity import Directory, NoDirectory
    from secagg.states import HeldShares, Shared


def members_of(roster: messages.Roster) -> dict[int, messages.Member]:
    """The roster by id.

    Raises:
        RemoteProtocolError: Out of order, or with a key that is bad or appears twice.
    """
    members = messages.by_id(roster.members)
    for member in roster.members:
        check_public(member.masking_key)
        check_public(member.transport_key)
    keys = [key for member in roster.members for key in (member.masking_key, member.transport_key)]
    if len(set(keys)) != len(keys):
        raise KeyAgreementError("the roster holds a public key twice")
    return members


def refuse_declarations(participants: tuple[messages.Participant, ...]) -> None:
    """Refuses masks and weights in a uniform session, where nobody tells any.

    Raises:
        UnexpectedMessageError: Somebody does.
    """
    odd = [p.id for p in participants if p.declaration != declaration.FULL or p.weight_bucket is not None]
    if odd:
        raise UnexpectedMessageError(f"a uniform session declares no masks and no weights, but clients {odd} do")


def open_relayed(
    state: Shared,
    message: messages.RelayedShares,
    holder: int,
    dealers: Sequence[int],
    directory: Directory | NoDirectory,
) -> dict[int, HeldShares]:
    """Opens the shares of every neighbour, all of them before anything is masked.

    Args:
        state: What their holder keeps.
        message: What the server relays.
        holder: Who opens them.
        dealers: Its neighbours that take part, ascending.
        directory: What authenticates them.

    Raises:
        ShareError: Not one pair of shares from each dealer, or one that does not open; ``culprits`` names the dealer.
        SignatureError: A dealer did not sign its shares.
    """
    if [(share.dealer, share.holder) for share in message.shares] != [(peer, holder) for peer in dealers]:
        raise ShareError("the server does not relay exactly one pair of shares from each neighbour")
    held = {}
    for sealed in message.shares:
        directory.check(sealed.dealer, sealed.signature, transcript.says_dealt(state.h1, sealed))
        try:
            held[sealed.dealer] = dealing.open_shares(sealed, state.sealing[sealed.dealer], state.h1)
        except ShareError as error:
            raise ShareError(str(error), culprits=[sealed.dealer]) from None
    return held
