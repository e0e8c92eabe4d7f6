"""One exchange: a message to every node, and the answers of those that give one in time.

Whoever comes too late has dropped out, with a masked vector as with any other answer. That is what both masks are for:
the survivors are settled before any share is asked for, so of a late vector's node the shares of its masking key are
revealed, which take off the masks that it has in common with others, and never those of its self seed. Nobody asks it
to unmask, no client gives shares of both (``secagg.client``), and what arrives after the close is read by nobody.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flwr.app import Message

from protocols.engines.flower.history import StageRecord
from protocols.engines.flower.records import payload_bytes
from protocols.engines.reasons import printable
from secagg.errors import ParameterError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flwr.app import RecordDict
    from flwr.serverapp import Grid


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long an exchange waits.

    Args:
        timeout: Seconds after which who has not answered has dropped out.
        quorum: Share of the nodes, in (0, 1], whose answers are enough to wait no longer than ``grace`` for the rest:
            of those that are accepted. Where the session cannot go on with so few, it goes on with the first answers
            that are enough for it.
        grace: Seconds for the rest. With a quorum below 1, leave it time for one answer: a node that was late in one
            round has no keys for the next, and where the others are a quorum, it is waited for no longer than this.
        poll: Seconds between two looks for answers.

    Raises:
        ParameterError: A setting outside its domain.
    """

    timeout: float = 600.0
    quorum: float = 1.0
    grace: float = 0.0
    poll: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.quorum <= 1:
            raise ParameterError("quorum must be in (0, 1]")
        if self.timeout <= 0 or self.grace < 0 or self.poll <= 0:
            raise ParameterError("timeout and poll must be positive, grace at least 0")


class Exchange:
    """What goes out and comes back in one stage.

    Args:
        stage: Its name.
        kind: The type of its messages, ``train`` or ``evaluate``.
        round_number: Of the round.
        contents: Node to what it is sent.
        patience: How long to wait.
        already: How many other nodes count for the quorum, whose answers are there without being asked for.
    """

    def __init__(
        self,
        stage: str,
        kind: str,
        round_number: int,
        contents: Mapping[int, RecordDict],
        patience: Patience,
        *,
        already: int = 0,
    ) -> None:
        self.stage = stage
        self.accepted: set[int] = set()
        self.messages = [
            Message(content, node, kind, ttl=patience.timeout, group_id=str(round_number))
            for node, content in contents.items()
        ]
        self._patience = patience
        self._enough = patience.quorum * (len(contents) + already) - already
        self._begin = self._end = time.monotonic()
        self._nodes = frozenset(contents)
        self._upload = 0
        self._heard: set[int] = set()
        self._failures: dict[int, str] = {}

    def pauses(self, grid: Grid, take: Callable[[int, RecordDict], None]) -> Iterator[None]:
        """Sends everything, hands over what nodes reply, and pauses where there may be enough to go on with.

        First ``grace`` after a quorum is accepted. Whoever cannot go on with that many waits on, for each further
        answer. It ends when nothing more is to come: all have replied, or the timeout is over.

        Args:
            grid: Moves messages.
            take: Called with each node and its reply, once, as soon as it is there; error replies and strangers are
                left out. It raises ``RemoteProtocolError`` for one that it refuses; the others are ``accepted``.
        """
        waiting = set(grid.push_messages(self.messages))
        last = self._begin + self._patience.timeout
        patient_until, enough, seen = last, self._enough, -1
        while True:
            pulled = list(grid.pull_messages(waiting))
            now = self._end = time.monotonic()
            for reply in pulled:
                waiting.discard(reply.metadata.reply_to_message_id)
                self._hear(reply, take)
            if not waiting or now >= last:
                return
            if len(self.accepted) >= enough:
                patient_until, enough = min(last, now + self._patience.grace), float("inf")
            if now >= patient_until and len(self.accepted) > seen:
                seen = len(self.accepted)
                yield
            time.sleep(min(self._patience.poll, (patient_until if now < patient_until else last) - now))

    def record(self) -> StageRecord:
        """What the exchange came to."""
        return StageRecord(
            stage=self.stage,
            asked=len(self._nodes),
            answered=len(self.accepted),
            failures=dict(sorted(self._failures.items())),
            download_bytes=sum(map(payload_bytes, self.messages)),
            upload_bytes=self._upload,
            seconds=self._end - self._begin,
        )

    def _hear(self, reply: Message, take: Callable[[int, RecordDict], None]) -> None:
        node = reply.metadata.src_node_id
        if node not in self._nodes or node in self._heard:
            return
        self._heard.add(node)
        self._upload += payload_bytes(reply)
        if reply.has_error():
            self._failures[node] = printable(str(reply.error.reason))
            return
        try:
            take(node, reply.content)
        except RemoteProtocolError as error:
            self._failures[node] = f"{type(error).__name__}: {error}"
        else:
            self.accepted.add(node)
