"""The client's side: a mod around a ClientApp that was written without a thought of encryption.

The app trains as ever. What it returns stays on the node: the arrays leave masked, as the difference to those that were
received, the weight hidden in the sums, metrics that the server asked for as sums, and the rest not at all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from logging import ERROR
from typing import TYPE_CHECKING, Any

from flwr.app import Error, Message, MessageType
from flwr.common.constant import ErrorCode
from flwr.supercore import log

from protocols.engines.flower.agreement import Agreement
from protocols.engines.flower.memory import Memory
from protocols.engines.flower.records import ABANDON, STAGE, said, wire, write
from protocols.engines.flower.training import AppError, train
from secagg import Client
from secagg.errors import AgreementError, ParameterError, SecAggError, UnexpectedMessageError
from secagg.messages import LARGEST_ID
from secagg.rounds import Round

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flwr.app import Context, RecordDict
    from flwr.clientapp.typing import ClientAppCallable

    from secagg import Identity, Params


@dataclass(frozen=True)
class Keys:
    """What a node needs against an active server, none of it from the server.

    Args:
        identity: This node's signing key.
        pinned: The public identity of every client by its number; this node's own number is the one of its identity.
    """

    identity: Identity = field(repr=False)
    pinned: Mapping[int, bytes]

    @property
    def number(self) -> int:
        """This node's number.

        Raises:
            ParameterError: Its identity is not pinned.
        """
        for number, public in self.pinned.items():
            if public == self.identity.public:
                return number
        raise ParameterError("the identity of this node is not among those that are pinned")


class SecureAggregationMod:
    """A mod that takes part in secure aggregation, and trains in no other way.

    Args:
        params: The only settings that this node agrees to, but for the ranges of metrics; None takes what the server
            proposes, which is for a server that follows the protocol. A proposal for an active server needs them.
        keys: Tells a node's ``Keys`` from its context; None for a semi-honest server.
        bound_model: Whether to train in no session that is not bound to its model (``bind_model`` of the strategy).
        entropy: Source of random bytes.
    """

    def __init__(
        self,
        *,
        params: Params | None = None,
        keys: Callable[[Context], Keys] | None = None,
        bound_model: bool = False,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._params = params
        self._keys = keys
        self._bound_model = bound_model
        self._entropy = entropy

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Answers one message of a session; other messages than training pass.

        An answer never tells more of a failure than this package's own errors do, which hold no value, or its type.
        """
        category = message.metadata.message_type.split(".")[0]
        if STAGE not in message.content.config_records:
            if category != MessageType.TRAIN:
                return call_next(message, context)
            return _failed(message, "this node trains under secure aggregation only: wrap the strategy")
        try:
            return Message(self._answer(message, Memory(context, category), context, call_next), reply_to=message)
        except AppError as error:
            return error.reply
        except SecAggError as error:
            return _failed(message, f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - what an app raises may quote its data, so the server gets the type
            log(ERROR, "secure_aggregation_mod: the ClientApp raised", exc_info=error)
            return _failed(message, f"{type(error).__name__} in the ClientApp: its log says more")

    def _answer(self, message: Message, memory: Memory, context: Context, call_next: ClientAppCallable) -> RecordDict:
        records = message.content
        stage, session = said(records, "stage", str), said(records, "session")
        if stage == Round.ADVERTISE_KEYS.value:
            agreement = Agreement.decode(said(records, "agreement"))
            return write(stage, session, {"message": self._advertise(agreement, session, memory, context)})
        agreement = memory.agreement(session)
        if stage == ABANDON:
            memory.wipe()
            return write(stage, session)
        client = self._restore(agreement, memory, context)
        match stage:
            case Round.SHARE_KEYS.value:
                roster, trained = wire(records), train(message, context, call_next, agreement)
                answer = client.share_keys(roster, trained.mask, trained.weight)
                memory.put(agreement, client.save(), trained.update)
            case Round.MASKED_INPUT.value:
                answer = client.masked_input(wire(records), memory.update)
                memory.put(agreement, client.save())
            case Round.CONSISTENCY_CHECK.value:
                answer = client.check_consistency(wire(records))
                memory.put(agreement, client.save())
            case Round.UNMASK.value:
                return self._unmask(client, records, memory, context)
            case _:
                raise UnexpectedMessageError("no such stage")
        return write(stage, session, {"message": answer})

    def _unmask(self, client: Client, records: RecordDict, memory: Memory, context: Context) -> RecordDict:
        """The last answer, after which nothing is kept but the keys for the next session, if there is one."""
        session = client.session.id
        following = said(records, "next", bytes) if "next" in records[STAGE] else b""
        agreement = Agreement.decode(following) if following else None
        answer = {"message": client.unmask(wire(records))}
        memory.wipe()
        if agreement is not None:
            answer["keys"] = self._advertise(agreement, agreement.session, memory, context)
        return write(Round.UNMASK.value, session, answer)

    def _advertise(self, agreement: Agreement, session: bytes, memory: Memory, context: Context) -> bytes:
        if (agreement.run, agreement.session) != (str(context.run_id), session):
            raise AgreementError("the server proposes a session of another run")
        self._check(agreement)
        keys, made = self._keys_of(agreement, context), agreement.as_session()
        if keys is None:
            client = Client(context.node_id & LARGEST_ID, made, entropy=self._entropy)
        else:
            client = Client(keys.number, made, keys.identity, keys.pinned, entropy=self._entropy)
        answer = client.advertise_keys()
        memory.put(agreement, client.save())
        return answer

    def _restore(self, agreement: Agreement, memory: Memory, context: Context) -> Client:
        keys, made = self._keys_of(agreement, context), agreement.as_session()
        if keys is None:
            return Client.restore(made, memory.saved, entropy=self._entropy)
        return Client.restore(made, memory.saved, keys.identity, keys.pinned, entropy=self._entropy)

    def _check(self, agreement: Agreement) -> None:
        """Refuses settings that this node was not given.

        Raises:
            AgreementError: They are not.
        """
        if self._bound_model and agreement.tensors and not agreement.model_root:
            raise AgreementError("this node trains in sessions with a model root only: set bind_model")
        if self._params is None:
            if agreement.params.active:
                raise AgreementError("a node takes no settings from an active server: SecureAggregationMod(params=...)")
            return
        if agreement.params != self._params:
            raise AgreementError("the server proposes other settings than the params of this node's mod")

    def _keys_of(self, agreement: Agreement, context: Context) -> Keys | None:
        if not agreement.params.active:
            return None
        if self._keys is None:
            raise ParameterError("with an active server a node needs keys: SecureAggregationMod(keys=...)")
        return self._keys(context)


def _failed(message: Message, reason: str) -> Any:
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)


secure_aggregation_mod = SecureAggregationMod()
"""The mod for a server that follows the protocol."""
