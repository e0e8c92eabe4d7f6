"""A budget and the noise that it takes: what a run really spends stays within it, and not far below."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from secagg import Params, PrivacyBudget, PrivacyLedger, simulate
from secagg.declaration import Provenance, of_coordinates
from secagg.errors import ParameterError, TooFewClientsError
from secagg.layout import Layout, Tensor

if TYPE_CHECKING:
    from secagg.params import Mode
    from secagg.privacy.events import Event
    from secagg.privacy.settings import Privacy

CLIENTS, SIZE, ROUNDS = 8, 60, 10
PARAMS = Params(min_cohort=3, max_dropouts=2)
BUDGET = PrivacyBudget(epsilon=4.0)
LAYOUT = Layout((Tensor("w", (SIZE,)),))


def noise(budget: PrivacyBudget = BUDGET, params: Params = PARAMS, mode: Mode = "uniform", **changed: Any) -> Privacy:
    run: dict[str, Any] = {"rounds": ROUNDS, "clients": CLIENTS, "coordinates": SIZE} | changed
    return budget.privacy(params, mode=mode, **run)


def played(privacy: Privacy, params: Params, mode: Mode, lost: int, last_holders: int = CLIENTS) -> Event:
    """The event of a session in which so many clients drop out, and the second half has so many holders."""
    everybody, front = np.ones(SIZE, bool), np.arange(SIZE) < SIZE // 2
    masks = {
        client: of_coordinates(LAYOUT, everybody if client < last_holders else front, Provenance.PUBLIC)
        for client in range(CLIENTS)
    }
    result = simulate(
        {client: {"w": np.ones(SIZE)} for client in range(CLIENTS)},
        masks if mode == "mask-indexed" else None,
        mode=mode,
        params=replace(params, privacy=privacy),
        dropouts=dict.fromkeys(range(lost), "ShareKeys"),
        seed=1,
    )
    assert result.aggregate.event is not None
    return result.aggregate.event


def spent(event: Event, delta: float = BUDGET.delta) -> float:
    ledger = PrivacyLedger()
    for _ in range(ROUNDS):
        ledger.record(event)
    return ledger.epsilon(delta)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
@pytest.mark.parametrize("corrupt", [0, 2])
def test_the_worst_rounds_of_a_uniform_run_spend_the_budget_and_no_more(mechanism: Any, corrupt: int) -> None:
    params = replace(PARAMS, corrupt=corrupt)
    budget = replace(BUDGET, mechanism=mechanism)
    privacy = noise(budget, params)
    assert 0.999 * budget.epsilon < spent(played(privacy, params, "uniform", lost=2)) <= budget.epsilon


def test_rounds_without_dropouts_spend_less() -> None:
    assert spent(played(noise(), PARAMS, "uniform", lost=0)) < 0.9 * BUDGET.epsilon


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("last_holders", [5, 6, 7, 8])
def test_mask_indexed_rounds_keep_to_the_budget_however_few_hold_a_coordinate(lost: int, last_holders: int) -> None:
    event = played(noise(mode="mask-indexed"), PARAMS, "mask-indexed", lost, last_holders)
    assert spent(event) <= BUDGET.epsilon


def test_more_rounds_and_a_smaller_epsilon_take_more_noise() -> None:
    least = noise().noise_multiplier
    assert noise(rounds=2 * ROUNDS).noise_multiplier > least
    assert noise(replace(BUDGET, epsilon=2.0)).noise_multiplier > least
    assert noise(replace(BUDGET, delta=1e-7)).noise_multiplier > least


def test_the_other_settings_are_those_of_the_budget() -> None:
    assert noise(replace(BUDGET, remove_surplus=True)).remove_surplus
    budget = PrivacyBudget(epsilon=3.0, delta=1e-6, clip=0.5, mechanism="discrete-gaussian", ring_bits=32)
    privacy = noise(budget)
    assert (privacy.clip, privacy.delta, privacy.mechanism, privacy.ring_bits) == (0.5, 1e-6, "discrete-gaussian", 32)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": 0.0},
        {"epsilon": float("inf")},
        {"epsilon": 1.0, "delta": 0.0},
        {"epsilon": 1.0, "clip": -1.0},
        {"epsilon": 1.0, "mechanism": "laplace"},
        {"epsilon": 1.0, "ring_bits": 20},
    ],
)
def test_a_budget_outside_its_domain_is_refused_by_name(wrong: dict[str, Any]) -> None:
    named = list(wrong)[-1]
    with pytest.raises(ParameterError, match="ring of 20 bits" if named == "ring_bits" else named):
        PrivacyBudget(**wrong)


def test_a_budget_for_which_the_ring_is_too_coarse_names_it() -> None:
    narrow = PrivacyBudget(epsilon=0.1, ring_bits=16)
    with pytest.raises(ParameterError, match="raise ring_bits to"):
        narrow.privacy(Params(), rounds=100, clients=500, coordinates=2**22)


def test_fewer_clients_than_a_sum_needs_are_refused() -> None:
    with pytest.raises(TooFewClientsError):
        noise(clients=2)
