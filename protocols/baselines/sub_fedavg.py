"""Sub-FedAvg: every client prunes single weights of its own, and shares what others kept too.

S. Vahidian, M. Morafah, B. Lin, "Personalized Federated Learning by Structured and Unstructured Pruning under Data
Heterogeneity", ICDCS workshops 2021: the unstructured variant, algorithm 1. After its training a client prunes each
kernel by a share of the smallest weights that are left, if the pruned model is still good enough, and if the mask that
it would have made earlier in the training is another one. The server averages each coordinate over those who hold it;
what nobody holds keeps its value. A client's model is the global one under its own mask.

Reconstructed from the paper and its public code, with two differences. That code judges the pruned model on the
client's test examples, which nothing here may look at before the end: here on its training examples. And it compares
masks after the first epoch and the last, but a round here need not be a whole number of epochs: the first mask is that
after the first epoch, or after half the steps, if that is sooner.

A mask follows from the weights that a client has trained, so it says something of its data to whoever is told it.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from protocols.round import Stage
from protocols.stages import Delta, Fetch, LocalTraining, Sparse
from protocols.synchronous import SynchronousSystem
from protocols.training import accuracy
from pruning.kernels import Kernels
from pruning.masks import Mask
from pruning.sparse import held_by
from secagg.declaration import Provenance
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import nn

    from protocols.aggregators import Aggregated, Aggregator, Client
    from protocols.federation import Checkpoint, Federation, Memory
    from protocols.results import ClientRound
    from protocols.round import RoundContext, Work
    from protocols.simulation.calibration import Calibration
    from protocols.training import State


@dataclass(frozen=True, kw_only=True)
class SubFedAvgSettings:
    """The settings of Sub-FedAvg.

    Args:
        rate: Share of the weights left in a kernel that are pruned at a time, in (0, 1).
        target_density: Of the kernels, at which pruning ends, in (0, 1].
        threshold: Accuracy on its own examples that a client's pruned model must exceed, from 0 to 1.
        least_change: Share of a kernel, on average over the kernels, by which the masks made earlier and at the end of
            a training must differ, from 0 to 1.

    Raises:
        ParameterError: A setting outside its domain.
    """

    rate: float = 0.1
    target_density: float = 0.3
    threshold: float = 0.5
    least_change: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or not 0 < self.target_density <= 1:
            raise ParameterError("rate must be in (0, 1), and target_density in (0, 1]")
        if not (0 <= self.threshold <= 1 and 0 <= self.least_change <= 1):
            raise ParameterError("threshold and least_change must be from 0 to 1")


@final
class SubFedAvg(SynchronousSystem):
    """Federated averaging over personal masks of single weights.

    Args:
        federation: As ``System``.
        aggregator: As ``System``; in the mask-indexed mode the mean is over those who hold a coordinate.
        settings: When clients prune, and how much.
        twin: As ``System``.
        calibration: As ``System``.

    Raises:
        ParameterError: The model has no kernel.
    """

    accounts = False  # masks depend on how accurate models are on their clients' examples

    settings: SubFedAvgSettings

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: SubFedAvgSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(federation, aggregator, twin=twin, calibration=calibration)
        self.settings = settings or SubFedAvgSettings()
        self.kernels = Kernels(federation.units.layout)
        self.masks: dict[Client, Mask] = {}

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"Sub-FedAvg {self.aggregator.name}"

    def mask_of(self, client: Client) -> Mask:
        """What a client holds; everything before it has pruned."""
        return self.masks.get(client) or Mask.full(self.federation.units.layout)

    def stages(self) -> tuple[Stage, ...]:
        """Fetch what the own mask leaves, train it, prune it further, subtract."""
        return Fetch(), Sparse(lambda client, _: self.mask_of(client)), _PruningTraining(self), Delta()

    def learn(
        self,
        context: RoundContext,  # noqa: ARG002 - clients have learned already
        clients: Mapping[Client, ClientRound],  # noqa: ARG002
        work: Mapping[Client, Work],  # noqa: ARG002
        aggregated: Aggregated | None,  # noqa: ARG002
    ) -> Mapping[str, float]:
        """Measures how dense clients' models are."""
        densities = [self.kernels.density(self.mask_of(client)) for client in self.federation.fleet.names]
        return {"mean density": fmean(densities)}

    def model_of(self, client: Client, checkpoint: Checkpoint) -> tuple[State, Mask]:
        """The global model under the client's own mask."""
        mask = self.mask_of(client)
        held = mask.by_tensor()
        state = {name: torch.where(torch.from_numpy(held[name]), one, 0) for name, one in checkpoint.state.items()}
        return state, mask

    def remember(self) -> Memory:
        """Everybody's mask."""
        return {"held": {str(client): torch.tensor(self.kernels.active(mask)) for client, mask in self.masks.items()}}

    def recall(self, memory: Memory) -> None:
        """Takes up where ``remember`` left off."""
        known = memory.get("held", {})
        self.masks = {client: self.kernels.mask(held.numpy(), Provenance.DATA) for client, held in known.items()}


