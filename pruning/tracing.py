"""Which channels of a model reach one another: the trace behind ``pruning.units``.

Torch-Pruning follows the channels through the graph that autograd records (G. Fang et al., "DepGraph: Towards Any
Structural Pruning", CVPR 2023). Three stand-ins show it what it cannot see: the model's inputs, the model's outputs,
and how channels pass an LSTM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch_pruning
from torch import nn
from torch.nn.modules.conv import _ConvNd

from pruning.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from pruning.modules import Channels, Coupling

    Side = tuple[str, bool]
    """One side of a module: its name, and whether the outputs are meant."""


def as_arguments(inputs: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Example inputs as the positional arguments of ``forward``."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def tensors_in(outputs: object) -> Iterator[torch.Tensor]:
    """The floating-point tensors in what a model returns: a tensor, or tuples, lists and dicts of them."""
    if isinstance(outputs, torch.Tensor):
        if outputs.is_floating_point():
            yield outputs
    elif isinstance(outputs, dict):
        yield from tensors_in(tuple(outputs.values()))
    elif isinstance(outputs, (tuple, list)):
        for output in outputs:
            yield from tensors_in(output)


class BlockGraph:
    """Blocks of channels, numbered through both sides of all modules: which are joined, and which are fixed."""

    def __init__(self, couplings: Mapping[str, Coupling]) -> None:
        self._sides: dict[Side, tuple[int, Channels]] = {}
        self._joined: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
        self._fixed: list[NDArray[np.intp]] = []
        self._count = 0
        for name, coupling in couplings.items():
            for is_output, channels in ((False, coupling.inputs), (True, coupling.outputs)):
                self._sides[name, is_output] = (self._count, channels)
                self._count += channels.count
            if coupling.aligned:
                self.join(self.blocks((name, False)), self.blocks((name, True)))

    def __contains__(self, name: object) -> bool:
        return (name, True) in self._sides

    def blocks(self, side: Side) -> NDArray[np.intp]:
        """All blocks of one side of a module, in channel order."""
        start, channels = self._sides[side]
        return start + np.arange(channels.count)

    def block_of(self, side: Side, channels: NDArray[np.intp]) -> NDArray[np.intp]:
        """The block of each of the given channels."""
        start, known = self._sides[side]
        if channels.max(initial=0) >= known.count * known.block:
            raise UnsupportedModelError(f"{side[0]} handles another axis than that of the channels it reads")
        return start + channels // known.block

    def join(self, left: NDArray[np.intp], right: NDArray[np.intp]) -> None:
        """Makes ``left[k]`` and ``right[k]`` stand or fall together."""
        self._joined.append((left, right))

    def fix(self, blocks: NDArray[np.intp]) -> None:
        """Keeps blocks, and all that is joined to them, in every submodel."""
        self._fixed.append(blocks)

    def components(self) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """The component of each block, named by its lowest block, and whether it is fixed. Both (blocks,)."""
        component = np.arange(self._count)
        left = np.concatenate([component[:0], *(left for left, _ in self._joined)])
        right = np.concatenate([component[:0], *(right for _, right in self._joined)])
        while True:
            lowest = np.minimum(component[left], component[right])
            spread = component.copy()
            np.minimum.at(spread, left, lowest)
            np.minimum.at(spread, right, lowest)
            if np.array_equal(spread, component):
                break
            component = spread
        return component, np.isin(component, component[np.concatenate([component[:0], *self._fixed])])


def trace(model: nn.Module, inputs: tuple[torch.Tensor, ...], graph: BlockGraph) -> None:
    """Joins in ``graph`` what the model joins. ``model`` is used up."""
    traced = _Traced(model, inputs)
    names = {module: name.removeprefix("model").removeprefix(".") for name, module in traced.named_modules()}
    for name, module in list(traced.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.LSTM):
            flow = _LstmFlow(module)
            traced.set_submodule(name, flow)
            names[flow.flow] = names[module]
    dependencies = torch_pruning.DependencyGraph()
    try:
        dependencies.build_dependency(
            traced,
            inputs,
            forward_fn=lambda traced, inputs: traced(*inputs),
            customized_pruners={_ModelInput: _ModelInputPruner()},
            verbose=False,
        )
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise UnsupportedModelError(f"the model cannot be traced on these inputs: {error}") from error
    for module, name in names.items():
        if not isinstance(module, (nn.Linear, _ConvNd, nn.Embedding)):
            continue
        if module in dependencies.module2node:
            _join_reached(dependencies, module, names, graph)
        else:  # this forward pass leaves the layer out, so that nothing is known of it
            graph.fix(graph.blocks((name, True)))


def _join_reached(
    dependencies: Any,
    root: nn.Linear | _ConvNd | nn.Embedding,
    names: Mapping[nn.Module, str],
    graph: BlockGraph,
) -> None:
    """Joins each channel that ``root`` makes with the channels that it reaches."""
    pruner = dependencies.get_pruner_of_module(root)
    made = (names[root], True)
    channels = list(range(pruner.get_out_channels(root)))
    for item in dependencies.get_pruning_group(root, pruner.prune_out_channels, channels):
        target, is_output = item.dep.target.module, dependencies.is_out_channel_pruning_fn(item.dep.handler)
        origins = graph.block_of(made, np.array(item.root_idxs, np.intp))
        if isinstance(target, (_ModelInput, torch_pruning.ops._OutputOp)):  # noqa: SLF001 - it has no public name
            graph.fix(origins)
        elif names.get(target) in graph:
            graph.join(origins, graph.block_of((names[target], is_output), np.array(item.idxs, np.intp)))


class _ModelInput(nn.Module):
    """Stands at an input of the model, so that the trace shows what reaches the input itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.nothing


class _ModelInputPruner:
    """What Torch-Pruning asks of a kind of module that it does not know."""

    def get_out_channels(self, layer: _ModelInput) -> int:
        return layer.channels

    get_in_channels = get_out_channels

    def prune_out_channels(self, layer: _ModelInput, idxs: object) -> None:
        """Only names the operation: nothing is pruned on the traced copy."""

    prune_in_channels = prune_out_channels


class _LstmFlow(nn.Module):
    """An LSTM as channels see it: input columns in, hidden units out. Torch-Pruning cannot trace the real one."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.flow = nn.Linear(lstm.input_size, lstm.hidden_size)
        self.layers, self.time_axis = lstm.num_layers, 1 if lstm.batch_first else 0

    def forward(
        self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        hidden = self.flow(x)
        if state is not None:
            hidden = hidden + (state[0][-1] + state[1][-1]).unsqueeze(self.time_axis)
        last = torch.stack([hidden.select(self.time_axis, -1)] * self.layers)
        return hidden, (last, last)


class _Traced(nn.Module):
    """A model between marked inputs and marked outputs."""

    def __init__(self, model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        super().__init__()
        self.model = model
        widths = [x.shape[min(1, x.ndim - 1)] if x.ndim else 1 for x in inputs]
        self.inputs = nn.ModuleList(_ModelInput(width) for width in widths)

    def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        marked = [mark(x) if x.is_floating_point() else x for mark, x in zip(self.inputs, inputs, strict=True)]
        # An operation of its own for each output: Torch-Pruning takes only those for outputs that no module made.
        return [output.clone() for output in tensors_in(self.model(*marked)) if output.requires_grad]
