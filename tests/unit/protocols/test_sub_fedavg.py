"""Sub-FedAvg: clients prune weights of their own, when and as far as the rule says, and share what others kept too."""

from __future__ import annotations

import copy
import io
import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocols.aggregators import FixedPoint, FloatMean, MaskIndexed
from protocols.baselines.fedavg import FedAvg
from protocols.baselines.sub_fedavg import SubFedAvg, SubFedAvgSettings, distance, prune
from protocols.experiments.setup import settings_from
from protocols.personal import judge
from protocols.randomness import number
from protocols.stages import fetched_bytes
from protocols.training import accuracy
from pruning.kernels import Kernels
from pruning.masks import Mask
from secagg import declaration
from secagg.declaration import Provenance
from secagg.errors import ParameterError
from secagg.layout import Layout, Tensor
from tests.unit.protocols.conftest import PARAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from numpy.typing import NDArray

    from protocols.aggregators import Aggregator
    from protocols.federation import Checkpoint, Federation
    from protocols.simulation.calibration import Calibration
    from protocols.training import State
    from tests.unit.protocols.conftest import WorkAt

KINDS: dict[str, Callable[[Federation], Aggregator]] = {
    "float": lambda federation: FloatMean(federation.units.layout, "mask-indexed"),
    "plain": lambda federation: FixedPoint(federation.units.layout, PARAMS, "mask-indexed"),
    "encrypted": lambda federation: MaskIndexed(federation.units.layout, PARAMS),
}
DROPOUTS: dict[int, dict[Hashable, str]] = {
    1: {"fast-02": "ShareKeys"},
    2: {"straggler-01": "MaskedInput", "fast-01": "AdvertiseKeys"},
}
EAGER = SubFedAvgSettings(rate=0.2, target_density=0.5, threshold=0.0, least_change=0.0)
"""Prunes in every round until it is at its target."""

SMALL = Kernels(Layout((Tensor("a.weight", (2, 5)), Tensor("a.bias", (2,)), Tensor("b.weight", (2, 2)))))


@pytest.fixture(scope="module")
def clear(federation: Federation) -> FloatMean:
    return FloatMean(federation.units.layout, "mask-indexed")


def same_tensors(one: Checkpoint, other: Checkpoint) -> bool:
    return one.state.keys() == other.state.keys() and all(
        torch.equal(tensor, other.state[name]) for name, tensor in one.state.items()
    )


def vector(layout: Layout, state: State) -> NDArray[np.float64]:
    """All tensors of the layout, one after another."""
    return np.concatenate([state[tensor.name].double().numpy().ravel() for tensor in layout.tensors])


# ---------------------------------------------------------------------------------- settings


def test_settings_may_be_text() -> None:
    given = {"rate": "0.05", "target_density": "0.5", "threshold": "0.4", "least_change": "0"}
    assert settings_from(SubFedAvgSettings(), given) == SubFedAvgSettings(
        rate=0.05, target_density=0.5, threshold=0.4, least_change=0.0
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0.0},
        {"rate": 1.0},
        {"target_density": 0.0},
        {"target_density": 1.1},
        {"threshold": -0.1},
        {"threshold": 1.1},
        {"least_change": -1e-9},
        {"least_change": math.nan},
    ],
)
def test_settings_outside_their_domain_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        SubFedAvgSettings(**wrong)


# ---------------------------------------------------------------------------------- which weights are pruned


def test_each_kernel_loses_the_smallest_of_what_is_left() -> None:
    """A fifth of ten, and of four the nearest number to a fifth; then of eight and of three."""
    weights = np.array([9.0, -1, 8, 2, -7, 3, 6, 5, -5, 4, 0.5, -0.1, 0.3, 0.2])
    once = prune(SMALL, weights, Mask.full(SMALL.layout), 0.2, 0.1)
    expected = np.ones(14, bool)
    expected[[1, 3, 11]] = False
    assert np.array_equal(SMALL.active(once), expected)
    twice = prune(SMALL, weights, once, 0.2, 0.1)
    expected[[5, 9, 13]] = False
    assert np.array_equal(SMALL.active(twice), expected)
    assert twice.provenance is Provenance.DATA
    assert twice.coordinates[10:12].all()  # biases stay


