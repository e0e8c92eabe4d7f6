"""What shards come to together: sums, weights, who is missing, what is said of it, and what it costs privacy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import declaration
from secagg.aggregate import Aggregate, decode
from secagg.combining import LostShard, combine, costliest
from secagg.declaration import Provenance
from secagg.errors import AbortError, InputError
from secagg.layout import Layout, Tensor
from secagg.messages import Participant
from secagg.params import Params
from secagg.privacy.calibrate import epsilon_after
from secagg.privacy.events import DiscreteGaussianSum, Event, Gaussian, NonPrivate, SkellamSum
from secagg.privacy.ledger import PrivacyLedger
from secagg.privacy.rdp import rdp, sampler_error
from secagg.privacy.settings import Privacy
from secagg.release import Plan
from secagg.session import Session
from secagg.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYOUT = Layout((Tensor("w", (3,)),))
TENTHS = Params(levels=21, value_range=1.0, max_dropouts=0, min_cohort=2)
"""A unit of a sum is a tenth."""
SESSION = Session(id=bytes(16), params=TENTHS, layout=LAYOUT, mode="mask-indexed")
NAN = float("nan")


def shard(
    first: int,
    masks: Sequence[str],
    integers: Sequence[int],
    session: Session = SESSION,
    *,
    survivors: tuple[int, ...] | None = None,
    provenance: Provenance = Provenance.PUBLIC,
) -> Aggregate:
    """What a shard of clients from ``first`` on released."""
    clients = tuple(range(first, first + len(masks)))
    held = [np.array([bit == "1" for bit in mask]) for mask in masks]
    declared = [declaration.of_coordinates(LAYOUT, one, provenance) for one in held]
    plan = Plan(session, 2, [Participant(*each, None) for each in zip(clients, declared, strict=True)])
    return decode(plan, survivors or clients, np.array(integers, np.int64))


def check(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_sums_and_weights_add_up_and_the_mean_is_over_all_survivors() -> None:
    """Six clients with 6 tenths each, and two with 10: a mean of 7, where the mean of both means would be 8."""
    combined = combine([shard(0, ["111"] * 6, [36, 36, 36]), shard(6, ["111"] * 2, [20, 20, 20])])
    check(combined.sum, [5.6] * 3)
    check(combined.weight, [8] * 3)
    check(combined.mean, [0.7] * 3)
    assert combined.total_weight == 8
    assert combined.survivors == tuple(range(8))
    assert combined.smallest_shard == combined.smallest_group == 2
    assert combined.released.all()
    assert combined.lost == ()
    assert combined.event is None


def test_a_coordinate_that_some_shards_withhold_is_a_sum_over_the_others() -> None:
    first = shard(0, ["111", "111", "100"], [30, 10, 8])
    second = shard(3, ["110", "110", "100"], [12, 6])
    third = shard(6, ["110", "110", "000"], [4, 2])
    combined = combine([first, second, third])
    check(combined.sum, [4.6, 1.8, 0.8])
    check(combined.weight, [8, 6, 2])
    check(combined.mean, [0.575, 0.3, 0.4])
    assert combined.released_by.tolist() == [3, 3, 1]
    assert combined.coverage is not None
    assert combined.coverage.tolist() == [8, 6, 2]
    assert combined.smallest_group == 2
    assert combined.smallest_shard == 3


def test_what_no_shard_releases_is_nan_without_weight() -> None:
    combined = combine([shard(0, ["110", "111"], [3, 3]), shard(2, ["011", "010", "110"], [6])])
    check(combined.sum, [0.3, 0.9, NAN])
    check(combined.mean, [0.15, 0.18, NAN])
    check(combined.weight, [2, 5, 0])
    assert combined.released.tolist() == [True, True, False]


def test_shards_that_aborted_are_left_out_with_their_clients_and_reasons() -> None:
    lost = LostShard(1, (4, 5), "too few")
    whole = [shard(0, ["111"] * 4, [4, 8, 12]), shard(6, ["111"] * 3, [3, 3, 3], survivors=(6, 8))]
    combined = combine([whole[0], lost, whole[1]])
    check(combined.sum, combine(whole).sum)
    assert combined.survivors == (0, 1, 2, 3, 6, 8)
    assert combined.lost == (lost,)
    assert [one.survivors for one in combined.shards] == [(0, 1, 2, 3), (6, 8)]


def test_nothing_to_add_up_is_an_abort_with_every_reason() -> None:
    with pytest.raises(AbortError, match="no shard released anything: shard 0: too few; shard 1: too late"):
        combine([LostShard(0, (1,), "too few"), LostShard(1, (2,), "too late")])
    with pytest.raises(AbortError, match="there is none"):
        combine([])


def test_a_client_in_two_shards_is_refused() -> None:
    one = shard(0, ["111"] * 3, [1, 1, 1])
    for other in (shard(2, ["111"] * 3, [1, 1, 1]), LostShard(1, (2, 7), "too few")):
        with pytest.raises(InputError, match="a client is in two shards"):
            combine([one, other])


@pytest.mark.parametrize(
    "changed",
    [
        {"params": replace(TENTHS, levels=41)},
        {"layout": Layout((Tensor("v", (3,)),))},
        {"mode": "uniform"},
        {"model_root": bytes(32)},
        {"context": b"another round"},
    ],
)
def test_sessions_that_are_no_round_are_refused(changed: dict[str, Any]) -> None:
    other = shard(3, ["111"] * 3, [1, 1, 1], replace(SESSION, **changed))
    with pytest.raises(InputError, match="the shards of a round differ"):
        combine([shard(0, ["111"] * 3, [1, 1, 1]), other])


def test_shards_are_added_as_they_come_and_not_kept() -> None:
    alive: list[int] = []

    class Counted(Aggregate):
        def __del__(self) -> None:
            alive.append(-1)

    def ends() -> Any:
        for number in range(5):
            one = shard(3 * number, ["111"] * 3, [1, 1, 1])
            alive.append(1)
            assert sum(alive) <= 2
            yield Counted(one.plan, one.survivors, one.integers, one.sum, one.weight, one.total_weight)

    check(combine(ends()).sum, [0.5] * 3)


def test_the_verdict_says_that_every_shard_is_seen() -> None:
    session = replace(SESSION, params=replace(TENTHS, corrupt=1))
    ends: list[Aggregate | LostShard] = [
        shard(0, ["111"] * 5, [1, 1, 1], session),
        LostShard(1, (5, 6, 7), "too few"),
        shard(8, ["110"] * 4, [1, 1], session, survivors=(8, 9, 10)),
    ]
    assert verdict(combine(ends)) == (
        "deployed, a semi-honest server colluding with up to 1 clients of each shard would learn of each of 2 random "
        "shards (1 more aborted) the mask-indexed sum over its survivors, 3 in the smallest shard and 8 in all, at "
        "every coordinate that it releases over at least 3 of them, 33.3% of the coordinates are released by some of "
        "the shards only, every client's mask, and nothing else about any client; a client that lies inside the range "
        "is not noticed."
    )


def test_the_verdict_says_what_no_shard_releases_and_what_any_shard_shows_of_masks() -> None:
    text = verdict(combine([shard(0, ["111"] * 3, [1, 1, 1]), shard(3, ["111"] * 3, [1, 1, 1])]))
    assert "of each of 2 random shards the mask-indexed sum over its survivors, 3 in the smallest shard and 6" in text
    assert "no mask" in text
    assert "withheld" not in text
    assert "some of the shards" not in text
    text = verdict(combine([shard(0, ["111", "110"], [1, 1]), shard(2, ["110", "110"], [1, 1])]))
    assert "33.3% of the coordinates are withheld, every client's mask, and" in text
    whole, parts = (
        shard(0, ["111"] * 2, [1, 1, 1]),
        [shard(k, ["110"] * 2, [1, 1], provenance=Provenance.DATA) for k in (2, 4)],
    )
    assert "every client's mask (4 of them computed from data)" in verdict(combine([*parts, whole]))


NUMBERS = st.floats(0.1, 1e6)


@st.composite
def events(draw: st.DrawFn, mechanism: str) -> Event:
    l2, factor, variance = draw(NUMBERS), draw(st.floats(1, 100)), draw(NUMBERS)
    contributors = draw(st.integers(1, 50))
    if mechanism == "skellam":
        return SkellamSum(l1=l2 * factor, l2=l2, variance=variance, dimension=draw(st.integers(1, 1000)))
    return DiscreteGaussianSum(
        l1=l2 * factor,
        l2=l2,
        variance=variance,
        local_std=np.sqrt(variance / draw(st.floats(0.5, 1)) / contributors),
        contributors=contributors,
        dimension=draw(st.integers(1, 1000)),
        sampler_error=draw(st.floats(0, 1e-9)),
    )


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
@given(data=st.data())
def test_the_event_of_a_round_costs_no_less_than_any_shards_at_any_order(mechanism: str, data: st.DataObject) -> None:
    shards = data.draw(st.lists(events(mechanism), min_size=1, max_size=5))
    worst = costliest(shards)
    for one in shards:
        assert (rdp(worst) >= rdp(one)).all()
        assert sampler_error(worst) >= sampler_error(one)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
@pytest.mark.parametrize("ring_bits", [24, 32])
def test_for_shards_that_differ_by_a_few_survivors_the_bound_is_the_worst_of_them(
    mechanism: Any, ring_bits: int
) -> None:
    privacy = Privacy(clip=1, noise_multiplier=1, ring_bits=ring_bits, mechanism=mechanism)
    session = replace(SESSION, params=Params(privacy=privacy, max_dropouts=5))
    ends = [
        shard(0, ["111"] * 30, [0, 0, 0], session, survivors=tuple(range(25))),
        shard(100, ["111"] * 31, [0, 0, 0], session, survivors=tuple(range(100, 127))),
        shard(200, ["111"] * 31, [0, 0, 0], session),
    ]
    combined, alone = combine(ends), [epsilon_after(1, one.event, 1e-5) for one in ends if one.event is not None]
    assert combined.event is not None
    worst = epsilon_after(1, combined.event, 1e-5)
    assert max(alone) <= worst <= max(alone) * (1 + 1e-6)
    assert worst > min(alone)
    ledger = PrivacyLedger()
    ledger.record(combined.event)
    assert ledger.epsilon(1e-5) == worst
    assert f"of epsilon {worst:.3g} at delta 1e-05 for this round" in verdict(combined)


def test_shards_that_cost_the_same_cost_that() -> None:
    event = SkellamSum(l1=10, l2=3, variance=7, dimension=4)
    assert costliest([event, event]) == event


def test_a_shard_without_a_guarantee_leaves_the_round_without_one() -> None:
    noisy, bare = SkellamSum(l1=10, l2=3, variance=7, dimension=4), NonPrivate(reason="masks")
    assert costliest([noisy, bare]) == bare
    unlucky = costliest([noisy, replace_variance(noisy)])
    assert np.isinf(rdp(unlucky)).all()


def replace_variance(event: SkellamSum) -> SkellamSum:
    """The event if nobody had added noise."""
    return SkellamSum(l1=event.l1, l2=event.l2, variance=0, dimension=event.dimension)


def test_a_shard_that_broke_off_after_shares_were_out_costs_its_clients_all_the_same() -> None:
    session = replace(SESSION, params=Params(privacy=Privacy(clip=1, noise_multiplier=1), max_dropouts=1))
    whole = shard(0, ["111"] * 6, [0, 0, 0], session)
    assert combine([whole, LostShard(1, (7,), "too few")]).event == whole.event
    lost = LostShard(1, (7,), "too few", opened=True, event=NonPrivate(reason="unknown"))
    combined = combine([whole, lost])
    assert combined.event == lost.event
    assert "(1 more aborted, 1 of them when the server may have seen the sum)" in verdict(combined)


def test_a_round_of_which_nothing_is_left_still_says_what_it_cost() -> None:
    bare = NonPrivate(reason="unknown")
    lost = [LostShard(0, (6,), "too few"), LostShard(1, (7,), "too few", opened=True, event=bare)]
    with pytest.raises(AbortError) as raised:
        combine(lost)
    assert (raised.value.opened, raised.value.event) == (True, bare)
    with pytest.raises(AbortError) as raised:
        combine(lost[:1])
    assert (raised.value.opened, raised.value.event) == (False, None)


def test_events_of_different_mechanisms_are_no_round() -> None:
    with pytest.raises(InputError, match="different mechanisms"):
        costliest([SkellamSum(l1=1, l2=1, variance=7, dimension=4), Gaussian(noise_multiplier=1)])
