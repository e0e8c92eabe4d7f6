"""A server that is saved and restored after every message ends in the same sum."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from secagg import messages, snapshot
from secagg.driver import Contribution
from secagg.errors import (
    AgreementError,
    DecodingError,
    DuplicateMessageError,
    LocalProtocolError,
    UnexpectedMessageError,
)
from secagg.layout import Layout, Tensor
from secagg.params import Params
from secagg.rounds import ROUNDS, Round
from secagg.server import Server
from secagg.session import Session
from secagg.snapshot import Snapshot
from tests.adversarial.play import Play, expected_of_five, five_clients
from tests.adversarial.tamper import changed

if TYPE_CHECKING:
    from secagg.params import Adversary, Mode


def restored(game: Play, saved: bytes) -> Server:
    return Server.restore(game.server.session, saved, game.clients, game.pinned)


def restart(game: Play) -> None:
    """Puts a restored server in the place of the one at hand."""
    game.server = restored(game, game.server.save())


@pytest.mark.parametrize("adversary", ROUNDS)
@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
def test_a_server_that_restarts_after_every_message_ends_in_the_same_sum(mode: Mode, adversary: Adversary) -> None:
    game = five_clients(mode, adversary=adversary)
    while game.server.round is not Round.DONE:
        for id_ in game.server.awaited:
            if not (game.server.round is Round.MASKED_INPUT and id_ == 9):  # who drops out
                game.deliver([id_])
                before = (game.server.round, game.server.answered, game.server.awaited)
                restart(game)
                assert (game.server.round, game.server.answered, game.server.awaited) == before
        game.close()
    assert game.server.outcome.integers.tolist() == expected_of_five([1, 2, 4, 8], mode)
    assert game.server.outcome.survivors == (1, 2, 4, 8)


def test_what_was_received_before_a_restart_is_not_received_again() -> None:
    game = five_clients().until(Round.MASKED_INPUT)
    game.deliver([1])
    restart(game)
    with pytest.raises(DuplicateMessageError):
        game.server.receive(game.sent[Round.MASKED_INPUT][1])
    assert game.finish().integers.tolist() == expected_of_five()


def test_closing_a_round_again_after_a_restart_sends_the_same_bytes() -> None:
    game = five_clients(adversary="active").until(Round.SHARE_KEYS)
    game.deliver()
    saved = game.server.save()
    assert restored(game, saved).close_round() == game.server.close_round()


@pytest.mark.parametrize("adversary", ROUNDS)
def test_a_server_that_was_saved_after_closing_sends_the_same_bytes_again(adversary: Adversary) -> None:
    game = five_clients(adversary=adversary)
    assert game.server.outgoing == {}
    while game.server.round is not Round.UNMASK:
        game.deliver([id_ for id_ in game.server.awaited if id_ != 9 or game.server.round is Round.ADVERTISE_KEYS])
        game.close()
        restart(game)
        assert list(game.server.outgoing.items()) == list(game.inbox.items())
    game.inbox = game.server.outgoing
    assert game.finish().integers.tolist() == expected_of_five([1, 2, 4, 8])
    assert game.server.outgoing == {}


def six_clients() -> Play:
    """Three shares open a secret, so that two halves could be told of different survivors."""
    params = Params(min_cohort=2, max_dropouts=3)
    session = Session(id=bytes(16), params=params, layout=Layout((Tensor("w", (1,)),)), mode="uniform")
    game = Play(session, {id_: Contribution({"w": np.ones(1)}) for id_ in range(6)}).until(Round.MASKED_INPUT)
    assert game.server._topology.threshold == 3
    return game


def test_a_vector_that_comes_after_the_survivors_were_settled_comes_too_late_for_a_restarted_server_too() -> None:
    """Were it taken, half of the clients would give its client's masking key, and the other half its self seed."""
    game = six_clients()
    late = game.answer(3)
    game.deliver([0, 1, 2, 4, 5])
    game.close()
    saved = game.server.save()
    game.deliver([0, 1])
    game.server = restored(game, saved)
    with pytest.raises(UnexpectedMessageError):
        game.server.receive(late)
    assert game.server.outgoing == game.inbox
    assert game.finish().survivors == (0, 1, 2, 4, 5)


def test_a_server_from_before_it_closed_a_round_does_not_close_it_again_once_it_hears_of_it() -> None:
    game = six_clients()
    late = game.answer(3)
    game.deliver([0, 1, 2, 4, 5])
    outdated = game.server.save()
    game.close()
    request = game.inbox
    answers = {id_: game.clients[id_].unmask(request[id_]) for id_ in (0, 1)}
    game.server = restored(game, outdated)
    game.server.receive(late)
    stranger = messages.encode(messages.Unmask(game.server.session.id, 77, ()))
    foreign = messages.encode(messages.Unmask(b"?" * 16, 0, ()))
    earlier = game.sent[Round.SHARE_KEYS][0]
    for harmless in (stranger, foreign, earlier):
        with pytest.raises(UnexpectedMessageError):
            game.server.receive(harmless)
    assert not game.server._outdated
    with pytest.raises(UnexpectedMessageError):
        game.server.receive(answers[0])
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match="round MaskedInput was closed before this server was restored"):
            game.close()


