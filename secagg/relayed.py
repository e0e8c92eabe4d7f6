"""What a client checks of the lists that the server relays to everybody."""

from __future__ import annotations

from secagg import declaration, messages
from secagg.errors import KeyAgreementError, UnexpectedMessageError
from secagg.keys import check_public


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
