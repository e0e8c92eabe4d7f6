"""What was released, apart from how it is counted: the frozen records that accountants read.

As in Google's dp_accounting, an event says which mechanism ran and with which numbers, never what it cost. Neighbours
are two runs that differ in whether one contribution is zero, under the same declaration, so a sensitivity is the
largest norm that one contribution may have. What no record can express is no event, and accountants refuse it.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import msgspec

from secagg.errors import ParameterError


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all events have in common: as plain data they carry their kind, and nothing that they do not know."""


class SkellamSum(_Record, frozen=True, kw_only=True, tag="skellam-sum"):
    """A sum of integer vectors to which Skellam noise was added, in shares that sum to Skellam noise again.

    Args:
        l1: Largest L1 norm of one contribution, in integers; not below ``l2``.
        l2: Its largest L2 norm.
        variance: Variance of the noise really in every coordinate of the sum, in integers squared; where coordinates
            differ, the smallest. At 0, nobody added noise.
        dimension: Coordinates of the vector.
        sampler_error: Total variation between the noise of the whole sum and true Skellam noise.

    Raises:
        ParameterError: A number outside its domain.
    """

    l1: float
    l2: float
    variance: float
    dimension: int
    sampler_error: float = 0.0

    def __post_init__(self) -> None:
        _check_sum(self.l1, self.l2, self.variance, self.dimension, self.sampler_error)


class DiscreteGaussianSum(_Record, frozen=True, kw_only=True, tag="discrete-gaussian-sum"):
    """A sum of integer vectors to which shares of discrete Gaussian noise were added, which sum to nearly such noise.

    Where coordinates differ, ``variance`` and ``local_std`` are the smallest and ``contributors`` is the largest.

    Args:
        l1: As ``SkellamSum``.
        l2: As ``SkellamSum``.
        variance: As ``SkellamSum``; at most ``contributors * local_std ** 2``.
        local_std: Standard deviation of one share, in integers.
        contributors: Shares of honest clients in a coordinate.
        dimension: As ``SkellamSum``.
        sampler_error: As ``SkellamSum``.

    Raises:
        ParameterError: A number outside its domain.
    """

    l1: float
    l2: float
    variance: float
    local_std: float
    contributors: int
    dimension: int
    sampler_error: float = 0.0

    def __post_init__(self) -> None:
        _check_sum(self.l1, self.l2, self.variance, self.dimension, self.sampler_error)
        if not 0 < self.local_std < math.inf or self.contributors < 0:
            raise ParameterError("local_std must be positive and finite, contributors at least 0")
        if self.variance > self.contributors * self.local_std**2 * (1 + 1e-9):
            raise ParameterError("variance must not exceed what contributors with local_std add up to")


class Gaussian(_Record, frozen=True, kw_only=True, tag="gaussian"):
    """Gaussian noise on a vector of real numbers.

    Args:
        noise_multiplier: Standard deviation of the noise over the L2 sensitivity; at 0, there was no noise.

    Raises:
        ParameterError: A number outside its domain.
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        _check_multiplier(self.noise_multiplier)


class SampledGaussian(_Record, frozen=True, kw_only=True, tag="sampled-gaussian"):
    """Steps of Gaussian noise, each on the sum over a Poisson sample that nobody but the sampler knows: DP-SGD.

    Args:
        sample_rate: Probability with which each contribution is in a step, independently, in (0, 1].
        noise_multiplier: As ``Gaussian``.
        steps: How many; at least 1.

    Raises:
        ParameterError: A number outside its domain.
    """

    sample_rate: float
    noise_multiplier: float
    steps: int = 1

    def __post_init__(self) -> None:
        _check_multiplier(self.noise_multiplier)
        if not 0 < self.sample_rate <= 1:
            raise ParameterError(f"sample_rate must be in (0, 1], not {self.sample_rate}")
        if self.steps < 1:
            raise ParameterError("steps must be at least 1")


class NonPrivate(_Record, frozen=True, kw_only=True, tag="non-private"):
    """A release without any guarantee, for instance of masks that were computed from data.

    Args:
        reason: Why, for whoever reads the ledger.
    """

    reason: str


class Composed(_Record, frozen=True, kw_only=True, tag="composed"):
    """Several events on the same data, which may have been chosen by what the earlier ones released.

    Args:
        events: The events.
        times: How often all of them happened; at least 1.

    Raises:
        ParameterError: A number outside its domain.
    """

    events: tuple[Event, ...]
    times: int = 1

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ParameterError("times must be at least 1")


Event: TypeAlias = SkellamSum | DiscreteGaussianSum | Gaussian | SampledGaussian | NonPrivate | Composed
"""Whatever an accountant may be asked about."""


def _check_sum(l1: float, l2: float, variance: float, dimension: int, sampler_error: float) -> None:
    if not 0 <= l2 <= l1 < math.inf:
        raise ParameterError("sensitivities must be finite, not negative, and l1 not below l2")
    if not 0 <= variance < math.inf:
        raise ParameterError("variance must be finite and not negative")
    if dimension < 1:
        raise ParameterError("dimension must be at least 1")
    if not 0 <= sampler_error <= 1:
        raise ParameterError("sampler_error must be in [0, 1]")


def _check_multiplier(noise_multiplier: float) -> None:
    if not 0 <= noise_multiplier < math.inf:
        raise ParameterError("noise_multiplier must be finite and not negative")