def test_a_server_that_was_not_restored_is_not_stopped_by_a_client_that_runs_ahead() -> None:
    game = five_clients().until(Round.MASKED_INPUT)
    with pytest.raises(UnexpectedMessageError):
        game.server.receive(messages.encode(messages.Unmask(game.server.session.id, 1, ())))
    assert game.finish().integers.tolist() == expected_of_five()


def test_a_server_belongs_to_its_session() -> None:
    game = five_clients()
    with pytest.raises(AgreementError, match="another session"):
        Server.restore(replace(game.server.session, id=b"?" * 16), game.server.save())


def test_a_session_that_has_ended_is_not_saved() -> None:
    game = five_clients().until(Round.DONE)
    with pytest.raises(LocalProtocolError, match="keep its outcome"):
        game.server.save()


def test_what_is_no_saved_server_is_refused() -> None:
    game = five_clients().until(Round.SHARE_KEYS)
    game.deliver([1])
    saved = game.server.save()
    kept = snapshot.decode(saved)
    assert isinstance(kept, Snapshot)
    wrong = snapshot.encode(msgspec.structs.replace(kept, answers=(b"nothing",)))
    for data in (b"", saved[:-1], saved + b"\x00", b"\xc1" * 9, wrong):
        with pytest.raises(DecodingError):
            Server.restore(game.server.session, data, game.clients)
    misplaced = snapshot.encode(msgspec.structs.replace(kept, round="Unmask"))
    with pytest.raises(DecodingError, match="not a saved server"):
        Server.restore(game.server.session, misplaced, game.clients)
    game.deliver()
    game.close()
    kept = snapshot.decode(game.server.save())
    for changes in (
        {"vector": kept.vector[:-1]},
        {"checks": kept.checks[:1]},
        {"checks": (bytes(9), bytes(8))},
        {"members": ()},
        {"shared": ()},
        {"shared": kept.shared[:2]},
        {"survivors": (1, 2)},
        {"round": "ConsistencyCheck"},
        {"answers": kept.shared},
        {"members": kept.members[::-1]},
        {"members": kept.members[:2]},
        {"shared": (*kept.shared, kept.shared[0])},
        {"shared": (changed(kept.shared[0], shares=()), *kept.shared[1:])},
        {"shared": (changed(kept.shared[0], sender=77), *kept.shared[1:])},
        {"outgoing": ()},
        {"outgoing": kept.outgoing * 2},
        {"outgoing": ((kept.outgoing[0][0], (1, 2, 4, 8, 77)),)},
    ):
        with pytest.raises(DecodingError, match="not a saved server"):
            Server.restore(game.server.session, snapshot.encode(msgspec.structs.replace(kept, **changes)), game.clients)


@pytest.mark.parametrize(
    "survivors",
    [(1, 2, 4, 8, 77), (), (1, 2), (9, 8, 4, 2, 1), (1, 2, 4, 8, 9, 9), (1, 1, 2, 4, 8), (-1, 2, 4, 8)],
    ids=["a stranger", "none", "too few", "reversed", "one twice", "one twice in place of another", "negative"],
)
def test_a_saved_server_names_survivors_that_took_part_once_each_in_order(survivors: tuple[int, ...]) -> None:
    game = five_clients().until(Round.UNMASK)
    kept = snapshot.decode(game.server.save())
    with pytest.raises(DecodingError, match="not a saved server"):
        restored(game, snapshot.encode(msgspec.structs.replace(kept, survivors=survivors)))


@pytest.mark.parametrize("round_", [Round.SHARE_KEYS, Round.MASKED_INPUT, Round.CONSISTENCY_CHECK, Round.UNMASK])
def test_a_saved_server_holds_answers_only_of_those_that_may_answer(round_: Round) -> None:
    game = five_clients(adversary="active").until(round_)
    game.deliver([1, 2, 4])
    kept = snapshot.decode(game.server.save())
    for answer in (changed(kept.answers[-1], sender=77), changed(kept.answers[-1], session=b"?" * 16)):
        answers = (*kept.answers[:-1], answer)
        with pytest.raises(DecodingError, match="not a saved server"):
            restored(game, snapshot.encode(msgspec.structs.replace(kept, answers=answers)))
    with pytest.raises(DecodingError, match="not a saved server"):
        restored(game, snapshot.encode(msgspec.structs.replace(kept, answers=kept.answers * 2)))
    restart(game)
    assert game.finish().integers.tolist() == expected_of_five()


def test_a_saved_server_is_endorsed_by_a_quorum_of_survivors() -> None:
    game = five_clients(adversary="active").until(Round.UNMASK)
    kept = snapshot.decode(game.server.save())
    for endorsed in (kept.endorsed[:2], (*kept.endorsed[:-1], changed(kept.endorsed[-1], sender=77))):
        with pytest.raises(DecodingError, match="not a saved server"):
            restored(game, snapshot.encode(msgspec.structs.replace(kept, endorsed=endorsed)))


def test_a_saved_server_of_fewer_members_than_share_holders_is_refused() -> None:
    game = five_clients(share_threshold=4).until(Round.SHARE_KEYS)
    kept = snapshot.decode(game.server.save())
    with pytest.raises(DecodingError, match="not a saved server"):
        restored(game, snapshot.encode(msgspec.structs.replace(kept, members=kept.members[:3])))


def test_a_saved_server_shows_nothing_of_what_it_holds() -> None:
    game = five_clients().until(Round.UNMASK)
    game.deliver()
    assert repr(Server.restore(game.server.session, game.server.save())) == "Server(round=Unmask, answered=5)"
