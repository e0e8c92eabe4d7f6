"""What parties agree on before a session: contradictions, digest, topology."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from secagg import graph
from secagg.errors import ParameterError, TooFewClientsError
from secagg.layout import Layout, Tensor
from secagg.params import Params
from secagg.session import CountedCoverage, Session

LAYOUT = Layout((Tensor("w", (4,)),))
COUNTED = CountedCoverage(frozenset({0, 1, 2}), np.full(4, 3, np.int32))
SESSION = Session(id=bytes(16), params=Params(), layout=LAYOUT, mode="uniform")
SEED = bytes(32)


def with_params(**settings: Any) -> Session:
    return replace(SESSION, params=Params(**settings))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": bytes(15)}, "a session id has 16 bytes"),
        ({"mode": "masked"}, "mode must be 'uniform' or 'mask-indexed', not 'masked'"),
        ({"mode": "mask-indexed", "counted": COUNTED}, "takes its coverage from the declarations"),
        ({"mode": "mask-indexed", "params": Params(exact_denominators=True)}, "exact_denominators belongs to uniform"),
        ({"weighted": True, "params": Params(weighting="public")}, "a uniform session hides weights"),
        ({"params": Params(value_range={"v": 1.0})}, "value_range has no entry for w"),
        ({"counted": COUNTED, "params": Params(adversary="active")}, "counts come from the server, and an active one"),
        ({"model_root": bytes(31)}, "model_root must be empty or have 32 bytes"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ParameterError, match=reason):
        replace(SESSION, **changes)


def test_public_weighting_is_no_contradiction_where_nothing_is_weighted() -> None:
    assert not replace(SESSION, params=Params(weighting="public")).weighted


def test_another_value_of_any_field_gives_another_digest() -> None:
    others: list[dict[str, Any]] = [
        {"id": b"\x01" * 16},
        {"params": Params(min_cohort=4)},
        {"layout": Layout((Tensor("v", (4,)),))},
        {"mode": "mask-indexed"},
        {"weighted": True},
        {"counted": COUNTED},
        {"counted": replace(COUNTED, clients=frozenset({0, 1, 3}))},
        {"counted": replace(COUNTED, least=np.array([3, 3, 3, 2], np.int32))},
        {"model_root": bytes(32)},
        {"context": b"\0"},
        {"model_root": bytes(32), "context": bytes(32)},
    ]
    digests = {SESSION.digest, *(replace(SESSION, **changes).digest for changes in others)}
    assert len(digests) == len(others) + 1
    assert replace(SESSION).digest == SESSION.digest


@pytest.mark.parametrize(
    ("settings", "clients", "threshold"),
    [
        ({}, 9, 5),  # a majority
        ({}, 4, 3),
        ({}, 3, 2),
        ({"max_dropouts": 7}, 10, 3),  # what the dropouts leave, if less
        ({"max_dropouts": 7, "corrupt": 1}, 10, 4),
        ({"corrupt": 6}, 10, 7),  # above the number of colluders
        ({"min_cohort": 2}, 2, 2),  # never a single holder
        ({"share_threshold": 4}, 9, 4),
    ],
)
def test_the_share_threshold_follows_from_cohort_and_settings(
    settings: dict[str, Any], clients: int, threshold: int
) -> None:
    joined, wired = with_params(**settings).topology(range(clients), SEED)
    assert wired.threshold == threshold
    assert joined.degree == clients - 1


def test_a_small_cohort_gets_the_complete_graph_and_a_large_uniform_one_a_sparse_graph() -> None:
    complete, _ = SESSION.topology(range(graph.COMPLETE_UP_TO), SEED)
    assert complete.degree == graph.COMPLETE_UP_TO - 1
    session = with_params(max_dropouts=30)
    sparse, wired = session.topology(range(300), SEED)
    assert (sparse.degree, wired.threshold) == graph.smallest_degree(300, graph.Demands(lost=30, corrupt=0))
    assert sparse == session.topology(range(300), SEED)[0]
    assert sparse.order != session.topology(range(300), b"\x01" * 32)[0].order


def test_a_large_mask_indexed_cohort_stays_complete() -> None:
    joined, wired = replace(SESSION, mode="mask-indexed").topology(range(250), SEED)
    assert (joined.degree, wired.threshold) == (249, 126)


def test_the_degree_can_be_set() -> None:
    joined, wired = with_params(neighbours=6, max_dropouts=0).topology(range(20), SEED)
    assert (joined.degree, wired.threshold) == (6, 4)
    joined, wired = with_params(neighbours=6).topology(range(5), SEED)
    assert (joined.degree, wired.threshold) == (4, 3)


def test_a_degree_too_low_for_the_dropouts_is_refused() -> None:
    with pytest.raises(ParameterError, match="neighbours 6 of 20 clients is too few for 6 dropouts and 1 corrupt cl"):
        with_params(neighbours=6, corrupt=1).topology(range(20), SEED)


def test_a_sparse_graph_is_refused_where_masks_are_declared() -> None:
    session = replace(SESSION, mode="mask-indexed", params=Params(neighbours=6))
    with pytest.raises(ParameterError, match="needs the complete graph: leave neighbours unset, or shard"):
        session.topology(range(20), SEED)
    assert session.topology(range(7), SEED)[0].degree == 6


def test_more_shares_than_holders_are_refused() -> None:
    with pytest.raises(ParameterError, match="share_threshold 8 and 6 neighbours do not suit 0 dropouts and 0 corr"):
        with_params(neighbours=6, max_dropouts=0, share_threshold=8).topology(range(20), SEED)
    with pytest.raises(ParameterError, match="share_threshold 6 exceeds the 5 share holders"):
        with_params(share_threshold=6).topology(range(5), SEED)


def test_too_small_a_cohort_is_named_with_its_floor_and_remedy() -> None:
    with pytest.raises(
        TooFewClientsError, match=r"4 clients < 5 \(min_cohort 3 \+ corrupt 2\): wait for more clients or lower min_c"
    ):
        with_params(corrupt=2).topology(range(4), SEED)
