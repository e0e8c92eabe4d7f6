"""Nodes in this process: the same ClientApp and ServerApp objects without Ray and without a socket.

Every message and every node's state is written as bytes and read back, as on a network; nodes answer one after another,
while messages are pushed. For tests, notebooks and plain loops.
"""

from __future__ import annotations

import enum
import itertools
from typing import TYPE_CHECKING

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto, recorddict_from_proto, recorddict_to_proto
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from flwr.app import UserConfig
    from flwr.clientapp import ClientApp

SERVER_NODE = 0


class Fault(enum.Enum):
    """What goes wrong with a node, when it has received a message."""

    SILENT = "silent"
    """It never answers, and never knows of the message."""
    LOST = "lost"
    """It does what it is asked, and its answer is lost."""
    RAISES = "raises"
    """Its app raises."""
    FORGETS = "forgets"
    """It has been restarted, and its state is gone."""


class LocalGrid(Grid):  # type: ignore[misc]  # Flower's types are not read
    """A grid of nodes in this process.

    Args:
        app: What every node runs.
        nodes: How many there are. They are numbered from 1, and told ``partition-id`` and ``num-partitions``.
        run_id: Of the run.
        run_config: What apps find in their context.
        fault: Tells what goes wrong with a node that has received a message; None for nothing.
        observe: Called with every message, on its way to a node and back.
    """

    def __init__(
        self,
        app: ClientApp,
        nodes: int,
        *,
        run_id: int = 1,
        run_config: UserConfig | None = None,
        fault: Callable[[int, Message], Fault | None] = lambda *_: None,
        observe: Callable[[Message], None] = lambda _: None,
    ) -> None:
        self._app = app
        self._run_config = dict(run_config or {})
        self._fault, self._observe = fault, observe
        self._replies: dict[str, Message] = {}
        self._numbers = itertools.count(1)
        self.states: Mapping[int, bytes] = {
            node: recorddict_to_proto(RecordDict()).SerializeToString() for node in range(1, nodes + 1)
        }
        self.set_run(Run.create_empty(run_id))

    def set_run(self, run: Run) -> None:
        """Sets the run; messages that are made from now on belong to it."""
        self._run = run
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run.run_id, SERVER_NODE, 0

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes."""
        return list(self.states)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Has every message answered; the answers wait to be pulled."""
        pushed = []
        for message in messages:
            name = str(next(self._numbers))
            sent = _copied(message, run_id=self._run.run_id, message_id=name)
            self._observe(sent)
            answer = self._answer(sent)
            if answer is not None:
                reply = _copied(answer, message_id=f"reply to {name}")
                self._observe(reply)
                self._replies[name] = reply
            pushed.append(name)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers to these messages, as far as there are any; each once."""
        return [self._replies.pop(name) for name in list(message_ids) if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:  # noqa: ARG002 - whoever has not answered by now never will
        """Pushes messages and pulls the answers."""
        return self.pull_messages(self.push_messages(messages))

    def state(self, node: int) -> RecordDict:
        """What a node keeps between two messages."""
        from flwr.proto.recorddict_pb2 import RecordDict as Proto

        return recorddict_from_proto(Proto.FromString(self.states[node]))

    def _answer(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        fault = self._fault(node, message)
        if fault is Fault.SILENT:
            return None
        context = Context(
            run_id=self._run.run_id,
            node_id=node,
            node_config={"partition-id": node - 1, "num-partitions": len(self.states)},
            state=RecordDict() if fault is Fault.FORGETS else self.state(node),
            run_config=dict(self._run_config),
        )
        try:
            if fault is Fault.RAISES:
                raise RuntimeError("injected")  # noqa: TRY301 - stands for an app that does
            answer = self._app(message, context)
        except Exception as error:  # noqa: BLE001 - as Flower does
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error)), reply_to=message)
        self.states = {**self.states, node: recorddict_to_proto(context.state).SerializeToString()}
        return None if fault is Fault.LOST else answer


def _copied(message: Message, **metadata: object) -> Message:
    """A message as it arrives: read back from bytes, with what the network writes on it."""
    copied = message_from_proto(message_to_proto(message))
    for name, value in metadata.items():
        copied.metadata.__dict__[f"_{name}"] = value
    return copied
