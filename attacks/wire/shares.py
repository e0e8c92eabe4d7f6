"""Lies about shares: the server is after shares of a self seed and of a key of the same client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from attacks.wire.attack import VICTIM, Attack, Weakness, contributions, nothing, session, wired
from attacks.wire.hostile import HostileServer, as_kind
from secagg import dealing, messages, transcript
from secagg.client import Client
from secagg.messages import Unmask, UnmaskRequest
from secagg.states import Masked

if TYPE_CHECKING:
    from secagg.messages import SealedShares
    from secagg.session import Session

OTHERS = [0, 1, 2, 4]


def _second_unmask(attacked: Session) -> list[int]:
    server = HostileServer(attacked, contributions(5))
    everybody = server.collect()
    server.unmask(everybody, everybody)
    server.unmask(OTHERS, OTHERS)
    return server.opened(VICTIM)


def _unmask_and_stay(client: Client, request: bytes) -> bytes:
    """Answers as ever, and does not remember that it did."""
    before = client._state  # noqa: SLF001 - the weakened build
    answer = _UNMASK(client, request)
    client._state = before  # noqa: SLF001
    return answer


_UNMASK = Client.unmask

SECOND_UNMASK = Attack(
    name="second unmask",
    threat="asks the same clients again, with a list of survivors that leaves out the victim",
    stopped_by="the client's state: it answers once",
    session=session(min_cohort=2, max_dropouts=2),
    play=_second_unmask,
    weakness=(Weakness(Client, "unmask", _unmask_and_stay),),
)


def _overlapping_lists(attacked: Session) -> list[int]:
    server = HostileServer(attacked, contributions(5))
    everybody = server.collect()
    lists = messages.write_bitmap(everybody, everybody) + messages.write_bitmap([VICTIM], everybody)
    request = messages.encode(UnmaskRequest(attacked.id, lists))
    for holder in OTHERS:
        answer = as_kind(Unmask, server.clients[holder].unmask(request))
        of_self, of_key = (share for share in answer.shares if share.dealer == VICTIM)
        server.keep(VICTIM, holder, of_self.share, of_self=True)
        server.keep(VICTIM, holder, of_key.share, of_self=False)
    return server.opened(VICTIM)


def _unmask_two_lists(client: Client, request: bytes) -> bytes:
    """Reads survivors and dropouts as two lists, as other protocols do, and does not compare them."""
    state, lists = client._state, as_kind(UnmaskRequest, request).survivors  # noqa: SLF001 - the weakened build
    if not isinstance(state, Masked):
        return _UNMASK(client, request)
    half = len(lists) // 2
    alive = client._survivors(state, lists[:half])  # noqa: SLF001
    lost = messages.read_bitmap(lists[half:], state.plan.clients)
    shares = [held.self_seed for dealer, held in state.held.items() if dealer in alive]
    shares += [held.masking_key for dealer, held in state.held.items() if dealer in lost]
    return messages.encode(Unmask(client.session.id, client.id, tuple(shares)))


OVERLAPPING_LISTS = Attack(
    name="overlapping unmask lists",
    threat="lists the victim among the survivors and, in the same request, among the dropouts",
    stopped_by="the formats: one bit for each client, so that no request asks for both kinds of share; and each dealer "
    "once, so that no answer holds both",
    session=session(min_cohort=2, max_dropouts=2),
    play=_overlapping_lists,
    weakness=(Weakness(Client, "unmask", _unmask_two_lists), Weakness(messages, "check_dealers", nothing)),
)


def _reflected_shares(attacked: Session) -> list[int]:
    """The secret that seals shares is the same in both directions, so the victim could open what it sealed itself."""
    server = HostileServer(attacked, contributions(5))
    server.advertise()
    server.share_keys()
    server.mask_all(OTHERS, server.clients)
    relayed = server.relay(VICTIM, server.participants(server.clients))
    own = {sealed.holder: sealed for sealed in server.shared[VICTIM].shares}
    reflected = tuple(
        structs.replace(own[sealed.dealer], dealer=sealed.dealer, holder=VICTIM, signature=sealed.signature)
        for sealed in relayed.shares
    )
    server.mask(VICTIM, structs.replace(relayed, shares=reflected))
    survivors = [0, 1, VICTIM]
    server.unmask([VICTIM], survivors, server.agree(survivors, survivors))
    for (dealer, of_self), shares in tuple(server.revealed.items()):
        for share in shares.values():  # what the victim gives as another's is its own, at the other's point
            server.revealed.setdefault((VICTIM, of_self), {})[server.points[dealer]] = share
    return server.opened(VICTIM)


def _dealt_by_anybody(first: bytes, _sealed: SealedShares) -> bytes:
    return transcript.says_second(first, 0)


def _commitment_without_ids(salt: bytes, _dealer: int, _holder: int, share: bytes) -> bytes:
    return transcript.share_commitment(salt, 0, 0, share)


REFLECTED_SHARES = Attack(
    name="replayed shares",
    threat="relays to the victim, as the shares that others dealt to it, those that it dealt to them, and then says "
    "that some of these others dropped out",
    stopped_by="the dealer's signature on its shares; the order of both ids under which shares are sealed; both ids in "
    "their commitments; and a threshold above the dropouts",
    session=session(adversary="active", min_cohort=2, max_dropouts=2),
    play=_reflected_shares,
    weakness=(
        Weakness(transcript, "says_dealt", _dealt_by_anybody),
        Weakness(dealing, "id_bytes", lambda _: bytes(8)),
        Weakness(dealing, "share_commitment", _commitment_without_ids),
        wired(threshold=2),
    ),
)
