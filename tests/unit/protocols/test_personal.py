"""Models of clients' own, on their own examples: in a case solved by hand, and what stays zero."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import pytest
import torch
from torch import nn

from protocols import personal
from protocols.aggregators import FixedPoint, FloatMean
from protocols.baselines.fedavg import FedAvg
from protocols.baselines.snip import FedSnip
from protocols.federation import Federation
from protocols.personal import check_judgeable, judge
from protocols.synchronous import SynchronousSystem
from protocols.training import Examples, Training
from pruning.masks import Mask
from pruning.units import find_units
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from protocols.aggregators import Client
    from protocols.federation import Checkpoint
    from protocols.simulation.calibration import Calibration
    from protocols.training import State

# ---------------------------------------------------------------------------------- by hand


def told_by(feature: int, *, turned: bool = False, count: int = 8) -> Examples:
    """Two classes, as many of either, that one of two features tells by its sign; the other is always zero."""
    labels = torch.arange(count) % 2
    inputs = torch.zeros(count, 2)
    inputs[:, feature] = 1.0 - 2.0 * labels
    return Examples(inputs, 1 - labels if turned else labels)


@final
class Given(SynchronousSystem):
    """Everybody ends with the global model, under a mask that drops the weights of the second feature."""

    @property
    def name(self) -> str:
        return "given"

    def model_of(self, client: Client, checkpoint: Checkpoint) -> tuple[State, Mask]:  # noqa: ARG002 - all alike
        layout = self.federation.units.layout
        held = {tensor.name: np.ones(tensor.shape, bool) for tensor in layout.tensors}
        held["fc.weight"][:, 1] = False
        return checkpoint.state, Mask.of_coordinates(
            layout, np.concatenate([held[t.name].ravel() for t in layout.tensors])
        )


@pytest.fixture(scope="module")
def by_hand(federation: Federation) -> Federation:
    """Three clients and a model that knows the first feature; the second one's weights are zero."""
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        layer.bias.copy_(torch.tensor([0.0, -0.5]))
    model = nn.Sequential(OrderedDict(fc=layer))
    names = federation.fleet.names[:3]
    fleet = replace(federation.fleet, devices=federation.fleet.devices[:3])
    own = [told_by(0), told_by(1), told_by(0, turned=True)]
    return Federation(
        model=model,
        units=find_units(model, torch.zeros(2, 2)),
        fleet=fleet,
        examples=dict(zip(names, own, strict=True)),
        tests=dict(zip(names, own, strict=True)),
        test=told_by(0),
        training=Training(steps=1, batch_size=8, learning_rate=1.0, momentum=0.0),
    )


def test_accuracies_before_under_the_mask_and_without_it_are_those_of_a_case_solved_by_hand(
    by_hand: Federation,
) -> None:
    """The first client's feature is known, the second one's is dropped, and the third one has to turn its weights."""
    found = judge(Given(by_hand, FloatMean(by_hand.units.layout)), by_hand.start(), steps=30)
    first, second, third = by_hand.fleet.names
    assert found.steps == 30
    assert found.before == {first: 1.0, second: 0.5, third: 0.0}
    assert found.masked == {first: 1.0, second: 0.5, third: 1.0}
    assert found.whole == {first: 1.0, second: 1.0, third: 1.0}


def test_who_has_no_test_examples_is_left_out(by_hand: Federation) -> None:
    first, second, _ = by_hand.fleet.names
    setup = replace(by_hand, tests={first: told_by(0), second: told_by(0)})
    found = judge(Given(setup, FloatMean(setup.units.layout)), setup.start(), steps=1)
    assert found.before == {first: 1.0, second: 1.0}
    assert set(found.masked) == set(found.whole) == {first, second}


# ---------------------------------------------------------------------------------- what is trained


@pytest.fixture(scope="module")
def tested(federation: Federation) -> Federation:
    return replace(federation, tests=dict.fromkeys(federation.fleet.names[:2], federation.test))


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models that are judged, three a client."""
    judged: list[nn.Module] = []

    def noted(model: nn.Module, *given: Any) -> float:
        judged.append(model)
        return accuracy(model, *given)

    accuracy = vars(personal)["accuracy"]
    monkeypatch.setattr(personal, "accuracy", noted)
    return judged


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Training, int, int]]:
    """How models are trained: settings, number of examples, and seed."""
    seen: list[tuple[Training, int, int]] = []

    def noted(own: Training, model: nn.Module, examples: Examples, seed: int, *entropy: Any) -> None:
        seen.append((own, len(examples), seed))
        train(own, model, examples, seed, *entropy)

    train = Training.train
    monkeypatch.setattr(Training, "train", noted)
    return seen


def test_under_the_mask_zeros_stay_zero_and_without_it_they_grow(
    tested: Federation, plain: FixedPoint, instant: Calibration, models: list[nn.Module]
) -> None:
    system = FedSnip(tested, plain, calibration=instant)
    _, end = system.run(2)
    found = judge(FedSnip(tested, plain, calibration=instant), end, steps=4)
    assert len(models) == 3 * len(found.before) == 6
    held = system.mask.by_tensor()
    for before, masked, whole in (models[:3], models[3:]):
        for name, bits in held.items():
            states = [one.state_dict()[name] for one in (before, masked, whole)]
            assert torch.equal(states[0], end.state[name])
            gone, kept = ~torch.from_numpy(bits), torch.from_numpy(bits)
            assert not states[0][gone].any()
            assert not states[1][gone].any()
            assert states[2][gone].any() or not gone.any()
            assert not torch.equal(states[1][kept], states[0][kept])


def test_a_model_without_a_mask_is_trained_once_and_otherwise_twice_from_one_seed(
    tested: Federation, plain: FixedPoint, instant: Calibration, trainings: list[tuple[Training, int, int]]
) -> None:
    setup = replace(tested, training=replace(tested.training, proximal=0.01))
    whole = FedAvg(setup, plain, calibration=instant)
    found = judge(whole, setup.start(), steps=4)
    assert found.masked == found.whole
    assert len(trainings) == 2
    assert {(own, count) for own, count, _ in trainings} == {(replace(tested.training, steps=4), 20)}
    _, end = FedSnip(setup, plain, calibration=instant).run(1)
    trainings.clear()
    judge(FedSnip(setup, plain, calibration=instant), end, steps=4)
    one, again, other, once_more = (seed for _, _, seed in trainings)
    assert one == again != other == once_more


def test_judging_repeats_and_changes_neither_the_run_nor_its_model(
    tested: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    system = FedSnip(tested, plain, calibration=instant)
    _, end = system.run(2)
    before = {name: tensor.clone() for name, tensor in end.state.items()}
    found = judge(system, end, steps=4)
    assert judge(system, end, steps=4) == found
    assert all(torch.equal(tensor, before[name]) for name, tensor in end.state.items())
    after, other = (
        [one for one, _ in each.play(1, end)] for each in (system, FedSnip(tested, plain, calibration=instant))
    )
    assert after == other


def test_without_test_examples_or_steps_there_is_nothing_to_judge(federation: Federation, plain: FixedPoint) -> None:
    cases: list[tuple[dict[Hashable, Examples], int]] = [({}, 3), ({"fast-01": federation.test}, 0)]
    for tests, steps in cases:
        setup = replace(federation, tests=tests)
        with pytest.raises(ParameterError, match="fine_tuning"):
            judge(FedAvg(setup, plain), setup.start(), steps)
        with pytest.raises(ParameterError, match="fine_tuning"):
            check_judgeable(setup, steps)
