from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from protocols.sessions.averaging import LEVELS, averages, open_averages
from secagg.errors import InputError, LayoutMismatchError, NotFiniteError, ParameterError, TooFewClientsError
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Hashable

SEED = bytes(32)
RANGES = {"large": 4.0, "small": 1e-6}


def vectors(clients: int, seed: int = 0) -> dict[Hashable, dict[str, torch.Tensor]]:
    draws = torch.Generator().manual_seed(seed)
    return {
        f"client-{number}": {
            "large": torch.rand((3, 5), generator=draws, dtype=torch.float64) * 8 - 4,
            "small": (torch.rand(7, generator=draws) * 2 - 1) * 1e-6,
        }
        for number in range(clients)
    }


def mean_of(given: dict[Hashable, dict[str, torch.Tensor]], name: str) -> torch.Tensor:
    return torch.stack([one[name].double() for one in given.values()]).mean(dim=0)


@pytest.mark.parametrize("clients", [3, 8])
def test_the_mean_is_exact_to_a_step_of_each_range_and_the_same_bit_for_bit_under_encryption(clients: int) -> None:
    given = vectors(clients)
    secure, plain = (averages(given, ranges=RANGES, seed=SEED, encrypted=encrypted) for encrypted in (True, False))
    for name, limit in RANGES.items():
        assert torch.equal(secure.mean[name], plain.mean[name])
        assert secure.mean[name].dtype == torch.float64
        assert secure.mean[name].shape == given["client-0"][name].shape
        assert (secure.mean[name] - mean_of(given, name)).abs().max() <= limit / (LEVELS - 2)
    assert secure.clients == plain.clients == tuple(given)
    assert secure.length == plain.length == 22


def test_a_number_beyond_its_range_is_clipped() -> None:
    given: dict[Hashable, dict[str, torch.Tensor]] = {
        client: {"x": torch.tensor([1.0, -9.0, 5.0 if client else 0.0])} for client in range(4)
    }
    found = averages(given, ranges={"x": 2.0}, encrypted=False)
    assert torch.allclose(found.mean["x"], torch.tensor([1.0, -2.0, 1.5], dtype=torch.float64), atol=1e-6)


def test_vectors_that_share_memory_are_two() -> None:
    shared = torch.tensor([1.0, 2.0], dtype=torch.float64)
    given: dict[Hashable, dict[str, torch.Tensor]] = {client: {"a": shared, "b": shared} for client in range(4)}
    found = averages(given, ranges={"a": 2.0, "b": 2.0}, seed=SEED)
    assert found.length == 4
    assert torch.allclose(found.mean["a"], shared, atol=1e-6)
    assert torch.equal(found.mean["a"], found.mean["b"])


@pytest.mark.parametrize("encrypted", [True, False])
def test_who_leaves_before_its_input_arrived_is_not_in_the_mean(encrypted: bool) -> None:  # noqa: FBT001 - the case
    given = vectors(8)
    found = averages(given, ranges=RANGES, dropouts={"client-3": "ShareKeys"}, seed=SEED, encrypted=encrypted)
    del given["client-3"]
    assert found.clients == tuple(given)
    assert (found.mean["large"] - mean_of(given, "large")).abs().max() <= 1e-6


def test_a_number_costs_four_bytes_and_everybody_is_charged() -> None:
    given = vectors(5)
    short, long = (
        averages({client: {"x": torch.zeros(length)} for client in given}, ranges={"x": 1.0}, seed=SEED)
        for length in (100, 200)
    )
    assert {long.upload_bytes[client] - short.upload_bytes[client] for client in given} == {400}
    assert set(short.download_bytes) == set(given)
    assert "client masked_input" in short.seconds
    assert repr(short) == f"Averages({short.verdict!r})"


def test_what_numbers_weigh_on_the_wire_is_the_same_encrypted_or_not_keys_and_shares_aside() -> None:
    given = vectors(5)
    secure, plain = (averages(given, ranges=RANGES, seed=SEED, encrypted=encrypted) for encrypted in (True, False))
    assert secure.vector_bytes == plain.vector_bytes == 4 * 22
    assert set(plain.upload_bytes.values()) == {4 * 22}
    assert all(sent > 4 * 22 for sent in secure.upload_bytes.values())


def test_in_the_open_the_mean_is_exact_and_nobody_is_kept_from_it() -> None:
    given = vectors(2)  # fewer than any session would have
    found = open_averages(given)
    for name in RANGES:
        assert torch.equal(found.mean[name], mean_of(given, name))
        assert found.mean[name].dtype == torch.float64
    assert found.clients == tuple(given)
    assert found.length == 22
    assert set(found.upload_bytes.values()) == {found.vector_bytes} == {4 * 22}
    assert set(found.download_bytes.values()) == {0}
    assert "no encryption" in found.verdict


def test_in_the_open_too_clients_must_have_the_same_vectors() -> None:
    with pytest.raises(InputError, match="no client"):
        open_averages({})
    with pytest.raises(LayoutMismatchError, match="client-1"):
        open_averages({**vectors(3), "client-1": {"large": torch.zeros(3, 5)}})


def test_the_thresholds_hold_and_the_settings_of_an_update_do_not_reach_the_mean() -> None:
    params = Params(min_cohort=5, value_range=1e-9, levels=4, participation=0.9, weighting="average")
    for encrypted in (True, False):
        with pytest.raises(TooFewClientsError):
            averages(vectors(4), ranges=RANGES, params=params, seed=SEED, encrypted=encrypted)
    given = vectors(6)
    found = averages(given, ranges=RANGES, params=params, seed=SEED)
    assert (found.mean["large"] - mean_of(given, "large")).abs().max() <= 1e-6


def test_what_cannot_be_averaged_is_refused() -> None:
    given = vectors(4)
    with pytest.raises(InputError, match="no client"):
        averages({}, ranges={})
    with pytest.raises(InputError, match="nothing to average"):
        averages({0: {"x": torch.zeros(0)}}, ranges={"x": 1.0})
    with pytest.raises(ParameterError, match="small"):
        averages(given, ranges={"large": 4.0})
    with pytest.raises(ParameterError, match="value_range"):
        averages(given, ranges={**RANGES, "small": 0.0})
    for other in ({"large": torch.zeros(3, 5)}, {"large": torch.zeros(15), "small": torch.zeros(7)}):
        with pytest.raises(LayoutMismatchError, match="client-2") as caught:
            averages({**given, "client-2": other}, ranges=RANGES)
        assert caught.value.culprits == ("client-2",)
    bad = {"large": torch.full((3, 5), np.nan), "small": torch.zeros(7)}
    with pytest.raises(NotFiniteError, match="client-1"):
        averages({**given, "client-1": bad}, ranges=RANGES, encrypted=False)
