"""A lower bound on epsilon from the errors of one test, with no assumption about the noise.

Whoever tells two neighbours apart by an (epsilon, delta)-private release has FPR + e^epsilon FNR >= 1 - delta, and the
same with the two rates exchanged (P. Kairouz, S. Oh, P. Viswanath, "The Composition Theorem for Differential Privacy",
ICML 2015). Upper bounds on both rates therefore bound epsilon from below. Source: M. Jagielski, J. Ullman, A. Oprea,
"Auditing Differentially Private Machine Learning: How Private is Private SGD?" (NeurIPS 2020), with the interval of C.
J. Clopper and E. S. Pearson (Biometrika 1934).

The test says yes where a score reaches a bar. Half of the trials choose the bar, the others count its errors; alpha is
shared evenly between the two rates.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from attacks.dp.bound import ALPHA, SAYS, p_value
from attacks.measurement import Bound, Rate
from secagg.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from attacks.dp.bound import Claim

SOURCE = "Jagielski, Ullman, Oprea, NeurIPS 2020 (intervals of Clopper and Pearson, 1934)"

FEWEST = 2
"""Trials for each answer: one to choose the bar, one to count."""


def bound(yes: NDArray[np.float64], no: NDArray[np.float64], claim: Claim) -> Bound:
    """The lower bound that independent trials give.

    Args:
        yes: Scores of releases with the canary, (trials,), in the order in which they were made.
        no: Scores of releases without it, (trials,).
        claim: What is claimed of one release.

    Raises:
        InputError: Fewer than two trials for an answer.
    """
    misses, alarms = errors(yes, no, claim.delta)
    ruled_out = partial(epsilon, misses, alarms, claim.delta)
    return Bound(
        says=SAYS,
        epsilon=ruled_out(),
        claimed=claim.epsilon,
        ceiling=epsilon(replace(misses, hits=0), replace(alarms, hits=0), claim.delta),
        delta=claim.delta,
        trials=len(yes) + len(no),
        p_value=p_value(ruled_out, claim.epsilon),
    )


def errors(yes: NDArray[np.float64], no: NDArray[np.float64], delta: float) -> tuple[Rate, Rate]:
    """How many of every second yes a test misses, and how often it is wrong about every second no.

    Args:
        yes: As ``bound``.
        no: As ``bound``.
        delta: Of the claim.

    Raises:
        InputError: Fewer than two trials for an answer.
    """
    if min(len(yes), len(no)) < FEWEST:
        raise InputError(f"a bound on epsilon needs {FEWEST} trials or more with the canary, and as many without it")
    bar = _best_bar(yes[::2], no[::2], delta)
    missed, alarmed = yes[1::2] < bar, no[1::2] >= bar
    return Rate(int(missed.sum()), len(missed)), Rate(int(alarmed.sum()), len(alarmed))


def epsilon(misses: Rate, alarms: Rate, delta: float, alpha: float = ALPHA) -> float:
    """The lower bound that the errors of a test give, which was chosen without them.

    Args:
        misses: False negatives.
        alarms: False positives.
        delta: In [0, 1).
        alpha: How often the bound may exceed the true epsilon, in (0, 1].
    """
    most = [_most(np.array([one.hits]), one.trials, alpha / 2) for one in (misses, alarms)]
    return max(0.0, float(_ruled_out(most[0], most[1], delta)[0]))


def _best_bar(yes: NDArray[np.float64], no: NDArray[np.float64], delta: float) -> float:
    """The bar that would give the best bound if the trials that choose it counted."""
    bars = np.unique(np.concatenate([yes, no]))
    missed = np.searchsorted(np.sort(yes), bars)
    alarmed = len(no) - np.searchsorted(np.sort(no), bars)
    found = _ruled_out(_table(len(yes))[missed], _table(len(no))[alarmed], delta)
    return float(bars[np.argmax(found)])


def _ruled_out(misses: NDArray[np.float64], alarms: NDArray[np.float64], delta: float) -> NDArray[np.float64]:
    """Largest epsilon that two rates rule out; below 0 where they rule out none."""
    with np.errstate(divide="ignore"):
        pairs = [np.log(np.maximum(1 - delta - one, 0) / other) for one, other in ((misses, alarms), (alarms, misses))]
    best: NDArray[np.float64] = np.maximum(*pairs)
    return best


@lru_cache
def _table(trials: int) -> NDArray[np.float64]:
    """``_most`` for every number of hits, (trials + 1,)."""
    table = _most(np.arange(trials + 1), trials, ALPHA / 2)
    table.setflags(write=False)
    return table


def _most(hits: NDArray[np.int64], trials: int, alpha: float) -> NDArray[np.float64]:
    """One-sided upper bounds on a rate, by how many of the trials were hits."""
    misses = np.maximum(trials - hits, 1)  # with none, the bound is 1 whatever the quantile
    most: NDArray[np.float64] = np.where(hits == trials, 1.0, stats.beta.ppf(1 - alpha, hits + 1, misses))
    return most
