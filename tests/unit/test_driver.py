"""Stages by name, and what a played session costs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from secagg import messages
from secagg.declaration import Provenance, of_coordinates
from secagg.driver import Contribution, Stage, Traffic, run
from secagg.errors import DifferencingError, LocalProtocolError, ParameterError, TooFewClientsError
from secagg.layout import Layout, Tensor
from secagg.ledger import Ledger
from secagg.params import Params
from secagg.prg import SeededEntropy
from secagg.rounds import ROUNDS, Round
from secagg.session import Session

if TYPE_CHECKING:
    from secagg.params import Adversary

SESSION = Session(id=bytes(16), params=Params(max_dropouts=1), layout=Layout((Tensor("w", (3,)),)), mode="uniform")
FOUR = {client: Contribution({"w": np.full(3, float(client))}) for client in range(4)}


@pytest.mark.parametrize("stage", Stage)
def test_a_stage_is_known_by_all_its_spellings(stage: Stage) -> None:
    camel = stage.name.title().replace("_", "")
    assert {Stage.of(name) for name in (stage, stage.name, stage.name.lower(), camel)} == {stage}


def test_the_stages_of_a_client_are_named_like_the_rounds_of_the_server() -> None:
    rounds = [Stage.of(round_.value) for round_ in Round if round_ is not Round.DONE]
    assert rounds == [stage for stage in Stage if stage is not Stage.NONE]
    assert rounds == sorted(rounds)
    assert rounds[0] > Stage.NONE


@pytest.mark.parametrize("name", ["", "masked", "3", "DONE"])
def test_an_unknown_stage_is_refused_and_the_known_ones_are_named(name: str) -> None:
    with pytest.raises(ParameterError, match=f"no stage '{name}': use one of NONE, ADVERTISE_KEYS, SHARE_KEYS"):
        Stage.of(name)


def test_a_session_sums_what_the_survivors_bring() -> None:
    played = run(SESSION, FOUR, {2: Stage.SHARE_KEYS})
    assert played.aggregate.survivors == (0, 1, 3)
    np.testing.assert_allclose(played.aggregate.sum, [4, 4, 4], atol=1e-5)
    assert played.clipped_share == dict.fromkeys(FOUR, 0.0)


@pytest.mark.parametrize(
    ("stage", "sent"), [(Stage.NONE, 0), (Stage.ADVERTISE_KEYS, 1), (Stage.SHARE_KEYS, 2), (Stage.MASKED_INPUT, 3)]
)
def test_a_client_sends_nothing_after_its_last_stage(stage: Stage, sent: int) -> None:
    seen: list[messages.Message] = []
    run(SESSION, FOUR, {2: stage}, observe=lambda data: seen.append(messages.decode(data)))
    assert sum(getattr(message, "sender", None) == 2 for message in seen) == sent


@pytest.mark.parametrize("adversary", ROUNDS)
def test_every_byte_on_the_wire_is_counted_once_for_its_client(adversary: Adversary) -> None:
    seen: list[bytes] = []
    session = replace(SESSION, params=replace(SESSION.params, adversary=adversary))
    played = run(session, FOUR, observe=seen.append)
    total = sum(played.traffic.upload_bytes.values()) + sum(played.traffic.download_bytes.values())
    assert total == sum(map(len, seen))
    stages = [Stage.of(round_.value).name.lower() for round_ in ROUNDS[adversary] if round_ is not Round.DONE]
    assert set(played.traffic.seconds) == {f"{role} {stage}" for role in ("client", "server") for stage in stages}


def test_the_same_entropy_gives_the_same_bytes() -> None:
    def wire() -> list[bytes]:
        seen: list[bytes] = []
        sources = {client: SeededEntropy(str(client).encode()) for client in FOUR}
        run(SESSION, FOUR, entropy_of=sources.__getitem__, observe=seen.append)
        return seen

    assert wire() == wire()


def test_too_many_dropouts_release_nothing() -> None:
    with pytest.raises(TooFewClientsError, match="2 clients sent their input < 3"):
        run(SESSION, FOUR, {0: Stage.SHARE_KEYS, 1: Stage.SHARE_KEYS})


def uniform(clients: int) -> dict[int, Contribution]:
    return {client: Contribution({"w": np.full(3, float(client % 4))}) for client in range(clients)}


@pytest.mark.parametrize(
    ("params", "clients", "remedy"),
    [
        (Params(), 6, "wait, or raise max_dropouts"),
        (Params(max_dropouts=5), 9, "wait, or raise max_dropouts"),
        (Params(max_dropouts=2, neighbours=20), 40, "wait, or raise max_dropouts"),
        (Params(max_dropouts=1), 4, "wait, or take more clients and raise max_dropouts"),
        (Params(), 4, "wait, or take more clients"),
        (Params(max_dropouts=9), 9, "wait, or take more clients"),
        (Params(max_dropouts=2, share_threshold=7), 9, "wait, or take more clients and raise max_dropouts"),
        (Params(adversary="active"), 9, "wait, or raise max_dropouts"),
        (Params(adversary="active", max_dropouts=4), 9, "wait, or take more clients and raise max_dropouts"),
    ],
)
def test_whoever_has_too_many_dropouts_is_told_what_bears_them(params: Params, clients: int, remedy: str) -> None:
    """And it does: the session that follows the advice ends well."""
    session = replace(SESSION, params=params)
    most = params.dropouts_tolerated(clients, params.topology(clients).needed)
    gone = dict.fromkeys(range(most + 1), Stage.SHARE_KEYS)
    with pytest.raises(TooFewClientsError, match=rf"clients sent their input .*: {remedy}$"):
        run(session, uniform(clients), gone)
    more = 3 * clients if "more clients" in remedy else clients
    raised = replace(params, max_dropouts=most + 1) if "raise" in remedy else params
    assert len(run(replace(session, params=raised), uniform(more), gone).aggregate.survivors) == more - most - 1


def test_raising_max_dropouts_is_no_advice_where_nothing_would_be_released() -> None:
    """Four of six hold the first coordinate, five the others: one more dropout, and all of it would be withheld."""
    layout = Layout((Tensor("w", (3,)),))
    held = [np.array([client < 4, client < 5, client < 5]) for client in range(6)]
    masks = [of_coordinates(layout, own, Provenance.DEVICE) for own in held]
    cohort = {client: Contribution({"w": np.zeros(3)}, mask) for client, mask in enumerate(masks)}
    session = replace(SESSION, params=Params(max_dropouts=2), layout=layout, mode="mask-indexed")
    with pytest.raises(TooFewClientsError, match="wait, or take more clients and raise max_dropouts"):
        run(session, cohort, dict.fromkeys((0, 4, 5), Stage.SHARE_KEYS))


@pytest.mark.parametrize("adversary", ROUNDS)
def test_a_client_that_is_lost_after_its_vector_is_out_sends_nothing_else_for_that_model(adversary: Adversary) -> None:
    """It is in a sum that was released, and does not know over whom."""
    first = replace(SESSION, params=replace(SESSION.params, adversary=adversary), model_root=b"1" * 32)
    ledgers = {client: Ledger() for client in FOUR}
    played = run(first, FOUR, {3: Stage.MASKED_INPUT}, ledgers=ledgers)
    assert played.aggregate.survivors == (0, 1, 2, 3)
    assert [ledger.agreed for ledger in ledgers.values()] == [1, 1, 1, 0]
    assert [ledger.pending for ledger in ledgers.values()] == [(), (), (), (first.id,)]
    with pytest.raises(DifferencingError, match="did not end here"):
        run(replace(first, id=b"2" * 16), FOUR, ledgers=ledgers)
    run(replace(first, id=b"3" * 16, model_root=b"2" * 32), FOUR, ledgers=ledgers)
    ledgers[3].abandon(first.id)
    run(replace(first, id=b"4" * 16), FOUR, ledgers=ledgers)


def test_a_session_that_breaks_off_here_is_known_not_to_be_released() -> None:
    ledgers = {client: Ledger() for client in FOUR}
    with pytest.raises(TooFewClientsError):
        run(SESSION, FOUR, {0: Stage.SHARE_KEYS, 1: Stage.SHARE_KEYS}, ledgers=ledgers)
    assert all(ledger.pending == () for ledger in ledgers.values())


def test_a_session_that_is_not_begun_settles_nothing() -> None:
    """The id was used before, in a session that one client does not know the end of."""
    ledgers = {client: Ledger() for client in FOUR}
    run(SESSION, FOUR, {3: Stage.MASKED_INPUT}, ledgers=ledgers)
    with pytest.raises(LocalProtocolError, match="used before"):
        run(SESSION, FOUR, ledgers=ledgers)
    assert ledgers[3].pending == (SESSION.id,)


def test_what_two_sessions_cost_adds_up_under_their_names() -> None:
    total = Traffic()
    first, second = (run(SESSION, FOUR).traffic for _ in range(2))
    total.add(first, "counting: ")
    total.add(second)
    assert total.upload_bytes[1] == first.upload_bytes[1] + second.upload_bytes[1]
    assert total.seconds["counting: client unmask"] == first.seconds["client unmask"]
    assert total.seconds["client unmask"] == second.seconds["client unmask"]
