"""Sums over known cohorts give single updates away in about as many rounds as there are clients."""

from __future__ import annotations

import numpy as np
import pytest

from attacks.attack import Trial
from attacks.total.participation import KnownCohorts, LeastSquares
from tests.unit.attacks.conformance import ReconstructionContract

Cases = list[Trial[KnownCohorts, "np.typing.NDArray[np.float64]"]]

CLIENTS, SIZE = 6, 40


def case(rounds: int, victim: int, rng: np.random.Generator, *, drift: float = 0.1, alone: bool = True) -> Cases:
    updates = rng.normal(size=(CLIENTS, SIZE))
    present = np.array([rng.permutation(CLIENTS) < 4 for _ in range(rounds)])
    sums = np.array(
        [
            (updates[here] + drift * rng.normal(size=(4, SIZE))).sum(axis=0) if alone else rng.normal(size=SIZE)
            for here in present
        ]
    )
    held = np.broadcast_to(present[:, :, None], (rounds, CLIENTS, SIZE))
    return [Trial(KnownCohorts(sums, held, victim), updates[victim])]


class TestContract(ReconstructionContract):
    def attack(self) -> LeastSquares:
        return LeastSquares()

    def leaking(self, rng: np.random.Generator) -> Cases:
        return [one for victim in range(6) for one in case(12, victim, rng)]

    def silent(self, rng: np.random.Generator) -> Cases:
        return [one for victim in range(6) for one in case(12, victim, rng, alone=False)]


def cosine_after(rounds: int) -> float:
    rng, attack = np.random.default_rng(1), LeastSquares()
    cases = [one for number in range(12) for one in case(rounds, number % CLIENTS, rng)]
    return float(np.median([attack.quality(attack.guess(one.view, rng), one.secret) for one in cases]))


def test_it_takes_about_as_many_rounds_as_there_are_clients() -> None:
    assert cosine_after(2) < 0.75
    assert cosine_after(CLIENTS + 2) > 0.9
    assert cosine_after(4 * CLIENTS) > 0.98


def test_updates_that_never_change_are_solved_for_exactly() -> None:
    rng, attack = np.random.default_rng(2), LeastSquares()
    (one,) = case(24, 3, rng, drift=0.0)
    np.testing.assert_allclose(attack.guess(one.view, rng), one.secret, atol=1e-9)


def test_coordinates_that_only_some_hold_have_equations_of_their_own() -> None:
    """Two rounds with everybody in both; the masks make up for the cohorts that do not change."""
    updates = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    held = np.ones((2, 3, 2), bool)
    held[1, 1:, 0] = False
    sums = (updates * held).sum(axis=1)
    found = LeastSquares().guess(KnownCohorts(sums, held, 0), np.random.default_rng(0))
    assert found[0] == pytest.approx(1.0)
    assert found[1] == pytest.approx((2 + 4 + 6) / 3)


def test_what_was_never_released_is_guessed_at_zero() -> None:
    held = np.zeros((3, 2, 4), bool)
    found = LeastSquares().guess(KnownCohorts(np.zeros((3, 4)), held, 1), np.random.default_rng(0))
    assert not found.any()
    assert LeastSquares().quality(found, np.ones(4)) == -1
