"""Ways to declare less: a public mask for all, flipped bits, masks that follow no data; and what each of them costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attacks.deployment import Deployment
from attacks.membership.federated import trained
from attacks.rules import units_at_random
from protocols.aggregators import FixedPoint, FloatMean
from protocols.training import accuracy
from pruning import Mask
from secagg import Provenance
from secagg.errors import CoverageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from attacks.deployment import Declare
    from protocols.training import State

EPSILON = 1.0
"""Of each bit of a mask under randomised response."""

ROUNDS = 15
"""After which accuracies are compared."""


@dataclass(frozen=True, eq=False)
class Way:
    """One way to decide and to declare masks.

    Args:
        setting: What to switch on.
        deployment: With it switched on.
        declare: What clients then declare.
    """

    setting: str
    deployment: Deployment
    declare: Declare = Deployment.masks


def ways(deployment: Deployment, masks: Sequence[Mask]) -> Iterator[Way]:
    """What helps a deployment whose clients declare masks.

    Args:
        deployment: Which has a rule for masks.
        masks: Some of those that it leads to: others in their place are to be as large.
    """
    if deployment.mode != "uniform" and not deployment.params.active:
        yield Way(
            "mode='uniform': masks stay secret, and only counts of units are public",
            deployment.variant("uniform", mode="uniform"),
        )
    yield Way("one public mask for all that prune, from a secure vote of those that do not", deployment, voted)
    yield Way(
        f"randomised response: each bit of a mask is flipped with probability {flip(EPSILON):.0%} (epsilon "
        f"{EPSILON:g} a bit)",
        deployment,
        flipped(EPSILON),
    )
    if deployment.units is not None:
        # Of a weight between two units both are kept with probability keep squared, so bytes fall faster than units.
        units = [mask.held.mean() for mask in masks if mask.kind == "units"]
        keep = float(np.mean(units)) if units else math.sqrt(np.mean([mask.density for mask in masks]))
        yield Way(
            f"mask=units_at_random({keep:.2g}): a rule that looks at no data",
            deployment.variant("random", mask=units_at_random(keep)),
        )


def voted(
    deployment: Deployment, model: nn.Module, updates: Mapping[int, State], rng: np.random.Generator
) -> dict[int, Mask]:
    """One mask for all that prune: what most of the others would hold, as large as theirs.

    Those vote that train the whole model (FLuID's non-stragglers), or everybody where nobody does; a secure sum of
    their bits is public, and so is the mask.
    """
    pruned = deployment.masks(model, updates, rng)
    if deployment.mask is None or not pruned:
        return {}
    voters = [client for client in updates if client not in pruned] or list(updates)
    bits = [deployment.mask(deployment, model, updates[client], rng) for client in voters]
    shared = _most_voted(deployment, bits)
    return dict.fromkeys(pruned, shared)


def flip(epsilon: float) -> float:
    """Probability with which randomised response flips a bit, 1 / (1 + e^epsilon) (Warner, JASA 1965)."""
    return 1 / (1 + math.exp(epsilon))


def flipped(epsilon: float) -> Declare:
    """Randomised response: every bit of a mask is flipped now and then before it is declared and trained.

    A group of units that would lose them all is drawn again.

    Args:
        epsilon: Of each bit; together the bits of a mask cost as many times that.
    """

    def declare(
        deployment: Deployment, model: nn.Module, updates: Mapping[int, State], rng: np.random.Generator
    ) -> dict[int, Mask]:
        masks = deployment.masks(model, updates, rng)
        return {client: _flipped(mask, flip(epsilon), rng) for client, mask in masks.items()}

    return declare


@dataclass(frozen=True, eq=False)
class Price:
    """What a way of declaring masks costs.

    Args:
        held: Client that prunes to what it holds in a first round, (d,) bool.
        upload: Bytes that it uploads then, on average, keys and shares aside.
        accuracy: Of the model after ``ROUNDS`` rounds; None where too few clients share any coordinate.
    """

    held: Mapping[int, NDArray[np.bool_]]
    upload: float
    accuracy: float | None

    @property
    def _learnt(self) -> str:
        return "nothing to release" if self.accuracy is None else f"{self.accuracy:.0%} right after {ROUNDS} rounds"

    def beside(self, before: Price) -> str:
        """What it costs more than another, in words."""
        kept, wanted = (np.array([one.held[client] for client in self.held]) for one in (self, before))
        extra = (kept & ~wanted).sum() / max(1, kept.sum())
        return (
            f"{self.upload:,.0f} bytes of upload for a client that prunes instead of {before.upload:,.0f}; {extra:.0%} "
            f"of what it trains is not what its own update asks for; {self._learnt} instead of {before._learnt}"
        )


def price(way: Way, seed: int) -> Price:
    """Plays a first round, and then all of a training. ``seed``: the same for ways that are compared."""
    deployment, clients = way.deployment, len(way.deployment.clients)
    model, rng = deployment.model(), np.random.default_rng(seed)
    updates = {client: deployment.update(model, one, seed + client) for client, one in enumerate(deployment.clients)}
    masks = way.declare(deployment, model, updates, rng)
    if deployment.mode == "plain":
        size = FloatMean(deployment.layout, "mask-indexed").upload_of
    else:
        size = FixedPoint(deployment.layout, deployment.params, deployment.mode).upload_of
    return Price(
        {client: mask.coordinates for client, mask in masks.items()},
        float(np.mean([size(mask, clients) for mask in masks.values()])),
        _accuracy(way, seed),
    )


def _accuracy(way: Way, seed: int) -> float | None:
    try:
        model = trained(way.deployment, ROUNDS, np.random.default_rng(seed), way.declare)
    except CoverageError:
        return None
    return accuracy(model, way.deployment.test)


def _most_voted(deployment: Deployment, masks: Sequence[Mask]) -> Mask:
    layout = deployment.layout
    if all(mask.kind == "units" for mask in masks):
        bits = np.array([mask.held for mask in masks])
        groups = [layout.units_of(group) for group in layout.unit_groups]
        make, parts = Mask.of_units, [slice(units.start, units.stop) for units in groups]
    else:
        bits = np.array([mask.coordinates for mask in masks])
        make, parts = Mask.of_coordinates, [slice(None)]
    held = np.zeros(bits.shape[1], bool)
    for part in parts:
        kept = max(1, round(bits[:, part].sum(axis=1).mean()))
        held[part][np.argsort(-bits[:, part].sum(axis=0), kind="stable")[:kept]] = True
    return make(layout, held, Provenance.PUBLIC)


def _flipped(mask: Mask, probability: float, rng: np.random.Generator) -> Mask:
    layout = mask.layout
    if mask.kind != "units":
        held = mask.coordinates ^ (rng.random(layout.size) < probability)
        return Mask.of_coordinates(layout, held, mask.provenance)
    held = np.zeros(layout.unit_count, bool)
    for group in layout.unit_groups:
        units = layout.units_of(group)
        part = slice(units.start, units.stop)
        while not held[part].any():
            held[part] = mask.held[part] ^ (rng.random(len(units)) < probability)
    return Mask.of_units(layout, held, mask.provenance)
