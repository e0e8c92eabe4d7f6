"""The twin in the clear of a session: the same fixed point, release rule and division, without keys or masks.

So it agrees with the session bit for bit, and any difference would be an error of the encryption.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, final

import numpy as np

from protocols.aggregators.aggregated import Aggregated
from protocols.aggregators.aggregator import Aggregator
from secagg import aggregate, counts, declaration, encoding
from secagg.driver import Stage
from secagg.errors import InputError, TooFewClientsError
from secagg.messages import Participant
from secagg.params import Params
from secagg.prg import SeededEntropy
from secagg.release import Plan
from secagg.session import ID_BYTES, CountedCoverage, Session
from secagg.structure import Structure

if TYPE_CHECKING:
    from protocols.aggregators.contributions import Contributions
    from pruning.masks import Mask
    from secagg.layout import Layout
    from secagg.params import Mode


class OnIntegers(Aggregator):
    """What the aggregators share that compute in fixed point.

    Args:
        layout: The layout of the updates.
        params: The settings of the sessions.
    """

    def __init__(self, layout: Layout, params: Params | None = None) -> None:
        super().__init__(layout)
        self.params: Params = params or Params()

    def upload_of(self, mask: Mask, clients: int) -> int:
        """See ``Aggregator.upload_of``."""
        return self.length_of(mask) * self.params.ring(clients).bits // 8


@final
class FixedPoint(OnIntegers):
    """What ``Uniform`` or ``MaskIndexed`` compute: equal integers, equal mean, no privacy.

    It withholds what they withhold and refuses what they refuse, since it uses their own encoding, plan and decoding.

    Args:
        layout: The layout of the updates.
        params: The settings of the sessions.
        mode: Whose twin it is.
    """

    name = "plain"

    def __init__(self, layout: Layout, params: Params | None = None, mode: Mode = "uniform") -> None:
        super().__init__(layout, params)
        self.mode = mode

    def over(self, layout: Layout, params: Params | None = None) -> FixedPoint:
        """See ``Aggregator.over``."""
        return FixedPoint(layout, params or self.params, self.mode)

    def mean_of(self, given: Contributions) -> Aggregated:
        """See ``Aggregator.aggregate``."""
        structure = Structure.common(given.updates.values())
        ids = {client: id_ for id_, client in enumerate(given.updates)}
        plan, threshold = self._plan(given)
        alive = given.completed(Stage.MASKED_INPUT)
        survivors = tuple(ids[client] for client in alive)
        if len(survivors) < plan.fewest_survivors:
            raise TooFewClientsError(
                f"{len(survivors)} clients sent their input < {plan.explain_fewest()}: {plan.dropout_remedy}"
            )
        plan.check_survivors(survivors)
        if len(given.completed(Stage.UNMASK)) < threshold:
            raise TooFewClientsError(f"fewer than {threshold} clients are left at the end")
        integers, sent = np.zeros(plan.length, np.int64), dict.fromkeys(alive, 0)
        entropy = os.urandom if given.seed is None else SeededEntropy(given.seed)
        for client in alive:
            arrays, own = structure.arrays(given.updates[client], client), given.held_by(client, self.layout)
            try:
                encoding.check_update(self.layout, self.params, arrays, own)
                weight = None if given.weights is None else self._weight(given.weights[client])
            except InputError as error:
                raise type(error)(f"client {client}: {error}", culprits=[client]) from None
            seeds = () if plan.shares is None else plan.shares.seeds(entropy)[: plan.parts_kept(survivors)]
            encoded = encoding.encode_update(plan, ids[client], arrays, own, weight, entropy=entropy, seeds=seeds)
            places = plan.places(ids[client])
            count = int(np.count_nonzero(places))
            integers[places] += encoded.take(count)
            sent[client] = plan.ring.nbytes(count)
        decoded = aggregate.decode(plan, survivors, plan.ring.centred(plan.ring.wrap(integers)))
        verdict = f"no encryption: the server sees the rounded update of each of {len(alive)} clients."
        return Aggregated(
            self.layout,
            decoded.mean,
            alive,
            sent,
            dict.fromkeys(alive, 0),
            verdict,
            decoded.integers,
            event=decoded.event,
        )

    def _plan(self, given: Contributions) -> tuple[Plan, int]:
        """The plan that the clients of a session would compute, and its share threshold."""
        session = Session(
            id=bytes(ID_BYTES),
            params=self.params,
            layout=self.layout,
            mode=self.mode,
            weighted=given.weights is not None,
            counted=self._counted(given) if given.masks and self.mode == "uniform" else None,
            model_root=given.model_root,
        )
        advertised, shared = given.completed(Stage.ADVERTISE_KEYS), set(given.completed(Stage.SHARE_KEYS))
        _, wired = session.topology(range(len(advertised)), bytes(32))
        public = given.weights if self.params.weighting == "public" else None
        participants = [
            Participant(
                id_,
                given.mask_of(client) if self.mode == "mask-indexed" else declaration.FULL,
                encoding.weight_bucket(self.params, public[client]) if public else None,
            )
            for id_, client in enumerate(given.updates)
            if client in shared
        ]
        return Plan(session, wired.needed, participants), wired.threshold

    def _counted(self, given: Contributions) -> CountedCoverage:
        """What the counting session of a uniform session finds out: everybody takes part in it."""
        sums = counts.summed(self.layout, [given.mask_of(client) for client in given.updates])
        return CountedCoverage(frozenset(range(len(given.updates))), counts.least_coverage(self.layout, sums))

    def _weight(self, weight: float) -> int:
        if self.params.weighting == "public":
            return encoding.bucket_weight(self.params, encoding.weight_bucket(self.params, weight))
        return encoding.encode_weight(self.params, weight)
