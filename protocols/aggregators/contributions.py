"""What an aggregation is given: an update of every client, and what counts beside it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import torch

from secagg import declaration
from secagg.declaration import Declaration
from secagg.driver import Stage
from secagg.errors import InputError
from secagg.ledger import Ledger
from secagg.simulate import check_clients

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from secagg.layout import Layout

Client: TypeAlias = Hashable
"""Names a client, for instance by its device."""

Updates: TypeAlias = Mapping[Client, Mapping[str, torch.Tensor]]
Masks: TypeAlias = Mapping[Client, Declaration | None]
Weights: TypeAlias = Mapping[Client, float]
Dropouts: TypeAlias = Mapping[Client, Stage | str]
Ledgers: TypeAlias = Mapping[Client, Ledger]


@dataclass(frozen=True, eq=False)
class Contributions:
    """What the clients of a round bring; the arguments of ``Aggregator.aggregate``, which describes them.

    Raises:
        InputError: There is no update, or a mask, weight, dropout or ledger of a client without one, or a client that
            lacks a weight where others have one.
    """

    updates: Updates = field(repr=False)
    masks: Masks | None = field(default=None, repr=False)
    weights: Weights | None = field(default=None, repr=False)
    dropouts: Dropouts | None = None
    model_root: bytes = b""
    ledgers: Ledgers | None = field(default=None, repr=False)
    seed: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.updates:
            raise InputError("there is no update")
        check_clients(
            self.updates, masks=self.masks, weights=self.weights, dropouts=self.dropouts, ledgers=self.ledgers
        )

    def completed(self, stage: Stage) -> tuple[Client, ...]:
        """The clients that complete a stage."""
        last = {client: Stage.of(name) for client, name in (self.dropouts or {}).items()}
        return tuple(client for client in self.updates if last.get(client, Stage.UNMASK) >= stage)

    def mask_of(self, client: Client) -> Declaration:
        """What a client declares that it holds."""
        return (self.masks or {}).get(client) or declaration.FULL

    def held_by(self, client: Client, layout: Layout) -> NDArray[np.bool_]:
        """The coordinates that a client holds, (layout.size,) bool."""
        return declaration.expand(layout, self.mask_of(client))
