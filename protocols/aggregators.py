"""Four ways to turn the clients' updates into one mean, behind one interface.

``FloatMean`` is what a framework without encryption computes. ``Uniform`` and ``MaskIndexed`` play a session of
secure aggregation. ``FixedPoint`` is their twin in the clear: the same fixed point, release rule and division without
keys or masks, so it agrees with them bit for bit, and any difference would be an error of the encryption.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Self, TypeAlias, final

import numpy as np
import torch

from protocols.aggregated import Aggregated
from secagg import aggregate, counts, declaration, encoding
from secagg.declaration import Declaration
from secagg.driver import Stage
from secagg.errors import (
    InputError,
    NotFiniteError,
    ParameterError,
    TooFewClientsError,
    UnknownClientError,
    WeightError,
)
from secagg.ledger import Ledger
from secagg.messages import Participant
from secagg.params import Params
from secagg.prg import SeededEntropy
from secagg.release import Plan
from secagg.session import ID_BYTES, CountedCoverage, Session
from secagg.simulate import simulate
from secagg.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pruning.masks import Mask
    from secagg.layout import Layout
    from secagg.params import Mode
    from secagg.privacy.settings import Privacy

Client: TypeAlias = Hashable
"""Names a client, for instance by its device."""

Updates: TypeAlias = Mapping[Client, Mapping[str, torch.Tensor]]
Masks: TypeAlias = Mapping[Client, Declaration | None]
Weights: TypeAlias = Mapping[Client, float]
Dropouts: TypeAlias = Mapping[Client, Stage | str]
Ledgers: TypeAlias = Mapping[Client, Ledger]

FLOAT_BYTES = 4
"""Bytes of a coordinate that travels without encryption."""


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
    """The settings of its sessions, or of those that it stands for; None in floating point."""

    encrypted = False
    """Whether the server is kept from seeing single updates."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @property
    def privacy(self) -> Privacy | None:
        """The differential privacy of its sums."""
        return None if self.params is None else self.params.privacy

    @abstractmethod
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

    def aggregate(
        self,
        updates: Updates,
        masks: Masks | None = None,
        weights: Weights | None = None,
        dropouts: Dropouts | None = None,
        *,
        model_root: bytes = b"",  # noqa: ARG002 - there is no session
        ledgers: Ledgers | None = None,  # noqa: ARG002 - nor anything to remember of it
        seed: bytes | None = None,  # noqa: ARG002 - there are no secrets
    ) -> Aggregated:
        """See ``Aggregator.aggregate``; whoever completes ``MASKED_INPUT`` counts."""
        _check_clients(updates, masks, weights, dropouts)
        survivors = _completed(updates, dropouts, Stage.MASKED_INPUT)
        if not survivors:
            raise TooFewClientsError("every client dropped out")
        structure = Structure.common(updates.values())
        total, weight = np.zeros(self.layout.size), np.zeros(self.layout.size)
        declared = _completed(updates, dropouts, Stage.SHARE_KEYS)
        coverage = np.sum([declaration.expand(self.layout, _declared(masks, one)) for one in declared], axis=0)
        sent: dict[Client, int] = {}
        for client in survivors:
            arrays = structure.arrays(updates[client], client)
            own = declaration.expand(self.layout, _declared(masks, client))
            share = 1.0 if weights is None else weights[client]
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


