"""The server's side of one round: a session whose stages are exchanges with nodes.

Nodes are known to Flower by an id of its own, clients to each other by the number that they advertise keys under: the
low 63 bits of that id, or with an active server the one that its identity is pinned for. A node speaks for no other.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from flwr.app import Message, RecordDict

from protocols.engines.flower.exchange import Exchange
from protocols.engines.flower.records import ABANDON, STAGE, number_of, wire, write
from secagg import Round, Server
from secagg.errors import (
    AbortError,
    CoverageError,
    DecodingError,
    ParameterError,
    RemoteProtocolError,
    TooFewClientsError,
)
from secagg.topology import topology

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flwr.serverapp import Grid

    from protocols.engines.flower.agreement import Agreement
    from protocols.engines.flower.exchange import Patience
    from protocols.engines.flower.history import StageRecord
    from secagg import Aggregate
    from secagg.privacy.events import Event

CURED_BY_MORE = (TooFewClientsError, CoverageError, ParameterError)
"""Why a round may not be closed yet: more answers may do."""

BREAKS_OFF = (AbortError, RemoteProtocolError, ParameterError)
"""What ends a round without a mean: settings may not fit those who are left."""


class SecureRound:
    """One session with nodes.

    Args:
        agreement: What it is.
        grid: Moves messages.
        kind: Type of the messages, ``train`` or ``evaluate``.
        patience: How long exchanges wait.
        pinned: With an active server, the public identity of every client.
    """

    def __init__(
        self,
        agreement: Agreement,
        grid: Grid,
        kind: str,
        patience: Patience,
        pinned: Mapping[int, bytes] | None = None,
    ) -> None:
        self.agreement = agreement
        self.stages: list[StageRecord] = []
        self._grid, self._kind, self._patience = grid, kind, patience
        self._server = Server(agreement.as_session(), None, pinned)
        self._pinned = pinned
        self._interrupted = False
        self._number: dict[int, int] = {}
        self._answered: frozenset[int] = frozenset()
        self._keys: dict[int, bytes] = {}
        self._outgoing: dict[int, RecordDict] = {}

    def run(
        self, requests: Mapping[int, RecordDict], advertised: Mapping[int, bytes], following: Agreement | None
    ) -> tuple[Aggregate, dict[int, bytes]]:
        """Plays the session. In the end everybody who has not answered its last message is told to forget it.

        Args:
            requests: Node to what the strategy asks of it.
            advertised: Keys for this session that came with the round before, by node; who has none is asked.
            following: The session of the next round, for which survivors advertise keys already.

        Returns:
            The aggregate, and those keys by node.

        Raises:
            AbortError: Too few clients, the release rule lets nothing out, or the sums contradict their checksum.
            RemoteProtocolError: What they shared or revealed contradicts itself.
            ParameterError: Settings that do not fit the cohort.
        """
        try:
            self._exchange_keys(requests, advertised)
            self._play({node: _joined(requests[node], records) for node, records in self._outgoing.items()})
            while self._server.round is not Round.UNMASK:
                self._play(self._outgoing)
            if following is not None:
                for records in self._outgoing.values():
                    records[STAGE]["next"] = following.encode()
            self._play(self._outgoing)
        except BaseException as error:
            self._interrupted = not isinstance(error, BREAKS_OFF)
            abandon(self._grid, self._kind, self.agreement, requests, used_up=self.used_up)
            raise
        abandon(self._grid, self._kind, self.agreement, set(requests).difference(self._answered), used_up=True)
        return self._server.outcome, self._keys

    @property
    def used_up(self) -> bool:
        """Whether nodes that masked a vector send none for the same model again, if the round breaks off here.

        They may while the sum cannot come out: before anybody is asked for shares, and while too few have answered to
        open a secret. Answers may still come late; but who gave one sends nothing more for this model, so no later sum
        has any of those who answered, and a difference to it has all of them: enough, if they are ``privacy_floor``.
        Of a coordinate in a mask-indexed session they may hold less. With an active server a node takes no such word.
        Where anything but the session itself ended the round, nobody has counted what lies at the SuperLink.
        """
        if not self._server.round.follows(Round.SHARE_KEYS):
            return False
        session = self._server.session
        if session.params.active or self._server.round is Round.DONE:
            return True
        if self._server.round is not Round.UNMASK:
            return False
        if session.mode == "mask-indexed" or self._interrupted:
            return True
        threshold = topology(session.params, session.mode, len(self._number)).threshold
        fewest = threshold - session.params.corrupt
        return len(self._server.answered) >= fewest or fewest < session.params.privacy_floor

    @property
    def event(self) -> Event | None:
        """What the round costs, if it breaks off when shares were asked for; None before, and without privacy."""
        return self._server.outcome.event if self._server.round is Round.DONE else self._server.event

    def _exchange_keys(self, requests: Mapping[int, RecordDict], advertised: Mapping[int, bytes]) -> None:
        for node in set(requests).intersection(advertised):
            with suppress(RemoteProtocolError):  # it is asked again then
                self._receive(node, advertised[node])
        missing = {node: self._proposal() for node in requests if node not in self._number}
        if missing:
            self._play(missing, already=len(self._number))
        else:
            self._close()

    def _proposal(self) -> RecordDict:
        agreement = self.agreement
        return write(Round.ADVERTISE_KEYS.value, agreement.session, agreement=agreement.encode())

    def _play(self, contents: Mapping[int, RecordDict], *, already: int = 0) -> None:
        """One stage: sends something to everybody, and closes the round with those who have answered.

        Answers are handed over as they come, and not kept: a vector is as long as the model.
        """
        stage, self._keys = self._server.round.value, {}  # those that came with the last stage count
        exchange = Exchange(stage, self._kind, self.agreement.round, contents, self._patience, already=already)
        try:
            for _ in exchange.pauses(self._grid, self._take):
                with suppress(*CURED_BY_MORE):
                    self._close()
                    break
            else:
                self._close()
        finally:
            self.stages.append(exchange.record())
            self._answered = frozenset(exchange.accepted)

    def _take(self, node: int, records: RecordDict) -> None:
        self._receive(node, wire(records))
        with suppress(DecodingError):  # who sends none for the next round is asked then
            self._keys[node] = wire(records, "keys")

    def _receive(self, node: int, data: bytes) -> None:
        own = number_of(node) if self._pinned is None else self._number.get(node)
        self._number[node] = self._server.receive(data, own)

    def _close(self) -> None:
        outgoing = self._server.close_round()
        node_of = {number: node for node, number in self._number.items()}
        stage = self._server.round.value
        self._outgoing = {
            node_of[number]: write(stage, self.agreement.session, {"message": data})
            for number, data in outgoing.items()
        }


def abandon(grid: Grid, kind: str, agreement: Agreement, nodes: Iterable[int], *, used_up: bool) -> None:
    """Tells nodes to forget a session, and waits for no answer.

    Args:
        grid: Moves messages.
        kind: Type of the messages.
        agreement: What the session is.
        nodes: Who is told.
        used_up: Whether they are to send nothing more for its model, if they have masked a vector for it.
    """
    group = str(agreement.round)
    farewell = [
        Message(write(ABANDON, agreement.session, used_up=used_up), node, kind, group_id=group)
        for node in sorted(nodes)
    ]
    if farewell:
        grid.push_messages(farewell)


def _joined(asked: RecordDict, ours: RecordDict) -> RecordDict:
    """What the app is asked, with our records, in a dict of their own: strategies hand one dict to all nodes."""
    return RecordDict({**asked, **ours})
