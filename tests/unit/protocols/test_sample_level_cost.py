"""The cost of sample-level privacy: one ledger a client, three accountants, and the noise for a budget."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import get_args

import pytest
import torch
from opacus.accountants import RDPAccountant
from scipy.optimize import brentq

from protocols.models import mlp
from protocols.sample_level.cost import MOST_BY_PRV, Accountant, _prv, epsilon, noise_for
from protocols.sample_level.training import PrivateTraining, SampleLevel
from protocols.training import Examples, Training
from pruning.masks import ordered_units
from pruning.submodel import extract
from pruning.units import find_units
from secagg.errors import ParameterError
from secagg.prg import SeededEntropy
from secagg.privacy.events import Gaussian, NonPrivate, SampledGaussian, SkellamSum
from secagg.privacy.ledger import PrivacyLedger
from secagg.privacy.pld import steps_of
from secagg.privacy.rdp import LEAST_SAMPLED_MULTIPLIER

DELTA = 1e-5
ACCOUNTANTS: tuple[Accountant, ...] = get_args(Accountant)


def steps(rate: float, noise_multiplier: float, count: int) -> SampledGaussian:
    return SampledGaussian(sample_rate=rate, noise_multiplier=noise_multiplier, steps=count)


HISTORIES: dict[str, list[SampledGaussian]] = {
    "one round": [steps(0.01, 1.0, 200)],
    "many rounds": [steps(0.1, 1.5, 10)] * 20,
    "different rounds": [steps(0.05, 1.0, 20), steps(0.2, 2.0, 10), steps(0.05, 1.0, 30)],
    "all examples": [steps(1.0, 5.0, 10)],
}


@pytest.fixture
def blobs() -> Examples:
    return Examples(torch.randn(20, 16, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 4)


def exact_epsilon(noise_multiplier: float, delta: float) -> float:
    """Of the Gaussian mechanism. B. Balle and Y. Wang (ICML 2018), theorem 8."""
    cdf = NormalDist().cdf

    def excess(given: float) -> float:
        half, rest = 1 / (2 * noise_multiplier), given * noise_multiplier
        return cdf(half - rest) - math.exp(given) * cdf(-half - rest) - delta

    return float(brentq(excess, 0, 100 / noise_multiplier))


@pytest.mark.parametrize("name", HISTORIES)
def test_our_rdp_is_at_most_that_of_opacus_and_close(name: str) -> None:
    theirs = RDPAccountant()
    theirs.history = [(one.noise_multiplier, one.sample_rate, one.steps) for one in HISTORIES[name]]
    ours = epsilon(HISTORIES[name], DELTA)
    assert 0.98 * theirs.get_epsilon(DELTA) < ours <= theirs.get_epsilon(DELTA) * (1 + 1e-9)


@pytest.mark.parametrize("name", HISTORIES)
def test_prv_is_tighter_than_rdp(name: str) -> None:
    rdp, prv = epsilon(HISTORIES[name], DELTA), epsilon(HISTORIES[name], DELTA, "prv")
    assert 0.6 * rdp < prv < 0.99 * rdp
    assert prv == _prv(steps_of(HISTORIES[name]), DELTA)


@pytest.mark.parametrize("name", HISTORIES)
def test_pld_is_within_what_prv_may_err(name: str) -> None:
    """Its answer is a hundredth above an estimate that is right to a hundredth, for delta right to a thousandth."""
    prv, pld = epsilon(HISTORIES[name], DELTA, "prv"), epsilon(HISTORIES[name], DELTA, "pld")
    assert prv - 0.021 < pld < prv


@pytest.mark.parametrize("noise_multiplier", [0.7, 1.0, 3.0])
def test_one_step_on_all_examples_is_the_gaussian_mechanism(noise_multiplier: float) -> None:
    exact = exact_epsilon(noise_multiplier, DELTA)
    for event in (steps(1.0, noise_multiplier, 1), Gaussian(noise_multiplier=noise_multiplier)):
        assert exact < epsilon([event], DELTA, "prv") < exact + 0.03
        assert exact < epsilon([event], DELTA) < 1.25 * exact


def test_sixteen_steps_on_all_examples_are_one_with_a_quarter_of_the_noise() -> None:
    exact = exact_epsilon(1.0, DELTA)
    assert exact < epsilon([steps(1.0, 4.0, 9), steps(1.0, 4.0, 7)], DELTA, "prv") < exact + 0.03


def test_no_history_costs_nothing_and_none_private_is_infinite() -> None:
    for accountant in ACCOUNTANTS:
        assert epsilon([], DELTA, accountant) == 0
        for event in (NonPrivate(reason="a mask from data"), steps(0.1, 0.0, 1)):
            assert epsilon([steps(0.1, 1.0, 1), event], DELTA, accountant) == math.inf


@pytest.mark.parametrize("event", [steps(1.0, 0.1, 1), steps(0.001, 50.0, 1)], ids=["vast", "tiny"])
def test_where_prv_says_nothing_better_rdp_answers(event: SampledGaussian) -> None:
    rdp = epsilon([event], DELTA)
    assert rdp > MOST_BY_PRV or rdp < 0.01
    assert epsilon([event], DELTA, "prv") == rdp


def test_one_ledger_adds_up_the_rounds_of_a_client_submodels_included(blobs: Examples) -> None:
    training = PrivateTraining(
        training=Training(steps=3, batch_size=5), privacy=SampleLevel(noise_multiplier=2.0, clip=0.5)
    )
    model, ledger, entropy = mlp(16, (8,), 4), PrivacyLedger(), SeededEntropy(b"rounds")
    small = extract(model, ordered_units(find_units(model, blobs.inputs[:2]).layout, 0.5))
    for number, one in enumerate((model, small, small)):
        ledger.record(training.train(one, blobs, number, entropy))
    assert ledger.events == (steps(0.25, 2.0, 3),) * 3
    assert ledger.epsilon(DELTA) == pytest.approx(epsilon([steps(0.25, 2.0, 9)], DELTA))
    assert epsilon(ledger.events, DELTA, "prv") < ledger.epsilon(DELTA)


@pytest.mark.parametrize(("budget", "rounds", "rate"), [(2.0, 10, 0.1), (8.0, 3, 1.0), (0.5, 1, 0.02)])
def test_the_noise_for_a_budget_spends_it_and_no_more(budget: float, rounds: int, rate: float) -> None:
    multiplier = noise_for(budget, DELTA, rounds, sample_rate=rate, steps=20)
    spent = epsilon([steps(rate, multiplier, 20)] * rounds, DELTA)
    assert spent <= budget == pytest.approx(spent, rel=1e-6)
    assert multiplier > LEAST_SAMPLED_MULTIPLIER


def test_a_budget_beyond_all_use_gets_the_least_noise_on_offer() -> None:
    assert noise_for(1e4, DELTA, 1, sample_rate=0.1, steps=1) == pytest.approx(LEAST_SAMPLED_MULTIPLIER)


def test_settings_outside_their_domain_are_refused() -> None:
    with pytest.raises(ParameterError, match="accountant"):
        epsilon([], DELTA, "guess")  # type: ignore[arg-type]
    for accountant in ACCOUNTANTS:
        with pytest.raises(ParameterError, match="delta"):
            epsilon([steps(0.1, 1.0, 1)], 0.0, accountant)
    with pytest.raises(ParameterError, match="sample_rate"):
        noise_for(1.0, DELTA, 1, sample_rate=0.0, steps=1)
    with pytest.raises(ParameterError, match="rounds"):
        noise_for(1.0, DELTA, 0, sample_rate=0.1, steps=1)


def test_prv_says_which_accountant_to_take_where_it_finds_nothing() -> None:
    with pytest.raises(ParameterError, match="accountant='rdp'"):
        epsilon([steps(0.5, 1.0, 3)], 1e-17, "prv")


@pytest.mark.parametrize("accountant", ["prv", "pld"])
def test_only_rdp_knows_sums_over_clients(accountant: Accountant) -> None:
    event = SkellamSum(l1=1, l2=1, variance=100, dimension=1)
    with pytest.raises(ParameterError, match=r"accountant='rdp'.*SkellamSum"):
        epsilon([event], DELTA, accountant)
    assert 0 < epsilon([event], DELTA) < math.inf