def test_of_equally_small_weights_the_last_go_and_the_last_step_ends_at_the_target() -> None:
    once = prune(SMALL, np.ones(14), Mask.full(SMALL.layout), 0.9, 0.5)
    assert SMALL.active(once).tolist() == [True] * 5 + [False] * 5 + [True] * 2 + [False] * 2
    assert prune(SMALL, np.ones(14), once, 0.9, 0.5) == once


@given(rate=st.floats(0.01, 0.99), target=st.floats(0.01, 1), seed=st.integers(0, 1000), rounds=st.integers(1, 4))
def test_masks_are_nested_and_never_sparser_than_their_target(
    *, rate: float, target: float, seed: int, rounds: int
) -> None:
    stream = np.random.default_rng(seed)
    mask = Mask.full(SMALL.layout)
    for _ in range(rounds):
        before, weights = SMALL.active(mask), stream.normal(size=14)
        mask = prune(SMALL, weights, mask, rate, target)
        after = SMALL.active(mask)
        assert not (after & ~before).any()
        for place in SMALL.places:
            size, left, lost = place.stop - place.start, after[place], before[place] & ~after[place]
            assert left.sum() == max(
                math.floor((1 - rate) * before[place].sum() + 0.5), math.floor(target * size + 0.5), 1
            )
            assert np.abs(weights[place][lost]).max(initial=0) <= np.abs(weights[place][left]).min()


def test_the_distance_of_two_masks_is_the_mean_over_the_kernels() -> None:
    one, other = np.ones(14, bool), np.ones(14, bool)
    one[[0, 1]], other[[1, 2, 3, 10]] = False, False
    assert distance(SMALL, SMALL.mask(one), SMALL.mask(other)) == pytest.approx((3 / 10 + 1 / 4) / 2)
    assert distance(SMALL, SMALL.mask(one), SMALL.mask(one)) == 0


# ---------------------------------------------------------------------------------- when a client prunes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("never", [{"threshold": 1.0}, {"least_change": 1.0}, {"target_density": 1.0}])
def test_where_nobody_may_prune_it_is_fedavg_bit_for_bit(
    federation: Federation, instant: Calibration, kind: str, never: dict[str, float]
) -> None:
    aggregator = KINDS[kind](federation)
    system = SubFedAvg(federation, aggregator, replace(EAGER, **never), calibration=instant)
    result, end = system.run(2)
    assert same_tensors(end, FedAvg(federation, aggregator, calibration=instant).run(2)[1])
    assert system.masks == {}
    assert [one.details for one in result.rounds] == [{"mean density": 1.0}] * 2


def test_a_client_prunes_only_if_its_pruned_model_beats_the_threshold_on_its_own_examples(
    federation: Federation, clear: FloatMean, work_at: WorkAt
) -> None:
    harsh = replace(EAGER, rate=0.7, target_density=0.1)
    eager, reached, unpruned = SubFedAvg(federation, clear, harsh), {}, {}
    for client, one in work_at(eager, federation.start()).items():
        pruned = copy.deepcopy(one.model)
        with torch.no_grad():
            for name, held in eager.mask_of(client).by_tensor().items():
                pruned.get_parameter(name).mul_(torch.from_numpy(held))
        reached[client] = accuracy(pruned, federation.examples[client])
        unpruned[client] = accuracy(one.model, federation.examples[client])
    assert len(set(reached.values())) > 2
    assert reached != unpruned
    for threshold in set(reached.values()):
        system = SubFedAvg(federation, clear, replace(harsh, threshold=threshold))
        work_at(system, federation.start())
        assert set(system.masks) == {client for client, own in reached.items() if own > threshold}


@pytest.mark.parametrize(("steps", "early"), [(8, 3), (5, 2), (2, 1), (1, 1)])
def test_a_client_prunes_only_if_its_mask_has_changed_since_the_first_epoch(
    federation: Federation, clear: FloatMean, work_at: WorkAt, steps: int, early: int
) -> None:
    """Twenty examples in batches of eight are three steps; of fewer than six, half are compared."""
    setup = replace(federation, training=replace(federation.training, steps=steps))
    masks, layout = [], federation.units.layout
    for length in (early, steps):
        model = copy.deepcopy(setup.model)
        replace(setup.training, steps=length).train(
            model, setup.examples["fast-02"], number(setup.seed, "training", 0, 1)
        )
        kernels = Kernels(layout)
        masks.append(prune(kernels, kernels.values(model.state_dict()), Mask.full(layout), 0.2, 0.5))
    changed = distance(kernels, *masks)
    assert (changed > 0) == (steps > 1)
    for least in (changed, np.nextafter(changed, 1)):
        system = SubFedAvg(setup, clear, replace(EAGER, least_change=float(least)))
        work_at(system, setup.start())
        assert ("fast-02" in system.masks) == (least == changed)
        assert system.mask_of("fast-02") == (masks[1] if least == changed else Mask.full(layout))


