"""A client that lives in bytes between two messages says what one that stays in memory says, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import client_snapshot, driver
from secagg.client import Client
from secagg.client_snapshot import KeptMasked, KeptShared, Snapshot
from secagg.driver import Contribution
from secagg.errors import (
    AgreementError,
    DecodingError,
    DifferencingError,
    LocalProtocolError,
    ParameterError,
    SecAggError,
)
from secagg.ledger import Ledger
from secagg.messages import UnmaskRequest, encode, write_bitmap
from secagg.privacy.settings import Privacy
from secagg.rounds import Round
from secagg.session import CountedCoverage
from tests.adversarial.play import VALUES, Play, expected_of_five, five_clients
from tests.strategies import Scenario, scenarios

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from secagg.identity import Identity
    from secagg.params import Adversary, Mode
    from secagg.privacy.events import Event
    from secagg.session import Session

PRIVACY = Privacy(clip=1.0, noise_multiplier=0.3, ring_bits=24)
STAGES = (Round.SHARE_KEYS, Round.MASKED_INPUT, Round.UNMASK)
"""Rounds before which a client has something to keep; with an active server the consistency check as well."""


class Sleeper:
    """A client of which nothing is kept between two messages but what ``save`` returned."""

    def __init__(
        self, id_: int, session: Session, identity: Identity | None, pinned: Mapping[int, bytes] | None, **rest: Any
    ) -> None:
        self._awake: Client | None = Client(id_, session, identity, pinned, **rest)
        self._wake: Callable[[bytes], Client] = lambda saved: Client.restore(session, saved, identity, pinned, **rest)
        self._saved = b""
        self.clipped_share = 0.0
        self.event: Event | None = None

    def __getattr__(self, method: str) -> Callable[..., bytes]:
        def answer(*args: Any) -> bytes:
            client = self._awake or self._wake(self._saved)
            sent: bytes = getattr(client, method)(*args)
            self._awake, self.clipped_share, self.event = None, client.clipped_share, client.event
            if method != "unmask":
                self._saved = client.save()
                woken = self._wake(self._saved)
                assert (woken.id, woken.clipped_share, woken.event) == (client.id, self.clipped_share, self.event)
            return sent

        return answer


def outcome(scenario: Scenario, kind: type) -> tuple[list[bytes], object]:
    """Every message of a session, and its sums or the error that ended it."""
    said: list[bytes] = []
    ledgers = {id_: Ledger() for id_ in scenario.contributions}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "Client", kind)
        try:
            played = driver.run(
                scenario.session,
                scenario.contributions,
                scenario.last_stage,
                ledgers=ledgers,
                entropy_of=scenario.entropy_of,
                observe=said.append,
            )
        except SecAggError as error:
            return said, (type(error), str(error))
    kept = sorted((id_, ledger.to_bytes()) for id_, ledger in ledgers.items())
    return said, (played.aggregate.integers.tolist(), played.clipped_share, kept)


@given(scenario=scenarios())
def test_clients_that_are_restored_between_all_rounds_send_the_same_bytes(scenario: Scenario) -> None:
    assert outcome(scenario, Sleeper) == outcome(scenario, Client)


@pytest.mark.parametrize("adversary", ["semi-honest", "active"])
@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
@pytest.mark.parametrize("surplus", [False, True])
@given(data=st.data())
def test_so_do_those_that_add_noise(surplus: bool, mode: Mode, adversary: Adversary, data: st.DataObject) -> None:  # noqa: FBT001 - drawn by pytest
    fixed: dict[str, Any] = {
        "privacy": replace(PRIVACY, remove_surplus=surplus),
        "adversary": adversary,
        "exact_denominators": False,
    }
    scenario = data.draw(scenarios(mode, weighted=False, **fixed))
    assert outcome(scenario, Sleeper) == outcome(scenario, Client)


def private_five(adversary: Adversary = "semi-honest", mode: Mode = "uniform") -> Play:
    return five_clients(mode, adversary=adversary, privacy=PRIVACY)


def saved_at(game: Play, round_: Round, client: int = 2) -> bytes:
    """What a client keeps while the server waits for a round."""
    return game.until(round_).clients[client].save()


def woken(game: Play, saved: bytes, client: int = 2, **rest: Any) -> Client:
    return Client.restore(game.server.session, saved, game.identities.get(client), game.pinned, **rest)


@pytest.mark.parametrize("round_", [*STAGES, Round.CONSISTENCY_CHECK])
def test_a_client_that_was_saved_lives_on_elsewhere_only(round_: Round) -> None:
    game = five_clients(adversary="active").until(round_)
    saved = game.clients[2].save()
    for step in (game.clients[2].save, lambda: game.answer(2)):
        with pytest.raises(LocalProtocolError, match="Saved"):
            step()
    game.clients[2] = woken(game, saved)
    assert game.finish().integers.tolist() == expected_of_five()


def test_there_is_nothing_to_save_before_the_first_message_and_after_the_last() -> None:
    game = five_clients()
    for round_ in (Round.ADVERTISE_KEYS, Round.DONE):
        with pytest.raises(LocalProtocolError, match="nothing to save"):
            saved_at(game, round_)


def test_what_is_saved_after_the_masked_vector_was_sent_masks_nothing_more() -> None:
    game = private_five().until(Round.MASKED_INPUT)
    relayed = game.inbox[2]
    game.answer(2)
    client = woken(game, game.clients[2].save())
    with pytest.raises(LocalProtocolError, match="in state Masked"):
        client.masked_input(relayed, {"w": VALUES})


@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
def test_copies_that_mask_the_same_update_send_the_same_bytes_noise_included(mode: Mode) -> None:
    game = private_five(mode=mode)
    saved = saved_at(game, Round.MASKED_INPUT)
    update = game.contributions[2].update
    assert len({woken(game, saved).masked_input(game.inbox[2], update) for _ in range(2)}) == 1


def test_a_ledger_refuses_a_copy_that_masks_again() -> None:
    game = five_clients("uniform")
    ledger = Ledger()
    saved = saved_at(game, Round.MASKED_INPUT)
    woken(game, saved, ledger=ledger).masked_input(game.inbox[2], {"w": VALUES})
    with pytest.raises(DifferencingError):
        woken(game, saved, ledger=Ledger.from_bytes(ledger.to_bytes())).masked_input(game.inbox[2], {"w": -VALUES})


def flipped(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "little") ^ (1 << bit)).to_bytes(len(data), "little")


@pytest.mark.parametrize("round_", STAGES)
def test_a_flipped_bit_in_any_byte_and_every_cut_are_noticed(round_: Round) -> None:
    game = private_five()
    saved = saved_at(game, round_)
    damaged = [flipped(saved, 8 * place + place % 8) for place in range(len(saved))]
    cut = [saved[:length] for length in (0, 1, 31, 32, 33, len(saved) // 2, len(saved) - 1)]
    for data in (*damaged, *cut, saved + b"\x00"):
        with pytest.raises(DecodingError, match="not a saved client"):
            woken(game, data)


def test_a_ledger_refuses_a_copy_that_unmasks_other_survivors() -> None:
    game = five_clients("uniform")
    ledger, saved = Ledger(), saved_at(game, Round.UNMASK)
    everybody = tuple(game.clients)

    def request(survivors: tuple[int, ...]) -> bytes:
        return encode(UnmaskRequest(game.server.session.id, write_bitmap(survivors, everybody)))

    woken(game, saved, ledger=ledger).unmask(request(everybody))
    woken(game, saved, ledger=ledger).unmask(request(everybody))
    with pytest.raises(DifferencingError, match="isolate 1 clients"):
        woken(game, saved, ledger=ledger).unmask(request(everybody[:-1]))


@pytest.mark.parametrize("round_", STAGES)
def test_a_saved_client_belongs_to_its_session(round_: Round) -> None:
    game = five_clients("uniform")
    saved = saved_at(game, round_)
    for other in (replace(game.server.session, id=b"?" * 16), replace(game.server.session, model_root=b"?" * 32)):
        with pytest.raises(AgreementError, match="another session"):
            Client.restore(other, saved)


def test_a_saved_client_belongs_to_its_identity() -> None:
    game = five_clients("uniform", adversary="active")
    saved = saved_at(game, Round.SHARE_KEYS)
    with pytest.raises(ParameterError, match="pinned for client 2"):
        Client.restore(game.server.session, saved, game.identities[4], game.pinned)
    with pytest.raises(ParameterError, match="an identity if, and only if"):
        Client.restore(game.server.session, saved, None, game.pinned)


def resealed(saved: bytes, client: int = 2, **changes: Any) -> bytes:
    """A saved client with some fields of its state replaced, and a digest that fits."""
    kept = msgspec.msgpack.decode(saved[:-32], type=Snapshot)
    body = msgspec.msgpack.encode(
        msgspec.structs.replace(kept, client=client, state=msgspec.structs.replace(kept.state, **changes))
    )
    return body + client_snapshot._digest(body)


def kept_of(saved: bytes) -> Any:
    return msgspec.msgpack.decode(saved[:-32], type=Snapshot).state


def test_shares_that_do_not_fit_their_lists_are_no_saved_client() -> None:
    game = private_five(mode="mask-indexed")
    saved = saved_at(game, Round.MASKED_INPUT)
    kept = kept_of(saved)
    assert isinstance(kept, KeptShared)
    assert woken(game, resealed(saved)).id == 2
    for changes in (
        {"client": 4},
        {"client": 77},
        {"agreed": kept.agreed[:-1]},
        {"members": kept.members[:-1]},
        {"members": kept.members[::-1]},
        {"weight": 1},
        {"noise_seed": b""},
        {"own": msgspec.structs.replace(kept.own, kind="full", data=b"")},
    ):
        with pytest.raises(DecodingError, match="not a saved client"):
            woken(game, resealed(saved, **changes))


def test_a_mask_that_does_not_fit_its_lists_is_no_saved_client() -> None:
    game = private_five("active")
    saved = saved_at(game, Round.UNMASK)
    kept = kept_of(saved)
    assert isinstance(kept, KeptMasked)
    assert woken(game, resealed(saved)).id == 2
    for changes in (
        {"client": 4},
        {"order": kept.order[:-1]},
        {"order": (*kept.order[:-1], kept.order[0])},
        {"participants": kept.participants[::-1]},
        {"participants": kept.participants[:2]},
        {"noise_seeds": ()},
        {"held": kept.held[:-1]},
        {"held": tuple(pair[::-1] for pair in kept.held[::-1])},
        {"held": ((kept.held[0][0], kept.held[1][1]), *kept.held[1:])},
        {"own_share": kept.held[0][0]},
        {"survivors": kept.survivors + b"\x00"},
    ):
        with pytest.raises(DecodingError, match="not a saved client"):
            woken(game, resealed(saved, **changes))
    semi_honest = private_five()
    saved = saved_at(semi_honest, Round.UNMASK)
    with pytest.raises(DecodingError, match="not a saved client"):
        woken(semi_honest, resealed(saved, survivors=b"\xf8"))


def test_neither_a_saved_client_nor_its_parts_show_a_secret() -> None:
    game = private_five()
    for round_ in STAGES:
        saved = saved_at(game, round_)
        game.clients[2] = woken(game, saved)
        for shown in (repr(msgspec.msgpack.decode(saved[:-32], type=Snapshot)), repr(kept_of(saved))):
            assert shown.endswith("(<redacted>)")
        assert repr(game.clients[2]).startswith("Client(id=2, state=")


def test_what_a_pruned_client_of_a_uniform_session_holds_is_kept_though_nobody_is_told() -> None:
    """Only what it holds is sent; what its update says elsewhere is not."""
    brought = Contribution({"w": VALUES}, np.arange(8) < 5)
    clients = five_clients("uniform").clients
    counted = CountedCoverage(frozenset(clients), np.full(8, len(clients), np.int32))
    session = replace(five_clients("uniform").server.session, counted=counted)
    game = Play(session, dict.fromkeys(clients, brought)).until(Round.MASKED_INPUT)
    for id_ in game.clients:
        game.clients[id_] = woken(game, game.clients[id_].save(), id_)
    sums = game.finish().integers
    assert sums[:5].all()
    assert not sums[5:].any()
