"""Rounds to attack: what clients send, and what the server sees of the sum."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from attacks.deployment import Deployment, Seen
    from protocols.training import Examples, State
    from pruning import Mask

SKEW = 0.5
"""Of the labels of made-up clients: the concentration of the Dirichlet distribution of their shares."""


@dataclass(frozen=True, eq=False)
class Sum:
    """The sum of one round.

    Args:
        values: Zero where it is withheld, (d,).
        holders: Clients in each coordinate's sum, 0 where it is withheld, (d,).
    """

    values: NDArray[np.float64]
    holders: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sent:
    """What a client of a pruning federation sends.

    Args:
        update: Of the submodel, at full shape.
        mask: What it declares to hold; None for everything.
    """

    update: State
    mask: Mask | None


@dataclass(frozen=True, eq=False)
class Rounds:
    """Rounds of one model among some clients.

    Args:
        deployment: Whose settings hold.
        model: From which all rounds start.
        clients: Examples of each; the first ones prune, as many as the deployment says.
        repeats: How often a client trains; it then draws from these updates. 0 trains anew each time.
    """

    deployment: Deployment
    model: nn.Module
    clients: Sequence[Examples]
    repeats: int = 0
    _kept: dict[tuple[int, int], Sent] = field(default_factory=dict, repr=False)

    @property
    def pruned(self) -> int:
        """How many clients prune."""
        return self.deployment.pruned_among(len(self.clients))

    def sent(self, client: int, rng: np.random.Generator) -> Sent:
        """What a client sends in one round."""
        seed = int(rng.integers(self.repeats or 2**31))
        if not self.repeats:
            return self._trained(client, seed, rng)
        if (client, seed) not in self._kept:
            self._kept[client, seed] = self._trained(client, seed, rng)
        return self._kept[client, seed]

    def vector(self, sent: Sent) -> NDArray[np.float64]:
        """What the sum really gets of it, (d,): under differential privacy clipped."""
        vector, privacy = self.deployment.vector(sent.update), self.deployment.params.privacy
        if privacy is None or self.deployment.mode == "plain":
            return vector
        return vector * min(1.0, privacy.clip / max(float(np.linalg.norm(vector)), 1e-30))

    def seen(self, sent: Mapping[int, Sent]) -> Seen:
        """What the server sees of a round in which these clients take part."""
        masks = {client: one.mask for client, one in sent.items() if one.mask is not None}
        return self.deployment.exchange({client: one.update for client, one in sent.items()}, masks, encrypted=False)

    def sum(self, sent: Mapping[int, Sent]) -> Sum:
        """The sum of that round."""
        seen = self.seen(sent)
        return Sum(self.deployment.vector(seen.mean) * seen.holders, seen.holders)

    def _trained(self, client: int, seed: int, rng: np.random.Generator) -> Sent:
        return sent_by(
            self.deployment,
            self.model,
            self.clients[client],
            1000 * client + seed,
            rng if client < self.pruned else None,
        )


def sent_by(
    deployment: Deployment, model: nn.Module, examples: Examples, seed: int, rng: np.random.Generator | None
) -> Sent:
    """What a client sends that trains a model on some examples.

    Args:
        deployment: Whose settings hold.
        model: Where training starts.
        examples: On what.
        seed: Of the batches.
        rng: Of the mask; None for a client that does not prune.
    """
    update = deployment.update(model, examples, seed)
    if rng is None or deployment.mask is None:
        return Sent(update, None)
    mask = deployment.mask(deployment, model, update, rng)
    return Sent(deployment.update(model, examples, seed, mask=mask), mask)


def noise_of(deployment: Deployment) -> float:
    """Standard deviation of the noise that each coordinate of a sum is given, 0 for none; public."""
    privacy = deployment.params.privacy
    return 0.0 if privacy is None else privacy.noise_multiplier * privacy.clip


def skewed(pool: Examples, clients: int, size: int, rng: np.random.Generator) -> list[Examples]:
    """Made-up clients, each with a taste for some labels, out of a pool that they may share examples of.

    Args:
        pool: What to draw from.
        clients: How many.
        size: Examples of each.
        rng: Of the draws.
    """
    labels = pool.labels.cpu().numpy().reshape(len(pool), -1)[:, 0]
    _, kind = np.unique(labels, return_inverse=True)
    made = []
    for _ in range(clients):
        share = rng.dirichlet(np.full(kind.max() + 1, SKEW))[kind] + 1e-9
        made.append(pool.subset(rng.choice(len(pool), size, p=share / share.sum()).tolist()))
    return made
