"""Attacks by models that are made to leak: imprint, separate kernels, model inconsistency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attacks.attack import Trial
from attacks.finding import Cure, Picture
from attacks.measurement import Exposure, judged, measure_reconstruction
from attacks.total.crafted import crafted_round, one_step, reach, with_model
from attacks.total.imprint import Imprint, Measure
from attacks.total.inconsistency import Inconsistency, Silenced
from attacks.total.kernels import SeparateRows
from attacks.total.report import curve, fewest, finding_of
from attacks.update.quality import psnr, ssim
from attacks.wire import attempt
from attacks.wire.agreements import MODEL_FOR_ONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from attacks.deployment import Deployment
    from attacks.finding import Effort, Finding
    from attacks.total.crafted import CraftedRound
    from attacks.total.imprint import Rows

    Example = Trial[Rows, NDArray[np.float64]]

PICTURES = 4
"""Examples that are shown."""
NO_PLACE = "The inputs are no real numbers, so no layer of such rows can stand before the model."


def imprinted(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> Finding:
    """One model for everybody."""
    attack, known, clients = Imprint(peak=_width(deployment)), deployment.test, len(deployment.clients)
    if not known.inputs.is_floating_point():
        return finding_of(deployment, attack, NO_PLACE)
    step = one_step(deployment)
    model = attack.craft(deployment.model(), known, step.training, reach(step), rng)
    crafted = with_model(step, model)
    rounds = [crafted_round(crafted, [model] * clients, number, rng) for number in range(_rounds(effort))]
    trials = [Trial(one.rows(), rng.choice(one.examples())) for one in rounds]
    guesses = [attack.guess(trial.view, rng) for trial in trials]
    cohorts = sorted({fewest(deployment), max(fewest(deployment), clients // 2), clients})
    shares = [
        _share(attack, attack.guess(one.rows(), rng), one.examples())
        for one in (crafted_round(crafted, [model] * cohort, 0, rng) for cohort in cohorts)
    ]
    return finding_of(
        deployment,
        attack,
        f"A layer of {attack.bins} rows stands before the model; {clients} clients train for one step on "
        f"{len(rounds[0].batches[0])} examples each, and {shares[-1]:.0%} of all these examples are read off the sum. "
        "Every client has the same model, so that comparing models does not help." + _unpruned(deployment, rounds[0]),
        judged(attack, trials, guesses, _says(attack)),
        cures=(Cure("a look at the model before training", "clients that know which architecture they agreed to"),),
        pictures=_pictures(attack, trials, guesses, deployment),
        curves={"share of all examples that are read, against clients in the sum": curve(cohorts, shares)},
    )


def separated(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> Finding:
    """A model for each client, whose rows are its own."""
    attack, known, clients = SeparateRows(peak=_width(deployment)), deployment.test, len(deployment.clients)
    if not known.inputs.is_floating_point():
        return finding_of(deployment, attack, NO_PLACE)
    step, inner = one_step(deployment), deployment.model()
    measure = Measure.drawn(known, rng)
    models = [
        attack.craft_for(client, clients, inner, measure, known=known, training=step.training, reach=reach(step))
        for client in range(clients)
    ]
    crafted = with_model(step, models[0])
    rounds = [crafted_round(crafted, models, number, rng) for number in range(_rounds(effort))]
    trials, guesses, shares = [], [], []
    for number, one in enumerate(rounds):
        victim = number % clients
        trials.append(Trial(one.rows(attack.rows(victim)), rng.choice(one.examples(victim))))
        guesses.append(attack.guess(trials[-1].view, rng))
        shares.append(_share(attack, guesses[-1], one.examples(victim)))
    return finding_of(
        deployment,
        attack,
        f"{clients} clients train for one step on {len(rounds[0].batches[0])} examples each, behind {attack.bins} rows "
        f"of their own: {np.mean(shares):.0%} of a client's examples are read, and are known to be that client's."
        + _unpruned(deployment, rounds[0]),
        judged(attack, trials, guesses, _says(attack)),
        cures=(_one_model(deployment),),
        pictures=_pictures(attack, trials, guesses, deployment),
    )


def inconsistent(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> Finding:
    """A live model for one client, and dead ones for all others."""
    attack, clients, live = Inconsistency(), len(deployment.clients), deployment.model()
    dead = attack.craft(live)
    if dead is None:
        return finding_of(deployment, attack, "The model has no dense layer that could be silenced.")
    crafted, before, trials = one_step(deployment), attack.before(live, deployment.layout), []
    for number in range(_rounds(effort)):
        victim = number % clients
        models = [live if client == victim else dead for client in range(clients)]
        one = crafted_round(crafted, models, number, rng)
        view = Silenced(one.sum.values, before)
        trials.append(Trial(view, np.where(before, deployment.vector(one.updates[victim]), 0.0)))
    return finding_of(
        deployment,
        attack,
        f"{clients} clients train for one step; the update of one of them is sought in the sum, last layer excepted. "
        "Where it is found, every attack on one update applies to it.",
        measure_reconstruction(attack, trials, rng, f"updates recovered (cosine >= {attack.success})"),
        cures=(_one_model(deployment),),
    )


def _one_model(deployment: Deployment) -> Cure:
    """What the protocol has against different models, and what becomes of somebody who tries."""
    mode = ", with mode='uniform'" if deployment.mode == "plain" else ""
    opened = Exposure("sessions with different models that go through", int(attempt(MODEL_FOR_ONE).succeeded), 1)
    return Cure(f"Session.model_root and adversary='active'{mode}", "a hash of the model, and signatures", opened)


def _says(attack: Imprint) -> str:
    return f"examples recovered (PSNR >= {attack.success:.0f} dB)"


def _rounds(effort: Effort) -> int:
    return max(2, effort.reconstructions)


def _width(deployment: Deployment) -> float:
    inputs = deployment.test.inputs
    return float(inputs.max() - inputs.min()) or 1.0


def _unpruned(deployment: Deployment, one: CraftedRound) -> str:
    left = deployment.mask is not None and one.deployment.mask is None
    return " Nobody prunes here: the crafted model has no units that can be told." if left else ""


def _share(attack: Imprint, guess: NDArray[np.float64], examples: NDArray[np.float64]) -> float:
    """Share of these examples that were read."""
    return float(np.mean([attack.quality(guess, example) >= attack.success for example in examples]))


def _pictures(
    attack: Imprint, trials: Sequence[Example], guesses: Sequence[NDArray[np.float64]], deployment: Deployment
) -> tuple[Picture, ...]:
    """What comes nearest to the examples of the first trials; black where nothing was read."""
    shape, pictures = deployment.test.inputs.shape[1:], []
    for trial, read in zip(trials[:PICTURES], guesses[:PICTURES], strict=True):
        shown = np.concatenate([read, np.zeros((1, trial.secret.size))])
        errors = np.mean((shown - trial.secret) ** 2, axis=1)
        original, nearest = trial.secret.reshape(shape), shown[errors.argmin()].reshape(shape)
        decibels = float(psnr(errors.min(), attack.peak))
        pictures.append(Picture(original, nearest, decibels, ssim(original, nearest, attack.peak)))
    return tuple(pictures)
