"""One cluster of CA-AFP: when its mask changes, by what, and what the others learn of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import secagg
from protocols.aggregators import FixedPoint, FloatMean, Uniform
from protocols.ca_afp import DEVIATIONS, AdaptivePruning, AdaptiveSettings
from protocols.fetch import Served
from protocols.results import LostRound, RoundResult
from protocols.round import RoundContext
from pruning.ca_afp import ClusterStatistics, mask_step, score
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Hashable
    from inspect import BoundArguments

    from protocols.aggregators import Aggregated, Aggregator, Contributions
    from protocols.federation import Federation
    from protocols.results import Outcome
    from protocols.simulation.calibration import Calibration
    from tests.unit.protocols.conftest import WorkAt

SIZE, BIASES = 32 * 16 + 16 * 32 + 4 * 16, 32 + 16 + 4
SETTINGS = AdaptiveSettings(density=0.5, dense_rounds=3, prune_rounds=4, step_every=2, scope="layer")
"""Mask steps at the ends of the third round and of the fifth."""


def played(
    federation: Federation,
    aggregator: Aggregator,
    calibration: Calibration,
    settings: AdaptiveSettings = SETTINGS,
    **plan: Any,
) -> tuple[AdaptivePruning, list[Outcome]]:
    system = AdaptivePruning(federation, aggregator, settings, calibration=calibration)
    return system, [outcome for outcome, _ in system.play(**{"rounds": 6, **plan})]


def densities(outcomes: list[Outcome]) -> list[float | None]:
    return [one.details["density"] if isinstance(one, RoundResult) else None for one in outcomes]


# ---------------------------------------------------------------------------------- when


def test_mask_steps_are_due_at_the_end_of_the_dense_rounds_and_every_so_many_after_them() -> None:
    steps = [AdaptiveSettings(dense_rounds=15).steps_left(rounds) for rounds in range(40)]
    assert {place: left for place, left in enumerate(steps) if left} == {14: 4, 19: 3, 24: 2, 29: 1}
    steps = [SETTINGS.steps_left(rounds) for rounds in range(8)]
    assert steps == [0, 0, 2, 0, 1, 0, 0, 0]
    uneven = AdaptiveSettings(dense_rounds=3, prune_rounds=5, step_every=3)
    assert [uneven.steps_left(rounds) for rounds in range(8)] == [0, 0, 2, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("churn", [0.0, 0.1])
def test_the_density_follows_the_schedule_round_by_round(
    federation: Federation, plain: FixedPoint, instant: Calibration, churn: float
) -> None:
    """Kernels of 512, 512 and 64: of each a quarter goes in the first of two steps, and a quarter in the second."""
    system, outcomes = played(federation, plain, instant, replace(SETTINGS, churn=churn))
    assert densities(outcomes) == [1, 1, 0.75, 0.75, 0.5, 0.5]
    active = system.kernels.active(system.mask)
    assert [int(active[place].sum()) for place in system.kernels.places] == [256, 256, 32]


def test_uneven_steps_are_rounded_toward_what_is_held_and_the_last_one_meets_the_target(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    settings = AdaptiveSettings(density=0.3, dense_rounds=1, prune_rounds=3, step_every=1, churn=0.0, scope="layer")
    _, outcomes = played(federation, plain, instant, settings, rounds=4)
    # 512: to 154 in three steps, by int(358/3) = 119, int(239/2) = 119, 120; 64: to 19, each time by 15.
    counts = [2 * (512 - 119) + 49, 2 * (512 - 238) + 34, 2 * 154 + 19, 2 * 154 + 19]
    assert densities(outcomes) == [count / SIZE for count in counts]


def test_a_start_density_is_cut_to_at_the_first_step(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    _, outcomes = played(federation, plain, instant, replace(SETTINGS, density=0.25, start_density=0.5))
    assert densities(outcomes) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_with_churn_a_step_exchanges_weights_and_without_it_masks_are_nested(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    grown = []
    for churn in (0.0, 0.1):
        settings = replace(SETTINGS, churn=churn)
        first, _ = played(federation, plain, instant, settings, rounds=4)
        second, _ = played(federation, plain, instant, settings, rounds=5)
        before, after = (system.kernels.active(system.mask) for system in (first, second))
        grown.append(int((after & ~before).sum()))
    assert grown == [0, 38 + 38 + 4]  # of 384, 384 and 48


def test_lost_rounds_do_not_move_the_schedule(federation: Federation, plain: FixedPoint, instant: Calibration) -> None:
    gone: dict[Hashable, str] = dict.fromkeys(("fast-01", "fast-02", "fast-03"), "ShareKeys")
    drawn = replace(federation, participants=8)
    system, outcomes = played(drawn, plain, instant, rounds=8, dropouts={1: gone, 3: gone})
    assert [one.number for one in outcomes if isinstance(one, LostRound)] == [1, 3]
    assert densities(outcomes) == [1, None, 1, None, 0.75, 0.75, 0.5, 0.5]
    assert system.played == 6


# ---------------------------------------------------------------------------------- by what


@pytest.mark.parametrize("terms", ["scaled", "rank"])
@pytest.mark.parametrize("rounds", [3, 5])
def test_a_step_is_that_of_what_clients_trained_and_of_their_gradients(
    federation: Federation, instant: Calibration, work_at: WorkAt, terms: Any, rounds: int
) -> None:
    """Also where what counts of them was sent at some weights only, and some grow back."""
    settings = replace(SETTINGS, terms=terms, churn=0.1)
    floats = FloatMean(federation.units.layout)
    system = AdaptivePruning(federation, floats, settings, calibration=instant)
    *_, (_, before), (_, _) = system.play(rounds)

    other = AdaptivePruning(federation, floats, settings, calibration=instant)
    other.recall(before.memory)
    kernels, start = other.kernels, other.kernels.values(before.state)
    served = Served(floats.layout, before.state)
    context = RoundContext(rounds - 1, federation.model_at(before), before.state, served)
    work = work_at(other, before)
    own = np.stack([kernels.values(one.model.state_dict()) for one in work.values()])
    gradients = np.stack([other.gradient(context, client) for client in work])
    statistics = ClusterStatistics(
        mean_deviation=(own - start).mean(axis=0),
        mean_square=((own - start) ** 2).mean(axis=0),
        mean_sign=np.sign(gradients).mean(axis=0),
        mean_gradient=gradients.mean(axis=0),
    )
    assert np.allclose(statistics.variance, own.var(axis=0), atol=1e-9)
    active = kernels.active(other.mask)
    scores = score(kernels, own.mean(axis=0), statistics, active, settings.score)
    wanted = mask_step(other.mask, scores, statistics.mean_gradient, settings.schedule, 2 if rounds == 3 else 1)
    differing = kernels.active(wanted) != kernels.active(system.mask)
    assert differing.sum() <= 2  # what float32 rounds otherwise
    assert (kernels.active(wanted) & ~active).any() == (rounds == 5)


def test_gradients_are_sent_where_nothing_is_held_and_all_else_where_something_is(
    federation: Federation, instant: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = given(monkeypatch, FloatMean)
    floats = FloatMean(federation.units.layout)
    system = AdaptivePruning(federation, floats, SETTINGS, calibration=instant)
    *_, (_, before), (_, _) = system.play(5)
    other = AdaptivePruning(federation, floats, SETTINGS, calibration=instant)
    other.recall(before.memory)
    served = Served(floats.layout, before.state)
    context = RoundContext(4, federation.model_at(before), before.state, served)
    held = other.kernels.active(other.mask)
    assert 0 < held.sum() < SIZE
    for client, own in sessions[4][0].items():
        gradient = other.gradient(context, client)
        assert np.allclose(own["gradient"], gradient[~held], atol=1e-6)
        assert np.array_equal(own["sign"], np.sign(gradient[held]))
        assert len(own["square"]) == held.sum()


def given(monkeypatch: pytest.MonkeyPatch, kind: type[FixedPoint | FloatMean]) -> list[Any]:
    """What clients gave to every session, with whatever is in it besides updates, and its settings."""
    sessions: list[Any] = []

    def noted(aggregator: Aggregator, given: Contributions) -> Aggregated:
        sessions.append((given.updates, aggregator.params))
        return mean_of(aggregator, given)

    mean_of: Any = kind.mean_of
    monkeypatch.setattr(kind, "mean_of", noted)
    return sessions


def test_a_round_has_one_session_so_whoever_leaves_is_in_no_sum_of_it(
    federation: Federation, instant: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two, the sums of gradients and of updates would differ by who left in between, and show that client."""
    sessions = given(monkeypatch, FloatMean)
    floats = FloatMean(federation.units.layout)
    system, _ = played(federation, floats, instant, rounds=3, dropouts={2: {"fast-02": "ShareKeys"}})
    assert [len(updates["fast-01"]) - len(floats.layout.tensors) for updates, _ in sessions] == [0, 0, 2]

    other = AdaptivePruning(federation, floats, SETTINGS, calibration=instant)
    (_, _), (_, start) = other.play(2)
    before = other.kernels.values(start.state)

    def mask_of(updates: list[Any]) -> Any:
        means = {name: torch.stack([own[name].double() for own in updates]).mean(dim=0) for name in updates[0]}
        moved = other.kernels.values(means)
        taken = {name: mean.numpy() for name, mean in means.items()} | {"gradient": np.zeros(SIZE)}  # nothing regrows
        statistics = ClusterStatistics.of(other.kernels, moved, taken)
        scores = score(other.kernels, before + moved, statistics, np.ones(SIZE, bool), SETTINGS.score)
        return other.kernels.active(mask_step(other.mask, scores, statistics.mean_gradient, SETTINGS.schedule, 2))

    updates, _ = sessions[2]
    those_left = mask_of([own for client, own in updates.items() if client != "fast-02"])
    found = system.kernels.active(system.mask)
    assert (those_left != found).sum() <= 2  # what float32 rounds otherwise
    assert (mask_of(list(updates.values())) != found).sum() > 20


