"""One federation under several protections, to be attacked side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from attacks.rules import changed_units
from secagg import Params, PrivacyBudget
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attacks.deployment import Deployment
    from attacks.rules import MaskRule

Protection = Literal["plain", "uniform", "mask-indexed", "private"]
"""None; sums of whole updates; sums of what each client declares to hold; sums with noise."""

PROTECTIONS: tuple[Protection, ...] = get_args(Protection)

PARAMS = Params(min_cohort=3, max_dropouts=1)
EPSILON = 8.0
DELTA = 1e-5
ROUNDS = 10


def side_by_side(
    plain: Deployment,
    protections: Sequence[Protection] = PROTECTIONS,
    *,
    mask: MaskRule | None = None,
    pruned: float = 1 / 3,
    epsilon: float = EPSILON,
    delta: float = DELTA,
    clip: float | None = None,
    rounds: int = ROUNDS,
) -> tuple[Deployment, ...]:
    """The same federation once for each protection.

    Args:
        plain: The one without protection.
        protections: Which ones.
        mask: What pruned clients keep; None for half of the units, those that they changed most.
        pruned: Share of the clients that prune, where masks are declared.
        epsilon: Budget of the private one over all rounds.
        delta: Of the same.
        clip: Largest norm of an update there; None for the median of one round's, as an operator would who knows what
            is usual. It is taken from data, and no budget covers that.
        rounds: That the budget is made for.

    Raises:
        ParameterError: No such protection, or a budget that cannot be kept.
    """
    if unknown := set(protections) - set(PROTECTIONS):
        raise ParameterError(f"no protection {', '.join(map(str, unknown))}; there are {', '.join(PROTECTIONS)}")
    made = []
    for name in protections:
        if name == "plain":
            made.append(plain)
        elif name == "private":
            budget = PrivacyBudget(epsilon=epsilon, delta=delta, clip=clip or _usual_norm(plain))
            made.append(private(plain, budget, rounds))
        elif name == "mask-indexed":
            rule = changed_units(0.5) if mask is None else mask
            made.append(plain.variant(name, mode=name, mask=rule if pruned else None, pruned=pruned))
        else:
            made.append(plain.variant(name, mode=name))
    return tuple(made)


def private(plain: Deployment, budget: PrivacyBudget, rounds: int = ROUNDS) -> Deployment:
    """A federation whose clients add noise to whole updates, under the name ``private``.

    Args:
        plain: The one without protection.
        budget: What a client may lose.
        rounds: Over so many rounds.
    """
    privacy = budget.privacy(
        plain.params, rounds=rounds, clients=len(plain.clients), coordinates=plain.layout.size, mode="uniform"
    )
    return plain.variant("private", mode="uniform", params=replace(plain.params, privacy=privacy))


def _usual_norm(plain: Deployment) -> float:
    model = plain.model()
    updates = [plain.update(model, examples, seed) for seed, examples in enumerate(plain.clients)]
    return float(np.median([np.linalg.norm(plain.vector(update)) for update in updates]))
