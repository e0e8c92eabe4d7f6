"""Stragglers find themselves, keep what fits into the others' round, and send nothing of what they dropped."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import secagg
from protocols.aggregators import FixedPoint, FloatMean, MaskIndexed, Uniform
from protocols.baselines.submodels import OrderedDropout, RandomDropout
from protocols.budget import KeepRatios
from protocols.clip import Clip, ClipSettings
from protocols.submodels import SubmodelSettings
from pruning.cost import SubmodelCosts, keep_for_budget
from pruning.masks import kept_units
from secagg import messages
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from protocols.aggregators import Aggregator
    from protocols.budget import Budget
    from protocols.clip import Statistic
    from protocols.federation import Checkpoint, Federation
    from protocols.round import Work
    from protocols.simulation.calibration import Calibration
    from protocols.submodels import SubmodelSystem
    from secagg.params import Mode
    from tests.unit.protocols.conftest import WorkAt

BUDGETS: tuple[Budget, ...] = ("compute", "round")
KINDS: dict[str, Callable[[Federation], Aggregator]] = {
    "float": lambda federation: FloatMean(federation.units.layout),
    "float indexed": lambda federation: FloatMean(federation.units.layout, "mask-indexed"),
    "plain": lambda federation: FixedPoint(federation.units.layout),
    "plain indexed": lambda federation: FixedPoint(federation.units.layout, mode="mask-indexed"),
    "uniform": lambda federation: Uniform(federation.units.layout),
    "mask-indexed": lambda federation: MaskIndexed(federation.units.layout),
}


@pytest.fixture(scope="module", params=[(kind, budget) for kind in KINDS for budget in BUDGETS], ids="-".join)
def solved(request: pytest.FixtureRequest, federation: Federation) -> tuple[OrderedDropout, Budget]:
    """A system with every kind of aggregator, and with either budget."""
    kind, budget = request.param
    return OrderedDropout(federation, KINDS[kind](federation), SubmodelSettings(budget=budget)), budget


def masks_of(work: Mapping[Hashable, Work]) -> dict[str, list[bool]]:
    """Client to the units that it holds, for those who do not hold all."""
    return {str(client): one.mask.held.tolist() for client, one in work.items() if one.mask.kind != "full"}


@pytest.fixture(scope="module")
def possible(federation: Federation) -> list[float]:
    """A keep ratio for each different submodel, ascending."""
    return SubmodelCosts(federation.model, federation.units, federation.batch).keep_ratios()


@pytest.fixture(scope="module")
def ratios(federation: Federation) -> KeepRatios:
    return KeepRatios(federation, FixedPoint(federation.units.layout, mode="mask-indexed"), fetches_parts=True)


# ---------------------------------------------------------------------------------- who, and how much


def test_stragglers_find_themselves_as_the_table_has_them(
    federation: Federation, solved: tuple[OrderedDropout, Budget]
) -> None:
    ordered, _ = solved
    assert ordered.identified.stragglers == tuple(device.name for device in federation.fleet.stragglers)
    assert set(ordered.keep) == set(ordered.identified.stragglers)
    slowest = max(ordered.seconds[device.name] for device in federation.fleet.rest)
    assert slowest / 1.02 < ordered.identified.deadline <= slowest


@pytest.mark.parametrize("kind", [Uniform, MaskIndexed])
def test_encrypted_and_clear_identification_agree(federation: Federation, kind: type[Uniform | MaskIndexed]) -> None:
    secure = kind(federation.units.layout)
    encrypted, clear = (OrderedDropout(federation, one) for one in (secure, secure.twin))
    assert encrypted.identified.stragglers == clear.identified.stragglers
    assert encrypted.identified.deadline == clear.identified.deadline
    assert encrypted.keep == clear.keep
    counts = encrypted.identified.tally.counts
    assert np.array_equal(counts, clear.identified.tally.counts)
    assert sorted(counts[counts > 0].tolist()) == [2, 6]


def test_the_notes_say_how_many_there_are_and_what_the_histogram_told(federation: Federation) -> None:
    (encrypted,) = OrderedDropout(federation, Uniform(federation.units.layout)).notes
    (clear,) = OrderedDropout(federation, FixedPoint(federation.units.layout)).notes
    assert encrypted.startswith("2 clients called themselves stragglers")
    assert "nothing else about any client" in encrypted
    assert "no encryption" in clear


def test_the_keep_ratio_meets_the_deadline_and_the_next_larger_one_does_not(
    federation: Federation, solved: tuple[OrderedDropout, Budget], possible: list[float]
) -> None:
    """Four bytes a coordinate on half the link: only whole floats leave no time to train anything."""
    ordered, budget = solved
    aggregator = ordered.aggregator
    ratios = KeepRatios(federation, aggregator, fetches_parts=aggregator.mode == "mask-indexed")
    hopeless = (aggregator.name, aggregator.mode, budget) == ("float", "uniform", "round")
    for client, keep in ordered.keep.items():
        device, deadline = federation.fleet.device(client), ordered.identified.deadline
        larger = next(one for one in possible if one > keep)
        assert ratios.seconds(device, larger, budget) > deadline
        assert (ratios.seconds(device, keep, budget) > deadline) == hopeless
        assert (keep == 0.05) == hopeless


@given(
    budget=st.sampled_from(BUDGETS), speed=st.floats(0.01, 2), links=st.floats(0.01, 2), deadline=st.floats(0.01, 20)
)
def test_the_solution_is_the_largest_ratio_that_fits_of_all_that_there_are(
    federation: Federation,
    ratios: KeepRatios,
    possible: list[float],
    *,
    budget: Budget,
    speed: float,
    links: float,
    deadline: float,
) -> None:
    like = federation.fleet.rest[0]
    device = replace(
        like,
        flops_per_second=like.flops_per_second * speed,
        upload_bytes_per_second=like.upload_bytes_per_second * links,
    )
    fitting = [keep for keep in possible if ratios.seconds(device, keep, budget) <= deadline]
    assert ratios.solve(device, budget, deadline, 0.2) == max([*fitting, 0.2])


def test_the_compute_budget_is_that_of_the_others_training(federation: Federation, plain: FixedPoint) -> None:
    straggler, fast = federation.fleet.stragglers[0], federation.fleet.rest[0]
    ratios = KeepRatios(federation, plain)
    keep = ratios.solve(straggler, "compute", ratios.time(fast, 1.0).compute, 0.05)
    whole = ratios.time(fast, 1.0).compute * fast.flops_per_second / federation.training.steps
    assert keep == keep_for_budget(federation.model, federation.units, federation.batch, whole / 2)


def test_within_a_round_a_mask_indexed_straggler_keeps_more_than_a_uniform_one(
    federation: Federation, uniform: Uniform, indexed: MaskIndexed
) -> None:
    straggler, fast = federation.fleet.stragglers[0], federation.fleet.rest[0]
    keeps = {}
    for aggregator in (uniform, indexed):
        ratios = KeepRatios(federation, aggregator)
        deadline = ratios.time(fast, 1.0).total
        keeps[aggregator.name] = ratios.solve(straggler, "round", deadline, 0.05)
    assert ratios.time(straggler, keeps["mask-indexed"]).total <= deadline
    assert keeps["uniform"] < keeps["mask-indexed"] < 1
    system = {one.name: OrderedDropout(federation, one).keep["straggler-01"] for one in (uniform, indexed)}
    assert system["uniform"] < system["mask-indexed"] < 1


def test_a_deadline_that_nothing_meets_leaves_the_least_keep(federation: Federation, plain: FixedPoint) -> None:
    snail = replace(federation.fleet.stragglers[0], flops_per_second=1.0)
    assert KeepRatios(federation, plain).solve(snail, "compute", 1.0, 0.3) == 0.3


def test_a_straggler_as_fast_as_the_rest_keeps_everything(federation: Federation, plain: FixedPoint) -> None:
    fast, ratios = federation.fleet.rest[0], KeepRatios(federation, plain)
    assert ratios.solve(fast, "round", ratios.time(fast, 1.0).total, 0.05) == 1


def test_a_keep_ratio_that_is_set_overrides_the_budget(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    system = OrderedDropout(federation, plain, SubmodelSettings(keep=0.75, least_keep=0.9), calibration=instant)
    assert system.keep == {"straggler-01": 0.75, "straggler-02": 0.75}
    result, _ = system.run(1)
    assert [client.keep for client in result.of_stragglers()] == [0.75, 0.75]


@pytest.mark.parametrize(
    "wrong",
    [{"budget": "money"}, {"share": 0.0}, {"share": 0.6}, {"keep": 0.0}, {"keep": 1.1}, {"least_keep": 0.0}],
)
def test_settings_outside_their_domain_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        SubmodelSettings(**wrong)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------- which units


def test_a_straggler_trains_a_module_with_fewer_parameters_and_keeps_up(
    federation: Federation, instant: Calibration
) -> None:
    """With plain floats nothing but the vector travels, and a round is as long as without stragglers."""
    for system in (RandomDropout, OrderedDropout):
        aggregator = FloatMean(federation.units.layout, "mask-indexed")
        result, _ = system(federation, aggregator, calibration=instant).run(3)
        for one in result.rounds[1:]:  # the first is charged the identification too
            slow, fast = one.clients["straggler-02"], one.clients["fast-02"]
            assert slow.parameters < fast.parameters
            assert slow.flops < fast.flops
            assert slow.keep < fast.keep == 1
            assert slow.seconds.total <= fast.seconds.total == one.seconds


def test_random_dropout_draws_anew_each_round_and_for_each_straggler(
    federation: Federation, plain: FixedPoint, work_at: WorkAt
) -> None:
    system, start = RandomDropout(federation, plain), federation.start()
    rounds = [masks_of(work_at(system, replace(start, number=number))) for number in range(4)]
    drawn = [tuple(held) for masks in rounds for held in masks.values()]
    assert len(set(drawn)) == len(drawn) == 8
    assert rounds == [masks_of(work_at(system, replace(start, number=number))) for number in range(4)]
    other = RandomDropout(replace(federation, seed=4), plain)
    assert masks_of(work_at(other, start)) != rounds[0]
    layout = federation.units.layout
    for held in drawn:
        for group, size in layout.unit_groups.items():
            own = layout.units_of(group)
            assert sum(held[own.start : own.stop]) == kept_units(size, system.keep["straggler-01"])


def test_ordered_dropout_keeps_the_first_units_of_each_layer_in_every_round(
    federation: Federation, plain: FixedPoint, work_at: WorkAt
) -> None:
    layout, start = federation.units.layout, federation.start()
    for keep in (0.25, 0.5, 0.9):
        system = OrderedDropout(federation, plain, SubmodelSettings(keep=keep))
        expected = [place < kept_units(size, keep) for size in layout.unit_groups.values() for place in range(size)]
        for number in range(2):
            masks = masks_of(work_at(system, replace(start, number=number)))
            assert masks == {"straggler-01": expected, "straggler-02": expected}


def test_ordered_submodels_are_nested(federation: Federation, plain: FixedPoint, work_at: WorkAt) -> None:
    held = [
        masks_of(work_at(OrderedDropout(federation, plain, SubmodelSettings(keep=keep)), federation.start()))
        for keep in (0.2, 0.5, 0.8)
    ]
    small, middle, large = (np.array(masks["straggler-01"]) for masks in held)
    assert not (small & ~middle).any()
    assert not (middle & ~large).any()
    assert small.sum() < middle.sum() < large.sum()


def test_foreseen_masks_are_as_large_as_those_that_come(
    federation: Federation, plain: FixedPoint, work_at: WorkAt
) -> None:
    system = RandomDropout(replace(federation, participants=7), plain)
    work, foreseen = work_at(system, federation.start()), system.foreseen_masks()
    assert set(foreseen) == set(work)
    assert {client: mask.coordinates.sum() for client, mask in foreseen.items()} == {
        client: one.mask.coordinates.sum() for client, one in work.items()
    }


# ---------------------------------------------------------------------------------- what travels


STATISTICS: tuple[Statistic, ...] = ("local", "vote", "global")
SYSTEMS = ("random", "ordered", *STATISTICS)


def after_a_round(
    federation: Federation, mode: Mode, name: str, instant: Calibration
) -> tuple[SubmodelSystem, Checkpoint]:
    """A system and where its second round starts, from which on stragglers are pruned."""
    aggregator = FixedPoint(federation.units.layout, mode=mode)
    system: SubmodelSystem
    if name in STATISTICS:
        settings = ClipSettings(statistic=name)
        system = Clip(federation, aggregator, settings, calibration=instant)
    else:
        kind = RandomDropout if name == "random" else OrderedDropout
        system = kind(federation, aggregator, calibration=instant)
    return system, system.run(1)[1]


@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_only_who_declares_its_mask_and_chose_it_unseen_fetches_less(
    federation: Federation, name: str, mode: Mode, instant: Calibration, work_at: WorkAt
) -> None:
    work = work_at(*after_a_round(federation, mode, name, instant))
    slow, fast = work["straggler-01"], work["fast-01"]
    assert slow.mask.kind == "units"
    assert fast.fetched_bytes == 4 * federation.units.layout.size
    fetches_a_part = mode == "mask-indexed" and name != "global"
    assert (slow.fetched_bytes < fast.fetched_bytes) == fetches_a_part
    assert fetches_a_part or slow.fetched_bytes == fast.fetched_bytes


def transcript(
    federation: Federation, work: Mapping[Hashable, Work], updates: Mapping[Hashable, dict[str, torch.Tensor]]
) -> list[bytes]:
    """Every message of a mask-indexed session about the updates, under the masks of the work."""
    heard: list[bytes] = []
    secagg.simulate(
        updates,
        {client: one.mask.declaration() for client, one in work.items()},
        mode="mask-indexed",
        layout=federation.units.layout,
        seed=b"transcript",
        observe=heard.append,
    )
    return heard


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_a_straggler_dropped_never_travels(
    federation: Federation, indexed: MaskIndexed, name: str, instant: Calibration, work_at: WorkAt
) -> None:
    """Its vector is as long as its mask, and no byte of the session tells what it has elsewhere."""
    work = work_at(*after_a_round(federation, "mask-indexed", name, instant))
    updates = {client: dict(one.update) for client, one in work.items()}
    heard = transcript(federation, work, updates)
    vectors = [one for one in map(messages.decode, heard) if isinstance(one, messages.MaskedInput)]
    assert [len(one.vector) for one in sorted(vectors, key=lambda one: one.sender)] == [
        indexed.upload_of(one.mask, len(work)) for one in work.values()
    ]
    held = {name: torch.from_numpy(own) for name, own in work["straggler-01"].mask.by_tensor().items()}
    secret = updates["straggler-01"]
    updates["straggler-01"] = {name: torch.where(held[name], value, 3.0) for name, value in secret.items()}
    assert not all(torch.equal(value, updates["straggler-01"][name]) for name, value in secret.items())
    assert transcript(federation, work, updates) == heard
    updates["straggler-01"] = {name: torch.where(held[name], 0.5, value) for name, value in secret.items()}
    assert transcript(federation, work, updates) != heard
