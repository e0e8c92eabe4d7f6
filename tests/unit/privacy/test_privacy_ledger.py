"""The ledger adds up what happened, forgets nothing, and never takes what it does not know for free."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from secagg.errors import InputError
from secagg.privacy.calibrate import epsilon_after
from secagg.privacy.events import Composed, DiscreteGaussianSum, Gaussian, NonPrivate, SampledGaussian, SkellamSum
from secagg.privacy.ledger import PrivacyLedger

DELTA = 1e-5
SKELLAM = SkellamSum(l1=30, l2=10, variance=2500, dimension=9, sampler_error=1e-15)
DISCRETE = DiscreteGaussianSum(l1=30, l2=10, variance=2500, local_std=5, contributors=100, dimension=9)
EVENTS = (
    SKELLAM,
    DISCRETE,
    Gaussian(noise_multiplier=4),
    SampledGaussian(sample_rate=0.1, noise_multiplier=2, steps=5),
    Composed(events=(SKELLAM, Composed(events=(DISCRETE,), times=2)), times=3),
)


def ledger_of(*events: Any) -> PrivacyLedger:
    ledger = PrivacyLedger()
    for event in events:
        ledger.record(event)
    return ledger


def test_an_empty_ledger_has_spent_nothing() -> None:
    assert PrivacyLedger().epsilon(DELTA) == 0
    assert PrivacyLedger().events == ()


def test_rounds_of_several_mechanisms_cost_what_their_composition_costs() -> None:
    together = ledger_of(*EVENTS)
    assert together.epsilon(DELTA) == pytest.approx(epsilon_after(1, Composed(events=EVENTS), DELTA))
    assert together.epsilon(DELTA) < sum(ledger_of(event).epsilon(DELTA) for event in EVENTS)
    assert ledger_of(*[SKELLAM] * 20).epsilon(DELTA) == pytest.approx(epsilon_after(20, SKELLAM, DELTA))


def test_sampler_errors_add_up() -> None:
    coarse = SkellamSum(l1=30, l2=10, variance=2500, dimension=9, sampler_error=1e-8)
    spent = ledger_of(*[coarse] * 5).epsilon(DELTA)
    assert spent == pytest.approx(epsilon_after(5, coarse, DELTA), rel=1e-12)
    assert spent > 1.001 * ledger_of(*[SKELLAM] * 5).epsilon(DELTA)


def test_every_round_costs_more() -> None:
    ledger, spent = PrivacyLedger(), [0.0]
    for event in EVENTS:
        ledger.record(event)
        spent.append(ledger.epsilon(DELTA))
    assert spent == sorted(set(spent))


def test_a_release_without_a_guarantee_costs_everything_for_good() -> None:
    ledger, private = ledger_of(SKELLAM), [ledger_of(SKELLAM).private]
    for event in (NonPrivate(reason="masks were computed from data"), SKELLAM):
        ledger.record(event)
        private.append(ledger.private)
        assert ledger.epsilon(DELTA) == math.inf
    assert private == [True, False, False]


@pytest.mark.parametrize("stranger", [None, "skellam", {"kind": "gaussian"}, object()])
def test_a_stranger_is_refused_and_leaves_no_trace(stranger: object) -> None:
    ledger = ledger_of(SKELLAM)
    before = ledger.epsilon(DELTA)
    with pytest.raises(InputError, match="no accountant"):
        ledger.record(stranger)  # type: ignore[arg-type]
    assert (ledger.events, ledger.epsilon(DELTA)) == ((SKELLAM,), before)


def test_what_is_remembered_as_json_is_recalled() -> None:
    for ledger in (PrivacyLedger(), ledger_of(*EVENTS), ledger_of(SKELLAM, NonPrivate(reason="plain"))):
        again = PrivacyLedger.recall(json.loads(json.dumps(ledger.remember())))
        assert again.events == ledger.events
        assert again.epsilon(DELTA) == ledger.epsilon(DELTA)
        assert repr(again) == f"PrivacyLedger({len(ledger.events)} events)"


@pytest.mark.parametrize(
    "memory",
    [
        {},
        {"events": None},
        {"events": [{"kind": "laplace", "scale": 1.0}]},
        {"events": [{"kind": "gaussian"}]},
        {"events": [{"kind": "gaussian", "noise_multiplier": -1.0}]},
        {"events": [{"kind": "gaussian", "noise_multiplier": 1.0, "discount": 2.0}]},
    ],
)
def test_what_is_no_ledger_is_not_recalled(memory: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no privacy ledger"):
        PrivacyLedger.recall(memory)
