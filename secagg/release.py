"""The release rule, and everything else that follows from who holds what.

A coordinate is released iff at least ``min_cohort + corrupt + D`` clients hold it (and the learning rule's
participation threshold is met), of the n clients that completed ShareKeys. Up to D of them may still drop out, so
every sum that leaves the protocol has ``min_cohort`` honest survivors. Every client computes the plan by itself from
the declarations; nobody takes it from the server.

The vector that travels is the released coordinates in canonical order, then the weight slots: auxiliary coordinates
whose sums are the denominators. They obey the same rule.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from secagg import declaration
from secagg.declaration import Provenance
from secagg.errors import CoverageError, ParameterError, TooFewClientsError, UnmaskRefusedError
from secagg.prg import derive
from secagg.privacy.events import NonPrivate
from secagg.privacy.rotation import padded
from secagg.privacy.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from secagg.declaration import Declaration
    from secagg.messages import Participant
    from secagg.privacy.events import Event
    from secagg.session import Session

Slots = Literal["none", "total", "groups", "coordinates"]
"""Weight slots: none; one that everybody fills; one for each group of equal masks; one for each coordinate and a last
one that everybody fills."""

EXPANSIONS_KEPT = 64
"""Expanded declarations kept at a time, a byte a coordinate each; clients with equal masks share one."""


class Plan:
    """What a session releases, and which places of the vector each client fills.

    Args:
        session: The session.
        needed: Clients without whom nothing can be unmasked (``Topology.needed``).
        participants: The clients that completed ShareKeys, U2.

    Raises:
        TooFewClientsError: U2 is smaller than the thresholds.
        CoverageError: Nothing can be released, or a group of equal masks is too small for hidden weights.
        DecodingError: A declaration does not fit the layout.
    """

    def __init__(self, session: Session, needed: int, participants: Sequence[Participant]) -> None:
        params = session.params
        self.session = session
        self.participants = {participant.id: participant for participant in participants}
        self.clients = tuple(sorted(self.participants))
        n = len(self.clients)
        if n < max(params.privacy_floor, needed):
            holders = "share_threshold or quorum" if params.active else "share_threshold"
            raise TooFewClientsError(
                f"{n} clients completed ShareKeys, but {max(params.privacy_floor, needed)} are needed "
                f"(min_cohort {params.min_cohort} + corrupt {params.corrupt}; {holders} {needed})"
            )
        self._held = lru_cache(maxsize=EXPANSIONS_KEPT)(self._held_of)
        self._places = lru_cache(maxsize=EXPANSIONS_KEPT)(self._places_of)
        self._everywhere = lru_cache(maxsize=EXPANSIONS_KEPT)(lambda declared: bool(self._places(declared).all()))
        self._packed = lru_cache(maxsize=8 * EXPANSIONS_KEPT)(lambda declared: np.packbits(self._places(declared)))
        self.dropouts = params.dropouts_tolerated(n, needed)
        self.fewest_survivors = n - self.dropouts
        self.required = params.coverage_required(n, self.dropouts)
        if not self.released.any():
            raise CoverageError(self.explain_withheld(f"use {self._other_mode}"))
        self.shares = self._noise_shares()
        self.ring = params.ring(n)
        self._check_groups()

    @cached_property
    def coverage(self) -> NDArray[np.int32]:
        """How many clients surely hold each coordinate, (layout.size,) int32."""
        counted = self.session.counted
        if counted is None:
            return declaration.coverage(self.session.layout, map(self._declaration, self.clients))
        missing = len(counted.clients.difference(self.clients))
        least: NDArray[np.int32] = np.maximum(counted.least - np.int32(missing), 0)
        return least

    @cached_property
    def released(self) -> NDArray[np.bool_]:
        """Whether each coordinate is released, (layout.size,) bool."""
        if self._hold_everything(self.clients) >= self.required:
            return np.ones(self.session.layout.size, bool)
        return self.coverage >= self.required

    @cached_property
    def released_count(self) -> int:
        """Number of released coordinates."""
        return int(np.count_nonzero(self.released))

    @property
    def length(self) -> int:
        """Number of places of the full vector: released coordinates, then weight slots; or a rotated vector."""
        return self.released_count + self.slot_count if self.shares is None else len(self.shares.coverage)

    @property
    def slots(self) -> Slots:
        """Which weight slots the vector ends with."""
        session = self.session
        if session.params.exact_denominators:
            return "coordinates"
        if not session.weighted or session.params.weighting == "public":
            return "none"
        if session.mode == "uniform" or session.params.weighting == "average":
            return "total"
        return "groups"

    @property
    def slot_count(self) -> int:
        """Number of weight slots."""
        match self.slots:
            case "none":
                return 0
            case "total":
                return 1
            case "groups":
                return len(self.groups)
            case "coordinates":
                return self.released_count + 1

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The clients grouped by equal released coordinates: what they share is one denominator."""
        groups: dict[bytes, list[int]] = {}
        for client in self.clients:
            groups.setdefault(np.packbits(self.held(client)).tobytes(), []).append(client)
        return tuple(tuple(group) for group in groups.values())

    def values(self, integers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Sums of the released coordinates in the units of the updates, (released_count,) float64.

        Args:
            integers: Sums over the plan's vector, (length,).
        """
        params, tensors = self.session.params, self.session.layout.tensors
        if self.shares is not None:
            return self.shares.decode(integers, self.released_count)
        steps = [params.range_of(tensor.name) / params.magnitude for tensor in tensors]
        worth = np.repeat(steps, [tensor.size for tensor in tensors])[self.released]
        sums: NDArray[np.float64] = integers[: self.released_count] * worth
        return sums

    def largest_sum(self, survivors: int) -> int:
        """The largest magnitude of an integer in the sums over so many clients that computed rightly."""
        return self.ring.largest if self.shares is not None else survivors * self.session.params.magnitude

    def held(self, client: int) -> NDArray[np.bool_]:
        """Which released coordinates a client sends: all in uniform mode. (released_count,) bool."""
        return self._held(self._declaration(client))

    def places(self, client: int) -> NDArray[np.bool_]:
        """Which places of the full vector a client fills, (length,) bool."""
        return self._places(self._declaration(client))

    def packed_places(self, client: int) -> NDArray[np.uint8]:
        """The same as bits (``np.packbits``); clients with equal masks share one array, as long as it is kept."""
        return self._packed(self._declaration(client))

    def overlap(self, client: int, peer: int) -> NDArray[np.bool_] | None:
        """Which of the places that ``client`` fills ``peer`` fills too, in order; None if all of them."""
        mine, theirs = self.places(client), self.places(peer)
        if mine is theirs or self._everywhere(self._declaration(peer)):
            return None
        common = theirs[mine]
        return None if common.all() else common

    def survivors_coverage(self, survivors: Iterable[int]) -> NDArray[np.int32]:
        """How many survivors surely hold each released coordinate, (released_count,) int32."""
        left = self.coverage[self.released]
        for client in set(self.clients).difference(survivors):
            left -= self.held(client)
        return left

    def explain_fewest(self) -> str:
        """``fewest_survivors`` with its reason, for error messages: ``5 (6 clients - max_dropouts 1)``."""
        return f"{self.fewest_survivors} ({len(self.clients)} clients - max_dropouts {self.dropouts})"

    @property
    def dropout_remedy(self) -> str:
        """What would let a session bear more dropouts than this one."""
        if self._bears(self.dropouts + 1):
            return "wait, or raise max_dropouts"
        binding = self.session.params.max_dropouts == self.dropouts
        return "wait, or take more clients" + (" and raise max_dropouts" if binding else "")

    def _bears(self, dropouts: int) -> bool:
        """Whether these clients could lose so many if ``max_dropouts`` were that, and something were still released."""
        n = len(self.clients)
        try:
            more = replace(self.session.params, max_dropouts=dropouts)
            needed = more.topology(n, self.session.mode).needed
        except ParameterError:
            return False
        released = bool(self.coverage.max() >= more.coverage_required(n, dropouts))
        return released and more.dropouts_tolerated(n, needed) >= dropouts

    def check_survivors(self, survivors: Sequence[int]) -> None:
        """Refuses survivors among whom a released place would have fewer than ``min_cohort + corrupt`` holders.

        Raises:
            UnmaskRefusedError: With the reason.
        """
        floor = self.session.params.privacy_floor
        if len(survivors) < self.fewest_survivors:
            raise UnmaskRefusedError(f"{len(survivors)} survivors < {self.explain_fewest()}")
        if self._hold_everything(survivors) < floor and self.survivors_coverage(survivors).min() < floor:
            raise UnmaskRefusedError(f"a released coordinate has fewer than {floor} surviving holders")
        if self.slots == "groups":
            alive = set(survivors)
            if min(len(alive.intersection(group)) for group in self.groups) < floor:
                raise UnmaskRefusedError(f"a weight slot has fewer than {floor} surviving holders")

    def event(self, survivors: Sequence[int] | None = None) -> Event | None:
        """What the session is to whoever accounts for privacy (``PrivacyLedger.record``); None without ``privacy``.

        It has no guarantee where it depends on data beyond what the noise covers: on declarations that were computed
        from data, or on counts.

        Args:
            survivors: Clients in the sums. Default: the fewest that are tolerated, wherever that hurts most.
        """
        if self.shares is None:
            return None
        if self.session.counted is not None:
            return NonPrivate(reason="what is released was decided by counts without noise")
        if any(one.declaration.provenance is Provenance.DATA for one in self.participants.values()):
            return NonPrivate(reason="masks were computed from data, and everybody sees them")
        if survivors is None:
            return self.shares.event(self.shares.coverage - self.dropouts)
        dropped = len(self.clients) - len(survivors)
        if self.session.mode == "uniform":
            return self.shares.event(self.shares.coverage - dropped, dropped)
        return self.shares.event(self.survivors_coverage(survivors), dropped)

    def parts_kept(self, survivors: Sequence[int]) -> int | None:
        """How many parts of everybody's noise stay in the sum over these clients; None where none comes off."""
        if self.shares is None or not self.shares.privacy.remove_surplus:
            return None
        return self.shares.kept(len(self.clients) - len(survivors))

    def explain_withheld(self, *remedies: str) -> str:
        """Why the least covered layer is withheld, and what frees it."""
        least, where = min(
            (int(self.coverage[place].min()), tensor.layer)
            for tensor, place in self.session.layout.slices()
            if tensor.size
        )
        reason = self.session.params.explain_requirement(len(self.clients), self.dropouts)
        by_participation = self.required > self.session.params.privacy_floor + self.dropouts
        knobs = ["lower participation"] if by_participation else ["lower max_dropouts"] * bool(self.dropouts)
        return f"coverage {least} < {reason} for {where}: {' or '.join([*knobs, *remedies])}"

    @property
    def _other_mode(self) -> str:
        return "uniform" if self.session.mode == "mask-indexed" else "mask-indexed"

    def _declaration(self, client: int) -> Declaration:
        return self.participants[client].declaration

    def _held_of(self, declared: Declaration) -> NDArray[np.bool_]:
        held = declaration.expand(self.session.layout, declared)
        return held if self.released_count == len(held) else held[self.released]

    def _places_of(self, declared: Declaration) -> NDArray[np.bool_]:
        if self.session.mode == "uniform":
            return np.ones(self.length, bool)
        held = self._held(declared)
        match self.slots:
            case "none":
                return held
            case "total" | "coordinates":
                return np.concatenate([held, np.ones(self.slot_count, bool)])
            case "groups":
                mine = [any(self._declaration(client) == declared for client in group) for group in self.groups]
                return np.concatenate([held, np.array(mine)])

    def _hold_everything(self, clients: Iterable[int]) -> int:
        """How many of the clients declared that they do; where it is enough, nobody has to look at coordinates.

        None where a uniform session of pruned updates has counted, as everybody declares the same there.
        """
        if self.session.counted is not None:
            return 0
        return sum(self._declaration(client) == declaration.FULL for client in clients)

    def _noise_shares(self) -> Shares | None:
        """Noise for differential privacy; in a uniform session everybody sends every released coordinate."""
        params, n, count = self.session.params, len(self.clients), self.released_count
        privacy = params.privacy
        if privacy is None:
            return None
        if self.session.mode == "mask-indexed":
            return Shares(privacy, n, self.coverage[self.released], self.dropouts, params.corrupt)
        senders = np.full(padded(count) if privacy.rotate else count, n, np.int32)
        rotation = derive(self.session.id, "rotation") if privacy.rotate else b""
        return Shares(privacy, n, senders, self.dropouts, params.corrupt, rotation)

    def _check_groups(self) -> None:
        if self.slots != "groups":
            return
        params = self.session.params
        smallest = min(len(group) for group in self.groups)
        needed = params.privacy_floor + self.dropouts
        if smallest < needed:
            raise CoverageError(
                f"{smallest} clients share one mask, but hidden weights need {needed} (min_cohort {params.min_cohort} "
                f"+ corrupt {params.corrupt} + max_dropouts {self.dropouts}): set weighting='public' (rounded, seen by "
                "everybody) or weighting='average' (hidden, coverage times the mean weight), or leave weights out"
            )
