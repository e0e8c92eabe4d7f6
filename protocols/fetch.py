"""How a client gets its part of the global model: leaves under the model root, checked before anything reads them.

The server cuts the model into leaves (``secagg.merkle``), whose root everybody puts into the session. A client fetches
some of them and builds its module from these bytes and no others. A submodel needs the leaves of its units: each holds
whole rows of weights, and the columns of the units that the client dropped come along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from secagg import merkle
from secagg.errors import SERVER, AgreementError
from secagg.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from protocols.training import State
    from pruning.masks import Mask
    from secagg.layout import Layout


@dataclass(frozen=True, eq=False)
class Fetched:
    """Parts of a model as they arrive at a client: nothing that may be used before ``opened`` has checked it.

    Args:
        leaves: Number of a leaf to the leaf.
        proof: What it takes to check them.
    """

    leaves: Mapping[int, bytes]
    proof: tuple[bytes, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the leaves and of the proof."""
        return sum(map(len, self.leaves.values())) + sum(map(len, self.proof))

    def opened(self, model_root: bytes, mask: Mask) -> State:
        """The tensors of the layout at full shape, NaN where nothing was fetched.

        Args:
            model_root: Of the session.
            mask: The one that the client fetched by.

        Raises:
            AgreementError: Other parts than were asked for, or not those under the root; the culprit is the server.
        """
        layout = mask.layout
        if set(self.leaves) != leaves_for(mask):
            raise AgreementError("the server sent other parts of the model than were asked for", culprits=[SERVER])
        merkle.check(model_root, merkle.leaf_count(layout), self.leaves, self.proof)
        values = merkle.model_of(layout, self.leaves)
        return {
            tensor.name: torch.from_numpy(values[tensor.name]).to(getattr(torch, tensor.dtype))
            for tensor in layout.tensors
        }


class Served:
    """The server's side: a global model, ready to be fetched in parts.

    Args:
        layout: Of the model.
        state: Its tensors by name.

    Raises:
        LayoutMismatchError: Other names or shapes than in the layout.
    """

    def __init__(self, layout: Layout, state: State) -> None:
        self._leaves = merkle.model_leaves(layout, Structure(state).arrays(state, SERVER))
        self.root = merkle.root(self._leaves)

    def fetch(self, numbers: Collection[int]) -> Fetched:
        """The leaves of these numbers, with their proof."""
        return Fetched({number: self._leaves[number] for number in numbers}, merkle.prove(self._leaves, numbers))


def leaves_for(mask: Mask) -> frozenset[int]:
    """The leaves that a client needs to train what a mask leaves: only a mask of units has a smaller module."""
    held = mask.held if mask.kind == "units" else np.ones(mask.layout.unit_count, bool)
    return merkle.leaves_of_units(mask.layout, held)
