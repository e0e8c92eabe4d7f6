"""Rows of one's own: each client's examples are read off the sum as if it were alone, and only by different models."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from attacks.attack import Trial
from attacks.total.crafted import one_step, reach
from attacks.total.imprint import Measure, Rows
from attacks.total.kernels import SeparateRows
from secagg import merkle
from tests.unit.attacks.conformance import ReconstructionContract
from tests.unit.attacks.total.federation import CLIENTS, federation, played, private

if TYPE_CHECKING:
    from torch import nn

    from attacks.deployment import Deployment
    from attacks.total.crafted import CraftedRound

Cases = list[Trial[Rows, "np.typing.NDArray[np.float64]"]]

BINS, PEAK = 40, 2.0


def attack() -> SeparateRows:
    return SeparateRows(BINS, PEAK)


@cache
def crafted(deployment: Deployment) -> list[nn.Module]:
    step, inner = one_step(deployment), deployment.model()
    known, measure = deployment.test, Measure.drawn(deployment.test, np.random.default_rng(1))
    return [
        attack().craft_for(client, CLIENTS, inner, measure, known=known, training=step.training, reach=reach(step))
        for client in range(CLIENTS)
    ]


def rounds(deployment: Deployment, count: int, rng: np.random.Generator) -> list[CraftedRound]:
    models = crafted(deployment)
    return [played(deployment, models, number, rng) for number in range(count)]


def share(one: CraftedRound, rows_of: int, examples_of: int) -> float:
    """How many of one client's examples are read off the rows of a client."""
    guess = attack().guess(one.rows(attack().rows(rows_of)), np.random.default_rng(0))
    return float(np.mean([attack().quality(guess, example) >= 30 for example in one.examples(examples_of)]))


def cases(rng: np.random.Generator, away: int) -> Cases:
    """Rows of each client in turn, and an example of the client that is so far away."""
    return [
        Trial(one.rows(attack().rows(number % CLIENTS)), rng.choice(one.examples((number + away) % CLIENTS)))
        for number, one in enumerate(rounds(federation(), 10, rng))
    ]


class TestContract(ReconstructionContract):
    def attack(self) -> SeparateRows:
        return attack()

    def leaking(self, rng: np.random.Generator) -> Cases:
        return cases(rng, 0)

    def silent(self, rng: np.random.Generator) -> Cases:
        return cases(rng, 2)


def test_a_clients_examples_are_in_its_own_rows_alone() -> None:
    """4 examples in 40 bins: alone with probability 0.93."""
    played_rounds = rounds(federation(), 3, np.random.default_rng(2))
    own = [share(one, client, client) for one in played_rounds for client in range(CLIENTS)]
    others = [share(one, client, (client + 1) % CLIENTS) for one in played_rounds for client in range(CLIENTS)]
    assert np.mean(own) > 0.7
    assert np.mean(others) < 0.1


def test_dead_rows_do_not_change() -> None:
    one = rounds(federation(mode="plain"), 1, np.random.default_rng(3))[0]
    for client, update in enumerate(one.updates):
        changed = update["rows.bias"].numpy() != 0
        assert changed[attack().rows(client)].any()
        assert changed.sum() == changed[attack().rows(client)].sum()


def test_noise_leaves_nothing_to_read() -> None:
    one = rounds(private(), 1, np.random.default_rng(4))[0]
    assert [share(one, client, client) for client in range(CLIENTS)] == [0] * CLIENTS


def test_no_two_clients_have_the_same_model_root() -> None:
    deployment = federation()
    models = crafted(deployment)
    layout = deployment.variant("crafted", model=lambda: models[0]).layout
    roots = {
        merkle.root(merkle.model_leaves(layout, {name: t.numpy() for name, t in model.state_dict().items()}))
        for model in models
    }
    assert len(roots) == CLIENTS
