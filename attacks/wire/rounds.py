"""Two sessions that are safe each, and tell together what none of them says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from attacks.wire.attack import LAYOUT, SIZE, UPDATES, VICTIM, Attack, Weakness, contributions, nothing, session
from attacks.wire.hostile import HostileServer
from secagg import client, declaration
from secagg.declaration import Provenance
from secagg.driver import Contribution
from secagg.ledger import Ledger
from secagg.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from secagg.release import Plan
    from secagg.session import Session


def _reuse(attacked: Session) -> list[int]:
    """Equal masks twice, and the second time around an update of zero."""
    ledger, vectors = Ledger(), []
    for update in (UPDATES[VICTIM], np.zeros(SIZE)):
        brings = contributions(4) | {VICTIM: Contribution({"w": update})}
        server = HostileServer(attacked, brings, ledgers={VICTIM: ledger})
        server.collect()
        ledger.abandon(attacked.id)  # as it is told that the session broke off
        vectors.append(server.inputs[VICTIM].vector)
    ring = Ring.holding(4 * attacked.params.magnitude)
    first, second = (ring.unpack(vector, SIZE) for vector in vectors)
    return [int(value) for value in ring.centred(first - second)]


REUSE = Attack(
    name="session reuse",
    threat="has the victim, restored from a snapshot with its randomness, play the same session with another update",
    stopped_by="the ledger: a session id is used once",
    session=session(max_dropouts=0),
    play=_reuse,
    weakness=(Weakness(Ledger, "open", nothing),),
)


def _differencing(attacked: Session) -> list[int]:
    ledger, sums = Ledger(), []
    for number, survivors in enumerate(([0, 1, 2, VICTIM, 4], [0, 1, 2, 4])):
        once = replace(attacked, id=bytes([number]) * 16)
        server = HostileServer(once, contributions(5), ledgers={0: ledger}, seed=bytes([number]))
        server.collect()
        server.unmask(survivors, survivors)
        sums.append(server.sums(survivors))
    return [one - other for one, other in zip(*sums, strict=True)]


DIFFERENCING = Attack(
    name="differencing",
    threat="aggregates updates of the same model twice, with the victim and without it",
    stopped_by="the ledger: it compares the survivors of every coordinate with those of earlier sessions",
    session=session(max_dropouts=1),
    play=_differencing,
    weakness=(Weakness(Ledger, "_compare", nothing),),
)


def _seed_reuse(attacked: Session) -> list[int]:
    """The first session gives the victim's self seed. In the second it is said to be lost, and its key is given."""
    servers = [HostileServer(replace(attacked, id=bytes([number]) * 16), contributions(5)) for number in (1, 2)]
    for server, survivors in zip(servers, ([0, 1, 2, VICTIM, 4], [0, 1, 2, 4]), strict=True):
        server.collect()
        server.finish(survivors, survivors)
    first, second = servers
    return first.strip(VICTIM, first.self_seed(VICTIM), first.agreed_with(VICTIM, second.masking_key(VICTIM)))


def _as_it_comes(entropy: Callable[[int], bytes], *_: bytes) -> Callable[[int], bytes]:
    return entropy


SEED_REUSE = Attack(
    name="seed reuse",
    threat="has everybody, restored from a snapshot with their randomness, play another session of another id",
    stopped_by="the session in every secret that a client draws",
    session=session(adversary="active", max_dropouts=1),
    play=_seed_reuse,
    weakness=(Weakness(client, "hedged", _as_it_comes),),
)


def _again(
    attacked: Session,
    brings: Mapping[int, Contribution],
    ledgers: Mapping[int, Ledger],
    asked: Collection[int],
    group: Collection[int],
) -> list[int]:
    """The sums of another session over a group, some of whom are asked to unmask it."""
    server = HostileServer(
        replace(attacked, id=b"2" * 16), {id_: brings[id_] for id_ in group}, ledgers=ledgers, seed=b"again"
    )
    server.collect()
    server.finish(asked, group)
    return server.sums(group)


def _behind_their_backs(attacked: Session) -> list[int]:
    """Those who hold something are not asked in the first session, and those who were are not in the second."""
    holders, rest = [0, 1, 2, VICTIM], [4, 5, 6, 7, 8]
    nowhere = declaration.of_coordinates(LAYOUT, np.zeros(SIZE, bool), Provenance.DEVICE)
    brings = contributions(9) | {id_: replace(contributions(9)[id_], mask=nowhere) for id_ in rest}
    ledgers = {id_: Ledger() for id_ in brings}
    first = HostileServer(attacked, brings, ledgers=ledgers)
    everybody = first.collect()
    first.finish(rest, everybody)
    fewer = [client for client in holders if client != VICTIM]
    again = _again(attacked, brings, ledgers, fewer, fewer)
    return [one - other for one, other in zip(first.sums(everybody), again, strict=True)]


BEHIND_THEIR_BACKS = Attack(
    name="behind their backs",
    threat="releases a sum without asking those who are in it, and then another of them without the victim",
    stopped_by="the ledger: after a session whose end it has not seen, a client sends nothing else for that model",
    session=session("mask-indexed", adversary="active", max_dropouts=0),
    play=_behind_their_backs,
    weakness=(Weakness(Ledger, "send", nothing),),
)

MAJORITY, MINORITY = [0, 1, 2, VICTIM, 4], [5, 6, 7, 8]
SILENT = 4
"""Brings nothing, so that a sum over it and the victim is the victim's."""


def _without_two(attacked: Session, lie: Callable[[HostileServer, list[int]], object]) -> list[int]:
    """The majority releases everybody's sum, and in a second session the minority that of all but two."""
    brings = contributions(9) | {SILENT: Contribution({"w": np.zeros(SIZE)})}
    ledgers = {id_: Ledger() for id_ in brings}
    first = HostileServer(attacked, brings, ledgers=ledgers)
    everybody = first.collect()
    fewer = [client for client in everybody if client not in (VICTIM, SILENT)]
    lie(first, fewer)
    first.finish(MAJORITY, everybody)
    again = _again(attacked, brings, ledgers, MINORITY, fewer)
    return [one - other for one, other in zip(first.sums(everybody), again, strict=True)]


LOST_CONNECTIONS = Attack(
    name="lost connections",
    threat="hears no more of some clients once it has their vectors, and later sums up the same updates again, of all "
    "but two; only those clients answer to the end",
    stopped_by="the ledger: after a session whose end it has not seen, a client sends nothing else for that model",
    session=session(),
    play=lambda attacked: _without_two(attacked, nothing),
    weakness=(Weakness(Ledger, "send", nothing),),
)


def _settle_at_once(ledger: Ledger, plan: Plan, survivors: Sequence[int]) -> None:
    """Takes the list that this client signed for the one that is released."""
    _AGREE(ledger, plan, survivors)
    ledger.settle(plan.session.id)


_AGREE = Ledger.agree

POISONED_LEDGERS = Attack(
    name="poisoned ledgers",
    threat="has a minority sign, and so remember, that two clients dropped out, releases the sum over everybody with "
    "the others' signatures, and later has the minority sum up the same updates without the two",
    stopped_by="the ledger: a session is open until the client has seen a quorum for the list that it signed",
    session=session(adversary="active"),
    play=lambda attacked: _without_two(attacked, lambda server, fewer: server.agree(MINORITY, fewer)),
    weakness=(Weakness(Ledger, "agree", _settle_at_once),),
)
