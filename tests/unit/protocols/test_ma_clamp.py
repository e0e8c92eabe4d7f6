"""Depths follow the devices; a block is averaged by those who trained it if they are enough, and else never leaves."""

from __future__ import annotations

import functools
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from protocols.aggregators import Aggregator, FixedPoint, FloatMean, MaskIndexed, Uniform, secure
from protocols.baselines.partial import FedDrop, FedPmt
from protocols.federation import Federation
from protocols.ma_clamp import Clamp, DepthSettings, Diluted, MaClamp
from protocols.models import mlp
from protocols.results import RoundResult
from protocols.round import aggregate_work
from protocols.simulation.devices import Device, Fleet
from protocols.training import Examples, Training
from pruning.errors import UnsupportedModelError
from pruning.units import find_units
from secagg.errors import AbortError, ParameterError
from secagg.messages import MaskedInput, Message, ShareKeys, decode
from secagg.params import Params
from secagg.ring import Ring
from secagg.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from protocols.aggregators import Client
    from protocols.federation import Checkpoint
    from protocols.ma_clamp import DepthSystem
    from protocols.round import Work
    from protocols.simulation.calibration import Calibration, SecureTime
    from protocols.synchronous import SynchronousSystem
    from secagg.params import Mode

    WorkAt = Callable[[SynchronousSystem, Checkpoint], Mapping[Client, Work]]

WIDTH, CLASSES, EXAMPLES = 16, 4, 12
WIDTHS = (WIDTH, 16, 12, 8, CLASSES)
"""Of an mlp with the blocks fc1 to fc4."""

SIZES = {f"fc{n}": WIDTHS[n - 1] * WIDTHS[n] + WIDTHS[n] for n in range(1, 5)}
"""Parameters of each block."""

DEPTHS = (1, 1, 2, 3, 4, 4)
"""One for each client: fc4 is trained by six of them, fc3 by four, fc2 by three, fc1 by two."""

PARAMS = Params(min_cohort=2, max_dropouts=0, participation=0.5)


