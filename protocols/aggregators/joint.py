"""Other vectors of the same clients, summed in the session of their updates.

In a session of its own a vector is summed over whoever is there then. Who leaves in between is in one sum and not in
the other, and where both say much the same of a client, as an update and a gradient do, the one taken off the other
shows that client. In one session they are over the same clients, or there are none of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, final

from protocols.aggregators.float_mean import FLOAT_BYTES
from protocols.aggregators.stand_in import StandIn
from protocols.sessions.averaging import LEVELS
from pruning.masks import Mask
from secagg.layout import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from protocols.aggregators.aggregated import Aggregated
    from protocols.aggregators.aggregator import Aggregator
    from protocols.aggregators.contributions import Contributions
    from secagg.layout import Layout
    from secagg.params import Params


@final
class Joint(StandIn):
    """Aggregates updates that have further tensors, each under its own name; the aggregate has them too.

    Statistics differ in size by orders of magnitude, so the session has a finer grid than updates need: four bytes a
    number among up to 256 clients, and eight beyond that or where ``levels`` are more still, updates included.

    Args:
        kind: How: its kind and settings count, in the uniform mode, but for ranges and levels where there are vectors.
        vectors: Gives the names of the further tensors in the coming round, and of each how many numbers it has and the
            largest magnitude of one. Public.
        derived: Of the names, those whose numbers a server in the clear computes itself, so that nobody sends them.

    Raises:
        ParameterError: The aggregator is of another mode.
    """

    def __init__(
        self,
        kind: Aggregator,
        vectors: Callable[[], Mapping[str, tuple[int, float]]],
        derived: Collection[str] = (),
    ) -> None:
        super().__init__(kind)
        self._vectors = vectors
        self._derived = frozenset(derived)

    @property
    def session(self) -> Params | None:
        """See ``Aggregator.session``: a finer grid where there are vectors."""
        return self._whole().session

    def mean_of(self, given: Contributions) -> Aggregated:
        """See ``Aggregator.aggregate``; masks do not count, but are of clients with an update."""
        found = self._whole().mean_of(replace(given, masks=None))
        vectors, unsent_bytes = self._vectors(), FLOAT_BYTES * self._unsent()
        if not vectors:
            return found
        return replace(
            found,
            upload_bytes={client: sent - unsent_bytes for client, sent in found.upload_bytes.items()},
            verdict=f"{found.verdict} It sums {', '.join(vectors)} beside the updates: "
            "together they say more than each does.",
        )

    def upload_of(self, mask: Mask, clients: int) -> int:  # noqa: ARG002 - vectors are sent whole
        """See ``Aggregator.upload_of``."""
        whole = self._whole()
        return whole.upload_of(Mask.full(whole.layout), clients) - FLOAT_BYTES * self._unsent()

    def over(self, layout: Layout, params: Params | None = None) -> Joint:
        """See ``Aggregator.over``: the further tensors stay as they are."""
        return Joint(self._kind.over(layout, params), self._vectors, self._derived)

    def length_of(self, mask: Mask) -> int:  # noqa: ARG002 - vectors are sent whole
        """See ``Aggregator.length_of``."""
        return self._whole().layout.size - self._unsent()

    def _whole(self) -> Aggregator:
        """What aggregates everything as one vector."""
        vectors, params = self._vectors(), self.params
        if not vectors:
            return self._kind
        further = (Tensor(name, (size,), "float64") for name, (size, _) in vectors.items())
        layout = replace(self.layout, tensors=(*self.layout.tensors, *further))
        if params is None:
            return self._kind.over(layout)
        given = params.value_range
        own = {"*": given} if isinstance(given, float) else dict(given)
        ranges = {name: largest for name, (_, largest) in vectors.items()}
        return self._kind.over(
            layout, replace(params, value_range={**own, **ranges}, levels=max(params.levels, LEVELS))
        )

    def _unsent(self) -> int:
        """Numbers of derived tensors; none where a server does not see what they are derived from."""
        if self.params is not None:
            return 0
        return sum(size for name, (size, _) in self._vectors().items() if name in self._derived)
