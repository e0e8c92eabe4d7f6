"""One crafted layer for everybody hands examples out of the sum, as exactly as the sum is rounded."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from attacks.attack import Trial
from attacks.rules import units_at_random
from attacks.total.crafted import one_step, reach
from attacks.total.imprint import WITHHELD, Imprint, Measure, Rows, block
from protocols.models import digits_cnn
from protocols.training import Examples, Training
from tests.unit.attacks.conformance import ReconstructionContract
from tests.unit.attacks.total.federation import CLIENTS, examples, federation, played, private

if TYPE_CHECKING:
    from attacks.deployment import Deployment
    from attacks.total.crafted import CraftedRound

Cases = list[Trial[Rows, "np.typing.NDArray[np.float64]"]]

BINS, PEAK = 200, 2.0


def attack() -> Imprint:
    return Imprint(BINS, PEAK)


@cache
def crafted(deployment: Deployment) -> nn.Module:
    step, rng = one_step(deployment), np.random.default_rng(1)
    return attack().craft(deployment.model(), deployment.test, step.training, reach(step), rng)


def rounds(deployment: Deployment, count: int, rng: np.random.Generator) -> list[CraftedRound]:
    model = crafted(deployment)
    return [played(deployment, [model] * CLIENTS, number, rng) for number in range(count)]


def share(one: CraftedRound) -> float:
    guess = attack().guess(one.rows(), np.random.default_rng(0))
    return float(np.mean([attack().quality(guess, example) >= 30 for example in one.examples()]))


class TestContract(ReconstructionContract):
    def attack(self) -> Imprint:
        return attack()

    def leaking(self, rng: np.random.Generator) -> Cases:
        return [Trial(one.rows(), rng.choice(one.examples())) for one in rounds(federation(), 10, rng)]

    def silent(self, rng: np.random.Generator) -> Cases:
        """What is sought was in no round."""
        elsewhere = examples(10, rng).inputs.flatten(1).numpy().astype(np.float64)
        return [Trial(one.rows(), secret) for one, secret in zip(rounds(federation(), 10, rng), elsewhere, strict=True)]


@pytest.mark.parametrize("mode", ["plain", "uniform"])
def test_most_examples_of_all_clients_are_read_off_the_sum(mode: str) -> None:
    """20 examples fall into 200 bins, of which each then is alone in its own with probability 0.9."""
    found = [share(one) for one in rounds(federation(mode=mode), 4, np.random.default_rng(2))]
    assert np.mean(found) > 0.75


def test_rows_that_clients_pruned_are_compared_among_those_of_the_same_holders() -> None:
    deployment = federation(mode="mask-indexed", mask=units_at_random(0.5), pruned=0.2)
    one = rounds(deployment, 1, np.random.default_rng(3))[0]
    assert len(set(one.rows().holders.tolist())) == 2
    assert share(one) > 0.5
    mixed = Rows(one.rows().weight, one.rows().bias, np.zeros(BINS, np.int64))
    right = [
        attack().quality(attack().guess(rows, np.random.default_rng(0)), example) >= 30
        for rows in (one.rows(), mixed)
        for example in one.examples()
    ]
    assert sum(right[:20]) > sum(right[20:])


def test_noise_leaves_nothing_to_read() -> None:
    assert share(rounds(private(), 1, np.random.default_rng(4))[0]) == 0


def test_rows_that_are_withheld_tell_nothing() -> None:
    rows = Rows(np.ones((4, 3)), np.ones(4), np.full(4, WITHHELD))
    guess = attack().guess(rows, np.random.default_rng(0))
    assert guess.shape == (0, 3)
    assert attack().quality(guess, np.ones(3)) == 0


def test_differences_of_neighbours_are_examples_by_hand() -> None:
    """Example a passes one threshold, b passes all three; the gradients of both are 2 and 5 times what they weigh."""
    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    weight, bias = np.array([2 * a + 5 * b, 5 * b, 5 * b]), np.array([7.0, 5.0, 5.0])
    guess = attack().guess(Rows(weight, bias, np.zeros(3, np.int64)), np.random.default_rng(0))
    np.testing.assert_allclose(guess, [a, b])


def test_changes_stay_near_what_is_wanted_of_them() -> None:
    deployment = federation(mode="plain")
    largest = max(
        float(update["rows.weight"].abs().max())
        for one in rounds(deployment, 3, np.random.default_rng(5))
        for update in one.updates
    )
    assert 0.05 * reach(deployment) < largest < 4 * reach(deployment)


def test_the_block_stands_before_convolutions_too() -> None:
    rng = np.random.default_rng(6)
    known = Examples(torch.rand(20, 1, 8, 8), torch.arange(20) % 10)
    measure = Measure.drawn(known, rng)
    training = Training(steps=1, batch_size=4)
    model = block(digits_cnn(), measure, measure.thresholds(16), known=known, training=training, reach=0.1)
    assert model(known.inputs).shape == (20, 10)


def test_bins_are_equally_full() -> None:
    rng = np.random.default_rng(7)
    known = Examples(torch.from_numpy(rng.normal(size=(4000, 25))).float(), torch.zeros(4000, dtype=torch.int64))
    measure = Measure.drawn(known, rng)
    numbers = known.inputs.numpy() @ measure.weights
    counts, _ = np.histogram(numbers, measure.thresholds(10))
    assert counts.min() > 320
    assert counts.max() < 480
