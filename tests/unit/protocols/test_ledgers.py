"""Rounds whose clients remember: the session binds the model, and a run tells how many rounds would be refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import secagg
from protocols.aggregators import FixedPoint, Uniform
from protocols.fedavg import FedAvg
from protocols.fetch import Served
from protocols.simulation.calibration import Calibration
from secagg import driver
from secagg.errors import DifferencingError, UnknownClientError
from secagg.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from protocols.aggregators import Aggregator, Client
    from protocols.round import Work
    from protocols.system import Federation
    from secagg.ledger import Scope
    from secagg.session import Session

PARAMS = secagg.Params(min_cohort=3, max_dropouts=2, value_range=4.0)
DROPOUTS: dict[int, dict[Hashable, str]] = {1: {"fast-02": "ShareKeys"}}


class Unclocked(Calibration):
    """Measures no sessions of its own."""

    def seconds(self, aggregator: Aggregator, work: Mapping[Client, Work]) -> float:  # noqa: ARG002 - nothing is timed
        return 0.0


def system(federation: Federation, aggregator: Aggregator) -> FedAvg:
    return FedAvg(federation, aggregator, calibration=Unclocked())


def uniform(federation: Federation) -> Uniform:
    return Uniform(federation.units.layout, PARAMS)


def ledgers_of(federation: Federation, scope: Scope = "all") -> dict[Hashable, Ledger]:
    return {name: Ledger(scope) for name in federation.fleet.names}


def test_a_run_over_rounds_tells_which_rounds_the_ledgers_would_refuse(federation: Federation) -> None:
    """Without fast-02, round 1 differs from round 0 by its update alone."""
    ledgers = ledgers_of(federation)
    result, end = system(federation, uniform(federation)).run(3, dropouts=DROPOUTS, ledgers=ledgers)
    assert result.refused == (1,)
    assert [one.number for one in result.rounds] == [0, 2]
    assert end.number == 3
    assert max(ledger.refused for ledger in ledgers.values()) == 1


@pytest.mark.parametrize("forgetful", ["another model each round", "no encryption"])
def test_what_is_not_compared_is_not_refused(federation: Federation, forgetful: str) -> None:
    compared = forgetful == "no encryption"
    aggregator = FixedPoint(federation.units.layout, PARAMS) if compared else uniform(federation)
    ledgers = ledgers_of(federation, "all" if compared else "model")
    result, _ = system(federation, aggregator).run(2, dropouts=DROPOUTS, ledgers=ledgers)
    assert (result.refused, len(result.rounds)) == ((), 2)


def test_a_run_of_refused_rounds_only_says_so(federation: Federation) -> None:
    ledgers = ledgers_of(federation)
    _, end = system(federation, uniform(federation)).run(1, ledgers=ledgers)
    with pytest.raises(DifferencingError, match="every round"):
        system(federation, uniform(federation)).run(1, end, dropouts=DROPOUTS, ledgers=ledgers)


def test_every_session_of_a_round_binds_the_model_that_the_round_starts_from(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[Session] = []
    original = driver.run

    def watched(session: Session, *arguments: object, **options: object) -> driver.Played:
        played.append(session)
        return original(session, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(driver, "run", watched)
    _, end = system(federation, uniform(federation)).run(1)
    system(federation, uniform(federation)).run(1, end)
    assert [session.model_root for session in played] == [
        Served(federation.units.layout, start.state).root for start in (federation.start(), end)
    ]


def test_a_ledger_of_a_stranger_is_refused(federation: Federation) -> None:
    update = {tensor.name: federation.start().state[tensor.name] for tensor in federation.units.layout.tensors}
    with pytest.raises(UnknownClientError, match="ledgers"):
        secagg.simulate(dict.fromkeys(range(4), update), ledgers={"stranger": Ledger()})
