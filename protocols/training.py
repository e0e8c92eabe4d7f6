"""What one client does with a model and its own examples, and how a model is judged."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import torch
from torch import nn
from torch.nn import functional

from protocols.sample_level.training import PrivateTraining, SampleLevel
from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

State: TypeAlias = Mapping[str, torch.Tensor]
"""Tensors by name: a model's, or an update's."""

Optimiser = Literal["sgd", "adam"]
Precision = Literal["float32", "bfloat16"]

_CHUNK = 500
"""Examples that are judged at once."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples of one client, or a test set.

    Args:
        inputs: (n, ...) as the model takes them.
        labels: (n,) int64, or (n, time) for sequences with a label at every place.

    Raises:
        InputError: Not as many labels as inputs, or no example at all.
    """

    inputs: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels) or not len(self.labels):
            raise InputError(f"{len(self.inputs)} inputs and {len(self.labels)} labels: there must be one label each")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where the examples are, and so where models are trained and judged on them."""
        return self.labels.device

    def to(self, device: torch.device | str) -> Examples:
        """The same examples on another device."""
        return Examples(self.inputs.to(device), self.labels.to(device))

    @classmethod
    def joined(cls, parts: Sequence[Examples]) -> Examples:
        """The examples of several parts, at least one, in their order."""
        return cls(torch.cat([one.inputs for one in parts]), torch.cat([one.labels for one in parts]))

    def subset(self, indices: Sequence[int]) -> Examples:
        """The examples at these places."""
        places = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        return Examples(self.inputs[places], self.labels[places])


@dataclass(frozen=True, kw_only=True)
class Training:
    """Local training: so many steps on batches of one size, so that it costs every client the same operations.

    Args:
        steps: Steps a round.
        batch_size: Examples a step.
        optimiser: ``"sgd"`` with ``momentum``, or ``"adam"``.
        learning_rate: Of the optimiser, on the cross entropy.
        momentum: Of SGD, in [0, 1).
        largest_gradient: Norm to which a longer gradient is shortened; None for no limit.
        precision: ``"bfloat16"`` lets PyTorch's autocast round products, and lays convolutions out with their channels
            last: three times as fast on processors that have the instructions, slower on others. Weights stay float32.
        proximal: What holds the model to where it starts: half of it, times the squared distance from there, is added
            to the loss (FedProx, T. Li et al., "Federated Optimization in Heterogeneous Networks", 2020). 0 adds
            nothing.
        sample_level: Differential privacy of every example, by DP-SGD; None for none.

    Raises:
        ParameterError: A setting outside its domain, or one that DP-SGD cannot have.
    """

    steps: int = 10
    batch_size: int = 16
    optimiser: Optimiser = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    largest_gradient: float | None = None
    precision: Precision = "float32"
    proximal: float = 0.0
    sample_level: SampleLevel | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ParameterError("steps and batch_size must be at least 1")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.momentum < 1:
            raise ParameterError("learning_rate must be positive and finite, and momentum in [0, 1)")
        if self.optimiser not in get_args(Optimiser):
            raise ParameterError(f"optimiser must be one of {get_args(Optimiser)}, not {self.optimiser!r}")
        if self.largest_gradient is not None and not self.largest_gradient > 0:
            raise ParameterError("largest_gradient must be positive, or None")
        if self.precision not in get_args(Precision):
            raise ParameterError(f"precision must be one of {get_args(Precision)}, not {self.precision!r}")
        if not 0 <= self.proximal < math.inf:
            raise ParameterError(f"proximal must be 0 or more, and finite, not {self.proximal}")
        _ = self.private

    @property
    def private(self) -> PrivateTraining | None:
        """The same with differential privacy of every example; None without ``sample_level``."""
        return None if self.sample_level is None else PrivateTraining(training=self, privacy=self.sample_level)

    def train(
        self, model: nn.Module, examples: Examples, seed: int, entropy: Callable[[int], bytes] = os.urandom
    ) -> None:
        """Trains a model in place, on the device that the examples are on.

        Args:
            model: What to train.
            examples: On what.
            seed: Decides the batches and whatever else is random in the model, but nothing that privacy rests on.
            entropy: Source of random bytes for ``sample_level``, as ``PrivateTraining.train``.
        """
        if (private := self.private) is not None:
            private.train(model, examples, seed, entropy)
            return
        home, low = _device_of(model), self.precision == "bfloat16"
        model.to(examples.device).train()
        if low:
            _lay_out(model, torch.channels_last)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        start = [parameter.detach().clone() for parameter in parameters] if self.proximal else []
        optimiser = self.optimiser_of(parameters)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for batch in self._batches(len(examples)):
                optimiser.zero_grad()
                with torch.autocast(examples.device.type, torch.bfloat16, enabled=low):
                    logits = model(examples.inputs[batch])
                loss = cross_entropy(logits.float(), examples.labels[batch])
                if start:
                    loss = loss + self.proximal / 2 * _squared_distance(parameters, start)
                loss.backward()
                if self.largest_gradient is not None:
                    nn.utils.clip_grad_norm_(parameters, self.largest_gradient)
                optimiser.step()
        _lay_out(model, torch.contiguous_format)
        model.to(home)

    def optimiser_of(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """A new optimiser of these parameters, as the settings say."""
        if self.optimiser == "adam":
            return torch.optim.Adam(parameters, self.learning_rate, fused=True)
        return torch.optim.SGD(parameters, self.learning_rate, self.momentum)

    def _batches(self, count: int) -> Iterator[torch.Tensor]:
        """One permutation of the examples after another, cut into whole batches."""
        needed = self.steps * self.batch_size
        passes = [torch.randperm(count) for _ in range(-(-needed // count))]
        yield from torch.cat(passes)[:needed].split(self.batch_size)


def _lay_out(model: nn.Module, form: torch.memory_format) -> None:
    """Lays the weights of convolutions on images out in memory; what they are is not changed."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=form)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of one prediction an example, or of one a place of a sequence."""
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def _squared_distance(tensors: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([(one - other).square().sum() for one, other in zip(tensors, others, strict=True)]).sum()


def with_state(model: nn.Module, state: State) -> nn.Module:
    """A copy of a module with these tensors in place of its own; what ``state`` does not name stays."""
    copied = copy.deepcopy(model)
    own = copied.state_dict()
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
    return copied


def accuracy(model: nn.Module, examples: Examples, precision: Precision = "float32") -> float:
    """Share of the labels that the largest logit names; of a sequence every place counts.

    Args:
        model: What to judge; left as it is.
        examples: On what.
        precision: As in ``Training``.
    """
    model, low = copy.deepcopy(model).to(examples.device).eval(), precision == "bfloat16"
    if low:
        _lay_out(model, torch.channels_last)
    with torch.no_grad(), torch.autocast(examples.device.type, torch.bfloat16, enabled=low):
        hits = [
            (model(inputs).argmax(dim=-1) == labels).flatten()
            for inputs, labels in zip(examples.inputs.split(_CHUNK), examples.labels.split(_CHUNK), strict=True)
        ]
    return float(torch.cat(hits).float().mean())


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread inside, as before outside: sums on one and on two threads differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
