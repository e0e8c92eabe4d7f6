"""Membership by likelihood: how sure is the model, beside models that learnt the example and models that did not.

Some examples are easy to everybody and others to nobody. Models of the attacker's own, each trained on half of the
examples that it has, say how sure a model is of this one with it and without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy import special, stats

from attacks.attack import Distinguisher, Threat

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Shadowed:
    """What the model and the attacker's shadow models say of one example.

    Args:
        logits: Of the model, (classes,).
        label: That the example has.
        shadows: Logits of the shadow models, (models, classes).
        learnt: Which of those learnt the example, (models,) bool; at least one did and one did not.
        spread: Standard deviation of the confidence about its mean over models that learnt an example, and over those
            that did not, from all examples that the attacker has: few shadow models say little of one alone.
    """

    logits: NDArray[np.float64]
    label: int
    shadows: NDArray[np.float64]
    learnt: NDArray[np.bool_]
    spread: tuple[float, float]


def confidence(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The logit of the probability of the label, log(p / (1 - p)), whose distribution is close to a normal one.

    Args:
        logits: (..., classes).
        labels: (...).

    Returns:
        (...), computed without ever rounding 1 - p to zero.
    """
    own = labels[..., None] == np.arange(logits.shape[-1])
    others = np.where(own, -np.inf, logits)
    chosen = np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    sure: NDArray[np.float64] = chosen - special.logsumexp(others, axis=-1)
    return sure


def spread(confidences: NDArray[np.float64], learnt: NDArray[np.bool_]) -> tuple[float, float]:
    """Standard deviations about the mean of each example, with it and without it, pooled over examples.

    Args:
        confidences: (models, examples).
        learnt: (models, examples) bool.
    """

    def pooled(part: NDArray[np.bool_]) -> float:
        times = part.sum(axis=0)
        means = (confidences * part).sum(axis=0) / np.maximum(times, 1)
        squares = ((confidences - means) ** 2 * part).sum()
        return float(np.sqrt(squares / max(1, np.maximum(times - 1, 0).sum())))

    return pooled(learnt), pooled(~learnt)


class Lira(Distinguisher[Shadowed]):
    """The online attack with one variance for all examples (section V.B and VI.C of the paper)."""

    name: ClassVar[str] = "LiRA"
    threat: ClassVar[Threat] = Threat.THE_MODEL
    source: ClassVar[str] = "Carlini et al., 'Membership Inference Attacks From First Principles', S&P 2022"

    def guess(self, view: Shadowed, rng: np.random.Generator) -> float:  # noqa: ARG002 - nothing is random
        """Log of the likelihood ratio of having learnt the example to not having."""
        labels = np.full(len(view.shadows), view.label)
        seen, own = confidence(view.shadows, labels), confidence(view.logits, np.asarray(view.label))
        inside, outside = (
            stats.norm.logpdf(own, seen[part].mean(), max(width, 1e-6))
            for part, width in zip((view.learnt, ~view.learnt), view.spread, strict=True)
        )
        return float(inside - outside)
