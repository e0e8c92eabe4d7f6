from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import secagg
from attacks.attack import Trial
from attacks.masks.equations import solve
from attacks.masks.intersections import CrossRound, Rounds, singled_out
from tests.unit.attacks.conformance import ReconstructionContract

RANDOM = np.random.default_rng(0)


def rounds(rng: np.random.Generator, many: int, *, clients: int = 8, size: int = 60) -> tuple[Rounds, np.ndarray]:
    """The same updates in every round, and masks that are drawn anew by half of the clients."""
    updates = rng.normal(size=(clients, size))
    holders = rng.random((many, clients, size)) < 0.5
    holders[:, clients // 2 :] = True
    return Rounds(np.einsum("rcd,cd->rd", holders, updates), holders, 0), updates


class TestCrossRound(ReconstructionContract):
    def attack(self) -> CrossRound:
        return CrossRound()

    def leaking(self, rng: np.random.Generator) -> list[Trial[Any, Any]]:
        return [Trial(seen, updates[0]) for seen, updates in (rounds(rng, 6) for _ in range(8))]

    def silent(self, rng: np.random.Generator) -> list[Trial[Any, Any]]:
        return [Trial(rounds(rng, 6)[0], rng.normal(size=60)) for _ in range(8)]


def test_two_rounds_that_differ_in_one_holder_single_it_out() -> None:
    holders = np.array([[[1, 1], [1, 1], [1, 1]], [[0, 1], [1, 1], [1, 1]]], bool)
    assert singled_out(holders).tolist() == [1, 0, 0]
    sums = np.array([[6.0, 6.0], [5.0, 6.0]])
    np.testing.assert_allclose(CrossRound().guess(Rounds(sums, holders, 0), RANDOM), [1.0, np.nan])
    assert np.isnan(CrossRound().guess(Rounds(sums, holders, 1), RANDOM)).all()


def test_what_was_found_is_exact_where_updates_stay_the_same() -> None:
    seen, updates = rounds(np.random.default_rng(1), 6)
    for client in range(4):
        guess = CrossRound().guess(replace(seen, client=client), RANDOM)
        found = ~np.isnan(guess)
        assert found.sum() == singled_out(seen.holders)[client] > 30
        np.testing.assert_allclose(guess[found], updates[client][found], atol=1e-9)
        assert CrossRound().quality(guess, updates[client]) == pytest.approx(1)
    assert singled_out(seen.holders)[4:].tolist() == [0] * 4


def test_rounds_over_the_same_holders_single_nobody_out() -> None:
    seen, updates = rounds(np.random.default_rng(2), 1)
    again = Rounds(np.repeat(seen.sums, 5, axis=0), np.repeat(seen.holders, 5, axis=0), 0)
    assert singled_out(again.holders).sum() == 0
    assert CrossRound().quality(CrossRound().guess(again, RANDOM), updates[0]) == -1


def test_sums_of_real_sessions_single_out_who_left_one_out() -> None:
    """Each session keeps to min_cohort=3; the two together do not."""
    updates = {client: np.full(4, client + 1.0) / 8 for client in range(5)}
    whole, without = np.ones(4, bool), np.array([1, 1, 0, 0], bool)
    sums, holders = [], []
    for of_first in (whole, without):
        masks = {client: of_first if client == 0 else whole for client in updates}
        result = secagg.simulate(
            updates, masks, mode="mask-indexed", params=secagg.Params(max_dropouts=1), seed=bytes(of_first)
        )
        assert result.aggregate.smallest_group >= 3
        sums.append(result.aggregate.sum)
        holders.append(list(masks.values()))
    guess = CrossRound().guess(Rounds(np.array(sums), np.array(holders), 0), RANDOM)
    np.testing.assert_allclose(guess, [np.nan, np.nan, 0.125, 0.125], atol=1e-4)


def test_equations_are_solved_in_a_batch_and_left_open_where_they_say_nothing() -> None:
    holders = np.array([[[1, 1], [0, 1]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]], bool)
    solution = solve(holders, np.array([[5.0, 3.0], [5.0, 5.0], [0.0, 0.0]]))
    np.testing.assert_allclose(solution, np.array([[2, 3], [np.nan] * 2, [np.nan] * 2]))
