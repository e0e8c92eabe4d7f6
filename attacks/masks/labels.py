"""Which labels a client has, from the coordinates that it declares to hold.

A model moves most where an example's label is decided, so a mask that follows the update follows the labels. The
attacker has the model of the round, knows the rule by which masks are made, and has a few examples of each label: it
plays clients with every set of labels, and finds whose mask is most like the one that was declared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from attacks.attack import Reconstruction, Threat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Holding:
    """What a server knows of one client's mask, beside what clients that it made up would hold.

    Args:
        evidence: (d,): 1 where the client declares to hold a coordinate, else 0; where masks stay secret, how many of
            all clients hold it as far as counts say.
        templates: Set of labels to the share of the made-up clients with those labels that hold each coordinate, (d,).
    """

    evidence: NDArray[np.float64]
    templates: Mapping[frozenset[int], NDArray[np.float64]]


class LabelInference(Reconstruction[Holding, "frozenset[int]", "frozenset[int]"]):
    """Names the labels of the made-up clients whose masks correlate most with what is known."""

    name: ClassVar[str] = "label inference"
    threat: ClassVar[Threat] = Threat.THE_MASKS
    source: ClassVar[str] = "after Kato et al., 'OLIVE: Oblivious Federated Learning on TEE', VLDB 2023"
    unit: ClassVar[str] = "Jaccard index"
    success: ClassVar[float] = 1.0

    def guess(self, view: Holding, rng: np.random.Generator) -> frozenset[int]:
        """The labels; any of the sets, at random, of those that fit equally well."""
        sets = list(view.templates)
        shares = np.array([view.templates[labels] for labels in sets])
        centred = shares - shares.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(centred, axis=1)
        fits = centred @ (view.evidence - view.evidence.mean()) / np.where(norms, norms, 1.0)
        return sets[int(rng.choice(np.flatnonzero(fits == fits.max())))]

    def quality(self, guess: frozenset[int], secret: frozenset[int]) -> float:
        """Labels in both sets, over those in either."""
        return len(guess & secret) / len(guess | secret)
