"""A lower bound on epsilon from a single release with many canaries, each of them in it or not by the toss of a coin.

Whoever guesses which are in is right about each no oftener than e^epsilon / (1 + e^epsilon), and independently so, but
for what delta allows: so the number of right guesses among those that were dared is no larger than a binomial variable.
Nothing is assumed about the noise. Source: T. Steinke, M. Nasr, M. Jagielski, "Privacy Auditing with One (1) Training
Run" (NeurIPS 2023), Theorem 5.2.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from attacks.dp.bound import ALPHA, MOST_EPSILON, SAYS, Claim, crossing
from attacks.measurement import Bound
from secagg.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOURCE = "Steinke, Nasr, Jagielski, NeurIPS 2023"

MARGINS = 25
"""How many distances from the bar, from which on a guess is dared, are compared."""


def bound(scores: NDArray[np.float64], inside: NDArray[np.bool_], bar: float, guesses: int, claim: Claim) -> Bound:
    """The lower bound that one release gives: of the scores, those furthest from the bar are the surest.

    Args:
        scores: Of each canary, (canaries,).
        inside: Which ones are in the release, each by the toss of a coin, (canaries,) bool.
        bar: Score from which on a canary is guessed to be in.
        guesses: How many are dared; chosen without the scores.
        claim: What is claimed of the release.

    Raises:
        InputError: ``guesses`` is below 1, or more than there are canaries.
    """
    canaries = len(scores)
    if not 1 <= guesses <= canaries:
        raise InputError(f"guesses must be at least 1 and at most {canaries}, not {guesses}")
    surest = np.argsort(-np.abs(scores - bar), kind="stable")[:guesses]
    right = int(((scores >= bar) == inside)[surest].sum())
    return Bound(
        says=SAYS,
        epsilon=epsilon(canaries, guesses, right, claim.delta),
        claimed=claim.epsilon,
        ceiling=epsilon(canaries, guesses, guesses, claim.delta),
        delta=claim.delta,
        trials=canaries,
        p_value=p_value(canaries, guesses, right, claim),
    )


def p_value(canaries: int, guesses: int, right: int, claim: Claim) -> float:
    """How likely so many right guesses are, at most, if a claim holds: Theorem 5.2.

    With f(v) = P(Binomial(guesses, e^epsilon / (1 + e^epsilon)) >= v), it is f(right) and, for what delta allows, 2
    canaries delta times the largest (f(right - i) - f(right)) / i.

    Args:
        canaries: As many as were tossed for.
        guesses: As many as were dared.
        right: Of those.
        claim: What is claimed of the release.
    """
    if right == 0:
        return 1.0
    chance = 1 / (1 + math.exp(-claim.epsilon))
    further = np.arange(1, right + 1)
    gained = np.cumsum(stats.binom.pmf(right - further, guesses, chance)) / further
    return float(min(1.0, stats.binom.sf(right - 1, guesses, chance) + 2 * canaries * claim.delta * gained.max()))


@lru_cache(maxsize=1024)
def epsilon(canaries: int, guesses: int, right: int, delta: float, alpha: float = ALPHA) -> float:
    """The largest epsilon under which so many right guesses are no likelier than ``alpha``; 0 where there is none.

    Args:
        canaries: As ``p_value``.
        guesses: As ``p_value``.
        right: As ``p_value``.
        delta: In (0, 1).
        alpha: How often the bound may exceed the true epsilon.
    """
    return crossing(lambda value: p_value(canaries, guesses, right, Claim(value, delta)), alpha, 0.0, MOST_EPSILON)


def best_guesses(canaries: int, mu: float, delta: float) -> int:
    """How many guesses to dare for the best bound, if scores are N(0, 1) without and N(mu, 1) with the canary.

    Fewer guesses are surer, more of them weigh more. Any number is valid as long as it is chosen before the scores are
    looked at.

    Args:
        canaries: How many there are, at least 1.
        mu: What the noise is meant to be; infinite without noise.
        delta: In (0, 1).
    """
    if math.isinf(mu):
        return canaries

    def expected(guesses: int, share: float) -> float:
        return epsilon(canaries, guesses, math.floor(guesses * share), delta)

    margins = np.linspace(0, mu / 2 + 3, MARGINS)
    right, wrong = stats.norm.cdf(mu / 2 - margins), stats.norm.cdf(-mu / 2 - margins)
    dared = np.clip(np.rint(canaries * (right + wrong)), 1, canaries).astype(int).tolist()
    ways: list[tuple[int, float]] = list(zip(dared, (right / (right + wrong)).tolist(), strict=True))
    return max(ways, key=lambda way: expected(*way))[0]
