"""One public mask that all clients share: only what it leaves is aggregated, and nobody has to declare anything.

The vector of a session is then the held coordinates, one after another, and whatever an update has besides the tensors
of the model (``protocols.aggregators.joint``). Its layout is named by a digest of the mask, so that clients which hold
different masks, as a dishonest server might tell them, have no session in common.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from protocols.aggregators.stand_in import StandIn
from pruning.masks import Mask
from secagg.errors import ParameterError
from secagg.layout import Layout, Tensor
from secagg.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from protocols.aggregators.aggregated import Aggregated
    from protocols.aggregators.aggregator import Aggregator
    from protocols.aggregators.contributions import Contributions
    from secagg.params import Params


@final
class OneMask(StandIn):
    """Aggregates what one mask leaves; everything else moves by nothing.

    Args:
        kind: How: its kind and settings count, in the uniform mode.
        mask: Gives the mask of the coming round.

    Raises:
        ParameterError: The aggregator is of another mode, or has value ranges by tensor.
    """

    def __init__(self, kind: Aggregator, mask: Callable[[], Mask]) -> None:
        super().__init__(kind)
        if kind.params is not None and not isinstance(kind.params.value_range, float):
            raise ParameterError("value_range must be one number for all tensors: what one mask leaves is one tensor")
        self._mask = mask

    @property
    def session(self) -> Params | None:
        """See ``Aggregator.session``."""
        return self._over_held().session

    def mean_of(self, given: Contributions) -> Aggregated:
        """See ``Aggregator.aggregate``; the one mask counts, and cuts nothing from tensors beside the layout's."""
        held = self._mask().coordinates
        if held.all():
            return self._kind.mean_of(replace(given, masks=None))
        inner, structure = self._over_held(), Structure.common(given.updates.values())
        (tensor,) = inner.layout.tensors
        values = {client: self._flat(structure.arrays(update, client)) for client, update in given.updates.items()}
        own_names = {one.name for one in self.layout.tensors}
        kept = {
            client: {
                tensor.name: torch.from_numpy(values[client][held]),
                **{name: one for name, one in update.items() if name not in own_names},
            }
            for client, update in given.updates.items()
        }
        aggregated = inner.mean_of(replace(given, updates=kept, masks=None))
        (_, *others), moved = aggregated.layout.tensors, np.zeros(self.layout.size)
        moved[held] = aggregated.vector[: tensor.size]
        vector = np.concatenate([moved, aggregated.vector[tensor.size :]])
        return replace(aggregated, layout=replace(self.layout, tensors=(*self.layout.tensors, *others)), vector=vector)

    def upload_of(self, mask: Mask, clients: int) -> int:  # noqa: ARG002 - all masks are the one
        """See ``Aggregator.upload_of``."""
        inner = self._over_held()
        return inner.upload_of(Mask.full(inner.layout), clients)

    def over(self, layout: Layout, params: Params | None = None) -> Aggregator:
        """See ``Aggregator.over``: without the mask, which is one of this layout."""
        return self._kind.over(layout, params)

    def length_of(self, mask: Mask) -> int:  # noqa: ARG002 - all masks are the one
        """See ``Aggregator.length_of``."""
        inner = self._over_held()
        return inner.length_of(Mask.full(inner.layout))

    @property
    def counts_masks(self) -> bool:
        """All are equal, and public."""
        return False

    def _over_held(self) -> Aggregator:
        """What aggregates the held coordinates alone."""
        held = self._mask().coordinates
        digest = hashlib.sha256(np.packbits(held).tobytes()).hexdigest()
        return self._kind.over(Layout((Tensor(f"held {digest}", (int(held.sum()),)),)))

    def _flat(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([arrays[tensor.name].reshape(-1) for tensor in self.layout.tensors])
