"""Rounds whose clients remember: the session binds the model, and a run tells how many rounds would be refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import secagg
from protocols.baselines.fedavg import FedAvg
from protocols.fetch import Served
from protocols.results import LostRound
from secagg import driver
from secagg.errors import AbortError, UnknownClientError
from secagg.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Hashable

    from protocols.aggregators import Uniform
    from protocols.federation import Federation
    from protocols.simulation.calibration import Calibration
    from secagg.ledger import Scope
    from secagg.session import Session

DROPOUTS: dict[int, dict[Hashable, str]] = {1: {"fast-02": "ShareKeys"}}


@pytest.fixture
def system(federation: Federation, uniform: Uniform, instant: Calibration) -> FedAvg:
    return FedAvg(federation, uniform, calibration=instant)


def ledgers_of(federation: Federation, scope: Scope = "all") -> dict[Hashable, Ledger]:
    return {name: Ledger(scope) for name in federation.fleet.names}


def test_a_run_over_rounds_tells_which_rounds_the_ledgers_would_refuse(federation: Federation, system: FedAvg) -> None:
    """Without fast-02, round 1 differs from round 0 by its update alone."""
    ledgers = ledgers_of(federation)
    result, end = system.run(3, dropouts=DROPOUTS, ledgers=ledgers)
    assert [one.number for one in result.lost] == [1]
    assert [one.number for one in result.rounds] == [0, 2]
    assert end.number == 3
    assert max(ledger.refused for ledger in ledgers.values()) == 1


def test_a_refused_round_leaves_the_model_and_the_clock_as_they_were(federation: Federation, system: FedAvg) -> None:
    played = list(system.play(3, dropouts=DROPOUTS, ledgers=ledgers_of(federation)))
    (_, before), (outcome, after), (_, end) = played
    assert isinstance(outcome, LostRound)
    assert outcome.seconds == 0
    assert "isolate" in outcome.reason
    assert after.seconds == before.seconds < end.seconds
    assert all(torch.equal(tensor, after.state[name]) for name, tensor in before.state.items())
    assert not all(torch.equal(tensor, end.state[name]) for name, tensor in before.state.items())


@pytest.mark.parametrize("forgetful", ["another model each round", "no encryption"])
def test_what_is_not_compared_is_not_refused(
    federation: Federation, uniform: Uniform, instant: Calibration, forgetful: str
) -> None:
    compared = forgetful == "no encryption"
    aggregator = uniform.twin if compared else uniform
    ledgers = ledgers_of(federation, "all" if compared else "model")
    result, _ = FedAvg(federation, aggregator, calibration=instant).run(2, dropouts=DROPOUTS, ledgers=ledgers)
    assert (result.lost, len(result.rounds)) == ((), 2)


def test_a_run_of_refused_rounds_only_says_so(federation: Federation, system: FedAvg) -> None:
    ledgers = ledgers_of(federation)
    _, end = system.run(1, ledgers=ledgers)
    with pytest.raises(AbortError, match=r"every round was lost; the last one: .* isolate"):
        system.run(1, end, dropouts=DROPOUTS, ledgers=ledgers)


def test_every_session_of_a_round_binds_the_model_that_the_round_starts_from(
    federation: Federation, system: FedAvg, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[Session] = []
    original = driver.run

    def watched(session: Session, *arguments: object, **options: object) -> driver.Played:
        played.append(session)
        return original(session, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(driver, "run", watched)
    _, end = system.run(1)
    system.run(1, end)
    assert [session.model_root for session in played] == [
        Served(federation.units.layout, start.state).root for start in (federation.start(), end)
    ]


def test_a_ledger_of_a_stranger_is_refused(federation: Federation) -> None:
    update = {tensor.name: federation.start().state[tensor.name] for tensor in federation.units.layout.tensors}
    with pytest.raises(UnknownClientError, match="ledgers"):
        secagg.simulate(dict.fromkeys(range(4), update), ledgers={"stranger": Ledger()})
