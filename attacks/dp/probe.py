"""Lower bounds on the epsilon of a deployment's sums, beside what its accountant says one of them costs."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from attacks.attack import Threat
from attacks.dp import clopper_pearson, gaussian, one_run, oracle
from attacks.dp.bound import SAYS, Claim
from attacks.dp.canary import Projection, Sums
from attacks.finding import Cure, Finding
from attacks.measurement import Bound, measure_distinguisher
from attacks.protections import DELTA, EPSILON, ROUNDS
from secagg import PrivacyBudget
from secagg.errors import AbortError, ParameterError, SecAggError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attacks.deployment import Deployment
    from attacks.finding import Effort
    from secagg.params import Mode

QUESTION = "Does one sum say more of a client than its privacy budget allows?"

Row = partial[Finding]
"""A line that lacks nothing but its attack, its figure and what there is to say about both."""


def probe(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> Iterator[Finding]:
    """Bounds epsilon in three ways from trials, and computes it in one.

    Args:
        deployment: Whose sums to look at.
        effort: ``noise_trials`` of each bound.
        rng: Of signs and coins.
    """
    privacy = deployment.params.privacy
    delta = DELTA if privacy is None else privacy.delta
    sums = Sums.of(deployment, rng)
    row = partial(Finding, question=QUESTION, threat=Threat.THE_SUM, deployment=deployment.name)
    try:
        claim = Claim(sums.claimed(delta), delta)
    except AbortError as error:
        yield row(attack="lower bounds on epsilon", measurement=None, claimed=False, note=f"no round ends: {error}")
        return
    private = math.isfinite(claim.epsilon)
    row = partial(row, claimed=private, cures=() if private else _cures(deployment, sums.norm))
    scores = measure_distinguisher(Projection(), sums.trials(2 * max(2, effort.noise_trials // 2), rng), rng, SAYS)
    yes, no = scores.yes, scores.no
    told = f"{len(yes)} sums of {len(sums.masks)} clients with one update of norm {sums.norm:.3g}, {len(no)} without it"
    yield row(
        attack="lower bound without assumptions",
        measurement=clopper_pearson.bound(yes, no, claim),
        note=f"{told}; half of them choose the test. Nothing is assumed about the noise.",
        source=clopper_pearson.SOURCE,
    )
    fine = sums.noise_std >= gaussian.LEAST_STD
    yield row(
        attack="lower bound for Gaussian noise",
        measurement=gaussian.bound(yes, no, sums.bar, claim) if fine else None,
        note=f"{told}. Holds where noise is Gaussian: integer noise of a standard deviation of {gaussian.LEAST_STD:g} "
        "steps of the grid is near enough."
        if fine
        else f"the noise spans {sums.noise_std:.2g} steps of the grid, too few to be taken for Gaussian",
        source=gaussian.SOURCE,
    )
    yield _one_run(row, sums, effort, delta, rng)
    yield _exact(row, deployment, sums, claim)


def _one_run(row: Row, sums: Sums, effort: Effort, delta: float, rng: np.random.Generator) -> Finding:
    """A single sum of many clients, under the same settings."""
    named = partial(row, attack="lower bound from a single sum", source=one_run.SOURCE)
    canaries = min(effort.noise_trials, sums.aggregator.layout.size)
    crowd, attack = sums.crowd(max(canaries, len(sums.masks))), Projection()
    try:
        claim, trials = Claim(crowd.claimed(delta), delta), crowd.tossed(rng)
    except (AbortError, ParameterError) as error:
        return named(measurement=None, note=f"these settings allow no sum of {len(crowd.masks)} clients: {error}")
    scores = np.array([attack.guess(trial.view, rng) for trial in trials])
    inside = np.array([trial.secret for trial in trials])
    guesses = one_run.best_guesses(len(trials), crowd.mu, delta)
    return named(
        measurement=one_run.bound(scores, inside, crowd.bar, guesses, claim),
        note=f"one sum of {len(crowd.masks)} clients under the same settings, of whom {len(trials)} send an update "
        f"of norm {sums.norm:.3g}, or nothing by the toss of a coin; {guesses} guesses. Nothing is assumed about the "
        "noise.",
    )


def _exact(row: Row, deployment: Deployment, sums: Sums, claim: Claim) -> Finding:
    """Epsilon from the law of the noise that the settings ask for."""
    named = partial(
        row,
        attack="exact law of the noise",
        question="Does the accountant say at least what the noise that it counts on really costs?",
        source="Canonne, Kamath, Steinke, NeurIPS 2020; Agarwal, Kairouz, Liu, NeurIPS 2021",
    )
    event, privacy = sums.noisy, deployment.params.privacy
    if privacy is None or event is None:
        return named(measurement=None, note="no noise is counted on: epsilon is infinite, whatever else is done")
    try:
        found = oracle.epsilon_of(event, claim.delta, privacy.ring_bits)
    except ParameterError as error:
        return named(measurement=None, note=str(error))
    held = found <= claim.epsilon
    return named(
        measurement=Bound(SAYS, found, claim.epsilon, math.inf, claim.delta, trials=0, p_value=float(held)),
        note="computed, not sampled, for the largest update that lies in one coordinate; whether the noise is really "
        "drawn like that, the bounds above look at.",
    )


def _cures(deployment: Deployment, norm: float) -> tuple[Cure, ...]:
    """A budget, and what its noise comes to."""
    clients, size = len(deployment.clients), deployment.layout.size
    mode: Mode = "mask-indexed" if deployment.mode == "mask-indexed" else "uniform"
    budget = PrivacyBudget(epsilon=EPSILON, delta=DELTA, clip=norm or 1.0)
    try:
        privacy = budget.privacy(deployment.params, rounds=ROUNDS, clients=clients, coordinates=size, mode=mode)
    except SecAggError as error:
        return (Cure("params.privacy, by PrivacyBudget", f"not to be had here: {error}"),)
    louder = privacy.noise_multiplier * math.sqrt(size) / clients
    setting = f"PrivacyBudget(epsilon={EPSILON:g}, delta={DELTA:g}, clip={budget.clip:.3g})"
    if deployment.mask is not None:
        setting += ", and masks that come from no data"
    return (
        Cure(
            setting,
            f"for {ROUNDS} rounds, noise in every mean that is {louder:.2g} times as long as the longest update; the "
            "more clients, the less",
        ),
    )
