"""A depth follows a device only when it insists, and the measures of MA-CLAMP are those of hand-made rounds."""

from __future__ import annotations

import json
from itertools import groupby, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from protocols.depth import (
    ByResources,
    DepthRule,
    DepthState,
    DeviceSignals,
    Suggestion,
    Thresholds,
    by_time,
    layers_recovered,
    sdir,
    straggler_count,
)
from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocols.aggregators import Client
    from protocols.depth import Suggest

RULE = DepthRule(t_high=10.0, t_low=4.0, deepest=5)
LIMITS = Thresholds(t_high=10.0, t_low=4.0)
EVERY: tuple[Suggestion, ...] = (-1, 0, 1)


def depth_by_runs(suggestions: Iterable[int], start: int, rule: DepthRule) -> int:
    """By definition: a run of n equal suggestions is worth n // patience steps, each within the bounds."""
    depth = start
    for step, run in groupby(suggestions):
        for _ in range(len(list(run)) // rule.patience):
            depth = min(max(depth + step, rule.shallowest), rule.deepest)
    return depth


# ---------------------------------------------------------------------------------- hysteresis


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize(("shallowest", "deepest"), [(1, 3), (2, 4), (2, 2)])
def test_every_short_history_leads_where_its_runs_lead(patience: int, shallowest: int, deepest: int) -> None:
    rule = DepthRule(t_high=2, t_low=1, deepest=deepest, shallowest=shallowest, patience=patience)
    for history in product(EVERY, repeat=7):
        state = rule.start(2)
        for place, suggestion in enumerate(history):
            state = rule.next(state, suggestion)
            assert state.depth == depth_by_runs(history[: place + 1], 2, rule)
            assert state.suggestion == suggestion
            assert 0 <= state.streak < patience


def test_the_third_equal_suggestion_counts_and_the_streak_starts_anew() -> None:
    state, seen = DepthState(3), []
    for suggestion in (1, 1, 1, 1, 1, -1, 1, 1, 1, 1):
        state = RULE.next(state, suggestion)
        seen.append((state.depth, state.streak))
    assert seen == [(3, 1), (3, 2), (4, 0), (4, 1), (4, 2), (4, 1), (4, 1), (4, 2), (5, 0), (5, 1)]


def test_a_state_is_never_changed_in_place() -> None:
    state = DepthState(3, 1, 2)
    assert RULE.next(state, 1) == DepthState(4, 1, 0)
    assert state == DepthState(3, 1, 2)


def test_a_start_outside_the_bounds_begins_at_the_nearest_bound() -> None:
    rule = DepthRule(t_high=2, t_low=1, deepest=4, shallowest=2)
    assert [rule.start(depth).depth for depth in (1, 2, 3, 4, 9)] == [2, 2, 3, 4, 4]


def test_a_state_comes_back_from_json_as_it_was() -> None:
    for depth, suggestion, streak in product((1, 7), EVERY, (0, 2)):
        state = DepthState(depth, suggestion, streak)
        text = json.dumps(state.to_json())
        assert DepthState.from_json(json.loads(text)) == state


@pytest.mark.parametrize(
    "data",
    [
        None,
        [3, 0, 0],
        {"suggestion": 0, "streak": 0},
        {"depth": 0, "suggestion": 0, "streak": 0},
        {"depth": 2, "suggestion": 2, "streak": 0},
        {"depth": 2, "suggestion": 0, "streak": -1},
        {"depth": 2.5, "suggestion": 0, "streak": 0},
    ],
)
def test_other_data_are_no_state(data: Any) -> None:
    with pytest.raises(InputError, match="no depth state"):
        DepthState.from_json(data)


@pytest.mark.parametrize("values", [(0, 0, 0), (1, 2, 0), (1, 0, -1)])
def test_a_state_outside_its_domain_is_refused(values: tuple[Any, Any, Any]) -> None:
    with pytest.raises(ParameterError):
        DepthState(*values)


# ---------------------------------------------------------------------------------- thresholds and suggestions


def test_thresholds_differ_by_the_last_digit_of_the_clients_number() -> None:
    found = [RULE.thresholds(number) for number in (0, 1, 9, 13)]
    assert [limits.t_high for limits in found] == pytest.approx([8, 10, 26, 14])
    assert [limits.t_low for limits in found] == pytest.approx([2.8, 3.2, 6.4, 4.0])
    assert RULE.thresholds(13) == RULE.thresholds(3)
    assert DepthRule(t_high=10, t_low=4, deepest=5, jitter=False).thresholds(13) == LIMITS


def test_no_client_is_slow_and_fast_at_once_however_near_the_thresholds_are() -> None:
    rule = DepthRule(t_high=10, t_low=float(np.nextafter(10, 0)), deepest=5)
    limits = [rule.thresholds(number) for number in range(10)]
    assert all(0 < one.t_low < one.t_high for one in limits)


@pytest.mark.parametrize(
    ("seconds", "suggestion"), [(0, 1), (3.9, 1), (4, 0), (7, 0), (10, 0), (10.1, -1), (float("inf"), -1)]
)
@pytest.mark.parametrize("suggest", [by_time, ByResources()])
def test_time_alone_decides_where_nothing_else_is_known(
    suggest: Suggest, seconds: float, suggestion: Suggestion
) -> None:
    assert suggest(DeviceSignals(seconds=seconds), LIMITS) == suggestion


@pytest.mark.parametrize(
    "short", [{"cpu_load": 0.91}, {"bandwidth": 15999.0}, {"battery": 0.19}, {"battery": 0.0, "cpu_load": 1.0}]
)
def test_a_device_that_is_short_of_anything_trains_less_however_fast_it_is(short: dict[str, float]) -> None:
    plenty = {"cpu_load": 0.1, "bandwidth": 1e6, "battery": 0.9}
    for seconds in (1, 7, 20):
        assert ByResources()(DeviceSignals(seconds=seconds, **{**plenty, **short}), LIMITS) == -1
    assert by_time(DeviceSignals(seconds=1, **{**plenty, **short}), LIMITS) == 1


@pytest.mark.parametrize(("seconds", "suggestion"), [(1, 1), (7, 0), (20, -1)])
def test_a_device_at_its_limits_is_short_of_nothing(seconds: float, suggestion: Suggestion) -> None:
    signals = DeviceSignals(seconds=seconds, cpu_load=0.9, bandwidth=16e3, battery=0.2)
    assert ByResources()(signals, LIMITS) == suggestion


def test_limits_can_be_chosen() -> None:
    signals = DeviceSignals(seconds=1, cpu_load=0.5, bandwidth=1e5, battery=0.5)
    assert ByResources()(signals, LIMITS) == 1
    for strict in (ByResources(cpu_load=0.4), ByResources(bandwidth=2e5), ByResources(battery=0.6)):
        assert strict(signals, LIMITS) == -1


@pytest.mark.parametrize(
    "signals",
    [{"seconds": -1}, {"seconds": float("nan")}, {"cpu_load": 1.1}, {"bandwidth": -1}, {"battery": 20}],
)
def test_a_signal_outside_its_domain_is_refused_by_name(signals: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(signals))):
        DeviceSignals(**{"seconds": 1.0, **signals})


