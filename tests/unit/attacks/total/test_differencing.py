"""A sum minus the same sum without one client is that client; ledgers do not let the second one happen."""

from __future__ import annotations

import numpy as np
import pytest

from attacks.attack import Trial
from attacks.total.differencing import Differencing, TwoSums
from attacks.total.rounds import Sum
from secagg import Ledger, Params, simulate
from secagg.errors import DifferencingError
from tests.unit.attacks.conformance import ReconstructionContract

Cases = list[Trial[TwoSums, "np.typing.NDArray[np.float64]"]]

CLIENTS, SIZE = 5, 30


def whole_and_without(updates: np.typing.NDArray[np.float64], rest: np.typing.NDArray[np.float64]) -> TwoSums:
    return TwoSums(
        Sum(updates.sum(axis=0), np.full(SIZE, len(updates))), Sum(rest.sum(axis=0), np.full(SIZE, len(rest)))
    )


class TestContract(ReconstructionContract):
    def attack(self) -> Differencing:
        return Differencing()

    def leaking(self, rng: np.random.Generator) -> Cases:
        drawn = [rng.normal(size=(CLIENTS, SIZE)) for _ in range(6)]
        return [Trial(whole_and_without(updates, updates[1:]), updates[0]) for updates in drawn]

    def silent(self, rng: np.random.Generator) -> Cases:
        """Everybody is in both sums."""
        drawn = [rng.normal(size=(CLIENTS, SIZE)) for _ in range(6)]
        return [Trial(whole_and_without(updates, updates), updates[0]) for updates in drawn]


def test_it_does_without_what_one_of_the_sums_withholds() -> None:
    rng = np.random.default_rng(1)
    updates = rng.normal(size=(CLIENTS, SIZE))
    both = whole_and_without(updates, updates[1:])
    withheld = np.where(np.arange(SIZE) < 10, 0, both.without.holders)
    found = Differencing().guess(TwoSums(both.whole, Sum(both.without.values, withheld)), rng)
    np.testing.assert_allclose(found, np.where(np.arange(SIZE) < 10, 0, updates[0]), atol=1e-12)


@pytest.mark.parametrize("remembered", [False, True])
def test_the_second_session_is_refused_by_clients_that_remember_the_first(*, remembered: bool) -> None:
    rng = np.random.default_rng(2)
    updates = {client: rng.normal(size=SIZE) / 4 for client in range(CLIENTS)}
    rest = {client: updates[client] for client in range(CLIENTS - 1)}
    ledgers = {client: Ledger() for client in updates} if remembered else {}
    params = Params(min_cohort=3, max_dropouts=1)
    whole = simulate(updates, params=params, ledgers=ledgers)
    if remembered:
        with pytest.raises(DifferencingError, match="isolate 1 clients"):
            simulate(rest, params=params, ledgers={client: ledgers[client] for client in rest})
        return
    without = simulate(rest, params=params, ledgers={})
    holders = np.full(SIZE, CLIENTS)
    view = TwoSums(Sum(np.asarray(whole.sum), holders), Sum(np.asarray(without.sum), holders - 1))
    attack = Differencing()
    assert attack.quality(attack.guess(view, rng), updates[CLIENTS - 1]) > 0.9999
