"""A federated system: rounds on a simulated fleet, measured. What makes it one system or another is its stages."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from protocols.fetch import Served
from protocols.results import ClientRound, RoundResult, RunResult
from protocols.round import RoundContext, aggregate_work, play
from protocols.simulation.calibration import Calibration
from protocols.simulation.clock import TrainingCosts, client_time, round_seconds
from protocols.training import accuracy
from pruning.masks import Mask
from secagg.errors import DifferencingError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from protocols.aggregators import Aggregated, Aggregator, Client, Dropouts, Ledgers
    from protocols.round import PlayedRound, Stage, Work
    from protocols.simulation.devices import Device, Fleet
    from protocols.training import Examples, LocalSgd, State
    from pruning.units import Units


@dataclass(frozen=True, eq=False, kw_only=True)
class Federation:
    """What systems that are compared have in common.

    Args:
        model: The global model as it starts; never written to.
        units: Its units.
        fleet: The devices.
        examples: Device name to the examples of its client, in the order of the fleet.
        test: The test set.
        training: How clients train.
        seed: Decides everything random: batches, and in a simulation the secrets too.

    Raises:
        ParameterError: A device without examples, or examples without a device.
    """

    model: nn.Module
    units: Units
    fleet: Fleet
    examples: Mapping[Client, Examples]
    test: Examples
    training: LocalSgd
    seed: int = 0

    def __post_init__(self) -> None:
        if tuple(self.examples) != self.fleet.names:
            raise ParameterError("examples must name the devices of the fleet, in their order")

    @property
    def batch(self) -> torch.Tensor:
        """A batch of inputs as clients train on it."""
        return torch.zeros(self.training.batch_size, *self.test.inputs.shape[1:])

    def start(self) -> Checkpoint:
        """Where the first run begins."""
        state = self.model.state_dict()
        return Checkpoint(0, {t.name: state[t.name].clone() for t in self.units.layout.tensors}, None, 0.0)

    def model_at(self, checkpoint: Checkpoint) -> nn.Module:
        """A copy of the model with the tensors of a checkpoint."""
        model = copy.deepcopy(self.model)
        own = model.state_dict()
        with torch.no_grad():
            for name, tensor in checkpoint.state.items():
                own[name].copy_(tensor)
        return model


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a run stands, and where another can go on.

    Args:
        number: Of the next round.
        state: The global model's tensors.
        previous: Those of one round earlier; None at the start.
        seconds: Simulated time so far.
    """

    number: int
    state: State
    previous: State | None
    seconds: float


