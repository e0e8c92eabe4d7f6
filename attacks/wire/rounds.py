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
    from collections.abc import Callable

    from secagg.session import Session


def _reuse(attacked: Session) -> list[int]:
    """Equal masks twice, and the second time around an update of zero."""
    ledger, vectors = Ledger(), []
    for update in (UPDATES[VICTIM], np.zeros(SIZE)):
        brings = contributions(4) | {VICTIM: Contribution({"w": update})}
        server = HostileServer(attacked, brings, ledgers={VICTIM: ledger})
        server.collect()
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
    weakness=(Weakness(Ledger, "_check", nothing),),
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
    again = replace(attacked, id=b"2" * 16)
    second = HostileServer(again, {id_: brings[id_] for id_ in fewer}, ledgers=ledgers, seed=b"again")
    second.collect()
    second.finish(fewer, fewer)
    return [one - other for one, other in zip(first.sums(everybody), second.sums(fewer), strict=True)]


BEHIND_THEIR_BACKS = Attack(
    name="behind their backs",
    threat="releases a sum without asking those who are in it, and then another of them without the victim",
    stopped_by="the ledger: after a session whose end it has not seen, a client sends nothing else for that model",
    session=session("mask-indexed", adversary="active", max_dropouts=0),
    play=_behind_their_backs,
    weakness=(Weakness(Ledger, "send", nothing),),
)
