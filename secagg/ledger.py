"""What a client remembers of its past sessions, so that no few of them together say what none says alone.

Two sums over the same updates whose groups differ in a few clients are, subtracted, a sum over those few. So before a
client unmasks, it compares the survivors of every coordinate with those of the sessions before, and refuses where the
difference would be over fewer than ``min_cohort + corrupt`` clients; and where all sessions together, as linear
equations, have a single client's update as their solution. What it knows is public: who survived and who held what.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import msgspec
import numpy as np

from secagg.errors import DecodingError, DifferencingError, LocalProtocolError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from secagg.release import Plan

Scope = Literal["model", "all"]

WITHHELD = -1


@dataclass(frozen=True, eq=False)
class Entry:
    """One session that this client unmasked.

    Args:
        model: Its model root.
        layout: Digest of its layout.
        groups: The different sets of clients that a released coordinate is summed over.
        group_of: For each coordinate the number of its group, or ``WITHHELD``, (layout.size,) int32.
    """

    model: bytes
    layout: bytes
    groups: tuple[frozenset[int], ...]
    group_of: NDArray[np.int32]

    @classmethod
    def of(cls, plan: Plan, survivors: Sequence[int]) -> Entry:
        """What a session over these survivors would release."""
        held = np.array([plan.held(client) for client in survivors])
        packed = np.ascontiguousarray(np.packbits(held, axis=0).T)
        patterns, numbers = np.unique(packed.view(f"V{packed.shape[1]}").reshape(-1), return_inverse=True)
        bits = np.unpackbits(patterns.view(np.uint8).reshape(len(patterns), -1), axis=1)[:, : len(survivors)]
        group_of = np.full(len(plan.released), WITHHELD, np.int32)
        group_of[plan.released] = numbers
        groups = tuple(frozenset(np.array(survivors, object)[row.astype(bool)].tolist()) for row in bits)
        return cls(plan.session.model_root, plan.session.layout.digest, groups, group_of)


class Ledger:
    """The memory of one client over its sessions; hand the same one to every ``Client``.

    Args:
        scope: ``"model"``: only sessions that start from the same model are compared, because there a client that is
            asked again sends the same update; sessions without a model root count as one model. ``"all"``: all of
            them that have its layout, for updates that hardly change from round to round. That refuses most rounds in
            which somebody drops out; ``refused`` tells how many.

    Raises:
        ParameterError: Another scope.
    """

    def __init__(self, scope: Scope = "model") -> None:
        if scope not in get_args(Scope):
            raise ParameterError(f"scope must be one of {get_args(Scope)}, not {scope!r}")
        self.scope: Scope = scope
        self._ids: set[bytes] = set()
        self._refused: set[bytes] = set()
        self._entries: list[Entry] = []

    def __repr__(self) -> str:
        return f"Ledger(scope={self.scope!r}, unmasked={self.unmasked}, refused={self.refused})"

    @property
    def unmasked(self) -> int:
        """Sessions that this client unmasked."""
        return len(self._entries)

    @property
    def refused(self) -> int:
        """Sessions that it refused to: what the protection costs."""
        return len(self._refused)

    def open(self, session_id: bytes) -> None:
        """Notes that a session begins.

        Raises:
            LocalProtocolError: It has begun before: its keys and masks would not be fresh to those who watched.
        """
        if session_id in self._ids:
            raise LocalProtocolError("this session id was used before: a session is used once, make a new one")
        self._ids.add(session_id)

    def check(self, plan: Plan, survivors: Sequence[int]) -> None:
        """Refuses a session that together with those before would isolate too few clients.

        Raises:
            DifferencingError: It would.
        """
        try:
            self._check(plan, Entry.of(plan, survivors))
        except DifferencingError:
            self._refused.add(plan.session.id)
            raise

    def _check(self, plan: Plan, entry: Entry) -> None:
        floor = plan.session.params.privacy_floor
        smallest = min((len(few) for few in self._isolated(entry)), default=floor)
        if smallest < floor:
            past = "of the same model" if self.scope == "model" else "in the ledger"
            raise DifferencingError(
                f"with earlier sessions {past}, this one would isolate {smallest} clients < {floor}: leave it out"
                + (", or start the next from a new model" if self.scope == "model" else "")
            )

    def record(self, plan: Plan, survivors: Sequence[int]) -> None:
        """Notes that this client has unmasked a session."""
        self._entries.append(Entry.of(plan, survivors))

    def _isolated(self, entry: Entry) -> Iterator[frozenset[int]]:
        """The sets of clients over which the past and this session, combined, give a sum."""
        past = [one for one in self._entries if self.scope == "all" or one.model == entry.model]
        if any(one.layout != entry.layout for one in past if one.model == entry.model):
            raise DifferencingError(
                "an earlier session of the same model had another layout, so that their sums cannot be compared: leave "
                "this one out, or set model_root"
            )
        past = [one for one in past if one.layout == entry.layout]
        for one in past:
            both = (one.group_of != WITHHELD) & (entry.group_of != WITHHELD)
            for old, new in np.unique(np.stack([one.group_of[both], entry.group_of[both]]), axis=1).T:
                if one.groups[old] != entry.groups[new]:
                    yield one.groups[old] ^ entry.groups[new]
        if len(past) > 1:
            yield from _solved([*past, entry])

    def to_bytes(self) -> bytes:
        """The ledger, to keep it from run to run."""
        entries = [
            (one.model, one.layout, [sorted(group) for group in one.groups], one.group_of.astype("<i4").tobytes())
            for one in self._entries
        ]
        content = (self.scope, sorted(self._ids), sorted(self._refused), entries)
        return zlib.compress(msgspec.msgpack.encode(content))

    @classmethod
    def from_bytes(cls, data: bytes) -> Ledger:
        """Inverse of ``to_bytes``.

        Raises:
            DecodingError: No ledger.
        """
        try:
            kept = msgspec.msgpack.decode(zlib.decompress(data), type=_Kept)
        except (zlib.error, msgspec.DecodeError):
            raise DecodingError("not a ledger") from None
        scope, ids, refused, entries = kept
        ledger = cls(scope)
        ledger._ids, ledger._refused = set(ids), set(refused)
        ledger._entries = [
            Entry(model, layout, tuple(map(frozenset, groups)), np.frombuffer(group_of, "<i4").astype(np.int32))
            for model, layout, groups, group_of in entries
        ]
        return ledger


_Kept = tuple[Scope, list[bytes], list[bytes], list[tuple[bytes, bytes, list[list[int]], bytes]]]


def _solved(entries: Sequence[Entry]) -> Iterator[frozenset[int]]:
    """Clients whose own update is a linear combination of the sums, coordinate by coordinate."""
    clients = sorted(frozenset().union(*(group for one in entries for group in one.groups)))
    for numbers in np.unique(np.stack([one.group_of for one in entries]), axis=1).T:
        sums = [one.groups[number] for one, number in zip(entries, numbers, strict=True) if number != WITHHELD]
        if len(sums) < 3:
            continue
        equations = np.array([[client in group for client in clients] for group in sums], float)
        _, singular, directions = np.linalg.svd(equations, full_matrices=False)
        seen = directions[singular > singular[0] * max(equations.shape) * np.finfo(float).eps]
        # A unit vector lies in the row space iff its projection onto it has its full length.
        for place in np.flatnonzero((seen**2).sum(axis=0) > 1 - np.sqrt(np.finfo(float).eps)):
            yield frozenset({clients[place]})
