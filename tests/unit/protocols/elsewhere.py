"""An accelerator that is none: a model that notes where it is sent, and examples that say they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from protocols.training import Examples

if TYPE_CHECKING:
    from collections.abc import Sequence


class Traveller(nn.Linear):
    """Notes where it is sent, and does not go."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.sent: list[torch.device] = []

    def to(self, device: torch.device) -> Traveller:  # type: ignore[override]
        self.sent.append(device)
        return self


class Elsewhere(Examples):
    """Examples that say they are on an accelerator."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda")

    def subset(self, indices: Sequence[int]) -> Examples:
        return Examples(self.inputs[list(indices)], self.labels[list(indices)])
