from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.sessions.stragglers import TimeBins, decide, identify, slowest_of_the_rest
from secagg.errors import InputError, ParameterError, TooFewClientsError
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

SEED = bytes(32)
COARSE = TimeBins(fastest=0.1, slowest=1000, ratio=2)

histograms = st.lists(st.integers(0, 5), min_size=1, max_size=12).filter(any).map(np.array)
shares = st.sampled_from([0.05, 0.1, 0.2, 0.3, 0.5])
times = st.floats(1e-4, 1e7)


def stragglers_of(counts: NDArray[np.int64], share: float) -> list[int]:
    """The bins whose clients are stragglers."""
    return [number for number in np.flatnonzero(counts).tolist() if decide(number, counts, share)]


def named(seconds: list[float]) -> dict[Hashable, float]:
    return {f"client-{number}": time for number, time in enumerate(seconds)}


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([1] * 20, 0.2, [16, 17, 18, 19]),
        ([1] * 8, 0.2, [6, 7]),  # 1.6 clients: those with none and with one behind them
        ([1] * 10, 0.3, [7, 8, 9]),  # exactly 3, which 0.3 * 10 is not in floating point
        ([15, 5], 0.2, [1]),
        ([16, 4], 0.2, [1]),
        ([15, 1, 4], 0.2, [2]),  # four are behind the one in the middle, and four are not fewer than a fifth of 20
        ([16, 1, 3], 0.2, [1, 2]),
        ([20], 0.2, []),
        ([0, 20, 0], 0.2, []),
        ([10, 10], 0.5, []),  # no more than half is faster
        ([11, 9], 0.5, [1]),
        ([2, 3], 0.5, []),
        ([3, 2], 0.2, [1]),
    ],
)
def test_stragglers_are_the_slowest_share_and_slower_than_the_median(
    counts: list[int], share: float, expected: list[int]
) -> None:
    assert stragglers_of(np.array(counts), share) == expected


