"""The sums of shards, added up: what a cohort in shards (``shards``) comes to, and what that cost its privacy.

A coordinate that only some shards release is summed over these, and its mean is the mean over their holders: which
those are is as random as the division. Shards are added as they come, so that memory does not grow with their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from secagg.aggregate import Aggregate, Revealed, mean_of
from secagg.errors import AbortError, InputError
from secagg.privacy.events import DiscreteGaussianSum, NonPrivate, SkellamSum

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from secagg.layout import Layout
    from secagg.params import Mode, Params
    from secagg.privacy.events import Event
    from secagg.session import Session

ROUNDING = 1 + 1e-12
"""More than the relative error of computing the bound of ``costliest``."""


@dataclass(frozen=True)
class SummedShard:
    """A shard that is in the sums.

    Args:
        survivors: Its clients that are in them, ascending.
        smallest_group: Fewest of them in any sum that it released.
        event: What its session was to whoever accounts for privacy; None without ``privacy``.
    """

    survivors: tuple[int, ...]
    smallest_group: int
    event: Event | None


@dataclass(frozen=True)
class LostShard:
    """A shard that aborted, and whose clients are left out.

    Args:
        number: Which one.
        clients: Who was in it: ids, or the names that a simulation was given.
        reason: Why, in the words of the error.
        opened: Whether it had asked for shares, so that the server may have seen its sum.
        event: What it cost in that case (``Server.event``); None without ``privacy``.
    """

    number: int
    clients: tuple[Any, ...]
    reason: str
    opened: bool = False
    event: Event | None = None


@dataclass(frozen=True, eq=False)
class Combined:
    """What the shards of a cohort released, over the coordinates of their layout; used as an ``Aggregate`` is.

    Args:
        layout: The layout of the updates.
        mode: Of every shard's session.
        params: Settings of every shard's session.
        shards: Those that are in the sums.
        lost: Those that are not.
        released_by: How many shards released each coordinate, (layout.size,) int32.
        coverage: Clients of the summed shards that declared each coordinate, in shards that withhold it too,
            (layout.size,) int32; None in uniform sessions, where nobody knows.
        sum: Weighted sum over the shards that release a coordinate, in units of weight times value. NaN where none
            does. (layout.size,) float64.
        weight: Total weight behind each coordinate in these shards, zero where none does. (layout.size,) float64.
        total_weight: Total weight of the survivors.
        revealed: What the shards' sessions showed besides their sums, all together.
    """

    layout: Layout = field(repr=False)
    mode: Mode
    params: Params = field(repr=False)
    shards: tuple[SummedShard, ...] = field(repr=False)
    lost: tuple[LostShard, ...]
    released_by: NDArray[np.int32] = field(repr=False)
    coverage: NDArray[np.int32] | None = field(repr=False)
    sum: NDArray[np.float64] = field(repr=False)
    weight: NDArray[np.float64] = field(repr=False)
    total_weight: float
    revealed: Revealed = field(repr=False)

    @property
    def mean(self) -> NDArray[np.float64]:
        """``sum / weight``: the weighted mean over the holders in the shards that release a coordinate, or NaN."""
        return mean_of(self.sum, self.weight)

    @property
    def released(self) -> NDArray[np.bool_]:
        """Whether any shard released a coordinate, (layout.size,) bool."""
        return self.released_by > 0

    @cached_property
    def survivors(self) -> tuple[int, ...]:
        """Clients in the sums, ascending."""
        return tuple(sorted(client for shard in self.shards for client in shard.survivors))

    @property
    def smallest_shard(self) -> int:
        """Fewest survivors of any shard in the sums."""
        return min(len(shard.survivors) for shard in self.shards)

    @property
    def smallest_group(self) -> int:
        """Fewest survivors in any sum that any shard released."""
        return min(shard.smallest_group for shard in self.shards)

    @property
    def event(self) -> Event | None:
        """What the round cost each client, to be recorded once (``PrivacyLedger.record``); see ``costliest``."""
        return _of_all([shard.event for shard in self.shards] + [shard.event for shard in self.lost])


Outcome: TypeAlias = Aggregate | Combined
"""What a round released, played by a whole cohort or in shards."""


def combine(ends: Iterable[Aggregate | LostShard]) -> Combined:
    """Adds up what shards released.

    Args:
        ends: How each shard ended: ``Server.outcome``, or that it aborted. Read once, one after the other.

    Raises:
        InputError: Sessions that do not belong together, or a client in two shards.
        AbortError: No shard released anything; ``opened`` and ``event`` say what it cost all the same.
    """
    total, lost, clients = None, list[LostShard](), set[int]()
    for end in ends:
        own = end.clients if isinstance(end, LostShard) else end.plan.clients
        if not clients.isdisjoint(own):
            raise InputError("a client is in two shards")
        clients.update(own)
        if isinstance(end, LostShard):
            lost.append(end)
            continue
        total = total or _Total.before(end)
        total.add(end)
    if total is None:
        reasons = "; ".join(f"shard {one.number}: {one.reason}" for one in lost)
        error = AbortError(f"no shard released anything: {reasons or 'there is none'}")
        error.opened = any(one.opened for one in lost)
        error.event = _of_all(one.event for one in lost)
        raise error
    return Combined(
        layout=total.session.layout,
        mode=total.session.mode,
        params=total.session.params,
        shards=tuple(total.shards),
        lost=tuple(lost),
        released_by=total.released_by,
        coverage=total.coverage,
        sum=np.where(total.released_by > 0, total.sum, np.nan),
        weight=total.weight,
        total_weight=total.total_weight,
        revealed=total.revealed,
    )


def costliest(events: Sequence[Event]) -> Event:
    """One event that costs no less than any of these, of which each client went through one.

    A client is in one shard, by a division that no update has a say in. So runs that differ in its update differ in
    that shard's sum only, and what all sums together tell of it is what that one does: parallel composition. Which
    shard that is differs from client to client and round to round, so a ledger for all of them takes a bound.

    No single shard need be the worst. With fewer survivors one has less noise, with more clients another has a coarser
    grid, and either may be worse at some order and better at the next. But the curve of a noisy sum (``rdp``) grows
    with its norms over its standard deviation, at fixed ratios with a smaller variance, with the number and narrowness
    of the shares of noise, and with the dimension. So an event with the worst of each costs as much as any of them at
    every order; where shards differ by a few survivors, its epsilon is at most a millionth above the worst of theirs.

    Args:
        events: At least one. Where any has no guarantee, neither has the round.

    Raises:
        InputError: Events of different mechanisms, or of one that no session has.
    """
    unguarded = [one for one in events if isinstance(one, NonPrivate)]
    skellam = [one for one in events if isinstance(one, SkellamSum)]
    gaussian = [one for one in events if isinstance(one, DiscreteGaussianSum)]
    if unguarded:
        return unguarded[0]
    if len(set(events)) == 1:
        return events[0]
    if len(skellam) == len(events):
        l1, l2, variance = _worst_norms(skellam)
        return SkellamSum(
            l1=l1,
            l2=l2,
            variance=variance,
            dimension=max(one.dimension for one in skellam),
            sampler_error=max(one.sampler_error for one in skellam),
        )
    if len(gaussian) == len(events):
        l1, l2, variance = _worst_norms(gaussian)
        return DiscreteGaussianSum(
            l1=l1,
            l2=l2,
            variance=variance,
            local_std=min(one.local_std for one in gaussian),
            contributors=max(one.contributors for one in gaussian),
            dimension=max(one.dimension for one in gaussian),
            sampler_error=max(one.sampler_error for one in gaussian),
        )
    raise InputError("shards with noise of different mechanisms are no round")


def _of_all(events: Iterable[Event | None]) -> Event | None:
    known = [event for event in events if event is not None]
    return costliest(known) if known else None


def _worst_norms(events: Sequence[SkellamSum] | Sequence[DiscreteGaussianSum]) -> tuple[float, float, float]:
    """L1, L2 and variance: the smallest variance, and over its root each norm as in the event where that is largest."""
    variance = min(one.variance for one in events)
    if not variance:
        return max(one.l1 for one in events), max(one.l2 for one in events), variance
    std = ROUNDING * math.sqrt(variance)
    l1 = max(one.l1 / math.sqrt(one.variance) for one in events) * std
    l2 = max(one.l2 / math.sqrt(one.variance) for one in events) * std
    return l1, l2, variance


@dataclass
class _Total:
    """The shards added so far."""

    session: Session
    revealed: Revealed
    sum: NDArray[np.float64]
    weight: NDArray[np.float64]
    released_by: NDArray[np.int32]
    coverage: NDArray[np.int32] | None
    total_weight: float = 0.0
    shards: list[SummedShard] = field(default_factory=list)

    @classmethod
    def before(cls, shard: Aggregate) -> _Total:
        """No shard, where those to come are like this one."""
        size = shard.layout.size
        return cls(
            session=shard.plan.session,
            revealed=replace(shard.revealed, masks="nothing", from_data=0),
            sum=np.zeros(size),
            weight=np.zeros(size),
            released_by=np.zeros(size, np.int32),
            coverage=None if shard.coverage is None else np.zeros(size, np.int32),
        )

    def add(self, shard: Aggregate) -> None:
        """Adds a shard.

        Raises:
            InputError: Its session has other settings.
        """
        if _in_common(shard.plan.session) != _in_common(self.session):
            raise InputError("the shards of a round differ in settings, layout, mode, weights, model root or context")
        np.add(self.sum, shard.sum, out=self.sum, where=shard.released)
        self.weight += shard.weight
        self.released_by += shard.released
        if self.coverage is not None and shard.coverage is not None:
            self.coverage += shard.coverage
        self.total_weight += shard.total_weight
        self.shards.append(SummedShard(shard.survivors, shard.smallest_group, shard.event))
        if shard.revealed.masks != "nothing":
            self.revealed = replace(self.revealed, masks=shard.revealed.masks)
        self.revealed = replace(self.revealed, from_data=self.revealed.from_data + shard.revealed.from_data)


def _in_common(session: Session) -> tuple[object, ...]:
    return (
        session.params.digest,
        session.layout.digest,
        session.mode,
        session.weighted,
        session.model_root,
        session.context,
    )
