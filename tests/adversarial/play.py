"""Sessions to play with: five clients, what has to come out, and the two ways of checking a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from attacks.wire.play import Play
from secagg.driver import Contribution
from secagg.errors import SERVER, SecAggError
from secagg.layout import Layout, Tensor
from secagg.params import Mode, Params
from secagg.rounds import Round
from secagg.server import Server
from secagg.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from secagg.aggregate import Aggregate

__all__ = [
    "HELD",
    "VALUES",
    "Play",
    "expected_of_five",
    "five_clients",
    "refused_by_client",
    "refused_by_server",
    "replay",
]


def replay(session: Session, sent: Mapping[Round, Mapping[int, bytes]]) -> Aggregate:
    """Feeds the recorded messages of a semi-honest session to another server.

    Raises:
        SecAggError: As ``Server``.
    """
    server = Server(session, sent[Round.ADVERTISE_KEYS])
    while server.round is not Round.DONE:
        for message in sent[server.round].values():
            server.receive(message)
        server.close_round()
    return server.outcome


def refused_by_server(
    game: Play, bad: bytes, error: type[SecAggError], culprits: tuple[object, ...] = (), sender: int | None = None
) -> None:
    """The server refuses a message by the right name, and is afterwards as it was."""
    before = game.server.round, game.server.answered, game.server.awaited
    with pytest.raises(SecAggError) as raised:
        game.server.receive(bad, sender)
    assert type(raised.value) is error
    assert raised.value.culprits == culprits
    assert (game.server.round, game.server.answered, game.server.awaited) == before


def refused_by_client(
    game: Play, bad: bytes, error: type[SecAggError], culprits: tuple[object, ...] = (SERVER,)
) -> None:
    """Client 2 refuses a message by the right name, and is afterwards as it was."""
    before = game.clients[2]._state
    with pytest.raises(SecAggError) as raised:
        game.answer(2, bad)
    assert type(raised.value) is error
    assert raised.value.culprits == culprits
    assert game.clients[2]._state is before


HELD = {
    1: [1, 1, 1, 1, 0, 1, 1, 1],
    2: [1, 1, 0, 1, 1, 1, 1, 0],
    4: [1, 1, 1, 1, 1, 1, 1, 1],
    8: [1, 1, 1, 0, 1, 1, 1, 1],
    9: [1, 1, 1, 1, 1, 1, 0, 1],
}
"""What each of five clients holds of eight coordinates."""

VALUES = np.linspace(-4, 4, 8)
"""The update of client 1; client i has a i-th of it."""


def five_clients(mode: Mode = "mask-indexed", *, weights: Mapping[int, float] | None = None, **settings: Any) -> Play:
    """A session of the clients 1, 2, 4, 8 and 9: with five different masks, or whole updates if it is uniform."""
    params = Params(**({"min_cohort": 2, "max_dropouts": 1, "levels": 2**16} | settings))
    session = Session(
        id=bytes(range(16)), params=params, layout=Layout((Tensor("w", (8,)),)), mode=mode, weighted=weights is not None
    )
    brought = {
        id_: Contribution(
            {"w": VALUES / id_},
            np.array(held, bool) if mode == "mask-indexed" else None,
            None if weights is None else weights[id_],
        )
        for id_, held in HELD.items()
    }
    return Play(session, brought)


def expected_of_five(clients: Iterable[int] = HELD, mode: Mode = "mask-indexed", levels: int = 2**16) -> list[int]:
    """The sums of ``five_clients`` without weights over those that survive."""
    magnitude = (levels - 1) // 2
    total = np.zeros(8)
    for id_ in clients:
        held = np.array(HELD[id_]) if mode == "mask-indexed" else 1
        total += np.rint(VALUES / id_ * (magnitude / 4)) * held
    return [int(value) for value in total]
