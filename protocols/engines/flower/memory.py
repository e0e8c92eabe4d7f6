"""What a node keeps between two messages: in ``context.state``, which never leaves it, bound to run, round and session.

There is one session at a time for each type of message, and each answer puts the state after it in the place of the
state before. A node that has lost its state has dropped out. What it has masked vectors for (``starts``) is kept for
longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flwr.app import Array, ArrayRecord, ConfigRecord

from protocols.engines.flower.agreement import Agreement
from secagg.errors import AgreementError, UnexpectedMessageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flwr.app import Context
    from numpy.typing import NDArray

NAME = "secagg"


class Memory:
    """The part of a node's state that belongs to sessions of one type of message.

    Args:
        context: Of the node.
        message_type: ``train`` or ``evaluate``.
    """

    def __init__(self, context: Context, message_type: str) -> None:
        self.message_type = message_type
        self._run = str(context.run_id)
        self._state = context.state
        self._session = f"{NAME}.{message_type}"
        self._update = f"{NAME}.{message_type}.update"

    def put(
        self,
        agreement: Agreement,
        saved: bytes,
        start: bytes = b"",
        update: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Keeps a session in place of what was kept.

        Args:
            agreement: What it is.
            saved: This node's client in it.
            start: Of the training, once there was one.
            update: What the client has yet to mask.
        """
        self.wipe()
        self._state[self._session] = ConfigRecord({"agreement": agreement.encode(), "client": saved, "start": start})
        if update is not None:
            self._state[self._update] = ArrayRecord({name: Array(values) for name, values in update.items()})

    def agreement(self, session: bytes) -> Agreement:
        """What the session is that a message names.

        Raises:
            UnexpectedMessageError: Nothing is kept of it.
            AgreementError: It belongs to another run.
        """
        record = self._state.get(self._session)
        kept = None if record is None else Agreement.decode(record["agreement"])
        if kept is None or kept.session != session:
            raise UnexpectedMessageError("this node keeps nothing of that session: it was restarted, or has left it")
        if kept.run != self._run:
            raise AgreementError("what this node keeps belongs to another run")
        return kept

    @property
    def saved(self) -> bytes:
        """The client."""
        saved: bytes = self._state[self._session]["client"]
        return saved

    @property
    def start(self) -> bytes:
        """What the training of this session started from (``starts``); empty before it."""
        start: bytes = self._state[self._session]["start"]
        return start

    @property
    def sent(self) -> bytes:
        """``start``, if a vector was masked for it in this session; empty before."""
        return b"" if self._update in self._state else self.start

    @property
    def update(self) -> dict[str, NDArray[Any]]:
        """What the client has yet to mask."""
        return {name: array.numpy() for name, array in self._state.get(self._update, {}).items()}

    def wipe(self) -> None:
        """Forgets the session."""
        for name in (self._session, self._update):
            self._state.pop(name, None)
