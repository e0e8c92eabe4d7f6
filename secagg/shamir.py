"""Shamir's secret sharing (A. Shamir, CACM 22(11), 1979) of 32-byte secrets over ``field``."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from secagg import field
from secagg.errors import ParameterError, ShareError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SECRET_BYTES = 32
STEPS = 8
"""Of Horner's rule before a number is reduced: points are small, so that it stays short, and reducing is what costs."""


def split(secret: bytes, threshold: int, points: Sequence[int], entropy: Callable[[int], bytes]) -> dict[int, int]:
    """Shares of a secret, one for each evaluation point; any ``threshold`` of them rebuild it, fewer say nothing.

    Args:
        secret: 32 bytes.
        threshold: t, from 1 to the number of points.
        points: Distinct positive integers below the prime.
        entropy: Source of random bytes.

    Raises:
        ParameterError: An argument outside its domain.
    """
    if len(secret) != SECRET_BYTES:
        raise ParameterError(f"a secret has {SECRET_BYTES} bytes")
    if not 1 <= threshold <= len(points):
        raise ParameterError(f"share_threshold {threshold} is not in 1..{len(points)}, the number of share holders")
    if len(set(points)) != len(points) or not all(0 < point < field.PRIME for point in points):
        raise ParameterError("evaluation points must be distinct and positive")
    coefficients = [field.random(entropy) for _ in range(threshold - 1)]
    constant = int.from_bytes(secret, "big")
    shares = {}
    for point in points:
        value = 0
        for start in range(0, len(coefficients), STEPS):
            for coefficient in coefficients[start : start + STEPS]:
                value = (value + coefficient) * point
            value %= field.PRIME
        shares[point] = (value + constant) % field.PRIME
    return shares


def lagrange_at_zero(points: Sequence[int], spare: int | None = None) -> list[int]:
    """Coefficients that turn a polynomial's values at ``points`` into its value at 0.

    From barycentric weights (J.-P. Berrut and L. N. Trefethen, SIAM Review 46(3), 2004, section 3).

    Args:
        points: Distinct, positive.
        spare: A point that is not among them. Sets that make up the same set with their spare point share the work
            that grows with the square of their size; what is left for each grows with the size.

    Raises:
        ParameterError: ``spare`` is among them.
    """
    if spare in points:
        raise ParameterError("the spare point is one of the points")
    everywhere = tuple(sorted(points if spare is None else (*points, spare)))
    product, weights = _barycentric(everywhere)
    if spare is None:
        return [product * weights[point] % field.PRIME for point in points]
    product = product * pow(-spare, -1, field.PRIME) % field.PRIME
    return [product * weights[point] * (point - spare) % field.PRIME for point in points]


@lru_cache(maxsize=4)
def _barycentric(points: tuple[int, ...]) -> tuple[int, dict[int, int]]:
    """The node polynomial at 0, and of each point x its barycentric weight over 0 - x."""
    denominators = [
        -point * math.prod(point - other for other in points if other != point) % field.PRIME for point in points
    ]
    weights = dict(zip(points, field.inverses(denominators), strict=True))
    return math.prod(-point for point in points) % field.PRIME, weights


def rebuild(shares: Mapping[int, int], spare: int | None = None) -> bytes:
    """The secret from exactly as many shares as its threshold.

    Args:
        shares: Point to share.
        spare: As ``lagrange_at_zero``.

    Raises:
        ShareError: The shares do not lie on a polynomial whose constant is a 32-byte secret.
    """
    if not shares:
        raise ShareError("no shares")
    weights = lagrange_at_zero(list(shares), spare)
    constant = sum(weight * share for weight, share in zip(weights, shares.values(), strict=True)) % field.PRIME
    if constant >> (8 * SECRET_BYTES):
        raise ShareError("the shares rebuild no secret")
    return constant.to_bytes(SECRET_BYTES, "big")
