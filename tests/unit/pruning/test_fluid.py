from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pruning import Units, find_units
from pruning.fluid import (
    PUBLISHED_RAISING,
    Raising,
    agreed,
    agreed_change,
    fluid_mask,
    initial_thresholds,
    invariant_units,
    published_keep,
    raise_thresholds,
    relative_change,
    votes_needed,
)
from secagg.declaration import Provenance
from secagg.errors import InputError, LayoutMismatchError, ParameterError
from secagg.layout import Layout, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYOUT = Layout(
    (
        Tensor("first.weight", (6, 2), unit_axes={0: tuple(range(6))}),
        Tensor("second.weight", (4, 6), unit_axes={0: (6, 7, 8, 9), 1: tuple(range(6))}),
    ),
    {"first": 6, "second": 4},
)


def dense(inner: list[list[float]], bias: list[float], outer: list[list[float]]) -> dict[str, torch.Tensor]:
    return {
        "0.weight": torch.tensor(inner),
        "0.bias": torch.tensor(bias),
        "2.weight": torch.tensor(outer),
        "2.bias": torch.tensor([1.0]),
    }


BEFORE = dense([[1, -2], [4, 2]], [1, 2], [[1, 4]])


@pytest.fixture
def units() -> Units:
    return find_units(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), torch.zeros(1, 2))


def moved(draws: np.random.Generator) -> dict[str, torch.Tensor]:
    """Some of the parameters, each by one of few factors."""
    return {
        name: value * torch.from_numpy(draws.choice([1.0, 1.0, 1.25, 1.5, 0.0], tuple(value.shape)))
        for name, value in BEFORE.items()
    }


def marked(*numbers: int) -> NDArray[np.bool_]:
    return np.isin(np.arange(LAYOUT.unit_count), numbers)


def test_a_unit_changed_as_much_as_the_worst_of_all_its_parameters(units: Units) -> None:
    incoming = dense([[1, -3], [4, 2]], [1, 2], [[1, 4]])
    bias = dense([[1, -2], [4, 2]], [1, 2.5], [[1, 4]])
    outgoing = dense([[1, -2], [4, 2]], [1, 2], [[0, 5]])
    assert relative_change(units, BEFORE, incoming).tolist() == [0.5, 0]
    assert relative_change(units, BEFORE, bias).tolist() == [0, 0.25]
    assert relative_change(units, BEFORE, outgoing).tolist() == [1, 0.25]


def test_a_parameter_that_stays_at_zero_is_unchanged_and_one_that_leaves_it_is_never_invariant(units: Units) -> None:
    before = dense([[0, 1], [0, 1]], [1, 1], [[1, 1]])
    after = dense([[0, 1], [1e-30, 1]], [1, 1], [[1, 1]])
    assert relative_change(units, before, after).tolist() == [0, math.inf]


def test_a_change_too_large_for_a_number_is_infinite(units: Units) -> None:
    before = {name: value.double() for name, value in BEFORE.items()}
    before["0.bias"][0] = 1e-310
    assert relative_change(units, before, {name: value.double() for name, value in BEFORE.items()})[0] == math.inf


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.2, 0.25, 0.4, 0.5, 0.9, 1.0]))
def test_a_unit_is_invariant_for_a_client_iff_each_of_its_parameters_is(seed: int, threshold: float) -> None:
    units = find_units(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), torch.zeros(1, 2))
    after = moved(np.random.default_rng(seed))
    within = {
        name: ((after[name].double() - old.double()).abs() <= threshold * old.double().abs()).numpy()
        for name, old in BEFORE.items()
    }
    expected = [
        bool(within["0.weight"][u].all() and within["0.bias"][u] and within["2.weight"][:, u].all()) for u in (0, 1)
    ]
    found = invariant_units(units.layout, relative_change(units, BEFORE, after), {"0": threshold})
    assert found.tolist() == expected


