"""A lower bound on epsilon from the errors of one test, if the noise is as good as Gaussian.

Gaussian noise of standard deviation sigma on a change of length at most c is mu-GDP with mu = c / sigma: no test of two
neighbours errs less than that of N(0, 1) against N(mu, 1) (J. Dong, A. Roth, W. J. Su, "Gaussian Differential Privacy",
JRSS B 2022). So few errors say that mu is large, wherever the bar of the test is, and mu tells epsilon exactly. That
takes far fewer trials than to see errors that happen once in e^epsilon times. Source: M. Nasr, J. Hayes, T. Steinke, B.
Balle, F. Tramer, M. Jagielski, N. Carlini, A. Terzis, "Tight Auditing of Differentially Private Machine Learning"
(USENIX Security 2023).

There, both error rates are bounded by themselves. Here they are bounded together, at the bar midway between what is
expected with and without the canary, which needs no trials to choose: FPR + FNR >= 2 Phi(-mu / 2) for every test. With
as many trials of either kind, the number of errors is a sum of independent yes and no whose mean rate is r = (FPR +
FNR) / 2, and the chance that it is at most k <= 2 n r - 1 is at most that of a binomial variable with that rate (W.
Hoeffding, "On the Distribution of the Number of Successes in Independent Trials", Annals of Mathematical Statistics
1956): so the interval of Clopper and Pearson bounds r.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from scipy import special, stats

from attacks.dp.bound import ALPHA, SAYS, crossing
from attacks.measurement import Bound
from secagg.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from attacks.dp.bound import Claim

SOURCE = "Nasr et al., USENIX Security 2023"

LEAST_STD = 100.0
"""Steps of the grid in a standard deviation from which on integer noise is as good as Gaussian. With fewer, its tails
are heavier: the privacy loss grows ever slower there, and the formula below says more than is true. At 100 that is
less than 0.1 % of epsilon at a delta of 10^-5, at 10 some 3 %."""

MOST_MU = 37.0
"""Beyond it, errors are rarer than any number of trials."""


def bound(yes: NDArray[np.float64], no: NDArray[np.float64], bar: float, claim: Claim) -> Bound:
    """The lower bound that independent trials give.

    Args:
        yes: Scores of releases with the canary, (trials,).
        no: Scores of releases without it, (trials,).
        bar: Score from which on the test says yes; chosen without the scores.
        claim: What is claimed of one release.

    Raises:
        InputError: Not as many trials with the canary as without it, or none.
    """
    if len(yes) != len(no) or not len(yes):
        raise InputError(f"this bound needs as many trials with the canary as without it, not {len(yes)} and {len(no)}")
    wrong, trials = int((yes < bar).sum() + (no >= bar).sum()), len(yes) + len(no)
    return Bound(
        says=SAYS,
        epsilon=epsilon_at(mu(wrong, trials), claim.delta),
        claimed=claim.epsilon,
        ceiling=epsilon_at(mu(0, trials), claim.delta),
        delta=claim.delta,
        trials=trials,
        p_value=p_value(wrong, trials, claim),
    )


def mu(wrong: int, trials: int, alpha: float = ALPHA) -> float:
    """The lower bound on mu that a number of errors gives, 0 where it gives none.

    Args:
        wrong: Errors.
        trials: Half of them with the canary.
        alpha: How often the bound may exceed the true mu, below 1/2.
    """
    rate = float(stats.beta.ppf(1 - alpha, wrong + 1, trials - wrong)) if wrong < trials else 1.0
    return max(0.0, -2 * float(stats.norm.ppf(rate)))


def p_value(wrong: int, trials: int, claim: Claim) -> float:
    """How likely so few errors are, or fewer, with the Gaussian noise that a claim stands for.

    Args:
        wrong: As ``mu``.
        trials: As ``mu``.
        claim: What is claimed of one release.
    """
    if math.isinf(claim.epsilon):
        return 1.0
    rate = float(stats.norm.cdf(-mu_at(claim.epsilon, claim.delta) / 2))
    return float(stats.binom.cdf(wrong, trials, rate)) if wrong <= trials * rate - 1 else 1.0


def delta_at(epsilon: float, mu: float) -> float:
    """The exact delta of Gaussian noise at an epsilon.

    Source: B. Balle, Y.-X. Wang, "Improving the Gaussian Mechanism for Differential Privacy" (ICML 2018), Theorem 8.
    """
    if mu == 0:
        return 0.0
    less = math.exp(epsilon + float(special.log_ndtr(-mu / 2 - epsilon / mu)))
    return float(special.ndtr(mu / 2 - epsilon / mu)) - less


def epsilon_at(mu: float, delta: float) -> float:
    """The exact epsilon of Gaussian noise at a delta in (0, 1)."""
    least = -math.log(delta)
    return crossing(lambda epsilon: -delta_at(epsilon, mu), -delta, 0.0, mu**2 / 2 + mu * math.sqrt(2 * least) + 1)


def mu_at(epsilon: float, delta: float) -> float:
    """The mu of the Gaussian noise that has this epsilon at this delta, in (0, 1)."""
    return crossing(partial(delta_at, epsilon), delta, 0.0, MOST_MU)
