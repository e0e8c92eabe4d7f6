"""How near a guess comes to what it guesses at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPPOSITE = -1.0
"""The cosine of a guess that is not one: the least there is."""


def cosine(guess: NDArray[np.float64], secret: NDArray[np.float64]) -> float:
    """Cosine of the angle between two vectors; ``OPPOSITE`` where the guess is zero, or no number."""
    lengths = float(np.linalg.norm(guess) * np.linalg.norm(secret))
    return float(guess @ secret) / lengths if 0 < lengths < np.inf else OPPOSITE
