"""Depth: how many of a model's last layers a client trains, as in MA-CLAMP; those before them stay frozen.

Depth is counted in layers that have weights, from the output side. A normalisation is trained with the weights before
it: counted as a layer of its own, as in public code, it takes the place of a layer that is then never trained. Running
statistics belong to no depth, since they move wherever data pass through a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pruning.errors import UnsupportedModelError
from pruning.masks import Mask
from pruning.modules import coupling_of
from secagg.declaration import Provenance
from secagg.errors import LayoutMismatchError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from pruning.units import Units


@dataclass(frozen=True)
class Block:
    """One step of depth.

    Args:
        name: Of the module with the weights.
        layers: The layers of the layout that are trained together: those weights, and the normalisations and
            activations with parameters that follow them.
    """

    name: str
    layers: tuple[str, ...]


def blocks(units: Units, model: nn.Module) -> tuple[Block, ...]:
    """The blocks of a model from input to output: one for each linear or convolutional layer, Embedding and LSTM.

    Modules are taken in the order in which the model registers them, the order of its ``state_dict``; a model should
    run them in that order, or frozen blocks save less of the backward pass. Parameters registered before the first
    weights are of the first block. All layers of one ``nn.LSTM`` are one block.

    Args:
        units: Of the model.
        model: Whose blocks.

    Raises:
        LayoutMismatchError: The units are those of another model.
        UnsupportedModelError: The model has no weights, a parameter is tied to another block, or a layer of the layout
            cannot be frozen by itself.
    """
    if {name for name, tensor in model.named_parameters() if tensor.is_floating_point()} != units.parameters:
        raise LayoutMismatchError("the units given are those of another model")
    block_of = _blocks_of_parameters(model)
    homes: dict[str, set[str | None]] = {}
    for tensor in units.layout.tensors:
        homes.setdefault(tensor.layer, set()).add(block_of.get(tensor.name))
    for layer, found in homes.items():
        if len(found) > 1:
            raise UnsupportedModelError(f"layer {layer!r} holds more than the parameters, or the buffers, of one block")
    return tuple(
        Block(name, tuple(layer for layer, home in homes.items() if home == {name}))
        for name in dict.fromkeys(block_of.values())
    )


def depth_mask(units: Units, blocks: Sequence[Block], depth: int, provenance: Provenance = Provenance.DEVICE) -> Mask:
    """The last ``depth`` blocks, and every layer of running statistics. The masks of a model's depths are nested.

    Args:
        units: Of the model.
        blocks: All of the model's, as ``blocks`` gives them.
        depth: From 1, the output block alone, to ``len(blocks)``, which gives a full mask.
        provenance: What the depth was chosen by.

    Raises:
        ParameterError: ``depth`` is outside these bounds.
    """
    if not 1 <= depth <= len(blocks):
        raise ParameterError(f"depth must be from 1 to the model's {len(blocks)} blocks, not {depth}")
    if depth == len(blocks):
        return Mask.full(units.layout, provenance)
    frozen = {layer for block in blocks[:-depth] for layer in block.layers}
    return Mask.of_layers(units.layout, np.array([layer not in frozen for layer in units.layout.layers]), provenance)


def whole_blocks(units: Units, blocks: Sequence[Block], held: NDArray[np.bool_]) -> tuple[bool, ...]:
    """Whether each block lies wholly in a set of coordinates, such as those that a session releases.

    Args:
        units: Of the model.
        blocks: Of the model.
        held: The coordinates, (layout.size,) bool.
    """
    whole = dict.fromkeys(units.layout.layers, True)
    for tensor, place in units.layout.slices():
        whole[tensor.layer] &= bool(held[place].all())
    return tuple(all(whole[layer] for layer in block.layers) for block in blocks)


def _blocks_of_parameters(model: nn.Module) -> dict[str, str]:
    """Every parameter, under each of its names, to the module that names its block; input side first."""
    modules = list(model.named_modules(remove_duplicate=False))
    couplings = {name: coupling_of(module, name) for name, module in modules}
    weighted = [name for name, coupling in couplings.items() if coupling is not None and coupling.makes]
    if not weighted:
        raise UnsupportedModelError("a model without linear, convolutional, embedding or LSTM layers has no depth")
    current = weighted[0]
    block_of: dict[str, str] = {}
    first_block: dict[int, str] = {}
    for name, module in modules:
        if name in weighted:
            current = name
        for own, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            full_name = f"{name}.{own}" if name else own
            block_of[full_name] = current
            shared = first_block.setdefault(id(parameter), current)
            if shared != current:
                raise UnsupportedModelError(f"{full_name!r} is tied to block {shared!r}: they cannot be frozen apart")
    return block_of
