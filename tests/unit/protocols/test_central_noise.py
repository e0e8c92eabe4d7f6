"""A trusted server's noise: clipped updates, Gaussian noise on their sum, and the event that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from protocols.aggregators import FloatMean
from protocols.aggregators.central_noise import CentralNoise
from protocols.experiments.setup import Setup, aggregator_of
from pruning.masks import Mask
from secagg.declaration import Provenance
from secagg.errors import ParameterError
from secagg.layout import Layout, Tensor
from secagg.privacy.events import Gaussian, NonPrivate
from secagg.privacy.settings import Privacy

if TYPE_CHECKING:
    from protocols.aggregators import Client
    from secagg.params import Mode

SIZE = 20_000
LAYOUT = Layout((Tensor("a", (SIZE // 2,)), Tensor("b", (SIZE // 2,))))
FRONT = np.arange(SIZE) < SIZE // 2
SILENT = Privacy(clip=1.0, noise_multiplier=0.0)
NOISY = Privacy(clip=0.5, noise_multiplier=3.0)


def update(norm: float) -> dict[str, torch.Tensor]:
    value = norm / SIZE**0.5
    return {tensor.name: torch.full(tensor.shape, value, dtype=torch.float64) for tensor in LAYOUT.tensors}


UPDATES: dict[Client, dict[str, torch.Tensor]] = {"short": update(0.5), "long": update(8.0), "none": update(0.0)}


def test_long_updates_are_shortened_and_short_ones_are_not() -> None:
    mean = CentralNoise(LAYOUT, SILENT).aggregate(UPDATES).vector
    assert np.linalg.norm(mean) == pytest.approx((0.5 + 1.0) / 3)


def test_only_what_a_client_holds_counts_in_its_norm() -> None:
    mask = Mask.of_coordinates(LAYOUT, FRONT, Provenance.PUBLIC).declaration()
    aggregator = CentralNoise(LAYOUT, SILENT, "mask-indexed")
    mean = aggregator.aggregate({"one": update(8.0)}, {"one": mask}).vector
    assert np.linalg.norm(mean[FRONT]) == pytest.approx(1)
    assert np.isnan(mean[~FRONT]).all()


def test_the_noise_on_the_sum_has_the_promised_deviation() -> None:
    clean = FloatMean(LAYOUT).aggregate({client: update(0.0) for client in UPDATES}).vector
    noise = 3 * (CentralNoise(LAYOUT, NOISY).aggregate({client: update(0.0) for client in UPDATES}).vector - clean)
    assert noise.std() == pytest.approx(1.5, rel=7 / (2 * SIZE) ** 0.5)
    assert abs(noise.mean()) < 7 * 1.5 / SIZE**0.5


def test_a_mean_over_fewer_carries_more_noise() -> None:
    mask = Mask.of_coordinates(LAYOUT, FRONT, Provenance.PUBLIC).declaration()
    updates: dict[Client, dict[str, torch.Tensor]] = {client: update(0.0) for client in range(4)}
    mean = CentralNoise(LAYOUT, NOISY, "mask-indexed").aggregate(updates, {0: mask, 1: mask, 2: mask}).vector
    assert mean[~FRONT].std() / mean[FRONT].std() == pytest.approx(4, rel=0.1)


def test_noise_is_new_each_time_unless_a_seed_says_otherwise() -> None:
    aggregator = CentralNoise(LAYOUT, NOISY)
    one, other = (aggregator.aggregate(UPDATES).vector for _ in range(2))
    assert not np.isin(one, other).any()
    again, repeated = (aggregator.aggregate(UPDATES, seed=b"a").vector for _ in range(2))
    assert np.array_equal(again, repeated)


def test_the_event_and_the_verdict_say_what_it_was() -> None:
    aggregated = CentralNoise(LAYOUT, NOISY).aggregate(UPDATES)
    assert aggregated.event == Gaussian(noise_multiplier=3.0)
    assert "no encryption" in aggregated.verdict
    assert "adds noise to their sum" in aggregated.verdict


@pytest.mark.parametrize(("mode", "private"), [("uniform", True), ("mask-indexed", False)])
def test_masks_from_data_end_the_guarantee_where_the_mean_shows_them(mode: Mode, *, private: bool) -> None:
    for provenance, kept in ((Provenance.DATA, private), (Provenance.DEVICE, True)):
        mask = Mask.of_coordinates(LAYOUT, FRONT, provenance).declaration()
        aggregated = CentralNoise(LAYOUT, NOISY, mode).aggregate(UPDATES, {"short": mask, "none": None})
        assert isinstance(aggregated.event, Gaussian if kept else NonPrivate)


def test_weights_are_refused() -> None:
    with pytest.raises(ParameterError, match="leave them out with privacy"):
        CentralNoise(LAYOUT, NOISY).aggregate(UPDATES, weights=dict.fromkeys(UPDATES, 1.0))


def test_a_run_in_floating_point_with_a_budget_is_central() -> None:
    setup = Setup(system="fedavg", aggregation="float", privacy={"epsilon": 4.0, "clip": 0.5})
    central = aggregator_of(setup, LAYOUT)
    assert isinstance(central, CentralNoise)
    assert central.privacy.clip == 0.5
    assert isinstance(aggregator_of(Setup(system="fedavg", aggregation="float"), LAYOUT), FloatMean)
    assert central.over(LAYOUT).privacy == central.privacy
    assert central.upload_of(Mask.full(LAYOUT), 3) == 4 * SIZE
