"""Rounds with models that are made to leak."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from attacks.total.imprint import BIAS, WEIGHT, WITHHELD, Rows
from attacks.total.rounds import Sum, sent_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from attacks.deployment import Deployment, Seen
    from protocols.training import Examples, State

MARGIN = 10
"""How far crafted changes stay below the largest that the settings let through, since data differ."""


@dataclass(frozen=True, eq=False)
class CraftedRound:
    """One round.

    Args:
        deployment: With the crafted model.
        batches: What each client trained on.
        updates: What each client sent.
        seen: What the server sees.
    """

    deployment: Deployment
    batches: Sequence[Examples]
    updates: Sequence[State]
    seen: Seen

    @property
    def sum(self) -> Sum:
        """The sum that the server sees."""
        return Sum(self.deployment.vector(self.seen.mean) * self.seen.holders, self.seen.holders)

    def rows(self, only: slice = slice(None)) -> Rows:
        """What the server sees of these rows of a crafted layer."""
        values = self.deployment.layout.by_tensor(self.sum.values)
        bits = [self._of_rows(one)[only] for one in (self.seen.holders > 0, *self.seen.declared.values())]
        _, holders = np.unique(np.packbits(np.concatenate(bits, axis=1), axis=1), axis=0, return_inverse=True)
        holders = np.where(bits[0].all(axis=1), holders.ravel(), WITHHELD)
        return Rows(values[WEIGHT][only], values[BIAS][only], holders)

    def examples(self, client: int | None = None) -> NDArray[np.float64]:
        """The examples of all batches, or of one client's, (n, inputs)."""
        batches = self.batches if client is None else [self.batches[client]]
        return np.concatenate([batch.inputs.flatten(1).numpy().astype(np.float64) for batch in batches])

    def _of_rows(self, coordinates: NDArray[np.bool_]) -> NDArray[np.bool_]:
        parts = self.deployment.layout.by_tensor(coordinates)
        return np.column_stack([parts[WEIGHT], parts[BIAS]])


def one_step(deployment: Deployment) -> Deployment:
    """The deployment whose clients train for one plain step, on batches that half of anybody's examples fill.

    A server that chooses the model chooses this too; limits on gradients and noise of the clients' own stay. So does
    the range of values, the smallest of all tensors, for tensors of whatever name.
    """
    fewest = min(-(-len(client) // 2) for client in deployment.clients)
    training = replace(
        deployment.training,
        steps=1,
        batch_size=min(deployment.training.batch_size, fewest),
        optimiser="sgd",
        momentum=0.0,
        proximal=0.0,
    )
    return deployment.variant(
        deployment.name, training=training, params=replace(deployment.params, value_range=_smallest_range(deployment))
    )


def with_model(deployment: Deployment, model: nn.Module) -> Deployment:
    """The deployment with another model; nobody prunes it where its units cannot be told but those before could."""
    other = deployment.variant(deployment.name, model=lambda: model)
    if other.mask is not None and deployment.units is not None and other.units is None:
        return other.variant(deployment.name, mask=None, pruned=0.0)
    return other


def reach(deployment: Deployment) -> float:
    """How much crafted weights should change at most."""
    return _smallest_range(deployment) / MARGIN


def crafted_round(
    deployment: Deployment, models: Sequence[nn.Module], number: int, rng: np.random.Generator
) -> CraftedRound:
    """Plays a round. No example is in a round and in the next.

    Args:
        deployment: As ``one_step`` and ``with_model`` make it.
        models: What each of the first clients is handed.
        number: Of the round.
        rng: Of batches and masks.
    """
    batches, sent = [], {}
    pruned = deployment.pruned_among(len(models))
    for client, model in enumerate(models):
        examples = deployment.clients[client]
        half = np.arange(number % 2, len(examples), 2) if len(examples) > 1 else np.zeros(1, np.int64)
        chosen = rng.choice(half, min(len(half), deployment.training.batch_size), replace=False)
        batches.append(examples.subset(chosen.tolist()))
        sent[client] = sent_by(deployment, model, batches[-1], number, rng if client < pruned else None)
    updates = {client: one.update for client, one in sent.items()}
    masks = {client: one.mask for client, one in sent.items() if one.mask is not None}
    return CraftedRound(
        deployment, batches, list(updates.values()), deployment.exchange(updates, masks, encrypted=False)
    )


def _smallest_range(deployment: Deployment) -> float:
    return min(deployment.params.range_of(tensor.name) for tensor in deployment.layout.tensors)
