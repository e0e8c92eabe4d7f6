"""What systems that are compared have in common: model, data, devices, and where a run stands."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from protocols.randomness import generator
from protocols.training import with_state
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from protocols.aggregators import Client
    from protocols.simulation.devices import Fleet
    from protocols.training import Examples, State, Training
    from pruning.units import Units

Memory: TypeAlias = "Mapping[str, Any]"
"""What a system remembers from round to round: dicts, lists, numbers, strings and tensors."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a run stands, and where another can go on.

    Args:
        number: Of the next round.
        state: The global model's tensors.
        previous: Those of one round earlier; None at the start.
        seconds: Simulated time so far.
        memory: What the system remembers.
    """

    number: int
    state: State
    previous: State | None
    seconds: float
    memory: Memory = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class Federation:
    """What systems that are compared have in common.

    Args:
        model: The global model as it starts; never written to.
        units: Its units.
        fleet: The devices.
        examples: Device name to the examples of its client, in the order of the fleet.
        test: What models are judged on: the test set, or the validation part where settings are chosen.
        training: How clients train.
        participants: How many clients, drawn at random, take part in a round; None for all.
        deadline: Seconds after which a round goes on without those whose vectors are not there; None to wait for
            everybody. Counted by operations and the bytes of model and vector; keys, shares and the computation of
            secure aggregation come on top.
        watts: What a device draws while it trains.
        seed: Decides everything random: batches, cohorts, and in a simulation the secrets too.
        tests: Device name to what a model made for its client alone is judged on: its own test examples, or what it set
            aside where settings are chosen. A client that set nothing aside is missing.
        validation: What the clients set aside, pooled; None where nobody did.

    Raises:
        ParameterError: A device without examples, examples without a device, or a setting outside its domain.
    """

    model: nn.Module
    units: Units
    fleet: Fleet
    examples: Mapping[Client, Examples]
    test: Examples
    training: Training
    participants: int | None = None
    deadline: float | None = None
    watts: float = 40.0
    seed: int = 0
    tests: Mapping[Client, Examples] = field(default_factory=dict)
    validation: Examples | None = None

    def __post_init__(self) -> None:
        if tuple(self.examples) != self.fleet.names:
            raise ParameterError("examples must name the devices of the fleet, in their order")
        if not self.tests.keys() <= self.examples.keys():
            raise ParameterError("tests must name devices of the fleet")
        if self.participants is not None and not 1 <= self.participants <= len(self.examples):
            raise ParameterError(f"participants must be from 1 to the {len(self.examples)} clients")
        if self.deadline is not None and not 0 < self.deadline < math.inf:
            raise ParameterError("deadline must be positive and finite, or None")

    @property
    def batch(self) -> torch.Tensor:
        """A batch of inputs as clients train on it."""
        return torch.zeros(self.training.batch_size, *self.test.inputs.shape[1:], dtype=self.test.inputs.dtype)

    @property
    def cohort_size(self) -> int:
        """How many clients are invited to a round."""
        return self.participants or len(self.examples)

    def cohort(self, number: int, among: tuple[Client, ...] | None = None) -> tuple[Client, ...]:
        """The clients of a round, in the order of the fleet.

        Args:
            number: Of the round.
            among: Who may be drawn; None for everybody.
        """
        names = self.fleet.names if among is None else among
        if self.participants is None or self.participants >= len(names):
            return tuple(names)
        drawn = generator(self.seed, "cohort", number).choice(len(names), self.participants, replace=False)
        return tuple(names[place] for place in sorted(drawn))

    def start(self) -> Checkpoint:
        """Where the first run begins."""
        state = self.model.state_dict()
        return Checkpoint(0, {t.name: state[t.name].clone() for t in self.units.layout.tensors}, None, 0.0)

    def model_at(self, checkpoint: Checkpoint) -> nn.Module:
        """A copy of the model with the tensors of a checkpoint."""
        return with_state(self.model, checkpoint.state)
