"""One attack: what somebody sees, and what they make of it. Nothing else is passed to it.

What is to be found out, the secret, never reaches the attack: a ``Trial`` keeps it beside the view, and whoever judges
holds the guess against it.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    import numpy as np

View = TypeVar("View")
Secret = TypeVar("Secret")
Guess = TypeVar("Guess")


class Threat(enum.Enum):
    """What an attacker sees."""

    ONE_UPLOAD = "a server that looks at what one client uploads"
    THE_SUM = "a server, or anybody who is given the sum of one round"
    SEVERAL_ROUNDS = "a server that compares the sums of several rounds"
    CRAFTED_MODELS = "a server that hands out models made to leak"
    THE_MASKS = "a server, or a client, that reads who holds which coordinates"
    THE_MODEL = "anybody who is given the final model"
    THE_TRANSCRIPT = "a server or clients that break the protocol's rules"


@dataclass(frozen=True, eq=False)
class Trial(Generic[View, Secret]):
    """One case to try an attack on.

    Args:
        view: What the attacker sees.
        secret: What it is after; for the judge alone.
    """

    view: View
    secret: Secret


class Attack(ABC, Generic[View, Guess, Secret]):
    """One attack. Every one inherits the tests of ``tests/unit/attacks/conformance.py``.

    A subclass says below what it is called, and is either a ``Reconstruction`` or a ``Distinguisher``.
    """

    name: ClassVar[str]
    """Of the attack, as reports call it."""
    threat: ClassVar[Threat]
    """What it takes for granted."""
    source: ClassVar[str]
    """The paper that it comes from."""

    @abstractmethod
    def guess(self, view: View, rng: np.random.Generator) -> Guess:
        """What the attacker makes of a view.

        Args:
            view: What it sees; left as it is.
            rng: Of whatever it tries at random.
        """


class Reconstruction(Attack[View, Guess, Secret]):
    """An attack that makes up what it cannot see: examples, an update, labels."""

    unit: ClassVar[str]
    """Of the quality: ``"dB"``, ``"cosine"``, ``"share of labels"``."""
    success: ClassVar[float]
    """Quality from which on a guess counts as right."""

    @abstractmethod
    def quality(self, guess: Guess, secret: Secret) -> float:
        """How near a guess comes; more is nearer. An attack that gave up gets the least there is, never NaN."""


class Distinguisher(Attack[View, float, bool]):
    """An attack that answers yes or no: its guess is the higher the surer it is of yes."""
