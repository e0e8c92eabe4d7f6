"""The integer noise: tables against exact probabilities, values against statistics, and both broken on purpose."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from scipy import stats

from secagg.errors import ParameterError
from secagg.prg import PIECE
from secagg.privacy.noise import LARGEST_STD, SMALLEST_STD, DiscreteGaussian, Noise, Skellam, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

KEY = bytes(range(16))
DIGITS = 90
FULL = 2**128
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798")
EVERY_KIND: list[Noise] = [
    Skellam(SMALLEST_STD**2),
    Skellam(0.3),
    Skellam(4.0),
    Skellam(123.456),
    DiscreteGaussian(SMALLEST_STD),
    DiscreteGaussian(0.5),
    DiscreteGaussian(2.0),
    DiscreteGaussian(11.1),
]
LARGE: list[Noise] = [Skellam(1e8), DiscreteGaussian(9876.543)]


def by_name(noise: object) -> str:
    return repr(noise)


def probabilities(noise: Noise, most: int) -> list[Fraction]:
    """P(X = k) for k = 0..most, right to 80 digits, from the definitions: no recurrence of the module is used."""
    with localcontext(Context(prec=DIGITS)):
        if isinstance(noise, Skellam):
            rate = Decimal(noise.variance) / 2
            poisson = [(-rate).exp()]
            for k in range(1, most + 200 + 10 * int(rate)):
                poisson.append(poisson[-1] * rate / k)
            pairs = [sum(a * b for a, b in zip(poisson, poisson[k:], strict=False)) for k in range(most + 1)]
            return [Fraction(pair) for pair in pairs]
        rate = 1 / (2 * Decimal(noise.sigma) ** 2)
        weights = [(-rate * k * k).exp() for k in range(most + 200)]
        total = 2 * sum(weights) - 1
        return [Fraction(weight / total) for weight in weights[: most + 1]]


def thresholds(table: Table) -> list[int]:
    return [int(high) << 64 | int(low) for high, low in zip(table.high, table.low, strict=True)]


def table_of(numbers: list[int]) -> Table:
    high, low = (np.array(words, np.uint64) for words in zip(*(divmod(one, 1 << 64) for one in numbers), strict=True))
    return Table(high, low)


def distance(noise: Noise, numbers: list[int]) -> Fraction:
    """Total variation between what a list of thresholds samples and the exact distribution, a little overestimated."""
    exact = probabilities(noise, len(numbers))
    magnitudes = [exact[0], *(2 * one for one in exact[1:])]
    edges = [0, *numbers, FULL]
    sampled = [Fraction(after - before, FULL) for before, after in pairwise(edges)]
    beyond = 1 - sum(magnitudes, Fraction())
    return sum((abs(a - b) for a, b in zip(sampled, magnitudes, strict=True)), abs(beyond)) / 2


@pytest.mark.parametrize("noise", EVERY_KIND, ids=by_name)
def test_the_exact_distance_is_within_the_promised_bound_and_not_far_below(noise: Noise) -> None:
    bound = Fraction(len(noise.table) + 2, FULL)
    assert bound / 20 < distance(noise, thresholds(noise.table)) <= bound <= Fraction(noise.total_variation)
    assert Fraction(noise.total_variation) == Fraction(noise.reach + 3, FULL)
    assert len(noise.table) <= noise.reach + 1


@pytest.mark.parametrize("noise", EVERY_KIND, ids=by_name)
def test_every_threshold_is_the_nearest_even_integer(noise: Noise) -> None:
    numbers = thresholds(noise.table)
    exact = probabilities(noise, len(numbers))
    reached = exact[0]
    for number, following in zip(numbers, exact[1:], strict=True):
        assert number % 2 == 0
        assert abs(number - reached * FULL) <= 1 + Fraction(1, 2**32)
        reached += 2 * following
    assert (1 - reached) * FULL <= 1 + Fraction(1, 2**32)


@pytest.mark.parametrize("noise", EVERY_KIND, ids=by_name)
def test_the_weights_are_as_precise_as_the_bound_takes_them_to_be(noise: Noise) -> None:
    weights = noise.weights()
    total = 2 * sum(weights) - weights[0]
    reached, exact = Fraction(-weights[0], total), Fraction(0)
    for k, probability in enumerate(probabilities(noise, len(weights) // 2)):
        reached += Fraction(2 * weights[k], total)
        exact += (2 if k else 1) * probability
        assert abs(reached - exact) < Fraction(1, 2**160)


def test_thresholds_cut_to_32_bits_break_the_bound() -> None:
    noise = Skellam(4.0)
    coarse = [number >> 96 << 96 for number in thresholds(noise.table)]
    assert distance(noise, coarse) > 2**60 * Fraction(noise.total_variation)


def test_a_table_shifted_by_one_place_breaks_the_bound() -> None:
    noise = DiscreteGaussian(2.0)
    assert distance(noise, thresholds(noise.table)[1:]) > Fraction(1, 20)


def large_probability(noise: Noise, k: int) -> Fraction:
    """P(X = k) of one of ``LARGE``, right to 60 digits.

    For Skellam by Hankel's expansion of I_k (DLMF 10.40.1). The discrete Gaussian's total is sigma * sqrt(2 pi) * (1 +
    2 exp(-2 pi^2 sigma^2) + ...) by Poisson summation.
    """
    with localcontext(Context(prec=DIGITS)):
        variance = Decimal(noise.variance) if isinstance(noise, Skellam) else Decimal(noise.sigma) ** 2
        if isinstance(noise, DiscreteGaussian):
            series = (-(Decimal(k) ** 2) / (2 * variance)).exp()
        else:
            series = term = Decimal(1)
            for j in range(1, 400):
                term *= ((2 * j - 1) ** 2 - 4 * k * k) / (8 * variance * j)
                series += term
        return Fraction(series / (2 * PI * variance).sqrt())


@pytest.mark.parametrize("noise", LARGE, ids=by_name)
def test_the_error_bound_stands_on_what_the_weights_are(noise: Noise) -> None:
    """Its premises: how small the last ones are beside the total and, for Skellam, how large beside their rounding."""
    weights = noise.weights()
    assert len(weights) < 2**23
    assert math.ceil(noise.variance) * weights[-2] << 163 < 2 * sum(weights) - weights[0]
    assert isinstance(noise, DiscreteGaussian) or min(weights) > 2**208


@pytest.mark.parametrize("noise", LARGE, ids=by_name)
def test_a_large_table_is_exact_to_its_last_bits(noise: Noise) -> None:
    numbers = thresholds(noise.table)
    assert abs(numbers[0] - FULL * large_probability(noise, 0)) <= 1 + Fraction(1, 2**32)
    for k in (1, 2, 777, 10_000, 50_000, 80_000, 120_000):
        magnitude = 2 * large_probability(noise, k)
        assert abs(numbers[k] - numbers[k - 1] - FULL * magnitude) <= 2 + Fraction(1, 2**31)


def test_a_large_skellam_obeys_the_recurrence_of_the_bessel_functions() -> None:
    """I_{k-1} - I_{k+1} = (2k / v) I_k, in the table itself: as far as its rounding lets one see."""
    variance = 10**8
    numbers = thresholds(Skellam(variance).table)
    for k in (2, 1000, 30_000, 100_000):
        before, here, after = (numbers[k + step] - numbers[k + step - 1] for step in (-1, 0, 1))
        assert abs((before - after) - Fraction(2 * k, variance) * here) <= 6


def test_the_table_of_the_largest_standard_deviation_has_fewer_than_4_194_304_thresholds() -> None:
    needed = LARGEST_STD * stats.norm.isf(2.0**-129)
    assert 3e6 < needed < 2**22
    assert len(LARGE[1].table) / 9876.543 == pytest.approx(needed / LARGEST_STD, rel=0.01)


def test_the_variance_is_that_of_the_distribution() -> None:
    for noise in EVERY_KIND:
        exact = sum(
            2 * k * k * one for k, one in enumerate(probabilities(noise, 60 + 16 * math.ceil(noise.variance**0.5)))
        )
        assert noise.variance == pytest.approx(float(exact), rel=1e-12)
    assert DiscreteGaussian(0.5).variance < 0.22
    assert DiscreteGaussian(1e4).variance == 1e8


def reference(noise: Noise, count: int, key: bytes) -> list[int]:
    """The sampler written out: one value at a time, in Python's integers."""
    drawn = Cipher(AES(key), CTR((1).to_bytes(16, "big"))).encryptor().update(bytes(16 * count))
    numbers, values = thresholds(noise.table), []
    for start in range(0, 16 * count, 16):
        high, low = (int.from_bytes(drawn[start + at : start + at + 8], "little") for at in (0, 8))
        magnitude = bisect_right(numbers, high << 64 | low)
        values.append(-magnitude if low & 1 else magnitude)
    return values


