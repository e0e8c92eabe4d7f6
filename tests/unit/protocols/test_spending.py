"""Differential privacy of a run: who is charged for what, how it goes on after a stop, who can have it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from protocols.aggregators import FixedPoint, MaskIndexed, Uniform
from protocols.baselines.fedavg import FedAvg
from protocols.baselines.sub_fedavg import SubFedAvg
from protocols.baselines.submodels import RandomDropout
from protocols.clip import Clip, ClipSettings
from protocols.pr_fl import PrFl
from protocols.results import LostRound, RoundResult
from protocols.sample_level.training import SampleLevel
from protocols.spending import Spending
from secagg.errors import InputError, ParameterError
from secagg.params import Params
from secagg.privacy.events import Gaussian, NonPrivate
from secagg.privacy.settings import Privacy

if TYPE_CHECKING:
    from protocols.aggregators import Client
    from protocols.federation import Checkpoint, Federation
    from protocols.simulation.calibration import Calibration
    from protocols.system import System

PARAMS = Params(min_cohort=3, max_dropouts=2, privacy=Privacy(clip=0.5, noise_multiplier=2.0))
ROUND = Gaussian(noise_multiplier=2.0)


def played(system: System, rounds: int, start: Checkpoint | None = None) -> tuple[list[RoundResult], Checkpoint]:
    found = []
    for outcome, checkpoint in system.play(rounds, start):  # noqa: B007 - the last one is where it ended
        assert isinstance(outcome, RoundResult)
        found.append(outcome)
    return found, checkpoint


def test_the_most_that_any_client_has_spent_is_told() -> None:
    spending = Spending(1e-5)
    assert spending.epsilon == 0
    spending.record(["a", "b"], ROUND)
    once = spending.epsilon
    spending.record(["b"], ROUND)
    assert once < spending.epsilon < 2 * once
    assert spending.ledgers["a"].epsilon(1e-5) == once


def test_what_was_spent_is_remembered() -> None:
    spending, again = Spending(1e-5), Spending(1e-5)
    spending.record(["a"], ROUND)
    again.recall(spending.remember())
    assert again.epsilon == spending.epsilon > 0
    again.record(["a"], NonPrivate(reason="a test"))
    assert math.isinf(again.epsilon)
    with pytest.raises(InputError, match="no privacy ledger"):
        again.recall({"a": {"events": [{"kind": "unknown"}]}})


def test_every_round_costs_and_tells_so(federation: Federation, instant: Calibration) -> None:
    rounds, _ = played(FedAvg(federation, Uniform(federation.units.layout, PARAMS), calibration=instant), 3)
    spent = [one.details["epsilon"] for one in rounds]
    assert 0 < spent[0] < spent[1] < spent[2] < 3 * spent[0]
    assert f"epsilon {spent[0]:.3g} at delta 1e-05 for this session" in rounds[0].verdict


def test_only_those_in_the_sum_are_charged(federation: Federation, instant: Calibration) -> None:
    system = FedAvg(federation, Uniform(federation.units.layout, PARAMS), calibration=instant)
    system.run(1, dropouts={0: {"fast-02": "ShareKeys"}})
    assert system.spending is not None
    assert set(system.spending.ledgers) == set(federation.fleet.names) - {"fast-02"}


def test_a_run_that_goes_on_has_spent_what_it_had(federation: Federation, instant: Calibration) -> None:
    def system() -> FedAvg:
        return FedAvg(federation, Uniform(federation.units.layout, PARAMS), calibration=instant)

    whole, _ = played(system(), 4)
    _, stopped = played(system(), 2)
    rest, _ = played(system(), 2, stopped)
    assert [one.details["epsilon"] for one in rest] == [one.details["epsilon"] for one in whole[2:]]


def test_the_twin_in_the_clear_stands_for_the_same_noise(federation: Federation, instant: Calibration) -> None:
    secure, _ = played(FedAvg(federation, Uniform(federation.units.layout, PARAMS), calibration=instant), 1)
    plain, _ = played(FedAvg(federation, FixedPoint(federation.units.layout, PARAMS), calibration=instant), 1)
    assert plain[0].details["epsilon"] == secure[0].details["epsilon"]


def test_submodels_that_no_data_chose_keep_the_guarantee(federation: Federation, instant: Calibration) -> None:
    system = RandomDropout(federation, MaskIndexed(federation.units.layout, PARAMS), calibration=instant)
    (first, *_), _ = played(system, 2)
    assert 0 < first.details["epsilon"] < 10


def test_sessions_without_noise_end_the_guarantee(federation: Federation, instant: Calibration) -> None:
    system = Clip(
        federation,
        MaskIndexed(federation.units.layout, PARAMS),
        ClipSettings(statistic="vote"),
        calibration=instant,
    )
    rounds, _ = played(system, 2)
    assert math.isinf(rounds[-1].details["epsilon"])


LEAVE: dict[Client, str] = dict.fromkeys(("fast-01", "fast-02", "fast-03", "fast-04"), "ShareKeys")


def spent_in_a_lost_round(system: System) -> float:
    """What the first round costs, of which too many leave."""
    ((outcome, _),) = system.play(1, dropouts={0: LEAVE})
    assert isinstance(outcome, LostRound)
    assert system.spending is not None
    return system.spending.epsilon


def test_a_round_that_is_lost_before_anything_was_released_costs_nothing(
    federation: Federation, instant: Calibration
) -> None:
    drawn = replace(federation, participants=len(federation.examples))
    assert spent_in_a_lost_round(FedAvg(drawn, Uniform(drawn.units.layout, PARAMS), calibration=instant)) == 0


def test_what_clients_conferred_about_costs_even_where_the_round_is_lost(
    federation: Federation, instant: Calibration
) -> None:
    drawn = replace(federation, participants=len(federation.examples))
    system = Clip(drawn, MaskIndexed(drawn.units.layout, PARAMS), ClipSettings(statistic="vote"), calibration=instant)
    assert math.isinf(spent_in_a_lost_round(system))
    assert system.spending is not None
    assert set(system.spending.ledgers) == set(federation.fleet.names)


def test_a_system_that_releases_more_than_sums_of_updates_is_refused(federation: Federation) -> None:
    setup = replace(federation, validation=federation.test)
    with pytest.raises(ParameterError, match="PrFl releases more than noisy updates: leave out epsilon"):
        PrFl(setup, MaskIndexed(federation.units.layout, PARAMS))


# ---------------------------------------------------------------------------------- examples


def test_masks_that_depend_on_accuracy_have_no_budget(federation: Federation) -> None:
    with pytest.raises(ParameterError, match="SubFedAvg releases more than noisy updates: leave out epsilon"):
        SubFedAvg(federation, MaskIndexed(federation.units.layout, PARAMS))


@pytest.fixture
def private(federation: Federation) -> Federation:
    return replace(federation, training=replace(federation.training, sample_level=SampleLevel(noise_multiplier=2.0)))


def test_training_with_private_examples_costs_everybody_who_trained(private: Federation, instant: Calibration) -> None:
    plain = Uniform(private.units.layout, replace(PARAMS, privacy=None))
    system = FedAvg(private, plain, calibration=instant)
    result, _ = system.run(2, dropouts={0: {"fast-02": "ShareKeys"}})
    spent = [one.details["epsilon"] for one in result.rounds]
    assert 0 < spent[0] < spent[1] < 2 * spent[0]
    assert system.spending is not None
    assert set(system.spending.ledgers) == set(private.fleet.names)
    assert f"by DP-SGD: epsilon {spent[1]:.3g}" in result.rounds[1].verdict


def test_what_is_said_of_privately_trained_models_costs_nothing_more(private: Federation, instant: Calibration) -> None:
    layout = private.units.layout
    voted = Clip(
        private,
        MaskIndexed(layout, replace(PARAMS, privacy=None)),
        ClipSettings(statistic="vote"),
        calibration=instant,
    )
    average = FedAvg(private, Uniform(layout, replace(PARAMS, privacy=None)), calibration=instant)
    assert played(voted, 2)[0][-1].details["epsilon"] == played(average, 2)[0][-1].details["epsilon"]


def test_a_simulation_with_private_examples_repeats(private: Federation, instant: Calibration) -> None:
    plain = FixedPoint(private.units.layout, replace(PARAMS, privacy=None))
    (one, _), (again, _) = (FedAvg(private, plain, calibration=instant).run(2) for _ in range(2))
    assert [each.accuracy for each in one.rounds] == [each.accuracy for each in again.rounds]


def test_one_budget_is_enough(private: Federation) -> None:
    with pytest.raises(ParameterError, match="choose one unit"):
        FedAvg(private, Uniform(private.units.layout, PARAMS))
