"""A session of secure aggregation, every message encoded and decoded as on a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, final

from protocols.aggregators.aggregated import Aggregated
from protocols.aggregators.fixed_point import FixedPoint, OnIntegers
from secagg.simulate import simulate

if TYPE_CHECKING:
    from protocols.aggregators.contributions import Contributions
    from secagg.layout import Layout
    from secagg.params import Params


class Secure(OnIntegers):
    """Plays a session; subclasses say in which mode."""

    encrypted = True

    def over(self, layout: Layout, params: Params | None = None) -> Self:
        """See ``Aggregator.over``."""
        return type(self)(layout, params or self.params)

    def mean_of(self, given: Contributions) -> Aggregated:
        """See ``Aggregator.aggregate``."""
        result = simulate(
            given.updates,
            given.masks,
            given.weights,
            self.mode,
            self.params,
            given.dropouts,
            given.seed,
            layout=self.layout,
            model_root=given.model_root,
            ledgers=given.ledgers,
        )
        return Aggregated(
            self.layout,
            result.aggregate.mean,
            result.survivors,
            result.stats.upload_bytes,
            result.stats.download_bytes,
            result.verdict,
            result.aggregate.integers,
            result.stats.seconds,
            result.event,
        )

    @property
    def twin(self) -> FixedPoint:
        """The same without encryption."""
        return FixedPoint(self.layout, self.params, self.mode)


@final
class Uniform(Secure):
    """Masks stay secret, uploads stay whole, a pruned coordinate counts as no change."""

    name = "uniform"
    mode = "uniform"


@final
class MaskIndexed(Secure):
    """Masks are declared, uploads shrink with them, the mean is over those who hold a coordinate."""

    name = "mask-indexed"
    mode = "mask-indexed"
