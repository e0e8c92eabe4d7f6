"""Who takes part in a round follows from the seed and the round's number, and a federation itself never changes."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from protocols.baselines.exclusion import Exclusion
from protocols.baselines.fedavg import FedAvg
from protocols.experiments.setup import Setup, federation_of
from protocols.training import Examples
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from protocols.aggregators import FixedPoint
    from protocols.experiments.setup import Judge
    from protocols.federation import Federation
    from protocols.simulation.calibration import Calibration

ROUNDS = range(40)


def test_without_participants_everybody_is_invited(federation: Federation) -> None:
    everybody = replace(federation, participants=len(federation.examples))
    for number in ROUNDS:
        assert federation.cohort(number) == everybody.cohort(number) == federation.fleet.names
    assert federation.cohort_size == 8


@pytest.mark.parametrize("participants", [1, 3, 7])
def test_a_cohort_is_as_large_as_set_and_in_the_order_of_the_fleet(federation: Federation, participants: int) -> None:
    setup = replace(federation, participants=participants)
    assert setup.cohort_size == participants
    for number in ROUNDS:
        places = [federation.fleet.names.index(str(client)) for client in setup.cohort(number)]
        assert len(places) == participants
        assert places == sorted(set(places))


def test_cohorts_repeat_with_the_seed_and_differ_between_rounds_and_seeds(federation: Federation) -> None:
    cohorts = {
        seed: [replace(federation, participants=3, seed=seed).cohort(number) for number in ROUNDS] for seed in (1, 2)
    }
    assert [replace(federation, participants=3, seed=1).cohort(number) for number in ROUNDS] == cohorts[1]
    assert len(set(cohorts[1])) > len(ROUNDS) // 2
    assert cohorts[1] != cohorts[2]


def test_every_client_has_its_turn(federation: Federation) -> None:
    setup = replace(federation, participants=2)
    assert {client for number in ROUNDS for client in setup.cohort(number)} == set(federation.fleet.names)


def test_a_cohort_is_drawn_among_those_who_may_take_part(federation: Federation) -> None:
    setup, among = replace(federation, participants=2), ("fast-01", "fast-04", "straggler-02")
    assert {client for number in ROUNDS for client in setup.cohort(number, among)} == set(among)
    assert all(len(setup.cohort(number, among)) == 2 for number in ROUNDS)
    assert setup.cohort(0, among[:1]) == among[:1]


@pytest.mark.parametrize("participants", [None, 1, 3, 6, 8])
def test_the_cohort_of_exclusion_never_has_a_straggler(
    federation: Federation, plain: FixedPoint, participants: int | None
) -> None:
    system = Exclusion(replace(federation, participants=participants), plain)
    rest = {device.name for device in federation.fleet.rest}
    for number in ROUNDS:
        cohort = system.cohort(number)
        assert set(cohort) <= rest
        assert len(cohort) == min(participants or 6, 6)


def test_only_the_cohort_takes_part(federation: Federation, plain: FixedPoint, instant: Calibration) -> None:
    setup = replace(federation, participants=5)
    result, _ = FedAvg(setup, plain, calibration=instant).run(3)
    for one in result.rounds:
        assert tuple(one.clients) == one.survivors == setup.cohort(one.number)


def test_exclusion_learns_from_the_rest_alone_and_at_their_pace(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    everybody, _ = FedAvg(federation, plain, calibration=instant).run(2)
    rest, _ = Exclusion(federation, plain, calibration=instant).run(2)
    assert rest.of_stragglers() == ()
    assert [one.survivors for one in rest.rounds] == [tuple(device.name for device in federation.fleet.rest)] * 2
    assert rest.round_seconds == everybody.round_seconds_of_rest < everybody.round_seconds


def test_a_run_never_writes_to_the_model_it_starts_from(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    before, start = copy.deepcopy(federation.model.state_dict()), federation.start()
    FedAvg(federation, plain, calibration=instant).run(2, start)
    assert all(torch.equal(tensor, before[name]) for name, tensor in federation.model.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in start.state.items())


def test_the_model_at_a_checkpoint_has_its_tensors(federation: Federation) -> None:
    start = federation.start()
    moved = replace(start, state={name: tensor + 1 for name, tensor in start.state.items()})
    state = federation.model_at(moved).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in moved.state.items())


def test_a_batch_has_the_shape_and_the_dtype_of_the_inputs(federation: Federation) -> None:
    sequences = Examples(torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 5, dtype=torch.int64))
    batch = replace(federation, test=sequences).batch
    assert (tuple(batch.shape), batch.dtype) == ((8, 5), torch.int64)
    assert tuple(federation.batch.shape) == (8, 16)


@pytest.mark.parametrize(
    "wrong", [{"participants": 0}, {"participants": 9}, {"deadline": 0.0}, {"deadline": -1.0}, {"deadline": math.nan}]
)
def test_settings_outside_their_domain_are_refused(federation: Federation, wrong: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        replace(federation, **wrong)  # type: ignore[arg-type]


def test_examples_are_those_of_the_devices_in_their_order(federation: Federation) -> None:
    examples = dict(federation.examples)
    reordered = dict(reversed(examples.items()))
    stranger = examples | {"stranger": federation.test}
    for wrong in ({}, reordered, stranger, dict(list(examples.items())[1:])):
        with pytest.raises(ParameterError, match="examples"):
            replace(federation, examples=wrong)


def test_own_tests_are_those_of_devices_of_the_fleet(federation: Federation) -> None:
    name = federation.fleet.names[0]
    assert replace(federation, tests={name: federation.test}).tests == {name: federation.test}
    with pytest.raises(ParameterError, match="tests"):
        replace(federation, tests={"stranger": federation.test})


def rows(*parts: Examples) -> set[bytes]:
    return {row.numpy().tobytes() for part in parts for row in part.inputs}


@pytest.mark.parametrize("judge", ["test", "validation"])
def test_clients_have_own_tests_from_what_the_judge_may_look_at_and_from_nothing_else(judge: Judge) -> None:
    setup = Setup(system="fedavg", clients=6, partition="few-labels", labels_per_client=3)
    built = federation_of(replace(setup, judge=judge))
    other = federation_of(replace(setup, judge="validation" if judge == "test" else "test"))
    assert tuple(built.tests) == built.fleet.names
    assert rows(*built.tests.values()) == rows(built.test)
    assert not rows(*built.tests.values()) & rows(other.test, *other.tests.values())
    for name, own in built.tests.items():
        assert len(built.examples[name].labels.unique()) == 3
        assert set(own.labels.tolist()) <= set(built.examples[name].labels.tolist())
    assert built.validation is not None
    assert other.validation is not None
    assert torch.equal(built.validation.inputs, other.validation.inputs)
    assert (built.validation is built.test) == (judge == "validation")
