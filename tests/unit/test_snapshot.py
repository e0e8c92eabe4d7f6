"""A server that is saved and restored after every message ends in the same sum."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest

from secagg import snapshot
from secagg.errors import AgreementError, DecodingError, DuplicateMessageError, LocalProtocolError
from secagg.rounds import ROUNDS, Round
from secagg.server import Server
from secagg.snapshot import Snapshot
from tests.adversarial.play import Play, expected_of_five, five_clients

if TYPE_CHECKING:
    from secagg.params import Adversary, Mode


def restart(game: Play) -> None:
    """Puts a restored server in the place of the one at hand."""
    game.server = Server.restore(game.server.session, game.server.save(), game.clients, game.pinned)


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
    again = Server.restore(game.server.session, saved, game.clients, game.pinned)
    assert again.close_round() == game.server.close_round()


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
    ):
        with pytest.raises(DecodingError, match="not a saved server"):
            Server.restore(game.server.session, snapshot.encode(msgspec.structs.replace(kept, **changes)), game.clients)


def test_a_saved_server_names_no_survivor_that_took_no_part() -> None:
    game = five_clients().until(Round.UNMASK)
    kept = snapshot.decode(game.server.save())
    for survivors in ((1, 2, 4, 8, 77), ()):
        with pytest.raises(DecodingError, match="not a saved server"):
            Server.restore(
                game.server.session, snapshot.encode(msgspec.structs.replace(kept, survivors=survivors)), game.clients
            )


def test_a_saved_server_shows_nothing_of_what_it_holds() -> None:
    game = five_clients().until(Round.UNMASK)
    game.deliver()
    assert repr(Server.restore(game.server.session, game.server.save())) == "Server(round=Unmask, answered=5)"
