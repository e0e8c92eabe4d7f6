"""Rounds of a deployment, one after another: the model that comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.training import with_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from torch import nn

    from attacks.deployment import Deployment
    from protocols.training import State
    from pruning import Mask

    Declare = Callable[[Deployment, nn.Module, Mapping[int, State], np.random.Generator], dict[int, Mask]]
    """What the pruned ones of some clients declare, from the model of the round and their updates of all of it."""


def own_rule(
    deployment: Deployment, model: nn.Module, updates: Mapping[int, State], rng: np.random.Generator
) -> dict[int, Mask]:
    """What clients declare by the deployment's own rule."""
    return deployment.masks(model, updates, rng)


def trained(deployment: Deployment, rounds: int, rng: np.random.Generator, declare: Declare = own_rule) -> nn.Module:
    """The model after some rounds in which every client takes part; the pruned ones train their submodels.

    Args:
        deployment: Of whom, and how sums are taken.
        rounds: How many.
        rng: Of batches, of masks that are drawn, and of the sessions' seeds.
        declare: How masks are decided.
    """
    model = deployment.model()
    for _ in range(rounds):
        seeds = rng.integers(2**31, size=len(deployment.clients))
        updates = {
            client: deployment.update(model, examples, int(seed))
            for client, (examples, seed) in enumerate(zip(deployment.clients, seeds, strict=True))
        }
        masks = declare(deployment, model, updates, rng)
        for client, mask in masks.items():
            updates[client] = deployment.update(model, deployment.clients[client], int(seeds[client]), mask=mask)
        mean = deployment.exchange(updates, masks, seed=int(rng.integers(2**31)), encrypted=False).mean
        state = model.state_dict()
        model = with_state(model, {name: state[name] + change for name, change in mean.items()})
    return model