def prune(kernels: Kernels, weights: NDArray[np.float64], mask: Mask, rate: float, target_density: float) -> Mask:
    """Prunes, in each kernel, a share of the smallest weights that are left.

    Args:
        kernels: Of the model.
        weights: Theirs, (kernels.size,); of equal magnitudes the first stay.
        mask: What is left of the model.
        rate: Share of what is left in a kernel, to the nearest number of weights.
        target_density: Below which no kernel gets: the last step is a smaller one.

    Returns:
        A mask inside the given one, private to the client.
    """
    before = kernels.active(mask)
    after = np.zeros_like(before)
    for group in kernels.groups(0.0, "layer"):
        left = before[group.place]
        count = max(math.floor((1 - rate) * left.sum() + 0.5), group.nearest(target_density))
        after[group.place] = group.keep(np.abs(weights[group.place]), left, count)
    return kernels.mask(after, Provenance.DATA)


def distance(kernels: Kernels, one: Mask, other: Mask) -> float:
    """Share of a kernel's coordinates in which two masks differ, on average over the kernels."""
    differ = kernels.active(one) != kernels.active(other)
    return fmean(float(differ[place].mean()) for place in kernels.places)


@final
class _PruningTraining(Stage):
    """Trains under the client's mask, and then makes the mask smaller where that is due.

    Args:
        system: Keeps the masks.
    """

    def __init__(self, system: SubFedAvg) -> None:
        self._system = system
        setup = system.federation
        self._training = LocalTraining(setup.examples, setup.training, setup.seed)

    def on_client(self, context: RoundContext, work: Work) -> Work:
        """Returns the trained model, under the mask that the client has from now on, whatever becomes of the round."""
        trained = self._training.on_client(context, work)
        mask = self._pruned(trained.model, work.mask)
        if not self._good(trained, mask) or not self._moved(context, work, mask):
            return trained
        self._system.masks[work.client] = mask
        return replace(trained, mask=mask)

    def _pruned(self, model: nn.Module, mask: Mask) -> Mask:
        kernels, settings = self._system.kernels, self._system.settings
        return prune(kernels, kernels.values(model.state_dict()), mask, settings.rate, settings.target_density)

    def _good(self, trained: Work, mask: Mask) -> bool:
        """Whether the model is accurate enough under a smaller mask."""
        kernels, setup = self._system.kernels, self._system.federation
        if kernels.density(mask) >= kernels.density(trained.mask):
            return False
        model = copy.deepcopy(trained.model)
        with held_by(mask, model):
            reached = accuracy(model, setup.examples[trained.client], setup.training.precision)
        return reached > self._system.settings.threshold

    def _moved(self, context: RoundContext, work: Work, mask: Mask) -> bool:
        """Whether the mask would have been another one earlier in the training.

        Its beginning is played again, which costs no simulated time: a device would have kept that mask.
        """
        setup, settings = self._system.federation, self._system.settings
        epoch = math.ceil(len(setup.examples[work.client]) / setup.training.batch_size)
        steps = min(epoch, max(1, setup.training.steps // 2))
        beginning = LocalTraining(setup.examples, replace(setup.training, steps=steps), setup.seed)
        early = self._pruned(beginning.on_client(context, work).model, work.mask)
        return distance(self._system.kernels, early, mask) >= settings.least_change
