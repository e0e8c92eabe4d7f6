"""What every federated system promises: its rounds, its times, its deadlines, and where a run can go on."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, final

import numpy as np
import pytest
import torch

import secagg
from protocols.aggregators import FixedPoint, FloatMean, MaskIndexed, Secure, Uniform
from protocols.baselines.exclusion import Exclusion
from protocols.baselines.fedavg import FedAvg
from protocols.baselines.fluid import Fluid, FluidSettings
from protocols.baselines.partial import FedDrop, FedPmt
from protocols.baselines.submodels import OrderedDropout, RandomDropout
from protocols.clip import Clip, ClipSettings
from protocols.fetch import Served
from protocols.ma_clamp import Clamp, Diluted, MaClamp
from protocols.measuring import Talk
from protocols.results import LostRound, RoundResult
from protocols.round import RoundContext, play
from protocols.sessions.tally import Tally
from protocols.stages import Delta, Fetch, LocalTraining, Weigh
from protocols.synchronous import SynchronousSystem
from protocols.system import largest_difference
from protocols.training import accuracy
from secagg.errors import AbortError, InputError, ParameterError, TooFewClientsError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from protocols.aggregators import Aggregated, Aggregator, Client
    from protocols.federation import Checkpoint, Federation, Memory
    from protocols.results import ClientRound
    from protocols.round import Stage, Work
    from protocols.simulation.calibration import Calibration

DROPOUTS: dict[int, dict[Hashable, str]] = {
    0: {"fast-02": "ShareKeys"},
    1: {"straggler-01": "MaskedInput", "fast-01": "AdvertiseKeys"},
}
SYSTEMS: dict[str, Callable[..., SynchronousSystem]] = {
    "FedAvg": FedAvg,
    "exclusion": Exclusion,
    "random dropout": RandomDropout,
    "ordered dropout": OrderedDropout,
    "FedPMT": FedPmt,
    "FedDrop": FedDrop,
    "MA-CLAMP": MaClamp,
    "CLAMP": Clamp,
    "CLAMP diluted": Diluted,
    "CLIP global": partial(Clip, settings=ClipSettings(statistic="global")),
    "CLIP local": partial(Clip, settings=ClipSettings(statistic="local", refresh_every=2)),
    "CLIP vote": partial(Clip, settings=ClipSettings(statistic="vote")),
}
WITH_FLUID: dict[str, Callable[..., SynchronousSystem]] = {
    **SYSTEMS,
    "FLuID": partial(Fluid, settings=FluidSettings(step=0.05)),
}


def same_tensors(one: Checkpoint, other: Checkpoint) -> bool:
    return one.state.keys() == other.state.keys() and all(
        torch.equal(tensor, other.state[name]) for name, tensor in one.state.items()
    )


# ---------------------------------------------------------------------------------- rounds


def test_fedavg_learns(federation: Federation, plain: FixedPoint, instant: Calibration) -> None:
    result, end = FedAvg(federation, plain, calibration=instant).run(10)
    before = accuracy(federation.model, federation.test)
    assert result.rounds[-1].accuracy > before + 0.2
    assert result.rounds[-1].accuracy == accuracy(federation.model_at(end), federation.test)
    assert [one.number for one in result.rounds] == list(range(10))


def test_simulated_time_adds_up(federation: Federation, plain: FixedPoint, instant: Calibration) -> None:
    result, end = FedAvg(federation, plain, calibration=instant).run(3)
    assert end.seconds == result.rounds[-1].finished_at == pytest.approx(sum(one.seconds for one in result.rounds))
    slow, fast = result.rounds[0].clients["straggler-01"], result.rounds[0].clients["fast-01"]
    assert slow.seconds.compute == pytest.approx(2 * fast.seconds.compute)
    assert result.rounds[0].seconds == slow.seconds.total


def test_a_devices_energy_is_its_power_over_the_time_of_its_training(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    result, _ = FedAvg(replace(federation, watts=5.0), plain, calibration=instant).run(1)
    for client in result.rounds[0].clients.values():
        assert client.joules == 5 * client.seconds.compute > 0


def test_a_run_repeats_bit_for_bit_and_another_seed_gives_another(
    federation: Federation, uniform: Uniform, instant: Calibration
) -> None:
    ends = [FedAvg(replace(federation, seed=seed), uniform, calibration=instant).run(2)[1] for seed in (5, 5, 6)]
    assert same_tensors(ends[0], ends[1])
    assert not same_tensors(ends[0], ends[2])


def test_training_leaves_the_global_random_state_alone(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    before = torch.random.get_rng_state()
    FedAvg(federation, plain, calibration=instant).run(1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_run_of_no_rounds_is_refused(federation: Federation, plain: FixedPoint) -> None:
    with pytest.raises(ParameterError, match="rounds"):
        FedAvg(federation, plain).run(0)


# ---------------------------------------------------------------------------------- encrypted and in the clear


@pytest.mark.parametrize("kind", [Uniform, MaskIndexed])
@pytest.mark.parametrize("name", SYSTEMS)
def test_an_encrypted_run_with_dropouts_ends_at_the_same_model_as_its_twin(
    federation: Federation, instant: Calibration, name: str, kind: type[Secure]
) -> None:
    aggregator = kind(federation.units.layout, secagg.Params(min_cohort=2, max_dropouts=2))
    system = SYSTEMS[name](federation, aggregator, twin=aggregator.twin, calibration=instant)
    # Exclusion has no stragglers that could drop out.
    cohort = system.cohort(0)
    gone = {n: {client: last for client, last in own.items() if client in cohort} for n, own in DROPOUTS.items()}
    encrypted, end = system.run(2, dropouts=gone)
    _, clear = SYSTEMS[name](federation, aggregator.twin, calibration=instant).run(2, dropouts=gone)
    assert same_tensors(end, clear)
    assert encrypted.difference == 0
    assert "fast-02" not in encrypted.rounds[0].survivors
    assert "fast-02" in encrypted.rounds[1].survivors


def test_pruned_stragglers_are_in_the_rounds_that_agree(
    federation: Federation, indexed: MaskIndexed, instant: Calibration
) -> None:
    result, _ = Clip(federation, indexed, twin=indexed.twin, calibration=instant).run(2)
    assert result.difference == 0
    assert min(client.keep for client in result.of_stragglers()) < 1


def test_the_float_mean_ends_near_fixed_point_and_not_at_it(federation: Federation, plain: FixedPoint) -> None:
    layout = federation.units.layout
    clear = FixedPoint(layout, replace(plain.params, levels=2**10))
    result, _ = FedAvg(federation, FloatMean(layout), twin=clear).run(1)
    assert result.difference is not None
    assert 0 < result.difference <= clear.params.range_of("any") / clear.params.magnitude / 2 + 1e-9


def test_a_twin_that_withholds_something_else_is_infinitely_different(
    federation: Federation, plain: FixedPoint
) -> None:
    layout = federation.units.layout
    given: dict[Hashable, dict[str, torch.Tensor]] = {
        number: {tensor.name: torch.zeros(tensor.shape) for tensor in layout.tensors} for number in range(6)
    }
    whole = FixedPoint(layout, plain.params, "mask-indexed").aggregate(given)
    vector = whole.vector.copy()
    vector[0] = torch.nan
    assert largest_difference(whole, replace(whole, vector=vector)) == float("inf")
    assert largest_difference(whole, whole) == 0


# ---------------------------------------------------------------------------------- runs in parts


def from_file(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint whose memory and tensors went through a file that holds no code."""
    file = io.BytesIO()
    torch.save({"memory": checkpoint.memory, "state": checkpoint.state, "previous": checkpoint.previous}, file)
    file.seek(0)
    return replace(checkpoint, **torch.load(file, weights_only=True))


