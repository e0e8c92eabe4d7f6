from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import secagg
from attacks import opened_weights
from attacks.attack import Trial
from attacks.masks.denominators import Counted, MasksFromDenominators, nameless
from secagg import Declaration, Layout, Provenance, Tensor, counts, declaration
from secagg.errors import SecAggError
from tests.unit.attacks.conformance import ReconstructionContract

WEIGHTS = {client: (1 + client) / 16 for client in range(12)}


def denominators(masks: dict[int, np.ndarray], weights: dict[int, float]) -> np.ndarray:
    """What a server learns that sums hidden weights coordinate by coordinate."""
    return np.asarray(sum(weights[client] * held for client, held in masks.items()), np.float64)


def prefixes(clients: int) -> dict[int, np.ndarray]:
    """Client c holds the first c + 1 coordinates: neighbouring coordinates differ in one holder."""
    return {client: np.arange(clients) <= client for client in range(clients)}


def test_sums_that_differ_in_one_holder_open_every_weight() -> None:
    masks = prefixes(12)
    opened = opened_weights(masks, denominators(masks, WEIGHTS))
    assert opened == pytest.approx(WEIGHTS)


def test_a_withheld_denominator_opens_nothing_by_itself() -> None:
    masks = {0: np.array([1, 1, 0], bool), 1: np.array([1, 0, 1], bool), 2: np.array([1, 0, 1], bool)}
    whole = denominators(masks, WEIGHTS)
    assert opened_weights(masks, whole) == pytest.approx({0: WEIGHTS[0]})
    assert opened_weights(masks, np.array([whole[0], np.nan, np.nan])) == {}
    assert opened_weights(masks, np.full(3, np.nan)) == {}


def test_equal_masks_open_nobody() -> None:
    masks = dict.fromkeys(range(5), np.ones(4, bool))
    assert opened_weights(masks, denominators(masks, WEIGHTS)) == {}


def test_hidden_weights_stay_hidden_in_a_session_whose_masks_would_open_them() -> None:
    """Twelve clients in three groups of four nested masks: per coordinate the sums of groups follow, and no weight."""
    groups = {client: np.arange(3) <= client // 4 for client in WEIGHTS}
    result = secagg.simulate(
        {client: np.zeros(3) for client in WEIGHTS},
        groups,
        WEIGHTS,
        mode="mask-indexed",
        params=secagg.Params(max_dropouts=1, weighting="hidden"),
        seed=b"denominators",
    )
    assert not result.withheld.any()
    released = result.aggregate.weight
    assert released == pytest.approx(denominators(groups, WEIGHTS), rel=1e-4)
    assert opened_weights(groups, released) == {}


def test_a_session_refuses_hidden_weights_over_masks_that_open_them() -> None:
    with pytest.raises(SecAggError, match="weighting"):
        secagg.simulate(
            {client: np.zeros(12) for client in WEIGHTS},
            prefixes(12),
            WEIGHTS,
            mode="mask-indexed",
            params=secagg.Params(max_dropouts=1, weighting="hidden"),
            seed=b"denominators",
        )


UNITS = (12, 8)
LAYOUT = Layout(
    (
        Tensor("a.weight", (12, 3), unit_axes={0: tuple(range(12))}),
        Tensor("b.weight", (8, 12), unit_axes={0: tuple(range(12, 20)), 1: tuple(range(12))}),
        Tensor("c.weight", (2, 8), unit_axes={1: tuple(range(12, 20))}),
    ),
    {"a": 12, "b": 8},
)


def of_units(held: np.ndarray) -> Declaration:
    return declaration.of_units(LAYOUT, held, Provenance.DATA)


def drawn(rng: np.random.Generator, clients: int = 4) -> np.ndarray:
    held = rng.random((clients, LAYOUT.unit_count)) < 0.5
    held[:, [0, 12]] = True  # no group is empty
    return held


def counted(held: np.ndarray, *, dense: int = 3, exact: bool = True) -> Counted:
    bits = [counts.bits(LAYOUT, of_units(row)) for row in held] + [counts.bits(LAYOUT, declaration.FULL)] * dense
    sums = {name: np.sum([one[name] for one in bits], axis=0) for name in bits[0]}
    weight = dense + LAYOUT.count_by_units(held) if exact else np.full(LAYOUT.size, dense + len(held))
    return Counted(LAYOUT, sums, weight.astype(float), exact)


class TestMasksFromDenominators(ReconstructionContract):
    def attack(self) -> MasksFromDenominators:
        return MasksFromDenominators()

    def leaking(self, rng: np.random.Generator) -> list[Trial[Any, Any]]:
        return [Trial(counted(held), nameless(held)) for held in (drawn(rng) for _ in range(8))]

    def silent(self, rng: np.random.Generator) -> list[Trial[Any, Any]]:
        return [Trial(counted(drawn(rng)), nameless(drawn(rng))) for _ in range(8)]


def test_exact_denominators_of_a_session_give_the_masks_away() -> None:
    held = drawn(np.random.default_rng(0))
    declared = {client: of_units(row) if client < 4 else None for client, row in enumerate([*held, *[held[0]] * 4])}
    for exact in (True, False):
        weight = secagg.simulate(
            {client: LAYOUT.by_tensor(np.zeros(LAYOUT.size)) for client in declared},
            declared,
            mode="uniform",
            params=secagg.Params(max_dropouts=1, exact_denominators=exact),
            layout=LAYOUT,
            seed=b"exact",
        ).aggregate.weight
        np.testing.assert_array_equal(weight, counted(held, dense=4, exact=exact).weight)


def test_counts_of_single_units_give_no_mask_away() -> None:
    attack, rng = MasksFromDenominators(), np.random.default_rng(0)
    qualities = [
        attack.quality(attack.guess(counted(held, exact=False), rng), nameless(held))
        for held in (drawn(rng) for _ in range(10))
    ]
    assert max(qualities) < 1


def test_nobody_who_prunes_and_too_many_who_do_give_the_empty_guess() -> None:
    attack, rng = MasksFromDenominators(), np.random.default_rng(0)
    assert attack.guess(counted(drawn(rng, 11)), rng) == frozenset()
    assert attack.guess(counted(np.ones((2, LAYOUT.unit_count), bool)), rng) == frozenset()


def test_counts_that_contradict_each_other_end_the_search() -> None:
    attack, rng = MasksFromDenominators(), np.random.default_rng(0)
    right, wrong = counted(drawn(rng)), counted(drawn(rng))
    assert attack.guess(Counted(LAYOUT, right.sums, wrong.weight, exact=True), rng) == frozenset()


def test_quality_is_the_share_of_clients_whose_mask_was_found() -> None:
    attack = MasksFromDenominators()
    held = np.array([[1, 0], [1, 0], [0, 1], [1, 1]], bool)
    assert attack.quality(nameless(held[::-1]), nameless(held)) == 1
    assert attack.quality(nameless(held[[0, 2]]), nameless(held)) == 0.5
    assert attack.quality(frozenset(), nameless(held)) == 0
