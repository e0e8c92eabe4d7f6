"""What aggregates by another kind, over another vector than that one would be given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.aggregators.aggregator import Aggregator
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from secagg.privacy.settings import Privacy


class StandIn(Aggregator):
    """Aggregates by another kind, in the uniform mode, and is called, set and accounted for as that one is.

    Args:
        kind: The other one.

    Raises:
        ParameterError: It is of another mode.
    """

    def __init__(self, kind: Aggregator) -> None:
        super().__init__(kind.layout)
        if kind.mode != "uniform":
            raise ParameterError("one mask for all, or vectors beside it, need an aggregator of the uniform mode")
        self.name, self.mode, self.params, self.encrypted = kind.name, kind.mode, kind.params, kind.encrypted
        self._kind = kind

    @property
    def privacy(self) -> Privacy | None:
        """See ``Aggregator.privacy``."""
        return self._kind.privacy
