"""The whole group against a small federation: what it finds in the clear, under noise, and where nothing applies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from attacks.finding import Effort
from attacks.rules import units_at_random
from attacks.total import probe
from attacks.total.crafted import one_step, with_model
from attacks.total.on_rounds import agreed_rounds
from attacks.total.on_sums import both_agreed
from attacks.total.rounds import Rounds, noise_of, skewed
from protocols.training import Examples, one_thread
from secagg import Params
from tests.unit.attacks.total.federation import CLIENTS, examples, federation, private

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attacks.deployment import Deployment
    from attacks.finding import Finding

ATTACKS = (
    "two candidates",
    "known participation",
    "disaggregation",
    "n versus n - 1",
    "imprint",
    "separate kernels",
    "model inconsistency",
)


def found(deployment: Deployment) -> dict[str, Finding]:
    effort = Effort(reconstructions=4, decisions=20)
    return {one.attack: one for one in probe(deployment, effort, np.random.default_rng(0))}


@pytest.fixture(autouse=True)
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


def test_every_attack_reports_what_it_came_to() -> None:
    findings = found(federation())
    assert tuple(findings) == ATTACKS
    for one in findings.values():
        assert one.measurement is not None
        assert one.question.endswith("?")
        assert one.note
        assert one.source
        assert one.cures
        assert not one.claimed
    assert findings["n versus n - 1"].leaks()
    assert findings["model inconsistency"].leaks()
    assert len(findings["imprint"].pictures) == 4
    assert {name for name, one in findings.items() if one.curves} == {
        "two candidates",
        "known participation",
        "imprint",
    }
    for name in ("n versus n - 1", "separate kernels", "model inconsistency"):
        after = findings[name].cures[0].after
        assert after is not None
        assert after.value == 0


def test_reconstructions_find_nothing_under_noise() -> None:
    findings = found(private())
    measured = [one.measurement for name, one in findings.items() if name != "two candidates"]
    assert [one.value for one in measured if one is not None] == [0] * 6


def test_what_does_not_apply_says_why() -> None:
    tokens = examples(12, np.random.default_rng(1))
    tokens = Examples((tokens.inputs.flatten(1) * 3).long(), tokens.labels)
    model = nn.Sequential(nn.Embedding(12, 2), nn.Flatten(), nn.Linear(18, 3))
    few = federation(clients=3).variant("few", model=lambda: model, clients=[tokens] * 3, test=tokens)
    findings = found(few)
    assert {name for name, one in findings.items() if one.measurement is not None} == {"model inconsistency"}
    assert findings["two candidates"].note == "It takes 5 clients, and there are 3."
    assert findings["n versus n - 1"].note == "It takes 4 clients, and there are 3."
    assert "no real numbers" in findings["imprint"].note
    assert "no real numbers" in findings["separate kernels"].note


def test_a_deployment_that_refuses_every_round_is_not_attacked() -> None:
    findings = found(federation(params=Params(min_cohort=CLIENTS + 1)))
    assert findings["imprint"].measurement is None
    assert findings["imprint"].note.startswith("Sessions refuse the rounds that it takes: ")


def test_clients_remember_who_was_in_sums_of_theirs() -> None:
    """The second sum and the third differ from those before in one client."""
    cohorts = [[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2], [5, 6, 7, 8]]
    assert agreed_rounds(Params(min_cohort=3, max_dropouts=1), cohorts) == [0, 3]


def test_clients_of_a_pruning_federation_refuse_the_second_sum_too() -> None:
    deployment = federation(mode="mask-indexed", mask=units_at_random(0.5), pruned=0.4)
    rounds, rng = Rounds(deployment, deployment.model(), deployment.clients), np.random.default_rng(2)
    sent = {client: rounds.sent(client, rng) for client in range(CLIENTS)}
    assert [one.mask is not None for one in sent.values()] == [True, True, False, False, False]
    assert not both_agreed(deployment, sent)


def test_what_a_client_sends_is_clipped_under_noise() -> None:
    deployment = private()
    privacy = deployment.params.privacy
    assert privacy is not None
    small = deployment.variant("small", params=replace(deployment.params, privacy=replace(privacy, clip=1e-3)))
    rounds = Rounds(small, small.model(), small.clients)
    vector = rounds.vector(rounds.sent(0, np.random.default_rng(3)))
    assert np.linalg.norm(vector) == pytest.approx(1e-3)
    assert noise_of(small) == pytest.approx(1e-3 * privacy.noise_multiplier)
    assert noise_of(federation()) == 0


def test_updates_are_drawn_from_so_many_repeats() -> None:
    deployment, rng = federation(), np.random.default_rng(4)
    rounds = Rounds(deployment, deployment.model(), deployment.clients, repeats=2)
    drawn = {id(rounds.sent(0, rng)) for _ in range(20)}
    assert len(drawn) == 2


def test_made_up_clients_have_their_own_taste() -> None:
    rng = np.random.default_rng(5)
    clients = skewed(examples(300, rng), 6, 50, rng)
    shares = np.array([np.bincount(one.labels.numpy(), minlength=3) / 50 for one in clients])
    assert [len(one) for one in clients] == [50] * 6
    assert shares.max() > 0.6
    assert shares.std(axis=0).min() > 0.05


def test_clients_train_the_crafted_model_for_one_step_on_half_their_examples() -> None:
    step = one_step(federation(each=5))
    assert step.training.steps == 1
    assert step.training.batch_size == 3
    assert step.training.momentum == 0


def test_nobody_prunes_a_crafted_model_without_units() -> None:
    class Opaque(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(9, 3))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.flatten(1) @ self.weight

    deployment = federation(mode="mask-indexed", mask=units_at_random(0.5), pruned=0.4)
    assert with_model(deployment, deployment.model()).mask is not None
    assert with_model(deployment, Opaque()).mask is None
