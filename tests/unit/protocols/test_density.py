"""Densities follow round times and never leave a coordinate without a trainer; recovery insists before it restores."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.density import DensityRule, DensityState, Recovery, RecoveryState, Verdict
from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.aggregators import Client

RULE = DensityRule()


def densities(states: Mapping[Client, DensityState]) -> dict[Client, float]:
    return {client: state.density for client, state in states.items()}


# ---------------------------------------------------------------------------------- density


def test_a_lagging_client_gives_up_nine_tenths_of_its_lag() -> None:
    states: dict[Client, DensityState] = {
        "fastest": DensityState(1.0, (9.0, 11.0)),
        "near": DensityState(1.0, (10.5,)),  # r = .048, within the tolerance
        "slow": DensityState(1.0, (20.0,)),  # r = 1/2
        "pruned": DensityState(0.5, (40.0,)),  # r = 3/4
        "slowest": DensityState(0.2, (100.0,)),  # r = .9
        "silent": DensityState(0.7),
    }
    expected = {
        "fastest": 1.0,
        "near": 1.0,
        "slow": 1 - 0.9 / 2,
        "pruned": 0.5 * (1 - 0.9 * 0.75),
        "slowest": 0.1,
        "silent": 0.7,
    }
    after = RULE.next(states, 0.1)
    assert densities(after) == pytest.approx(expected)
    assert {client: state.times for client, state in after.items()} == {c: s.times for c, s in states.items()}


def test_only_the_last_round_times_count() -> None:
    rule, state = DensityRule(interval=3), DensityState(1.0)
    assert state.mean_time is None
    for seconds in (100.0, 1.0, 2.0, 3.0):
        state = rule.observe(state, seconds)
    assert state == DensityState(1.0, (1.0, 2.0, 3.0))
    assert state.mean_time == 2


def test_nobody_is_pruned_before_a_round_time_is_known() -> None:
    states: dict[Client, DensityState] = {"a": DensityState(1.0), "b": DensityState(0.4)}
    assert RULE.next(states, 0.1) == states


def test_someone_stays_at_one_even_if_the_fastest_holds_little() -> None:
    states: dict[Client, DensityState] = {
        "pruned": DensityState(0.1, (5.0,)),
        "whole": DensityState(1.0, (10.0,)),
        "slower": DensityState(1.0, (20.0,)),
    }
    assert densities(RULE.next(states, 0.1)) == pytest.approx({"pruned": 0.1, "whole": 1, "slower": 1 - 0.9 * 0.75})


def test_where_nobody_held_everything_the_densest_and_of_those_the_fastest_does() -> None:
    states: dict[Client, DensityState] = {
        "unknown": DensityState(0.5),
        "slow": DensityState(0.5, (20.0,)),
        "fast": DensityState(0.5, (10.0,)),
        "sparse": DensityState(0.4, (1.0,)),
    }
    after = densities(RULE.next(states, 0.1))
    assert after["fast"] == 1
    assert max(after["unknown"], after["slow"], after["sparse"]) <= 0.5


def test_with_several_dense_clients_the_slowest_of_them_sets_the_pace() -> None:
    times = {"fastest": 5.0, "second": 10.0, "third": 20.0, "slow": 40.0}
    states: dict[Client, DensityState] = {client: DensityState(1.0, (seconds,)) for client, seconds in times.items()}
    after = densities(DensityRule(dense=3).next(states, 0.1))
    assert after == pytest.approx({"fastest": 1, "second": 1, "third": 1, "slow": 1 - 0.9 * 0.5})


@given(data=st.data(), dense=st.integers(1, 7), clients=st.integers(1, 6))
def test_as_many_clients_as_asked_for_hold_everything(data: st.DataObject, dense: int, clients: int) -> None:
    states: dict[Client, DensityState] = {
        client: DensityState(data.draw(st.floats(0.01, 1)), tuple(data.draw(st.lists(st.floats(0.1, 100), max_size=3))))
        for client in range(clients)
    }
    after = densities(DensityRule(dense=dense).next(states, 0.1))
    assert list(after.values()).count(1) >= min(dense, clients)
    # Who is put there although it lags held no less than those who are not.
    lifted = [states[client].density for client in states if after[client] == 1 and states[client].density < 1]
    left = [states[client].density for client in states if after[client] < 1]
    assert min(lifted, default=1) >= max(left, default=0)


def test_a_client_whose_density_changed_can_forget_its_times() -> None:
    states: dict[Client, DensityState] = {
        "fast": DensityState(1.0, (10.0,)),
        "slow": DensityState(1.0, (20.0,)),
        "at floor": DensityState(0.3, (20.0,)),
    }
    after = DensityRule(forget=True).next(states, 0.3)
    assert {client: state.times for client, state in after.items()} == {
        "fast": (10.0,),
        "slow": (),
        "at floor": (20.0,),
    }


@given(data=st.data(), floor=st.floats(0.01, 1), clients=st.integers(1, 6))
def test_whatever_the_times_all_keep_the_floor_and_one_client_everything(
    data: st.DataObject, floor: float, clients: int
) -> None:
    states: dict[Client, DensityState] = {
        client: DensityState(data.draw(st.floats(0.01, 1)), tuple(data.draw(st.lists(st.floats(0.1, 100), max_size=3))))
        for client in range(clients)
    }
    for _ in range(4):
        after = RULE.next(states, floor)
        assert max(densities(after).values()) == 1
        assert all(state.density >= floor for state in after.values())
        # Only a client that was below the floor, or that is pinned at 1, holds more than before.
        assert all(after[c].density <= max(floor, states[c].density) or after[c].density == 1 for c in states)
        states = after


@given(times=st.lists(st.floats(0.1, 100), min_size=2, max_size=6), floor=st.floats(0.01, 1))
def test_one_change_is_that_of_the_published_formula(times: list[float], floor: float) -> None:
    states: dict[Client, DensityState] = {client: DensityState(1.0, (seconds,)) for client, seconds in enumerate(times)}
    for client, state in RULE.next(states, floor).items():
        mean = states[client].times[0]
        lag = (mean - min(times)) / mean
        assert state.density == (max(floor, 1 - 0.9 * lag) if abs(lag) > 0.05 else 1)


def test_a_raised_floor_lifts_those_below_it() -> None:
    states: dict[Client, DensityState] = {"a": DensityState(1.0), "b": DensityState(0.1)}
    assert RULE.next(states, 0.3) == {"a": DensityState(1.0), "b": DensityState(0.3)}
    assert RULE.next(states, 0.05) == states


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_a_round_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="round time"):
        RULE.observe(DensityState(1.0), seconds)


def test_no_clients_and_no_floor_are_refused() -> None:
    with pytest.raises(InputError, match="at least one client"):
        RULE.next({}, 0.1)
    with pytest.raises(ParameterError, match="floor"):
        RULE.next({"a": DensityState(1.0)}, 0)


@pytest.mark.parametrize(
    "setting", [{"interval": 0}, {"dense": 0}, {"tolerance": 1.0}, {"tolerance": -0.1}, {"gain": 1.0}]
)
def test_a_density_rule_outside_its_domain_is_refused_by_name(setting: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(setting))):
        DensityRule(**setting)


# ---------------------------------------------------------------------------------- recovery


def played(rule: Recovery, state: RecoveryState, scores: list[float]) -> tuple[RecoveryState, list[Verdict]]:
    verdicts = []
    for score in scores:
        state, verdict = rule.next(state, score)
        verdicts.append(verdict)
    return state, verdicts


def test_the_best_is_restored_after_so_many_evaluations_without_a_better_one() -> None:
    rule = Recovery(patience=3)
    state, verdicts = played(rule, rule.start(), [0.5, 0.4, 0.5, 0.6, 0.1, 0.2])
    assert verdicts == ["better", "nothing", "nothing", "better", "nothing", "nothing"]
    assert state == RecoveryState(0.1, best=0.6, waited=2)
    state, verdicts = played(rule, state, [0.6, 0.3, 0.3, 0.61])
    assert verdicts == ["restore", "nothing", "nothing", "better"]
    assert state == RecoveryState(0.3, best=0.61, waited=0)


def test_the_floor_rises_by_steps_to_one_and_the_patience_then_stretches() -> None:
    rule = Recovery()
    state, _ = rule.next(rule.start(), 1.0)
    floors, waits = [], []
    for _ in range(7):
        waited, verdict = 0, "nothing"
        while verdict != "restore":
            state, verdict = rule.next(state, 0.0)
            waited += 1
        floors.append(state.floor)
        waits.append(waited)
    assert floors == [0.3, 0.5, 0.7, 0.9, 1.0, 1.0, 1.0]
    assert waits == [10, 10, 10, 10, 10, 50, 50]
    assert state.best == 1


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_refused(score: float) -> None:
    with pytest.raises(InputError, match="score"):
        Recovery().next(Recovery().start(), score)


@pytest.mark.parametrize(
    "setting",
    [{"floor": 0.0}, {"floor": 1.1}, {"patience": 0}, {"increment": -0.1}, {"increment": 2.0}, {"stretch": 0}],
)
def test_a_recovery_outside_its_domain_is_refused_by_name(setting: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(setting))):
        Recovery(**setting)


# ---------------------------------------------------------------------------------- states


def test_states_come_back_from_json_as_they_were() -> None:
    for one in (DensityState(0.3, (1.5, 2.0)), DensityState(1.0)):
        assert DensityState.from_json(json.loads(json.dumps(one.to_json()))) == one
    for state in (RecoveryState(0.3, 0.9, 4), RecoveryState(1.0)):
        assert RecoveryState.from_json(json.loads(json.dumps(state.to_json()))) == state


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"density": 0.0, "times": []},
        {"density": 1.1, "times": []},
        {"density": 1, "times": [0]},
        {"density": 1, "times": 3},
    ],
)
def test_other_data_are_no_density_state(data: Any) -> None:
    with pytest.raises(InputError, match="no density state"):
        DensityState.from_json(data)


@pytest.mark.parametrize("data", [None, {}, {"floor": 0.0}, {"floor": 1.0, "waited": -1}, {"floor": 1.0, "best": "a"}])
def test_other_data_are_no_recovery_state(data: Any) -> None:
    with pytest.raises(InputError, match="no recovery state"):
        RecoveryState.from_json(data)
