"""What comes of an aggregation: a mean at every coordinate, or nothing where the release rule kept it back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from protocols.aggregators.contributions import Client
    from secagg.layout import Layout
    from secagg.privacy.events import Event


@dataclass(frozen=True, eq=False)
class Aggregated:
    """What an aggregation returns.

    Args:
        layout: The order of the coordinates.
        vector: Weighted mean at every coordinate, NaN where withheld. (layout.size,) float64.
        survivors: The clients in the mean.
        upload_bytes: Client to bytes that it sent.
        download_bytes: Client to bytes that it received, without the model itself.
        verdict: Who learned what, in a sentence.
        integers: The sums behind the mean, where it was computed on integers; two aggregations of the same updates
            agree exactly here, encrypted or not.
        event: What the aggregation was to whoever accounts for privacy; None without differential privacy.
        seconds: Role and stage (``"client masked_input"``) to seconds of computation, all clients together; empty
            without encryption.
    """

    layout: Layout
    vector: NDArray[np.float64]
    survivors: tuple[Client, ...]
    upload_bytes: Mapping[Client, int]
    download_bytes: Mapping[Client, int]
    verdict: str
    integers: NDArray[np.int64] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    event: Event | None = None

    def __repr__(self) -> str:
        return f"Aggregated({self.verdict!r})"

    @property
    def mean(self) -> dict[str, torch.Tensor]:
        """The mean by tensor name, in the layout's dtypes. NaN where withheld."""
        dtypes = {tensor.name: getattr(torch, tensor.dtype) for tensor in self.layout.tensors}
        return {name: values.to(dtypes[name]) for name, values in self._by_tensor(self.vector).items()}

    @cached_property
    def step(self) -> dict[str, torch.Tensor]:
        """The mean by tensor name as float64, zero where withheld: what the global model moves by."""
        return self._by_tensor(np.nan_to_num(self.vector, nan=0.0))

    @property
    def withheld(self) -> dict[str, torch.Tensor]:
        """Whether each coordinate was kept back, bool by tensor name."""
        return self._by_tensor(np.isnan(self.vector))

    @property
    def withheld_share(self) -> float:
        """Share of the coordinates that was kept back."""
        return float(np.isnan(self.vector).mean())

    def apply(self, start: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of the layout after the round: the start plus the mean, the start itself where withheld."""
        return add_step(start, self.step)

    def _by_tensor(self, vector: NDArray[Any]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(values) for name, values in self.layout.by_tensor(vector).items()}


def add_step(start: Mapping[str, torch.Tensor], step: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``start + step`` for every tensor of ``step``, computed in float64 and rounded once to the dtype of ``start``."""
    return {name: (start[name].double() + moved).to(start[name].dtype) for name, moved in step.items()}
