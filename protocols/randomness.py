"""Randomness of experiments: one seed, and a stream of its own for every purpose.

numpy's streams are for data, cohorts and training, never for keys, masks or noise. Those of a simulated session come
from ``session_seed``; a deployment leaves it out, and they come from the operating system.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """The stream of a purpose, such as drawing the cohort of a round.

    Args:
        seed: Of the experiment.
        purpose: In words. numpy pads what it is seeded with by zeros, so numbers alone would give two purposes one
            stream; the words keep them apart.
        numbers: A round, a client.
    """
    return np.random.default_rng([_word(purpose), len(numbers), seed, *numbers])


def number(seed: int, purpose: str, *numbers: int) -> int:
    """64 bits of that stream, to seed another library's generator."""
    return int(generator(seed, purpose, *numbers).integers(1 << 63))


def session_seed(*what: object) -> bytes:
    """What makes the secrets of a simulated session repeatable: all that tells it from every other session.

    Two sessions over different values must not share secrets, or one vector less the other shows the difference.
    """
    return hashlib.sha256(repr(what).encode()).digest()


def _word(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