@given(st.integers(0, 1000), st.integers(1, 6), st.sampled_from([0.5, 0.75, 1.0]))
def test_the_published_vote_is_by_parameter(seed: int, voters: int, quorum: float) -> None:
    units = find_units(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), torch.zeros(1, 2))
    draws = np.random.default_rng(seed)
    afters = [moved(draws) for _ in range(voters)]
    changes = agreed_change(units, BEFORE, afters, quorum=quorum)
    for threshold in (0.0, 0.25, 0.5, 1.0):
        enough = {
            name: np.sum([((one[name] - old).abs() <= threshold * old.abs()).numpy() for one in afters], axis=0)
            >= quorum * voters
            for name, old in BEFORE.items()
        }
        expected = [
            bool(enough["0.weight"][u].all() and enough["0.bias"][u] and enough["2.weight"][:, u].all()) for u in (0, 1)
        ]
        assert (changes <= threshold).tolist() == expected
        by_unit = np.sum([relative_change(units, BEFORE, one) <= threshold for one in afters], axis=0)
        assert not (agreed(by_unit, voters, quorum) & ~np.array(expected)).any()


def test_a_vote_without_voters_is_refused(units: Units) -> None:
    with pytest.raises(InputError, match="voter"):
        agreed_change(units, BEFORE, [])


def test_states_of_another_model_are_refused(units: Units) -> None:
    with pytest.raises(LayoutMismatchError, match="has shape"):
        relative_change(units, BEFORE, BEFORE | {"0.bias": torch.zeros(3)})
    with pytest.raises(LayoutMismatchError, match="is missing"):
        agreed_change(units, BEFORE, [BEFORE, {}])


@pytest.mark.parametrize(
    ("voters", "quorum", "needed"),
    [(20, 0.75, 15), (16, 0.75, 12), (5, 0.75, 4), (1, 0.75, 1), (10, 0.7, 7), (100, 0.07, 7), (7, 1.0, 7)],
)
def test_a_quorum_is_exact(voters: int, quorum: float, needed: int) -> None:
    assert votes_needed(voters, quorum) == needed
    assert agreed(np.array([needed - 1, needed, voters]), voters, quorum).tolist() == [False, True, True]


@pytest.mark.parametrize("quorum", [0.0, -0.5, 1.01, math.nan])
def test_a_quorum_outside_its_domain_is_refused(quorum: float) -> None:
    with pytest.raises(ParameterError, match="quorum"):
        votes_needed(4, quorum)


def test_each_group_has_a_threshold_of_its_own() -> None:
    changes = np.array([0.1, 0.2, 0.3, 0.4, math.inf, 0, 0.1, 0.2, 0.3, 0.4])
    found = invariant_units(LAYOUT, changes, {"first": 0.2, "second": 0.3})
    assert np.flatnonzero(found).tolist() == [0, 1, 5, 6, 7, 8]


def test_thresholds_and_changes_must_fit_the_layout() -> None:
    with pytest.raises(ParameterError, match="first, second"):
        invariant_units(LAYOUT, np.zeros(10), {"first": 1.0})
    with pytest.raises(LayoutMismatchError, match="10 units"):
        invariant_units(LAYOUT, np.zeros(9), {"first": 1.0, "second": 1.0})


def test_thresholds_start_at_the_most_invariant_unit_averaged_over_rounds() -> None:
    # Largest of both clients: 2 3 4 5 6 7 | 9 8 8 9, then 5 4 4 4 4 4 | 1 2 3 4 from a single client.
    second = np.array([[2, 1, 4, 1, 6, 7, 9, 1, 8, 1], [1, 3, 1, 5, 1, 7, 1, 8, 1, 9]], float)
    third = np.array([[5, 4, 4, 4, 4, 4, 1, 2, 3, 4]], float)
    assert initial_thresholds(LAYOUT, [second, third]) == {"first": (2 + 4) / 2, "second": (8 + 1) / 2}


def test_units_that_left_zero_do_not_decide_where_thresholds_start() -> None:
    changes = np.array([[math.inf, 2, math.inf, 5, 6, 7, 3, 2, math.inf, 4]])
    assert initial_thresholds(LAYOUT, [changes]) == {"first": 2, "second": 2}
    changes[0, 6:] = math.inf
    with pytest.raises(InputError, match="'second'"):
        initial_thresholds(LAYOUT, [changes])


def test_thresholds_need_an_observation() -> None:
    for observed in ([], [np.zeros((0, 10))]):
        with pytest.raises(InputError, match="at least one"):
            initial_thresholds(LAYOUT, observed)
    with pytest.raises(LayoutMismatchError):
        initial_thresholds(LAYOUT, [np.zeros((2, 9))])