@given(histograms, shares)
def test_the_decision_follows_the_definition_on_sorted_clients(counts: NDArray[np.int64], share: float) -> None:
    clients = np.repeat(np.arange(len(counts)), counts)
    median = clients[len(clients) // 2]
    percent = round(100 * share)
    expected = sorted(
        {int(own) for own in clients if own > median and 100 * (clients > own).sum() < percent * len(clients)}
    )
    assert stragglers_of(counts, share) == expected


@given(histograms, shares)
def test_whoever_is_slower_than_a_straggler_is_one_and_they_are_a_minority(
    counts: NDArray[np.int64], share: float
) -> None:
    late = stragglers_of(counts, share)
    occupied = np.flatnonzero(counts).tolist()
    assert late == occupied[len(occupied) - len(late) :]
    assert 2 * counts[late].sum() < counts.sum()
    assert slowest_of_the_rest(counts, share) == max(set(occupied) - set(late))


@given(st.permutations(range(20)), shares)
def test_of_clients_with_different_times_the_share_is_rounded_up_to_whole_clients(
    order: list[int], share: float
) -> None:
    counts = np.zeros(60, np.int64)
    counts[np.array(order) * 3] = 1
    clients = math.ceil(round(100 * share) * 20 / 100)
    assert len(stragglers_of(counts, share)) == min(clients, 9)


@given(times)
def test_a_time_lies_between_the_edges_of_its_bin(seconds: float) -> None:
    bins = TimeBins()
    own = bins.bin_of(seconds)
    if own > 0:
        assert bins.edges[own] <= seconds
    if own < len(bins.edges) - 1:
        assert seconds < bins.edges[own + 1]
    assert bins.one_hot(seconds).sum() == bins.one_hot(seconds)[own] == 1


def test_the_bins_cover_the_range_and_are_as_wide_as_said() -> None:
    bins = TimeBins()
    assert bins.edges[0] == 1e-3
    assert bins.edges[-1] < 1e6 <= bins.edges[-1] * 1.02
    np.testing.assert_allclose(np.diff(np.log(bins.edges)), math.log(1.02), rtol=1e-6)
    assert bins.bin_of(1e-9) == 0
    assert bins.bin_of(1e9) == len(bins.edges) - 1


@pytest.mark.parametrize("encrypted", [True, False])
def test_the_histogram_is_exact(encrypted: bool) -> None:  # noqa: FBT001 - the case under test
    seconds = np.random.default_rng(0).lognormal(1, 0.6, 12).tolist()
    found = identify(named(seconds), seed=SEED, encrypted=encrypted)
    bins = TimeBins()
    expected = np.bincount([bins.bin_of(time) for time in seconds], minlength=len(bins.edges))
    assert np.array_equal(found.tally.counts, expected)
    slowest = sorted(range(12), key=seconds.__getitem__)[-3:]  # 2.4 of 12 clients
    assert found.stragglers == tuple(f"client-{number}" for number in sorted(slowest))


def test_encryption_changes_nothing_but_the_bytes() -> None:
    seconds = named([1.0, 9.0, 1.1, 1.2, 5.0, 1.3])
    secure, plain = (identify(seconds, seed=SEED, encrypted=encrypted) for encrypted in (True, False))
    assert secure.stragglers == plain.stragglers == ("client-1", "client-4")
    assert secure.deadline == plain.deadline
    assert secure.share == plain.share == 0.2
    assert np.array_equal(secure.tally.counts, plain.tally.counts)
    assert secure.tally.upload_bytes["client-0"] > plain.tally.upload_bytes["client-0"]


def test_equally_slow_clients_are_all_stragglers() -> None:
    found = identify(named([10.0] * 5 + [1.0] * 15), encrypted=False)
    assert found.stragglers == tuple(f"client-{number}" for number in range(5))
    assert found.deadline <= 1.0 < found.deadline * 1.02


def test_where_all_are_equal_nobody_is_a_straggler() -> None:
    found = identify(named([3.0] * 6), encrypted=False)
    assert found.stragglers == ()
    assert found.deadline <= 3.0 < found.deadline * 1.02


@given(st.lists(st.floats(1e-3, 1e6), min_size=3, max_size=12), shares)
def test_a_straggler_that_meets_the_deadline_is_no_slower_than_the_slowest_of_the_rest(
    seconds: list[float], share: float
) -> None:
    clients = named(seconds)
    found = identify(clients, share=share, encrypted=False)
    rest = max(time for client, time in clients.items() if client not in found.stragglers)
    assert found.deadline <= rest
    assert all(clients[straggler] > rest for straggler in found.stragglers)


def test_times_beyond_the_bins_count_in_the_outermost() -> None:
    found = identify(named([0.001, 0.01, 0.2, 0.2, 5000.0]), bins=COARSE, encrypted=False)
    assert found.tally.counts[1] == 2
    assert found.tally.counts[0] == 2
    assert found.tally.counts[-1] == 1
    assert found.stragglers == ("client-4",)
    assert found.deadline == 0.2


def test_who_drops_out_is_not_counted_and_decides_nothing() -> None:
    seconds = named([1.0, 1.0, 1.0, 1.0, 1.0, 9.0, 99.0])
    found = identify(seconds, bins=COARSE, dropouts={"client-6": "ShareKeys"}, seed=SEED)
    assert found.tally.counts.sum() == 6
    assert found.stragglers == ("client-5",)


@pytest.mark.parametrize("time", [0.0, -1.25, math.inf, math.nan])
def test_a_time_that_is_none_names_its_client_and_not_the_value(time: float) -> None:
    with pytest.raises(InputError, match="client-1: a time must be positive and finite") as caught:
        identify(named([1.0, time, 1.0]))
    assert caught.value.culprits == ("client-1",)
    assert str(time) not in str(caught.value)


def test_too_few_clients_are_refused() -> None:
    with pytest.raises(TooFewClientsError, match="min_cohort"):
        identify(named([1.0, 2.0, 3.0]), params=Params(min_cohort=4))


@pytest.mark.parametrize("share", [0.0, -0.1, 0.51, math.nan])
def test_a_share_outside_its_domain_is_refused(share: float) -> None:
    with pytest.raises(ParameterError, match="share"):
        identify(named([1.0, 2.0, 3.0]), share=share)
    with pytest.raises(ParameterError, match="share"):
        decide(0, np.array([3]), share)


def test_a_histogram_without_clients_has_no_deadline() -> None:
    with pytest.raises(InputError, match="no client"):
        slowest_of_the_rest(np.zeros(4, np.int64))


def test_bins_that_are_none_are_refused() -> None:
    for fastest, slowest in ((0.0, 1.0), (1.0, 1.0), (1.0, math.inf)):
        with pytest.raises(ParameterError, match="fastest"):
            TimeBins(fastest=fastest, slowest=slowest)
    for ratio in (1.0, 0.5, math.nan, math.inf):
        with pytest.raises(ParameterError, match="ratio"):
            TimeBins(ratio=ratio)
