"""A public random rotation, after which no coordinate of a vector is large: what a narrow ring has room for.

Random signs, then the Walsh-Hadamard transform, each its own inverse up to scale; norms stay. Source: P. Kairouz, Z.
Liu, T. Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation" (ICML
2021), section 4.3. Privacy does not rest on the signs; only whether a sum leaves the ring does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secagg.prg import PIECE, Stream
from secagg.ring import Ring

if TYPE_CHECKING:
    from numpy.typing import NDArray


def padded(size: int) -> int:
    """The length of a rotated vector: the next power of two."""
    return 1 << max(0, size - 1).bit_length()


def rotate(vector: NDArray[np.float64], key: bytes) -> NDArray[np.float64]:
    """The rotated vector, (padded(size),) float64.

    Args:
        vector: (size,), padded with zeros.
        key: 16 bytes, known to everybody.
    """
    whole = np.zeros(padded(len(vector)))
    whole[: len(vector)] = vector
    return _transformed(whole * _signs(len(whole), key))


def restore(rotated: NDArray[np.float64], size: int, key: bytes) -> NDArray[np.float64]:
    """The vector that was rotated, (size,) float64.

    Args:
        rotated: (padded(size),).
        size: Of the vector before.
        key: The same.
    """
    return (_transformed(rotated) * _signs(len(rotated), key))[:size]


def _transformed(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The orthonormal Walsh-Hadamard transform; the length is a power of two."""
    width = 1
    while width < len(vector):
        pairs = vector.reshape(-1, 2, width)
        vector = np.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), axis=1).reshape(-1)
        width *= 2
    scaled: NDArray[np.float64] = vector / np.sqrt(len(vector))
    return scaled


def _signs(count: int, key: bytes) -> NDArray[np.float64]:
    stream, signs = Stream(key, Ring(16)), np.empty(count)
    for start in range(0, count, PIECE):
        piece = signs[start : start + PIECE]
        piece[:] = 1.0 - 2.0 * (stream.take(len(piece)) & np.uint16(1))
    return signs
