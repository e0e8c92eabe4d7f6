"""A session laid open: every message passes through the test's hands before it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from secagg.client import Client
from secagg.driver import Contribution
from secagg.errors import SERVER, SecAggError
from secagg.identity import Identity
from secagg.layout import Layout, Tensor
from secagg.params import Mode, Params
from secagg.prg import SeededEntropy
from secagg.rounds import Round
from secagg.server import Server
from secagg.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from secagg.aggregate import Aggregate


class Play:
    """A session in memory that stops wherever a test wants it to.

    Args:
        session: The session.
        contributions: What each client brings.
        seed: Of all randomness.
    """

    def __init__(self, session: Session, contributions: Mapping[int, Contribution], seed: str = "play") -> None:
        self.contributions = contributions
        entropy = {id_: SeededEntropy(f"{seed}/{id_}".encode()) for id_ in sorted(contributions)}
        active = session.params.active
        self.identities = {id_: Identity.generate(source) for id_, source in entropy.items() if active}
        self.pinned = {id_: identity.public for id_, identity in self.identities.items()} if active else None
        self.clients = {
            id_: Client(id_, session, self.identities.get(id_), self.pinned, entropy=source)
            for id_, source in entropy.items()
        }
        self.server = Server(session, self.clients, self.pinned)
        self.inbox: Mapping[int, bytes] = dict.fromkeys(self.clients, b"")
        self.sent: dict[Round, dict[int, bytes]] = {round_: {} for round_ in Round}

    def answer(self, id_: int, received: bytes | None = None) -> bytes:
        """What a client answers in the round that the server is in, to what it really received or to something else."""
        client, brought = self.clients[id_], self.contributions[id_]
        received = self.inbox[id_] if received is None else received
        match self.server.round:
            case Round.ADVERTISE_KEYS:
                answer = client.advertise_keys()
            case Round.SHARE_KEYS:
                answer = client.share_keys(received, brought.mask, brought.weight)
            case Round.MASKED_INPUT:
                answer = client.masked_input(received, brought.update)
            case Round.CONSISTENCY_CHECK:
                answer = client.check_consistency(received)
            case _:
                answer = client.unmask(received)
        self.sent[self.server.round][id_] = answer
        return answer

    def deliver(self, ids: Iterable[int] | None = None) -> None:
        """Lets clients answer: those given, or everybody who is awaited."""
        for id_ in self.server.awaited if ids is None else ids:
            self.server.receive(self.sent[self.server.round].get(id_) or self.answer(id_))

    def close(self) -> None:
        """Ends the round; what the server sends waits in the clients' inboxes."""
        self.inbox = self.server.close_round()

    def until(self, round_: Round) -> Play:
        """Plays on until the server is in a round."""
        while self.server.round is not round_:
            self.deliver()
            self.close()
        return self

    def finish(self) -> Aggregate:
        """Plays on to the end; whoever has not answered yet does now, with the answer it has made already, if any."""
        return self.until(Round.DONE).server.outcome


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


def refused_by_server(game: Play, bad: bytes, error: type[SecAggError], culprits: tuple[object, ...] = ()) -> None:
    """The server refuses a message by the right name, and is afterwards as it was."""
    before = game.server.round, game.server.answered, game.server.awaited
    with pytest.raises(SecAggError) as raised:
        game.server.receive(bad)
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
