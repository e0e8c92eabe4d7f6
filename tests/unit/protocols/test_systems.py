from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

import secagg
from protocols.aggregators import Aggregator, FixedPoint, FloatMean, MaskIndexed, Secure, Uniform
from protocols.clip import Clip, ClipSettings, KeepRatios
from protocols.fedavg import FedAvg
from protocols.fetch import Served
from protocols.round import RoundContext, play
from protocols.stages import Delta, Fetch, LocalTraining, Weigh
from protocols.system import largest_difference
from protocols.training import Examples, LocalSgd, accuracy
from pruning.clip import relative_norm
from pruning.cost import keep_for_budget
from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from protocols.clip import Budget, Statistic
    from protocols.results import RunResult
    from protocols.system import Checkpoint, Federation, System

PARAMS = secagg.Params(min_cohort=3, max_dropouts=2, value_range=4.0)
DROPOUTS: dict[int, dict[Hashable, str]] = {
    1: {"fast-02": "ShareKeys"},
    2: {"straggler-01": "MaskedInput", "fast-01": "AdvertiseKeys"},
}


def uniform(federation: Federation) -> Uniform:
    return Uniform(federation.units.layout, PARAMS)


def indexed(federation: Federation) -> MaskIndexed:
    return MaskIndexed(federation.units.layout, PARAMS)


def plain(federation: Federation) -> FixedPoint:
    return FixedPoint(federation.units.layout, PARAMS)


def same_tensors(one: Checkpoint, other: Checkpoint) -> bool:
    return all(torch.equal(tensor, other.state[name]) for name, tensor in one.state.items())


def test_fedavg_learns(federation: Federation) -> None:
    result, end = FedAvg(federation, plain(federation)).run(10)
    before = accuracy(federation.model, federation.test)
    assert result.rounds[-1].accuracy > before + 0.2
    assert result.rounds[-1].accuracy == accuracy(federation.model_at(end), federation.test)
    assert [one.number for one in result.rounds] == list(range(10))


def test_simulated_time_adds_up(federation: Federation) -> None:
    result, end = FedAvg(federation, plain(federation)).run(3)
    assert end.seconds == result.rounds[-1].finished_at == pytest.approx(sum(one.seconds for one in result.rounds))
    slow, fast = result.rounds[0].clients["straggler-01"], result.rounds[0].clients["fast-01"]
    assert slow.seconds.compute == pytest.approx(2 * fast.seconds.compute)
    assert result.rounds[0].seconds == slow.seconds.total


def test_a_run_in_two_parts_is_the_run_in_one(federation: Federation) -> None:
    system = FedAvg(federation, plain(federation))
    _, whole = system.run(3)
    _, half = system.run(1)
    assert same_tensors(whole, system.run(2, half)[1])


def test_a_run_repeats_bit_for_bit_and_another_seed_gives_another(federation: Federation) -> None:
    ends = [FedAvg(replace(federation, seed=seed), uniform(federation)).run(2)[1] for seed in (5, 5, 6)]
    assert same_tensors(ends[0], ends[1])
    assert not same_tensors(ends[0], ends[2])


def test_training_leaves_the_global_random_state_alone(federation: Federation) -> None:
    before = torch.random.get_rng_state()
    FedAvg(federation, plain(federation)).run(1)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("make", [uniform, indexed])
def test_an_encrypted_run_with_dropouts_ends_at_the_same_model_as_its_twin(
    federation: Federation, make: Callable[[Federation], Secure]
) -> None:
    aggregator = make(federation)
    encrypted, end = Clip(federation, aggregator, twin=aggregator.twin).run(3, dropouts=DROPOUTS)
    _, clear = Clip(federation, aggregator.twin).run(3, dropouts=DROPOUTS)
    assert same_tensors(end, clear)
    assert encrypted.difference == 0
    assert "fast-02" not in encrypted.rounds[1].survivors
    assert min(client.keep for client in encrypted.of_stragglers()) < 1


def test_the_float_mean_ends_near_fixed_point_and_not_at_it(federation: Federation) -> None:
    layout = federation.units.layout
    clear = FixedPoint(layout, replace(PARAMS, levels=2**10))
    result, _ = FedAvg(federation, FloatMean(layout), twin=clear).run(1)
    assert result.difference is not None
    assert 0 < result.difference <= PARAMS.range_of("any") / clear.params.magnitude / 2 + 1e-9


def test_a_twin_that_withholds_something_else_is_infinitely_different(federation: Federation) -> None:
    layout = federation.units.layout
    given: dict[Hashable, dict[str, torch.Tensor]] = {
        number: {tensor.name: torch.zeros(tensor.shape) for tensor in layout.tensors} for number in range(6)
    }
    whole = FixedPoint(layout, PARAMS, "mask-indexed").aggregate(given)
    vector = whole.vector.copy()
    vector[0] = torch.nan
    assert largest_difference(whole, replace(whole, vector=vector)) == float("inf")
    assert largest_difference(whole, whole) == 0


