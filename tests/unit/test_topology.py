"""Degree and threshold from settings and the size of a cohort, and settings from rates."""

from __future__ import annotations

from typing import Any

import pytest

from secagg.errors import ParameterError, TooFewClientsError
from secagg.graph import COMPLETE_UP_TO, Demands
from secagg.params import Params


def test_a_complete_graph_leaves_nothing_to_chance() -> None:
    wired = Params().topology(COMPLETE_UP_TO)
    assert (wired.degree, wired.failures) == (COMPLETE_UP_TO - 1, None)


def test_against_an_active_server_everybody_masks_with_everybody() -> None:
    assert Params(adversary="active").topology(300).degree == 299
    with pytest.raises(ParameterError, match="an active server calls for the complete graph: leave neighbours unset"):
        Params(adversary="active", neighbours=100).topology(300)


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
        ({"neighbours": 6, "max_dropouts": 0, "share_threshold": 2, "corrupt": 2}, 30, "does not suit 6 .*: set 4, or"),
    ],
)
def test_a_threshold_that_breaks_a_promise_is_refused(settings: dict[str, Any], clients: int, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Params(**settings).topology(clients)


def test_a_sparse_graph_takes_a_threshold_below_the_number_of_corrupt_clients() -> None:
    """Of 50 corrupt clients, 18 neighbours of one client are all but impossible."""
    params = Params(corrupt=50, max_dropouts=100, share_threshold=18)
    assert params.topology(1000).threshold == 18


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
    with pytest.raises(ParameterError, match="no sparse graph"):
        Params.for_cohort(300, 0.1, 0.5)
    with pytest.raises(TooFewClientsError):
        Params.for_cohort(2, 0.0)
