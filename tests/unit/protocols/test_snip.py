from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from protocols.aggregators import FixedPoint, FloatMean, Uniform
from protocols.baselines.snip import FedSnip, SnipSettings
from protocols.results import RoundResult
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from protocols.federation import Federation
    from protocols.simulation.calibration import Calibration

KERNELS = ("fc1.weight", "fc2.weight", "fc3.weight")
SIZE = 32 * 16 + 16 * 32 + 4 * 16


def scores(setup: Federation, largest: float = 4.0) -> NDArray[np.float64]:
    """Weight times mean gradient of the whole data of every client, which its one batch is."""
    gradients = []
    for own in setup.examples.values():
        model = copy.deepcopy(setup.model)
        functional.cross_entropy(model(own.inputs), own.labels).backward()
        gradients.append({name: one.grad.clip(-largest, largest) for name, one in model.named_parameters()})  # type: ignore[union-attr]
    start = setup.model.state_dict()
    parts = [(start[name] * torch.stack([one[name] for one in gradients]).mean(dim=0)).reshape(-1) for name in KERNELS]
    return np.abs(torch.cat(parts).double().numpy())


@pytest.fixture(scope="module")
def whole_batch(federation: Federation) -> Federation:
    """A batch is all that a client has."""
    return replace(federation, training=replace(federation.training, batch_size=20))


def test_the_mask_is_the_top_of_weight_times_mean_gradient(whole_batch: Federation, instant: Calibration) -> None:
    system = FedSnip(whole_batch, FloatMean(whole_batch.units.layout), SnipSettings(density=0.25), calibration=instant)
    system.run(1)
    held, found = system.kernels.active(system.mask), scores(whole_batch)
    assert held.sum() == SIZE // 4
    assert found[held].min() > found[~held].max() - 1e-9


def test_a_gradient_is_clipped_before_it_is_averaged(whole_batch: Federation, instant: Calibration) -> None:
    settings = SnipSettings(density=0.25, largest_gradient=1e-3)
    system = FedSnip(whole_batch, FloatMean(whole_batch.units.layout), settings, calibration=instant)
    system.run(1)
    held, found = system.kernels.active(system.mask), scores(whole_batch, 1e-3)
    assert found[held].min() > found[~held].max() - 1e-9
    assert held.tolist() != (scores(whole_batch) >= np.quantile(scores(whole_batch), 0.75)).tolist()


def test_the_first_round_is_dense_and_the_mask_that_is_made_in_it_stays(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    system = FedSnip(federation, plain, calibration=instant)
    masks, rounds = [], []
    for outcome, _ in system.play(4):
        assert isinstance(outcome, RoundResult)
        masks.append(system.mask)
        rounds.append(outcome)
    assert [one.details["density"] for one in rounds] == [round(0.3 * SIZE) / SIZE] * 4
    assert all(mask == masks[0] for mask in masks)
    biases = 32 + 16 + 4
    clients = [one.clients["fast-01"] for one in rounds]
    assert clients[0].keep == 1
    # Update and gradient at four bytes a number, in one session; afterwards updates at three.
    assert clients[0].upload_bytes == 4 * (SIZE + biases) + 4 * SIZE
    assert {one.upload_bytes for one in clients[1:]} == {3 * (round(0.3 * SIZE) + biases)}
    assert [one.verdict.count("gradient beside the updates") for one in rounds] == [1, 0, 0, 0]


def test_an_encrypted_run_ends_at_the_same_model_as_its_twin(federation: Federation, instant: Calibration) -> None:
    secure = Uniform(federation.units.layout, replace(Uniform(federation.units.layout).params, max_dropouts=2))
    system = FedSnip(federation, secure, twin=secure.twin, calibration=instant)
    clear = FedSnip(federation, secure.twin, calibration=instant)
    dropouts: dict[int, dict[Hashable, str]] = {0: {"fast-02": "ShareKeys"}, 1: {"fast-01": "MaskedInput"}}
    result, end = system.run(2, dropouts=dropouts)
    _, other = clear.run(2, dropouts=dropouts)
    assert result.difference == 0
    assert system.mask == clear.mask
    assert all(torch.equal(tensor, other.state[name]) for name, tensor in end.state.items())


def test_settings_outside_their_domain_are_refused() -> None:
    for density, largest in ((0.01, 4.0), (1.1, 4.0), (0.3, 0.0), (0.3, float("inf")), (float("nan"), 4.0)):
        with pytest.raises(ParameterError, match="density"):
            SnipSettings(density=density, largest_gradient=largest)


def test_the_name_says_the_aggregator(federation: Federation, plain: FixedPoint) -> None:
    assert FedSnip(federation, plain).name == "FedSNIP plain"
