"""What one channel of a torch module owns, and which attributes of a module follow from its tensors' shapes.

Every kind of module that can be pruned has one entry in ``coupling_of`` and one in ``fit_attributes``. Channels that
a module mixes cannot be dropped one by one without changing what the others compute, so they stand or fall together:
the channels of one group of a GroupNorm or of a grouped (for instance depthwise) convolution, and all channels of a
LayerNorm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from pruning.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_GATES = 4
"""Input, forget, cell and output gate: an LSTM stacks their rows in this order."""


@dataclass(frozen=True)
class Channels:
    """One side, input or output, of a module.

    Args:
        count: Number of blocks, the smallest sets of channels that can be dropped.
        block: Channels in a block.
        slices: Tensor of the module and axis to the block of each slice along this axis, (axis length,) int.
    """

    count: int
    block: int = 1
    slices: Mapping[tuple[str, int], NDArray[np.intp]] = field(default_factory=dict)


@dataclass(frozen=True)
class Coupling:
    """The two sides of a module.

    Args:
        inputs: Of what it reads.
        outputs: Of what it returns.
        aligned: Block k of the inputs and block k of the outputs stand or fall together, as in a normalisation.
        makes: Its outputs are units of their own, as a filter is.
    """

    inputs: Channels
    outputs: Channels
    aligned: bool = False
    makes: bool = False


def coupling_of(module: nn.Module, name: str) -> Coupling | None:
    """The coupling of a module's own tensors, or None if it has no tensor that depends on a number of channels.

    Args:
        module: Any module; its children are not looked at.
        name: What to call it in errors.

    Raises:
        UnsupportedModelError: It owns parameters whose coupling is not known.
    """
    coupling = _layer_coupling(module, name)
    sides = (coupling.inputs, coupling.outputs) if coupling else ()
    coupled = {tensor for side in sides for tensor, _ in side.slices}
    for tensor, parameter in module.named_parameters(recurse=False):
        # One value scales all channels alike, and so belongs to no unit.
        if tensor not in coupled and parameter.numel() > 1:
            kind = type(module).__name__
            raise UnsupportedModelError(f"cannot tell which units own {tensor!r} of {name or 'the model'} ({kind})")
    return coupling


def fit_attributes(module: nn.Module) -> None:
    """Sets a module's sizes to what the shapes of its tensors say, after whole blocks of channels were dropped."""
    match module:
        case nn.Linear():
            module.out_features, module.in_features = module.weight.shape
        case _ConvNd():
            _fit_convolution(module)
        case nn.GroupNorm():
            block = module.num_channels // module.num_groups
            module.num_channels = len(module.weight)
            module.num_groups = module.num_channels // block
        case _NormBase():
            for tensor in (module.weight, module.running_mean):
                if tensor is not None:
                    module.num_features = len(tensor)
        case nn.PReLU():
            module.num_parameters = len(module.weight)
        case nn.Embedding():
            module.embedding_dim = module.weight.shape[1]
        case nn.LSTM():
            module.input_size = module.get_parameter("weight_ih_l0").shape[1]
            module.hidden_size = module.get_parameter("weight_hh_l0").shape[1]
            module.flatten_parameters()
        case _:
            pass


def _layer_coupling(module: nn.Module, name: str) -> Coupling | None:
    match module:
        case nn.Linear():
            return _dense(module.in_features, module.out_features, bias=module.bias is not None)
        case _ConvNd():
            return _convolution(module)
        case nn.Embedding():
            outputs = Channels(module.embedding_dim, 1, {("weight", 1): np.arange(module.embedding_dim)})
            return Coupling(Channels(0), outputs, makes=True)
        case nn.LSTM():
            return _lstm(module, name)
        case _:
            return _channelwise_coupling(module, name)


def _channelwise_coupling(module: nn.Module, name: str) -> Coupling | None:
    match module:
        case nn.GroupNorm(affine=False) | _InstanceNorm(affine=False, track_running_stats=False):
            raise UnsupportedModelError(f"{name}: a {type(module).__name__} without weights does not show its sizes")
        case nn.GroupNorm():
            return _aligned(module, module.num_groups, module.num_channels // module.num_groups)
        case nn.LayerNorm():
            return _aligned(module, 1, module.normalized_shape[0])
        case _NormBase():
            return _aligned(module, module.num_features)
        case nn.PReLU() if module.num_parameters > 1:
            return _aligned(module, module.num_parameters)
        case _:
            return None


def _dense(inputs: int, outputs: int, *, bias: bool, out_axis: int = 0) -> Coupling:
    rows = np.arange(outputs)
    owned = {("weight", out_axis): rows} | ({("bias", 0): rows} if bias else {})
    read = {("weight", 1 - out_axis): np.arange(inputs)}
    return Coupling(Channels(inputs, 1, read), Channels(outputs, 1, owned), makes=True)


def _convolution(module: _ConvNd) -> Coupling:
    """Groups are dropped whole: only then does every other output still read the same inputs."""
    bias = module.bias is not None
    if module.groups == 1:
        return _dense(module.in_channels, module.out_channels, bias=bias, out_axis=1 if module.transposed else 0)
    inputs, outputs = module.in_channels // module.groups, module.out_channels // module.groups
    groups = np.arange(module.groups)
    owned = {("weight", 0): np.repeat(groups, inputs if module.transposed else outputs)}
    if bias:
        owned["bias", 0] = np.repeat(groups, outputs)
    return Coupling(Channels(module.groups, inputs), Channels(module.groups, outputs, owned), aligned=True, makes=True)


def _aligned(module: nn.Module, count: int, block: int = 1) -> Coupling:
    blocks = np.repeat(np.arange(count), block)
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    owned = {(name, 0): blocks for name, tensor in tensors if tensor.ndim}
    return Coupling(Channels(count, block), Channels(count, block, owned), aligned=True)


def _lstm(module: nn.LSTM, name: str) -> Coupling:
    """Hidden unit k of all layers is one unit: an ``nn.LSTM`` has one ``hidden_size`` for all of its layers."""
    if module.bidirectional or module.proj_size:
        raise UnsupportedModelError(f"{name}: units of a bidirectional or projected LSTM are not known")
    columns = np.arange(module.hidden_size)
    rows = np.tile(columns, _GATES)
    owned: dict[tuple[str, int], NDArray[np.intp]] = {}
    for layer in range(module.num_layers):
        owned |= {(f"weight_ih_l{layer}", 0): rows, (f"weight_hh_l{layer}", 0): rows}
        owned[f"weight_hh_l{layer}", 1] = columns
        if layer:
            owned[f"weight_ih_l{layer}", 1] = columns
        if module.bias:
            owned |= {(f"bias_ih_l{layer}", 0): rows, (f"bias_hh_l{layer}", 0): rows}
    read = {("weight_ih_l0", 1): np.arange(module.input_size)}
    return Coupling(Channels(module.input_size, 1, read), Channels(module.hidden_size, 1, owned), makes=True)


def _fit_convolution(module: _ConvNd) -> None:
    rows, columns = module.weight.shape[:2]
    inputs, outputs = module.in_channels // module.groups, module.out_channels // module.groups
    if module.groups > 1:
        module.groups = rows // (inputs if module.transposed else outputs)
        module.in_channels, module.out_channels = module.groups * inputs, module.groups * outputs
    elif module.transposed:
        module.in_channels, module.out_channels = rows, columns
    else:
        module.out_channels, module.in_channels = rows, columns
