"""Rounds on one public mask of single weights, which all clients share and the system may change after a round."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, final

import torch

from protocols.measuring import SILENCE, Talk
from protocols.one_mask import OneMask
from protocols.randomness import number as number_of
from protocols.randomness import session_seed
from protocols.round import Stage
from protocols.sessions.averaging import averages, open_averages
from protocols.stages import Delta, Fetch, LocalTraining, Sparse
from protocols.synchronous import SynchronousSystem
from protocols.training import cross_entropy
from pruning.kernels import Kernels
from pruning.masks import Mask
from secagg.declaration import Provenance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.aggregated import Aggregated
    from protocols.aggregators import Aggregator, Client
    from protocols.federation import Checkpoint, Federation, Memory
    from protocols.results import ClientRound
    from protocols.round import RoundContext, Work
    from protocols.sessions.averaging import Averages
    from protocols.simulation.calibration import Calibration
    from protocols.training import State
    from pruning.kernels import Vector


TOGETHER = " These means and that of the updates say more together than each does."
"""Of a round with several sums of one training; ``docs/security.md`` says what."""


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

    _means: Mapping[str, torch.Tensor]
    _before: Vector

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
            OneMask(aggregator, lambda: self.mask),
            twin=None if twin is None else OneMask(twin, lambda: self.mask),
            calibration=calibration,
        )
        self.recall({})

    @abstractmethod
    def ranges(self) -> Mapping[str, float]:
        """What the next mask is made of: names of means to the public bounds of their numbers; empty if none is due."""

    @abstractmethod
    def contribution(self, context: RoundContext, own: Work) -> Mapping[str, Vector]:
        """What a client gives to these means, by name: vectors of (kernels.size,) within their bounds.

        No sum of them may tell what the sum of the updates tells: the two cohorts differ by whoever drops out, and so
        would the sums, by that client's update.
        """

    @abstractmethod
    def renewed(self, means: Mapping[str, torch.Tensor], before: Vector, after: Vector) -> Mask:
        """The next mask.

        Args:
            means: Of the contributions, by name.
            before: The kernels of the model that the round started from.
            after: Those plus the mean of the updates.
        """

    def stages(self) -> tuple[Stage, ...]:
        """Fetch what the mask leaves, train it, subtract; on the server, zero what a new mask has dropped."""
        setup = self.federation
        training = LocalTraining(setup.examples, setup.training, setup.seed)
        return _Prune(self), Fetch(), Sparse(lambda client, context: self.mask), training, Delta()  # noqa: ARG005

    def confer(self, context: RoundContext, work: Mapping[Client, Work]) -> Talk:
        """Takes the means that the next mask is made of, once for each model: after a lost round they still hold."""
        ranges = self.ranges()
        if not ranges or not work:
            return SILENCE
        self._before = self.kernels.values(context.start)
        if self._means:
            return SILENCE
        averaged = self._averaged(context, {client: self.contribution(context, one) for client, one in work.items()})
        self._means = averaged.mean
        return Talk((replace(averaged, verdict=averaged.verdict + TOGETHER),))

    def learn(
        self,
        number: int,  # noqa: ARG002 - it counts its own rounds
        clients: Mapping[Client, ClientRound],  # noqa: ARG002
        work: Mapping[Client, Work],  # noqa: ARG002
        aggregated: Aggregated | None,
    ) -> Mapping[str, float]:
        """Makes the next mask, if the round ended well and one is due."""
        if aggregated is not None:
            if self._means:
                after = self._before + self.kernels.values(aggregated.step)
                self.mask = self.renewed(self._means, self._before, after)
            self._means = {}
            self.played += 1
        return {"density": self.kernels.density(self.mask)}

    def remember(self) -> Memory:
        """The mask, how many rounds led to it, and what the next one is made of."""
        return {"played": self.played, "held": torch.tensor(self.mask.coordinates), "means": dict(self._means)}

    def recall(self, memory: Memory) -> None:
        """Takes up where ``remember`` left off."""
        self.played = int(memory.get("played", 0))
        layout, held = self.federation.units.layout, memory.get("held")
        full = Mask.full(layout)
        self.mask = full if held is None else Mask.of_coordinates(layout, held.numpy(), Provenance.PUBLIC)
        self._means = memory.get("means", {})

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

    def _averaged(self, context: RoundContext, given: Mapping[Client, Mapping[str, Vector]]) -> Averages:
        """What clients have on average, in a session of its own; in floating point, in the open."""
        tensors = {
            client: {name: torch.from_numpy(vector) for name, vector in own.items()} for client, own in given.items()
        }
        if self.aggregator.params is None:
            return open_averages(tensors, known=self.derived)
        return averages(
            tensors,
            ranges=self.ranges(),
            params=self.aggregator.params,
            seed=session_seed(self.federation.seed, "means", self.name, self.settings, context.number),
            encrypted=self.aggregator.encrypted,
            model_root=context.served.root,
        )


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
