"""What training a model costs, and the largest submodel that a budget allows.

Operations are counted on the meta device, which knows shapes and computes nothing. torch counts no operation of an
LSTM's fused kernel, so an LSTM is counted by the matrix products that it consists of.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from pruning.masks import kept_units, ordered_units
from pruning.submodel import extract
from pruning.tracing import as_arguments, tensors_in
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from pruning.units import Units

BYTES_PER_COORDINATE = 4


@dataclass(frozen=True)
class Cost:
    """Cost of one model on one batch.

    Args:
        step_flops: Floating-point operations of forward and backward; a multiply-add counts as two.
        inference_flops: Those of forward in evaluation mode.
        parameter_bytes: Floating-point parameters and buffers, ``BYTES_PER_COORDINATE`` each.
    """

    step_flops: int
    inference_flops: int
    parameter_bytes: int


def cost_of(model: nn.Module, example_inputs: torch.Tensor | tuple[torch.Tensor, ...]) -> Cost:
    """Counts one training step and one inference on a copy of the model.

    Matrix products and convolutions are counted, as ``torch.utils.flop_counter`` does; element-wise operations,
    normalisations and the optimiser are not. Frozen parameters save their share of the backward pass.

    Args:
        model: Any module whose ``forward`` runs on the meta device.
        example_inputs: A batch: one tensor, or a tuple of positional arguments.
    """
    model = _countable(model)
    inputs = tuple(x.to("meta") for x in as_arguments(example_inputs))
    with torch.enable_grad(), FlopCounterMode(display=False) as step:
        outputs = [output.sum() for output in tensors_in(model.train()(*inputs)) if output.requires_grad]
        if outputs:
            torch.autograd.backward(outputs)
    with torch.no_grad(), FlopCounterMode(display=False) as inference:
        model.eval()(*inputs)
    tensors = {id(t): t for t in model.state_dict(keep_vars=True).values() if t.is_floating_point()}
    return Cost(
        step.get_total_flops(),
        inference.get_total_flops(),
        BYTES_PER_COORDINATE * sum(tensor.numel() for tensor in tensors.values()),
    )


class SubmodelCosts:
    """Costs of a model's submodels by keep ratio, each counted once on a real submodel.

    Which units are kept does not matter, only how many of each group.

    Args:
        model: The full model.
        units: As ``find_units`` gives them.
        example_inputs: A batch as it is trained on.
    """

    def __init__(self, model: nn.Module, units: Units, example_inputs: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        self._model = copy.deepcopy(model).to("meta")  # extracting there copies no weight
        self._layout = units.layout
        self._inputs = example_inputs
        self._counted: dict[tuple[int, ...], Cost] = {}

    def at(self, keep: float) -> Cost:
        """Cost of a submodel with this keep ratio in every group."""
        counts = tuple(kept_units(size, keep) for size in self._layout.unit_groups.values())
        if counts not in self._counted:
            submodel = extract(self._model, ordered_units(self._layout, keep))
            self._counted[counts] = cost_of(submodel, self._inputs)
        return self._counted[counts]

    def keep_ratios(self) -> list[float]:
        """One keep ratio for each different submodel, ascending, up to 1."""
        changes = {
            (2 * kept - 1) / (2 * size) for size in self._layout.unit_groups.values() for kept in range(2, size + 1)
        }
        steps = np.array([0.0, *sorted(changes), 1.0])
        between = (steps[:-1] + steps[1:]) / 2
        return [*between[:-1].tolist(), 1.0]

    def keep_for_budget(self, flops_budget: float) -> float:
        """The largest keep ratio whose submodel trains one batch within ``flops_budget`` operations.

        A budget of half the operations allows far more than half of the units, since a weight between two layers
        goes when either of its ends does.

        Raises:
            ParameterError: Even one unit in every group is beyond the budget.
        """
        ratios = self.keep_ratios()
        within = bisect_right(ratios, flops_budget, key=lambda keep: self.at(keep).step_flops)
        if not within:
            least = self.at(ratios[0]).step_flops
            raise ParameterError(f"the smallest submodel needs {least} operations a step, more than {flops_budget}")
        return ratios[within - 1]


def keep_for_budget(
    model: nn.Module,
    units: Units,
    example_inputs: torch.Tensor | tuple[torch.Tensor, ...],
    flops_budget: float,
) -> float:
    """As ``SubmodelCosts.keep_for_budget``, for a single question."""
    return SubmodelCosts(model, units, example_inputs).keep_for_budget(flops_budget)


class _LstmProducts(nn.Module):
    """An LSTM's matrix products for all time steps at once; what it returns has the right shape and no meaning."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(
        self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        for layer in range(self.lstm.num_layers):
            gates = functional.linear(x, self.lstm.get_parameter(f"weight_ih_l{layer}"))
            hidden = gates[..., : self.lstm.hidden_size]
            x = hidden + functional.linear(hidden, self.lstm.get_parameter(f"weight_hh_l{layer}")).narrow(
                -1, 0, self.lstm.hidden_size
            )
        if state is None:
            last = torch.stack([x.select(1 if self.lstm.batch_first else 0, -1)] * self.lstm.num_layers)
            state = (last, last)
        return x, state


def _countable(model: nn.Module) -> nn.Module:
    """A copy on the meta device whose LSTMs torch can count."""
    model = copy.deepcopy(model).to("meta")
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.LSTM):
            if not name:
                return _LstmProducts(module)
            model.set_submodule(name, _LstmProducts(module))
    return model
