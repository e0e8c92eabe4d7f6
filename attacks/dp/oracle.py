"""Epsilon of a noisy sum from the law of its noise, number by number, without any accountant or trial.

A coordinate of the sum is what the clients sent plus noise, modulo the ring. Whatever the others sent only shifts it,
so two neighbours differ by the integer that one client contributed, and

    delta(epsilon) = sum over k of max(0, p(k - shift) - e^epsilon p(k)),

where p is the law of the sum of the honest clients' noise; as it is symmetric, both directions are alike. It is taken
from definitions: from the Bessel function for Skellam noise, from exp(-k^2 / (2 sigma^2)) for the discrete Gaussian,
and from convolutions for sums.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from scipy import fft, special

from attacks.dp.bound import MOST_EPSILON, crossing
from secagg.errors import ParameterError
from secagg.privacy.events import DiscreteGaussianSum, SkellamSum

if TYPE_CHECKING:
    from numpy.typing import NDArray

Mechanism: TypeAlias = Literal["skellam", "discrete-gaussian"]

Law: TypeAlias = "NDArray[np.float64]"
"""Probabilities of 0, 1, ..., size - 1 modulo the size, so that sums wrap as they do in a ring."""

LARGEST_ROOM = 2**22
"""Numbers of a law at most: those of a standard deviation of 10^5."""

LARGEST_BESSEL = 1e9
"""Variance up to which the Bessel function is exact to float64; above, the law is that of a sum of shares."""

NEGLIGIBLE = 1e-15
"""Probabilities below it are rounding errors of a convolution, and count as zero."""


def share_law(mechanism: Mechanism, variance: float, size: int) -> Law:
    """The law of one client's noise modulo ``size``, but for a tail of less than e^-70.

    Args:
        mechanism: Which noise.
        variance: Of Skellam noise; of the discrete Gaussian sigma^2, its parameter.
        size: Of the ring, or more room than the noise ever takes.
    """
    distance = np.arange(math.ceil(12 * math.sqrt(variance)) + 100, dtype=np.float64)
    half = special.ive(distance, variance) if mechanism == "skellam" else np.exp(-(distance**2) / (2 * variance))
    numbers = np.arange(len(half))
    law = np.bincount(numbers % size, half, size) + np.bincount(-numbers[1:] % size, half[1:], size)
    normed: Law = law / law.sum()
    return normed


def sum_law(law: Law, times: int) -> Law:
    """The law of the sum of so many independent ones, modulo the size."""
    if times == 1:
        return law
    total = fft.irfft(fft.rfft(law) ** times, len(law))
    return np.where(total < NEGLIGIBLE, 0, total)


def delta_at(epsilon: float, noise: Law, shift: int) -> float:
    """The exact delta at an epsilon of one coordinate that a client moves by ``shift``."""
    return float(np.maximum(0, np.roll(noise, shift) - math.exp(epsilon) * noise).sum())


def epsilon_at(delta: float, noise: Law, shift: int) -> float:
    """The exact epsilon at a delta in (0, 1), at most ``MOST_EPSILON``."""
    return crossing(lambda epsilon: -delta_at(epsilon, noise, shift), -delta, 0.0, MOST_EPSILON)


def noise_of(event: SkellamSum | DiscreteGaussianSum, ring_bits: int) -> Law:
    """The law of the noise in a coordinate of a sum.

    Args:
        event: What the sum was: where coordinates differ, of the one with the least noise.
        ring_bits: Width of the ring.

    Raises:
        ParameterError: There is no noise, or its law has more numbers than memory should hold.
    """
    if event.variance == 0:
        raise ParameterError("without noise every change shows, and epsilon is infinite")
    room = 1 << math.ceil(math.log2(24 * math.sqrt(event.variance) + 2 * event.l2 + 200))
    size = min(room, 1 << ring_bits)
    if size > LARGEST_ROOM:
        raise ParameterError(f"a law of {size} numbers is not computed: lower noise_multiplier or ring_bits")
    if isinstance(event, SkellamSum):
        shares = math.ceil(event.variance / LARGEST_BESSEL)
        return sum_law(share_law("skellam", event.variance / shares, size), shares)
    return sum_law(share_law("discrete-gaussian", event.variance / event.contributors, size), event.contributors)


def epsilon_of(event: SkellamSum | DiscreteGaussianSum, delta: float, ring_bits: int) -> float:
    """The exact epsilon of the largest change of a single coordinate; no accountant may say less.

    Args:
        event: As ``noise_of``.
        delta: In (0, 1).
        ring_bits: As ``noise_of``.

    Raises:
        ParameterError: As ``noise_of``.
    """
    return epsilon_at(delta, noise_of(event, ring_bits), math.floor(event.l2))