class _OnIntegers(Aggregator):
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
class FixedPoint(_OnIntegers):
    """The twin in the clear of ``Uniform`` or ``MaskIndexed``: equal integers, equal mean, no privacy.

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

    def aggregate(
        self,
        updates: Updates,
        masks: Masks | None = None,
        weights: Weights | None = None,
        dropouts: Dropouts | None = None,
        *,
        model_root: bytes = b"",  # noqa: ARG002 - there is no session
        ledgers: Ledgers | None = None,  # noqa: ARG002 - nor anything to remember of it
        seed: bytes | None = None,
    ) -> Aggregated:
        """See ``Aggregator.aggregate``."""
        _check_clients(updates, masks, weights, dropouts)
        clients, structure = list(updates), Structure.common(updates.values())
        ids = {client: id_ for id_, client in enumerate(clients)}
        plan, threshold = self._plan(clients, masks, weights, dropouts)
        alive = _completed(updates, dropouts, Stage.MASKED_INPUT)
        survivors = tuple(ids[client] for client in alive)
        if len(survivors) < plan.fewest_survivors:
            raise TooFewClientsError(f"{len(survivors)} clients sent their input < {plan.fewest_survivors}")
        plan.check_survivors(survivors)
        if len(_completed(updates, dropouts, Stage.UNMASK)) < threshold:
            raise TooFewClientsError(f"fewer than {threshold} clients are left at the end")
        integers, sent = np.zeros(plan.length, np.int64), dict.fromkeys(alive, 0)
        entropy = os.urandom if seed is None else SeededEntropy(seed)
        for client in alive:
            arrays, own = structure.arrays(updates[client], client), self._own(masks, client)
            try:
                encoding.check_update(self.layout, self.params, arrays, own)
            except InputError as error:
                raise type(error)(f"client {client}: {error}", culprits=[client]) from None
            weight = None if weights is None else self._weight(weights[client])
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

    def _plan(
        self, clients: list[Client], masks: Masks | None, weights: Weights | None, dropouts: Dropouts | None
    ) -> tuple[Plan, int]:
        """The plan that the clients of a session would compute, and its share threshold."""
        session = Session(
            id=bytes(ID_BYTES),
            params=self.params,
            layout=self.layout,
            mode=self.mode,
            weighted=weights is not None,
            counted=self._counted(clients, masks) if masks and self.mode == "uniform" else None,
        )
        advertised = _completed(clients, dropouts, Stage.ADVERTISE_KEYS)
        shared = set(_completed(clients, dropouts, Stage.SHARE_KEYS))
        _, wired = session.topology(range(len(advertised)), bytes(32))
        participants = []
        for id_, client in enumerate(clients):
            if client not in shared:
                continue
            public = weights is not None and self.params.weighting == "public"
            bucket = encoding.weight_bucket(self.params, weights[client]) if weights and public else None
            declared = _declared(masks, client) if self.mode == "mask-indexed" else declaration.FULL
            participants.append(Participant(id_, declared, bucket))
        return Plan(session, wired.needed, participants), wired.threshold

    def _counted(self, clients: list[Client], masks: Masks | None) -> CountedCoverage:
        """What the counting session of a uniform session finds out: everybody takes part in it."""
        sums = counts.summed(self.layout, [_declared(masks, client) for client in clients])
        return CountedCoverage(frozenset(range(len(clients))), counts.least_coverage(self.layout, sums))

    def _weight(self, weight: float) -> int:
        if self.params.weighting == "public":
            return encoding.bucket_weight(self.params, encoding.weight_bucket(self.params, weight))
        return encoding.encode_weight(self.params, weight)

    def _own(self, masks: Masks | None, client: Client) -> NDArray[np.bool_]:
        return declaration.expand(self.layout, _declared(masks, client))


class Secure(_OnIntegers):
    """A session of secure aggregation, every message encoded and decoded as on a network; subclasses say the mode."""

    encrypted = True

    def over(self, layout: Layout, params: Params | None = None) -> Self:
        """See ``Aggregator.over``."""
        return type(self)(layout, params or self.params)

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
        """See ``Aggregator.aggregate``."""
        result = simulate(
            updates,
            masks,
            weights,
            self.mode,
            self.params,
            dropouts,
            seed,
            layout=self.layout,
            model_root=model_root,
            ledgers=ledgers,
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
            result.aggregate.event,
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


def _declared(masks: Masks | None, client: Client) -> Declaration:
    return (masks or {}).get(client) or declaration.FULL


def _completed(clients: Iterable[Client], dropouts: Dropouts | None, stage: Stage) -> tuple[Client, ...]:
    """The clients that complete a stage."""
    last = {client: Stage.of(name) for client, name in (dropouts or {}).items()}
    return tuple(client for client in clients if last.get(client, Stage.UNMASK) >= stage)


def _check_clients(updates: Updates, masks: Masks | None, weights: Weights | None, dropouts: Dropouts | None) -> None:
    """Refuses what speaks of clients without an update, and weights that leave one out."""
    if not updates:
        raise InputError("there is no update")
    unknown = [client for given in (masks, weights, dropouts) for client in given or () if client not in updates]
    if unknown:
        raise UnknownClientError(f"clients without an update: {unknown}", culprits=unknown)
    missing = [client for client in updates if weights is not None and client not in weights]
    if missing:
        raise WeightError(f"clients without a weight: {missing}", culprits=missing)
