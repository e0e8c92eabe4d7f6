"""What a server has of one client: an upload, the model that it started from, and how clients train."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from protocols.training import State, Training


@dataclass(frozen=True, eq=False)
class Upload:
    """What the server sees of one client, and what every server knows.

    Args:
        model: Where the client's training started; of a submodel of units, with zeros for what it lacks.
        update: What the client uploaded, at full shape. From a session it is what the masked vector reads as.
        training: How the client trains: steps, batch size, learning rate and momentum, but on what the server lacks.
        shape: Of one example, without the batch.
        low: Least value that an example has anywhere.
        high: Largest.
        classes: Labels that there are.
        held: Tensor to the coordinates that the client declared, bool; None where it declared none.
    """

    model: nn.Module
    update: State
    training: Training
    shape: tuple[int, ...]
    low: float
    high: float
    classes: int
    held: Mapping[str, torch.Tensor] | None = None

    @property
    def examples(self) -> int:
        """How many examples went in, as far as the server can tell: so many in every step, none of them twice."""
        return self.training.steps * self.training.batch_size

    @property
    def gray(self) -> NDArray[np.float64]:
        """What somebody guesses who has no idea, (examples, ...)."""
        return np.full((self.examples, *self.shape), (self.low + self.high) / 2)

    def gradient(self, name: str) -> NDArray[np.float64]:
        """The update of one parameter as the mean gradient of plain SGD, and what is not a number as zero."""
        change = self.update[name].detach().numpy().astype(np.float64)
        return np.nan_to_num(-change / (self.training.learning_rate * self.training.steps), posinf=0.0, neginf=0.0)

    def boxed(self, guess: NDArray[np.float64]) -> NDArray[np.float64]:
        """A guess as examples: of their shape, within their range, and gray where it came to nothing."""
        middle = (self.low + self.high) / 2
        return np.nan_to_num(guess, nan=middle).clip(self.low, self.high).reshape(-1, *self.shape)


class Replay:
    """The client's training over again, on guessed examples, as a function that can be differentiated.

    Local steps of SGD are unrolled, momentum included; an Adam, a proximal term or a longest gradient are left out.
    Batch normalisation normalises by the statistics of the guessed batch, as the client's does by those of its own:
    none have to be known, and what an upload says of them is not used.

    Args:
        view: The upload whose training is replayed.
    """

    def __init__(self, view: Upload) -> None:
        self.training = view.training
        self.model = copy.deepcopy(view.model).double().train()
        parameters = {name: one for name, one in self.model.named_parameters() if one.requires_grad}
        self.start = {name: one.detach().clone().requires_grad_() for name, one in parameters.items()}
        self.held = None if view.held is None else torch.cat([view.held[name].flatten() for name in self.start])
        seen = torch.cat([view.update[name].detach().flatten() for name in self.start]).double()
        self.target = torch.nan_to_num(self._kept(seen), posinf=0.0, neginf=0.0)

    def update(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What training on these examples, in this order, would upload: flat, and only what was uploaded.

        Args:
            inputs: (examples, ...) float64.
            labels: (examples, classes) float64, a distribution each.
        """
        weights: dict[str, torch.Tensor] = dict(self.start)
        velocity = [torch.zeros_like(one) for one in weights.values()]
        size, pace = self.training.batch_size, self.training.learning_rate
        momentum = self.training.momentum if self.training.optimiser == "sgd" else 0.0
        for batch, wanted in zip(inputs.split(size), labels.split(size), strict=True):
            loss = functional.cross_entropy(functional_call(self.model, weights, (batch,)), wanted)
            slopes = torch.autograd.grad(
                loss, list(weights.values()), create_graph=True, allow_unused=True, materialize_grads=True
            )
            velocity = [momentum * old + slope for old, slope in zip(velocity, slopes, strict=True)]
            weights = {name: old - pace * v for (name, old), v in zip(weights.items(), velocity, strict=True)}
        return self._kept(torch.cat([(weights[name] - old).flatten() for name, old in self.start.items()]))

    def _kept(self, vector: torch.Tensor) -> torch.Tensor:
        return vector if self.held is None else vector[self.held]


def first_dense(view: Upload) -> str | None:
    """Name of the dense layer that the examples go into as they are, if there is one with a bias; else None."""
    for name, layer in _layers(view.model):
        if isinstance(layer, nn.Linear) and layer.bias is not None and layer.in_features == math.prod(view.shape):
            return name
        return None
    return None


def last_dense(view: Upload) -> str | None:
    """Name of the dense layer that makes the logits, if one does; else None."""
    name, layer = ([("", None), *_layers(view.model)])[-1]
    return name if isinstance(layer, nn.Linear) and layer.out_features == view.classes else None


def _layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Layers with parameters of their own, in the order in which they were declared."""
    return [
        (name, layer)
        for name, layer in model.named_modules()
        if next(layer.parameters(recurse=False), None) is not None
    ]
