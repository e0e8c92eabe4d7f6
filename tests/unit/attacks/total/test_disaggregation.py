"""Who took part is found out from the sums and the counts, and then what they sent."""

from __future__ import annotations

import numpy as np

from attacks.attack import Trial
from attacks.total.disaggregation import Disaggregation, KnownCounts
from tests.unit.attacks.conformance import ReconstructionContract

Floats = np.typing.NDArray[np.float64]

CLIENTS, SIZE, STRETCHES, STRETCH = 4, 30, 4, 4


def present(rng: np.random.Generator) -> Floats:
    """Who takes part, (rounds, clients): two or three of four."""
    return np.array([rng.permutation(CLIENTS) < rng.integers(2, 4) for _ in range(STRETCHES * STRETCH)], np.float64)


def view_of(took_part: Floats, sums: Floats, victim: int) -> KnownCounts:
    counts = took_part.reshape(STRETCHES, STRETCH, CLIENTS).sum(axis=1).astype(np.int64)
    return KnownCounts(sums, counts, victim)


def case(victim: int, rng: np.random.Generator, drift: float = 0.05) -> tuple[Trial[KnownCounts, Floats], Floats]:
    took_part, updates = present(rng), rng.normal(size=(CLIENTS, SIZE))
    sums = took_part @ updates + drift * rng.normal(size=(len(took_part), SIZE))
    return Trial(view_of(took_part, sums, victim), updates[victim]), took_part


class TestContract(ReconstructionContract):
    def attack(self) -> Disaggregation:
        return Disaggregation()

    def leaking(self, rng: np.random.Generator) -> list[Trial[KnownCounts, Floats]]:
        return [case(number % CLIENTS, rng)[0] for number in range(6)]

    def silent(self, rng: np.random.Generator) -> list[Trial[KnownCounts, Floats]]:
        return [
            Trial(view_of(present(rng), rng.normal(size=(STRETCHES * STRETCH, SIZE)), 0), rng.normal(size=SIZE))
            for _ in range(6)
        ]


def test_participation_is_found_to_the_bit_where_updates_do_not_change() -> None:
    trial, took_part = case(1, np.random.default_rng(1), drift=0.0)
    np.testing.assert_array_equal(Disaggregation().participation(trial.view), took_part)
    found = Disaggregation().guess(trial.view, np.random.default_rng(0))
    np.testing.assert_allclose(found, trial.secret, atol=1e-9)


def test_it_bears_updates_that_change_a_little() -> None:
    rng = np.random.default_rng(2)
    right = [
        (Disaggregation().participation(trial.view) == took_part).mean()
        for trial, took_part in (case(0, rng, drift=0.2) for _ in range(4))
    ]
    assert np.mean(right) > 0.95


def test_counts_that_nobody_can_have_lead_nowhere() -> None:
    """More often in a stretch than it has rounds: there is no such column, so the client is nowhere."""
    trial, _ = case(2, np.random.default_rng(3))
    counts = trial.view.counts.copy()
    counts[0, 2] = STRETCH + 1
    found = Disaggregation().guess(KnownCounts(trial.view.sums, counts, 2), np.random.default_rng(0))
    np.testing.assert_allclose(found, 0, atol=1e-9)
