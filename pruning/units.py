"""The prunable units of a model: which slices of which tensors one neuron or one filter owns.

``pruning.tracing`` follows the channels through the model, and ``pruning.modules`` says which slices a channel of a
module owns. Channels that reach one another are one unit. The answer is then put to the test: submodels with random
units are built and must compute what the model computes with the other units zeroed, so that a model which the tracing
misreads is refused and never pruned wrongly.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from pruning.errors import UnsupportedModelError
from pruning.masks import random_units
from pruning.modules import coupling_of
from pruning.submodel import extract
from pruning.tracing import BlockGraph, as_arguments, tensors_in, trace
from secagg.layout import NO_UNIT, Layout, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pruning.modules import Coupling

_TRIALS = 3
"""Random submodels that must agree with their model."""

_TOLERANCE = 1e-3
"""Allowed difference to the largest output: rounding stays far below it, a misread model far above."""


@dataclass(frozen=True)
class Units:
    """The units of one model.

    Args:
        layout: Floating-point parameters and buffers in ``state_dict`` order with the units of their axes. A tied
            tensor appears once, under its first name. Integer buffers such as BatchNorm's ``num_batches_tracked``
            are not aggregated and do not appear. Unit groups are named after the layer that makes the units. Buffers,
            such as the running statistics of a BatchNorm, are a layer apart from their module's parameters
            (``"bn1.statistics"`` beside ``"bn1"``): clients that freeze the weights of a normalisation still move its
            statistics.
        parameters: Names of the tensors that gradients change; the others are buffers, such as running means.
    """

    layout: Layout
    parameters: frozenset[str]


def find_units(model: nn.Module, example_inputs: torch.Tensor | tuple[torch.Tensor, ...]) -> Units:
    """The prunable units of a model and the slices coupled to each.

    Handles linear and convolutional layers (transposed, grouped and depthwise too), BatchNorm, InstanceNorm,
    GroupNorm, LayerNorm, PReLU, Embedding and LSTM, joined by element-wise operations, residual sums, flattening and
    concatenation. Inputs of the model and every tensor that it returns keep all their channels. A set of channels
    that can only be dropped whole, such as those that feed one LayerNorm, is no unit. The model is left as it was.

    Args:
        model: Any module; it is copied and traced on the CPU in evaluation mode.
        example_inputs: What ``forward`` takes: one tensor, or a tuple of its positional arguments.

    Raises:
        UnsupportedModelError: A parameter belongs to no known kind of module, or a smaller model would not compute
            what the model computes without the dropped units (for instance, as its code names a size).
    """
    couplings = {
        name: coupling for name, module in model.named_modules() if (coupling := coupling_of(module, name)) is not None
    }
    inputs = tuple(x.cpu().float() if x.is_floating_point() else x.cpu() for x in as_arguments(example_inputs))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        working = copy.deepcopy(model).cpu().float().eval().requires_grad_(True)
        graph = BlockGraph(couplings)
        trace(copy.deepcopy(working), inputs, graph)
        units = _units(model, couplings, graph)
        _prove(working, inputs, units.layout)
    return units


def _units(model: nn.Module, couplings: Mapping[str, Coupling], graph: BlockGraph) -> Units:
    """Numbers the components that can be dropped, and writes them along the axes of the tensors."""
    state = {n: t for n, t in model.state_dict(keep_vars=True).items() if t.is_floating_point()}
    first_name = {id(tensor): name for name, tensor in reversed(state.items())}
    axes: dict[tuple[str, int], NDArray[np.intp]] = {}
    for layer, coupling in couplings.items():
        for is_output, channels in ((False, coupling.inputs), (True, coupling.outputs)):
            for (tensor, axis), block in channels.slices.items():
                full_name = f"{layer}.{tensor}" if layer else tensor
                place = (first_name[id(state[full_name])], axis)
                slices = graph.blocks((layer, is_output))[block]
                graph.join(slices, axes.setdefault(place, slices))
    unit_of_block, groups = _numbered(couplings, graph)
    unit_axes: dict[str, dict[int, tuple[int, ...]]] = {}
    for (tensor, axis), slices in axes.items():
        numbers = unit_of_block[slices]
        if (numbers != NO_UNIT).any():
            unit_axes.setdefault(tensor, {})[axis] = tuple(numbers.tolist())
    parameters = frozenset(name for name, _ in model.named_parameters())
    tensors = tuple(
        Tensor(
            name,
            tuple(t.shape),
            str(t.dtype).removeprefix("torch."),
            unit_axes.get(name, {}),
            layer="" if name in parameters else _statistics_of(name),
        )
        for name, t in state.items()
        if first_name[id(t)] == name
    )
    return Units(Layout(tensors, groups), parameters & {tensor.name for tensor in tensors})


def _statistics_of(buffer: str) -> str:
    """The layer of a buffer; ``"statistics"`` where the model itself owns it."""
    *module, _ = buffer.split(".")
    return ".".join([*module, "statistics"])


def _numbered(couplings: Mapping[str, Coupling], graph: BlockGraph) -> tuple[NDArray[np.intp], dict[str, int]]:
    """The unit of each block or ``NO_UNIT``, and the size of each unit group: a unit belongs to its first maker."""
    component, fixed = graph.components()
    unit_of_component = np.full(len(component), NO_UNIT)
    groups: dict[str, int] = {}
    for name, coupling in couplings.items():
        made = graph.blocks((name, True)) if coupling.makes else component[:0]
        made = made[~fixed[made]]
        new = np.array(list(dict.fromkeys(component[made].tolist())), np.intp)
        new = new[unit_of_component[new] == NO_UNIT]
        # What can only be dropped whole is a layer, not a unit.
        if len(new) > 1:
            unit_of_component[new] = sum(groups.values()) + np.arange(len(new))
            groups[name] = len(new)
    return unit_of_component[component], groups


def _prove(model: nn.Module, inputs: tuple[torch.Tensor, ...], layout: Layout) -> None:
    """Refuses a layout by which a submodel differs from the model with the dropped units' coordinates at zero.

    The weights are drawn anew: those of a trained or freshly made model can be zero and hide a difference.
    """
    if not layout.unit_count:
        return
    _redraw(model)
    draws = np.random.default_rng(0)
    for _ in range(_TRIALS):
        mask = random_units(layout, 0.5, draws)
        masked = copy.deepcopy(model)
        held = mask.by_tensor()
        with torch.no_grad():
            for name, tensor in masked.state_dict().items():
                if name in held:
                    tensor.mul_(torch.from_numpy(held[name]))
            expected = list(tensors_in(masked(*inputs)))
            try:
                found = list(tensors_in(extract(model, mask)(*inputs)))
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                raise UnsupportedModelError(f"the model does not run with fewer units: {error}") from error
        if not all(map(_agree, expected, found)):
            raise UnsupportedModelError("a model without some units computes something else than with them at zero")


def _redraw(model: nn.Module) -> None:
    draws = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=draws)
        elif tensor.is_floating_point():
            # Positive, since a running variance may be among them.
            tensor.uniform_(0.5, 1.5, generator=draws)


def _agree(expected: torch.Tensor, found: torch.Tensor) -> bool:
    if expected.shape != found.shape:
        return False
    return bool((expected - found).abs().max() <= _TOLERANCE * expected.abs().max())
