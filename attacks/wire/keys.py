"""Lies about public keys: those of the server in the place of others, keys of low order, the same key twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attacks.wire.attack import VICTIM, Attack, Weakness, contributions, nothing, session
from attacks.wire.hostile import HostileServer
from secagg import client, dealing, field, keys, masking
from secagg.dealing import SALT_BYTES
from secagg.declaration import FULL
from secagg.errors import KeyAgreementError
from secagg.identity import Directory
from secagg.keys import KeyPair
from secagg.messages import Member, Participant, RelayedShares, RevealedShare, SealedShares
from secagg.prg import derive
from secagg.states import HeldShares

if TYPE_CHECKING:
    from collections.abc import Mapping

    from secagg.messages import Roster
    from secagg.session import Session


def _in_the_middle(attacked: Session, own: Mapping[int, tuple[KeyPair, KeyPair]]) -> list[int]:
    """Plays everybody else for the victim, with key pairs for masking and transport of its own."""
    server = HostileServer(attacked, contributions(VICTIM + 1))
    server.advertise()
    victim = server.members[VICTIM]
    fakes = {id_: Member(id_, pair.public, transport.public) for id_, (pair, transport) in own.items()}
    server.members = {**fakes, VICTIM: victim}
    server.share_keys([VICTIM])
    dealt = server.shared[VICTIM]
    transports = {id_: transport for id_, (_, transport) in own.items()}
    relayed = RelayedShares(
        attacked.id,
        tuple(Participant(id_, FULL, None) for id_ in server.members),
        tuple(
            _shares_of_nothing(id_, transport.agree(victim.transport_key), dealt.transcript)
            for id_, transport in transports.items()
        ),
        (dealt.signature or b"",) * len(server.members) if attacked.params.active else (),
    )
    server.mask(VICTIM, relayed)
    server.open_shares(VICTIM, transports)
    agreed = {id_: pair.agree(victim.masking_key) for id_, (pair, _) in own.items()}
    return server.strip(VICTIM, server.self_seed(VICTIM), agreed)


def _shares_of_nothing(dealer: int, secret: bytes, first: bytes) -> SealedShares:
    """Well-formed shares for the victim, which holds them against a dropout that never comes."""
    share = RevealedShare(dealer, field.encode(1), bytes(SALT_BYTES))
    return dealing.seal_shares(HeldShares(share, share), VICTIM, secret, first)


def _substituted_keys(attacked: Session) -> list[int]:
    pairs = {id_: (KeyPair(bytes([id_ + 1]) * 32), KeyPair(bytes([id_ + 101]) * 32)) for id_ in (0, 1)}
    return _in_the_middle(attacked, pairs)


SUBSTITUTED_KEYS = Attack(
    name="substituted keys",
    threat="puts keys of its own in the place of everybody else's",
    stopped_by="the signatures of pinned identities on keys, and on all that follows from them",
    session=session(adversary="active", max_dropouts=0),
    play=_substituted_keys,
    weakness=(Weakness(Directory, "check", nothing),),
)


@dataclass(frozen=True)
class _Shown(KeyPair):
    """A public key that is none of its owner's, who knows nothing of what others agree on with it."""

    shown: bytes = b""

    @property
    def public(self) -> bytes:
        """The key."""
        return self.shown


class _LowOrder(_Shown):
    """A point of low order in the place of a public key: every secret agreed with it is zero."""

    def agree(self, peer_public: bytes) -> bytes:  # noqa: ARG002 - whoever the peer is
        """Zero."""
        return bytes(32)


LOW_ORDER = {
    "zero": "00" * 32,
    "one": "01" + "00" * 31,
    "order 8": "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "order 8, other": "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "minus one": "ec" + "ff" * 30 + "7f",
    "p": "ed" + "ff" * 30 + "7f",
    "p plus one": "ee" + "ff" * 30 + "7f",
}
"""Points of low order on Curve25519 and its twist, as u-coordinates in hexadecimal, little-endian; the last two are
second spellings of the first two (D. J. Bernstein, https://cr.yp.to/ecdh.html#validate)."""


def _low_order_keys(attacked: Session) -> list[int]:
    points = list(LOW_ORDER.values())[:4]
    one, two, three, four = (_LowOrder(bytes(32), bytes.fromhex(point)) for point in points)
    return _in_the_middle(attacked, {0: (one, two), 1: (three, four)})


def _agree_with_anybody(pair: KeyPair, peer_public: bytes) -> bytes:
    try:
        return _AGREE(pair, peer_public)
    except KeyAgreementError:
        return bytes(32)


_AGREE = KeyPair.agree

LOW_ORDER_KEYS = Attack(
    name="low-order keys",
    threat="shows keys with which every agreed secret is zero",
    stopped_by="the refusal of keys of low order",
    session=session(max_dropouts=0),
    play=_low_order_keys,
    weakness=(Weakness(KeyPair, "agree", _agree_with_anybody), Weakness(keys, "LOW_ORDER", frozenset())),
)


def _equal_keys(attacked: Session) -> list[int]:
    """Below the victim's id two honest clients, above it two that show their keys: opposite signs."""
    server = HostileServer(attacked, {id_: one for id_, one in contributions(6).items() if id_ != 2})
    server.advertise()
    for thief, owner in ((4, 0), (5, 1)):
        server.readvertise(thief, _Shown(bytes([thief]) * 32, server.members[owner].masking_key))
    server.share_keys()
    server.mask_all(server.clients, server.clients)
    server.finish(server.clients, server.clients)
    return server.strip(VICTIM, server.self_seed(VICTIM), {})


def _members_with_equal_keys(roster: Roster) -> dict[int, Member]:
    return {member.id: member for member in roster.members}


def _pairwise_key_without_ids(agreed: bytes, second: bytes, _one: int, _other: int) -> bytes:
    return derive(agreed, "pairwise mask", second)


EQUAL_KEYS = Attack(
    name="equal keys",
    threat="has corrupt clients show the masking keys of honest ones, so that the victim's pairwise masks cancel "
    "within its own vector, and nothing but the self mask is left",
    stopped_by="the refusal of a key that appears twice; and both ids in the key of every pairwise mask",
    session=session(adversary="active", corrupt=2, max_dropouts=0),
    play=_equal_keys,
    weakness=(
        Weakness(client, "members_of", _members_with_equal_keys),
        Weakness(masking, "pairwise_key", _pairwise_key_without_ids),
    ),
)
