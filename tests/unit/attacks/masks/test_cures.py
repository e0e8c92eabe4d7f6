from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from attacks.digits import deployment
from attacks.masks import cures
from attacks.masks.clients import Cohort
from attacks.masks.cures import Price, Way, flip, flipped, price, voted, ways
from attacks.protections import side_by_side
from attacks.rules import largest_coordinates
from protocols.training import one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN, UNIFORM, MASKED, _ = side_by_side(deployment())
TOP = MASKED.variant("top", mask=largest_coordinates(0.1))


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    with one_thread():
        return Cohort.of(MASKED, np.random.default_rng(0))


def test_a_bit_without_epsilon_is_a_coin_and_with_much_is_itself() -> None:
    assert flip(0) == 0.5
    assert flip(np.log(3)) == pytest.approx(0.25)
    assert flip(40) < 1e-17


@pytest.mark.parametrize("chosen", [MASKED, TOP], ids=["units", "coordinates"])
def test_randomised_response_flips_as_many_bits_as_it_says(cohort: Cohort, chosen: object) -> None:
    asked = MASKED if chosen is MASKED else TOP
    rng = np.random.default_rng(1)
    before = asked.masks(cohort.model, cohort.updates, rng)
    drawn = [flipped(1.0)(asked, cohort.model, cohort.updates, rng) for _ in range(10)]
    changed = np.mean([(one[client].held != before[client].held).mean() for one in drawn for client in before])
    assert changed == pytest.approx(flip(1.0), abs=0.04)
    assert {mask.kind for one in drawn for mask in one.values()} == {mask.kind for mask in before.values()}


@pytest.mark.parametrize("chosen", ["units", "coordinates"])
def test_a_vote_gives_all_that_prune_one_mask_that_says_nothing_of_them(cohort: Cohort, chosen: str) -> None:
    asked, rng = MASKED if chosen == "units" else TOP, np.random.default_rng(2)
    masks = voted(asked, cohort.model, cohort.updates, rng)
    assert len(masks) == 4
    assert len(set(masks.values())) == 1
    own = asked.masks(cohort.model, cohort.updates, rng)
    assert masks[0].density == pytest.approx(own[0].density, rel=0.05)
    swapped = {**cohort.updates, 0: cohort.updates[9]}
    assert voted(asked, cohort.model, swapped, rng) == masks


def test_where_everybody_prunes_everybody_votes_and_where_nobody_does_there_is_no_mask(cohort: Cohort) -> None:
    rng = np.random.default_rng(3)
    assert len(voted(MASKED.variant("all", pruned=1.0), cohort.model, cohort.updates, rng)) == 12
    assert voted(UNIFORM, cohort.model, cohort.updates, rng) == {}


def test_what_helps_depends_on_what_can_be_switched_on(cohort: Cohort) -> None:
    masks = list(MASKED.masks(cohort.model, cohort.updates, np.random.default_rng(4)).values())
    assert len(list(ways(MASKED, masks))) == 4
    assert len(list(ways(MASKED.variant("active", params=replace(MASKED.params, adversary="active")), masks))) == 3
    assert len(list(ways(MASKED.variant("secret", mode="uniform"), masks))) == 3


def test_a_price_is_bytes_and_accuracy_and_what_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cures, "ROUNDS", 1)
    before, secret = price(Way("", MASKED), 0), price(Way("", MASKED.variant("secret", mode="uniform")), 0)
    layout = MASKED.layout.size
    assert secret.upload == layout * 3
    assert before.upload == pytest.approx(3 * np.mean([held.sum() for held in before.held.values()]))
    clear = price(Way("", MASKED.variant("clear", mode="plain")), 0)
    assert clear.upload == pytest.approx(before.upload * 4 / 3)
    assert before.accuracy is not None
    np.testing.assert_array_equal(before.held[0], secret.held[0])
    assert "0% of what it trains" in secret.beside(before)


def test_what_nobody_asked_for_is_counted_among_what_is_held() -> None:
    before = Price({0: np.array([1, 1, 0, 0], bool)}, 8.0, 0.5)
    after = Price({0: np.array([1, 0, 1, 1], bool)}, 1200.0, 0.25)
    assert after.beside(before) == (
        "1,200 bytes of upload for a client that prunes instead of 8; 67% of what it trains is not what its own "
        "update asks for; 25% right after 15 rounds instead of 50% right after 15 rounds"
    )


def test_where_too_few_share_any_coordinate_there_is_no_accuracy() -> None:
    lonely = TOP.variant("lonely", params=replace(TOP.params, min_cohort=10), pruned=1.0, mode="uniform")
    alone = price(Way("", lonely), 0)
    assert alone.accuracy is None
    assert alone.beside(alone).endswith("nothing to release instead of nothing to release")
