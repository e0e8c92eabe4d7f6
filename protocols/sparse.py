"""Rounds on one public mask of single weights, which all clients share and the system may change after a round."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from protocols.aggregators.joint import Joint
from protocols.aggregators.one_mask import OneMask
from protocols.randomness import number as number_of
from protocols.round import Stage
from protocols.stages import Delta, Fetch, LocalTraining, Sparse
from protocols.synchronous import SynchronousSystem
from protocols.training import cross_entropy
from pruning.kernels import Kernels
from pruning.masks import Mask
from secagg.declaration import Provenance
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from protocols.aggregators import Aggregated, Aggregator, Client
    from protocols.federation import Checkpoint, Federation, Memory
    from protocols.results import ClientRound
    from protocols.round import RoundContext, Work
    from protocols.simulation.calibration import Calibration
    from protocols.training import State
    from pruning.kernels import Vector


class SparseSystem(SynchronousSystem):
    """FedAvg on the weights that one public mask leaves. The others are zero for everybody.

    The mask is public because it follows from what the server knows: means over a cohort, and the global model.

    Args:
        federation: As ``System``.
        aggregator: As ``System``, in the uniform mode.
        twin: As ``System``.
        calibration: As ``System``.
    """

    derived: frozenset[str] = frozenset()
    """Names of contributions that a server which sees every update can compute itself, so that they cost nothing."""

    accounts = False  # gradients are summed without noise

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.kernels = Kernels(federation.units.layout)
        self.mask = Mask.full(federation.units.layout)
        super().__init__(
            federation,
            self._sharing(aggregator),
            twin=None if twin is None else self._sharing(twin),
            calibration=calibration,
        )
        self.recall({})

    @abstractmethod
    def ranges(self) -> Mapping[str, float]:
        """What the next mask is made of: names of means to the public bounds of their numbers; empty if none is due."""

    def places(self, name: str) -> NDArray[np.bool_]:  # noqa: ARG002 - by default all
        """The kernels' coordinates at which the next mask depends on a mean, (kernels.size,) bool; no other is sent."""
        return np.ones(self.kernels.size, bool)

    @abstractmethod
    def contribution(self, context: RoundContext, own: Work) -> Mapping[str, Vector]:
        """What a client gives to these means, by name: vectors of (kernels.size,) within their bounds.

        At their ``places`` they are summed in the session of the updates, over the same clients. Computing them is
        charged as one step.
        """

    @abstractmethod
    def renewed(self, means: Mapping[str, torch.Tensor], before: Vector, after: Vector) -> Mask:
        """The next mask.

        Args:
            means: Of the contributions, by name, (kernels.size,) float64; 0 where they are not taken.
            before: The kernels of the model that the round started from.
            after: Those plus the mean of the updates.
        """

    def stages(self) -> tuple[Stage, ...]:
        """Fetch what the mask leaves, train it, subtract; on the server, zero what a new mask has dropped."""
        setup = self.federation
        training = LocalTraining(setup.examples, setup.training, setup.seed)
        held = Sparse(lambda client, context: self.mask)  # noqa: ARG005
        return _Prune(self), Fetch(), held, training, Delta(), _Contribute(self)

    def learn(
        self,
        context: RoundContext,
        clients: Mapping[Client, ClientRound],  # noqa: ARG002
        work: Mapping[Client, Work],  # noqa: ARG002
        aggregated: Aggregated | None,
    ) -> Mapping[str, float]:
        """Makes the next mask, if the round ended well and one is due."""
        if aggregated is not None:
            if ranges := self.ranges():
                step, before = aggregated.step, self.kernels.values(context.start)
                after = before + self.kernels.values(step)
                self.mask = self.renewed({name: self._spread(name, step) for name in ranges}, before, after)
            self.played += 1
        return {"density": self.kernels.density(self.mask)}

    def remember(self) -> Memory:
        """The mask, and how many rounds led to it."""
        return {"played": self.played, "held": torch.tensor(self.mask.coordinates)}

    def recall(self, memory: Memory) -> None:
        """Takes up where ``remember`` left off."""
        self.played = int(memory.get("played", 0))
        layout, held = self.federation.units.layout, memory.get("held")
        full = Mask.full(layout)
        self.mask = full if held is None else Mask.of_coordinates(layout, held.numpy(), Provenance.PUBLIC)

    def model_of(self, client: Client, checkpoint: Checkpoint) -> tuple[State, Mask]:  # noqa: ARG002 - all alike
        """The global model under its mask."""
        return checkpoint.state, self.mask

    def gradient(self, context: RoundContext, client: Client) -> Vector:
        """A client's gradient at the global model on one batch, of all weights, held or not: (kernels.size,)."""
        setup = self.federation
        examples = setup.examples[client]
        model = copy.deepcopy(context.model).to(examples.device).train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number_of(setup.seed, "gradient", context.number, setup.fleet.number(client)))
            batch = examples.subset(torch.randperm(len(examples))[: setup.training.batch_size].tolist())
            cross_entropy(model(batch.inputs), batch.labels).backward()
        return self.kernels.values({name: one.grad for name, one in model.named_parameters() if one.grad is not None})

    def _sharing(self, aggregator: Aggregator) -> Aggregator:
        """The same under the mask, with the contributions in the session of the updates."""
        joint = Joint(aggregator, self._vectors, self.derived)
        return OneMask(joint, lambda: self.mask)

    def _vectors(self) -> dict[str, tuple[int, float]]:
        """How many numbers there are under each name, and the bound of one; none under names that have none."""
        vectors = {name: (int(self.places(name).sum()), bound) for name, bound in self.ranges().items()}
        return {name: vector for name, vector in vectors.items() if vector[0]}

    def _spread(self, name: str, means: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """A mean over all coordinates of the kernels."""
        whole = torch.zeros(self.kernels.size, dtype=torch.float64)
        if name in means:
            whole[torch.from_numpy(self.places(name))] = means[name]
        return whole


@final
class _Prune(Stage):
    """On the server: what the system's mask does not hold is zero.

    Args:
        system: Has the mask.
    """

    def __init__(self, system: SparseSystem) -> None:
        self._system = system

    def on_client(self, context: RoundContext, work: Work) -> Work:  # noqa: ARG002 - clients fetch zeros
        """Nothing: ``Sparse`` does it."""
        return work

    def on_server(self, context: RoundContext, values: State) -> State:  # noqa: ARG002 - the start is not needed
        """Zeroes the rest."""
        if self._system.mask.kind == "full":
            return values
        held = self._system.mask.by_tensor()
        return {name: torch.where(torch.from_numpy(held[name]), tensor, 0) for name, tensor in values.items()}


@final
class _Contribute(Stage):
    """Adds to a client's update what the next mask is made of; on the server, the model does not move by it.

    Args:
        system: Says what, and whether it is due.
    """

    def __init__(self, system: SparseSystem) -> None:
        self._system = system

    def on_client(self, context: RoundContext, work: Work) -> Work:
        """Adds the contribution, where one is due.

        Raises:
            ParameterError: A tensor of the model has the name of a contribution.
        """
        if not self._system.ranges():
            return work
        own = self._system.contribution(context, work)
        if taken := own.keys() & work.update.keys():
            raise ParameterError(f"the model has tensors called {', '.join(sorted(taken))}, as means are: rename them")
        places = {name: self._system.places(name) for name in own}
        tensors = {name: torch.from_numpy(own[name][at]) for name, at in places.items() if at.any()}
        return replace(work, update={**work.update, **tensors}, further_steps=work.further_steps + 1)

    def on_server(self, context: RoundContext, values: State) -> State:
        """Leaves the tensors of the model."""
        return {name: values[name] for name in context.start}
