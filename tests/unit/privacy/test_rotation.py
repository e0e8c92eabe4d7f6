"""The public rotation: orthogonal, undone exactly, flat; and sessions whose vectors are rotated."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import hadamard

from protocols.aggregators import FixedPoint
from secagg import Params, Privacy, PrivacyBudget, simulate
from secagg.errors import ParameterError
from secagg.layout import Layout, Tensor
from secagg.privacy.events import SkellamSum
from secagg.privacy.rotation import padded, restore, rotate
from tests.properties.noise_laws import check_sample, room_for, share_law

if TYPE_CHECKING:
    from protocols.aggregators import Client

KEY = bytes(range(16))
PRIVACY = Privacy(clip=1.0, noise_multiplier=0.05, ring_bits=16, rotate=True)
PARAMS = Params(min_cohort=3, max_dropouts=2, privacy=PRIVACY)
CLIENTS, SIZE = 6, 3000


def test_lengths_are_the_next_power_of_two() -> None:
    assert [padded(size) for size in (1, 2, 3, 4, 5, 1000, 1024)] == [1, 2, 4, 4, 8, 1024, 1024]


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_the_transform_is_hadamards_after_random_signs(size: int) -> None:
    columns = np.array([rotate(one, KEY) for one in np.eye(size)]).T * math.sqrt(size)
    signs = columns[0]  # the first row of Hadamard's matrix is all ones
    assert set(np.round(signs, 9)) <= {1.0, -1.0}
    assert columns == pytest.approx(hadamard(size) * signs)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=70))
def test_norms_stay_and_the_way_back_is_exact(values: list[float]) -> None:
    vector = np.array(values)
    rotated = rotate(vector, KEY)
    assert len(rotated) == padded(len(vector))
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(vector))
    assert restore(rotated, len(vector), KEY) == pytest.approx(vector, abs=1e-6)


def test_one_large_coordinate_is_spread_over_all() -> None:
    spike = np.zeros(1024)
    spike[17] = 1.0
    assert np.abs(rotate(spike, KEY)) == pytest.approx(np.full(1024, 1 / 32))


def test_another_key_is_another_rotation() -> None:
    vector = np.arange(64.0)
    assert not np.allclose(rotate(vector, KEY), rotate(vector, bytes(16)))


# ---------------------------------------------------------------------------------- in sessions


def updates() -> dict[int, dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]]:
    rng = np.random.default_rng(1)
    drawn = {client: rng.normal(size=SIZE) for client in range(CLIENTS)}
    return {client: {"w": 0.9 * vector / np.linalg.norm(vector)} for client, vector in drawn.items()}


@pytest.mark.parametrize("dropped", [0, 2])
@pytest.mark.parametrize("remove_surplus", [False, True])
def test_a_rotated_sum_is_the_sum_with_the_promised_noise(*, dropped: int, remove_surplus: bool) -> None:
    own = updates()
    privacy = replace(PRIVACY, remove_surplus=remove_surplus)
    result = simulate(
        own,
        params=replace(PARAMS, privacy=privacy),
        dropouts=dict.fromkeys(range(dropped), "ShareKeys"),
        seed=dropped,
    )
    true = np.sum([own[client]["w"] for client in range(dropped, CLIENTS)], axis=0)
    assert result.sum["w"].std() > 0
    error = result.sum["w"] - true
    event, shares = result.aggregate.event, result.aggregate.plan.shares
    assert isinstance(event, SkellamSum)
    assert shares is not None
    promised = math.sqrt(event.variance) / shares.scale
    assert error.std() == pytest.approx(promised, rel=7 / math.sqrt(2 * SIZE))
    assert event.dimension == len(result.aggregate.integers) == padded(SIZE)


def test_the_integers_carry_noise_everywhere_in_padding_too() -> None:
    zeros = {client: {"w": np.zeros(SIZE)} for client in range(CLIENTS)}
    aggregate = simulate(zeros, params=PARAMS, seed=1).aggregate
    assert isinstance(aggregate.event, SkellamSum)
    variance = aggregate.event.variance
    check_sample(aggregate.integers, share_law("skellam", variance, room_for(math.sqrt(variance))))


def test_each_session_is_rotated_in_its_own_way() -> None:
    keys = {simulate(updates(), params=PARAMS).aggregate.plan.shares.rotation for _ in range(3)}  # type: ignore[union-attr]
    assert len(keys) == 3


def test_the_twin_in_the_clear_rotates_too() -> None:
    layout = Layout((Tensor("w", (SIZE,), "float64"),))
    own: dict[Client, dict[str, torch.Tensor]] = {
        client: {"w": torch.from_numpy(one["w"])} for client, one in updates().items()
    }
    mean = FixedPoint(layout, PARAMS).aggregate(own).vector
    assert np.linalg.norm(mean - np.mean([one["w"] for one in updates().values()], axis=0)) < 1


def test_declared_masks_cannot_be_rotated() -> None:
    with pytest.raises(ParameterError, match="rotate leaves no coordinates to declare"):
        simulate(updates(), params=PARAMS, mode="mask-indexed")


def test_a_narrow_ring_needs_less_noise_for_rotated_vectors() -> None:
    plain, rotated = (
        PrivacyBudget(epsilon=8, ring_bits=16, rotate=rotate).privacy(
            Params(), rounds=10, clients=100, coordinates=2**18
        )
        for rotate in (False, True)
    )
    assert rotated.noise_multiplier < 0.9 * plain.noise_multiplier
