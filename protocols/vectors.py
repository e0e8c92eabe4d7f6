"""Models as vectors: the tensors of a layout one after another, in its order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from protocols.training import State
    from secagg.layout import Layout


def vector_of(layout: Layout, state: State) -> NDArray[np.float32]:
    """The tensors of a layout as (layout.size,) float32."""
    parts = [state[tensor.name].detach().reshape(-1) for tensor in layout.tensors]
    vector: NDArray[np.float32] = torch.cat([part.float() for part in parts]).numpy()
    return vector


def state_of(layout: Layout, vector: NDArray[np.float32]) -> State:
    """The vector by tensor name, in the layout's shapes and dtypes."""
    dtypes = {tensor.name: getattr(torch, tensor.dtype) for tensor in layout.tensors}
    return {name: torch.tensor(values, dtype=dtypes[name]) for name, values in layout.by_tensor(vector).items()}
