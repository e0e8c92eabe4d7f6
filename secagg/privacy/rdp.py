"""Renyi differential privacy: the curve of every event, and the epsilon that a curve amounts to.

A curve holds, for each order alpha of ``ORDERS``, a bound on the Renyi divergence between the releases on any two
neighbours, in both directions. Events on the same data add their curves, also where later ones depended on earlier
releases. Arithmetic modulo the ring is post-processing of the noisy sum, and costs nothing.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from secagg.errors import InputError, ParameterError
from secagg.privacy.events import (
    Composed,
    DiscreteGaussianSum,
    Gaussian,
    NonPrivate,
    SampledGaussian,
    SkellamSum,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from secagg.privacy.events import Event

    Curve: TypeAlias = NDArray[np.float64]

ORDERS: tuple[float, ...] = (
    *(tenths / 10 for tenths in range(11, 110)),
    *range(11, 129),
    *(160, 192, 256, 384, 512, 768, 1024),
)
"""The orders of every curve. Those of Skellam sums hold at integers only, and are infinite elsewhere."""

LEAST_LOCAL_STD = 2.0
"""Below it, sums of discrete Gaussians are too far from a discrete Gaussian: the curve is infinite."""

CURVES_KEPT = 1024
"""Curves of steps on a sample that are kept: they take integrals, and a client's is the same in every round."""

LEAST_SAMPLED_MULTIPLIER = 0.1
"""Steps on a sample with less noise are counted as if they had no guarantee: one costs up to an epsilon of 50, and its
moments would take an integral over ever finer steps."""


def rdp(event: Event) -> Curve:
    """The curve of an event over ``ORDERS``, (len(ORDERS),) float64; infinite where nothing is guaranteed.

    Raises:
        InputError: The event is of no known kind.
    """
    orders = np.array(ORDERS)
    match event:
        case SkellamSum():
            return _skellam(event, orders)
        case DiscreteGaussianSum():
            return _discrete_gaussian(event, orders)
        case Gaussian(noise_multiplier=z):
            return orders / (2 * z**2) if z > 0 else _infinite(orders)
        case SampledGaussian():
            return _sampled_gaussian(event).copy()  # the kept one stays as it is
        case NonPrivate():
            return _infinite(orders)
        case Composed(events=events, times=times):
            return times * sum((rdp(one) for one in events), np.zeros(len(orders)))
        case _:
            raise InputError(f"no accountant knows events of kind {type(event).__name__}")


def sampler_error(event: Event) -> float:
    """Total variation between what was drawn in an event and the noise that its curve is about."""
    match event:
        case SkellamSum(sampler_error=error) | DiscreteGaussianSum(sampler_error=error):
            return error
        case Composed(events=events, times=times):
            return times * sum(sampler_error(one) for one in events)
        case _:
            return 0.0


def epsilon_of(curve: Curve, delta: float, error: float = 0.0) -> float:
    """The smallest epsilon for which a curve implies (epsilon, delta)-differential privacy.

    Source of the conversion: C. L. Canonne, G. Kamath, T. Steinke, "The Discrete Gaussian for Differential Privacy"
    (NeurIPS 2020), Proposition 12, which improves on B. Balle et al., "Hypothesis Testing Interpretations and Renyi
    Differential Privacy" (AISTATS 2020); opacus uses the same.

    Samplers within a total variation ``error`` of their distribution turn (epsilon, delta) into
    (epsilon, delta + (1 + e^epsilon) * error), since P' <= P + error <= e^epsilon (Q' + error) + delta + error. What
    that takes is bounded by way of the epsilon at half of delta; where it is more than that half, the answer is
    infinity.

    Args:
        curve: Over ``ORDERS``, (len(ORDERS),) float64.
        delta: In (0, 1).
        error: Total variation of all samplers together, not negative.

    Raises:
        ParameterError: ``delta`` is outside its domain.
    """
    if not 0 < delta < 1:
        raise ParameterError(f"delta must be in (0, 1), not {delta}")
    if error == 0:
        return _converted(curve, delta)
    half = _converted(curve, delta / 2)
    lost = (1 + math.exp(half)) * error if half < math.log(delta / error) else math.inf
    return _converted(curve, delta - lost) if lost <= delta / 2 else math.inf