def plainly(memory: Any) -> Any:
    """The same memory with lists for tensors, so that two can be compared."""
    if isinstance(memory, torch.Tensor):
        return memory.tolist()
    if isinstance(memory, dict):
        return {key: plainly(value) for key, value in memory.items()}
    return [plainly(value) for value in memory] if isinstance(memory, list) else memory


@pytest.mark.parametrize("name", WITH_FLUID)
def test_a_run_in_two_parts_is_the_run_in_one_bit_for_bit(
    federation: Federation, instant: Calibration, name: str
) -> None:
    """The parts are played by two systems that share nothing but the checkpoint, which the first one outlived."""
    setup = replace(federation, participants=7)
    aggregator = FixedPoint(federation.units.layout, mode="mask-indexed")
    whole = list(WITH_FLUID[name](setup, aggregator, calibration=instant).play(5))
    other = WITH_FLUID[name](setup, aggregator, calibration=instant)
    for done in (1, 3):
        rest = list(other.play(5 - done, from_file(whole[done - 1][1])))
        assert [outcome for outcome, _ in rest] == [outcome for outcome, _ in whole[done:]]
        for (_, one), (_, again) in zip(whole[done:], rest, strict=True):
            assert same_tensors(one, again)
            assert plainly(one.memory) == plainly(again.memory)
            assert (one.number, one.seconds) == (again.number, again.seconds)


