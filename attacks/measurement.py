"""What attacks came to over many trials, with the interval that so many trials allow, beside what chance comes to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from secagg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from attacks.attack import Distinguisher, Guess, Reconstruction, Secret, Trial, View

CONFIDENCE = 0.95
"""Of every interval in a report."""


@dataclass(frozen=True)
class Rate:
    """So many of so many.

    Args:
        hits: Of the trials.
        trials: At least one.
    """

    hits: int
    trials: int

    @property
    def value(self) -> float:
        """The share."""
        return self.hits / self.trials

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Two-sided and exact, at ``CONFIDENCE`` (Clopper and Pearson, Biometrika 1934)."""
        tail, hits, misses = (1 - CONFIDENCE) / 2, self.hits, self.trials - self.hits
        low = float(stats.beta.ppf(tail, hits, misses + 1)) if hits else 0.0
        high = float(stats.beta.ppf(1 - tail, hits + 1, misses)) if misses else 1.0
        return low, high


class Measurement(ABC):
    """What an attack came to."""

    @property
    @abstractmethod
    def value(self) -> float:
        """The figure."""

    @property
    @abstractmethod
    def interval(self) -> tuple[float, float]:
        """Where the figure lies, at ``CONFIDENCE``."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """The figure of whoever sees nothing."""

    if TYPE_CHECKING:  # some have these as fields, for which an inherited property would be the default

        @property
        def says(self) -> str:
            """What the figure is, to who knows nothing of the attack: ``"images recovered (20 dB or more)"``."""

        @property
        def trials(self) -> int:
            """How many trials it rests on."""

        @property
        def p_value(self) -> float:
            """How likely chance alone comes to this figure, or a better one."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        low, high = self.interval
        return {
            "measures": self.says,
            "value": self.value,
            "low": low,
            "high": high,
            "chance": self.chance,
            "p_value": self.p_value,
            "trials": self.trials,
        }


@dataclass(frozen=True, eq=False)
class Recovery(Measurement):
    """How often a reconstruction is right, beside how right it is about somebody else.

    Args:
        says: As ``Measurement``.
        success: Quality from which on a guess counts as right.
        unit: Of the quality.
        qualities: Of each guess, held against its own secret, (trials,).
        elsewhere: Of the same guesses, held against the secrets of other trials: the same knowledge of what data look
            like, but of nobody in particular.
    """

    says: str
    success: float
    unit: str
    qualities: NDArray[np.float64]
    elsewhere: NDArray[np.float64]

    @cached_property
    def rate(self) -> Rate:
        """How many guesses are right."""
        return Rate(int((self.qualities >= self.success).sum()), len(self.qualities))

    @property
    def value(self) -> float:
        """Share of the guesses that are right."""
        return self.rate.value

    @property
    def interval(self) -> tuple[float, float]:
        """Exact."""
        return self.rate.interval

    @property
    def chance(self) -> float:
        """Share of the guesses that are right about somebody else."""
        return float((self.elsewhere >= self.success).mean())

    @property
    def trials(self) -> int:
        """Guesses."""
        return len(self.qualities)

    @property
    def median(self) -> float:
        """Median quality."""
        return float(np.median(self.qualities))

    @property
    def p_value(self) -> float:
        """Fisher's exact test, one-sided, of right guesses against those right about somebody else."""
        lucky = int((self.elsewhere >= self.success).sum())
        table = [[self.rate.hits, self.trials - self.rate.hits], [lucky, len(self.elsewhere) - lucky]]
        return float(stats.fisher_exact(table, alternative="greater").pvalue)

    def to_json(self) -> dict[str, Any]:
        """With the median quality."""
        return super().to_json() | {"median_quality": self.median, "unit": self.unit}


@dataclass(frozen=True, eq=False)
class Detection(Measurement):
    """How well a distinguisher tells yes from no.

    Args:
        says: As ``Measurement``; the figure is the area under the ROC curve.
        yes: Scores where the answer was yes, at least one.
        no: Scores where it was no, at least one.
    """

    says: str
    yes: NDArray[np.float64]
    no: NDArray[np.float64]

    @cached_property
    def value(self) -> float:
        """Area under the ROC curve: how often a yes scores above a no, ties counted half."""
        ranks = stats.rankdata(np.concatenate([self.yes, self.no]))
        wins = ranks[: len(self.yes)].sum() - len(self.yes) * (len(self.yes) + 1) / 2
        return float(wins / (len(self.yes) * len(self.no)))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """By the variances of the placements (DeLong, DeLong and Clarke-Pearson, Biometrics 1988), on the logit scale.

        Where every yes is above every no, or the other way round, those are zero: then the exact interval of as many
        pairs of trials as there are.
        """
        area, pairs = self.value, min(len(self.yes), len(self.no))
        if area in {0.0, 1.0} or pairs == 1:
            return Rate(round(area * pairs), pairs).interval
        above = (stats.rankdata(np.concatenate([self.yes, self.no]))[: len(self.yes)] - stats.rankdata(self.yes)) / len(
            self.no
        )
        below = (stats.rankdata(np.concatenate([self.no, self.yes]))[: len(self.no)] - stats.rankdata(self.no)) / len(
            self.yes
        )
        error = np.sqrt(above.var(ddof=1) / len(self.yes) + below.var(ddof=1) / len(self.no))
        centre, width = np.log(area / (1 - area)), stats.norm.ppf((1 + CONFIDENCE) / 2) * error / (area * (1 - area))
        low, high = 1 / (1 + np.exp([width - centre, -width - centre]))
        return float(low), float(high)

    @property
    def chance(self) -> float:
        """Half."""
        return 0.5

    @property
    def trials(self) -> int:
        """Scores."""
        return len(self.yes) + len(self.no)

    @property
    def p_value(self) -> float:
        """The rank test of Mann and Whitney, one-sided."""
        return float(stats.mannwhitneyu(self.yes, self.no, alternative="greater").pvalue)

    def tpr(self, fpr: float) -> Rate:
        """True positives where at most so large a share of the negatives counts as positive.

        Args:
            fpr: The largest share of false positives, in [0, 1].
        """
        allowed = int(fpr * len(self.no) + 1e-9)
        bar = np.sort(self.no)[::-1][allowed] if allowed < len(self.no) else -np.inf
        return Rate(int((self.yes > bar).sum()), len(self.yes))

    def curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """False and true positive rates from (0, 0) to (1, 1), both non-decreasing."""
        bars = np.unique(np.concatenate([self.yes, self.no, [np.inf]]))[::-1]
        rates = [np.searchsorted(np.sort(-one), -bars, side="right") / len(one) for one in (self.no, self.yes)]
        return rates[0], rates[1]

    def to_json(self) -> dict[str, Any]:
        """With the true positives at few false ones."""
        return super().to_json() | {
            f"tpr_at_fpr_{fpr}": {"value": self.tpr(fpr).value, "low": self.tpr(fpr).interval[0]}
            for fpr in (0.01, 0.001)
        }


