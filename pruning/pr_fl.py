"""PR-FL's nested masks: all clients rank the coordinates alike, and each holds as much of the top as it can carry.

ArXiv 2403.15439. A coordinate matters as much as its squared gradient, averaged over the clients, who all weigh
alike, and one ranking goes over the whole model. So the mask of a smaller density lies within that of every larger one,
and what a client of low density trains is trained by all those of higher density too.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch

from pruning.changes import parameter_tensors, values_of
from pruning.masks import Mask
from secagg.declaration import Provenance
from secagg.errors import InputError, LayoutMismatchError, NotFiniteError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import ArrayLike, NDArray
    from torch import nn

    from pruning.units import Units
    from secagg.layout import Layout

ALWAYS = -1
"""The rank of a coordinate that every mask holds: a running statistic, which no gradient ranks."""


def squared_gradients(
    units: Units,
    model: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> NDArray[np.float64]:
    """How much each coordinate matters to one client: the mean over batches of the loss's squared gradient.

    The mode of the model counts: in training mode a normalisation is by the batch, and whatever is random draws from
    PyTorch's global generator.

    Args:
        units: Of the model.
        model: At which gradients are taken; a copy computes them, and the model is left as it is.
        batches: Inputs and labels, on the model's device.
        loss: Of the model's output and the labels, one number.

    Returns:
        (layout.size,) float64, at least 0; zero for what has no gradient, such as running statistics and parameters
        that are frozen.

    Raises:
        InputError: No batch.
        LayoutMismatchError: The model lacks a parameter of the layout, or has it in another shape.
        NotFiniteError: A gradient is NaN or infinite.
    """
    working = copy.deepcopy(model)
    totals = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in working.named_parameters()}
    trained = {name: parameter for name, parameter in working.named_parameters() if parameter.requires_grad}
    count = 0
    for inputs, labels in batches:
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss(working(inputs), labels), list(trained.values()), allow_unused=True)
        for name, gradient in zip(trained, gradients, strict=True):
            if gradient is not None:
                totals[name] += gradient.double().square()
        count += 1
    if not count:
        raise InputError("squared gradients need at least one batch")
    squares = np.zeros(units.layout.size)
    of_tensor = units.layout.by_tensor(squares)
    for tensor in parameter_tensors(units):
        of_tensor[tensor.name][...] = values_of(totals, tensor) / count
    if not np.isfinite(squares).all():
        raise NotFiniteError("a gradient is not finite: lower the learning rate of the training before it")
    return squares


@dataclass(frozen=True, eq=False)
class Ranking:
    """The coordinates of a model by importance, made by ``ranking``; masks of any density follow without sorting.

    Args:
        layout: What the coordinates belong to.
        ranks: Place of each coordinate, the most important at 0; ``ALWAYS`` if it cannot be pruned. (size,) int32.
        prunable: How many coordinates can be pruned.
    """

    layout: Layout
    ranks: NDArray[np.int32]
    prunable: int

    def mask(self, density: float, *, provenance: Provenance = Provenance.DEVICE) -> Mask:
        """Holds the first ``ceil(density * prunable)`` ranks, and what cannot be pruned.

        Exact: ``density`` is taken as the decimal number that it is written as.

        Args:
            density: Share of the prunable coordinates that is held, in (0, 1]; at 1 the mask is full.
            provenance: What the mask was computed from: if the importance is public, the device that decides on the
                density; ``DATA`` if it is the client's own.

        Raises:
            ParameterError: ``density`` is outside its domain.
        """
        if not 0 < density <= 1:
            raise ParameterError(f"density must be in (0, 1], not {density}")
        kept = math.ceil(Fraction(str(density)) * self.prunable)
        return Mask.of_coordinates(self.layout, self.ranks < kept, provenance)


def ranking(units: Units, importance: ArrayLike) -> Ranking:
    """Ranks all parameters, weights and biases of every layer alike, in one order; of equal ones the first comes first.

    Args:
        units: Says which coordinates are parameters; the others, running statistics, every client holds.
        importance: Of each coordinate, (layout.size,) real, higher is kept longer; only the order counts.

    Raises:
        LayoutMismatchError: Another number of values than of coordinates.
        NotFiniteError: A value is NaN, which has no place in an order.
    """
    layout, values = units.layout, np.asarray(importance, np.float64)
    if values.shape != (layout.size,):
        raise LayoutMismatchError(f"{layout.size} coordinates need as many values, not an array of {values.shape}")
    if np.isnan(values).any():
        raise NotFiniteError("a coordinate's importance is NaN")
    is_parameter = np.repeat([t.name in units.parameters for t in layout.tensors], [t.size for t in layout.tensors])
    places = np.flatnonzero(is_parameter)
    ranks = np.full(layout.size, ALWAYS, np.int32)
    ranks[places[np.argsort(-values[places], kind="stable")]] = np.arange(len(places), dtype=np.int32)
    ranks.setflags(write=False)
    return Ranking(layout, ranks, len(places))