@pytest.mark.parametrize("name", ["CLIP local", "CLIP vote", "FLuID", "MA-CLAMP"])
def test_a_system_that_begins_anew_has_forgotten_the_run_before(
    federation: Federation, plain: FixedPoint, instant: Calibration, name: str
) -> None:
    system = WITH_FLUID[name](federation, plain, calibration=instant)
    first, second = ([outcome for outcome, _ in system.play(4)] for _ in range(2))
    assert first == second


def test_play_yields_a_round_at_a_time(federation: Federation, plain: FixedPoint, instant: Calibration) -> None:
    system = Noting(federation, plain, calibration=instant)
    played = system.play(3)
    assert system.learned == []
    for number in range(3):
        outcome, checkpoint = next(played)
        assert outcome.number == number
        assert checkpoint.number == number + 1
        assert [one for one, _ in system.learned] == list(range(number + 1))
    assert list(played) == []


def test_on_round_hears_of_every_outcome(federation: Federation, plain: FixedPoint, instant: Calibration) -> None:
    heard: list[object] = []
    result, _ = FedAvg(federation, plain, calibration=instant).run(2, on_round=heard.append)
    assert heard == list(result.rounds)


# ---------------------------------------------------------------------------------- deadlines


@final
class Noting(SynchronousSystem):
    """FedAvg that notes what it learns from."""

    def __init__(self, federation: Federation, aggregator: Aggregator, *, calibration: Calibration) -> None:
        super().__init__(federation, aggregator, calibration=calibration)
        self.learned: list[tuple[int, Aggregated | None]] = []

    @property
    def name(self) -> str:
        return "noting"

    def stages(self) -> tuple[Stage, ...]:
        setup = self.federation
        return Fetch(), LocalTraining(setup.examples, setup.training, setup.seed), Delta()

    def learn(
        self,
        context: RoundContext,
        clients: Mapping[Client, ClientRound],  # noqa: ARG002 - not noted
        work: Mapping[Client, Work],  # noqa: ARG002 - not noted
        aggregated: Aggregated | None,
    ) -> Mapping[str, float]:
        self.learned.append((context.number, aggregated))
        return {"noted": len(self.learned)}

    def remember(self) -> Memory:
        return {"noted": len(self.learned)}


@final
class Telling(SynchronousSystem):
    """FedAvg whose clients count something together before they send their updates."""

    @property
    def name(self) -> str:
        return "telling"

    def confer(self, context: RoundContext, work: Mapping[Client, Work]) -> Talk:  # noqa: ARG002
        return Talk((Tally(np.zeros(3, np.int64), tuple(work), {}, {}, {}, "three counts were opened."),))


