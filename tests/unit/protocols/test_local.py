from __future__ import annotations

import copy
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytest
import torch

from protocols.aggregators import FloatMean
from protocols.baselines.local import LocalOnly
from protocols.randomness import number
from protocols.results import RoundResult
from protocols.training import accuracy
from secagg.errors import ParameterError
from secagg.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Hashable

    from torch import nn

    from protocols.federation import Checkpoint, Federation
    from protocols.results import Outcome
    from protocols.simulation.calibration import Calibration


@pytest.fixture(scope="module")
def tested(federation: Federation) -> Federation:
    """Every client has test examples of its own, not equally many."""
    places = enumerate(federation.examples)
    return replace(federation, tests={client: federation.test.subset(range(5 + place)) for place, client in places})


def played(setup: Federation, calibration: Calibration, **plan: Any) -> tuple[LocalOnly, list[Outcome], Checkpoint]:
    system = LocalOnly(setup, FloatMean(setup.units.layout), calibration=calibration)
    outcomes = list(system.play(**{"rounds": 3, **plan}))
    return system, [outcome for outcome, _ in outcomes], outcomes[-1][1]


def alone(setup: Federation, client: Hashable, rounds: int) -> nn.Module:
    """A model trained on one client's examples by nobody else, round after round."""
    model = copy.deepcopy(setup.model)
    own_seed = number(setup.seed, "cluster", setup.fleet.number(client))
    for at in range(1, rounds + 1):
        setup.training.train(model, setup.examples[client], number(own_seed, "training", at, 0))
    return model


def test_everybody_ends_where_training_alone_ends(tested: Federation, instant: Calibration) -> None:
    system, outcomes, end = played(tested, instant)
    models = {client: alone(tested, client, 2) for client in tested.examples}
    for client, model in models.items():
        state, mask = system.model_of(client, end)
        assert mask.kind == "full"
        for name, tensor in state.items():
            assert torch.allclose(tensor, model.state_dict()[name], rtol=0, atol=1e-6)
    assert isinstance(outcomes[-1], RoundResult)
    sizes = [len(own) for own in tested.tests.values()]
    hits = [accuracy(models[client], own) * len(own) for client, own in tested.tests.items()]
    assert outcomes[-1].accuracy == pytest.approx(sum(hits) / sum(sizes))


def test_without_test_examples_of_their_own_all_are_judged_on_everybodys(
    federation: Federation, instant: Calibration
) -> None:
    _, outcomes, _ = played(federation, instant)
    expected = fmean(accuracy(alone(federation, client, 2), federation.test) for client in federation.examples)
    assert isinstance(outcomes[-1], RoundResult)
    assert outcomes[-1].accuracy == pytest.approx(expected)


def test_nothing_is_sent_and_a_round_takes_the_longest_training(tested: Federation, instant: Calibration) -> None:
    _, (first, *rest), end = played(tested, instant)
    assert isinstance(first, RoundResult)
    assert (first.clients, first.seconds, first.details["clusters"]) == ({}, 0, 8)
    finished = 0.0
    for one in rest:
        assert isinstance(one, RoundResult)
        assert list(one.clients) == list(tested.fleet.names)
        for client in one.clients.values():
            assert (client.upload_bytes, client.download_bytes) == (0, 0)
            assert client.seconds.total == client.seconds.compute > 0
        assert one.seconds == max(client.seconds.compute for client in one.clients.values())
        finished += one.seconds
        assert one.finished_at == pytest.approx(finished)
        assert one.verdict == first.verdict == "nobody sends anything."
    assert end.seconds == pytest.approx(finished)


def test_nobody_is_drawn_drops_out_or_is_late(tested: Federation, instant: Calibration) -> None:
    _, calm, _ = played(tested, instant)
    hurried = replace(tested, participants=3, deadline=1e-6)
    _, outcomes, _ = played(hurried, instant, dropouts={1: {"fast-01": "None"}})
    assert outcomes == calm


def test_a_run_in_two_parts_is_the_run_in_one(tested: Federation, instant: Calibration) -> None:
    _, whole, _ = played(tested, instant, rounds=4)
    for stop in (1, 2):
        _, first, at = played(tested, instant, rounds=stop)
        _, rest, _ = played(tested, instant, rounds=4 - stop, start=at)
        assert first + rest == whole


def test_where_nothing_is_sent_there_is_nothing_for_a_ledger(tested: Federation, instant: Calibration) -> None:
    with pytest.raises(ParameterError, match="ledgers"):
        played(tested, instant, ledgers={"fast-01": Ledger()})
