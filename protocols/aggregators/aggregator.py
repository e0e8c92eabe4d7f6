"""What turns the clients' updates into one mean: the interface of all kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

from protocols.aggregators.contributions import Contributions

if TYPE_CHECKING:
    from protocols.aggregators.aggregated import Aggregated
    from protocols.aggregators.contributions import Dropouts, Ledgers, Masks, Updates, Weights
    from pruning.masks import Mask
    from secagg.layout import Layout
    from secagg.params import Mode, Params
    from secagg.privacy.settings import Privacy


class Aggregator(ABC):
    """Turns the updates of a round into one mean.

    Args:
        layout: The layout of the updates, with its units if any update is pruned by units.
    """

    name: str
    """How results call it."""

    mode: Mode
    """Whether masks stay secret (``"uniform"``) or are declared (``"mask-indexed"``)."""

    params: Params | None = None
    """The settings by which updates are summed, by it or by what it stands for; None in floating point."""

    encrypted = False
    """Whether the server is kept from seeing single updates."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @property
    def privacy(self) -> Privacy | None:
        """The differential privacy of its sums."""
        return None if self.params is None else self.params.privacy

    @property
    def session(self) -> Params | None:
        """The settings of the coming round's session, which may sum more than updates; None in floating point."""
        return self.params

    @final
    def aggregate(
        self,
        updates: Updates,
        masks: Masks | None = None,
        weights: Weights | None = None,
        dropouts: Dropouts | None = None,
        *,
        model_root: bytes = b"",
        ledgers: Ledgers | None = None,
        seed: bytes | None = None,
    ) -> Aggregated:
        """The weighted mean of the updates of those who do not drop out.

        Args:
            updates: Client to change of the model, at full shape.
            masks: Client to the coordinates that it holds; None, or no entry, for all of them. What an update has
                outside its mask is ignored.
            weights: Client to weight; without them all weigh the same.
            dropouts: Client to the last stage of the session that it completes.
            model_root: Root of the model that the updates start from, which a session binds.
            ledgers: Client to what it remembers of its sessions, for those that do.
            seed: Makes the secrets of a session repeatable: for simulations, and a new one each round.

        Raises:
            InputError: An update, a mask or a weight that cannot be aggregated.
            AbortError: Too many dropouts, too little coverage, or a client's ledger refuses.
        """
        return self.mean_of(Contributions(updates, masks, weights, dropouts, model_root, ledgers, seed))

    @abstractmethod
    def mean_of(self, given: Contributions) -> Aggregated:
        """What each kind makes of the arguments of ``aggregate``, and raises as it says."""

    @abstractmethod
    def upload_of(self, mask: Mask, clients: int) -> int:
        """Bytes of the vector that a client with this mask sends if nothing is withheld, keys and shares aside.

        Args:
            mask: What the client holds.
            clients: Size of the cohort.
        """

    @abstractmethod
    def over(self, layout: Layout, params: Params | None = None) -> Aggregator:
        """The same kind over another layout.

        Args:
            layout: Of the updates.
            params: Settings of its sessions instead of its own; what has no sessions has none.
        """

    def length_of(self, mask: Mask) -> int:
        """Coordinates of the vector that a client with this mask sends if nothing is withheld."""
        return self.layout.size if self.mode == "uniform" else int(mask.coordinates.sum())

    @property
    def counts_masks(self) -> bool:
        """Whether masks that differ have to be counted in secret before updates can be summed."""
        return self.mode == "uniform"
