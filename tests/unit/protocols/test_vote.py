from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.sessions.tally import Tally
from protocols.sessions.vote import Vote, VoteThresholds, vote, voted_mask
from pruning.fluid import invariant_units
from secagg.declaration import Provenance
from secagg.errors import InputError, LayoutMismatchError, ParameterError, TooFewClientsError
from secagg.layout import Layout, Tensor
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

SEED = bytes(32)
LAYOUT = Layout(
    (
        Tensor("first.weight", (6, 2), unit_axes={0: tuple(range(6))}),
        Tensor("second.weight", (4, 6), unit_axes={0: (6, 7, 8, 9), 1: tuple(range(6))}),
    ),
    {"first": 6, "second": 4},
)
UNITS = LAYOUT.unit_count


def random_bits(voters: int) -> dict[Hashable, NDArray[np.bool_]]:
    draws = np.random.default_rng(voters)
    return {f"client-{number}": draws.random(UNITS) < 0.6 for number in range(voters)}


def ended(counts: Sequence[int], voters: int = 20, layout: Layout = LAYOUT) -> Vote:
    """A vote with these counts."""
    clients = tuple(range(voters))
    return Vote(layout, Tally(np.array(counts, np.int64), clients, {}, {}, {}, "made up"))


counts_of_twenty = st.lists(st.integers(0, 20), min_size=UNITS, max_size=UNITS)
keeps = st.sampled_from([0.1, 0.25, 0.5, 0.65, 0.75, 0.85, 0.95, 1.0])


@pytest.mark.parametrize("encrypted", [True, False])
def test_the_votes_are_the_exact_sums(encrypted: bool) -> None:  # noqa: FBT001 - the case under test
    bits = random_bits(9)
    result = vote(LAYOUT, bits, seed=SEED, encrypted=encrypted)
    assert np.array_equal(result.tally.counts, np.sum(list(bits.values()), axis=0))
    assert result.voters == 9


def test_an_encrypted_vote_and_a_plain_one_give_the_same_public_mask() -> None:
    bits = random_bits(8)
    secure, plain = (vote(LAYOUT, bits, seed=SEED, encrypted=encrypted) for encrypted in (True, False))
    masks = [voted_mask(LAYOUT, one.tally.counts, 0.5) for one in (secure, plain)]
    assert masks[0] == masks[1]
    assert masks[0].provenance is Provenance.PUBLIC
    assert np.array_equal(secure.invariant(), plain.invariant())


def test_who_drops_out_has_not_voted() -> None:
    bits = random_bits(8)
    result = vote(LAYOUT, bits, dropouts={"client-0": "ShareKeys"}, seed=SEED)
    assert result.voters == 7
    assert np.array_equal(result.tally.counts, np.sum([bits[f"client-{n}"] for n in range(1, 8)], axis=0))


def test_exactly_three_quarters_are_a_quorum() -> None:
    result = ended([14, 15, 16, 0, 20, 15, 14, 14, 15, 1])
    assert np.flatnonzero(result.invariant()).tolist() == [1, 2, 4, 5, 8]


def test_units_with_the_most_votes_are_dropped_and_of_equal_ones_the_last() -> None:
    mask = voted_mask(LAYOUT, np.array([3, 9, 3, 9, 3, 3, 7, 7, 7, 7]), 0.5)
    assert mask.held.tolist() == [True, False, True, False, True, False, True, True, False, False]


@given(counts_of_twenty, keeps)
def test_no_dropped_unit_has_fewer_votes_than_a_kept_one_of_its_group(counts: list[int], keep: float) -> None:
    held = voted_mask(LAYOUT, np.array(counts), keep).held
    for group in LAYOUT.unit_groups:
        votes, kept = np.array(counts)[LAYOUT.units_of(group)], held[LAYOUT.units_of(group)]
        assert votes[kept].max() <= votes[~kept].min(initial=20)