def sum_inflation(contributors: int, local_std: float) -> float:
    """How far the sum of discrete Gaussian shares is from a discrete Gaussian: tau, per coordinate.

    The largest logarithm of a ratio of their probabilities. Source: P. Kairouz, Z. Liu, T. Steinke, "The Distributed
    Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation" (ICML 2021), Theorem 1.

    Args:
        contributors: Shares, at least 0.
        local_std: Standard deviation of each, in integers.
    """
    k = np.arange(1, max(contributors, 1))
    return 10 * float(np.exp(-2 * (np.pi * local_std) ** 2 * k / (k + 1)).sum())


def _skellam(event: SkellamSum, orders: Curve) -> Curve:
    """N. Agarwal, P. Kairouz, Z. Liu, "The Skellam Mechanism for Differentially Private Federated Learning".

    NeurIPS 2021; the bound for integer orders in any dimension.
    """
    if event.variance == 0:
        return _infinite(orders)
    squared, variance = event.l2**2, event.variance
    curve = orders * squared / (2 * variance) + np.minimum(
        ((2 * orders - 1) * squared + 6 * event.l1) / (4 * variance**2), 3 * event.l1 / (2 * variance)
    )
    return np.where(orders == np.rint(orders), curve, math.inf)


def _discrete_gaussian(event: DiscreteGaussianSum, orders: Curve) -> Curve:
    """Kairouz, Liu, Steinke (ICML 2021), Proposition 14."""
    if event.variance == 0 or event.local_std < LEAST_LOCAL_STD:
        return _infinite(orders)
    std, dimension = math.sqrt(event.variance), event.dimension
    l1, l2, tau = event.l1 / std, event.l2 / std, sum_inflation(event.contributors, event.local_std)
    halves = orders / 2
    return np.minimum(
        halves * l2**2 + tau * dimension,
        halves * min(l2**2 + 2 * l1 * tau + tau**2 * dimension, (l2 + math.sqrt(dimension) * tau) ** 2),
    )


@lru_cache(maxsize=CURVES_KEPT)
def _sampled_gaussian(event: SampledGaussian) -> Curve:
    """I. Mironov, K. Talwar, L. Zhang, "Renyi Differential Privacy of the Sampled Gaussian Mechanism" (2019)."""
    q, z = event.sample_rate, event.noise_multiplier
    if 0 < z < LEAST_SAMPLED_MULTIPLIER:
        return _infinite(np.array(ORDERS))
    if q == 1 or z == 0:
        return event.steps * rdp(Gaussian(noise_multiplier=z))
    moments = [_binomial_moment(q, z, order) if order == int(order) else _moment(q, z, order) for order in ORDERS]
    curve: Curve = event.steps * np.array([max(0.0, moment) for moment in moments]) / (np.array(ORDERS) - 1)
    return curve


def _binomial_moment(q: float, z: float, order: float) -> float:
    """The logarithm of ``_moment`` at an integer order: section 3.3, a binomial sum."""
    k = np.arange(int(order) + 1)
    choose = np.array([math.lgamma(order + 1) - math.lgamma(i + 1) - math.lgamma(order - i + 1) for i in k.tolist()])
    terms = choose + k * math.log(q) + (order - k) * math.log1p(-q) + k * (k - 1) / (2 * z**2)
    return float(np.logaddexp.reduce(terms))


def _moment(q: float, z: float, order: float) -> float:
    """Log E (1 - q + q exp((2 x - 1) / (2 z^2)))^order, x ~ N(0, z^2), at any order, by the trapezoidal rule.

    The integrand is analytic in a strip of half width pi z^2 around the real line and vanishes like a Gaussian outside
    [0, order], so with this step and these ends the error is that of double precision.
    """
    step = min(z, z**2) / 8
    x = np.arange(-14 * z, order + 14 * z, step)
    ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2 * x - 1) / (2 * z**2))
    total = np.logaddexp.reduce(order * ratio - x**2 / (2 * z**2))
    return float(total) + math.log(step / (z * math.sqrt(2 * math.pi)))


def _infinite(orders: Curve) -> Curve:
    return np.full(len(orders), math.inf)


def _converted(curve: Curve, delta: float) -> float:
    orders = np.array(ORDERS)
    candidates = curve + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return max(0.0, float(candidates.min()))
