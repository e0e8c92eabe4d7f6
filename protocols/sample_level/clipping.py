"""Gradients of single examples by opacus, shortened to a norm and summed.

They are those that the hooks of opacus see: a parameter counts where the layer that holds it is called, and one example
is told from another along the first dimension. What opacus cannot look into is refused before training.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from torch import nn
from torch.nn import functional

from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from protocols.training import Examples

Gradients = Literal["hooks", "ghost"]

_UNSUITED: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    (
        (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
        "it mixes the examples of a batch: put nn.GroupNorm in its place",
    ),
    ((nn.LSTM,), "opacus cannot look into it: put opacus.layers.DPLSTM in its place"),
    ((nn.GRU,), "opacus cannot look into it: put opacus.layers.DPGRU in its place"),
    ((nn.RNN,), "opacus cannot look into it: put opacus.layers.DPRNN in its place"),
    ((nn.MultiheadAttention,), "opacus cannot look into it: put opacus.layers.DPMultiheadAttention in its place"),
)
"""Layers that have no gradients of single examples, or none that opacus finds, and what to do about it."""


def check_suited(model: nn.Module) -> None:
    """Makes sure that the layers of a model have gradients of single examples, and that opacus finds them.

    Raises:
        ParameterError: One has not; the message names it and what to do.
    """
    for name, layer in model.named_modules():
        fault = _fault(layer)
        if fault:
            raise ParameterError(f"no sample-level privacy for layer {name!r}, a {type(layer).__name__}: {fault}")


def _fault(layer: nn.Module) -> str:
    """What is in the way of training a layer, not looking at those inside; empty if nothing is."""
    from opacus.validators import ModuleValidator

    for kinds, fault in _UNSUITED:
        if isinstance(layer, kinds):
            return fault
    if getattr(layer, "track_running_stats", False):
        return "its running statistics learn from examples without noise: set track_running_stats=False"
    if getattr(layer, "inplace", False):
        return "the hooks of opacus allow no changes in place: set inplace=False"
    trained = any(parameter.requires_grad for parameter in layer.parameters(recurse=False))
    if trained and next(layer.buffers(), None) is not None:
        return "it has buffers beside its parameters, which opacus does not allow: hold them in a layer of their own"
    validate = ModuleValidator.VALIDATORS.get(type(layer))
    return "; ".join(str(error) for error in validate(layer)) if validate else ""


class Clipper(ABC):
    """Sums of clipped gradients.

    Args:
        model: In training mode, with the hooks of opacus.
        hooked: Those hooks.
        parameters: That are trained.
        held: Which coordinates of each are trained, and not dropped by a mask; bool.
        clip: The largest norm.
    """

    def __init__(
        self,
        model: nn.Module,
        hooked: Any,
        parameters: Sequence[nn.Parameter],
        held: Sequence[torch.Tensor],
        clip: float,
    ) -> None:
        self.parameters, self.held = parameters, held
        self._model, self._hooked, self._clip = model, hooked, clip

    def sum(self, part: Examples) -> list[torch.Tensor]:
        """The sum over examples of their gradients, each of an L2 norm of at most ``clip``; a tensor a parameter.

        An example whose gradient is not finite counts as zero: otherwise it would show, whatever the noise.

        Raises:
            ParameterError: opacus finds no norm for every example, or for some parameter.
        """
        for parameter in self.parameters:
            parameter.grad = None
            _set(parameter, grad_sample=None, _norm_sample=None)
        losses = self._losses(part)
        norms = self._norms()
        if {len(norm) for norm in norms} != {len(part)}:
            raise ParameterError("no sample-level privacy for a layer whose first dimension is not that of examples")
        norm = torch.stack(norms).norm(dim=0)
        finite = torch.isfinite(norm)
        if finite.all():
            return self._weighted((self._clip / norm).clamp(max=1), losses)
        left = finite.nonzero().flatten().tolist()
        return self.sum(part.subset(left)) if left else [torch.zeros_like(parameter) for parameter in self.parameters]

    def _losses(self, part: Examples) -> torch.Tensor:
        """The loss of every example, (n,), after a backward pass through their sum."""
        losses = _cross_entropies(self._model(part.inputs), part.labels)
        losses.sum().backward(retain_graph=True)
        return losses

    @abstractmethod
    def _norms(self) -> list[torch.Tensor]:
        """Norms of the gradients of each parameter, (n,); none of a parameter that nothing went through."""

    @abstractmethod
    def _weighted(self, factors: torch.Tensor, losses: torch.Tensor) -> list[torch.Tensor]:
        """The sum of the gradients, each times its factor; a tensor a parameter."""


@final
class _Hooks(Clipper):
    """From the gradient of each example."""

    def _norms(self) -> list[torch.Tensor]:
        return [
            each.mul_(held).flatten(1).norm(dim=1)
            for each, held in zip(self._of_each_example(), self.held, strict=True)
            if each is not None
        ]

    def _weighted(self, factors: torch.Tensor, losses: torch.Tensor) -> list[torch.Tensor]:  # noqa: ARG002 - one signature
        return [
            torch.zeros_like(parameter) if each is None else torch.einsum("n,n...", factors, each)
            for parameter, each in zip(self.parameters, self._of_each_example(), strict=True)
        ]

    def _of_each_example(self) -> list[torch.Tensor | None]:
        """The gradients, (n, *shape), where opacus leaves them; None of a parameter that nothing went through."""
        return [_get(parameter, "grad_sample") for parameter in self.parameters]


@final
class _Ghost(Clipper):
    """From norms, and the gradient of a weighted loss."""

    def _losses(self, part: Examples) -> torch.Tensor:
        try:
            return super()._losses(part)
        except NotImplementedError as error:
            raise ParameterError(f"set gradients='hooks': {error}") from error

    def _norms(self) -> list[torch.Tensor]:
        norms: list[torch.Tensor | None] = [_get(parameter, "_norm_sample") for parameter in self.parameters]
        found = [norm for norm in norms if norm is not None]
        if len(found) < len(norms):
            raise ParameterError("set gradients='hooks': ghost clipping finds no norm for some parameter of the model")
        return found

    def _weighted(self, factors: torch.Tensor, losses: torch.Tensor) -> list[torch.Tensor]:
        self._hooked.disable_hooks()
        sums = torch.autograd.grad(factors @ losses, list(self.parameters))
        self._hooked.enable_hooks()
        return list(sums)


@contextmanager
def clipper(model: nn.Module, clip: float, gradients: Gradients) -> Iterator[Clipper]:
    """Puts hooks on a module inside, and leaves no trace of them.

    Args:
        model: In training mode, with at least one trained parameter, and suited.
        clip: Largest norm of the gradient of an example.
        gradients: As ``SampleLevel``.
    """
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    held = _held(parameters)
    ghost = gradients == "ghost" and all(bool(bits.all()) for bits in held)
    with warnings.catch_warnings():
        # Inputs take no gradient, and of a layer opacus needs only that of its output.
        warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
        # From a sum of losses opacus takes gradients as they are; of a mean it would undo a division.
        hooked = (GradSampleModuleFastGradientClipping if ghost else GradSampleModule)(model, loss_reduction="sum")
        try:
            yield (_Ghost if ghost else _Hooks)(model, hooked, parameters, held, clip)
        finally:
            hooked.to_standard_module()
            for layer in model.modules():
                for left_over in ("activations", "max_batch_len"):
                    layer.__dict__.pop(left_over, None)


def _held(parameters: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    """Where a gradient of ones survives the hooks on parameters, such as those of ``pruning.sparse.held_by``.

    PyTorch calls such hooks for gradients of a batch only, not for those of its examples.
    """
    ones = torch.autograd.grad(torch.stack([parameter.sum() for parameter in parameters]).sum(), list(parameters))
    return [one != 0 for one in ones]


def _cross_entropies(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of each example, (n,); of a sequence the mean over its places. Their mean is ``training.cross_entropy``."""
    each = functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return each.view(len(labels), -1).mean(dim=1)


def _get(parameter: nn.Parameter, name: str) -> torch.Tensor | None:
    """What opacus keeps at a parameter."""
    value: torch.Tensor | None = getattr(parameter, name)
    return value


def _set(parameter: nn.Parameter, **values: None) -> None:
    for name, value in values.items():
        setattr(parameter, name, value)
