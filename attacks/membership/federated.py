"""Rounds of a deployment, one after another: the model that comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.training import with_state

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from attacks.deployment import Declare, Deployment


def trained(deployment: Deployment, rounds: int, rng: np.random.Generator, declare: Declare | None = None) -> nn.Module:
    """The model after some rounds in which every client takes part; the pruned ones train their submodels.

    Args:
        deployment: Of whom, and how sums are taken.
        rounds: How many.
        rng: Of batches, of masks that are drawn, and of the sessions' seeds.
        declare: How masks are decided; None for the deployment's own rule.
    """
    model, examples = deployment.model(), dict(enumerate(deployment.clients))
    for _ in range(rounds):
        seeds = dict(enumerate(rng.integers(2**31, size=len(examples)).tolist()))
        updates, masks = deployment.brought(model, examples, seeds, rng, declare=declare)
        mean = deployment.exchange(updates, masks, seed=int(rng.integers(2**31)), encrypted=False).mean
        state = model.state_dict()
        model = with_state(model, {name: state[name] + change for name, change in mean.items()})
    return model
