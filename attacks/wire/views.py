"""Lies about who takes part and who holds what: the victim masks under another U2 than the others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from attacks.wire.attack import SIZE, UPDATES, VICTIM, Attack, Weakness, contributions, session, wired
from attacks.wire.hostile import HostileServer
from secagg import declaration, transcript
from secagg.client import Client
from secagg.declaration import FULL, Provenance
from secagg.driver import Contribution
from secagg.layout import Layout, Tensor
from secagg.messages import Participant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import ArrayLike

    from secagg.session import Session

SHOWN = [0, 1, VICTIM]
"""The participants that the victim hears of; the others hear of seven."""
REST = [2, 4, 5, 6]


def _told_of_few(attacked: Session) -> HostileServer:
    server = HostileServer(attacked, contributions(7))
    server.advertise()
    server.share_keys()
    server.mask_all([VICTIM], SHOWN)
    server.mask_all(REST, server.clients)
    return server


def _opened(server: HostileServer) -> list[int]:
    """From the keys of all but the victim of those that it knows of: the others gave them as those of dropouts."""
    return server.opened_through(VICTIM, [peer for peer in SHOWN if peer != VICTIM])


def _smaller_cohort(attacked: Session) -> list[int]:
    server = _told_of_few(attacked)
    server.finish(REST, [VICTIM, *REST])
    return _opened(server)


def _seconded_by_anybody(_second: bytes, client: int) -> bytes:
    return _SAYS_SECOND(bytes(32), client)


_SAYS_SECOND = transcript.says_second

SMALLER_COHORT = Attack(
    name="smaller cohort",
    threat="tells the victim of three participants, and the others that two of those dropped out",
    stopped_by="the signatures of the survivors on what they masked under; and a quorum over all that advertised "
    "keys, which leaves too few clients for two stories",
    session=session(adversary="active", max_dropouts=4),
    play=_smaller_cohort,
    weakness=(Weakness(transcript, "says_second", _seconded_by_anybody), wired(quorum=0, threshold=3, needed=3)),
)


def _second_plan(attacked: Session) -> list[int]:
    """As with a smaller cohort, and the victim also signs what the others masked under."""
    server = _told_of_few(attacked)
    of_few = server.inputs[VICTIM], server.told[VICTIM]
    server.mask_all([VICTIM], server.clients)
    server.finish(REST, [VICTIM, *REST])
    server.inputs[VICTIM], server.told[VICTIM] = of_few
    return _opened(server)


def _mask_again(client: Client, relayed: bytes, update: Mapping[str, ArrayLike]) -> bytes:
    """Goes back to its first seeds whenever it is asked to mask."""
    client._state = vars(client).setdefault("kept", client._state)  # noqa: SLF001 - the weakened build
    return _MASKED_INPUT(client, relayed, update)


_MASKED_INPUT = Client.masked_input

SECOND_PLAN = Attack(
    name="second plan under the same seeds",
    threat="has the victim mask among three participants, and then once more among all",
    stopped_by="the client's state: it masks once; and the quorum, as with a smaller cohort",
    session=session(adversary="active", max_dropouts=4),
    play=_second_plan,
    weakness=(Weakness(Client, "masked_input", _mask_again), wired(quorum=0, threshold=3, needed=3)),
)

TWO_TENSORS = Layout((Tensor("w", (SIZE,)), Tensor("frozen", (SIZE,))))
FIRST, SECOND = (
    declaration.of_coordinates(TWO_TENSORS, np.arange(2 * SIZE) // SIZE == tensor, Provenance.DEVICE)
    for tensor in (0, 1)
)


def _forged_masks(attacked: Session) -> list[int]:
    """The victim holds the first tensor, the others the second, whose updates are zero; all hear that nobody differs.

    So all vectors are of one length, and masks are taken from the streams in order of place: they would cancel.
    """
    zeros = np.zeros(SIZE)
    brings = {id_: Contribution({"w": UPDATES[id_], "frozen": zeros}, SECOND) for id_ in range(5)}
    brings[VICTIM] = replace(brings[VICTIM], mask=FIRST)
    server = HostileServer(attacked, brings)
    server.advertise()
    server.share_keys()
    for client, shared in server.shared.items():
        forged = tuple(Participant(id_, shared.declaration, None) for id_ in server.clients)
        relayed = server.relay(client, server.participants(server.clients))
        server.mask(client, structs.replace(relayed, participants=forged))
    server.finish(server.clients, server.clients)
    return server.sums(server.clients)


def _declared_by_anybody(first: bytes, participant: Participant) -> bytes:
    return _SAYS_FIRST(first, Participant(participant.id, FULL, None))


def _second_without_participants(first: bytes, _participants: Iterable[Participant]) -> bytes:
    return first


_SAYS_FIRST = transcript.says_first

FORGED_MASKS = Attack(
    name="forged mask declarations",
    threat="tells the victim that all others hold what it alone holds, and the others that it holds what they hold",
    stopped_by="the signatures on declarations; and h2, which every mask key depends on and every survivor signs",
    session=session("mask-indexed", layout=TWO_TENSORS, adversary="active"),
    play=_forged_masks,
    weakness=(
        Weakness(transcript, "says_first", _declared_by_anybody),
        Weakness(transcript, "h2", _second_without_participants),
    ),
)
