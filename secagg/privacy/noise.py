"""Integer noise for distributed differential privacy: Skellam and discrete Gaussian, from cryptographic bits.

A value takes 128 uniform bits U of a key stream (two 64-bit words, the high one first). The lowest bit is the sign; the
magnitude is the number of thresholds c_0 <= c_1 <= ... up to U, where c_m is 2^128 * P(|X| <= m), rounded to an even
integer and kept while below 2^128. So both signs are exactly as likely, and only the T thresholds are inexact.

Total variation, given uniform bits. Let F_m = P(|X| <= m), and let each c_m be within E of 2^128 * F_m. The sampled and
the exact distribution differ by at most T * E / 2^128 + P(|X| > T): the probability of each magnitude is a difference
of two neighbours, and what lies beyond T is sampled as T. Rounding costs 1. The weights below are integers whose
normalised sums are within 2^-160 of every F_m (their methods say why), hence E <= 1 + 2^-32. As c_T was rounded to
2^128, P(|X| > T) <= E / 2^128. With T < 2^31, the bound is (T + 2) / 2^128 a value: 2^-111 at a standard deviation of
10^4.

Sampling takes no branch on a value, but it is not constant-time: where a binary search looks depends on what it seeks.
Whoever shares the processor's caches with a client might learn something about magnitudes (the sign is arithmetic);
somebody who sees only when a whole vector is finished learns at most a statistic of all its values.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from secagg.errors import ParameterError
from secagg.prg import PIECE, Stream
from secagg.ring import Ring

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_STD, LARGEST_STD = 0.125, 2.0**18
"""Standard deviations on offer. The largest takes 3.5 million thresholds: 55 MB, and nine times as much to build."""

TABLES_KEPT = 32
"""Distributions whose table is kept at a time, 16 bytes a threshold; a session needs one for each class of coverage."""

KEY_LENGTHS = (16, 32)
_UNIFORM_BITS = 128
_NEGLIGIBLE = 140
"""Weights are computed up to where the tail is below 2 * exp(-140) < 2^-200."""
_FRACTION_BITS = 256
_SEED_BITS = 224
_DIGITS = 120


@dataclass(frozen=True)
class Table:
    """Sorted 128-bit thresholds.

    Args:
        high: Their upper halves, (T,) uint64, at least one.
        low: Their lower halves, (T,) uint64.
    """

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.high)

    def rank(self, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.int64]:
        """How many thresholds are at most each number given, exactly; (count,) int64.

        Args:
            high: Upper halves of the numbers, (count,) uint64.
            low: Lower halves, (count,) uint64.
        """
        ranks = np.searchsorted(self.high, high, side="left").astype(np.int64, copy=False)
        last = len(self) - 1
        tied = np.flatnonzero(self.high[np.minimum(ranks, last)] == high)
        ranks[tied] = self._resolved(ranks[tied], high[tied], low[tied])
        return ranks

    def _resolved(
        self, ranks: NDArray[np.int64], high: NDArray[np.uint64], low: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """Binary search among thresholds with the same upper half, in a fixed number of steps.

        A step that leads beyond the table is taken only where all thresholds were passed, and taken back at the end.
        """
        for power in reversed(range(len(self).bit_length())):
            probe = np.minimum(ranks + (1 << power), len(self)) - 1
            ranks = ranks + ((self.high[probe] == high) & (self.low[probe] <= low)) * np.int64(1 << power)
        return np.minimum(ranks, len(self))


class _Tabulated(ABC):
    """A symmetric distribution on the integers that is sampled from a table."""

    @property
    def table(self) -> Table:
        """The thresholds, read-only; built on first use and shared by equal distributions."""
        return _table(self)

    @property
    def total_variation(self) -> float:
        """Upper bound on the total-variation distance of one sampled value from the exact distribution.

        Known without the table, which has at most one threshold more than ``reach``. That of independent values is at
        most the sum of theirs. A mechanism that is (epsilon, delta)-private with d
        exact values is (epsilon, delta + (1 + exp(epsilon)) * d * total_variation)-private with sampled ones.
        """
        return math.ldexp(self.reach + 3, -_UNIFORM_BITS)

    def sample(self, count: int, key: bytes) -> NDArray[np.int64]:
        """Independent values, the same ones for the same key; (count,) int64.

        Args:
            count: How many.
            key: 16 or 32 bytes, derived for this purpose and used for one sample only.

        Raises:
            ParameterError: A key of another length.
        """
        if len(key) not in KEY_LENGTHS:
            raise ParameterError(f"a noise key has {KEY_LENGTHS[0]} or {KEY_LENGTHS[1]} bytes, not {len(key)}")
        table, stream, values = self.table, Stream(key, Ring(64)), np.empty(count, np.int64)
        for start in range(0, count, PIECE // 2):
            piece = values[start : start + PIECE // 2]
            words = stream.take(2 * len(piece)).astype(np.uint64, copy=False).reshape(-1, 2)
            high, low = words.T.copy()
            negative = (low & np.uint64(1)).astype(np.int64)
            np.multiply(table.rank(high, low), 1 - 2 * negative, out=piece)
        return values

    @property
    @abstractmethod
    def reach(self) -> int:
        """The largest magnitude whose weight is computed."""

    @abstractmethod
    def weights(self) -> list[int]:
        """Integers proportional to P(X = 0), P(X = 1), ...: normalised sums are within 2^-160 of P(|X| <= m)."""


@dataclass(frozen=True)
class Skellam(_Tabulated):
    """The difference of two independent Poisson variables of mean ``variance / 2`` each; sums are Skellam again.

    Agarwal, Kairouz and Liu, "The Skellam mechanism for differentially private federated learning" (NeurIPS 2021).

    Args:
        variance: Variance, in squared steps.

    Raises:
        ParameterError: The standard deviation is not on offer.
    """

    variance: float

    def __post_init__(self) -> None:
        _check_variance(self.variance)

    @property
    def reach(self) -> int:
        """The largest magnitude whose weight is computed."""
        return _reach(self.variance)

    def weights(self) -> list[int]:
        """P(X = k) = exp(-v) I_k(v) by Miller's backward recurrence for the modified Bessel functions.

        b_{k-1} = b_{k+1} + (2k / v) b_k, with b_N = 2^224 and b_{N+1} = 0. I_k obeys the same recurrence.

        Rounding: everything is positive, so relative errors do not grow. All b_k are at least b_N min(1, 2N / v) >
        2^208, so each of fewer than 2^23 steps, rounded down, adds less than 2^-208.

        Truncation: I_k b_{k+1} - I_{k+1} b_k only changes sign from k to k - 1, so its magnitude is always that at N,
        I_{N+1} b_N. Hence b_k / I_k = b_0 / I_0 + an alternating sum with growing terms I_{N+1} b_N / (I_j I_{j+1}),
        j < k, and with s = b_0 / I_0: |b_k - s I_k| <= b_N I_{N+1} / I_{k-1} <= b_N. At k = N it follows, as I_{N-1} -
        I_{N+1} = (2N / v) I_N, that b_N <= s I_{N-1} v / (2N). Over all magnitudes, relative to s exp(v), at most
        2N b_N is wrong, or v P(X = N - 1), in a sum and in the total: less than 2^38 exp(-140) < 2^-163. The tail
        left out adds 2^-200.
        """
        numerator, denominator = float(self.variance).as_integer_ratio()
        outer, weight = 0, 1 << _SEED_BITS
        weights = [weight]
        for k in range(self.reach, 0, -1):
            outer, weight = weight, outer + weight * (2 * k * denominator) // numerator
            weights.append(weight)
        weights.reverse()
        return weights


@dataclass(frozen=True)
class DiscreteGaussian(_Tabulated):
    """P(X = k) proportional to exp(-k^2 / (2 sigma^2)).

    Canonne, Kamath and Steinke, "The discrete Gaussian for differential privacy" (NeurIPS 2020), definition 1.

    Args:
        sigma: Scale, in steps.

    Raises:
        ParameterError: ``sigma`` is not on offer.
    """

    sigma: float

    def __post_init__(self) -> None:
        _check_variance(self.sigma * abs(self.sigma))  # a negative one stays negative

    @property
    def reach(self) -> int:
        """The largest magnitude whose weight is computed."""
        return _reach(self.sigma**2)

    @property
    def variance(self) -> float:
        """Variance of the distribution, in squared steps: a little less than ``sigma**2`` where sigma is small."""
        if self.sigma >= 4:  # the difference is below one part in 10^130
            return float(self.sigma**2)
        squares = np.arange(self.reach) ** 2.0
        weights = np.exp(-squares / (2 * self.sigma**2))
        return float(2 * (squares @ weights) / (2 * weights.sum() - 1))

    def weights(self) -> list[int]:
        """w_{k+1} = w_k r_k and r_{k+1} = r_k q^2, with w_0 = 1, r_0 = q = exp(-1 / (2 sigma^2)), in units of 2^-256.

        No factor exceeds 1, so a product is wrong by at most the sum of what its factors are, and one unit. q and q^2
        are wrong by less than 2, r_k by less than 4 (k + 1), w_k by less than 4 k^2 and their sum, over fewer than
        2^23 terms on both sides, by less than 2^72: less than 2^-183 of the total. The tail left out adds 2^-200.
        """
        numerator, denominator = float(self.sigma).as_integer_ratio()
        ratio = _exp_minus(denominator**2, 2 * numerator**2)
        decay = _exp_minus(denominator**2, numerator**2)
        weight = 1 << _FRACTION_BITS
        weights = [weight]
        for _ in range(self.reach):
            weight = weight * ratio >> _FRACTION_BITS
            ratio = ratio * decay >> _FRACTION_BITS
            weights.append(weight)
        return weights


Noise: TypeAlias = Skellam | DiscreteGaussian


def _check_variance(variance: float) -> None:
    if not SMALLEST_STD**2 <= variance <= LARGEST_STD**2:
        raise ParameterError(
            f"noise needs a standard deviation from {SMALLEST_STD:g} to {LARGEST_STD:g} steps, not "
            f"{math.sqrt(max(0.0, variance)):g}: raise ring_bits if it is smaller, lower it if it is larger"
        )


def _reach(variance: float) -> int:
    """N such that P(X >= N - 1) <= exp(-140), for either distribution.

    Bernstein's bound exp(-x^2 / (2 (v + x / 3))): for Skellam as E exp(tX) = exp(v (cosh(t) - 1)) and cosh(t) - 1 <=
    t^2 / 2 / (1 - t / 3); for the discrete Gaussian as E exp(tX) <= exp(t^2 sigma^2 / 2), because a sum of exp(-(x -
    a)^2 / (2 sigma^2)) over the integers is largest at a = 0.
    """
    third = _NEGLIGIBLE / 3
    return math.floor(third + math.sqrt(third**2 + 2 * _NEGLIGIBLE * variance)) + 2


def _exp_minus(numerator: int, denominator: int) -> int:
    """2^256 * exp(-numerator / denominator), wrong by less than 2; ``Decimal`` rounds exp correctly."""
    context = Context(prec=_DIGITS)
    exponent = context.divide(Decimal(-numerator), Decimal(denominator))
    return int(context.multiply(context.exp(exponent), Decimal(1 << _FRACTION_BITS)))


@lru_cache(maxsize=TABLES_KEPT)
def _table(noise: _Tabulated) -> Table:
    weights = noise.weights()
    total = 2 * sum(weights) - weights[0]
    running, packed = -weights[0], bytearray()
    for weight in weights:
        running += 2 * weight
        threshold = ((running << _UNIFORM_BITS) + total) // (2 * total) * 2  # the nearest even integer
        if threshold >> _UNIFORM_BITS:
            break
        packed += threshold.to_bytes(16, "big")
    high, low = np.frombuffer(packed, ">u8").reshape(-1, 2).T.astype(np.uint64, order="C")
    for words in (high, low):
        words.setflags(write=False)
    return Table(high, low)
