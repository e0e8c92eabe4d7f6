"""Trials of a deployment's noise: what is summed, and what is seen of it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from attacks import digits
from attacks.attack import Trial
from attacks.dp import canary, oracle
from attacks.dp.canary import Projection, Released, Sums
from attacks.dp.probe import probe
from attacks.finding import Effort, broken
from attacks.measurement import Bound
from attacks.rules import changed_units, largest_coordinates, units_at_random
from protocols.models import mlp
from secagg import Params, Privacy
from secagg.errors import CoverageError
from secagg.privacy import shares
from secagg.privacy.noise import Skellam
from tests.unit.attacks.conformance import DistinguisherContract

if TYPE_CHECKING:
    from attacks.deployment import Deployment
    from attacks.finding import Finding

CLIENTS = 6
BRIEF = replace(digits.TRAINING, steps=1)
PRIVACY = Privacy(clip=2.0, noise_multiplier=1.0)
EFFORT = Effort(noise_trials=200)


def federation(**changes: object) -> Deployment:
    """A few clients and a small model, in the clear unless said otherwise."""
    return everybody().variant("small", **{"model": lambda: mlp(64, (4,), seed=0), "training": BRIEF, **changes})


@cache
def everybody() -> Deployment:
    return digits.deployment(CLIENTS)


def private(mode: str = "uniform", privacy: Privacy = PRIVACY, **changes: object) -> Deployment:
    return federation(mode=mode, params=Params(min_cohort=2, max_dropouts=1, privacy=privacy), **changes)


def attempted(deployment: Deployment, effort: Effort = EFFORT) -> dict[str, Finding]:
    return {one.attack: one for one in probe(deployment, effort, np.random.default_rng(0))}


def bounds(findings: dict[str, Finding]) -> dict[str, Bound]:
    return {name: one.measurement for name, one in findings.items() if isinstance(one.measurement, Bound)}


class TestProjection(DistinguisherContract):
    def attack(self) -> Projection:
        return Projection()

    def trials(self, rng: np.random.Generator, size: float) -> list[Trial[Released, bool]]:
        made = []
        for number in range(60):
            places, signs = np.arange(3, 9), rng.choice([-1.0, 1.0], 6)
            total = rng.normal(size=12)
            total[places] += size * signs * (number % 2)
            made.append(Trial(Released(total, places, signs), bool(number % 2)))
        return made

    def leaking(self, rng: np.random.Generator) -> list[Trial[Released, bool]]:
        return self.trials(rng, 1.0)

    def silent(self, rng: np.random.Generator) -> list[Trial[Released, bool]]:
        return self.trials(rng, 0.0)


# What is summed.


@pytest.mark.parametrize("mode", ["plain", "uniform", "mask-indexed"])
def test_without_noise_a_score_is_the_norm_of_the_canary_or_nothing(mode: str) -> None:
    deployment = federation(mode=mode)
    sums = Sums.of(deployment, np.random.default_rng(0))
    trained = deployment.update(deployment.model(), deployment.clients[0], 0)
    assert sums.norm == pytest.approx(np.linalg.norm(deployment.vector(trained)))
    for trial in sums.trials(4, np.random.default_rng(0)):
        score = Projection().guess(trial.view, np.random.default_rng(0))
        assert score == pytest.approx(sums.norm * trial.secret, abs=1e-3)
    assert sums.claimed(1e-5) == sums.mu == math.inf


def test_under_a_budget_a_canary_is_as_long_as_clipping_leaves_it_and_has_noise_around_it() -> None:
    sums = Sums.of(private(), np.random.default_rng(0))
    rng = np.random.default_rng(0)
    trials = list(sums.trials(400, rng))
    scores = np.array([Projection().guess(trial.view, rng) for trial in trials])
    inside = np.array([trial.secret for trial in trials])
    # Shares are sized for five of the six, so that there is 6/5 of the variance that is guaranteed.
    expected = PRIVACY.clip * math.sqrt(CLIENTS / (CLIENTS - 1))
    assert inside.sum() == 200
    assert scores[inside].mean() - scores[~inside].mean() == pytest.approx(PRIVACY.clip, abs=5 * expected / 10)
    for half in (inside, ~inside):
        assert scores[half].std() == pytest.approx(expected, rel=0.25)
    assert sums.mu == pytest.approx(PRIVACY.clip / expected, rel=0.01)
    assert 3 < sums.claimed(1e-5) < 5


def test_where_masks_are_declared_the_canary_lies_where_the_fewest_send() -> None:
    rule = units_at_random(0.5)
    sums = Sums.of(private("mask-indexed", mask=rule, pruned=0.5), np.random.default_rng(1))
    client, places = sums.weakest
    released = sums.behind > 0
    assert set(sums.behind[places]) == {sums.behind[released].min()}
    assert sums.behind.max() == CLIENTS > sums.behind[places[0]]
    assert sums.open_to(client)[places].all()
    assert math.isfinite(sums.claimed(1e-5)), "the masks come from no data"
    assert math.isinf(
        Sums.of(private("mask-indexed", mask=changed_units(0.5), pruned=0.5), np.random.default_rng(1)).mu
    )


def test_a_large_model_is_stood_in_for_by_some_of_its_coordinates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "LARGEST", 50)
    sums = Sums.of(private("mask-indexed", mask=units_at_random(0.5), pruned=0.5), np.random.default_rng(1))
    assert len(sums.release({}).vector) == 50
    assert len(set(sums.behind)) > 1


def test_in_one_sum_every_client_has_places_of_its_own_and_a_coin() -> None:
    sums = Sums.of(federation(mode="uniform"), np.random.default_rng(0)).crowd(40)
    trials = sums.tossed(np.random.default_rng(0))
    assert len(trials) == 40
    assert len({place for trial in trials for place in trial.view.places}) == sums.aggregator.layout.size
    assert 8 < sum(trial.secret for trial in trials) < 32
    for trial in trials:
        score = Projection().guess(trial.view, np.random.default_rng(0))
        assert score == pytest.approx(sums.norm * trial.secret, abs=1e-3)


def test_nothing_is_tried_where_nothing_is_released() -> None:
    everywhere = Params(min_cohort=5, max_dropouts=1, privacy=PRIVACY)
    sparse = federation(mode="mask-indexed", params=everywhere, mask=largest_coordinates(0.01), pruned=1.0)
    with pytest.raises(CoverageError):
        _ = Sums.of(sparse, np.random.default_rng(0)).silent
    found = attempted(sparse)
    assert [(one.measurement, one.claimed) for one in found.values()] == [(None, False)]


# What comes of it.


@pytest.mark.parametrize("mode", ["plain", "uniform", "mask-indexed"])
def test_without_noise_every_bound_is_at_its_ceiling_and_nothing_is_promised(mode: str) -> None:
    found = attempted(federation(mode=mode), Effort(noise_trials=60))
    assert len(bounds(found)) == 3
    for one in bounds(found).values():
        assert one.epsilon == one.ceiling > 1
        assert (one.claimed, one.p_value) == (math.inf, 1)
    assert found["exact law of the noise"].measurement is None
    assert not any(one.claimed for one in found.values())
    assert all("PrivacyBudget(epsilon=8" in cure.setting for one in found.values() for cure in one.cures)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
def test_noise_as_promised_keeps_every_bound_below_the_claim(mechanism: str) -> None:
    found = attempted(private(privacy=replace(PRIVACY, mechanism=mechanism)))  # type: ignore[arg-type]  # a str
    assert len(bounds(found)) == 4
    assert all(one.claimed for one in found.values())
    assert broken(list(found.values()), alpha=1e-4) == []
    for one in bounds(found).values():
        assert 3 < one.claimed < 6
    exact = bounds(found)["exact law of the noise"]
    assert 0.7 * exact.claimed < exact.epsilon < exact.claimed


def test_a_build_that_draws_half_of_its_noise_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the variance; what the session says about itself stays as it was."""
    monkeypatch.setattr(shares, "Skellam", lambda variance: Skellam(variance / 4))
    found = attempted(private(), Effort(noise_trials=600))
    assert found["lower bound for Gaussian noise"] in broken(list(found.values()))
    assert bounds(found)["lower bound for Gaussian noise"].p_value < 1e-4
    assert bounds(found)["exact law of the noise"].p_value == 1