@given(counts_of_twenty, keeps, keeps)
def test_masks_at_different_keep_ratios_are_nested(counts: list[int], one: float, other: float) -> None:
    smaller, larger = (voted_mask(LAYOUT, np.array(counts), keep) for keep in sorted((one, other)))
    assert not (smaller.held & ~larger.held).any()


def test_too_few_voters_are_refused() -> None:
    with pytest.raises(TooFewClientsError, match="min_cohort"):
        vote(LAYOUT, random_bits(4), params=Params(min_cohort=5))
    with pytest.raises(InputError, match="no client"):
        vote(LAYOUT, {})


def test_bits_of_another_layout_name_their_voter() -> None:
    with pytest.raises(LayoutMismatchError, match="client-1: 10 units") as caught:
        vote(LAYOUT, {**random_bits(4), "client-1": np.ones(9, bool)})
    assert caught.value.culprits == ("client-1",)


def test_a_threshold_rises_falls_or_rests_by_the_votes_of_its_group() -> None:
    rule = VoteThresholds(start=2.0, rise=1.5, fall=1.25)
    start = rule.initial(LAYOUT)
    assert start == {"first": 2.0, "second": 2.0}
    # At keep 2/3 two of the first group are to be dropped and one of the second.
    too_few = ended([20, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    assert rule.moved(start, too_few, 2 / 3) == {"first": 3.0, "second": 3.0}
    enough = ended([20, 20, 15, 15, 0, 0, 20, 15, 14, 0])
    assert rule.moved(start, enough, 2 / 3) == start
    too_many = ended([20, 20, 15, 15, 15, 0, 20, 15, 15, 0])
    assert rule.moved(start, too_many, 2 / 3) == {"first": 1.6, "second": 1.6}


def test_a_whole_group_of_invariant_units_is_too_many_however_many_are_to_be_dropped() -> None:
    rule = VoteThresholds(start=2.0, fall=1.25)
    moved = rule.moved(rule.initial(LAYOUT), ended([20] * 6 + [20, 20, 20, 0]), 0.3)
    assert moved == {"first": 1.6, "second": 2.0}


def test_where_nothing_is_to_be_dropped_thresholds_rest() -> None:
    rule = VoteThresholds()
    assert rule.moved(rule.initial(LAYOUT), ended([20] * UNITS), 1.0) == rule.initial(LAYOUT)


def test_thresholds_are_plain_data() -> None:
    rule = VoteThresholds()
    moved = rule.moved(rule.initial(LAYOUT), ended([0] * UNITS), 0.5)
    assert json.loads(json.dumps(moved)) == moved == {"first": 1.5, "second": 1.5}


@pytest.mark.parametrize("scale", [0.01, 1.0, 200.0])
def test_thresholds_come_to_rest_where_enough_units_are_invariant(scale: float) -> None:
    layout = Layout((Tensor("wide.weight", (64, 1), unit_axes={0: tuple(range(64))}),), {"wide": 64})
    draws, rule, keep = np.random.default_rng(0), VoteThresholds(), 0.75
    typical = draws.lognormal(0, 0.7, 64) * scale
    scores = [typical * draws.lognormal(0, 0.2, 64) for _ in range(8)]
    thresholds: dict[str, float] = rule.initial(layout)
    for _ in range(80):
        counts = np.sum([invariant_units(layout, one, thresholds) for one in scores], axis=0)
        result = ended(counts.tolist(), 8, layout)
        thresholds, before = rule.moved(thresholds, result, keep), thresholds
    assert thresholds == before
    assert 16 <= result.invariant().sum() <= 32


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"quorum": 0.0}, "quorum"), ({"start": 0.0}, "start"), ({"rise": 1.0}, "rise"), ({"fall": 0.9}, "fall")],
)
def test_settings_outside_their_domain_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        VoteThresholds(**setting)


def test_thresholds_of_other_groups_are_refused() -> None:
    with pytest.raises(ParameterError, match="first, second"):
        VoteThresholds().moved({"first": 1.0}, ended([0] * UNITS), 0.5)
