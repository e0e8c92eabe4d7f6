"""FLuID's server sees every update that arrives, and from it which units stragglers can do without."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from protocols.aggregators import FixedPoint, FloatMean, MaskIndexed, Uniform
from protocols.baselines.fedavg import FedAvg
from protocols.baselines.fluid import Fluid, FluidSettings
from pruning.fluid import published_keep
from pruning.masks import kept_units
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import ArrayLike

    from protocols.aggregators import Aggregator
    from protocols.federation import Checkpoint, Federation
    from protocols.results import RoundResult
    from protocols.simulation.calibration import Calibration
    from secagg.params import Mode
    from tests.unit.protocols.conftest import WorkAt

STRAGGLERS = ("straggler-01", "straggler-02")
FIRST_VOTE = 3
"""Rounds that have to end before thresholds are known."""


@pytest.fixture(scope="module")
def played(federation: Federation, plain: FixedPoint, instant: Calibration) -> list[tuple[RoundResult, Checkpoint]]:
    """Ten rounds in which stragglers keep half of the units."""
    return fluid_rounds(federation, plain, instant, FluidSettings(keep=0.5, step=0.1), 10)


def fluid_rounds(
    federation: Federation, aggregator: Aggregator, instant: Calibration, settings: FluidSettings, rounds: int
) -> list[tuple[RoundResult, Checkpoint]]:
    return list(Fluid(federation, aggregator, settings, calibration=instant).play(rounds))  # type: ignore[arg-type]


def by_group(federation: Federation, invariant: ArrayLike) -> dict[str, int]:
    layout = federation.units.layout
    return {group: int(np.asarray(invariant)[layout.units_of(group)].sum()) for group in layout.unit_groups}


@pytest.mark.parametrize("kind", [Uniform, MaskIndexed])
def test_an_aggregator_that_hides_updates_is_refused(federation: Federation, kind: type[Aggregator]) -> None:
    with pytest.raises(ParameterError, match="aggregation"):
        Fluid(federation, kind(federation.units.layout))


@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
def test_it_drops_units_for_stragglers_only_and_from_the_first_round_on(
    federation: Federation, instant: Calibration, mode: Mode
) -> None:
    aggregator = FloatMean(federation.units.layout, mode)
    for one, _ in fluid_rounds(federation, aggregator, instant, FluidSettings(keep=0.5), 4):
        for name, client in one.clients.items():
            assert client.keep == (0.5 if name in STRAGGLERS else 1.0)
            assert (client.parameters < one.clients["fast-01"].parameters) == (name in STRAGGLERS)


def test_it_drops_at_random_until_thresholds_are_known(
    federation: Federation, played: list[tuple[RoundResult, Checkpoint]]
) -> None:
    checkpoints = [checkpoint for _, checkpoint in played[: FIRST_VOTE - 1]]
    assert [checkpoint.memory["thresholds"] for checkpoint in checkpoints] == [{}, {}]
    assert not any(checkpoint.memory["invariant"].any() for checkpoint in checkpoints)
    dropped = [tuple(units.tolist()) for one in checkpoints for units in one.memory["dropped"].values()]
    assert len(set(dropped)) == len(dropped) == 4
    assert set(played[FIRST_VOTE - 1][1].memory["thresholds"]) == set(federation.units.layout.unit_groups)


def test_a_threshold_rises_step_by_step_until_as_many_units_are_invariant_as_are_dropped(
    federation: Federation, played: list[tuple[RoundResult, Checkpoint]]
) -> None:
    voted = [checkpoint.memory for _, checkpoint in played[FIRST_VOTE - 1 :]]
    wanted = {group: size - kept_units(size, 0.5) for group, size in federation.units.layout.unit_groups.items()}
    rises = []
    for before, after in pairwise(voted):
        found = by_group(federation, after["invariant"])
        for group, threshold in after["thresholds"].items():
            rises.append(found[group] < wanted[group])
            assert threshold == before["thresholds"][group] + (0.1 if rises[-1] else 0)
    assert True in rises
    assert False in rises


def test_results_say_what_share_of_the_units_was_invariant(
    played: list[tuple[RoundResult, Checkpoint]],
) -> None:
    for number, (one, checkpoint) in enumerate(played, 1):
        if number < FIRST_VOTE:
            assert one.details == {}
        else:
            assert one.details == {"invariant units": checkpoint.memory["invariant"].numpy().mean()}


def test_once_enough_units_are_invariant_no_other_is_dropped_and_the_same_ones_stay_so(
    federation: Federation,
    plain: FixedPoint,
    played: list[tuple[RoundResult, Checkpoint]],
    work_at: WorkAt,
) -> None:
    system = Fluid(federation, plain, FluidSettings(keep=0.5, step=0.1))
    layout = federation.units.layout
    enough = 0
    for _, checkpoint in played:
        invariant = checkpoint.memory["invariant"].numpy()
        found, work = by_group(federation, invariant), work_at(system, checkpoint)
        for client in STRAGGLERS:
            dropped, before = ~work[client].mask.held, checkpoint.memory["dropped"][client].numpy()
            for group, size in layout.unit_groups.items():
                own, wanted = layout.units_of(group), size - kept_units(size, 0.5)
                assert (dropped & invariant)[own].sum() == min(wanted, found[group])
                assert (dropped & invariant & before)[own].sum() == min(wanted, (invariant & before)[own].sum())
                enough += found[group] >= wanted
    assert enough > 0


def test_published_keep_ratios_come_from_the_table(federation: Federation, plain: FixedPoint) -> None:
    system = Fluid(federation, plain, FluidSettings(keep_rule="published", budget="compute"))
    assert system.keep == dict.fromkeys(STRAGGLERS, 0.5)  # at half the speed the ratio of times is a half
    like = federation.fleet.rest[0]
    nearer = tuple(
        replace(device, flops_per_second=0.75 * like.flops_per_second) if device.straggler else device
        for device in federation.fleet.devices
    )
    setup = replace(federation, fleet=replace(federation.fleet, devices=nearer))
    system = Fluid(setup, plain, FluidSettings(keep_rule="published", budget="compute"))
    assert system.keep == dict.fromkeys(STRAGGLERS, published_keep(0.74))
    assert published_keep(0.74) == 0.75


def test_a_keep_ratio_that_is_set_overrides_the_table(federation: Federation, plain: FixedPoint) -> None:
    system = Fluid(federation, plain, FluidSettings(keep_rule="published", keep=0.8))
    assert system.keep == dict.fromkeys(STRAGGLERS, 0.8)


def test_the_first_raise_waits_as_long_as_set(federation: Federation, plain: FixedPoint, instant: Calibration) -> None:
    patient = fluid_rounds(federation, plain, instant, FluidSettings(keep=0.5, step=1e-9, after=2, every=2), 8)
    thresholds = [checkpoint.memory["thresholds"] for _, checkpoint in patient[FIRST_VOTE - 1 :]]
    raised = [before != after for before, after in pairwise(thresholds)]
    assert raised == [False, False, True, False, True]


def test_a_round_of_stragglers_alone_teaches_nothing(federation: Federation, instant: Calibration) -> None:
    """With one participant a round, now and then a straggler is alone."""
    setup = replace(federation, participants=1)
    aggregator = FloatMean(federation.units.layout)
    alone = [number for number in range(12) if setup.cohort(number)[0] in STRAGGLERS]
    rounds = fluid_rounds(setup, aggregator, instant, FluidSettings(keep=0.5), 12)
    assert alone
    for number in alone:
        before = rounds[number - 1][1].memory["thresholds"] if number else {}
        assert rounds[number][1].memory["thresholds"] == before
        assert rounds[number][0].details == {}


@pytest.mark.parametrize("why", ["late", "dropped out"])
def test_an_update_that_never_arrived_decides_nothing(
    federation: Federation, plain: FixedPoint, instant: Calibration, why: str
) -> None:
    """Whatever the data of a client whose link is too slow, or that leaves: the server learns the same."""
    full, _ = FedAvg(federation, plain, calibration=instant).run(1)
    devices = tuple(
        replace(device, upload_bytes_per_second=100.0) if device.name == "fast-03" and why == "late" else device
        for device in federation.fleet.devices
    )
    ends = []
    for own in (federation.examples["fast-03"], federation.test):
        setup = replace(
            federation,
            fleet=replace(federation.fleet, devices=devices),
            examples={**federation.examples, "fast-03": own},
            deadline=1.01 * full.round_seconds,
        )
        system = Fluid(setup, plain, FluidSettings(budget="compute"), calibration=instant)
        gone: dict[int, dict[Hashable, str]] = {number: {"fast-03": "ShareKeys"} for number in range(5)}
        result, end = system.run(5, dropouts=gone if why == "dropped out" else None)
        assert "fast-03" not in {*system.keep, *(name for one in result.rounds for name in one.survivors)}
        ends.append(end.memory)
    assert ends[0]["thresholds"] == ends[1]["thresholds"] != {}
    assert np.array_equal(ends[0]["invariant"], ends[1]["invariant"])


@pytest.mark.parametrize("wrong", [{"keep_rule": "guess"}, {"step": 0.0}, {"every": 0}, {"after": -1}, {"keep": 0.0}])
def test_settings_outside_their_domain_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        FluidSettings(**wrong)  # type: ignore[arg-type]
