"""Gaussian noise from a cryptographic stream, in floating point.

Its low bits can tell more than those of a real number would (I. Mironov, "On Significance of the Least Significant Bits
for Differential Privacy", CCS 2012), so nothing here is added in a session, whose noise is made of integers
(``noise``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secagg.prg import PIECE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from secagg.prg import Stream


def normal(stream: Stream, count: int) -> NDArray[np.float64]:
    """Standard normal numbers, (count,), from pairs of 64-bit words by the method of G. Box and M. Muller (1958).

    Exact but for the rounding of float64, and for the tails beyond 9.4.

    Args:
        stream: Of 64-bit words.
        count: How many.
    """
    one, other = words(stream, 2 * -(-count // 2)).astype(np.float64).reshape(2, -1)
    radius, angle = np.sqrt(-2 * np.log((one + 1) * 2.0**-64)), 2 * np.pi * 2.0**-64 * other
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def words(stream: Stream, count: int) -> NDArray[np.uint64]:
    """The next words of a stream, (count,) uint64.

    Args:
        stream: Of 64-bit words.
        count: How many.
    """
    taken = np.empty(count, np.uint64)
    for start in range(0, count, PIECE):
        piece = taken[start : start + PIECE]
        piece[:] = stream.take(len(piece))
    return taken
