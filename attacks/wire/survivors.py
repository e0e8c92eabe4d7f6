"""Lies about who survived: the server is after a self seed and a key of one client, or after too small a sum."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from attacks.wire.attack import LAYOUT, SIZE, VICTIM, Attack, Weakness, contributions, nothing, session, wired
from attacks.wire.hostile import HostileServer
from secagg import declaration, masking
from secagg.client import Client
from secagg.declaration import FULL, Provenance
from secagg.release import Plan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from secagg.session import Session

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
