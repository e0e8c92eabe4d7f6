"""What one client does with a model and its own examples, and how a model is judged."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch.nn import functional

from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

State: TypeAlias = Mapping[str, torch.Tensor]
"""Tensors by name: a model's, or an update's."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples of one client, or a test set.

    Args:
        inputs: (n, ...) as the model takes them.
        labels: (n,) int64.

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

    def subset(self, indices: Sequence[int]) -> Examples:
        """The examples at these places."""
        places = torch.as_tensor(indices, dtype=torch.int64)
        return Examples(self.inputs[places], self.labels[places])


@dataclass(frozen=True, kw_only=True)
class LocalSgd:
    """Local training: so many steps of SGD on batches of one size, so that it costs every client the same operations.

    Args:
        steps: Steps a round.
        batch_size: Examples a step.
        learning_rate: Of plain SGD with momentum on the cross entropy.
        momentum: In [0, 1).

    Raises:
        ParameterError: A setting outside its domain.
    """

    steps: int = 10
    batch_size: int = 16
    learning_rate: float = 0.05
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ParameterError("steps and batch_size must be at least 1")
        if self.learning_rate <= 0 or not 0 <= self.momentum < 1:
            raise ParameterError("learning_rate must be positive and momentum in [0, 1)")

    def train(self, model: nn.Module, examples: Examples, seed: int) -> None:
        """Trains a model in place; the seed decides the batches and whatever else is random in the model."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.SGD(parameters, self.learning_rate, self.momentum)
        model.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for batch in self._batches(len(examples)):
                optimiser.zero_grad()
                logits = model(examples.inputs[batch])
                functional.cross_entropy(logits, examples.labels[batch]).backward()
                optimiser.step()

    def _batches(self, count: int) -> Iterator[torch.Tensor]:
        """One permutation of the examples after another, cut into whole batches."""
        needed = self.steps * self.batch_size
        passes = [torch.randperm(count) for _ in range(-(-needed // count))]
        yield from torch.cat(passes)[:needed].split(self.batch_size)


def accuracy(model: nn.Module, examples: Examples) -> float:
    """Share of the examples whose largest logit is their label."""
    model.eval()
    with torch.no_grad():
        hits = model(examples.inputs).argmax(dim=1) == examples.labels
    return float(hits.float().mean())


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread inside, as before outside: sums on one and on two threads differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