def blobs(seed: int, shape: tuple[int, ...] = (WIDTH,)) -> Examples:
    """Random inputs whose label says where they are largest."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(EXAMPLES, *shape, generator=generator)
    return Examples(inputs, inputs.flatten(1)[:, :CLASSES].argmax(1))


def fleet(speeds: Sequence[float]) -> Fleet:
    """Devices whose links take next to no time; those of less than half the speed are stragglers."""
    return Fleet(
        tuple(
            Device(
                name=f"client-{number}",
                flops_per_second=1e5 * speed,
                upload_bytes_per_second=1e9,
                download_bytes_per_second=1e9,
                straggler=speed < 0.5,
            )
            for number, speed in enumerate(speeds)
        )
    )


def federation_of(
    model: nn.Module, shape: tuple[int, ...] = (WIDTH,), speeds: Sequence[float] = (1.0,) * len(DEPTHS)
) -> Federation:
    devices = fleet(speeds)
    return Federation(
        model=model,
        units=find_units(model, torch.zeros(2, *shape)),
        fleet=devices,
        examples={name: blobs(seed, shape) for seed, name in enumerate(devices.names)},
        test=blobs(99, shape),
        training=Training(steps=2, batch_size=EXAMPLES, learning_rate=0.1),
        seed=3,
    )


@pytest.fixture(scope="module")
def setup() -> Federation:
    return federation_of(mlp(WIDTH, WIDTHS[1:-1], CLASSES, seed=1))


def with_depths(federation: Federation, depths: Sequence[int] = DEPTHS) -> Checkpoint:
    """The start, with every client at a depth of its own."""
    states = {
        name: {"depth": depth, "suggestion": 0, "streak": 0}
        for name, depth in zip(federation.fleet.names, depths, strict=True)
    }
    return replace(federation.start(), memory={"depths": states})


def floating(federation: Federation, share: float) -> FloatMean:
    return FloatMean(federation.units.layout, "mask-indexed", share)


def clear(federation: Federation, share: float) -> FixedPoint:
    return FixedPoint(federation.units.layout, replace(PARAMS, participation=share), "mask-indexed")


def encrypted(federation: Federation, share: float) -> MaskIndexed:
    return MaskIndexed(federation.units.layout, replace(PARAMS, participation=share))


def moved(before: Checkpoint, after: Checkpoint) -> set[str]:
    """The modules of which anything changed."""
    return {name.split(".")[0] for name, old in before.state.items() if not torch.equal(old, after.state[name])}


def mean_of(work: Mapping[Client, Work], name: str, clients: Sequence[Client]) -> torch.Tensor:
    return torch.stack([work[client].update[name].double() for client in clients]).mean(0)


def one_round(system: SynchronousSystem, start: Checkpoint) -> tuple[RoundResult, Checkpoint]:
    (found,) = system.play(1, start)
    outcome, after = found
    assert isinstance(outcome, RoundResult)
    return outcome, after


# ---------------------------------------------------------------------------------- depths that follow devices

SPEEDS = (0.25, 0.25, 1.0, 1.0, 1.0, 8.0)
QUICKLY = DepthSettings(depth=2, patience=1, jitter=False)


def made(
    instant: Calibration,
    settings: DepthSettings = QUICKLY,
    deadline: float | None = None,
    *,
    charged: bool = False,
) -> MaClamp:
    made = replace(federation_of(mlp(WIDTH, WIDTHS[1:-1], CLASSES, seed=1), speeds=SPEEDS), deadline=deadline)
    return MaClamp(made, clear(made, 0.0) if charged else floating(made, 0.0), settings, calibration=instant)


def test_the_thresholds_stand_before_the_first_round_and_stay(instant: Calibration) -> None:
    system = made(instant, DepthSettings(depth=2, slow=1.5, fast=0.5, jitter=False))
    forward = 2 * EXAMPLES * sum(ins * outs for ins, outs in pairwise(WIDTHS))
    backward = 2 * forward - 2 * EXAMPLES * WIDTHS[0] * WIDTHS[1]  # the inputs have no gradient
    typical = 2 * (forward + backward) / 1e5  # two steps on a device of speed 1, the median
    assert system.rule.t_high == pytest.approx(1.5 * typical, rel=1e-3)
    assert system.rule.t_low == pytest.approx(0.5 * typical, rel=1e-3)
    notes = system.notes
    assert f"above {system.rule.t_high:.4g} s" in notes[0]
    system.run(2)
    assert system.notes == notes


def test_slow_devices_train_fewer_blocks_and_fast_ones_more(instant: Calibration) -> None:
    system = made(instant)
    result, _ = system.run(5)
    keeps = {name: [one.clients[name].keep for one in result.rounds] for name in system.federation.fleet.names}
    assert keeps["client-0"] == keeps["client-1"] == [2 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4]
    assert keeps["client-5"] == [2 / 4, 3 / 4, 1, 1, 1]
    assert result.rounds[0].details["mean depth"] == 2
    assert result.rounds[4].details["mean depth"] == 4 * sum(keep[4] for keep in keeps.values()) / len(SPEEDS)


def test_every_depth_is_what_the_rounds_before_suggest(instant: Calibration) -> None:
    system = made(instant)
    result, _ = system.run(6)
    for before, after in pairwise(result.rounds):
        for name, one in before.clients.items():
            step = (one.seconds.total < system.rule.t_low) - (one.seconds.total > system.rule.t_high)
            assert after.clients[name].keep == min(max(one.keep + step / 4, 1 / 4), 1)


def test_one_slow_round_changes_nothing_where_patience_is_asked_for(instant: Calibration) -> None:
    system = made(instant, replace(QUICKLY, patience=3))
    result, _ = system.run(4)
    assert [one.clients["client-0"].keep for one in result.rounds] == [0.5, 0.5, 0.5, 0.25]


def test_thresholds_differ_between_clients_by_their_numbers(instant: Calibration) -> None:
    calm = made(instant, replace(QUICKLY, jitter=True, slow=2.2))
    result, _ = calm.run(2)
    # Both take as long; the first is slow above 0.8 * 2.2 medians, the second above 2.2.
    first, second = (result.rounds[1].clients[name].keep for name in ("client-0", "client-1"))
    assert (first, second) == (0.25, 0.5)


def test_a_first_depth_beyond_the_model_is_all_of_it(instant: Calibration) -> None:
    result, _ = made(instant, replace(QUICKLY, depth=9)).run(1)
    assert {one.keep for one in result.rounds[0].clients.values()} == {1}


def test_a_measured_time_does_not_decide_what_is_trained(instant: Calibration) -> None:
    class Slow(type(instant)):  # type: ignore[misc]  # the fixture's own class
        def time(self, mode: Mode, clients: int, params: Params) -> SecureTime:
            return replace(super().time(mode, clients, params), client=1e6)

    quick, slow = made(instant, charged=True), made(Slow(), charged=True)
    (result, end), (late, other) = quick.run(3), slow.run(3)
    assert late.round_seconds > 1e6 > result.round_seconds
    assert end.memory == other.memory
    assert moved(end, other) == set()


def test_a_run_in_two_parts_is_the_run_in_one(instant: Calibration) -> None:
    settings = replace(QUICKLY, patience=2)
    _, whole = made(instant, settings).run(5)
    _, half = made(instant, settings).run(3)
    _, parts = made(instant, settings).run(2, half)
    assert moved(whole, parts) == set()
    assert parts.memory == whole.memory
    assert {state["streak"] for state in half.memory["depths"].values()} == {1}  # halfway to a change


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 0}, "depth"),
        ({"slow": 0.5}, "fast 0.7 must be less than slow 0.5"),
        ({"fast": -1.0}, "fast"),
        ({"patience": 0}, "patience"),
    ],
)
def test_settings_outside_their_domain_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        DepthSettings(**wrong)  # type: ignore[arg-type]


def test_a_model_without_blocks_is_refused() -> None:
    flat = federation_of(nn.Sequential(nn.PReLU(), nn.AdaptiveAvgPool1d(CLASSES)))
    with pytest.raises(UnsupportedModelError, match="no depth"):
        FedPmt(flat, floating(flat, 0.0))


# ---------------------------------------------------------------------------------- what is averaged


@pytest.mark.parametrize("make", [floating, clear, encrypted])
@pytest.mark.parametrize("rule", [(0.5, ("fc2", "fc3", "fc4")), (0.51, ("fc3", "fc4")), (1.0, ("fc4",))])
def test_a_block_is_averaged_over_those_who_trained_it_if_they_are_enough(
    setup: Federation,
    instant: Calibration,
    work_at: WorkAt,
    make: Callable[[Federation, float], Aggregator],
    rule: tuple[float, tuple[str, ...]],
) -> None:
    share, averaged = rule
    system = MaClamp(setup, make(setup, share), calibration=instant)
    start = with_depths(setup)
    work = work_at(system, start)
    result, after = one_round(system, start)
    for name, old in start.state.items():
        block = name.split(".")[0]
        if block not in averaged:
            assert torch.equal(after.state[name], old)
            continue
        trained = [client for client, depth in zip(work, DEPTHS, strict=True) if depth > 4 - int(block[2])]
        torch.testing.assert_close(after.state[name], (old + mean_of(work, name, trained)).float(), rtol=0, atol=1e-5)
    assert moved(start, after) == set(averaged)
    assert result.details["layers averaged"] == len(averaged)
    assert result.details["layers recovered"] == len(averaged) - 1
    assert result.withheld_share == pytest.approx(
        sum(size for block, size in SIZES.items() if block not in averaged) / sum(SIZES.values())
    )


def test_few_clients_make_privacy_the_stricter_rule(setup: Federation, instant: Calibration) -> None:
    private = MaskIndexed(setup.units.layout, replace(PARAMS, min_cohort=4, participation=0.0))
    start = with_depths(setup)
    _, after = one_round(MaClamp(setup, private, calibration=instant), start)
    assert moved(start, after) == {"fc3", "fc4"}


def test_clamp_averages_exactly_the_blocks_that_all_have_trained(setup: Federation, instant: Calibration) -> None:
    system = Clamp(setup, encrypted(setup, 1.0), calibration=instant)
    for depths in ((2, 2, 2, 2, 2, 2), (3, 2, 4, 4, 2, 3), (4, 4, 4, 4, 4, 3), (4,) * 6):
        start = with_depths(setup, depths)
        result, after = one_round(system, start)
        assert moved(start, after) == {"fc4", "fc3", "fc2", "fc1"} - {f"fc{n}" for n in range(1, 5 - min(depths))}
        assert result.details["layers recovered"] == 0


def test_diluted_clamp_is_the_plain_mean_with_zeros_for_frozen_copies(
    setup: Federation, instant: Calibration, work_at: WorkAt
) -> None:
    system = Diluted(setup, Uniform(setup.units.layout, PARAMS), calibration=instant)
    start = with_depths(setup)
    work = work_at(system, start)
    result, after = one_round(system, start)
    frozen = [one.update["fc1.weight"] for one, depth in zip(work.values(), DEPTHS, strict=True) if depth < 4]
    assert [int(update.count_nonzero()) for update in frozen] == [0] * 4
    for name, old in start.state.items():
        expected = (old + mean_of(work, name, list(work))).float()
        torch.testing.assert_close(after.state[name], expected, rtol=0, atol=1e-5)
    assert moved(start, after) == set(SIZES)
    assert result.withheld_share == 0


def test_diluted_clamp_moves_a_block_by_the_share_that_trained_it(setup: Federation, instant: Calibration) -> None:
    start = with_depths(setup)
    _, apart = one_round(MaClamp(setup, floating(setup, 0.0), calibration=instant), start)
    _, diluted = one_round(Diluted(setup, FloatMean(setup.units.layout), calibration=instant), start)
    for name, old in start.state.items():
        share = {"fc1": 2, "fc2": 3, "fc3": 4, "fc4": 6}[name.split(".")[0]] / 6
        step = (apart.state[name] - old) * share
        torch.testing.assert_close(diluted.state[name] - old, step, rtol=0, atol=1e-6)


def test_encryption_changes_no_bit_of_the_model(setup: Federation, instant: Calibration) -> None:
    aggregator = encrypted(setup, 0.5)
    slow_links = tuple(replace(device, upload_bytes_per_second=1e4) for device in setup.fleet.devices)
    setup = replace(setup, fleet=Fleet(slow_links))  # keys and shares take a while
    hidden, end = MaClamp(setup, aggregator, QUICKLY, twin=aggregator.twin, calibration=instant).run(5)
    plain, other = MaClamp(setup, aggregator.twin, QUICKLY, calibration=instant).run(5)
    assert hidden.round_seconds > plain.round_seconds
    assert hidden.rounds[4].details["mean depth"] == 4
    assert end.memory == other.memory
    assert moved(end, other) == set()
    assert hidden.difference == 0


def test_a_lost_round_still_says_how_slow_a_device_is(instant: Calibration) -> None:
    system = made(instant, deadline=1e-9)
    ((outcome, after),) = system.play(1)
    assert not isinstance(outcome, RoundResult)
    assert moved(system.federation.start(), after) == set()
    assert {name: state["depth"] for name, state in after.memory["depths"].items()}["client-0"] == 1


# ---------------------------------------------------------------------------------- normalisations


def test_running_statistics_are_averaged_over_everybody_also_where_they_are_frozen(instant: Calibration) -> None:
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(4, CLASSES)
    )
    setup = federation_of(model, (1, 4, 4))
    setup = replace(setup, training=replace(setup.training, steps=1))
    start = with_depths(setup, (1, 1, 1, 1, 2, 3))
    _, after = one_round(MaClamp(setup, encrypted(setup, 1.0), calibration=instant), start)
    assert moved(start, after) == {"1", "5"}
    assert torch.equal(after.state["1.weight"], start.state["1.weight"])
    # One step on all examples: torch moves the statistics by a tenth towards those of the batch.
    with torch.no_grad():
        passed = [model[0](examples.inputs).transpose(0, 1).flatten(1) for examples in setup.examples.values()]
    mean = torch.stack([0.1 * one.mean(1) for one in passed]).mean(0)
    variance = torch.stack([0.9 + 0.1 * one.var(1) for one in passed]).mean(0)
    torch.testing.assert_close(after.state["1.running_mean"], mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(after.state["1.running_var"], variance, rtol=0, atol=1e-5)


# ---------------------------------------------------------------------------------- cost


def test_frozen_blocks_cost_no_backward_pass(setup: Federation, instant: Calibration) -> None:
    result, _ = one_round(MaClamp(setup, floating(setup, 0.0), calibration=instant), with_depths(setup))
    products = [2 * EXAMPLES * ins * outs for ins, outs in pairwise(WIDTHS)]
    for depth, one in zip(DEPTHS, result.clients.values(), strict=True):
        trained = products[-depth:]
        # Each trained block has gradients of its weights, and of its inputs if a block before it is trained too.
        assert one.flops == 2 * (sum(products) + sum(trained) + sum(trained[1:]))
        assert one.joules == pytest.approx(setup.watts * one.flops / 1e5)


@pytest.mark.parametrize("make", [clear, floating])
def test_frozen_blocks_cost_no_upload(
    setup: Federation, instant: Calibration, make: Callable[[Federation, float], Aggregator]
) -> None:
    result, _ = one_round(MaClamp(setup, make(setup, 0.0), calibration=instant), with_depths(setup))
    width = Ring.holding(len(DEPTHS) * PARAMS.magnitude).bits // 8 if make is clear else 4
    sizes = list(SIZES.values())
    expected = [width * sum(sizes[-depth:]) for depth in DEPTHS]
    assert [one.upload_bytes for one in result.clients.values()] == expected


# ---------------------------------------------------------------------------------- FedPMT and FedDrop


def test_the_first_blocks_of_fedpmt_never_change(setup: Federation, instant: Calibration) -> None:
    system = FedPmt(setup, encrypted(setup, 0.0), DepthSettings(depth=2), calibration=instant)
    result, end = system.run(3)
    assert moved(setup.start(), end) == {"fc3", "fc4"}
    assert {one.details["mean depth"] for one in result.rounds} == {2}


def feddrop(setup: Federation, seed: int = 3) -> FedDrop:
    return FedDrop(replace(setup, seed=seed), floating(setup, 0.0))


def drawn(system: DepthSystem, rounds: int = 40) -> list[list[int]]:
    return [[system.depth_of(client, number) for client in system.cohort(number)] for number in range(rounds)]


def test_the_depths_of_feddrop_repeat_with_the_seed_and_differ_between_rounds_and_clients(setup: Federation) -> None:
    depths = drawn(feddrop(setup))
    assert depths == drawn(feddrop(setup))
    assert depths != drawn(feddrop(setup, seed=4))
    assert len({tuple(row) for row in depths}) > 30
    assert len(set(zip(*depths, strict=True))) == len(DEPTHS)
    counts = [sum(row.count(depth) for row in depths) for depth in (1, 2, 3, 4)]
    assert sum(counts) == 240
    assert min(counts) > 40  # 60 each are expected


def test_a_round_of_feddrop_trains_the_depths_that_were_drawn(setup: Federation, instant: Calibration) -> None:
    system = FedDrop(setup, floating(setup, 0.0), calibration=instant)
    result, _ = system.run(3)
    keeps = [[one.keep for one in played.clients.values()] for played in result.rounds]
    assert keeps == [[depth / 4 for depth in row] for row in drawn(system, 3)]


# ---------------------------------------------------------------------------------- on the wire

SEED = b"the same secrets every time"


def transcript(
    monkeypatch: pytest.MonkeyPatch, aggregator: MaskIndexed, work: Mapping[Client, Work]
) -> tuple[bytes, ...]:
    """Every message of the session in which this work is aggregated."""
    wire: list[bytes] = []
    with monkeypatch.context() as patched:
        patched.setattr(secure, "simulate", functools.partial(simulate, observe=wire.append))
        aggregate_work(aggregator, work, model_root=bytes(32), seed=SEED)
    return tuple(wire)


def changed(work: Mapping[Client, Work], block: str) -> dict[Client, Work]:
    """The same work with other values of one block at those who trained it."""
    return {
        client: replace(
            one,
            update={
                name: values + 0.25 * values.sign() if name.startswith(block) else values
                for name, values in one.update.items()
            },
        )
        for client, one in work.items()
    }


def test_a_masked_vector_has_the_released_coordinates_that_its_client_holds_and_no_other(
    setup: Federation, instant: Calibration, work_at: WorkAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregator = encrypted(setup, 0.5)
    work = work_at(MaClamp(setup, aggregator, calibration=instant), with_depths(setup))
    messages: list[Message] = [decode(data) for data in transcript(monkeypatch, aggregator, work)]
    width = Ring.holding(len(DEPTHS) * PARAMS.magnitude).bits // 8
    lengths = {one.sender: len(one.vector) // width for one in messages if isinstance(one, MaskedInput)}
    # fc1, which two of six have trained, is below the rule: those of depth 3 and 4 send the same coordinates.
    fc2, fc3, fc4 = (SIZES[name] for name in ("fc2", "fc3", "fc4"))
    everything = fc2 + fc3 + fc4
    assert lengths == {0: fc4, 1: fc4, 2: fc3 + fc4, 3: everything, 4: everything, 5: everything}
    assert all(len(one.vector) % width == 0 for one in messages if isinstance(one, MaskedInput))


def test_the_values_of_a_block_below_the_rule_change_no_byte_of_any_message(
    setup: Federation, instant: Calibration, work_at: WorkAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregator = encrypted(setup, 0.5)
    work = work_at(MaClamp(setup, aggregator, calibration=instant), with_depths(setup))
    sent = transcript(monkeypatch, aggregator, work)
    assert transcript(monkeypatch, aggregator, changed(work, "fc1")) == sent
    released = transcript(monkeypatch, aggregator, changed(work, "fc2"))
    others = [type(decode(one)) for one, other in zip(sent, released, strict=True) if one != other]
    # The three who trained it send another vector, and nothing else differs.
    assert others == [MaskedInput] * 3


def test_depths_are_declared_as_chosen_by_the_device_and_not_by_data(
    setup: Federation, instant: Calibration, work_at: WorkAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregator = encrypted(setup, 0.5)
    work = work_at(MaClamp(setup, aggregator, calibration=instant), with_depths(setup))
    declared = [
        one.declaration for one in map(decode, transcript(monkeypatch, aggregator, work)) if isinstance(one, ShareKeys)
    ]
    assert [one.kind for one in declared] == ["layers"] * 4 + ["full"] * 2
    assert {one.provenance.name for one in declared[:4]} == {"DEVICE"}


def test_a_round_in_which_nothing_meets_the_rule_is_refused_before_anything_is_sent(
    setup: Federation, instant: Calibration, work_at: WorkAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = MaskIndexed(setup.units.layout, replace(PARAMS, min_cohort=7))
    work = work_at(MaClamp(setup, few, calibration=instant), with_depths(setup))
    wire: list[bytes] = []
    monkeypatch.setattr(secure, "simulate", functools.partial(simulate, observe=wire.append))
    with pytest.raises(AbortError, match="min_cohort 7"):
        aggregate_work(few, work, seed=SEED)
    assert not any(isinstance(decode(one), MaskedInput) for one in wire)
