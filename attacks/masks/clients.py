"""Made-up clients with few labels, and what a server knows of their masks."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from attacks.attack import Trial
from attacks.masks.labels import Holding
from protocols.training import Examples
from secagg import counts
from secagg.declaration import FULL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from attacks.deployment import Deployment
    from attacks.masks.cures import Way
    from attacks.rules import MaskRule
    from protocols.training import State
    from pruning import Mask

Templates: TypeAlias = "Mapping[frozenset[int], NDArray[np.float64]]"
"""Set of labels to the share of made-up clients with those labels that hold each coordinate, (d,)."""

MOST_LABELS = 10
"""That are told apart, the most common ones: sets of two grow with the square."""

REPEATS = 3
"""Clients that the attacker makes up for each set of labels."""

EXAMPLES = 16
"""Of each label that it trains one of them on."""

LOOKED_AT = 20_000
"""Coordinates that it compares, drawn at random where there are more."""


@dataclass(frozen=True, eq=False)
class Victim:
    """A client whose labels are to be found out.

    Args:
        update: Of the whole model.
        labels: That it has.
    """

    update: State
    labels: frozenset[int]


@dataclass(frozen=True, eq=False)
class Cohort:
    """A round in which one client is under attack, and all others are the deployment's own.

    Args:
        deployment: The deployment.
        model: Of the round.
        updates: Of the deployment's own clients, of the whole model.
        labels: That are told apart.
    """

    deployment: Deployment
    model: nn.Module
    updates: Mapping[int, State]
    labels: tuple[int, ...]

    @classmethod
    def of(cls, deployment: Deployment, rng: np.random.Generator) -> Cohort:
        """The first round of a deployment."""
        model = deployment.model()
        updates = {
            client: deployment.update(model, examples, int(rng.integers(2**31)))
            for client, examples in enumerate(deployment.clients)
        }
        known, times = np.unique(deployment.test.labels.numpy(), return_counts=True)
        common = known[np.argsort(-times, kind="stable")[:MOST_LABELS]]
        return cls(deployment, model, updates, tuple(sorted(common.tolist())))

    def victims(self, labels: int, many: int, rng: np.random.Generator) -> list[Victim]:
        """Clients with so many labels each, drawn at random, and as many examples as the deployment's own have.

        Args:
            labels: That each has.
            many: Clients.
            rng: Of the draws.
        """
        pool = Examples.joined(self.deployment.clients)
        present = [label for label in self.labels if bool((pool.labels == label).any())]
        size = round(np.mean([len(one) for one in self.deployment.clients]))
        made = []
        for _ in range(many):
            own = frozenset(rng.choice(present, labels, replace=False).tolist())
            made.append(Victim(self._update(_drawn(pool, own, size, rng), rng), own))
        return made

    def own_clients(self) -> list[Victim]:
        """The deployment's clients, and the label that each has most of."""
        most = [int(one.labels.mode().values) for one in self.deployment.clients]
        return [Victim(self.updates[client], frozenset({label})) for client, label in enumerate(most)]

    def templates(self, rule: MaskRule, size: int, rng: np.random.Generator) -> Templates:
        """What an attacker expects clients with each set of labels to hold, from examples that no client has.

        Args:
            rule: By which it thinks that masks are made.
            size: Of the sets.
            rng: Of its draws.
        """
        sets = [frozenset(labels) for labels in itertools.combinations(self.labels, size)]
        shares = {}
        for own in sets:
            held = []
            for _ in range(REPEATS):
                update = self._update(_drawn(self.deployment.test, own, EXAMPLES * len(own), rng), rng)
                held.append(rule(self.deployment, self.model, update, rng).coordinates)
            shares[own] = np.mean(held, axis=0)
        return shares

    def trials(
        self,
        way: Way,
        victims: Sequence[Victim],
        templates: Templates,
        rng: np.random.Generator,
    ) -> list[Trial[Holding, frozenset[int]]]:
        """One round for each victim, in the place of the first client, which is one of those that prune.

        Args:
            way: How masks are decided, and what travels.
            victims: Clients under attack.
            templates: What the attacker expects.
            rng: Of masks that are drawn.
        """
        size = self.deployment.layout.size
        places = np.sort(rng.permutation(size)[:LOOKED_AT])
        seen = {labels: shares[places] for labels, shares in templates.items()}
        trials = []
        for victim in victims:
            updates = {**self.updates, 0: victim.update}
            masks = way.declare(way.deployment, self.model, updates, rng)
            evidence = known_of_mask(way.deployment, masks, 0)[places]
            trials.append(Trial(Holding(evidence, seen), victim.labels))
        return trials

    def _update(self, examples: Examples, rng: np.random.Generator) -> State:
        return self.deployment.update(self.model, examples, int(rng.integers(2**31)))


def prunes(deployment: Deployment) -> bool:
    """Whether any of a deployment's clients prunes."""
    return deployment.pruned_among(len(deployment.clients)) > 0


def training_round(deployment: Deployment, rng: np.random.Generator) -> tuple[dict[int, State], dict[int, Mask]]:
    """What the clients bring in a first round, and what the pruned ones hold; those train their submodels.

    Args:
        deployment: Whose clients.
        rng: Of batches and of masks that are drawn.
    """
    model, seeds = deployment.model(), rng.integers(2**31, size=len(deployment.clients)).tolist()
    return deployment.brought(model, dict(enumerate(deployment.clients)), dict(enumerate(seeds)), rng)


def what_is_held(deployment: Deployment, masks: Mapping[int, Mask]) -> NDArray[np.bool_]:
    """What each client really holds, (clients, d) bool: for the judge, whether or not a server knows."""
    whole = np.ones(deployment.layout.size, bool)
    return np.array([masks[one].coordinates if one in masks else whole for one in range(len(deployment.clients))])


def known_of_mask(deployment: Deployment, masks: Mapping[int, Mask], client: int) -> NDArray[np.float64]:
    """What a server knows of one client's mask before anything is summed, (d,).

    Where masks travel in the clear, the mask. In uniform sessions the counting session's sums say from how many clients
    at least each coordinate comes, everybody taken together.

    Args:
        deployment: Whose server.
        masks: Client to mask; the others hold everything.
        client: Whom it asks about.
    """
    if deployment.mode != "uniform" and client in masks:
        return masks[client].coordinates.astype(np.float64)
    declared = [masks[one].declaration() if one in masks else FULL for one in range(len(deployment.clients))]
    sums = counts.summed(deployment.layout, declared)
    return counts.least_coverage(deployment.layout, sums).astype(np.float64)


def _drawn(pool: Examples, labels: frozenset[int], many: int, rng: np.random.Generator) -> Examples:
    places = np.flatnonzero(np.isin(pool.labels.numpy(), sorted(labels)))
    return pool.subset(rng.choice(places, min(many, len(places)), replace=False).tolist())
