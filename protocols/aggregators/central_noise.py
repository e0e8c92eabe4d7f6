"""Central differential privacy, to compare with: a server that is trusted with every update adds the noise."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from protocols.aggregators.aggregator import Aggregator
from protocols.aggregators.float_mean import FloatMean
from secagg.declaration import Provenance
from secagg.errors import ParameterError
from secagg.prg import KEY_BYTES, SeededEntropy, Stream
from secagg.privacy.events import Gaussian, NonPrivate
from secagg.privacy.normal import normal
from secagg.privacy.rounding import clipped
from secagg.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from protocols.aggregators.aggregated import Aggregated
    from protocols.aggregators.contributions import Contributions
    from pruning.masks import Mask
    from secagg.layout import Layout
    from secagg.params import Mode, Params
    from secagg.privacy.events import Event
    from secagg.privacy.settings import Privacy


@final
class CentralNoise(Aggregator):
    """The mean in floating point of clipped updates, with Gaussian noise on their sum; nothing is encrypted.

    Args:
        layout: The layout of the updates.
        privacy: ``clip`` and ``noise_multiplier`` of it; the mechanism is the Gaussian one.
        mode: As ``FloatMean``.
        participation: As ``FloatMean``.
    """

    name = "central"

    def __init__(self, layout: Layout, privacy: Privacy, mode: Mode = "uniform", participation: float = 0.0) -> None:
        super().__init__(layout)
        self.mode = mode
        self._privacy = privacy
        self._mean = FloatMean(layout, mode, participation)
        self._participation = participation

    @property
    def privacy(self) -> Privacy:
        """See ``Aggregator.privacy``."""
        return self._privacy

    def mean_of(self, given: Contributions) -> Aggregated:
        """See ``Aggregator.aggregate``.

        Raises:
            ParameterError: There are weights.
        """
        if given.weights is not None:
            raise ParameterError("weights would need noise of their own: leave them out with privacy")
        short = {
            client: self._clipped(update, given.held_by(client, self.layout))
            for client, update in given.updates.items()
        }
        mean = self._mean.mean_of(replace(given, updates=short))
        entropy = os.urandom if given.seed is None else SeededEntropy(given.seed)
        std = self.privacy.noise_multiplier * self.privacy.clip
        noise = std * normal(Stream(entropy(KEY_BYTES), Ring(64)), self.layout.size)
        held = [given.held_by(client, self.layout) for client in mean.survivors]
        behind = np.sum(held, axis=0) if self.mode == "mask-indexed" else len(held)
        noisy = mean.vector + noise / np.maximum(1, behind)
        return replace(
            mean, vector=noisy, event=self._event(given), verdict=f"{mean.verdict} It adds noise to their sum."
        )

    def upload_of(self, mask: Mask, clients: int) -> int:
        """See ``Aggregator.upload_of``."""
        return self._mean.upload_of(mask, clients)

    def over(self, layout: Layout, params: Params | None = None) -> CentralNoise:  # noqa: ARG002 - it has no sessions
        """See ``Aggregator.over``."""
        return CentralNoise(layout, self.privacy, self.mode, self._participation)

    def _event(self, given: Contributions) -> Event:
        """Where a mean is over those who hold a coordinate, it shows how many do; see ``Plan.event``."""
        declared = (mask for mask in (given.masks or {}).values() if mask is not None)
        if self.mode == "mask-indexed" and any(mask.provenance is Provenance.DATA for mask in declared):
            return NonPrivate(reason="masks were computed from data, and the mean shows who holds what")
        return Gaussian(noise_multiplier=self.privacy.noise_multiplier)

    def _clipped(self, update: Mapping[str, torch.Tensor], held: NDArray[np.bool_]) -> dict[str, torch.Tensor]:
        vector = np.concatenate([update[t.name].double().numpy().ravel() for t in self.layout.tensors])
        short, _ = clipped(np.where(held, vector, 0.0), self.privacy.clip)
        return {name: torch.from_numpy(values) for name, values in self.layout.by_tensor(short).items()}
