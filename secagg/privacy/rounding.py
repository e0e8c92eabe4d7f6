"""From a clipped update to integers whose norm is bounded for certain: conditional stochastic rounding.

Each coordinate goes up or down at random, so that its mean stays. The whole is rounded anew until it is no longer than
the sensitivity that the accountant counts on, which is checked in exact arithmetic: whatever floating point did on the
way, the bound holds. Source: P. Kairouz, Z. Liu, T. Steinke, "The Distributed Discrete Gaussian Mechanism for Federated
Learning with Secure Aggregation" (ICML 2021), section 4.1.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from secagg.prg import KEY_BYTES, PIECE, Stream
from secagg.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ATTEMPTS = 200
"""With ``sensitivity.BETA`` each succeeds with a probability of at least .39: all fail once in 10^42 times."""

_HALF = np.uint64(32)


def clipped(values: NDArray[np.float64], clip: float) -> tuple[NDArray[np.float64], bool]:
    """A vector of norm at most ``clip``, up to floating point, and whether it was longer before.

    Args:
        values: Finite.
        clip: The largest norm, positive.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0:
        return values, False
    relative = values / largest  # of which no square overflows, nor all of them underflow
    norm = float(np.linalg.norm(relative))
    return (relative * (clip / norm), True) if norm > clip / largest else (values, False)


def rounded(values: NDArray[np.float64], norm: float, entropy: Callable[[int], bytes]) -> NDArray[np.int64]:
    """Integers with the same mean, conditioned on an L2 norm of at most ``norm``; (len(values),) int64.

    Where no attempt is short enough, all values are rounded towards zero, which is never longer than they are. How many
    attempts it takes depends on the values a little, so whoever can time a client exactly learns that little.

    Args:
        values: Scaled, at most 2^32 - 2 in magnitude, and of an L2 norm that ``norm`` leaves room to round.
        norm: The bound.
        entropy: Source of random bytes.
    """
    floor = np.floor(values)
    share, low = values - floor, floor.astype(np.int64)
    for _ in range(ATTEMPTS):
        attempt = low + _below(share, entropy(KEY_BYTES))
        if within(attempt, norm):
            return attempt
    return np.trunc(values).astype(np.int64)


def within(integers: NDArray[np.int64], norm: float) -> bool:
    """Whether the L2 norm of a vector is at most ``norm``, exactly, for magnitudes below 2^32."""
    squares = np.square(np.abs(integers).view(np.uint64))
    high, low = int((squares >> _HALF).sum()), int((squares & np.uint64(0xFFFFFFFF)).sum())
    return (high << 32) + low <= Fraction(norm) ** 2


def _below(share: NDArray[np.float64], key: bytes) -> NDArray[np.bool_]:
    """For each share in [0, 1), true with that probability, up to 2^-53."""
    stream, chosen = Stream(key, Ring(64)), np.empty(len(share), bool)
    for start in range(0, len(share), PIECE):
        piece = share[start : start + PIECE]
        uniform = (stream.take(len(piece)) >> np.uint64(11)) * 2.0**-53
        np.less(uniform, piece, out=chosen[start : start + PIECE])
    return chosen