def test_a_round_without_its_updates_still_says_which_sums_were_opened(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    gone: dict[Hashable, str] = dict.fromkeys(("fast-01", "fast-02", "fast-03"), "ShareKeys")
    drawn = replace(federation, participants=len(federation.examples))
    (good, _), (lost, _) = Telling(drawn, plain, calibration=instant).play(2, dropouts={1: gone})
    assert isinstance(good, RoundResult)
    assert isinstance(lost, LostRound)
    assert good.verdict.endswith(" Besides: three counts were opened.")
    assert lost.reason.endswith(" Before it was lost: three counts were opened.")


@pytest.fixture(scope="module")
def hurried(federation: Federation, plain: FixedPoint, instant: Calibration) -> Federation:
    """With a deadline that stragglers miss, were they to train the whole model."""
    (one,) = FedAvg(federation, plain, calibration=instant).run(1)[0].rounds
    return replace(federation, deadline=1.1 * one.clients["fast-01"].seconds.total)


@pytest.mark.parametrize("encrypted", [True, False])
def test_who_is_late_is_a_dropout_and_the_round_lasts_until_the_deadline(
    hurried: Federation, uniform: Uniform, instant: Calibration, *, encrypted: bool
) -> None:
    aggregator: Aggregator = uniform if encrypted else uniform.twin
    result, end = FedAvg(hurried, aggregator, calibration=instant).run(2)
    for one in result.rounds:
        assert {name for name, client in one.clients.items() if client.late} == {"straggler-01", "straggler-02"}
        assert one.survivors == tuple(device.name for device in hurried.fleet.rest)
        in_time = [client.seconds.total for client in one.clients.values() if not client.late]
        assert one.seconds == max(hurried.deadline or 0, *in_time)  # keys and shares come on top of the vectors
        assert one.clients["straggler-01"].upload_bytes < one.clients["fast-01"].upload_bytes
    assert end.seconds == pytest.approx(sum(one.seconds for one in result.rounds))


def test_the_mean_of_a_round_is_that_of_those_in_time(
    hurried: Federation, federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    _, hasty = FedAvg(hurried, plain, calibration=instant).run(2)
    _, alone = Exclusion(federation, plain, calibration=instant).run(2)
    assert same_tensors(hasty, alone)


def test_nobody_is_late_where_the_deadline_is_long_enough(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    patient, _ = FedAvg(replace(federation, deadline=1e6), plain, calibration=instant).run(1)
    endless, _ = FedAvg(federation, plain, calibration=instant).run(1)
    assert patient == endless


def test_a_straggler_whose_submodel_keeps_up_is_in_time(
    hurried: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    result, _ = OrderedDropout(hurried, plain, calibration=instant).run(2)
    assert [one.survivors for one in result.rounds] == [hurried.fleet.names] * 2
    assert result.rounds[1].seconds < (hurried.deadline or 0)  # the first is charged the identification too


def test_a_late_client_is_out_even_if_it_was_to_leave_later_and_no_later_than_it_leaves(
    hurried: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    """Two dropouts are tolerated after ShareKeys; one that leaves before does not count."""
    gone: dict[int, dict[Hashable, str]] = {
        0: {"straggler-01": "MaskedInput"},
        1: {"straggler-01": "AdvertiseKeys", "fast-01": "ShareKeys"},
    }
    result, _ = FedAvg(hurried, plain, calibration=instant).run(2, dropouts=gone)
    assert result.rounds[0].survivors == tuple(device.name for device in hurried.fleet.rest)
    assert result.rounds[1].survivors == tuple(device.name for device in hurried.fleet.rest[1:])


def test_the_time_of_a_late_client_is_what_its_vector_would_have_taken(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    """What it sent is less, and would make it look as if it had been in time."""
    (patient,) = FedAvg(federation, plain, calibration=instant).run(1)[0].rounds
    hasty = replace(federation, deadline=0.99 * patient.seconds)
    (one,) = FedAvg(hasty, plain, calibration=instant).run(1)[0].rounds
    for name in ("straggler-01", "straggler-02"):
        assert one.clients[name].late
        assert one.clients[name].upload_bytes == 0
        assert one.clients[name].seconds == patient.clients[name].seconds


def test_a_round_with_too_few_in_time_is_lost_and_leaves_the_model_as_it_was(
    federation: Federation, uniform: Uniform, instant: Calibration
) -> None:
    system = Noting(replace(federation, deadline=0.5), uniform, calibration=instant)
    start = federation.start()
    outcomes = list(system.play(2))
    for number, (outcome, checkpoint) in enumerate(outcomes):
        assert isinstance(outcome, LostRound)
        assert (outcome.number, outcome.seconds) == (number, 0.5)
        assert "clients" in outcome.reason
        assert same_tensors(checkpoint, start)
        assert checkpoint.seconds == 0.5 * (number + 1)
        assert checkpoint.memory == {"noted": number + 1}
    assert system.learned == [(0, None), (1, None)]
    with pytest.raises(AbortError, match="every round was lost"):
        system.run(2)


def test_lost_rounds_stand_beside_those_that_were_played(
    hurried: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    """Where one dropout is tolerated, a cohort with both stragglers is lost."""
    setup = replace(hurried, participants=6)
    aggregator = FixedPoint(plain.layout, replace(plain.params, max_dropouts=1))
    both = [n for n in range(8) if sum(str(client).startswith("straggler") for client in setup.cohort(n)) == 2]
    assert 0 < len(both) < 8
    system = FedAvg(setup, aggregator, calibration=instant)
    played = list(system.play(8))
    result = system.result_of(outcome for outcome, _ in played)
    assert [one.number for one in result.lost] == both
    assert [one.number for one in result.rounds] == [number for number in range(8) if number not in both]
    assert result.rounds[-1].finished_at == pytest.approx(
        sum(outcome.seconds for outcome, _ in played[: result.rounds[-1].number + 1])
    )
    after = next(number for number in both if number)
    assert same_tensors(played[after][1], played[after - 1][1])


def test_without_a_deadline_a_round_that_cannot_end_is_an_error(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    gone: dict[int, dict[Hashable, str]] = {1: dict.fromkeys(("fast-01", "fast-02", "fast-03"), "ShareKeys")}
    with pytest.raises(TooFewClientsError):
        FedAvg(federation, plain, calibration=instant).run(2, dropouts=gone)


def test_outcomes_are_rounds_or_what_was_lost(federation: Federation, plain: FixedPoint, instant: Calibration) -> None:
    ((outcome, _),) = FedAvg(federation, plain, calibration=instant).play(1)
    assert isinstance(outcome, RoundResult)
    assert outcome.details == {}
    noting = Noting(federation, plain, calibration=instant)
    ((noted, _),) = noting.play(1)
    assert isinstance(noted, RoundResult)
    assert noted.details == {"noted": 1}


# ---------------------------------------------------------------------------------- stages


def test_clients_can_weigh_by_their_examples(federation: Federation) -> None:
    aggregator = FloatMean(federation.units.layout)
    start = federation.start()
    context = RoundContext(0, federation.model_at(start), start.state, Served(aggregator.layout, start.state))
    examples = dict(federation.examples)
    examples["fast-01"] = examples["fast-01"].subset(range(5))
    stages = (Fetch(), LocalTraining(examples, federation.training, 0), Delta(), Weigh(examples))
    played = play(stages, context, federation.fleet.names, aggregator)
    assert {client: work.weight for client, work in played.work.items()} == {
        client: len(own) for client, own in examples.items()
    }
    heavy = sum(work.update["fc1.bias"] * (work.weight or 0) for work in played.work.values()) / 145
    assert torch.allclose(played.aggregated.mean["fc1.bias"], torch.as_tensor(heavy), atol=1e-6)


def test_a_client_without_examples_is_named(federation: Federation, plain: FixedPoint) -> None:
    start = federation.start()
    served = Served(federation.units.layout, start.state)
    context = RoundContext(0, federation.model_at(start), start.state, served)
    with pytest.raises(InputError, match="nobody") as refused:
        play((LocalTraining({}, federation.training, 0),), context, ["nobody"], plain)
    assert refused.value.culprits == ("nobody",)