@pytest.mark.parametrize("limits", [{"cpu_load": 1.1}, {"battery": -0.1}, {"bandwidth": -1}])
def test_a_limit_outside_its_domain_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=next(iter(limits))):
        ByResources(**limits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t_low": 10.0}, "t_low 10.0 must be less than t_high"),
        ({"t_low": -1.0}, "neither negative"),
        ({"t_high": float("nan")}, "t_high nan"),
        ({"t_high": float("inf")}, "t_high inf"),
        ({"deepest": 0}, "deepest 0"),
        ({"shallowest": 0}, "shallowest 0"),
        ({"shallowest": 6}, "shallowest 6"),
        ({"patience": 0}, "patience"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        DepthRule(**{"t_high": 10.0, "t_low": 4.0, "deepest": 5, **changes})


# ---------------------------------------------------------------------------------- measures

TIMES: dict[Client, float] = {"a": 8.0, "b": 10.0, "c": 12.0, "d": 18.0, "e": 19.0}
"""Median 12: stragglers take more than 18 seconds, and slow clients count up to 21.6."""


def test_stragglers_take_longer_than_half_again_the_median() -> None:
    assert straggler_count(TIMES) == 1
    assert straggler_count(TIMES, gamma=1.2) == 2
    assert straggler_count({"a": 5.0, "b": 5.0}) == 0
    assert straggler_count({"a": 1.0, "b": 3.0, "c": 1.0, "d": 3.1}) == 1  # median 2


def test_sdir_is_the_share_of_slow_participants_in_time() -> None:
    assert sdir(TIMES, {"d", "e"}) == 1
    assert sdir(TIMES, {"d", "e"}, gamma=1.3) == 0.5  # up to 18.72
    assert sdir(TIMES | {"e": 21.5}, {"e"}) == 1
    assert sdir(TIMES | {"e": 21.7}, {"e"}) == 0
    assert sdir(TIMES, {"d", "absent"}) == 1


def test_a_round_without_slow_participants_has_no_sdir() -> None:
    assert sdir(TIMES, {"absent"}) is None
    assert sdir(TIMES, ()) is None


def test_recovered_layers_are_those_aggregated_beyond_the_smallest_depth() -> None:
    aggregated = (False, True, True, True, True)
    assert layers_recovered(aggregated, [2, 4, 5, 5]) == 2
    assert layers_recovered(aggregated, [1, 5]) == 3
    assert layers_recovered(aggregated, [4]) == 0
    assert layers_recovered((True,) * 5, [5, 5]) == 0
    # The blocks of the smallest depth never count, even if they were withheld.
    assert layers_recovered((True, True, False), [1, 3, 3]) == 2


@pytest.mark.parametrize("depths", [[], [0, 2], [4]])
def test_depths_that_the_model_does_not_have_recover_nothing(depths: list[int]) -> None:
    with pytest.raises(InputError, match="depths from 1 to 3"):
        layers_recovered((True, True, True), depths)


def test_a_round_without_participants_has_no_stragglers_to_count() -> None:
    with pytest.raises(InputError, match="without participants"):
        straggler_count({})
    with pytest.raises(InputError, match="without participants"):
        sdir({}, {"a"})
