"""FedSNIP: one mask, made once by how much the loss depends on each weight, and FedAvg on what it leaves.

N. Lee, T. Ajanthan, P. Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019, with the
clients' mean gradient. The first round is dense: the mask is made in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from protocols.sparse import SparseSystem
from pruning.kernels import FLOOR, keep_top, snip_scores
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from protocols.aggregators import Aggregator
    from protocols.federation import Federation
    from protocols.round import RoundContext, Work
    from protocols.simulation.calibration import Calibration
    from pruning.kernels import Vector
    from pruning.masks import Mask

GRADIENT = "gradient"
"""Name of the mean that it takes."""


@dataclass(frozen=True, kw_only=True)
class SnipSettings:
    """The settings of FedSNIP.

    Args:
        density: Of the kernels, at least ``pruning.kernels.FLOOR`` and at most 1.
        largest_gradient: Of a coordinate, beyond which a client clips it.

    Raises:
        ParameterError: A setting outside its domain.
    """

    density: float = 0.3
    largest_gradient: float = 4.0

    def __post_init__(self) -> None:
        if not FLOOR <= self.density <= 1 or not 0 < self.largest_gradient < math.inf:
            raise ParameterError(f"density must be in [{FLOOR}, 1], and largest_gradient positive and finite")


@final
class FedSnip(SparseSystem):
    """Federated averaging on a mask that is made in the first round.

    Args:
        federation: As ``System``.
        aggregator: As ``SparseSystem``.
        settings: How dense it is.
        twin: As ``System``.
        calibration: As ``System``.
    """

    settings: SnipSettings

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: SnipSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(federation, aggregator, twin=twin, calibration=calibration)
        self.settings = settings or SnipSettings()

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"FedSNIP {self.aggregator.name}"

    def ranges(self) -> Mapping[str, float]:
        """The gradient's in the first round; then nothing."""
        return {} if self.played else {GRADIENT: self.settings.largest_gradient}

    def contribution(self, context: RoundContext, own: Work) -> Mapping[str, Vector]:
        """A client's gradient."""
        largest = self.settings.largest_gradient
        return {GRADIENT: self.gradient(context, own.client).clip(-largest, largest)}

    def renewed(self, means: Mapping[str, torch.Tensor], before: Vector, after: Vector) -> Mask:  # noqa: ARG002
        """The mask that stays, by the weights at which the gradients were taken."""
        scores = snip_scores(before, means[GRADIENT].numpy())
        return keep_top(self.kernels, scores, self.settings.density)