class System(ABC):
    """A federated system.

    Args:
        federation: What it runs on.
        aggregator: What joins the updates.
        twin: Aggregates every round's updates a second time; results then hold the largest difference. If it is
            always zero, a run with the twin instead of the aggregator gives the same models.
        calibration: Where the times of secure aggregation are kept; shared by systems whose times are compared.
    """

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.federation = federation
        self.aggregator = aggregator
        self._twin = twin
        self._calibration = calibration or Calibration()
        self._costs = TrainingCosts(federation.batch)

    @property
    @abstractmethod
    def name(self) -> str:
        """How results call it."""

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """The stages of its rounds, outermost first."""

    def foreseen_masks(self) -> Mapping[Client, Mask]:
        """What clients would hold in a round, as far as that is known before any training: by default everything."""
        return dict.fromkeys(self.federation.fleet.names, Mask.full(self.federation.units.layout))

    def run(
        self,
        rounds: int,
        start: Checkpoint | None = None,
        *,
        dropouts: Mapping[int, Dropouts] | None = None,
        ledgers: Ledgers | None = None,
        on_round: Callable[[RoundResult], None] = lambda _: None,
    ) -> tuple[RunResult, Checkpoint]:
        """Plays rounds one after another.

        Args:
            rounds: How many, at least one.
            start: Where to begin, by default at the federation's own model.
            dropouts: Number of a round to who drops out of it, and after which stage.
            ledgers: Client to what it remembers of its sessions, for those that do. A round that one of them refuses
                leaves the model as it was and no result but its number.
            on_round: Called with every finished round.

        Returns:
            What was measured, and where the run ended.

        Raises:
            ParameterError: Fewer than one round.
            DifferencingError: Every round was refused.
            SecAggError: A round that cannot be aggregated.
        """
        if rounds < 1:
            raise ParameterError(f"rounds must be at least 1, not {rounds}")
        checkpoint, stages = start or self.federation.start(), self.stages()
        results: list[RoundResult] = []
        refused: list[int] = []
        for number in range(checkpoint.number, checkpoint.number + rounds):
            try:
                result, checkpoint = self._play(stages, checkpoint, (dropouts or {}).get(number), ledgers)
            except DifferencingError:
                refused.append(number)
                checkpoint = replace(checkpoint, number=number + 1)
                continue
            on_round(result)
            results.append(result)
        if not results:
            raise DifferencingError("the ledgers refused every round")
        run = RunResult(
            system=self.name,
            aggregator=self.aggregator.name,
            stragglers=tuple(device.name for device in self.federation.fleet.stragglers),
            rounds=tuple(results),
            refused=tuple(refused),
        )
        return run, checkpoint

    def _play(
        self, stages: tuple[Stage, ...], checkpoint: Checkpoint, dropouts: Dropouts | None, ledgers: Ledgers | None
    ) -> tuple[RoundResult, Checkpoint]:
        """One round: what was measured, and where it ended."""
        number, setup = checkpoint.number, self.federation
        served = Served(setup.units.layout, checkpoint.state)
        context = RoundContext(number, setup.model_at(checkpoint), checkpoint.state, served, checkpoint.previous)
        seed = self._session_seed(number)
        played = play(
            stages, context, setup.fleet.names, self.aggregator, dropouts=dropouts, ledgers=ledgers, seed=seed
        )
        clients = self._client_rounds(played)
        seconds = checkpoint.seconds + round_seconds(client.seconds for client in clients.values())
        after = Checkpoint(number + 1, played.state, checkpoint.state, seconds)
        result = RoundResult(
            number=number,
            accuracy=accuracy(setup.model_at(after), setup.test),
            finished_at=seconds,
            clients=clients,
            survivors=tuple(map(str, played.aggregated.survivors)),
            withheld_share=played.aggregated.withheld_share,
            difference=self._difference(played, dropouts),
            verdict=played.aggregated.verdict,
        )
        return result, after

    def _session_seed(self, number: int) -> bytes:
        """Secrets of its own for every session, although runs repeat."""
        return hashlib.sha256(f"{self.name}, seed {self.federation.seed}, round {number}".encode()).digest()

    def _client_rounds(self, played: PlayedRound) -> dict[str, ClientRound]:
        secure = self._calibration.seconds(self.aggregator, played.work)
        return {
            device.name: self._client_round(device, played.work[device.name], played.aggregated, secure)
            for device in self.federation.fleet.devices
        }

    def _client_round(self, device: Device, work: Work, aggregated: Aggregated, secure: float) -> ClientRound:
        """What one client did and how long it took."""
        flops = self.federation.training.steps * self._costs.of(work.model).step_flops
        received = work.fetched_bytes + aggregated.download_bytes.get(device.name, 0)
        sent = aggregated.upload_bytes.get(device.name, 0)
        return ClientRound(
            keep=1.0 if work.mask.kind == "full" else float(work.mask.held.mean()),
            parameters=sum(parameter.numel() for parameter in work.model.parameters()),
            flops=flops,
            download_bytes=received,
            upload_bytes=sent,
            seconds=client_time(device, flops=flops, download_bytes=received, upload_bytes=sent, secure_seconds=secure),
        )

    def _difference(self, played: PlayedRound, dropouts: Dropouts | None) -> float | None:
        if self._twin is None:
            return None
        return largest_difference(played.aggregated, aggregate_work(self._twin, played.work, dropouts=dropouts))


def largest_difference(one: Aggregated, other: Aggregated) -> float:
    """Largest difference of two means and, where both have them, of their integer sums.

    Infinite if they do not even withhold the same coordinates.
    """
    if not np.array_equal(np.isnan(one.vector), np.isnan(other.vector)):
        return float("inf")
    differences = np.abs(np.nan_to_num(one.vector) - np.nan_to_num(other.vector)).max(initial=0.0)
    if one.integers is None or other.integers is None:
        return float(differences)
    if one.integers.shape != other.integers.shape:
        return float("inf")
    return max(float(differences), float(np.abs(one.integers - other.integers).max(initial=0)))
