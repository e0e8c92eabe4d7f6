"""Noise that nobody needed comes off in the end: as much as that, no more, and only by the survivors' own answers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from attacks.wire.play import Play
from secagg import Params, Privacy, simulate
from secagg.declaration import Provenance, of_coordinates
from secagg.driver import Contribution
from secagg.errors import ParameterError, UnexpectedMessageError
from secagg.layout import Layout, Tensor
from secagg.messages import Unmask, UnmaskAndReveal, decode, encode
from secagg.privacy.events import SkellamSum
from secagg.privacy.shares import Shares
from secagg.rounds import Round
from secagg.server import Server
from secagg.session import Session
from tests.properties.noise_laws import check_sample, room_for, share_law

if TYPE_CHECKING:
    from secagg.aggregate import Aggregate
    from secagg.params import Adversary, Mode

CLIENTS, DROPOUTS, SIZE = 8, 3, 2000
PRIVACY = Privacy(clip=1.0, noise_multiplier=0.02, ring_bits=16, remove_surplus=True)
PARAMS = Params(min_cohort=2, max_dropouts=DROPOUTS, privacy=PRIVACY)
LAYOUT = Layout((Tensor("everybody", (SIZE,)), Tensor("most", (SIZE,))))
HOLDERS_OF_MOST = 6


def played(mode: Mode, dropped: int, stage: str = "ShareKeys", privacy: Privacy = PRIVACY) -> Aggregate:
    masks = {
        client: of_coordinates(LAYOUT, np.arange(2 * SIZE) < SIZE * (1 + (client < HOLDERS_OF_MOST)), Provenance.PUBLIC)
        for client in range(CLIENTS)
    }
    return simulate(
        {client: {name: np.zeros(SIZE) for name in ("everybody", "most")} for client in range(CLIENTS)},
        masks if mode == "mask-indexed" else None,
        mode=mode,
        params=replace(PARAMS, privacy=privacy),
        dropouts=dict.fromkeys(range(dropped), stage),
        seed=dropped,
        layout=LAYOUT,
    ).aggregate


def check_noise(aggregate: Aggregate, dropped: int, removed_by: int = CLIENTS) -> None:
    """The sum of zeros is noise alone: of each survivor the parts that stay, and all of those who did not answer."""
    shares = aggregate.plan.shares
    assert shares is not None
    for place, holders in (
        (slice(0, SIZE), CLIENTS),
        (slice(SIZE, None), HOLDERS_OF_MOST if aggregate.plan.session.mode == "mask-indexed" else CLIENTS),
    ):
        parts = [part.variance for part in shares.parts(holders - DROPOUTS)]
        kept, silent = sum(parts[: shares.kept(dropped)]), sum(parts[shares.kept(dropped) :])
        variance = (holders - dropped) * kept + (CLIENTS - removed_by) * silent
        check_sample(aggregate.integers[place], share_law("skellam", variance, room_for(math.sqrt(variance))))


@pytest.mark.parametrize("dropped", range(DROPOUTS + 1))
@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
def test_the_sum_ends_with_the_noise_that_the_dropouts_need(mode: Mode, dropped: int) -> None:
    aggregate = played(mode, dropped)
    check_noise(aggregate, dropped)
    assert aggregate.plan.shares is not None
    event, central = aggregate.event, aggregate.plan.shares.total.central_std(PRIVACY.noise_multiplier) ** 2
    assert isinstance(event, SkellamSum)
    assert central * (1 - 1e-9) <= event.variance < 1.2 * central


def test_without_removal_the_surplus_stays() -> None:
    kept, whole = played("uniform", 0), played("uniform", 0, privacy=replace(PRIVACY, remove_surplus=False))
    assert whole.integers.var() > 1.4 * kept.integers.var()


def test_who_does_not_answer_leaves_its_surplus_in_and_the_event_does_not_count_it() -> None:
    everybody, some = played("uniform", 0), played("uniform", 2, stage="MaskedInput")
    assert some.survivors == everybody.survivors
    check_noise(some, 0, removed_by=CLIENTS - 2)
    assert some.event == everybody.event


# ---------------------------------------------------------------------------------- messages


def game_of(adversary: Adversary = "semi-honest", privacy: Privacy = PRIVACY) -> Play:
    params = replace(PARAMS, adversary=adversary, privacy=privacy)
    session = Session(id=bytes(16), params=params, layout=LAYOUT, mode="uniform")
    zeros = {"everybody": np.zeros(SIZE), "most": np.zeros(SIZE)}
    return Play(session, {client: Contribution(zeros) for client in range(CLIENTS)})


def without(game: Play, client: int) -> Play:
    """To the last round, and a client drops out before it has sent its vector."""
    game.until(Round.MASKED_INPUT).deliver([one for one in range(CLIENTS) if one != client])
    game.close()
    return game.until(Round.UNMASK)


@pytest.mark.parametrize("adversary", ["semi-honest", "active"])
def test_a_survivor_reveals_the_seeds_of_what_comes_off_and_of_nothing_else(adversary: Adversary) -> None:
    game = without(game_of(adversary), 7)
    held = game.clients[3]._state
    seeds = getattr(held, "masked", held).noise_seeds  # type: ignore[union-attr]
    answer = decode(game.answer(3))
    assert isinstance(answer, UnmaskAndReveal)
    assert answer.noise_seeds == seeds[2:]  # one dropout: what covers for none, and for one, stays
    assert len(seeds) == 4
    assert not hasattr(game.clients[3]._state, "noise_seeds")
    assert not any(seed.hex() in repr(answer) or repr(seed) in repr(answer) for seed in seeds)
    check_noise(game.finish(), 1)


def test_a_saved_server_goes_on_with_seeds_that_it_has_received() -> None:
    game = without(game_of(), 7)
    game.deliver([0, 1, 2])
    game.server = Server.restore(game.server.session, game.server.save(), game.clients)
    check_noise(game.finish(), 1)


def test_answers_with_other_seeds_than_were_asked_for_are_refused() -> None:
    game = without(game_of(), 7)
    answer = decode(game.answer(3))
    assert isinstance(answer, UnmaskAndReveal)
    plain = Unmask(answer.session, answer.sender, answer.shares)
    for seeds in ((), answer.noise_seeds[:1], (*answer.noise_seeds, bytes(16))):
        wrong = UnmaskAndReveal(answer.session, answer.sender, answer.shares, seeds)
        with pytest.raises(UnexpectedMessageError, match="seed for each part"):
            game.server.receive(encode(wrong))
    with pytest.raises(UnexpectedMessageError, match="seed for each part"):
        game.server.receive(encode(plain))
    assert game.server.answered == ()


def test_seeds_that_nobody_asked_for_are_refused() -> None:
    game = without(game_of(privacy=replace(PRIVACY, remove_surplus=False)), 7)
    answer = decode(game.answer(3))
    assert type(answer) is Unmask
    with pytest.raises(UnexpectedMessageError, match="seed for each part"):
        game.server.receive(encode(UnmaskAndReveal(answer.session, answer.sender, answer.shares, ())))


def test_shares_that_do_not_come_apart_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"remove_surplus .* set mechanism='skellam'"):
        Privacy(clip=1.0, noise_multiplier=1.0, mechanism="discrete-gaussian", remove_surplus=True)


def test_the_audit_finds_out_a_build_that_forgets_who_dropped_out(monkeypatch: pytest.MonkeyPatch) -> None:
    check_noise(played("uniform", DROPOUTS), DROPOUTS)
    with monkeypatch.context() as patch:
        patch.setattr(Shares, "kept", lambda *_: 1)
        short = played("uniform", DROPOUTS)
    with pytest.raises(AssertionError):
        check_noise(short, DROPOUTS)
