"""Clipping and conditional rounding: norms that hold for certain, and means that stay."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.prg import PIECE, SeededEntropy, Stream
from secagg.privacy import rounding
from secagg.privacy.rounding import ATTEMPTS, clipped, rounded, within
from secagg.privacy.scale import ring_scale
from secagg.privacy.sensitivity import rounded_sensitivity
from secagg.ring import Ring
from tests.properties.noise_laws import CHANCE, check_binomial

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST = 2**32 - 1
ANY_NORM = 1e9
EXTREMES = [1e308, 1e300, 1e154, 1.0, 1e-154, 1e-300, 5e-324]


def entropy(seed: str = "") -> SeededEntropy:
    return SeededEntropy(seed.encode())


# ---------------------------------------------------------------------------------- clipping


def test_a_vector_that_is_short_enough_stays_as_it_is() -> None:
    values = np.array([3.0, -4.0])
    for clip in (5.0, 6.0, 1e30):
        short, was_longer = clipped(values, clip)
        assert short.tolist() == [3, -4]
        assert not was_longer


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6),
    clip=st.floats(1e-6, 1e6),
    power=st.integers(-290, 290),
)
def test_a_longer_vector_keeps_its_direction_and_gets_the_norm(values: list[float], clip: float, power: int) -> None:
    given_ = np.array(values) * 10.0**power
    short, was_longer = clipped(given_, clip)
    exact = sum((Fraction(float(value)) ** 2 for value in given_), Fraction())
    assert sum(Fraction(float(value)) ** 2 for value in short) <= Fraction(clip) ** 2 * (1 + Fraction(1, 10**14))
    if was_longer:
        assert exact > Fraction(clip) ** 2 * (1 - Fraction(1, 10**14))
        expected = [
            float(Fraction(float(value)) / Fraction(math.isqrt(int(exact * 10**60)), 10**30)) for value in given_
        ]
        np.testing.assert_allclose(short, np.array(expected) * clip, rtol=1e-12, atol=clip * 1e-300)
    else:
        assert short is given_


@pytest.mark.parametrize("clip", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("value", EXTREMES)
def test_extreme_values_neither_overflow_nor_vanish(value: float, clip: float) -> None:
    short, was_longer = clipped(np.array([value, 0.0, -value, value, value]), clip)
    assert was_longer == (value > clip / 2)
    expected = clip / 2 if was_longer else value
    np.testing.assert_allclose(short, np.array([1, 0, -1, 1, 1]) * expected, rtol=1e-14)


@pytest.mark.parametrize("values", [[], [0.0], [0.0, -0.0, 0.0]])
def test_nothing_is_nothing_to_clip(values: list[float]) -> None:
    short, was_longer = clipped(np.array(values), 1e-30)
    assert short.tolist() == values
    assert not was_longer
    assert not rounded(short, 1.0, entropy()).any()


# ---------------------------------------------------------------------------------- the exact check


@given(
    integers=st.lists(
        st.integers(-LARGEST, LARGEST) | st.sampled_from([LARGEST, -LARGEST, 0]) | st.integers(-9, 9), max_size=40
    ),
    nudge=st.sampled_from([-1, 0, 1]),
)
def test_a_norm_is_compared_exactly_at_any_magnitude(integers: list[int], nudge: int) -> None:
    squares = sum(value**2 for value in integers)
    root = math.isqrt(squares)
    for norm in (float(root), float(root + 1), math.sqrt(squares), np.nextafter(math.sqrt(squares), nudge * math.inf)):
        if norm >= 0:
            assert within(np.array(integers, np.int64), norm) == (squares <= Fraction(float(norm)) ** 2)


def test_sums_of_squares_beyond_64_bits_do_not_wrap() -> None:
    integers = np.full(8, LARGEST)
    exact = Fraction(8 * LARGEST**2)
    just_below = math.sqrt(8) * LARGEST * (1 - 1e-15)
    assert Fraction(just_below) ** 2 < exact
    assert not within(integers, just_below)
    assert within(integers, just_below * (1 + 3e-15))
    assert not within(integers, math.sqrt((8 * LARGEST**2) % 2**64) + 1)


@pytest.mark.parametrize("dimension", [1, 10**6, 10**9, 10**12])
@pytest.mark.parametrize("clip", [1e-30, 1.0, 1e30])
def test_no_legal_setting_makes_integers_too_large_for_the_exact_check(clip: float, dimension: int) -> None:
    scale = ring_scale(64, 0.0, clients=2, clip=clip, dimension=dimension)
    assert clip * scale * (1 + 1e-12) <= LARGEST - 1


# ---------------------------------------------------------------------------------- rounding


@given(
    values=st.lists(st.floats(-50, 50), min_size=1, max_size=30),
    scale=st.sampled_from([1e-3, 0.3, 1.0, 1e3, 1e7]),
    seed=st.text(max_size=3),
)
def test_each_value_goes_to_a_neighbour_and_the_norm_holds_exactly(
    values: list[float], scale: float, seed: str
) -> None:
    scaled = np.array(values) * scale
    clip = float(np.linalg.norm(values)) or 1.0
    norm = rounded_sensitivity(clip, scale, len(values)).l2
    integers = rounded(scaled, norm, entropy(seed))
    assert integers.dtype == np.int64
    assert ((integers == np.floor(scaled)) | (integers == np.ceil(scaled))).all()
    assert sum(value**2 for value in integers.tolist()) <= Fraction(norm) ** 2
    assert integers.tolist() == rounded(scaled, norm, entropy(seed)).tolist()


@pytest.mark.parametrize("share", [0.0, 1e-3, 0.25, 0.5, 0.9, 1 - 1e-3])
@pytest.mark.parametrize("low", [-3, -1, 0, 7])
def test_the_mean_of_a_value_stays(low: int, share: float) -> None:
    up = rounded(np.full(20_000, low + share), ANY_NORM, entropy()) - low
    check_binomial(int(up.sum()), len(up), share)


def test_what_is_a_whole_number_already_never_changes() -> None:
    whole = np.arange(-500.0, 500.0)
    assert rounded(whole, ANY_NORM, entropy()).tolist() == whole.tolist()


def test_a_condition_gives_the_exact_conditional_distribution() -> None:
    """(0.5, 1.4) to a norm of at most 2: of four outcomes one, (1, 2), is rounded anew."""
    values, norm = np.array([0.5, 1.4]), 2.0
    weights = {(a, b): 0.5 * (0.4 if b == 2 else 0.6) for a, b in itertools.product((0, 1), (1, 2)) if (a, b) != (1, 2)}
    source, trials = entropy(), 6000
    drawn = [tuple(rounded(values, norm, source).tolist()) for _ in range(trials)]
    assert set(drawn) == set(weights)
    for outcome, weight in weights.items():
        check_binomial(drawn.count(outcome), trials, weight / sum(weights.values()))


def test_the_bias_of_the_condition_is_small_even_for_the_longest_updates() -> None:
    """In norm it is less than one step, of 50."""
    dimension, length, trials = 5000, 50.0, 200
    values = np.full(dimension, length / math.sqrt(dimension))
    norm = rounded_sensitivity(1.0, length, dimension).l2
    source = entropy()
    mean = np.mean([rounded(values, norm, source).mean() for _ in range(trials)])
    room = math.sqrt(math.log(2 / CHANCE) / (2 * trials * dimension))
    assert abs(mean - values[0]) <= 1 / math.sqrt(dimension) + room


def test_where_no_attempt_is_short_enough_all_goes_towards_zero() -> None:
    keys: list[bytes] = []

    def stuck(count: int) -> bytes:
        keys.append(bytes(range(5, 5 + count)))
        return keys[-1]

    values = np.array([0.9, -1.5, 2.0, -0.2])
    first = rounded(values, ANY_NORM, stuck)
    keys.clear()
    short = float(np.linalg.norm(first)) - 1e-9
    assert rounded(values, short, stuck).tolist() == [0, -1, 2, 0]
    assert len(keys) == ATTEMPTS


def test_every_attempt_draws_a_fresh_key() -> None:
    keys: list[bytes] = []
    source = entropy()

    def recording(count: int) -> bytes:
        keys.append(source(count))
        return keys[-1]

    values = np.full(400, 0.5)
    while len(keys) < 20:
        rounded(values, math.sqrt(200), recording)
    assert len(set(keys)) == len(keys)


def test_values_are_compared_with_one_stream_from_end_to_end() -> None:
    count = PIECE + 100
    shares, key = np.full(count, 0.5), entropy()(16)
    up = rounded(shares, ANY_NORM, lambda _: key)
    stream = Stream(key, Ring(64))
    words = np.concatenate([stream.take(PIECE).copy(), stream.take(100).copy()])
    assert up.tolist() == (words < 2**63).tolist()


def longest(trials: int, dimension: int = 300) -> float:
    """Of so many roundings of updates as long as they may be, the longest, over the bound."""
    values = np.full(dimension, 10 / math.sqrt(dimension))
    norm = rounded_sensitivity(1.0, 10.0, dimension).l2
    source = entropy()
    return max(float(np.linalg.norm(rounded(values, norm, source))) for _ in range(trials)) / norm


def test_a_build_that_does_not_check_the_norm_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert longest(200) <= 1

    def unchecked(_: NDArray[np.int64], __: float) -> bool:
        return True

    monkeypatch.setattr(rounding, "within", unchecked)
    assert longest(200) > 1
