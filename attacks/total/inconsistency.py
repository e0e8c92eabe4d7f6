"""Model inconsistency: everybody but the victim is handed a dead model, so that the sum is the victim's update.

Threat: a server that hands a different model to each client. In the dead ones the last layer's weights are zero: no
gradient reaches the layers before it, so that whoever trains such a model for a step changes nothing there. The victim
has the live model, and what it changes there is all that the sum holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from attacks.attack import Reconstruction, Threat
from attacks.likeness import cosine
from protocols.training import with_state

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from secagg import Layout


@dataclass(frozen=True, eq=False)
class Silenced:
    """What the server sees of a round in which all but one client hold a dead model.

    Args:
        total: The sum, zero where withheld, (d,).
        before: Whether a coordinate is before the last layer, (d,) bool.
    """

    total: NDArray[np.float64]
    before: NDArray[np.bool_]


class Inconsistency(Reconstruction[Silenced, "NDArray[np.float64]", "NDArray[np.float64]"]):
    """Takes the sum before the last layer for the victim's update."""

    name = "model inconsistency"
    threat = Threat.CRAFTED_MODELS
    source = "Pasquini, Francati and Ateniese, Eluding Secure Aggregation, CCS 2022"
    unit = "cosine"
    success = 0.95

    def craft(self, model: nn.Module) -> nn.Module | None:
        """The dead model; None if the model does not end in a dense layer."""
        last = _last_layer(model)
        return None if last is None else with_state(model, {f"{last}.weight": torch.zeros(())})

    def before(self, model: nn.Module, layout: Layout) -> NDArray[np.bool_]:
        """Which coordinates are before the last layer, (d,) bool."""
        last = _last_layer(model)
        return np.concatenate(
            [np.full(int(np.prod(t.shape)), t.name not in {f"{last}.weight", f"{last}.bias"}) for t in layout.tensors]
        )

    def guess(self, view: Silenced, rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG002 - no chance
        """The victim's update, zero in the last layer, (d,)."""
        return np.where(view.before, view.total, 0.0)

    def quality(self, guess: NDArray[np.float64], secret: NDArray[np.float64]) -> float:
        """Cosine with the victim's update, which is zero in the last layer too."""
        return cosine(guess, secret)


def _last_layer(model: nn.Module) -> str | None:
    """Name of the last dense layer, which makes the logits."""
    dense = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return dense[-1] if dense else None
