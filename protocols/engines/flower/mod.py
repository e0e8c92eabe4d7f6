"""The client's side: a mod around a ClientApp that was written without a thought of encryption.

The app trains as ever. What it returns stays on the node: the arrays leave masked, as the difference to those that were
received; so do the weight, and metrics that the server asked for; and the rest not at all. What is summed is hidden in
one sum. A weight that is the same in every round is not hidden over rounds: their totals differ by the weights of those
who came or left in between.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from logging import ERROR
from typing import TYPE_CHECKING, Any

from flwr.app import Error, Message, MessageType
from flwr.common.constant import ErrorCode
from flwr.supercore import log

from protocols.engines.flower.agreement import Agreement
from protocols.engines.flower.memory import Memory
from protocols.engines.flower.records import ABANDON, STAGE, category_of, number_of, said, wire, write
from protocols.engines.flower.starts import Starts, start_of
from protocols.engines.flower.training import AppError, train
from secagg import Client
from secagg.errors import AgreementError, ParameterError, SecAggError, UnexpectedMessageError
from secagg.rounds import Round

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from flwr.app import Context, RecordDict
    from flwr.clientapp.typing import ClientAppCallable

    from secagg import Identity, Params
    from secagg.params import Mode

KINDS = (MessageType.TRAIN, MessageType.EVALUATE)
"""Types of messages whose replies go into sums, or nowhere."""


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
    """A mod that takes part in secure aggregation, and trains or evaluates in no other way.

    Give a node ``params``, and with them all that it agrees to; with an active server it must have them, and ``keys``.
    Without, it takes what the server proposes, which is for a server that follows the protocol: a node refuses a metric
    beyond its limit, so whoever chooses limits can find out a metric of one node before anything is summed.

    Args:
        params: The only settings that this node agrees to, but for the ranges of metrics; None takes what the server
            proposes, and the next four as well.
        mode: The mode of training.
        weighted_by: The metric that is a client's weight; None where all weigh the same, as with ``Params.privacy``.
        metrics: The metrics of training that are averaged, each with its largest magnitude.
        evaluation_metrics: Likewise of evaluation.
        keys: Tells a node's ``Keys`` from its context; None for a semi-honest server.
        once: Whether to mask one vector for each model that is received (``starts``).
        remember: Tells from the context of a node the folder in which it keeps the digests of these models from run to
            run; None to keep them in its state alone, which may not outlive a run or a restart.
        clear_evaluation: Whether evaluation without secure aggregation passes: every metric and the number of examples
            go to the server then.
        entropy: Source of random bytes.

    Raises:
        ParameterError: ``keys`` without params for an active server, or the other way round; metrics without params;
            ``remember`` without ``once``.
    """

    def __init__(
        self,
        *,
        params: Params | None = None,
        mode: Mode = "uniform",
        weighted_by: str | None = "num-examples",
        metrics: Mapping[str, float] | None = None,
        evaluation_metrics: Mapping[str, float] | None = None,
        keys: Callable[[Context], Keys] | None = None,
        once: bool = True,
        remember: Callable[[Context], Path] | None = None,
        clear_evaluation: bool = False,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if (keys is None) != (params is None or not params.active):
            raise ParameterError("keys and params with adversary='active' belong together: set both, or neither")
        if params is None and (metrics or evaluation_metrics):
            raise ParameterError("a node without params agrees to any metrics: set params, or leave out metrics")
        if remember is not None and not once:
            raise ParameterError("there is nothing to remember with once=False")
        self._params = params
        self._mode = mode
        self._weighted_by = weighted_by
        self._metrics = {MessageType.TRAIN: dict(metrics or {}), MessageType.EVALUATE: dict(evaluation_metrics or {})}
        self._keys = keys
        self._once = once
        self._remember = remember
        self._clear_evaluation = clear_evaluation
        self._entropy = entropy

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Answers one message of a session; messages that ask for something else than training or evaluation pass.

        An answer never tells more of a failure than this package's own errors do, which hold no value, or its type.
        """
        kind = category_of(message.metadata.message_type)
        if kind not in KINDS:
            return call_next(message, context)
        if STAGE not in message.content.config_records:
            if kind == MessageType.EVALUATE and self._clear_evaluation:
                return call_next(message, context)
            return _failed(message, f"this node answers {kind} under secure aggregation only: wrap the strategy")
        try:
            return Message(self._answer(message, Memory(context, kind), context, call_next), reply_to=message)
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
        starts = Starts(context.state, self._remember and self._remember(context))
        if stage == ABANDON:
            return self._abandon(agreement, records, memory, starts)
        client = self._restore(agreement, memory, context)
        match stage:
            case Round.SHARE_KEYS.value:
                start = self._start(memory, records, starts)
                roster, trained = wire(records), train(message, context, call_next, agreement)
                answer = client.share_keys(roster, trained.mask, trained.weight)
                memory.put(agreement, client.save(), start, trained.update)
            case Round.MASKED_INPUT.value:
                answer = client.masked_input(wire(records), memory.update)
                if self._once:
                    starts.add(memory.start)
                memory.put(agreement, client.save(), memory.start)
            case Round.CONSISTENCY_CHECK.value:
                answer = client.check_consistency(wire(records))
                memory.put(agreement, client.save(), memory.start)
            case Round.UNMASK.value:
                return self._unmask(client, records, memory, context)
            case _:
                raise UnexpectedMessageError("no such stage")
        return write(stage, session, {"message": answer})

    def _start(self, memory: Memory, records: RecordDict, starts: Starts) -> bytes:
        """What the app starts from, checked before it trains.

        Raises:
            UnexpectedMessageError: It has trained for this session.
            DifferencingError: A vector was masked for this model.
        """
        if memory.start:
            raise UnexpectedMessageError("this node has trained for that session")
        start = start_of(memory.message_type, records)
        if self._once:
            starts.check(start)
        return start

    def _abandon(self, agreement: Agreement, records: RecordDict, memory: Memory, starts: Starts) -> RecordDict:
        """Forgets a session. Whether a sum may have come out of it, the word of a semi-honest server decides alone."""
        if memory.sent and not agreement.params.active and not said(records, "used_up", bool):
            starts.discard(memory.sent)
        memory.wipe()
        return write(ABANDON, agreement.session)

    def _unmask(self, client: Client, records: RecordDict, memory: Memory, context: Context) -> RecordDict:
        """The last answer, after which nothing is kept but the keys for the next session, if there is one."""
        following = said(records, "next") if "next" in records[STAGE] else None
        answer = {"message": client.unmask(wire(records))}
        memory.wipe()
        if following is not None:
            with suppress(SecAggError):  # it is proposed again, and refused then: this answer is no part of it
                agreement = Agreement.decode(following)
                answer["keys"] = self._advertise(agreement, agreement.session, memory, context)
        return write(Round.UNMASK.value, client.session.id, answer)

    def _advertise(self, agreement: Agreement, session: bytes, memory: Memory, context: Context) -> bytes:
        if (agreement.run, agreement.session) != (str(context.run_id), session):
            raise AgreementError("the server proposes a session of another run")
        self._check(agreement, memory.message_type)
        number, identity, pinned = self._named(context)
        client = Client(number, agreement.as_session(), identity, pinned, entropy=self._entropy)
        answer = client.advertise_keys()
        memory.put(agreement, client.save())
        return answer

    def _restore(self, agreement: Agreement, memory: Memory, context: Context) -> Client:
        _, identity, pinned = self._named(context)
        return Client.restore(agreement.as_session(), memory.saved, identity, pinned, entropy=self._entropy)

    def _check(self, agreement: Agreement, message_type: str) -> None:
        """Refuses what this node was not given.

        Raises:
            AgreementError: A setting is not.
        """
        if self._params is None:
            if agreement.params.active:
                raise AgreementError("a node takes no settings from an active server: SecureAggregationMod(params=...)")
            return
        evaluates = message_type == MessageType.EVALUATE
        for name, theirs, ours in (
            ("params", agreement.params, self._params),
            ("mode", agreement.mode, "uniform" if evaluates else self._mode),
            ("weighted_by", agreement.weighted_by or None, self._weighted_by),
            ("evaluation_metrics" if evaluates else "metrics", dict(agreement.metrics), self._metrics[message_type]),
            ("tensors", bool(agreement.tensors), not evaluates),
        ):
            if theirs != ours:
                raise AgreementError(f"the server proposes other {name} than this node's SecureAggregationMod has")
        if self._params.active and not agreement.request:
            raise AgreementError("an active server has to say what it asks of everybody, by Agreement.request")

    def _named(self, context: Context) -> tuple[int, Identity | None, Mapping[int, bytes] | None]:
        """This node's number, its identity, and everybody's."""
        if self._keys is None:
            return number_of(context.node_id), None, None
        keys = self._keys(context)
        return keys.number, keys.identity, keys.pinned


def _failed(message: Message, reason: str) -> Any:
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)


secure_aggregation_mod = SecureAggregationMod()
"""The mod for a server that follows the protocol."""
