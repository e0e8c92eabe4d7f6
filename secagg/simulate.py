"""A round in one call, for an existing training loop."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from secagg import counts, declaration, driver, encoding
from secagg.aggregate import Aggregate
from secagg.combining import Combined, LostShard, combine
from secagg.declaration import Declaration, Provenance
from secagg.driver import Contribution, Stage
from secagg.errors import (
    AbortError,
    ChecksumError,
    InputError,
    LayoutMismatchError,
    ParameterError,
    UnknownClientError,
    WeightError,
)
from secagg.params import Params
from secagg.prg import SeededEntropy
from secagg.session import ID_BYTES, CountedCoverage, Session
from secagg.shards import SEED_BYTES, split
from secagg.structure import Structure, mask_vector, same_memory, state_of, ties_in
from secagg.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from numpy.typing import NDArray

    from secagg.combining import Outcome
    from secagg.layout import Layout
    from secagg.ledger import Ledger
    from secagg.params import Mode
    from secagg.privacy.events import Event
    from secagg.privacy.settings import Privacy
    from secagg.shards import Shard

    Masks = Mapping[Any, Any]
    EntropyOf = Callable[[int | None], Callable[[int], bytes]]


@dataclass(frozen=True)
class Stats:
    """What a round cost, shards that aborted not counted.

    Args:
        upload_bytes: Client to bytes that it sent, in all stages together.
        download_bytes: Client to bytes that it received.
        seconds: Role and stage (``"client masked_input"``; with shards ``"shard 0: client masked_input"``) to seconds
            of computation, all clients together.
        dropouts: Client to the last stage that it completed, for those that dropped out.
        clipped_share: Client to the share of its values that ``out_of_range="saturate"`` clipped; with ``privacy``, 1
            where the whole update was scaled down, else 0. Known to the client alone: no noise covers it.
    """

    upload_bytes: Mapping[Hashable, int]
    download_bytes: Mapping[Hashable, int]
    seconds: Mapping[str, float]
    dropouts: Mapping[Hashable, Stage]
    clipped_share: Mapping[Hashable, float]


@dataclass(frozen=True, eq=False)
class Result:
    """What a simulated round returns. All structures have the form, names, shapes and devices of the updates.

    Args:
        outcome: The same as flat float64 vectors.
        stats: What it cost.
        verdict: Who learned what, in a sentence.
        survivors: The clients in the sums.
        lost_shards: Shards that aborted, with their clients, who are not in the sums, and the reasons.
        unchanged: Names of integer tensors, which are not aggregated: zero in ``mean``, kept by ``apply``.
    """

    outcome: Outcome
    stats: Stats
    verdict: str
    survivors: tuple[Hashable, ...]
    lost_shards: tuple[LostShard, ...]
    unchanged: tuple[str, ...]
    _structure: Structure
    _fallback: float | None

    def __repr__(self) -> str:
        return f"Result({self.verdict!r})"

    @property
    def aggregate(self) -> Aggregate:
        """The outcome of a round that was one session, with its plan and the exact integer sums.

        Raises:
            ParameterError: There were shards, of which each had a plan of its own.
        """
        if not isinstance(self.outcome, Aggregate):
            raise ParameterError("with shards there is no one plan: take result.outcome, or leave shards out")
        return self.outcome

    @property
    def event(self) -> Event | None:
        """What the round was to whoever accounts for privacy: ``PrivacyLedger.record`` takes it once."""
        return self.outcome.event

    @cached_property
    def mean(self) -> Any:
        """Weighted mean of the survivors that hold a coordinate, in the dtype given. Withheld: NaN, or ``fallback``."""
        return self._shaped(self._filled(self.outcome.mean))

    @cached_property
    def sum(self) -> Any:
        """Weighted sum, in the dtype given. Withheld: NaN, or ``fallback``."""
        return self._shaped(self._filled(self.outcome.sum))

    @property
    def weight(self) -> float:
        """Total weight of the survivors; their number if all weigh the same."""
        return self.outcome.total_weight

    @cached_property
    def coverage(self) -> Any:
        """Clients that hold each coordinate, int32; None in uniform mode, where nobody knows."""
        return None if self.outcome.coverage is None else self._shaped(self.outcome.coverage, "int32")

    @cached_property
    def withheld(self) -> Any:
        """Whether each coordinate was kept back by the release rule, bool."""
        return self._shaped(~self.outcome.released, "bool")

    def apply(self, start: Any) -> Any:
        """The state after the round: ``start`` plus the mean, and ``start`` itself where withheld or unchanged.

        Args:
            start: A state in the form of the updates, or a PyTorch module, which is then written in place.

        Returns:
            The new state, or the module.

        Raises:
            LayoutMismatchError: ``start`` has other names or shapes.
        """
        state = state_of(start)
        steps = self.outcome.layout.by_tensor(np.nan_to_num(self.outcome.mean, nan=0.0))
        new = self._structure.moved(state, steps)
        if state is start:
            return new
        start.load_state_dict(new)
        return start

    def _filled(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        return vector if self._fallback is None else np.nan_to_num(vector, nan=self._fallback)

    def _shaped(self, vector: NDArray[Any], dtype: str | None = None) -> Any:
        by_tensor = self.outcome.layout.by_tensor(vector)
        return self._structure.build(by_tensor, lambda name: self._structure.zeros(name, dtype), dtype)


def simulate(  # noqa: PLR0917 - the first seven are what a training loop has at hand, in that order
    deltas: Mapping[Any, Any],
    masks: Masks | None = None,
    weights: Mapping[Any, float] | None = None,
    mode: Mode | None = None,
    params: Params | None = None,
    dropouts: Mapping[Any, Stage | str] | None = None,
    seed: bytes | int | None = None,
    *,
    provenance: Provenance = Provenance.DATA,
    layout: Layout | None = None,
    model_root: bytes = b"",
    ledgers: Mapping[Any, Ledger] | None = None,
    fallback: float | None = None,
    privacy: Privacy | None = None,
    shards: int | None = None,
    observe: Callable[[bytes], None] = lambda _: None,
) -> Result:
    """Plays a whole secure aggregation in memory, every message encoded and decoded as on a network.

    Args:
        deltas: Client to update: a dict of arrays or tensors, a state_dict, a list of arrays, or one array.
        masks: Client to the coordinates that it holds: bools in the form of its update, a ``Declaration``, or None
            for all. Values outside a client's mask are ignored.
        weights: Client to weight, in (0, params.max_weight]; without them all weigh the same.
        mode: ``"uniform"`` (masks stay secret) or ``"mask-indexed"`` (masks are declared, uploads shrink). Without
            masks it is uniform; with masks it has to be said.
        params: The settings.
        dropouts: Client to the last stage that it completes, as a ``Stage`` or by name. Where a uniform session of
            pruned updates counts first, all clients take part in the counting.
        seed: Makes the run repeatable, secrets included: for simulations only.
        provenance: What masks of bools were made of; a ``Declaration`` says it itself. By default the clients' data,
            which ends every guarantee of ``privacy`` where masks are declared.
        layout: The layout of the updates with its prunable units (``pruning.find_units(model).layout``), which
            makes the declarations of unit masks a bit a unit.
        model_root: Root of the model that the updates start from (``secagg.merkle``), 32 bytes, or empty.
        ledgers: Client to what it remembers of its sessions, for those that do. Ledgers know clients by their place in
            ``deltas``, so keep it from call to call. The counting session is not remembered.
        fallback: What to put into ``mean`` and ``sum`` where a coordinate is withheld, instead of NaN.
        privacy: Differential privacy, if ``params`` do not say so already; ``result.event`` is what a
            ``PrivacyLedger`` records.
        shards: Into how many shards the clients are split at random, each with a session of its own, for more of them
            than one graph should hold (``secagg.shards``); ``params`` still count all clients. A shard that aborts is
            left out.
        observe: Called with every message on the wire.

    Raises:
        ParameterError: Settings that contradict each other.
        InputError: An update, a mask or a weight that cannot be aggregated; ``culprits`` names the client.
        AbortError: Too many dropouts, too little coverage, or a client's ledger refuses; with shards, in all of them.
    """
    params = params or Params()
    if privacy is not None:
        params = replace(params, privacy=privacy)
    mode = _mode(mode, masks)
    if not deltas:
        raise InputError("deltas holds no client")
    structure = Structure.common(deltas.values())
    layout = _checked_layout(structure, layout)
    ids = {client: index for index, client in enumerate(deltas)}
    check_clients(deltas, masks=masks, weights=weights, dropouts=dropouts, ledgers=ledgers)
    contributions = {
        ids[client]: Contribution(
            structure.arrays(delta, client),
            _declared(layout, (masks or {}).get(client), client, provenance),
            None if weights is None else float(weights[client]),
        )
        for client, delta in deltas.items()
    }
    names = dict(enumerate(deltas))
    _check_inputs(params, layout, contributions, names)
    entropy_of = _entropy(seed)
    session = Session(
        id=entropy_of(None)(ID_BYTES),
        params=params,
        layout=layout,
        mode=mode,
        weighted=weights is not None,
        model_root=model_root,
    )
    cast = _Cast(
        contributions=contributions,
        last_stage={ids[client]: Stage.of(stage) for client, stage in (dropouts or {}).items()},
        ledgers={ids[client]: ledger for client, ledger in (ledgers or {}).items()},
        counting=mode == "uniform" and bool(masks),
        entropy_of=entropy_of,
        observe=observe,
    )
    outcome = cast.play(session, ids.values()) if shards is None else cast.play_shards(session, shards)
    lost = outcome.lost if isinstance(outcome, Combined) else ()
    return Result(
        outcome=outcome,
        stats=cast.stats(names),
        verdict=f"simulation: this process saw every update; {verdict(outcome)}",
        survivors=tuple(names[id_] for id_ in outcome.survivors),
        lost_shards=tuple(replace(one, clients=tuple(names[id_] for id_ in one.clients)) for one in lost),
        unchanged=structure.unchanged,
        _structure=structure,
        _fallback=fallback,
    )


def delta(model_or_state: Any, start: Any) -> Any:
    """What training changed: the update that ``simulate`` takes.

    Args:
        model_or_state: The trained model, or its state.
        start: The state before training (a copy: ``copy.deepcopy(model.state_dict())``), or a model.

    Returns:
        ``model_or_state - start`` in the same form; tied parameters stay tied. Integer tensors, which no session
        aggregates, are carried along as they are after training.

    Raises:
        LayoutMismatchError: Different names, shapes or dtypes.
        InputError: Both share their memory, so that the difference would always be zero.
    """
    after, before = state_of(model_or_state), state_of(start)
    structure = Structure(after, ties_in(after))
    old, new = structure.arrays(before, "start"), structure.arrays(after, "model")
    named, named_before = structure.named(after, "model"), structure.named(before, "start")
    if all(same_memory(named[name], named_before[name]) for name in new if new[name].size):
        raise InputError("start shares its memory with the model: copy.deepcopy(model.state_dict()) before training")
    difference = {name: new[name].astype(np.float64) - old[name] for name in new}
    return structure.build(difference, lambda name: copy.deepcopy(named[name]))


@dataclass(frozen=True, kw_only=True)
class _Cast:
    """Everybody in a round, and what it has cost them so far."""

    contributions: Mapping[int, Contribution]
    last_stage: Mapping[int, Stage]
    ledgers: Mapping[int, Ledger]
    counting: bool
    entropy_of: EntropyOf
    observe: Callable[[bytes], None]
    traffic: driver.Traffic = field(default_factory=driver.Traffic)
    clipped_share: dict[int, float] = field(default_factory=dict)

    def play(self, session: Session, clients: Iterable[int], part: str = "") -> Aggregate:
        """Plays the session of these clients, and the counting before it, whose stages are told as those of a part."""
        here = {id_: self.contributions[id_] for id_ in clients}
        traffic = driver.Traffic()
        if self.counting:
            counted, cost = self._count(session, here)
            session = replace(session, counted=counted)
            traffic.add(cost, "counting: ")
        played = driver.run(
            session,
            here,
            self.last_stage,
            ledgers=self.ledgers,
            entropy_of=self.entropy_of,
            observe=self.observe,
        )
        traffic.add(played.traffic)
        self.traffic.add(traffic, part)
        self.clipped_share.update(played.clipped_share)
        return played.aggregate

    def play_shards(self, session: Session, shards: int) -> Combined:
        """Plays a session in each shard, for the one over everybody.

        Raises:
            ParameterError: There are ledgers, or the settings do not fit.
            AbortError: Every shard aborts.
        """
        if self.ledgers:
            raise ParameterError(
                "a ledger compares the sessions of its client's shard, and each call draws other shards, so that none "
                "sees what totals of one model tell together: leave ledgers out, and start each round from a new model"
            )
        drawn = split(session, self.contributions, shards, self.entropy_of(None)(SEED_BYTES))
        return combine(map(self._end, drawn))

    def _end(self, shard: Shard) -> Aggregate | LostShard:
        try:
            return self.play(shard.session, shard.clients, f"shard {shard.number}: ")
        except ChecksumError:
            raise  # everybody computes rightly here
        except AbortError as error:
            return LostShard(shard.number, shard.clients, str(error), error.opened, error.event)

    def _count(
        self, session: Session, contributions: Mapping[int, Contribution]
    ) -> tuple[CountedCoverage, driver.Traffic]:
        """Plays the counting session that comes before a uniform session of pruned updates."""
        layout = session.layout
        counting = Session(
            id=self.entropy_of(None)(ID_BYTES),
            params=counts.counting_params(session.params),
            layout=counts.counting_layout(layout),
            mode="uniform",
        )
        bits = {id_: Contribution(counts.bits(layout, _mask_of(one))) for id_, one in contributions.items()}
        played = driver.run(counting, bits, entropy_of=self.entropy_of, observe=self.observe)
        least = counts.least_coverage(layout, counting.layout.by_tensor(played.aggregate.sum))
        return CountedCoverage(frozenset(played.aggregate.survivors), least), played.traffic

    def stats(self, names: Mapping[int, Hashable]) -> Stats:
        """What it has cost, told by name."""
        return Stats(
            upload_bytes={names[id_]: count for id_, count in self.traffic.upload_bytes.items()},
            download_bytes={names[id_]: count for id_, count in self.traffic.download_bytes.items()},
            seconds=self.traffic.seconds,
            dropouts={names[id_]: stage for id_, stage in self.last_stage.items() if stage < Stage.UNMASK},
            clipped_share={names[id_]: share for id_, share in self.clipped_share.items()},
        )


def _mode(mode: Mode | None, masks: Masks | None) -> Mode:
    if mode is None:
        if masks:
            raise ParameterError(
                "masks are given: set mode='uniform' (masks stay secret, uploads stay whole) or "
                "mode='mask-indexed' (masks are declared, uploads shrink)"
            )
        return "uniform"
    return mode


def _checked_layout(structure: Structure, layout: Layout | None) -> Layout:
    found = structure.layout
    if layout is None:
        return found
    shapes = {tensor.name: tensor.shape for tensor in found.tensors}
    if {tensor.name: tensor.shape for tensor in layout.tensors} != shapes:
        raise LayoutMismatchError("the layout given names other tensors, or other shapes, than the updates have")
    return layout


def check_clients(deltas: Mapping[Any, Any], **given: Mapping[Any, Any] | None) -> None:
    """Refuses arguments by client, under their names, that name clients without an update; and weights that lack one.

    Raises:
        UnknownClientError: Clients without an update; they are the ``culprits``.
        WeightError: Clients without a weight; likewise.
    """
    for name, keys in given.items():
        unknown = [client for client in keys or () if client not in deltas]
        if unknown:
            raise UnknownClientError(f"{name} names clients without an update: {unknown}", culprits=unknown)
        missing = [client for client in deltas if name == "weights" and keys is not None and client not in keys]
        if missing:
            raise WeightError(f"{name} leaves out clients: {missing}", culprits=missing)


def _declared(layout: Layout, mask: Any, client: Hashable, provenance: Provenance) -> Declaration | None:
    if mask is None or isinstance(mask, Declaration):
        return mask
    return declaration.of_coordinates(layout, mask_vector(layout, mask, client), provenance)


def _mask_of(contribution: Contribution) -> Declaration:
    return contribution.mask if isinstance(contribution.mask, Declaration) else declaration.FULL


def _check_inputs(
    params: Params, layout: Layout, contributions: Mapping[int, Contribution], names: Mapping[int, Hashable]
) -> None:
    """Refuses before the session starts what each client would refuse in the middle of it."""
    for id_, contribution in contributions.items():
        try:
            own = declaration.expand(layout, _mask_of(contribution))
            encoding.check_update(layout, params, contribution.update, own)
            if contribution.weight is not None:
                encoding.encode_weight(params, contribution.weight)
        except InputError as error:
            raise type(error)(f"client {names[id_]}: {error}", culprits=[names[id_]]) from None


def _entropy(seed: bytes | int | None) -> EntropyOf:
    """A source of random bytes for each client and for the server; asked twice, the same source goes on."""
    if seed is None:
        return lambda _: os.urandom
    root = seed if isinstance(seed, bytes) else str(seed).encode()
    sources: dict[int | None, SeededEntropy] = {}
    return lambda id_: sources.setdefault(id_, SeededEntropy(root + b"/" + str(id_).encode()))
