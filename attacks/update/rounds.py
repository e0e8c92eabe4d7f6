"""Rounds in which one client is a victim: what the server gets, and which examples went in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from attacks.attack import Trial
from attacks.update.quality import Originals
from attacks.update.upload import Upload
from protocols.training import with_state
from pruning import gather, scatter

if TYPE_CHECKING:
    from torch import nn

    from attacks.deployment import Deployment, Seen
    from protocols.training import Examples, Training
    from pruning import Mask


@dataclass(frozen=True, eq=False)
class Played:
    """One round.

    Args:
        upload: The victim's upload, and its examples.
        total: The sum of all clients as if it were the update of one, and the victim's examples.
    """

    upload: Trial[Upload, Originals]
    total: Trial[Upload, Originals]


def play(
    deployment: Deployment, training: Training, examples: int | None, seeds: list[int], clients: int | None = None
) -> list[Played]:
    """Rounds with one victim after another.

    The victim comes first, so that it is among those who prune.

    Args:
        deployment: Whose clients train, and exchange what comes of it.
        training: What every client does in the round.
        examples: That every client trains on, drawn from its own; None for all of them.
        seeds: Of each round; also tells the victim.
        clients: In each round; None for all.
    """
    everyone = range(len(deployment.clients))
    return [
        _played(deployment, training, examples, seed, list(np.roll(everyone, -turn)[:clients]))
        for turn, seed in enumerate(seeds)
    ]


def one_step(training: Training, examples: int) -> Training:
    """The same training, cut down to one step of plain SGD."""
    return replace(
        training,
        steps=1,
        batch_size=examples,
        optimiser="sgd",
        momentum=0.0,
        largest_gradient=None,
        proximal=0.0,
    )


def fewest(deployment: Deployment) -> int:
    """Examples of the smallest batch that the model trains on: batch normalisation can need more than one."""
    try:
        deployment.model().train()(deployment.test.inputs[:1])
    except ValueError:  # PyTorch's own, of a batch without a variance
        return 2
    return 1


def _played(deployment: Deployment, training: Training, examples: int | None, seed: int, cohort: list[int]) -> Played:
    rng = np.random.default_rng(seed)
    drawn = {client: _some(deployment.clients[client], examples, rng) for client in map(int, cohort)}
    model = deployment.model()
    seeds = {client: int(rng.integers(2**31)) for client in drawn}
    updates, masks = deployment.brought(model, drawn, seeds, rng, training=training)
    seen = deployment.exchange(updates, masks, seed=seed)
    victim = next(iter(drawn))
    sample, (low, high) = deployment.test.inputs, deployment.test.inputs.aminmax()
    secret = Originals(drawn[victim].inputs.numpy().astype(np.float64), float(low), float(high))
    upload = Upload(
        model=_start(model, masks.get(victim)),
        update=seen.uploads[victim],
        training=training,
        shape=tuple(sample.shape[1:]),
        low=float(low),
        high=float(high),
        classes=classes(deployment),
        held=_held(deployment, seen, victim),
    )
    joined = replace(training, batch_size=training.batch_size * len(drawn))
    total = replace(upload, model=model, update=seen.mean, training=joined, held=None)
    return Played(Trial(upload, secret), Trial(total, secret))


def classes(deployment: Deployment) -> int:
    """Logits of the model."""
    with torch.no_grad():
        return int(deployment.model().eval()(deployment.test.inputs[:2]).shape[-1])


def _some(examples: Examples, count: int | None, rng: np.random.Generator) -> Examples:
    if count is None:
        return examples
    return examples.subset(rng.choice(len(examples), min(count, len(examples)), replace=False).tolist())


def _start(model: nn.Module, mask: Mask | None) -> nn.Module:
    """Where a client's training starts: a unit that it lacks is as good as one whose weights are all zero."""
    if mask is None or mask.kind != "units":
        return model
    return with_state(model, scatter(gather(model.state_dict(), mask), mask))


def _held(deployment: Deployment, seen: Seen, victim: int) -> dict[str, torch.Tensor] | None:
    if victim not in seen.declared:
        return None
    parts = deployment.layout.by_tensor(seen.declared[victim])
    return {name: torch.from_numpy(part.copy()) for name, part in parts.items()}
