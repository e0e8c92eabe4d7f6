"""Submodels that are really smaller: what a slow client trains, and how its tensors return to full shape."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from pruning.errors import NotASubmodelError
from pruning.modules import fit_attributes
from secagg.errors import LayoutMismatchError, ParameterError
from secagg.layout import NO_UNIT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pruning.masks import Mask
    from secagg.layout import Layout, Tensor


def extract(model: nn.Module, mask: Mask) -> nn.Module:
    """A copy of a model that holds what the mask holds.

    A mask of units gives a smaller module: parameters and buffers are sliced and the modules' sizes follow. In
    evaluation mode it computes what the model computes with the dropped units at zero. A mask of layers leaves all
    shapes as they are, since a layer cannot be left out of a model: the parameters of the other layers get
    ``requires_grad = False`` (running statistics of a BatchNorm still move in training mode). A full mask gives a
    copy. Gradients are not copied; devices, dtypes, modes and ties between parameters are.

    Raises:
        LayoutMismatchError: The model's tensors are not those of the mask's layout.
        NotASubmodelError: The mask is one of single coordinates, for which there is no smaller module.
        ParameterError: The mask keeps no unit of some group.
    """
    _check_model(model, mask.layout)
    if mask.kind == "coordinates":
        raise NotASubmodelError("no smaller module holds single coordinates; train the full model and mask the update")
    submodel = copy.deepcopy(model)
    submodel.zero_grad(set_to_none=True)
    if mask.kind == "units":
        _check_groups(mask)
        _shrink(submodel, mask)
    elif mask.kind == "layers":
        held = dict(zip(mask.layout.layers, mask.held.tolist(), strict=True))
        layer = {tensor.name: tensor.layer for tensor in mask.layout.tensors}
        for name, parameter in submodel.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and held[layer[name]])
    return submodel


def gather(state: Mapping[str, torch.Tensor], mask: Mask) -> dict[str, torch.Tensor]:
    """The tensors of a full model or update in the submodel's shapes: what a client downloads.

    Args:
        state: Tensors of the layout by name, at full shape; other entries are left out of the result.
        mask: Of units: tensors are sliced. Else: returned as they are, since the submodel has their shape.

    Raises:
        LayoutMismatchError: A tensor is missing or has another shape.
    """
    gathered = {}
    for tensor in mask.layout.tensors:
        full = _tensor(state, tensor, tensor.shape)
        gathered[tensor.name] = _sliced(full, _kept(tensor, mask))
    return gathered


def scatter(state: Mapping[str, torch.Tensor], mask: Mask) -> dict[str, torch.Tensor]:
    """The submodel's tensors at full shape, with zeros wherever the mask does not hold: what a client uploads.

    Args:
        state: Tensors, or their changes, by name, in the submodel's shapes; other entries are left out.
        mask: The one that the submodel was extracted by.

    Raises:
        LayoutMismatchError: A tensor is missing or has another shape.
    """
    held = mask.by_tensor()
    scattered = {}
    for tensor in mask.layout.tensors:
        kept = _kept(tensor, mask)
        shape = tuple(len(kept[axis]) if axis in kept else size for axis, size in enumerate(tensor.shape))
        small = _tensor(state, tensor, shape).detach()
        place = torch.from_numpy(held[tensor.name]).to(small.device)
        if mask.kind == "units":
            scattered[tensor.name] = small.new_zeros(tensor.shape).masked_scatter_(place, small)
        else:
            scattered[tensor.name] = torch.where(place, small, 0)
    return scattered


def _check_model(model: nn.Module, layout: Layout) -> None:
    state = model.state_dict()
    for tensor in layout.tensors:
        _tensor(state, tensor, tensor.shape)


def _check_groups(mask: Mask) -> None:
    for group in mask.layout.unit_groups:
        units = mask.layout.units_of(group)
        if not mask.held[units.start : units.stop].any():
            raise ParameterError(f"the mask keeps no unit of {group!r}: a layer needs at least one")


def _tensor(state: Mapping[str, torch.Tensor], tensor: Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    if tensor.name not in state:
        raise LayoutMismatchError(f"{tensor.name!r} is missing")
    found = state[tensor.name]
    if tuple(found.shape) != shape:
        raise LayoutMismatchError(f"{tensor.name!r} has shape {tuple(found.shape)}, not {shape}")
    return found


def _kept(tensor: Tensor, mask: Mask) -> dict[int, NDArray[np.intp]]:
    """Axis to the numbers of the slices that a submodel has of a tensor; axes that stay whole are left out."""
    if mask.kind != "units":
        return {}
    always = {NO_UNIT: True}
    held = always | dict(enumerate(mask.held.tolist()))
    return {axis: np.flatnonzero([held[unit] for unit in units]) for axis, units in tensor.unit_axes.items()}


def _sliced(full: torch.Tensor, kept: Mapping[int, NDArray[np.intp]]) -> torch.Tensor:
    for axis, slices in kept.items():
        full = full.index_select(axis, torch.as_tensor(slices, device=full.device))
    return full


def _shrink(model: nn.Module, mask: Mask) -> None:
    """Replaces every sliced tensor wherever it is used, in place, and then sets the modules' sizes."""
    kept = {tensor.name: _kept(tensor, mask) for tensor in mask.layout.tensors}
    uses = [
        (module, name, tensor, f"{prefix}.{name}" if prefix else name)
        for prefix, module in model.named_modules()
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    ]
    smaller: dict[int, torch.Tensor] = {}
    for module, name, tensor, full_name in uses:
        if id(tensor) not in smaller and kept.get(full_name):
            sliced = _sliced(tensor.detach(), kept[full_name])
            is_parameter = isinstance(tensor, nn.Parameter)
            smaller[id(tensor)] = nn.Parameter(sliced, tensor.requires_grad) if is_parameter else sliced
        if id(tensor) in smaller:
            setattr(module, name, smaller[id(tensor)])
    for module in model.modules():
        fit_attributes(module)
