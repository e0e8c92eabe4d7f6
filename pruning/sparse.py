"""Training under a mask of single coordinates: what the mask leaves out is zero, and stays zero.

Such a mask saves bytes, not operations: the module has its full size, and is charged for it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from pruning.masks import Mask


@contextmanager
def held_by(mask: Mask, model: nn.Module) -> Iterator[None]:
    """Holds the tensors of a model to a mask while it is trained inside.

    Coordinates outside the mask are set to zero at once, and their gradients are zero, so that no optimiser moves them
    by a gradient. One that decays weights does not move them either: they are zero.

    Args:
        mask: Over the layout of the model.
        model: Changed in place.
    """
    if mask.kind == "full":
        yield
        return
    held = {name: torch.from_numpy(bits) for name, bits in mask.by_tensor().items()}
    hooks: list[RemovableHandle] = []
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in held:
                tensor.mul_(held[name].to(tensor.device, tensor.dtype))
    try:
        for name, parameter in own.items():
            if name in held and parameter.requires_grad and not bool(held[name].all()):
                hooks.append(parameter.register_hook(_Cut(~held[name])))
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Cut:
    """Makes a gradient zero where it is dropped, wherever the model has been moved to since."""

    def __init__(self, dropped: torch.Tensor) -> None:
        self._dropped = dropped

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        self._dropped = self._dropped.to(gradient.device)
        return gradient.masked_fill(self._dropped, 0)