def test_an_accountant_that_counts_on_more_noise_than_there_is_breaks_its_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Sums, "claimed", lambda *_: 2.0)
    found = attempted(private(), Effort(noise_trials=20))
    assert found["exact law of the noise"] in broken(list(found.values()))


def test_noise_on_a_coarse_grid_is_not_taken_for_gaussian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sums, "noise_std", 3.0)
    found = attempted(private(), Effort(noise_trials=20))["lower bound for Gaussian noise"]
    assert found.measurement is None
    assert "spans 3 steps" in found.note


def test_noise_whose_law_takes_too_much_memory_is_only_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "LARGEST_ROOM", 1000)
    found = attempted(private(), Effort(noise_trials=20))["exact law of the noise"]
    assert found.measurement is None
    assert "is not computed" in found.note


def test_a_federation_that_no_budget_is_for_is_told_why() -> None:
    two = federation(clients=everybody().clients[:2])
    (cure,) = attempted(two, Effort(noise_trials=20))["lower bound without assumptions"].cures
    assert "not to be had here" in cure.costs


def test_settings_that_allow_no_crowd_say_so() -> None:
    """A ring of 16 bits has no room for noise among so many clients."""
    narrow = private(privacy=Privacy(clip=1.0, noise_multiplier=1e-3, ring_bits=16))
    found = attempted(narrow, Effort(noise_trials=270))
    one = found["lower bound from a single sum"]
    assert one.measurement is None
    assert "270 clients" in one.note
    assert "ring_bits" in one.note
