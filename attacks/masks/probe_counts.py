"""What the denominators of one deployment say of weights and of masks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from attacks.attack import Threat, Trial
from attacks.finding import Cure, Finding
from attacks.masks.clients import prunes, training_round, what_is_held
from attacks.masks.denominators import Counted, MasksFromDenominators, nameless, opened_weights
from attacks.measurement import Exposure, measure_reconstruction
from secagg import counts, simulate
from secagg.declaration import FULL
from secagg.errors import SecAggError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from attacks.deployment import Deployment
    from attacks.finding import Effort
    from attacks.masks.denominators import Masks
    from attacks.measurement import Recovery
    from protocols.training import State
    from pruning import Mask

_OPENED = "clients whose own weight follows"
_FOUND = "sessions in which the masks of all clients are found"


def weights_from_denominators(deployment: Deployment, rng: np.random.Generator) -> Finding:
    """Whether a session that weighs clients by their examples gives a client's number away.

    Args:
        deployment: What is attacked.
        rng: Of all draws.
    """
    updates, masks = training_round(deployment, rng)
    weights, largest = _weights(deployment), deployment.params.max_weight
    opened, note = _opened(deployment, updates, masks, weights * largest)
    if prunes(deployment):
        held = what_is_held(deployment, masks)
        careless = len(opened_weights(dict(enumerate(held)), weights @ held))
        note += (
            f" One exact sum of weights for each coordinate, over masks that are known, would open the weights of "
            f"{careless} of {len(held)} clients."
        )
    return Finding(
        attack="weights from denominators",
        question="Do the sums of weights that means are divided by give a client's own weight away?",
        threat=Threat.THE_MASKS,
        deployment=deployment.name,
        measurement=Exposure(_OPENED, opened, len(weights)),
        claimed=deployment.mode != "plain" and deployment.params.weighting != "public",
        note=note,
        source="linear algebra: every pattern of holders is an equation",
    )


def masks_from_counts(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> Finding:
    """Whether a uniform session's counts give away the masks that it hides; where masks are declared, what they would.

    Args:
        deployment: What is attacked.
        effort: ``reconstructions`` sessions are tried.
        rng: Of all draws.
    """
    attack = MasksFromDenominators()
    question = "Do the counts of a uniform session give away the masks that it hides?"
    finding = Finding.of(attack, deployment, question=question)
    if not prunes(deployment) or training_round(deployment, rng)[1][0].kind != "units":
        return replace(finding, note="No client holds units alone here, so that there is nothing to count.")
    if deployment.params.active or deployment.params.privacy is not None:
        return replace(finding, note="With an active server or with noise a session refuses exact denominators.")
    asked = deployment if deployment.mode == "uniform" else deployment.variant("uniform", mode="uniform")
    exact = asked.variant("exact", params=replace(asked.params, exact_denominators=True))
    hidden = asked.variant("hidden", params=replace(asked.params, exact_denominators=False))
    many = max(2, effort.reconstructions)
    if deployment.mode == "uniform" and not deployment.params.exact_denominators:
        note = "Counts are of units, never of pairs: exact_denominators=False, the default."
        return replace(finding, measurement=_masks_found(hidden, many, rng), note=note)
    note = (
        f"Of {many} sessions with exact_denominators=True, that is, with one denominator for each coordinate. "
        "Clients have no names in them: which mask is whose does not follow."
    )
    if deployment.mode != "uniform":
        note += " Here masks are not hidden at all; this is what to heed when changing to mode='uniform'."
    cure = Cure(
        "exact_denominators=False, the default",
        "means are over all clients, so that what few hold moves less",
        _masks_found(hidden, many, rng),
    )
    return replace(finding, measurement=_masks_found(exact, many, rng), note=note, cures=(cure,))


def _weights(deployment: Deployment) -> NDArray[np.float64]:
    """A weight for each client by its number of examples, at most 1, no two of them equal."""
    sizes = np.array([len(one) for one in deployment.clients], np.float64)
    apart = np.arange(len(sizes)) / len(sizes)
    weights: NDArray[np.float64] = (sizes + apart) / (sizes.max() + 1)
    return weights


def _opened(
    deployment: Deployment,
    updates: Mapping[int, State],
    masks: Mapping[int, Mask],
    weights: NDArray[np.float64],
) -> tuple[int, str]:
    """How many weights the server has after a round, and how that came."""
    if deployment.mode == "plain":
        return len(weights), "In the clear every client says its weight."
    if deployment.mode == "mask-indexed" and deployment.params.weighting == "public":
        return len(weights), "weighting='public': everybody sees every weight."
    declared = {client: mask.declaration() for client, mask in masks.items()}
    try:
        result = simulate(
            updates,
            declared or None,
            dict(enumerate(weights.tolist())),
            mode=deployment.mode,
            params=deployment.params,
            seed=0,
            layout=deployment.layout,
        )
    except SecAggError as refused:
        return 0, f"A session refuses weights here ({type(refused).__name__}), so that nothing is released."
    known = what_is_held(deployment, masks if deployment.mode == "mask-indexed" else {})
    denominators = np.where(result.aggregate.weight > 0, result.aggregate.weight, np.nan)
    found = opened_weights(dict(enumerate(known)), denominators)
    return len(found), "From the weights that one session released, and the masks as far as they were declared."


def _masks_found(deployment: Deployment, many: int, rng: np.random.Generator) -> Recovery:
    trials: list[Trial[Counted, Masks]] = []
    for seed in range(many):
        updates, masks = training_round(deployment, rng)
        declared = {client: mask.declaration() for client, mask in masks.items()}
        result = simulate(
            updates, declared, mode="uniform", params=deployment.params, seed=seed, layout=deployment.layout
        )
        sums = counts.summed(deployment.layout, [declared.get(client, FULL) for client in updates])
        view = Counted(deployment.layout, sums, result.aggregate.weight, deployment.params.exact_denominators)
        trials.append(Trial(view, nameless(np.array([mask.held for mask in masks.values()]))))
    return measure_reconstruction(MasksFromDenominators(), trials, rng, _FOUND)