def test_density_falls_by_the_rate_to_the_target_and_stays(
    federation: Federation, clear: FloatMean, instant: Calibration
) -> None:
    system = SubFedAvg(federation, clear, EAGER, calibration=instant)
    sizes = [512, 512, 64]
    left, expected = sizes, []
    for _ in range(5):
        left = [max(math.floor(0.8 * own + 0.5), size // 2) for own, size in zip(left, sizes, strict=True)]
        expected.append(sum(left) / sum(sizes))
    result, _ = system.run(5)
    assert [one.details["mean density"] for one in result.rounds] == pytest.approx(expected)
    assert expected[-2:] == [0.5, 0.5]
    held = {mask.coordinates.tobytes() for mask in system.masks.values()}
    assert len(held) == len(federation.fleet.names)  # everybody's own


# ---------------------------------------------------------------------------------- what they train and send


def test_a_client_trains_under_its_mask_and_sends_what_the_next_one_leaves(
    federation: Federation, clear: FloatMean, instant: Calibration, work_at: WorkAt
) -> None:
    system, layout = SubFedAvg(federation, clear, EAGER, calibration=instant), federation.units.layout
    middle = system.run(2)[1]
    before = dict(system.masks)
    work = work_at(system, middle)
    assert set(work) == set(before)
    for client, one in work.items():
        trained, update = vector(layout, one.model.state_dict()), vector(layout, one.update)
        assert not trained[~before[client].coordinates].any()
        assert one.mask == system.masks[client]
        assert not (one.mask.coordinates & ~before[client].coordinates).any()
        assert one.mask.coordinates.sum() < before[client].coordinates.sum()
        assert not update[~one.mask.coordinates].any()
        assert update[one.mask.coordinates].any()
        assert one.fetched_bytes == fetched_bytes(before[client])
        assert one.keep == before[client].density
        assert one.mask.declaration().provenance is Provenance.DATA


def test_bytes_shrink_with_the_masks_and_operations_do_not(
    federation: Federation, clear: FloatMean, instant: Calibration
) -> None:
    result, _ = SubFedAvg(federation, clear, EAGER, calibration=instant).run(4)
    rounds = [one.clients["fast-01"] for one in result.rounds]
    for one, after in pairwise(rounds):
        assert after.upload_bytes < one.upload_bytes
        assert after.flops == one.flops
        assert after.seconds.total < one.seconds.total
    assert rounds[-1].download_bytes < rounds[0].download_bytes == 4 * federation.units.layout.size
    assert rounds[0].upload_bytes < 4 * federation.units.layout.size  # it prunes before it sends


def test_each_coordinate_is_averaged_over_those_who_hold_it_and_nobodys_stays(
    federation: Federation, clear: FloatMean, instant: Calibration, work_at: WorkAt
) -> None:
    """As the paper has it: means of models, not of updates."""
    setup = replace(federation, participants=2)
    settings = replace(EAGER, target_density=0.2, rate=0.5)
    system, layout = SubFedAvg(setup, clear, settings, calibration=instant), federation.units.layout
    start = system.run(6)[1]
    work = work_at(system, start)
    models = np.array([vector(layout, one.model.state_dict()) for one in work.values()])
    held = np.array([one.mask.coordinates for one in work.values()])
    before, covered = vector(layout, start.state), held.any(0)
    mean = (models * held).sum(0)[covered] / held.sum(0)[covered]
    after = vector(layout, system.run(1, start)[1].state)
    np.testing.assert_allclose(after[covered], mean, rtol=0, atol=1e-6)
    assert np.array_equal(after[~covered], before[~covered])
    assert 0 < covered.mean() < 1
    assert before[~covered].any()


# ---------------------------------------------------------------------------------- encrypted, and in parts


def test_an_encrypted_run_with_dropouts_ends_at_the_same_model_as_its_twin(
    federation: Federation, instant: Calibration
) -> None:
    aggregator = MaskIndexed(federation.units.layout, replace(PARAMS, min_cohort=2))
    encrypted, end = SubFedAvg(federation, aggregator, EAGER, twin=aggregator.twin, calibration=instant).run(
        3, dropouts=DROPOUTS
    )
    _, clear = SubFedAvg(federation, aggregator.twin, EAGER, calibration=instant).run(3, dropouts=DROPOUTS)
    assert same_tensors(end, clear)
    assert encrypted.difference == 0
    assert encrypted.rounds[-1].withheld_share > 0


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
def test_what_too_few_hold_is_withheld(
    federation: Federation, instant: Calibration, work_at: WorkAt, kind: str
) -> None:
    """Three and two dropouts: five must hold a coordinate."""
    system = SubFedAvg(federation, KINDS[kind](federation), EAGER, calibration=instant)
    middle, layout = system.run(2)[1], federation.units.layout
    work = work_at(system, middle)
    released = declaration.coverage(layout, [one.mask.declaration() for one in work.values()]) >= 5
    result, end = system.run(1, middle)
    assert result.rounds[0].withheld_share == pytest.approx(1 - released.mean())
    before, after = vector(layout, middle.state), vector(layout, end.state)
    assert np.array_equal(after[~released], before[~released])
    assert (after != before)[released].mean() > 0.5
    assert 0.5 < released.mean() < 1


def plainly(memory: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, dict[str, list[bool]]]:
    return {key: {client: held.tolist() for client, held in own.items()} for key, own in memory.items()}


def test_a_run_in_two_parts_is_the_run_in_one_bit_for_bit(
    federation: Federation, clear: FloatMean, instant: Calibration
) -> None:
    setup = replace(federation, participants=6)
    whole, end = SubFedAvg(setup, clear, EAGER, calibration=instant).run(4)
    begun = SubFedAvg(setup, clear, EAGER, calibration=instant)
    first, middle = begun.run(2)
    kept = dict(begun.masks)
    begun.run(1, middle)  # what goes on does not reach back into a checkpoint
    file = io.BytesIO()
    torch.save({"state": middle.state, "previous": middle.previous, "memory": middle.memory}, file)
    file.seek(0)
    loaded = replace(middle, **torch.load(file, weights_only=True))
    rest = SubFedAvg(setup, clear, EAGER, calibration=instant)
    rest.recall(loaded.memory)
    assert rest.masks == kept
    second, again = rest.run(2, loaded)
    assert same_tensors(again, end)
    assert first.rounds + second.rounds == whole.rounds
    assert plainly(again.memory) == plainly(end.memory) != {"held": {}}


def test_a_system_that_begins_anew_has_forgotten_the_run_before(
    federation: Federation, clear: FloatMean, instant: Calibration
) -> None:
    system = SubFedAvg(federation, clear, EAGER, calibration=instant)
    assert system.run(3)[0] == system.run(3)[0]


# ---------------------------------------------------------------------------------- personal models


def test_a_clients_model_is_the_global_one_under_its_own_mask(
    federation: Federation, clear: FloatMean, instant: Calibration
) -> None:
    setup = replace(federation, tests=dict.fromkeys(federation.examples, federation.test))
    system, layout = SubFedAvg(setup, clear, EAGER, calibration=instant), federation.units.layout
    end = system.run(3)[1]
    for client, mask in system.masks.items():
        state, own = system.model_of(client, end)
        assert own == mask
        assert np.array_equal(vector(layout, state), np.where(mask.coordinates, vector(layout, end.state), 0))
    judged = judge(SubFedAvg(setup, clear, EAGER), end, 1)
    assert len(set(judged.before.values())) > 1


def test_it_learns_what_it_does_sparse(federation: Federation, clear: FloatMean, instant: Calibration) -> None:
    system = SubFedAvg(federation, clear, SubFedAvgSettings(threshold=0.4), calibration=instant)
    result, _ = system.run(15)
    assert result.rounds[-1].accuracy > accuracy(federation.model, federation.test) + 0.2
    assert result.rounds[-1].details["mean density"] < 0.6
    assert system.name == "Sub-FedAvg float"
