"""Laws of integer noise, computed from their definitions, and how far samples may lie from them by chance.

It calls none of the code that draws noise or accounts for it. A law is the probabilities of 0, 1, ..., size - 1 modulo
the size, so that sums wrap as they do in a ring. Every bound holds for any number of samples, and fails by chance less
often than ``CHANCE``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import special, stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from secagg.privacy.noisy_sum import Mechanism

    Law = NDArray[np.float64]

CHANCE = 1e-10


@lru_cache
def share_law(mechanism: Mechanism, variance: float, size: int) -> Law:
    """One share, but for a tail of less than e^-70; ``variance`` is the squared parameter of a discrete Gaussian."""
    distance = np.arange(min(size // 2, math.ceil(12 * math.sqrt(variance)) + 100), dtype=np.float64)
    bessel = mechanism == "skellam"  # exp(-v) I_k(v)
    half = special.ive(distance, variance) if bessel else np.exp(-(distance**2) / (2 * variance))
    law = np.zeros(size)
    law[: len(half)] = half
    law[-len(half) + 1 :] = half[:0:-1]
    law.setflags(write=False)
    return law / law.sum()


def sum_law(law: Law, times: int) -> Law:
    """The sum of so many independent ones, modulo the size."""
    return np.fft.irfft(np.fft.rfft(law) ** times, len(law)).clip(0)


def shifted(law: Law, by: float) -> Law:
    """Plus a number that is rounded at random to one of its two neighbours, so that its mean stays."""
    low = math.floor(by)
    return (1 - (by - low)) * np.roll(law, low) + (by - low) * np.roll(law, low + 1)


def delta_of(one: Law, other: Law, epsilon: float) -> float:
    """The least delta at which no event is more than e^epsilon times as likely under either law, but for delta."""
    factor = math.exp(epsilon)
    return float(max(np.maximum(0, p - factor * q).sum() for p, q in ((one, other), (other, one))))


def room_for(std: float) -> int:
    """A size that a law of this standard deviation fits in, but for a share of e^-70."""
    return 1 << math.ceil(math.log2(24 * std + 200))


def check_sample(values: NDArray[np.int64], law: Law) -> None:
    """Refuses samples that do not look like independent draws: in distribution, in variance and in the tails.

    The largest distance of distribution functions is bounded by Dvoretzky, Kiefer, Wolfowitz and Massart's inequality,
    a mean of squares from below by P(sum of X^2 < n E X^2 - t) <= exp(-t^2 / (2 n E X^4)); how many lie in a tail is
    binomial.
    """
    count, centred = len(values), np.fft.fftshift(law)
    numbers = np.arange(len(law)) - len(law) // 2
    found, reached = np.unique(values, return_counts=True)
    exact, drawn = np.append(0, np.cumsum(centred)), np.cumsum(reached) / count
    places = np.clip(found + len(law) // 2, 0, len(law) - 1)
    distance = max(np.abs(drawn - exact[places + 1]).max(), np.abs(drawn - reached / count - exact[places]).max())
    assert distance <= math.sqrt(math.log(2 / CHANCE) / (2 * count)), "another distribution"

    squares = np.square(numbers, dtype=np.float64)
    second, fourth = float(centred @ squares), float(centred @ squares**2)
    room = math.sqrt(-2 * fourth * math.log(CHANCE) / count)
    assert np.square(values.astype(np.float64)).mean() >= second - room, "too small a variance"

    for width in (1, 2, 3):
        tail = width * math.sqrt(second)
        check_binomial(int((np.abs(values) > tail).sum()), count, float(centred[np.abs(numbers) > tail].sum()))


def check_binomial(found: int, count: int, chance: float) -> None:
    """Refuses a number of successes that is too far from what a chance promises."""
    few, many = stats.binom.cdf(found, count, chance), stats.binom.sf(found - 1, count, chance)
    assert min(few, many) >= CHANCE, f"{found} of {count}, where {count * chance:.0f} were to be expected"


def check_independent(one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
    """Refuses symmetric noise whose signs agree, or disagree, too often for independent draws."""
    agreeing = np.sign(one) * np.sign(other)
    check_binomial(int((agreeing > 0).sum()), int(np.count_nonzero(agreeing)), 0.5)
