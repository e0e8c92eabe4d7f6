"""Shamir's secret sharing (A. Shamir, CACM 22(11), 1979) of 32-byte secrets over ``field``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secagg import field
from secagg.errors import ParameterError, ShareError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SECRET_BYTES = 32


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
        for coefficient in coefficients:
            value = (value + coefficient) * point % field.PRIME
        shares[point] = (value + constant) % field.PRIME
    return shares


def lagrange_at_zero(points: Sequence[int]) -> list[int]:
    """Coefficients that turn a polynomial's values at ``points`` into its value at 0. Reusable for equal points."""
    coefficients = []
    for point in points:
        numerator, denominator = 1, 1
        for other in points:
            if other != point:
                numerator = numerator * other % field.PRIME
                denominator = denominator * (other - point) % field.PRIME
        coefficients.append(numerator * pow(denominator, -1, field.PRIME) % field.PRIME)
    return coefficients


def rebuild(shares: Mapping[int, int]) -> bytes:
    """The secret from exactly as many shares as its threshold.

    Raises:
        ShareError: The shares do not lie on a polynomial whose constant is a 32-byte secret.
    """
    if not shares:
        raise ShareError("no shares")
    weights = lagrange_at_zero(list(shares))
    constant = sum(weight * share for weight, share in zip(weights, shares.values(), strict=True)) % field.PRIME
    if constant >> (8 * SECRET_BYTES):
        raise ShareError("the shares rebuild no secret")
    return constant.to_bytes(SECRET_BYTES, "big")
