"""Lies about who survived: the server is after a self seed and a key of one client, or after too small a sum."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from attacks.wire.attack import LAYOUT, SIZE, VICTIM, Attack, Weakness, contributions, nothing, session, wired
from attacks.wire.hostile import HostileServer
from secagg import declaration, graph, masking
from secagg.client import Client
from secagg.declaration import FULL, Provenance
from secagg.release import Plan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from secagg.messages import UnmaskRequest
    from secagg.session import Session
    from secagg.states import Masked

OTHERS = [0, 1, 2, 4]


def _two_lists(attacked: Session) -> list[int]:
    server = HostileServer(attacked, contributions(5))
    everybody = server.collect()
    server.finish([1, 2, 4], OTHERS)
    server.finish([0, VICTIM], everybody)
    return server.opened(VICTIM)


TWO_LISTS = Attack(
    name="two survivor lists",
    threat="tells some clients that the victim survived, and others that it dropped out",
    stopped_by="the quorum: no list is unmasked that not more than half of the clients have signed; and a threshold "
    "that two parts of the holders do not both reach",
    session=session(adversary="active", min_cohort=2, max_dropouts=3),
    play=_two_lists,
    weakness=(Weakness(Client, "_check_quorum", nothing), wired(threshold=2)),
)


def _seconded_twice(attacked: Session) -> list[int]:
    """Each list has half of the six honest clients behind it, and both colluders."""
    server = HostileServer(attacked, contributions(8))
    server.advertise()
    colluders = {id_: server.transport_pair(id_) for id_ in (6, 7)}
    server.share_keys()
    server.mask_all(server.clients, server.clients)
    everybody = sorted(server.clients)
    for honest, survivors in (([0, 1, 2], [id_ for id_ in everybody if id_ != VICTIM]), ([VICTIM, 4, 5], everybody)):
        quorum = server.agree(honest, survivors) + [server.endorse(id_, survivors) for id_ in colluders]
        server.unmask(honest, survivors, quorum)
    server.open_shares(VICTIM, colluders)
    return server.opened(VICTIM)


def _majority_is_enough(client: Client, state: Masked, message: UnmaskRequest) -> None:
    """A quorum that counts no colluders."""
    majority = replace(state.topology, quorum=graph.majority(len(state.plan.clients)))
    _CHECK_QUORUM(client, replace(state, topology=majority), message)


_CHECK_QUORUM = Client._check_quorum  # noqa: SLF001 - the weakened build

SECONDED_TWICE = Attack(
    name="two lists and colluders who sign both",
    threat="has half of the honest clients sign that the victim survived, the other half that it dropped out, and its "
    "colluders both; they also tell both shares that they hold",
    stopped_by="the quorum, which has half of the corrupt clients on top of a majority; and the threshold, likewise",
    session=session(adversary="active", corrupt=2, min_cohort=2, max_dropouts=4),
    play=_seconded_twice,
    weakness=(Weakness(Client, "_check_quorum", _majority_is_enough), wired(threshold=5)),
)


def _too_few(attacked: Session) -> list[int]:
    nowhere = declaration.of_coordinates(LAYOUT, np.zeros(SIZE, bool), Provenance.DEVICE)
    brings = {id_: replace(one, mask=nowhere if id_ in (4, 5, 6) else FULL) for id_, one in contributions(8).items()}
    server = HostileServer(attacked, brings)
    server.collect()
    survivors = [VICTIM, 4, 5, 6]
    server.unmask(survivors, survivors)
    return server.sums(survivors)


TOO_FEW = Attack(
    name="survivors below the rule",
    threat="names survivors of whom the victim alone holds anything",
    stopped_by="the release rule, applied again at Unmask",
    session=session("mask-indexed", min_cohort=2, max_dropouts=3, share_threshold=4),
    play=_too_few,
    weakness=(Weakness(Plan, "check_survivors", nothing),),
)


def _late(attacked: Session) -> list[int]:
    server = HostileServer(attacked, contributions(5))
    server.collect()
    server.unmask(OTHERS, OTHERS)
    return server.strip(VICTIM, bytes(32), server.agreed_with(VICTIM, server.masking_key(VICTIM)))


def _terms_without_self_mask(client: int, neighbours: Collection[int]) -> Iterator[masking.Term]:
    return (term for term in _TERMS(client, neighbours) if term.peer is not None)


_TERMS = masking.terms

LATE = Attack(
    name="late vector",
    threat="says that the victim's vector was lost, so that the others give its key, and has the vector all the same",
    stopped_by="the self mask: nobody gives a share of a lost client's self seed",
    session=session(max_dropouts=1),
    play=_late,
    weakness=(Weakness(masking, "terms", _terms_without_self_mask),),
)
