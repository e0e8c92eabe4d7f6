"""Two sessions that are safe each, and tell together what none of them says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from attacks.wire.attack import SIZE, UPDATES, VICTIM, Attack, Weakness, contributions, nothing, session
from attacks.wire.hostile import HostileServer
from secagg.driver import Contribution
from secagg.ledger import Ledger
from secagg.ring import Ring

if TYPE_CHECKING:
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
        sums.append(server.sums(survivors, 3))
    return [one - other for one, other in zip(*sums, strict=True)]


DIFFERENCING = Attack(
    name="differencing",
    threat="aggregates updates of the same model twice, with the victim and without it",
    stopped_by="the ledger: it compares the survivors of every coordinate with those of earlier sessions",
    session=session(max_dropouts=1),
    play=_differencing,
    weakness=(Weakness(Ledger, "check", nothing),),
)
