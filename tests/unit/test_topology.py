"""Degree and threshold from settings and the size of a cohort, and settings from rates."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from secagg.errors import ParameterError, TooFewClientsError
from secagg.graph import COMPLETE_UP_TO, Demands
from secagg.params import Adversary, Params


def test_a_complete_graph_leaves_nothing_to_chance() -> None:
    wired = Params().topology(COMPLETE_UP_TO)
    assert (wired.degree, wired.failures) == (COMPLETE_UP_TO - 1, None)


def test_an_active_server_takes_more_neighbours_shares_and_survivors_than_one_that_follows_the_protocol() -> None:
    trusted, hostile = (
        Params.for_cohort(1000, 0.1, 0.05, adversary=adversary).topology(1000) for adversary in get_args(Adversary)
    )
    assert (trusted.degree, trusted.threshold, trusted.quorum, trusted.window_floor) == (36, 19, 0, 1)
    assert (hostile.degree, hostile.threshold) == (108, 75)
    assert trusted.degree < hostile.degree < 200
    assert 2 * hostile.threshold > hostile.degree + 1
    assert hostile.quorum == 526
    assert hostile.needed == 526
    assert 1 < hostile.window_floor < hostile.degree // 2


@pytest.mark.parametrize("adversary", get_args(Adversary))
def test_where_no_sparse_graph_suffices_everybody_masks_with_everybody(adversary: Adversary) -> None:
    wired = Params(corrupt=200, max_dropouts=30, adversary=adversary).topology(250)
    assert (wired.degree, wired.window_floor, wired.failures) == (249, 0, None)


def test_somebody_who_sets_degree_and_threshold_may_bear_rounds_that_abort_but_no_risk_of_secrets() -> None:
    settings: dict[str, Any] = {"neighbours": 6, "corrupt": 2, "max_dropouts": 4, "adversary": "active"}
    with pytest.raises(ParameterError, match="neighbours 6 of 14 clients is too few for 4 dropouts and 2 corrupt"):
        Params(**settings).topology(14)
    wired = Params(**settings, share_threshold=5).topology(14)
    assert (wired.threshold, wired.window_floor) == (5, 3)
    assert wired.failures is not None
    assert wired.failures.starved > -20
    with pytest.raises(ParameterError, match="share_threshold 4 and 6 neighbours do not suit 4 dropouts and 2 corr"):
        Params(**settings, share_threshold=4).topology(14)
    with pytest.raises(ParameterError, match="share_threshold 5 and 4 neighbours do not suit 10 dropouts and 50 corr"):
        Params(adversary="active", neighbours=4, share_threshold=5, corrupt=50, max_dropouts=10).topology(100)


def test_in_a_sparse_graph_of_a_semi_honest_server_clients_that_leave_before_they_share_count_as_dropouts() -> None:
    params = Params(max_dropouts=100, corrupt=50)
    wired = params.topology(1000)
    assert wired.needed == 900
    assert params.dropouts_tolerated(950, wired.needed) == 50


def test_a_sparse_graph_comes_with_the_probabilities_that_it_promises() -> None:
    wired = Params(max_dropouts=30, corrupt=10).topology(300)
    demands = Demands(lost=30, corrupt=10)
    assert wired.degree < 299
    assert wired.failures is not None
    assert wired.failures == demands.failures(300, wired.degree, wired.threshold)
    assert demands.met_by(wired.failures)


@pytest.mark.parametrize(
    ("settings", "clients", "threshold"),
    [({}, 10, 6), ({}, 11, 6), ({"corrupt": 2}, 11, 7), ({"corrupt": 3}, 11, 8), ({"share_threshold": 9}, 11, 9)],
)
def test_with_an_active_server_twice_the_threshold_exceeds_holders_and_corrupt_ones(
    settings: dict[str, Any], clients: int, threshold: int
) -> None:
    params = Params(adversary="active", **settings)
    assert params.topology(clients).threshold == threshold
    assert 2 * threshold > clients + params.corrupt


@pytest.mark.parametrize(
    ("settings", "clients", "message"),
    [
        ({"adversary": "active", "share_threshold": 5}, 10, "share_threshold 5 < 6: 0 corrupt clients and a lying ser"),
        ({"corrupt": 4, "share_threshold": 4}, 10, "share_threshold 4 must exceed corrupt 4: raise it or leave it uns"),
        ({"share_threshold": 11}, 10, "share_threshold 11 exceeds the 10 share holders of a client"),
        (
            {"neighbours": 6, "max_dropouts": 0, "share_threshold": 2, "corrupt": 2},
            30,
            "share_threshold 2 and 6 neighbours do not suit 0 dro",
        ),
    ],
)
def test_a_threshold_that_breaks_a_promise_is_refused(settings: dict[str, Any], clients: int, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Params(**settings).topology(clients)


def test_a_sparse_graph_takes_a_threshold_below_the_number_of_corrupt_clients() -> None:
    """Of 50 corrupt clients, 18 neighbours of one client are all but impossible."""
    params = Params(corrupt=50, max_dropouts=100, share_threshold=18)
    assert params.topology(1000).threshold == 18


def test_a_threshold_alone_is_refused_where_rounds_would_abort() -> None:
    with pytest.raises(ParameterError, match="share_threshold 30 and 36 neighbours do not suit 100 dropouts and 50 c"):
        Params(corrupt=50, max_dropouts=100, share_threshold=30).topology(1000)
    assert Params(corrupt=50, max_dropouts=100, share_threshold=30, neighbours=36).topology(1000).threshold == 30


def test_rates_become_the_settings_of_a_cohort() -> None:
    params = Params.for_cohort(1000, 0.1, 0.05, min_cohort=5)
    assert (params.max_dropouts, params.corrupt, params.min_cohort) == (100, 50, 5)
    assert (params.neighbours, params.share_threshold) == (None, None)
    assert params.topology(1000).degree == 36
    assert params.topology(950).degree <= 40  # whoever shows up gets a graph of their own
    assert Params.for_cohort(30, 0.1).max_dropouts == 3
    assert Params.for_cohort(30, 0.101).max_dropouts == 4


def test_more_security_bits_take_more_neighbours() -> None:
    degrees = [Params.for_cohort(1000, 0.1, 0.05, security_bits=bits).topology(1000).degree for bits in (20, 40, 80)]
    assert degrees == sorted(set(degrees))


@pytest.mark.parametrize("rates", [(-0.1, 0.0), (1.0, 0.0), (0.1, -0.1), (0.1, 1.0)])
def test_rates_outside_their_domain_are_refused_by_name(rates: tuple[float, float]) -> None:
    with pytest.raises(ParameterError, match=r"(dropout|corrupt)_rate must be in \[0, 1\)"):
        Params.for_cohort(100, *rates)


def test_rates_that_no_cohort_of_this_size_bears_are_refused() -> None:
    with pytest.raises(ParameterError, match="survive 2 dropouts, not 5: lower dropout_rate, corrupt_rate or min_co"):
        Params.for_cohort(5, 0.9)
    with pytest.raises(TooFewClientsError):
        Params.for_cohort(2, 0.0)
