from __future__ import annotations

import numpy as np
import pytest

import secagg
from attacks import opened_weights
from secagg.errors import SecAggError

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
