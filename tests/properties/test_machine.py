"""A session in any order: duplicates, late, early, foreign and broken messages, dropouts and restarts, on both roles.

Whatever is refused leaves its receiver as it was, and a session that comes to its end has summed exactly its survivors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from secagg import messages
from secagg.client import Client
from secagg.errors import DecodingError, LocalProtocolError, SecAggError, UnexpectedMessageError
from secagg.prg import SeededEntropy
from secagg.rounds import ROUNDS, Round
from secagg.server import Server
from tests.adversarial.play import HELD, VALUES, Play, expected_of_five, five_clients
from tests.adversarial.test_refusals import MALFORMED

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from secagg.params import Adversary, Mode

clients = st.sampled_from(sorted(HELD))
STEPS: dict[str, Callable[[Play, int], bytes]] = {
    "AdvertiseKeys": lambda game, id_: game.clients[id_].advertise_keys(),
    "ShareKeys": lambda game, id_: game.clients[id_].share_keys(game.inbox.get(id_, b"")),
    "MaskedInput": lambda game, id_: game.clients[id_].masked_input(game.inbox.get(id_, b""), {"w": VALUES}),
    "ConsistencyCheck": lambda game, id_: game.clients[id_].check_consistency(game.inbox.get(id_, b"")),
    "Unmask": lambda game, id_: game.clients[id_].unmask(game.inbox.get(id_, b"")),
}


class Session(RuleBasedStateMachine):
    """Five clients, one of whom may be lost after ShareKeys, and a server that restarts at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.game: Play
        self.other: Play
        self.gone: set[int] = set()

    @initialize(mode=st.sampled_from(["uniform", "mask-indexed"]), adversary=st.sampled_from(sorted(ROUNDS)))
    def begin(self, mode: Mode, adversary: Adversary) -> None:
        self.mode = mode
        self.game = five_clients(mode, adversary=adversary)
        self.other = five_clients(mode, adversary=adversary)
        for number, client in self.other.clients.items():
            client._entropy = SeededEntropy(bytes([number]))

    @property
    def round(self) -> Round:
        return self.game.server.round

    def running(self) -> bool:
        return self.round is not Round.DONE

    def refused_by_server(self, data: bytes) -> None:
        before = self.game.server.save() if self.running() else None
        try:
            self.game.server.receive(data)
        except SecAggError:
            assert before is None or self.game.server.save() == before
        else:
            raise AssertionError("the server took a message that it should have refused")

    @precondition(running)
    @rule(id_=clients)
    def answers(self, id_: int) -> None:
        if id_ not in self.gone and id_ in self.game.server.awaited:
            self.game.deliver([id_])

    @precondition(running)
    @rule()
    def everybody_answers_and_the_round_closes(self) -> None:
        self.game.deliver(id_ for id_ in self.game.server.awaited if id_ not in self.gone)
        self.closes()

    @precondition(lambda self: len(self.gone) < 2)
    @rule(id_=clients)
    def drops_out(self, id_: int) -> None:
        self.gone.add(id_)

    @precondition(running)
    @rule()
    def closes(self) -> None:
        before = self.game.server.save()
        try:
            self.game.close()
        except SecAggError:
            assert self.game.server.save() == before

    @precondition(running)
    @rule()
    def restarts(self) -> None:
        """At any time: also between closing a round and sending what came of it."""
        self.game.server = Server.restore(
            self.game.server.session, self.game.server.save(), self.game.clients, self.game.pinned
        )
        if self.round is not Round.ADVERTISE_KEYS:
            assert self.game.server.outgoing == self.game.inbox
            self.game.inbox = self.game.server.outgoing

    @precondition(running)
    @rule()
    def closes_and_restarts(self) -> None:
        self.closes()
        if self.running():
            self.restarts()

    @precondition(running)
    @rule(id_=clients)
    def restarts_from_before_a_round_that_was_closed(self, id_: int) -> None:
        """Once a client answers in the next round, the server knows, and closes nothing. It is thrown away then."""
        outdated, was = self.game.server.save(), self.round
        self.closes()
        if self.round in (was, Round.DONE) or id_ not in self.game.server.awaited or id_ in self.gone:
            return
        self.game.deliver([id_])
        server = Server.restore(self.game.server.session, outdated, self.game.clients, self.game.pinned)
        with pytest.raises(UnexpectedMessageError):
            server.receive(self.game.sent[self.round][id_])
        with pytest.raises(LocalProtocolError):
            server.close_round()

    @rule(id_=clients, past=st.sampled_from(Round))
    def sends_again(self, id_: int, past: Round) -> None:
        sent = self.game.sent[past].get(id_)
        if sent is not None and not (past is self.round and id_ in self.game.server.awaited):
            self.refused_by_server(sent)

    @rule(id_=clients, how=st.sampled_from(sorted(MALFORMED)))
    def sends_rubbish(self, id_: int, how: str) -> None:
        sent = next((sent[id_] for sent in self.game.sent.values() if id_ in sent), None)
        if sent is not None:
            self.refused_by_server(MALFORMED[how](sent))

    @precondition(lambda self: self.round is Round.ADVERTISE_KEYS)
    @rule(id_=clients)
    def sends_what_belongs_to_another_session(self, id_: int) -> None:
        if id_ not in self.other.sent[Round.ADVERTISE_KEYS]:
            sent = messages.decode(self.other.answer(id_))
            assert isinstance(sent, messages.AdvertiseKeys)
            foreign = messages.AdvertiseKeys(b"?" * 16, id_, sent.masking_key, sent.transport_key)
            self.refused_by_server(messages.encode(foreign))

    @rule(id_=clients, step=st.sampled_from(sorted(STEPS)))
    def is_called_out_of_turn(self, id_: int, step: str) -> None:
        """A client that has answered in this round is asked for anything, one that has not for another step, and there
        is nothing to read but the last message that it got."""
        client = self.game.clients[id_]
        answered = id_ in self.game.sent[self.round]
        if not answered and step in (self.round.value, "AdvertiseKeys"):
            return
        before = client._state
        try:
            STEPS[step](self.game, id_)
        except (LocalProtocolError, DecodingError, UnexpectedMessageError):
            assert client._state is before
        else:
            raise AssertionError(f"client {id_} answered {step} out of turn")

    @invariant()
    def who_is_awaited_has_not_answered(self) -> None:
        assert not set(self.game.server.awaited) & set(self.game.server.answered)

    def teardown(self) -> None:
        if not hasattr(self, "game"):
            return
        event(f"ended in {self.round.value}")
        if not self.running():
            outcome = self.game.server.outcome
            sums = expected_of_five(outcome.survivors, self.mode)
            released = outcome.plan.released  # of a small cohort with masks, not everything
            assert outcome.integers.tolist() == [total for total, out in zip(sums, released, strict=True) if out]


TestSession = Session.TestCase


@pytest.mark.parametrize(
    ("owner", "check", "instead", "caught"),
    [
        (Server, "_admit", lambda *_: None, pytest.raises(AssertionError, match="that it should have refused")),
        (Client, "_in", lambda client, _: client._state, pytest.raises(AttributeError, match="has no attribute")),
    ],
    ids=["admission", "turns"],
)
def test_the_machine_catches_a_build_that_lacks(
    owner: type, check: str, instead: Any, caught: AbstractContextManager[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, check, instead)
    same = settings(phases=[Phase.generate], derandomize=True, max_examples=15, report_multiple_bugs=False)
    with caught:
        run_state_machine_as_test(Session, settings=same)
