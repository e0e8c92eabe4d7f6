"""Trials of a deployment's noise: sums with and without one client's update, made to stand out as far as may be.

The sums are those of the deployment: its own settings, declared masks, clipping, rounding and noise, in the clear, as
encryption changes no sum. Everybody else sends zero, which whoever knows their updates could subtract anyway. A model
of many coordinates is stood in for by ``LARGEST`` of them, with the holders that they have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from attacks.attack import Distinguisher, Threat, Trial
from protocols.aggregators import FixedPoint, FloatMean
from pruning import Mask
from secagg import Layout, PrivacyLedger, Tensor
from secagg.privacy.events import DiscreteGaussianSum, SkellamSum

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from numpy.typing import NDArray

    from attacks.deployment import Deployment
    from protocols.aggregators import Aggregated
    from secagg import Declaration

LARGEST = 2**13
"""Coordinates that are summed at most: noise is drawn for each by itself, so that more of them are more of the same."""


@dataclass(frozen=True, eq=False)
class Released:
    """What whoever knows the canary sees.

    Args:
        total: The sum that was released, (d,), NaN where withheld.
        places: Coordinates that the canary is in, (k,) int.
        signs: Which way it moves each, 1 or -1, (k,).
    """

    total: NDArray[np.float64]
    places: NDArray[np.int64]
    signs: NDArray[np.float64]


class Projection(Distinguisher[Released]):
    """How far a sum points the canary's way: where noise is Gaussian, and as much in all places, no test is better."""

    name = "canary in a noisy sum"
    threat = Threat.THE_SUM
    source = "Nasr et al., USENIX Security 2023"

    def guess(self, view: Released, rng: np.random.Generator) -> float:  # noqa: ARG002 - nothing is tried at random
        """Component of the sum along the canary: its norm if it is in, zero if not, but for noise."""
        return float(view.total[view.places] @ view.signs) / math.sqrt(len(view.places))


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums as a deployment makes them, of updates that an auditor chooses.

    Args:
        aggregator: Of the deployment's settings.
        masks: What each client declares to hold, one for each; None for everything.
        norm: Of a canary: the largest that clipping leaves, or that of a usual update where nobody clips.
    """

    aggregator: FixedPoint | FloatMean
    masks: tuple[Mask | None, ...]
    norm: float

    @classmethod
    def of(cls, deployment: Deployment, rng: np.random.Generator) -> Sums:
        """The sums of a deployment.

        Args:
            deployment: Whose clients train once, where their updates decide on masks or on what is usual.
            rng: Of rules for masks that draw.
        """
        chosen = np.linspace(0, deployment.layout.size - 1, min(LARGEST, deployment.layout.size)).astype(np.int64)
        layout = Layout((Tensor("canary", (len(chosen),), "float64"),))
        privacy, model, count = deployment.params.privacy, deployment.model(), len(deployment.clients)
        trained = count if deployment.mask else int(privacy is None)
        updates = {one: deployment.update(model, deployment.clients[one], one) for one in range(trained)}
        declared = deployment.masks(model, updates, rng)
        masks = [
            Mask.of_coordinates(layout, declared[one].coordinates[chosen], declared[one].provenance)
            if one in declared
            else None
            for one in range(count)
        ]
        norm = float(np.median([np.linalg.norm(deployment.vector(one)) for one in updates.values()])) if updates else 0
        if deployment.mode == "plain":
            aggregator: FixedPoint | FloatMean = FloatMean(layout, "mask-indexed" if declared else "uniform")
        else:
            aggregator = FixedPoint(layout, deployment.params, deployment.mode)
        return cls(aggregator, tuple(masks), norm if privacy is None else privacy.clip)

    def crowd(self, clients: int) -> Sums:
        """The same with more clients, or fewer, whose masks are those of the deployment in turn."""
        return replace(self, masks=tuple(self.masks[one % len(self.masks)] for one in range(clients)))

    def release(self, updates: Mapping[int, NDArray[np.float64]], seed: bytes = b"silent") -> Aggregated:
        """One sum.

        Args:
            updates: Client to what it sends, (d,); the others send zero.
            seed: Of the noise: another one for every sum.
        """
        nothing = torch.zeros(self.aggregator.layout.size, dtype=torch.float64)
        sent: dict[Hashable, dict[str, torch.Tensor]] = {
            one: {"canary": torch.from_numpy(updates[one]) if one in updates else nothing}
            for one in range(len(self.masks))
        }
        declared: dict[Hashable, Declaration | None] = {
            one: mask.declaration() for one, mask in enumerate(self.masks) if mask is not None
        }
        return self.aggregator.aggregate(sent, declared or None, seed=seed)

    @cached_property
    def silent(self) -> Aggregated:
        """A sum of nothing, which says what is released and what that costs.

        Raises:
            AbortError: These settings release nothing.
        """
        return self.release({})

    def claimed(self, delta: float) -> float:
        """Epsilon of one sum, by the accountant; infinite where nothing is guaranteed."""
        if self.silent.event is None:
            return math.inf
        ledger = PrivacyLedger()
        ledger.record(self.silent.event)
        return ledger.epsilon(delta)

    @property
    def noisy(self) -> SkellamSum | DiscreteGaussianSum | None:
        """What a sum was, where its noise counts for anything."""
        event = self.silent.event
        return event if isinstance(event, SkellamSum | DiscreteGaussianSum) and event.variance > 0 else None

    @property
    def mu(self) -> float:
        """How far apart sums with and without a client may be, over the noise that is counted on; infinite without."""
        return self.noisy.l2 / math.sqrt(self.noisy.variance) if self.noisy else math.inf

    @property
    def noise_std(self) -> float:
        """Steps of the grid in a standard deviation of the noise that is counted on; infinite where none is."""
        return math.sqrt(self.noisy.variance) if self.noisy else math.inf

    def open_to(self, client: int) -> NDArray[np.bool_]:
        """The released coordinates that a client holds, (d,)."""
        mask, released = self.masks[client], ~np.isnan(self.silent.vector)
        return released if mask is None else released & mask.coordinates

    def canary(self, places: NDArray[np.int64], signs: NDArray[np.float64]) -> NDArray[np.float64]:
        """The update that is a canary, spread evenly over its places."""
        update = np.zeros(self.aggregator.layout.size)
        update[places] = signs * self.norm / math.sqrt(len(places))
        return update

    @cached_property
    def behind(self) -> NDArray[np.int64]:
        """Clients behind each coordinate of a mean, which are no secret, (d,)."""
        clients = len(self.masks)
        if self.aggregator.mode == "uniform":
            return np.where(np.isnan(self.silent.vector), 0, clients)
        behind: NDArray[np.int64] = np.sum([self.open_to(one) for one in range(clients)], axis=0)
        return behind

    @cached_property
    def weakest(self) -> tuple[int, NDArray[np.int64]]:
        """Where a canary stands out most: its client, and the places that it holds with the fewest behind them."""
        held = np.array([self.open_to(one) for one in range(len(self.masks))])
        weak = held & (self.behind == self.behind[held.any(0)].min())
        client = int(weak.sum(1).argmax())
        return client, np.flatnonzero(weak[client])

    @property
    def bar(self) -> float:
        """The score midway between those that are expected with and without a canary."""
        return self.norm / 2

    def trials(self, count: int, rng: np.random.Generator) -> Iterator[Trial[Released, bool]]:
        """Sums with the canary and without it, in turn.

        Args:
            count: How many.
            rng: Of the canary's signs.
        """
        client, places = self.weakest
        signs = rng.choice([-1.0, 1.0], len(places))
        update = self.canary(places, signs)
        for number in range(count):
            inside = number % 2 == 0
            total = self.release({client: update} if inside else {}, rng.bytes(16)).vector * self.behind
            yield Trial(Released(total, places, signs), inside)

    def tossed(self, rng: np.random.Generator) -> list[Trial[Released, bool]]:
        """One sum in which each client's update is a canary of its own, or nothing, by the toss of a coin.

        Args:
            rng: Of signs and coins.
        """
        clients, size = len(self.masks), self.aggregator.layout.size
        own = {one: np.arange(one, size, clients) for one in range(min(clients, size))}
        open_ = {one: places[self.open_to(one)[places]] for one, places in own.items()}
        signs = {one: rng.choice([-1.0, 1.0], len(places)) for one, places in open_.items() if len(places)}
        inside = {one: bool(rng.integers(2)) for one in signs}
        sent = {one: self.canary(open_[one], signs[one]) for one in signs if inside[one]}
        total = self.release(sent, rng.bytes(16)).vector * self.behind
        return [Trial(Released(total, open_[one], signs[one]), inside[one]) for one in signs]
