"""A client's side of a running sum: what is in the sum from it, and what it adds at its next arrival.

The client remembers c, what is in the sum from it, and rounds the difference from it to the session's grid by itself.
So c = decay^age * c_old + difference is exact, rounding never accumulates, and c is always within half a unit (value
range / magnitude) of what it stands for. c changes only by sums that include it: for survivors, and only where the
coordinate was released; elsewhere the old contribution stays, and ages. Clipping comes before the difference, which
therefore reaches twice as far as a value: one more bit of the ring.

A client declares what it holds now, and no more. What it no longer holds it leaves in the sum, to age there (at decay 1
for good): a client that only took an old value out would count as a holder and hide nobody, since the server has seen
that value in a sum already. So wherever a flush releases anything, a cohort brings values that no sum had before.

A client that leaves after its input cannot know whether it was counted, and a session may break off after it announced
its survivors. So a client makes no other offer before it has the receipt (the survivors, signed where the server is
active, of a session that ended) or knows that the flush is lost. A lost flush that is tried again repeats its vectors:
give all tries one model root, so that ledgers compare them, and each flush another.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from protocols.aggregators import FixedPoint, MaskIndexed
from secagg import encoding
from secagg.errors import InputError, LayoutMismatchError, LocalProtocolError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from protocols.federation import Memory
    from pruning.masks import Mask
    from secagg.layout import Layout
    from secagg.params import Params

Indexed: TypeAlias = MaskIndexed | FixedPoint
"""A mask-indexed session, or its twin in the clear."""

NEVER = -1
"""Stands for the flush of a contribution that is not there."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What the clients and the server of one running sum agree on.

    Args:
        layout: The order of the coordinates.
        params: The settings as for sessions of single updates: ``value_range`` and ``levels`` are those of an update.
        decay: What a contribution is multiplied by with every flush, in (0, 1] (``Staleness.factor``).

    Raises:
        ParameterError: ``decay`` is outside its domain, or ``levels`` leaves no room for another bit.
    """

    layout: Layout
    params: Params
    decay: float

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ParameterError(
                "decay must be in (0, 1]: take Staleness.factor, which refuses what one running sum cannot re-weight"
            )
        _ = self.session

    @cached_property
    def session(self) -> Params:
        """The settings of the sessions: values reach twice as far in twice as many steps, so the unit stays."""
        ranges = self.params.value_range
        doubled = 2 * ranges if isinstance(ranges, float) else {name: 2 * limit for name, limit in dict(ranges).items()}
        return replace(self.params, value_range=doubled, levels=4 * self.params.magnitude + 1, out_of_range="refuse")

    @cached_property
    def unit(self) -> NDArray[np.float64]:
        """The step of the grid at every coordinate, (layout.size,) float64."""
        sizes = [tensor.size for tensor in self.layout.tensors]
        return np.repeat([self.params.range_of(tensor.name) for tensor in self.layout.tensors], sizes) / (
            self.params.magnitude
        )

    def aggregator(self, *, encrypted: bool = True) -> Indexed:
        """What its flushes go through: sessions, or their twin in the clear."""
        session = MaskIndexed(self.layout, self.session)
        return session if encrypted else session.twin

    def check_batch(self, clients: int) -> None:
        """Refuses flushes of so few clients that no coordinate could be released with all its dropouts borne.

        Raises:
            ParameterError: They are; the message names the settings.
        """
        params = self.params
        lost = clients // 3 if params.max_dropouts is None else params.max_dropouts
        if clients < params.privacy_floor + lost:
            raise ParameterError(
                f"a flush of {clients} clients is smaller than {params.privacy_floor + lost} (min_cohort "
                f"{params.min_cohort} + corrupt {params.corrupt} + max_dropouts {lost}): flush more arrivals together, "
                "or lower one of these"
            )


@dataclass(frozen=True)
class Notice:
    """What the server is told of an arrival beside the session.

    Args:
        mask: What the client holds now: what it declares to the session.
        start: Number of the flush before which it fetched the model that its update starts from: its age counts from
            there.
    """

    mask: Mask
    start: int


@dataclass(frozen=True, eq=False)
class Offer:
    """What a client brings to one flush.

    Args:
        flush: Its number.
        notice: What the server is told.
        steps: The difference in units of the grid, whole numbers. Secret. (layout.size,) float64.
        update: The same in values, by tensor name, as ``Aggregator.aggregate`` takes it. Secret.
        since: Flush of the state that the difference was taken from.
    """

    flush: int
    notice: Notice
    steps: NDArray[np.float64] = field(repr=False)
    update: Mapping[str, torch.Tensor] = field(repr=False)
    since: int


class Contributor:
    """A client's side: what is in the running sum from it.

    Args:
        agreement: What everybody agreed on.
    """

    _flush: int
    _steps: NDArray[np.float64]

    def __init__(self, agreement: Agreement) -> None:
        self.agreement = agreement
        self.recall({})

    @property
    def contribution(self) -> NDArray[np.float64]:
        """What was in the sum from this client after the last flush that it settled, (layout.size,) float64."""
        return self._steps * self.agreement.unit

    def offer(self, update: NDArray[np.float64], mask: Mask, flush: int, start: int | None = None) -> Offer:
        """The difference between an update and what is in the sum already. Changes nothing.

        Args:
            update: The latest update, (layout.size,) float64; ignored outside the mask.
            mask: What the client holds.
            flush: Number of the coming flush, as the server counts (``RunningSum.number``).
            start: That number when the client fetched the model that the update starts from; by default ``flush``.

        Raises:
            LayoutMismatchError: The update or the mask belong to another layout.
            NotFiniteError: NaN or infinity within the mask.
            OutOfRangeError: A value beyond ``value_range``, unless ``out_of_range`` is ``"saturate"``, which clips it.
            InputError: ``start`` is not from 0 to ``flush``.
            LocalProtocolError: The client has settled this flush already.
        """
        notice = Notice(mask, flush if start is None else start)
        if not 0 <= notice.start <= flush:
            raise InputError(f"start must be from 0 to the number of the flush, {flush}, not {start}")
        if flush <= self._flush:
            raise LocalProtocolError(f"flush {flush} does not come after flush {self._flush}, which is settled")
        if mask.layout != self.agreement.layout:
            raise LayoutMismatchError("the mask belongs to another layout than the running sum")
        largest = self.agreement.session.magnitude
        fresh = self._clipped(update, mask) * self.agreement.decay ** (flush - notice.start)
        steps = np.clip(np.rint(fresh - self._aged(flush)), -largest, largest)
        steps[~mask.coordinates] = 0.0
        return Offer(flush, notice, steps, self._values(steps), self._flush)

    def settle(self, offer: Offer, released: NDArray[np.bool_]) -> None:
        """Notes that an offer is in the sum. To be called on the receipt: the client is among the survivors.

        Args:
            offer: The offer. One that got lost is simply forgotten.
            released: Which coordinates were released, (layout.size,) bool.

        Raises:
            LocalProtocolError: The contribution has changed since the offer was made.
            LayoutMismatchError: Another number of bools than of coordinates.
        """
        if offer.since != self._flush:
            raise LocalProtocolError("the contribution has changed since this offer was made: make another")
        if released.dtype != np.bool_ or released.shape != self._steps.shape:
            raise LayoutMismatchError(f"released must be {len(self._steps)} bools, one a coordinate")
        steps = self._aged(offer.flush)
        steps[released] += offer.steps[released]
        self._steps, self._flush = steps, offer.flush

    def remember(self) -> Memory:
        """Its state, the contribution included: for the client's own disk only."""
        return {"flush": self._flush, "steps": torch.from_numpy(self._steps.copy())}

    def recall(self, memory: Memory) -> None:
        """Takes up where ``remember`` left off; an empty memory is a beginning."""
        nothing = torch.zeros(self.agreement.layout.size, dtype=torch.float64)
        self._flush = int(memory.get("flush", NEVER))
        self._steps = memory.get("steps", nothing).numpy().copy()

    def _aged(self, flush: int) -> NDArray[np.float64]:
        """What will be left of the contribution when a flush comes, in units; a copy."""
        age = 0 if self._flush == NEVER else flush - self._flush
        return self._steps * self.agreement.decay**age

    def _clipped(self, update: NDArray[np.float64], mask: Mask) -> NDArray[np.float64]:
        """The update in units, clipped, and zero outside the mask."""
        layout, params, own = self.agreement.layout, self.agreement.params, mask.coordinates
        if update.shape != (layout.size,):
            raise LayoutMismatchError(f"an update must have {layout.size} coordinates, not shape {update.shape}")
        encoding.check_update(layout, params, layout.by_tensor(update), own)
        unit, fresh = self.agreement.unit[own], np.zeros(layout.size)
        fresh[own] = np.clip(update[own], -params.magnitude * unit, params.magnitude * unit) / unit
        return fresh

    def _values(self, steps: NDArray[np.float64]) -> dict[str, torch.Tensor]:
        """Steps as values. Divided first, so that the largest step is the value range to the bit, and never beyond."""
        params = self.agreement.session
        return {
            name: torch.from_numpy(of_tensor / params.magnitude * params.range_of(name))
            for name, of_tensor in self.agreement.layout.by_tensor(steps).items()
        }
