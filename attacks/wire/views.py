"""Lies about who takes part, with which keys and with which model: the victim sees another session than the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from attacks.wire.attack import SIZE, UPDATES, VICTIM, Attack, Weakness, contributions, nothing, session
from attacks.wire.hostile import HostileServer
from secagg import dealing, field, shamir
from secagg.client import Client
from secagg.dealing import SALT_BYTES
from secagg.declaration import FULL
from secagg.driver import Contribution
from secagg.errors import KeyAgreementError
from secagg.identity import Directory
from secagg.keys import KeyPair
from secagg.messages import Member, Participant, RelayedShares, RevealedShare, SealedShares
from secagg.params import Params
from secagg.session import Session
from secagg.states import HeldShares

if TYPE_CHECKING:
    from collections.abc import Mapping


def _smaller_cohort(attacked: Session) -> list[int]:
    """The others hear that two of the three clients that the victim knows of dropped out, and give their keys."""
    server = HostileServer(attacked, contributions(9))
    server.advertise()
    server.share_keys()
    shown = [0, 1, VICTIM]
    rest = [client for client in server.clients if client not in shown]
    server.mask(VICTIM, server.relay(VICTIM, server.participants(shown)))
    for client in rest:
        server.mask(client, server.relay(client, server.participants(server.clients)))
    survivors = [VICTIM, *rest]
    server.unmask(rest, survivors, server.agree(rest, survivors))
    own = server.members[VICTIM].masking_key
    agreed = {peer: server.masking_key(peer, 3).agree(own) for peer in (0, 1)}
    return server.strip(VICTIM, server.self_seed(VICTIM, 3), agreed)


SMALLER_COHORT = Attack(
    name="smaller cohort",
    threat="tells the victim of three participants, and the others that two of those dropped out",
    stopped_by="the signatures of the survivors on what they masked under; and a threshold that leaves too few holders "
    "for two stories",
    session=session(adversary="active", max_dropouts=6),
    play=_smaller_cohort,
    weakness=(Weakness(Client, "_check_signed", nothing), Weakness(Params, "quorum", lambda *_: 0)),
)


def _in_the_middle(attacked: Session, own: Mapping[int, tuple[KeyPair, KeyPair]]) -> list[int]:
    """Plays everybody else for the victim, with key pairs for masking and transport of its own."""
    server = HostileServer(attacked, contributions(VICTIM + 1))
    server.advertise()
    victim = server.members[VICTIM]
    fakes = [Member(id_, masking.public, transport.public) for id_, (masking, transport) in own.items()]
    server.share_keys(VICTIM, [victim, *fakes])
    dealt = server.shared[VICTIM]
    ids = sorted([VICTIM, *own])
    secrets = {id_: transport.agree(victim.transport_key) for id_, (_, transport) in own.items()}
    relayed = RelayedShares(
        attacked.id,
        tuple(Participant(id_, FULL, None) for id_ in ids),
        tuple(_shares_of_nothing(id_, secrets[id_], dealt.transcript) for id_ in own),
        (dealt.signature or b"",) * len(ids) if attacked.params.active else (),
    )
    server.mask(VICTIM, relayed)
    shares = {}
    for sealed in dealt.shares:
        opened = dealing.open_shares(sealed, secrets[sealed.holder], dealt.transcript)
        shares[1 + ids.index(sealed.holder)] = field.decode(opened.self_seed.share)
    agreed = {id_: masking.agree(victim.masking_key) for id_, (masking, _) in own.items()}
    return server.strip(VICTIM, shamir.rebuild(shares), agreed)


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
    stopped_by="the signatures of pinned identities on the keys that each client saw",
    session=session(adversary="active", max_dropouts=0),
    play=_substituted_keys,
    weakness=(Weakness(Directory, "check", nothing),),
)


@dataclass(frozen=True)
class _LowOrder(KeyPair):
    """A point of low order in the place of a public key: every secret agreed with it is zero."""

    point: str = ""

    @property
    def public(self) -> bytes:
        """The point."""
        return bytes.fromhex(self.point)

    def agree(self, peer_public: bytes) -> bytes:  # noqa: ARG002 - whoever the peer is
        """Zero."""
        return bytes(32)


LOW_ORDER = (
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
)
"""Points of low order on Curve25519 and its twist (D. J. Bernstein, https://cr.yp.to/ecdh.html#validate)."""


def _low_order_keys(attacked: Session) -> list[int]:
    one, two, three, four = (_LowOrder(bytes(32), point) for point in LOW_ORDER)
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
    weakness=(Weakness(KeyPair, "agree", _agree_with_anybody),),
)


def _model_for_one(attacked: Session) -> list[int]:
    silent = {id_: Contribution({"w": np.zeros(SIZE)}) for id_ in range(VICTIM)}
    dead = replace(attacked, model_root=b"a model with dead layers")
    brings = silent | {VICTIM: Contribution({"w": UPDATES[VICTIM]})}
    server = HostileServer(attacked, brings, sessions=dict.fromkeys(silent, dead))
    everybody = server.collect()
    server.unmask(everybody, everybody, server.agree(everybody, everybody))
    return server.sums(everybody, 3)


def _digest_without_model(attacked: Session) -> bytes:
    digest: bytes = _DIGEST(replace(attacked, model_root=b""))
    return digest


_DIGEST = vars(Session)["digest"].fget

MODEL_FOR_ONE = Attack(
    name="a model for one",
    threat="gives everybody but the victim a model whose updates are zero, so that the sum is the victim's",
    stopped_by="the model root in every transcript",
    session=session(adversary="active", max_dropouts=0, model_root=b"the victim's model"),
    play=_model_for_one,
    weakness=(Weakness(Session, "digest", property(_digest_without_model)),),
)