def test_bounds_are_public_and_everything_is_within_them(
    federation: Federation, plain: FixedPoint, instant: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = given(monkeypatch, FixedPoint)
    played(federation, plain, instant, replace(SETTINGS, largest_gradient=0.01), rounds=5)
    updates, params = sessions[4]
    ranges = {name: params.range_of(name) for name in ("square", "sign", "gradient", "anything else")}
    deviation = DEVIATIONS * 0.1 * 3  # the learning rate times the steps
    assert ranges == {
        "square": pytest.approx(deviation**2),
        "sign": 1.0,
        "gradient": 0.01,
        "anything else": plain.params.value_range,
    }
    for own in updates.values():
        assert all(own[name].abs().max() <= ranges[name] for name in ("square", "sign", "gradient"))
        assert own["gradient"].abs().max() == 0.01


def test_a_mask_round_is_bound_to_the_model_that_clients_were_handed(
    federation: Federation, uniform: Uniform, instant: Calibration, sessions: list[BoundArguments]
) -> None:
    played(federation, uniform, instant, replace(SETTINGS, dense_rounds=1), rounds=1)
    roots = [session.arguments["model_root"] for session in sessions]
    assert roots == [Served(federation.units.layout, federation.start().state).root]


# ---------------------------------------------------------------------------------- at what cost


@pytest.mark.parametrize(("kind", "width", "besides"), [(FloatMean, 4, (1, 1)), (FixedPoint, 3, (2, 1.75))])
def test_a_mask_step_costs_its_means_and_saves_what_is_dropped(
    federation: Federation, instant: Calibration, kind: Any, width: int, besides: tuple[float, float]
) -> None:
    """Squares and signs of what is held, gradients of what is not; in floating point the server knows the squares."""
    _, outcomes = played(federation, kind(federation.units.layout), instant)
    sent = [one.clients["fast-01"].upload_bytes for one in outcomes if isinstance(one, RoundResult)]
    whole, three_quarters, half = (int(share * SIZE) + BIASES for share in (1, 0.75, 0.5))
    # What is summed besides has a finer grid, of four bytes, and the updates of its session with it.
    assert sent == [
        width * whole,
        width * whole,
        4 * (whole + besides[0] * SIZE),
        width * three_quarters,
        4 * (three_quarters + besides[1] * SIZE),
        width * half,
    ]


def test_the_batch_of_a_mask_step_is_among_the_operations(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    _, outcomes = played(federation, plain, instant)
    flops = [one.clients["fast-01"].flops for one in outcomes if isinstance(one, RoundResult)]
    steps = federation.training.steps
    assert [round(steps * one / flops[0], 6) for one in flops] == [steps + due for due in (0, 0, 1, 0, 1, 0)]


def test_what_is_summed_besides_is_in_the_verdict_of_its_round(
    federation: Federation, uniform: Uniform, instant: Calibration
) -> None:
    result, _ = AdaptivePruning(federation, uniform, SETTINGS, calibration=instant).run(6)
    for said, rounds in (("square, sign", [0, 0, 1, 0, 0, 0]), ("square, sign, gradient", [0, 0, 0, 0, 1, 0])):
        assert [one.verdict.count(f"It sums {said} beside the updates") for one in result.rounds] == rounds
    assert {one.verdict.count("uniform sum over 8 survivors") for one in result.rounds} == {1}


# ---------------------------------------------------------------------------------- encrypted


def test_an_encrypted_run_with_dropouts_ends_at_the_same_model_and_mask_as_its_twin(
    federation: Federation, instant: Calibration
) -> None:
    secure = Uniform(federation.units.layout, secagg.Params(min_cohort=3, max_dropouts=2))
    dropouts: dict[int, dict[Hashable, str]] = {2: {"fast-02": "ShareKeys"}, 3: {"straggler-01": "MaskedInput"}}
    system = AdaptivePruning(federation, secure, SETTINGS, twin=secure.twin, calibration=instant)
    clear = AdaptivePruning(federation, secure.twin, SETTINGS, calibration=instant)
    result, end = system.run(5, dropouts=dropouts)
    _, other = clear.run(5, dropouts=dropouts)
    assert result.difference == 0
    assert system.mask == clear.mask
    assert system.kernels.density(system.mask) == 0.5
    assert all(torch.equal(tensor, other.state[name]) for name, tensor in end.state.items())


def test_squares_are_summed_over_three_at_least(federation: Federation) -> None:
    layout, two = federation.units.layout, secagg.Params(min_cohort=2, max_dropouts=2)
    with pytest.raises(ParameterError, match="min_cohort must be at least 3"):
        AdaptivePruning(federation, Uniform(layout, two))
    assert AdaptivePruning(federation, FixedPoint(layout, two)).settings == AdaptiveSettings()


# ---------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"density": 0.0},
        {"density": 0.01},
        {"density": 0.5, "start_density": 0.4},
        {"start_density": 1.1},
        {"dense_rounds": 0},
        {"step_every": 0},
        {"step_every": 21},
        {"churn": 1.0},
        {"scope": "nowhere"},
        {"alpha": 0.0, "beta": 0.0, "gamma": 0.0},
        {"alpha": -1.0},
        {"coherence": "none"},
        {"terms": "none"},
        {"largest_gradient": 0.0},
        {"largest_gradient": float("inf")},
    ],
)
def test_settings_outside_their_domain_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        AdaptiveSettings(**wrong)


def test_the_name_says_the_aggregator(federation: Federation, plain: FixedPoint) -> None:
    assert AdaptivePruning(federation, plain).name == "adaptive pruning plain"
