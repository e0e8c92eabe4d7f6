"""What sparse masking graphs invite: few clients hold a victim's shares, and few stand between it and the others.

The server sees the ring before it decides whom to drop. Whom it corrupts is settled before; here the ring happens to
fall so that the right ones are.
"""

from __future__ import annotations

import hashlib
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from attacks.wire.attack import SIZE, VICTIM, Attack, Weakness, contributions, session, wired
from attacks.wire.hostile import HostileServer
from secagg import transcript
from secagg.driver import Contribution
from secagg.graph import Graph
from secagg.keys import KeyPair
from secagg.messages import Member

if TYPE_CHECKING:
    from secagg.session import Session


def _ring_around_victim(server: HostileServer) -> list[int]:
    """Everybody in ring order, the victim first; from the end, those before it."""
    order = server.wiring()[0].order
    place = order.index(VICTIM)
    return [*order[place:], *order[:place]]


def _own_pair(purpose: str, client: int, attempt: int) -> KeyPair:
    return KeyPair(hashlib.sha256(f"{purpose} {client} {attempt}".encode()).digest())


def _padded_roster(attacked: Session) -> list[int]:
    """Four of ten are the server's; it tries rings until three of them are among the victim's four neighbours."""
    server = HostileServer(attacked, contributions(10))
    server.advertise()
    honest, padding = range(6), range(6, 10)
    for attempt in count():
        pairs = {id_: _own_pair("transport", id_, attempt) for id_ in padding}
        for id_, transport in pairs.items():
            server.members[id_] = Member(id_, _own_pair("masking", id_, attempt).public, transport.public)
        graph, topology = server.wiring()
        if len(graph.neighbours(VICTIM).intersection(padding)) >= topology.threshold:
            break
    server.share_keys(honest)
    server.mask_all([VICTIM], honest)
    server.open_shares(VICTIM, pairs)
    return server.opened(VICTIM)


def _keys_of_anybody(agreed: Session, member: Member) -> bytes:
    return _SAYS_KEYS(agreed, Member(member.id, bytes(32), bytes(32)))


_SAYS_KEYS = transcript.says_keys

PADDED_ROSTER = Attack(
    name="padded roster",
    threat="lists keys of its own for some clients, of such a kind that they come to lie around the victim and hold "
    "its shares, and says that these clients then dropped out",
    stopped_by="the signatures on the keys that the roster lists",
    session=session(adversary="active", neighbours=4, share_threshold=3),
    play=_padded_roster,
    weakness=(Weakness(transcript, "says_keys", _keys_of_anybody),),
)


def _two_stories(attacked: Session) -> list[int]:
    """The victim and two of its neighbours hear of nobody else; the others hear that these three dropped out."""
    server = HostileServer(attacked, contributions(10))
    server.advertise()
    ring = _ring_around_victim(server)
    near = [ring[-2], VICTIM, ring[2]]
    rest = [client for client in ring if client not in near]
    server.share_keys()
    server.mask_all(near, near)
    server.mask_all(rest, ring)
    server.finish(near, near)
    server.finish(rest, rest)
    return server.opened_through(VICTIM, [peer for peer in near if peer != VICTIM])


def _everybody_everywhere(graph: Graph, _clients: object) -> int:
    return len(graph.order)


TWO_STORIES = Attack(
    name="two stories on a ring",
    threat="tells the victim and some neighbours that they are all there is, and everybody else that they dropped out",
    stopped_by="the quorum over all that advertised keys; and the survivors that every window of the ring must hold",
    session=session(adversary="active", neighbours=4, share_threshold=3),
    play=_two_stories,
    weakness=(wired(quorum=0, needed=3), Weakness(Graph, "fewest_in_window", _everybody_everywhere)),
)


def _parted_ring(attacked: Session) -> list[int]:
    """On either side of the victim and its two neighbours a corrupt client, and beyond it two that are dropped.

    Three others are left, too far away to mask with the three: the sum over these opens, and it is the victim's, as
    its neighbours happen to bring nothing.
    """
    server = HostileServer(attacked, contributions(12))
    server.advertise()
    ring = _ring_around_victim(server)
    segment, corrupt, dropped = ([ring[place] for place in places] for places in ((-1, 0, 1), (-2, 2), (-4, -3, 3, 4)))
    known = {client: server.masking_pair(client) for client in corrupt}
    server.contributions |= {client: Contribution({"w": np.zeros(SIZE)}) for client in segment if client != VICTIM}
    server.share_keys()
    server.mask_all(ring, ring)
    survivors = [client for client in ring if client not in dropped]
    server.finish(survivors, survivors)
    return server.sums(segment, known)


PARTED_RING = Attack(
    name="parted ring",
    threat="drops the clients on either side of a part of the ring, so that only corrupt ones tie it to the rest",
    stopped_by="the survivors that every window of the ring must hold: more than corrupt clients fall into any",
    session=session(adversary="active", min_cohort=4, corrupt=2, max_dropouts=4, neighbours=6, share_threshold=5),
    play=_parted_ring,
    weakness=(Weakness(Graph, "fewest_in_window", _everybody_everywhere),),
)