@pytest.mark.parametrize("noise", [*EVERY_KIND, *LARGE], ids=by_name)
@pytest.mark.parametrize("key", [KEY, KEY * 2], ids=["128 bits", "256 bits"])
def test_values_are_those_of_the_sampler_written_out(noise: Noise, key: bytes) -> None:
    values = noise.sample(500, key)
    assert values.dtype == np.int64
    assert values.tolist() == reference(noise, 500, key)


def test_the_first_values_of_a_fixed_key_never_change() -> None:
    assert Skellam(100.0).sample(8, KEY).tolist() == [-2, -8, 3, -10, 3, -17, 17, -8]
    assert DiscreteGaussian(1e4).sample(8, KEY).tolist() == [-1509, -7544, 2816, -10170, 3264, -17321, 17008, -8365]


@pytest.mark.parametrize("count", [0, 1, PIECE // 2 - 1, PIECE // 2, PIECE // 2 + 1, PIECE + 3])
def test_a_longer_sample_begins_with_the_shorter_one(count: int) -> None:
    noise = Skellam(50.0)
    values = noise.sample(count, KEY)
    assert len(values) == count
    assert np.array_equal(values, noise.sample(2 * PIECE, KEY)[:count])


def test_another_key_gives_other_values() -> None:
    assert not np.array_equal(Skellam(50.0).sample(50, KEY), Skellam(50.0).sample(50, bytes(16)))


@pytest.mark.parametrize("length", [0, 8, 15, 24, 33])
def test_a_key_of_another_length_is_refused_without_being_shown(length: int) -> None:
    with pytest.raises(ParameterError, match=f"16 or 32 bytes, not {length}$"):
        Skellam(1.0).sample(1, bytes(length))


SMALL_WORDS = [0, 1, 2, 3, 5, 2**63, 2**64 - 2, 2**64 - 1]
MADE_UP = sorted(
    [high << 64 | low for high in (0, 3, 4, 2**64 - 1) for low in (0, 2, 2, 4, 2**64 - 2)]
    + [5 << 64 | 2 * low for low in range(37)]
    + [2**63 << 64]
)


def misranked(rank: Callable[[Table, Any, Any], NDArray[np.int64]], numbers: list[int] = MADE_UP) -> int:
    """How many of the numbers around thresholds with equal upper halves come out at the wrong place."""
    probes = [(high, low) for high in [*SMALL_WORDS, 4] for low in [*SMALL_WORDS, 4, *range(60, 80)]]
    high, low = (np.array(words, np.uint64) for words in zip(*probes, strict=True))
    expected = [bisect_right(numbers, first << 64 | second) for first, second in probes]
    return int((rank(table_of(numbers), high, low) != expected).sum())


@pytest.mark.parametrize("numbers", [MADE_UP, [0], [3 << 64 | 4], [2**128 - 2] * 8, [5 << 64] * 7], ids=len)
def test_ties_between_upper_halves_are_resolved_by_the_lower_ones(numbers: list[int]) -> None:
    assert misranked(Table.rank, numbers) == 0


def test_a_search_by_the_upper_half_alone_misranks_on_either_side() -> None:
    assert misranked(lambda table, high, _: np.searchsorted(table.high, high, "left")) > 20
    assert misranked(lambda table, high, _: np.searchsorted(table.high, high, "right")) > 20


def test_a_search_on_the_wrong_side_misranks(monkeypatch: pytest.MonkeyPatch) -> None:
    search = np.searchsorted
    monkeypatch.setattr(np, "searchsorted", lambda table, values, **_: search(table, values, "right"))
    assert misranked(Table.rank) > 20


def test_ties_that_are_left_unresolved_misrank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "_resolved", lambda _self, ranks, _high, _low: ranks)
    assert misranked(Table.rank) > 20


def p_value(noise: Noise, values: NDArray[np.int64]) -> float:
    """Pearson's chi-square test of signed values against the exact probabilities, rare values pooled on either side."""
    most = 1
    exact = [float(one) for one in probabilities(noise, 30 + 6 * math.ceil(math.sqrt(noise.variance)))]
    while exact[most + 1] * len(values) > 20:
        most += 1
    inner = np.array([exact[abs(k)] for k in range(-most, most + 1)])
    outer = (1 - inner.sum()) / 2
    expected = np.concatenate([[inner[0] + outer], inner[1:-1], [inner[-1] + outer]]) * len(values)
    observed = np.bincount(np.clip(values, -most, most) + most, minlength=2 * most + 1)
    return float(stats.chisquare(observed, expected).pvalue)


COMMON = EVERY_KIND[1:4] + EVERY_KIND[5:]


@pytest.mark.parametrize("noise", COMMON, ids=by_name)
def test_values_pass_a_chi_square_test(noise: Noise) -> None:
    """At a fixed key, so it passes always or never; a right sampler fails one key in ten thousand."""
    assert p_value(noise, noise.sample(300_000, KEY)) > 1e-4


@pytest.mark.parametrize("noise", COMMON, ids=by_name)
def test_values_that_are_a_little_wrong_fail_the_same_test(noise: Noise) -> None:
    values = noise.sample(300_000, KEY)
    every_20th = np.arange(len(values)) % 20 == 0
    wider = type(noise)(1.04 * (noise.variance if isinstance(noise, Skellam) else noise.sigma))
    assert p_value(noise, wider.sample(300_000, KEY)) < 1e-6
    assert p_value(noise, np.where(every_20th, np.abs(values), values)) < 1e-6
    assert p_value(noise, np.where(values == 0, 1, values)) < 1e-6


@pytest.mark.parametrize("noise", LARGE, ids=by_name)
def test_a_million_wide_values_have_the_variance_the_shape_and_the_tails_of_a_gaussian(noise: Noise) -> None:
    """A Skellam of this variance differs from it by less than these tests can see."""
    values = noise.sample(1_000_000, KEY)
    scaled = values / math.sqrt(noise.variance)
    assert abs(scaled.mean()) < 4e-3
    assert abs(scaled.var() - 1) < 4 * math.sqrt(2e-6)
    assert stats.kstest(scaled, "norm").pvalue > 1e-3
    for edge in (3, 4):
        for side in (scaled, -scaled):
            expected = 1e6 * stats.norm.sf(edge)
            assert abs((side > edge).sum() - expected) < 4 * math.sqrt(expected)
    assert 4 < np.abs(scaled).max() < 6.5


def test_neighbouring_values_are_not_correlated() -> None:
    values = DiscreteGaussian(100.0).sample(1_000_000, KEY) / 100
    for step in (1, 2, 3, PIECE // 2):
        assert abs((values[:-step] * values[step:]).mean()) < 4e-3


def test_a_sum_of_skellam_values_is_skellam() -> None:
    total = np.sum([Skellam(0.5).sample(200_000, bytes([client]) * 16) for client in range(8)], axis=0)
    assert p_value(Skellam(4.0), total) > 1e-4
    assert p_value(Skellam(3.9), total) < 1e-6


def test_equal_distributions_share_one_table_that_nobody_can_change() -> None:
    table = Skellam(7.0).table
    assert table is Skellam(7).table
    assert table is not DiscreteGaussian(7.0).table
    for words in (table.high, table.low):
        with pytest.raises(ValueError, match="read-only"):
            words[0] = 0


@dataclass(frozen=True)
class Refused:
    kind: type[Skellam | DiscreteGaussian]
    value: float


@pytest.mark.parametrize(
    "refused",
    [
        *(Refused(Skellam, value) for value in (0, -1.0, 0.015, LARGEST_STD**2 * 1.001, math.inf, -math.inf, math.nan)),
        *(
            Refused(DiscreteGaussian, value)
            for value in (0, -1.0, 0.12, LARGEST_STD * 1.001, 1e200, math.inf, -math.inf, math.nan)
        ),
    ],
    ids=by_name,
)
def test_a_standard_deviation_that_is_not_on_offer_names_the_setting(refused: Refused) -> None:
    with pytest.raises(ParameterError, match=r"from 0\.125 to 262144 steps, not .*: raise ring_bits"):
        refused.kind(refused.value)


def test_the_limits_themselves_are_on_offer() -> None:
    assert Skellam(LARGEST_STD**2).variance == LARGEST_STD**2
    assert DiscreteGaussian(LARGEST_STD).variance == LARGEST_STD**2