@dataclass(frozen=True)
class Exposure(Measurement):
    """What can be counted without any chance in it: exposed coordinates, singled-out clients.

    Args:
        says: As ``Measurement``; the figure is a share.
        exposed: Of those that could be.
        of: How many could be.
    """

    says: str
    exposed: int
    of: int

    @property
    def value(self) -> float:
        """The share."""
        return self.exposed / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The share itself: it was counted, not sampled."""
        return self.value, self.value

    @property
    def chance(self) -> float:
        """None."""
        return 0.0

    @property
    def trials(self) -> int:
        """How many were counted."""
        return self.of

    @property
    def p_value(self) -> float:
        """0 where anything is exposed, else 1."""
        return 0.0 if self.exposed else 1.0


@dataclass(frozen=True)
class Bound(Measurement):
    """A lower bound on epsilon, and the epsilon that is claimed.

    Args:
        says: As ``Measurement``.
        epsilon: Largest epsilon that the trials rule out, at ``CONFIDENCE``; 0 where they rule out none.
        claimed: What the accountant says; infinite where nothing is claimed.
        ceiling: The largest bound that so many trials could give: a small one is no sign of safety.
        delta: Of both.
        trials: How many.
        p_value: How likely trials like these are if the claim holds.
    """

    says: str
    epsilon: float
    claimed: float
    ceiling: float
    delta: float
    trials: int
    p_value: float

    @property
    def value(self) -> float:
        """The lower bound."""
        return self.epsilon

    @property
    def interval(self) -> tuple[float, float]:
        """From the bound up."""
        return self.epsilon, float("inf")

    @property
    def chance(self) -> float:
        """The claim: what is above it is not chance."""
        return self.claimed

    def to_json(self) -> dict[str, Any]:
        """With what it could have come to; infinities are null, which JSON has no number for."""
        plain = super().to_json() | {"claimed": self.claimed, "ceiling": self.ceiling, "delta": self.delta}
        return {name: None if value == float("inf") else value for name, value in plain.items()}


def measure_reconstruction(
    attack: Reconstruction[View, Guess, Secret],
    trials: Sequence[Trial[View, Secret]],
    rng: np.random.Generator,
    says: str,
) -> Recovery:
    """Runs an attack on every trial, and holds each guess against its own secret and against the next trial's.

    Args:
        attack: The attack.
        trials: At least two, whose secrets were drawn alike.
        rng: Passed on.
        says: As ``Measurement``.

    Raises:
        InputError: Fewer than two trials.
    """
    return judged(attack, trials, [attack.guess(trial.view, rng) for trial in trials], says)


def judged(
    attack: Reconstruction[View, Guess, Secret],
    trials: Sequence[Trial[View, Secret]],
    guesses: Sequence[Guess],
    says: str,
) -> Recovery:
    """As ``measure_reconstruction``, of guesses that are made already, since they are to be shown too.

    Args:
        attack: Whose guesses.
        trials: At least two, whose secrets were drawn alike.
        guesses: One for each.
        says: As ``Measurement``.

    Raises:
        InputError: Fewer than two trials.
    """
    if len(trials) < 2:
        raise InputError(f"{attack.name} needs two trials or more: one guess is judged by another's secret")
    own = [attack.quality(guess, trial.secret) for guess, trial in zip(guesses, trials, strict=True)]
    other = [
        attack.quality(guess, trial.secret) for guess, trial in zip(guesses, [*trials[1:], trials[0]], strict=True)
    ]
    return Recovery(says, attack.success, attack.unit, np.array(own), np.array(other))


def measure_distinguisher(
    attack: Distinguisher[View], trials: Iterable[Trial[View, bool]], rng: np.random.Generator, says: str
) -> Detection:
    """Runs an attack on every trial, one after another, and parts its scores by the answers.

    Args:
        attack: The attack.
        trials: At least one for each answer.
        rng: Passed on.
        says: As ``Measurement``.

    Raises:
        InputError: All answers are the same.
    """
    scores: dict[bool, list[float]] = {True: [], False: []}
    for trial in trials:
        scores[trial.secret].append(attack.guess(trial.view, rng))
    if not scores[True] or not scores[False]:
        raise InputError(f"{attack.name} needs trials of both answers")
    return Detection(says, np.array(scores[True], np.float64), np.array(scores[False], np.float64))
