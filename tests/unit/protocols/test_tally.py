from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from protocols.sessions.tally import tally
from secagg.counts import bit_params
from secagg.errors import InputError, LayoutMismatchError, TooFewClientsError, UnknownClientError
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

SEED = bytes(32)


def random_bits(clients: int, length: int = 40) -> dict[Hashable, NDArray[np.bool_]]:
    draws = np.random.default_rng(clients)
    return {f"client-{number}": draws.random(length) < number / clients for number in range(clients)}


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("clients", [3, 7, 12])
def test_counts_are_the_exact_sums(encrypted: bool, clients: int) -> None:  # noqa: FBT001 - the case under test
    bits = random_bits(clients)
    counted = tally(bits, seed=SEED, encrypted=encrypted)
    assert counted.counts.dtype == np.int64
    assert np.array_equal(counted.counts, np.sum(list(bits.values()), axis=0, dtype=np.int64))
    assert counted.clients == tuple(bits)
    assert counted.length == 40


def test_extreme_counts_are_exact() -> None:
    bits: dict[Hashable, NDArray[np.bool_]] = {number: np.array([True, False]) for number in range(9)}
    assert tally(bits, seed=SEED).counts.tolist() == [9, 0]


def test_a_tally_is_shown_by_its_verdict() -> None:
    counted = tally(random_bits(4), encrypted=False)
    assert repr(counted) == f"Tally({counted.verdict!r})"


def test_counts_cannot_be_changed() -> None:
    counted = tally(random_bits(4), encrypted=False)
    with pytest.raises(ValueError, match="read-only"):
        counted.counts[0] = 1


@pytest.mark.parametrize("encrypted", [True, False])
def test_who_leaves_before_its_input_arrived_is_not_counted(encrypted: bool) -> None:  # noqa: FBT001 - as above
    bits = random_bits(8)
    gone: dict[Hashable, str] = {"client-7": "ShareKeys", "client-2": "AdvertiseKeys"}
    counted = tally(bits, dropouts=gone, seed=SEED, encrypted=encrypted)
    assert set(counted.clients) == set(bits) - set(gone)
    assert np.array_equal(counted.counts, np.sum([bits[client] for client in counted.clients], axis=0))


def test_a_bit_costs_two_bytes_and_everybody_is_charged() -> None:
    short, long = (tally(random_bits(5, length), seed=SEED) for length in (200, 300))
    assert {long.upload_bytes[client] - short.upload_bytes[client] for client in short.clients} == {200}
    assert set(short.download_bytes) == set(short.clients)
    assert "client masked_input" in short.seconds


def test_the_thresholds_of_the_session_hold() -> None:
    params = Params(min_cohort=5)
    with pytest.raises(TooFewClientsError, match="min_cohort"):
        tally(random_bits(4), params=params)
    with pytest.raises(TooFewClientsError):
        tally(random_bits(4), params=params, encrypted=False)
    with pytest.raises(TooFewClientsError):
        tally(
            random_bits(6), params=Params(max_dropouts=1), dropouts=dict.fromkeys(("client-1", "client-2"), "ShareKeys")
        )


def test_a_session_against_an_active_server_counts_the_same() -> None:
    bits = random_bits(5)
    counted = tally(bits, params=Params(adversary="active"), seed=SEED)
    assert np.array_equal(counted.counts, np.sum(list(bits.values()), axis=0))
    assert "an active server" in counted.verdict


def test_the_settings_of_an_update_do_not_reach_the_bits() -> None:
    given = Params(
        min_cohort=4,
        max_dropouts=2,
        corrupt=1,
        participation=0.9,
        value_range={"w": 0.1},
        out_of_range="saturate",
        weighting="average",
        exact_denominators=True,
    )
    kept = bit_params(given)
    assert (kept.min_cohort, kept.max_dropouts, kept.corrupt, kept.adversary) == (4, 2, 1, "semi-honest")
    assert kept.magnitude == kept.range_of("bits") == 1
    bits = random_bits(9)
    assert np.array_equal(tally(bits, params=given, seed=SEED).counts, np.sum(list(bits.values()), axis=0))


def test_bits_that_do_not_fit_name_their_client() -> None:
    bits = random_bits(4)
    for wrong in (np.ones(39, bool), np.ones(40), np.ones((40, 1), bool)):
        with pytest.raises(LayoutMismatchError, match="client-2") as caught:
            tally({**bits, "client-2": wrong})  # type: ignore[dict-item]
        assert caught.value.culprits == ("client-2",)


def test_nothing_to_count_is_refused() -> None:
    with pytest.raises(InputError, match="no client"):
        tally({})
    with pytest.raises(InputError, match="no bit"):
        tally(random_bits(4, 0))
    with pytest.raises(UnknownClientError):
        tally(random_bits(4), dropouts={"stranger": "ShareKeys"})
