"""What a framework without encryption computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np

from protocols.aggregators.aggregated import Aggregated
from protocols.aggregators.aggregator import Aggregator
from secagg.driver import Stage
from secagg.errors import NotFiniteError, TooFewClientsError
from secagg.structure import Structure

if TYPE_CHECKING:
    from protocols.aggregators.contributions import Client, Contributions
    from pruning.masks import Mask
    from secagg.layout import Layout
    from secagg.params import Mode, Params

FLOAT_BYTES = 4
"""Bytes of a coordinate that travels without encryption."""


@final
class FloatMean(Aggregator):
    """The plain mean in floating point: no encryption, no fixed point, no release rule.

    Args:
        layout: The layout of the updates.
        mode: ``"uniform"``: a pruned coordinate counts as no change; ``"mask-indexed"``: the mean is over those who
            hold a coordinate, and NaN where nobody does.
        participation: NaN also where fewer than this share of the clients hold it: the threshold of the learning rule,
            which holds without encryption too.
    """

    name = "float"

    def __init__(self, layout: Layout, mode: Mode = "uniform", participation: float = 0.0) -> None:
        super().__init__(layout)
        self.mode = mode
        self._participation = participation

    def mean_of(self, given: Contributions) -> Aggregated:
        """See ``Aggregator.aggregate``; whoever completes ``MASKED_INPUT`` counts."""
        survivors = given.completed(Stage.MASKED_INPUT)
        if not survivors:
            raise TooFewClientsError("every client dropped out")
        structure = Structure.common(given.updates.values())
        total, weight = np.zeros(self.layout.size), np.zeros(self.layout.size)
        declared = given.completed(Stage.SHARE_KEYS)
        coverage = np.sum([given.held_by(one, self.layout) for one in declared], axis=0)
        sent: dict[Client, int] = {}
        for client in survivors:
            arrays, own = structure.arrays(given.updates[client], client), given.held_by(client, self.layout)
            share = 1.0 if given.weights is None else given.weights[client]
            values = np.concatenate([np.ravel(arrays[tensor.name]) for tensor in self.layout.tensors])
            if not np.isfinite(values[own]).all():
                raise NotFiniteError(f"client {client}: an update that is not finite", culprits=[client])
            total += np.where(own, values.astype(np.float64) * share, 0.0)
            weight += share if self.mode == "uniform" else own * share
            sent[client] = FLOAT_BYTES * (self.layout.size if self.mode == "uniform" else int(own.sum()))
        with np.errstate(invalid="ignore"):
            enough = (weight > 0) & (coverage >= self._participation * len(declared) - 1e-9)
            mean = np.divide(total, weight, out=np.full_like(total, np.nan), where=enough)
        verdict = f"no encryption: the server sees the update of each of {len(survivors)} clients."
        return Aggregated(self.layout, mean, survivors, sent, dict.fromkeys(survivors, 0), verdict)

    def upload_of(self, mask: Mask, clients: int) -> int:  # noqa: ARG002 - floats have one width in every cohort
        """See ``Aggregator.upload_of``."""
        return FLOAT_BYTES * self.length_of(mask)

    def over(self, layout: Layout, params: Params | None = None) -> FloatMean:  # noqa: ARG002 - it has no sessions
        """See ``Aggregator.over``."""
        return FloatMean(layout, self.mode, self._participation)
