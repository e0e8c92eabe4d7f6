from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from attacks.attack import Trial
from attacks.digits import deployment
from attacks.masks.clients import Cohort, known_of_mask
from attacks.masks.cures import Way
from attacks.masks.labels import Holding, LabelInference
from attacks.measurement import measure_reconstruction
from attacks.protections import side_by_side
from attacks.rules import largest_coordinates
from protocols.training import one_thread
from tests.unit.attacks.conformance import ReconstructionContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attacks.deployment import Deployment
    from attacks.measurement import Recovery

PLAIN, UNIFORM, MASKED, _ = side_by_side(deployment())
SETS = [frozenset({label}) for label in range(8)]


def made_up(rng: np.random.Generator, share: float) -> list[Trial[Holding, frozenset[int]]]:
    """Clients of one of eight labels, of whose mask a share of the bits is what the label asks for."""
    templates = {labels: rng.random(300) for labels in SETS}
    trials = []
    for place in rng.integers(len(SETS), size=30):
        asked, noise = templates[SETS[place]] > 0.5, rng.random(300) > 0.5
        evidence = np.where(rng.random(300) < share, asked, noise).astype(float)
        trials.append(Trial(Holding(evidence, templates), SETS[place]))
    return trials


class TestLabelInference(ReconstructionContract):
    def attack(self) -> LabelInference:
        return LabelInference()

    def leaking(self, rng: np.random.Generator) -> list[Trial[Any, Any]]:
        return list(made_up(rng, 0.5))

    def silent(self, rng: np.random.Generator) -> list[Trial[Any, Any]]:
        return list(made_up(rng, 0.0))


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with one_thread():
        yield


def inferred(masked: Deployment, labels: int, many: int = 40) -> Recovery:
    rng = np.random.default_rng(1)
    cohort = Cohort.of(masked, rng)
    templates = cohort.templates(masked.mask or largest_coordinates(0.1), labels, rng)
    trials = cohort.trials(Way("", masked), cohort.victims(labels, many, rng), templates, rng)
    return measure_reconstruction(LabelInference(), trials, rng, "label sets")


def test_quality_is_the_jaccard_index_of_two_sets() -> None:
    attack = LabelInference()
    assert attack.quality(frozenset({1, 2}), frozenset({2, 1})) == 1
    assert attack.quality(frozenset({1, 2}), frozenset({2, 3})) == 1 / 3
    assert attack.quality(frozenset({1}), frozenset({2})) == 0


def test_where_nothing_is_known_every_set_is_guessed() -> None:
    view = Holding(np.full(300, 12.0), {labels: np.random.default_rng(0).random(300) for labels in SETS})
    assert {LabelInference().guess(view, np.random.default_rng(seed)) for seed in range(100)} == set(SETS)


@pytest.mark.parametrize(("labels", "least"), [(1, 0.99), (2, 0.9)])
def test_top_k_masks_of_a_tenth_of_the_coordinates_name_labels(labels: int, least: float) -> None:
    found = inferred(MASKED.variant("top", mask=largest_coordinates(0.1)), labels)
    assert found.value >= least
    assert found.chance < 0.3


def test_masks_of_whole_units_name_the_label_too() -> None:
    assert inferred(MASKED, 1).value >= 0.95


@pytest.mark.parametrize("without", [PLAIN, UNIFORM], ids=["plain", "uniform"])
def test_where_nobody_prunes_labels_are_named_by_chance(without: Deployment) -> None:
    assert inferred(without, 1).p_value > 0.05


def test_counts_over_all_clients_hide_top_k_masks() -> None:
    secret = UNIFORM.variant("secret", mask=largest_coordinates(0.1), pruned=1 / 3)
    assert inferred(secret, 2).p_value > 0.05


def test_a_server_knows_of_a_mask_what_a_session_shows_it() -> None:
    cohort = Cohort.of(MASKED, np.random.default_rng(0))
    masks = MASKED.masks(cohort.model, cohort.updates, np.random.default_rng(0))
    seen = MASKED.exchange(cohort.updates, masks)
    for client in seen.declared:
        np.testing.assert_array_equal(known_of_mask(MASKED, masks, client) > 0, seen.declared[client] | (client > 3))
    hidden = MASKED.variant("hidden", mode="uniform")
    assert hidden.exchange(cohort.updates, masks).declared == {}
    held = np.sum([mask.coordinates for mask in masks.values()], axis=0) + 8
    at_least = known_of_mask(hidden, masks, 0)
    assert (at_least <= held).all()
    assert (at_least == held).mean() > 0.5
    np.testing.assert_array_equal(at_least, known_of_mask(hidden, masks, 1))


def test_clients_are_made_up_with_as_many_labels_as_asked() -> None:
    cohort = Cohort.of(PLAIN, np.random.default_rng(0))
    assert {len(one.labels) for one in cohort.victims(2, 20, np.random.default_rng(0))} == {2}
    assert [len(one.labels) for one in cohort.own_clients()] == [1] * 12
    assert set(cohort.templates(largest_coordinates(0.1), 1, np.random.default_rng(0))) == {
        frozenset({label}) for label in range(10)
    }