def clip(
    federation: Federation, aggregator: Aggregator, budget: Budget = "compute", statistic: Statistic = "global"
) -> Clip:
    return Clip(federation, aggregator, ClipSettings(budget=budget, statistic=statistic, score=relative_norm))


def after_warm_up(federation: Federation, system: System, rounds: int) -> RunResult:
    _, warm = FedAvg(federation, plain(federation)).run(2)
    return system.run(rounds, warm)[0]


def test_a_straggler_trains_a_module_with_fewer_parameters_and_keeps_up(federation: Federation) -> None:
    result = after_warm_up(federation, clip(federation, plain(federation)), 2)
    for one in result.rounds:
        slow, fast = one.clients["straggler-02"], one.clients["fast-02"]
        assert slow.parameters < fast.parameters
        assert slow.keep < fast.keep == 1
        assert slow.flops < fast.flops
        assert slow.seconds.compute <= fast.seconds.compute


def test_only_mask_indexed_shrinks_a_stragglers_upload(federation: Federation) -> None:
    sent = {}
    for aggregator in (uniform(federation), indexed(federation)):
        (one,) = after_warm_up(federation, clip(federation, aggregator), 1).rounds
        sent[aggregator.name] = (one.clients["straggler-01"].upload_bytes, one.clients["fast-01"].upload_bytes)
    assert sent["uniform"][0] == sent["uniform"][1]
    assert sent["mask-indexed"][0] < sent["mask-indexed"][1]


def test_the_compute_budget_is_that_of_the_fastest_others(federation: Federation) -> None:
    straggler, fast = federation.fleet.stragglers[0], federation.fleet.rest[0]
    ratios = KeepRatios(federation, plain(federation))
    keep = ratios.solve(straggler, "compute", 0.05)
    whole = ratios.time(fast, 1.0).compute * fast.flops_per_second / federation.training.steps
    assert keep == keep_for_budget(federation.model, federation.units, federation.batch, whole / 2)


def test_within_a_round_a_mask_indexed_straggler_keeps_more_than_a_uniform_one(federation: Federation) -> None:
    straggler, fast = federation.fleet.stragglers[0], federation.fleet.rest[0]
    keeps = {}
    for aggregator in (uniform(federation), indexed(federation)):
        ratios = KeepRatios(federation, aggregator)
        keeps[aggregator.name] = ratios.solve(straggler, "round", 0.05)
    deadline = ratios.time(fast, 1.0).total
    assert ratios.time(straggler, keeps["mask-indexed"]).total <= deadline
    assert keeps["uniform"] < keeps["mask-indexed"] < 1


def test_a_budget_that_nothing_fits_leaves_the_least_keep(federation: Federation) -> None:
    snail = replace(federation.fleet.stragglers[0], flops_per_second=1.0)
    assert KeepRatios(federation, plain(federation)).solve(snail, "compute", 0.3) == 0.3


def test_a_straggler_as_fast_as_the_rest_keeps_everything(federation: Federation) -> None:
    fast = federation.fleet.rest[0]
    assert KeepRatios(federation, plain(federation)).solve(fast, "round", 0.05) == 1


def test_the_global_statistic_needs_two_models_and_declares_nothing_about_data(federation: Federation) -> None:
    result, _ = clip(federation, indexed(federation)).run(2)
    first, second = ([one.clients[name].keep for name in result.stragglers] for one in result.rounds)
    assert first == [1, 1]
    assert max(second) < 1
    assert "computed from data" not in result.verdict


def test_the_local_statistic_trains_fully_now_and_then(federation: Federation) -> None:
    settings = ClipSettings(statistic="local", refresh_every=2)
    result, _ = Clip(federation, indexed(federation), settings).run(4)
    keeps = [one.clients["straggler-01"].keep for one in result.rounds]
    assert (keeps[0], keeps[2]) == (1, 1)
    assert max(keeps[1], keeps[3]) < 1
    assert "2 of them computed from data" in result.verdict


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


def test_a_client_without_examples_is_named(federation: Federation) -> None:
    start = federation.start()
    served = Served(federation.units.layout, start.state)
    context = RoundContext(0, federation.model_at(start), start.state, served)
    with pytest.raises(InputError, match="nobody") as refused:
        play((LocalTraining({}, federation.training, 0),), context, ["nobody"], plain(federation))
    assert refused.value.culprits == ("nobody",)


@pytest.mark.parametrize(
    "wrong", [{"statistic": "guess"}, {"budget": "money"}, {"least_keep": 0.0}, {"refresh_every": 0}]
)
def test_settings_of_clip_outside_their_domain_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        ClipSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"momentum": 1.0}])
def test_settings_of_training_outside_their_domain_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        LocalSgd(**wrong)  # type: ignore[arg-type]


def test_a_run_of_no_rounds_is_refused(federation: Federation) -> None:
    with pytest.raises(ParameterError, match="rounds"):
        FedAvg(federation, plain(federation)).run(0)


def test_a_device_without_examples_is_refused(federation: Federation) -> None:
    with pytest.raises(ParameterError, match="examples"):
        replace(federation, examples={})


def test_examples_without_labels_are_refused() -> None:
    with pytest.raises(InputError, match="labels"):
        Examples(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))
