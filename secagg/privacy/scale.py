"""How fine a grid a ring has room for: the scale by which clients multiply before they round.

A sum that leaves the ring's range wraps around. That spoils the value and not the privacy, so the scale is the largest
at which it hardly ever happens. Noise of multiplier z on vectors of norm c adds z * c * scale to the standard deviation
of a coordinate, so all that has to fit is linear in the scale.
"""

from __future__ import annotations

import math

from secagg.errors import ParameterError

FINEST, FINEST_PER_ROOT = 1e4, 50.0
"""Where a finer grid gains nothing: at clip * scale = max(FINEST, FINEST_PER_ROOT * sqrt(d)), rounding adds about
2e-4 of it to the squared sensitivity at most, while the samplers' tables grow with the scale."""


def ring_scale(
    ring_bits: int,
    noise_multiplier: float,
    *,
    clients: int,
    clip: float,
    dimension: int,
    surplus: float = 1.0,
    wrap_probability: float = 1e-9,
) -> float:
    """The largest scale at which some coordinate of a noisy sum wraps with probability at most ``wrap_probability``.

    Whatever the clipped vectors are: a coordinate of each is at most clip * scale, and 1 more after rounding, so

        clients * (clip * scale + 1) + tail <= 2^(ring_bits - 1) - 1.

    With variance v, the logarithm of the moment-generating function of Skellam noise is v (cosh t - 1), at most
    v t^2 / (2 (1 - t / sqrt(12))), and that of discrete Gaussian noise at most v t^2 / 2 (Canonne, Kamath, Steinke
    2020). Either is sub-gamma: it lies beyond tail = sqrt(2 v L) + L / sqrt(12), on either side, with probability at
    most e^-L (S. Boucheron, G. Lugosi, P. Massart, "Concentration Inequalities", 2013, section 2.4).
    L = ln(2 d / wrap_probability) covers both sides and all coordinates.

    Args:
        ring_bits: Width b of the ring.
        noise_multiplier: Standard deviation of the guaranteed noise over ``clip``, not negative.
        clients: Most clients in the sum.
        clip: L2 norm to which their vectors are clipped.
        dimension: Coordinates d.
        surplus: How many times the guaranteed variance the sum may carry, when nobody drops out; at least 1.
        wrap_probability: In (0, 1).

    Raises:
        ParameterError: A setting outside its domain, or the ring cannot hold such a sum at any scale.
    """
    _check(noise_multiplier, surplus)
    if not 0 < wrap_probability < 1:
        raise ParameterError(f"wrap_probability must be in (0, 1), not {wrap_probability}")
    log_odds = math.log(2 * dimension / wrap_probability)
    room = math.ldexp(1, ring_bits - 1) - 1 - clients - log_odds / math.sqrt(12)
    if room <= 0:
        raise ParameterError(
            f"ring_bits {ring_bits} cannot hold a sum of {clients} clients: raise it, or lower clients"
        )
    scale = room / (clip * (clients + noise_multiplier * math.sqrt(2 * surplus * log_odds)))
    return min(scale, _finest(clip, dimension))


def rotated_ring_scale(
    ring_bits: int,
    noise_multiplier: float,
    *,
    clients: int,
    clip: float,
    dimension: int,
    surplus: float = 1.0,
    stds: float = 4.0,
) -> float:
    """The largest scale at which ``stds`` standard deviations of a coordinate fit, after a random rotation.

    The rotation spreads a sum of norm at most clients * clip evenly over the coordinates, so that each is about
    sub-Gaussian with variance (clients * clip * scale)^2 / d, to which rounding adds clients / 4 and noise its own.
    Source: Kairouz, Liu, Steinke (ICML 2021), section 4.4, with flatness 1.

    Args:
        ring_bits: As ``ring_scale``.
        noise_multiplier: As ``ring_scale``.
        clients: As ``ring_scale``.
        clip: As ``ring_scale``.
        dimension: As ``ring_scale``.
        surplus: As ``ring_scale``.
        stds: How many, positive: a coordinate wraps with a probability of about 6e-5 at 4.

    Raises:
        ParameterError: A setting outside its domain, or the ring cannot hold such a sum at any scale.
    """
    _check(noise_multiplier, surplus)
    if not 0 < stds < math.inf:
        raise ParameterError(f"stds must be positive and finite, not {stds}")
    room = (math.ldexp(1, ring_bits - 1) / stds) ** 2 - clients / 4
    if room <= 0:
        raise ParameterError(
            f"ring_bits {ring_bits} cannot hold a sum of {clients} clients: raise it, or lower clients"
        )
    scale = math.sqrt(room / (clients**2 / dimension + surplus * noise_multiplier**2)) / clip
    return min(scale, _finest(clip, dimension))


def _check(noise_multiplier: float, surplus: float) -> None:
    if not (0 <= noise_multiplier < math.inf and 1 <= surplus < math.inf):
        raise ParameterError("noise_multiplier must be finite and not negative, surplus finite and at least 1")


def _finest(clip: float, dimension: int) -> float:
    return max(FINEST, FINEST_PER_ROOT * math.sqrt(dimension)) / clip
