"""HeteroFL: widths that suit the devices, submodels that are smaller, and means over those who hold a coordinate."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from protocols.aggregators import FixedPoint, FloatMean, MaskIndexed
from protocols.baselines.fedavg import FedAvg
from protocols.baselines.heterofl import HeteroFl, HeteroFlSettings
from protocols.budget import KeepRatios
from protocols.experiments.setup import settings_from
from protocols.fetch import Served
from protocols.models import conv_bn
from protocols.round import RoundContext, work_of
from protocols.simulation.devices import Device, Fleet
from protocols.training import Examples, accuracy
from pruning.masks import ordered_units
from pruning.units import find_units
from secagg.declaration import Provenance
from secagg.errors import ParameterError
from tests.unit.protocols.conftest import CLASSES, PARAMS, WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from torch import nn

    from protocols.aggregators import Aggregator
    from protocols.baselines.heterofl import Assignment
    from protocols.federation import Checkpoint, Federation
    from protocols.simulation.calibration import Calibration
    from tests.unit.protocols.conftest import WorkAt

KINDS: dict[str, Callable[[Federation], Aggregator]] = {
    "float": lambda federation: FloatMean(federation.units.layout, "mask-indexed"),
    "plain": lambda federation: FixedPoint(federation.units.layout, PARAMS, "mask-indexed"),
    "encrypted": lambda federation: MaskIndexed(federation.units.layout, PARAMS),
}
DROPOUTS: dict[int, dict[Hashable, str]] = {
    0: {"fast-02": "ShareKeys"},
    1: {"straggler-01": "MaskedInput", "fast-01": "AdvertiseKeys"},
}


@pytest.fixture(scope="module")
def clear(federation: Federation) -> FloatMean:
    return FloatMean(federation.units.layout, "mask-indexed")


def same_tensors(one: Checkpoint, other: Checkpoint) -> bool:
    return one.state.keys() == other.state.keys() and all(
        torch.equal(tensor, other.state[name]) for name, tensor in one.state.items()
    )


def vector(federation: Federation, checkpoint: Checkpoint) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """All tensors of a checkpoint, one after another."""
    return np.concatenate([checkpoint.state[tensor.name].numpy().ravel() for tensor in federation.units.layout.tensors])


def at_speeds(federation: Federation, speeds: list[float]) -> Federation:
    """The same on devices of other speeds, all on the same links."""
    fleet = Fleet(
        tuple(
            Device(
                name=f"device-{number}",
                flops_per_second=1e5 * speed,
                upload_bytes_per_second=4e3,
                download_bytes_per_second=16e3,
            )
            for number, speed in enumerate(speeds)
        )
    )
    return replace(
        federation, fleet=fleet, examples=dict(zip(fleet.names, federation.examples.values(), strict=False)), tests={}
    )


# ---------------------------------------------------------------------------------- who trains which width


def test_widths_are_powers_of_the_shrinkage() -> None:
    assert HeteroFlSettings().widths == (1, 0.5, 0.25, 0.125, 0.0625)
    given = {"levels": "3", "shrinkage": "0.7", "assign": "solved", "scale": "true"}
    read = settings_from(HeteroFlSettings(), given)
    assert read.widths == pytest.approx((1, 0.7, 0.49))
    assert (read.assign, read.scale) == ("solved", True)


@pytest.mark.parametrize("wrong", [{"levels": 0}, {"shrinkage": 1.0}, {"shrinkage": 0.0}, {"assign": "drawn"}])
def test_settings_outside_their_domain_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        HeteroFlSettings(**wrong)  # type: ignore[arg-type]


def test_clients_are_cut_into_groups_by_their_times_fastest_first(federation: Federation, clear: FloatMean) -> None:
    setup = at_speeds(federation, [1, 8, 3, 2, 7, 5, 4, 6])
    system = HeteroFl(setup, clear, HeteroFlSettings(levels=3))
    assert system.width == {
        **dict.fromkeys(("device-1", "device-4", "device-7"), 1.0),
        **dict.fromkeys(("device-5", "device-6", "device-2"), 0.5),
        **dict.fromkeys(("device-3", "device-0"), 0.25),
    }
    assert system.notes == ("clients by width of their submodel: 3 of width 1, 3 of width 0.5, 2 of width 0.25",)


def test_of_equally_fast_clients_the_first_in_the_fleet_trains_more(federation: Federation, clear: FloatMean) -> None:
    assert list(HeteroFl(federation, clear).width.values()) == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.0625]


def test_with_more_levels_than_clients_the_smallest_widths_are_nobodys(
    federation: Federation, clear: FloatMean
) -> None:
    setup = at_speeds(federation, [1, 2])
    assert HeteroFl(setup, clear, HeteroFlSettings(levels=4)).width == {"device-1": 1.0, "device-0": 0.5}


@pytest.mark.parametrize("kind", KINDS)
def test_a_solved_width_keeps_up_with_the_fastest_quarter_and_the_next_larger_does_not(
    federation: Federation, kind: str
) -> None:
    setup = at_speeds(federation, [1, 16, 4, 2, 15, 10, 6, 0.01])
    aggregator = KINDS[kind](federation)
    settings = HeteroFlSettings(assign="solved", shrinkage=0.8, levels=6)
    width = HeteroFl(setup, aggregator, settings).width
    ratios = KeepRatios(setup, aggregator, fetches_parts=True)
    seconds = {name: ratios.seconds(setup.fleet.device(name), 1.0, "round") for name in setup.fleet.names}
    deadline = sorted(seconds.values())[1]  # two of eight are a quarter
    assert deadline == seconds["device-4"]
    assert width["device-1"] == width["device-4"] == 1
    assert width["device-7"] == settings.widths[-1]
    for name, own in width.items():
        device, level = setup.fleet.device(name), settings.widths.index(own)
        assert own == settings.widths[-1] or ratios.seconds(device, own, "round") <= deadline
        assert own == 1 or ratios.seconds(device, settings.widths[level - 1], "round") > deadline
    assert len(set(width.values())) > 3


@pytest.mark.parametrize("assign", ["ranked", "solved"])
def test_somebody_trains_the_whole_model_however_slow_everybody_is(
    federation: Federation, clear: FloatMean, assign: Assignment
) -> None:
    for speeds in ([1e-3], [1e-3, 1e-4, 1e-5], [1e-3] * 8):
        width = HeteroFl(at_speeds(federation, speeds), clear, HeteroFlSettings(assign=assign)).width
        assert max(width.values()) == 1


# ---------------------------------------------------------------------------------- what they train


def test_a_client_holds_the_first_units_of_each_layer_in_every_round(
    federation: Federation, clear: FloatMean, work_at: WorkAt
) -> None:
    system, layout = HeteroFl(federation, clear), federation.units.layout
    for number in range(2):
        work = work_at(system, replace(federation.start(), number=number))
        for client, one in work.items():
            width = system.width[client]
            expected = [place < width * size for size in layout.unit_groups.values() for place in range(size)]
            assert one.mask.held.tolist() == expected
            assert one.keep == pytest.approx(width)
            assert one.mask.kind == "full" or one.mask.provenance is Provenance.DEVICE
        assert system.foreseen_masks() == {client: one.mask for client, one in work.items()}


def test_modules_bytes_and_operations_shrink_with_the_level(
    federation: Federation, clear: FloatMean, instant: Calibration
) -> None:
    system = HeteroFl(federation, clear, calibration=instant)
    (one,) = system.run(1)[0].rounds
    of_levels = [one.clients[name] for name in ("fast-01", "fast-03", "fast-05", "straggler-01", "straggler-02")]
    for width, client in zip(system.settings.widths, of_levels, strict=True):
        first, second = round(32 * width), round(16 * width)
        weights = WIDTH * first + first * second + second * CLASSES
        assert client.parameters == weights + first + second + CLASSES
        assert client.upload_bytes == 4 * client.parameters
        # Forward and for the weights backward; for what is read, too, but in the first layer. A batch of 8.
        assert client.flops == federation.training.steps * 8 * 2 * (3 * weights - WIDTH * first)
    fetched = [client.download_bytes for client in of_levels]
    assert fetched == sorted(set(fetched), reverse=True)
    assert fetched[0] == 4 * federation.units.layout.size


def duplicated(model: nn.Module, federation: Federation) -> nn.Module:
    """Gives every unit of the second half of each layer the parameters of one of the first half."""
    state = model.state_dict()
    with torch.no_grad():
        for tensor in federation.units.layout.tensors:
            for axis, units in tensor.unit_axes.items():
                slices = len(units)
                copied = torch.arange(slices) % (slices // 2)
                state[tensor.name].copy_(state[tensor.name].index_select(axis, copied))
    return model


def images(federation: Federation) -> Federation:
    """The same clients with a few small pictures, and a network with batch normalisations."""
    model = conv_bn(CLASSES, seed=2)
    pictures = Examples(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(5)), torch.arange(8) % 4)
    units = find_units(model, pictures.inputs[:2])
    return replace(
        federation, model=model, units=units, examples=dict.fromkeys(federation.examples, pictures), test=pictures
    )


@pytest.mark.parametrize("normalised", [False, True])
def test_in_training_half_of_the_units_say_as_much_as_two_equal_halves(
    federation: Federation, *, normalised: bool
) -> None:
    """Whoever reads half as much reads it twice as loud; normalisations see the statistics of the whole model."""
    setup = images(federation) if normalised else federation
    setup = replace(setup, model=duplicated(setup.model_at(setup.start()), setup))
    whole, start = setup.model_at(setup.start()), setup.start()
    aggregator = FloatMean(setup.units.layout, "mask-indexed")
    context = RoundContext(0, whole, start.state, Served(setup.units.layout, start.state))
    modules = {}
    for scale in (True, False):
        system = HeteroFl(setup, aggregator, HeteroFlSettings(scale=scale))
        stages = system.stages()[:-2]  # all that comes before training
        modules[scale] = work_of(stages, context, ["fast-03"], setup.units.layout)["fast-03"].model
    inputs = setup.test.inputs[:8]
    with torch.no_grad():
        expected = whole.train()(inputs)
        torch.testing.assert_close(modules[True].train()(inputs), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(modules[False].train()(inputs), expected, atol=1e-2)
        assert torch.equal(modules[True].eval()(inputs), modules[False].eval()(inputs)) != normalised
    means = {name: tensor for name, tensor in modules[True].named_buffers() if name.endswith("running_mean")}
    assert bool(means) == normalised
    for name, mean in means.items():
        torch.testing.assert_close(mean, whole.get_buffer(name)[: len(mean)], rtol=1e-4, atol=1e-5)


def test_scaling_changes_what_submodels_learn_and_nothing_of_whole_models(
    federation: Federation, clear: FloatMean, work_at: WorkAt
) -> None:
    scaled, unscaled = (
        work_at(HeteroFl(federation, clear, HeteroFlSettings(scale=scale)), federation.start())
        for scale in (True, False)
    )
    for client, one in scaled.items():
        equal = torch.equal(one.update["fc1.weight"], unscaled[client].update["fc1.weight"])
        assert equal == (one.mask.kind == "full")


# ---------------------------------------------------------------------------------- what comes of it


@pytest.mark.parametrize("kind", KINDS)
def test_with_one_level_it_is_fedavg_bit_for_bit(federation: Federation, instant: Calibration, kind: str) -> None:
    aggregator = KINDS[kind](federation)
    _, one = HeteroFl(federation, aggregator, HeteroFlSettings(levels=1), calibration=instant).run(3)
    _, other = FedAvg(federation, aggregator, calibration=instant).run(3)
    assert same_tensors(one, other)


def test_each_coordinate_moves_by_the_mean_of_those_who_hold_it(
    federation: Federation, clear: FloatMean, instant: Calibration, work_at: WorkAt
) -> None:
    """A cohort without anybody who trains the whole model leaves the rest of it as it was."""
    setup = replace(federation, participants=3)
    system = HeteroFl(setup, clear, calibration=instant)
    partial = next(n for n in range(20) if max(system.width[client] for client in setup.cohort(n)) < 1)
    for number in (partial, partial + 1):
        start = replace(setup.start(), number=number)
        work = work_at(system, start)
        _, end = system.run(1, start)
        held = np.array([one.mask.coordinates for one in work.values()])
        updates = np.array(
            [
                np.concatenate([one.update[t.name].numpy().ravel() for t in clear.layout.tensors])
                for one in work.values()
            ]
        )
        moved = (updates.astype(np.float64) * held).sum(0) / np.maximum(held.sum(0), 1)
        before, after = vector(federation, start), vector(federation, end)
        np.testing.assert_allclose(after, before + moved, rtol=0, atol=1e-6)
        assert np.array_equal(after[~held.any(0)], before[~held.any(0)])
        assert held.any(0).all() == (number != partial)


@pytest.mark.parametrize("assign", ["ranked", "solved"])
def test_an_encrypted_run_with_dropouts_ends_at_the_same_model_as_its_twin(
    federation: Federation, instant: Calibration, assign: Assignment
) -> None:
    settings = HeteroFlSettings(levels=3, assign=assign)
    aggregator = MaskIndexed(federation.units.layout, replace(PARAMS, min_cohort=2))
    system = HeteroFl(federation, aggregator, settings, twin=aggregator.twin, calibration=instant)
    encrypted, end = system.run(2, dropouts=DROPOUTS)
    _, clear = HeteroFl(federation, aggregator.twin, settings, calibration=instant).run(2, dropouts=DROPOUTS)
    assert same_tensors(end, clear)
    assert encrypted.difference == 0
    assert min(client.keep for client in encrypted.rounds[0].clients.values()) < 1


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
def test_what_too_few_train_is_withheld(federation: Federation, instant: Calibration, kind: str) -> None:
    """Five must hold a coordinate; four have at least half of the width, and six at least a quarter."""
    result, end = HeteroFl(federation, KINDS[kind](federation), calibration=instant).run(1)
    layout = federation.units.layout
    released = ordered_units(layout, 0.25).coordinates
    assert result.rounds[0].withheld_share == pytest.approx(1 - released.mean())
    before, after = vector(federation, federation.start()), vector(federation, end)
    assert np.array_equal(after[~released], before[~released])
    # A ReLU that is silent on everybody's examples moves nothing.
    assert (after != before)[released].mean() > 0.5


def test_a_run_in_two_parts_is_the_run_in_one_bit_for_bit(
    federation: Federation, clear: FloatMean, instant: Calibration
) -> None:
    setup = replace(federation, participants=6)
    whole, end = HeteroFl(setup, clear, calibration=instant).run(4)
    first, middle = HeteroFl(setup, clear, calibration=instant).run(2)
    file = io.BytesIO()
    torch.save({"state": middle.state, "previous": middle.previous, "memory": middle.memory}, file)
    file.seek(0)
    second, again = HeteroFl(setup, clear, calibration=instant).run(
        2, replace(middle, **torch.load(file, weights_only=True))
    )
    assert same_tensors(again, end)
    assert first.rounds + second.rounds == whole.rounds


def test_it_learns_and_a_round_is_shorter_than_one_of_fedavg(
    federation: Federation, clear: FloatMean, instant: Calibration
) -> None:
    system = HeteroFl(federation, clear, HeteroFlSettings(levels=3), calibration=instant)
    result, _ = system.run(10)
    assert result.rounds[-1].accuracy > accuracy(federation.model, federation.test) + 0.2
    whole, _ = FedAvg(federation, clear, calibration=instant).run(1)
    assert max(one.seconds for one in result.rounds) < whole.rounds[0].seconds
    assert system.name == "HeteroFL float"
