"""A session with an honest server laid open: every message passes through the player's hands before it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secagg.client import Client
from secagg.identity import introduce
from secagg.prg import SeededEntropy
from secagg.rounds import Round
from secagg.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from secagg.aggregate import Aggregate
    from secagg.driver import Contribution
    from secagg.session import Session


class Play:
    """A session in memory that stops wherever its player wants it to.

    Args:
        session: The session.
        contributions: What each client brings.
        seed: Of all randomness.
        kinds: Classes of clients that do not run this project's code, by id.
    """

    def __init__(
        self,
        session: Session,
        contributions: Mapping[int, Contribution],
        seed: str = "play",
        kinds: Mapping[int, type[Client]] | None = None,
    ) -> None:
        self.contributions = contributions
        entropy = {id_: SeededEntropy(f"{seed}/{id_}".encode()) for id_ in sorted(contributions)}
        self.identities, self.pinned = introduce(session.params, entropy)
        self.clients = {
            id_: (kinds or {}).get(id_, Client)(id_, session, self.identities.get(id_), self.pinned, entropy=source)
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