def test_only_groups_with_too_few_invariant_units_get_a_higher_threshold() -> None:
    before = {"first": 1.0, "second": 2.0}
    # At keep .5 three and two units are to be dropped.
    assert raise_thresholds(LAYOUT, before, marked(0, 1, 6, 7), 0.5, 0.5) == {"first": 1.5, "second": 2.0}
    assert raise_thresholds(LAYOUT, before, marked(0, 1, 2, 6), 0.5, 0.5) == {"first": 1.0, "second": 2.5}
    assert raise_thresholds(LAYOUT, before, marked(), 1.0, 0.5) == before
    assert before == {"first": 1.0, "second": 2.0}


def test_raising_leads_to_enough_invariant_units() -> None:
    changes = np.random.default_rng(0).uniform(0, 2, 10)
    thresholds: dict[str, float] = {"first": 0.0, "second": 0.0}
    for _ in range(12):
        invariant = invariant_units(LAYOUT, changes, thresholds)
        thresholds = raise_thresholds(LAYOUT, thresholds, invariant, 0.5, 0.2)
    found = invariant_units(LAYOUT, changes, thresholds)
    assert found[:6].sum() >= 3
    assert found[6:].sum() >= 2


@pytest.mark.parametrize(
    ("data", "first"), [("cifar10", [12, 14, 16]), ("femnist", [135, 145, 155]), ("shakespeare", [23, 26, 29])]
)
def test_the_published_schedules_raise_after_a_while_and_then_at_intervals(data: str, first: list[int]) -> None:
    schedule = PUBLISHED_RAISING[data]
    assert [finished for finished in range(first[-1] + 1) if schedule.due(finished)] == first


@pytest.mark.parametrize("setting", [{"step": 0.0}, {"step": math.inf}, {"every": 0}, {"after": -1}])
def test_a_schedule_outside_its_domain_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match="must be"):
        Raising(**{"step": 1.0, "every": 1, "after": 0, **setting})  # type: ignore[arg-type]


def test_units_are_dropped_in_the_published_order() -> None:
    invariant, dropped = marked(0, 1, 2, 6, 7), marked(1, 3, 7, 8)
    for seed in range(10):
        draws = np.random.default_rng(seed)
        one = fluid_mask(LAYOUT, invariant, dropped, 0.8, draws)  # one of each group
        assert np.flatnonzero(~one.held).tolist() == [1, 7]
        three = fluid_mask(LAYOUT, invariant, dropped, 0.5, draws)  # three and two
        assert np.flatnonzero(~three.held).tolist() == [0, 1, 2, 6, 7]
        most = fluid_mask(LAYOUT, invariant, dropped, 0.3, draws)  # four and three: one random each
        assert (~most.held)[invariant].all()
        assert (~most.held).sum() == 7


def test_equal_units_are_dropped_at_random_by_the_generator_alone() -> None:
    def drawn(seed: int) -> tuple[int, ...]:
        mask = fluid_mask(LAYOUT, marked(), marked(), 0.5, np.random.default_rng(seed))
        return tuple(np.flatnonzero(mask.held).tolist())

    assert drawn(3) == drawn(3)
    assert len({drawn(seed) for seed in range(20)}) > 10


def test_the_server_issues_the_mask() -> None:
    mask = fluid_mask(LAYOUT, marked(0), marked(), 0.5, np.random.default_rng(0))
    assert mask.provenance is Provenance.PUBLIC
    with pytest.raises(LayoutMismatchError):
        fluid_mask(LAYOUT, marked(0), marked()[:5], 0.5, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("ratio", "keep"),
    [
        (1.2, 0.95),
        (0.9, 0.95),
        (0.89, 0.85),
        (0.8, 0.85),
        (0.75, 0.75),
        (0.7, 0.75),
        (0.6, 0.65),
        (0.59, 0.5),
        (0.1, 0.5),
    ],
)
def test_the_published_keep_ratios(ratio: float, keep: float) -> None:
    assert published_keep(ratio) == keep


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.nan])
def test_a_ratio_that_is_none_is_refused(ratio: float) -> None:
    with pytest.raises(InputError, match="positive"):
        published_keep(ratio)
