"""What a client remembers of the sessions it agreed to, so that they do not tell together what none says alone.

Two sums over the same updates whose groups differ in a few clients are, subtracted, a sum over those few. So before a
client agrees to a session, it takes the sums that it agreed to before off the new ones, with all coefficients
(``isolation``), and refuses where a sum over fewer than ``min_cohort + corrupt`` clients would be left. Sums are
compared where they are sums of the same unknowns: of the clients' values at one coordinate, or of their weights. What
the ledger knows is public: who survived, who held what, and how they are weighted.

An unknown is what a client sends, its weight included. That it is the same from session to session is its own part: a
client that is asked again for the same model sends the same update with the same weight. Public weights that
changed are seen, and refused; hidden ones are not seen.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import msgspec
import numpy as np

from secagg.errors import DecodingError, DifferencingError, LocalProtocolError, ParameterError
from secagg.isolation import fewest_isolated
from secagg.messages import ClientId, Digest, SessionId, write_bitmap
from secagg.session import ROOT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from secagg.release import Plan
    from secagg.session import Session

Scope = Literal["model", "all"]
Root = Annotated[bytes, msgspec.Meta(max_length=ROOT_BYTES)]

VERSION = 1
HIDDEN, EVEN = -1, 0
"""What stands for a weight that only its client knows, and for no weights at all."""
WITHHELD = -1
"""What stands for the group of a coordinate that is not released."""
NOBODY = 0
"""The sum over nobody, as an integer without bits."""
PIECE = 8192
"""Runs of coordinates that are compared at a time: bounds the memory that masks without any structure take."""


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one session releases: over whom every coordinate, and every weight slot, is summed.

    Args:
        model: Its model root.
        layout: Digest of its layout.
        survivors: Ascending.
        weights: Of each survivor: its public bucket, ``HIDDEN`` or ``EVEN``.
        groups: The groups that coordinates are summed over, ascending bitmaps over the survivors on end.
        runs: Coordinates from the first to before the second number belong to the group of the third, and those in no
            run are withheld. (runs, 3) little-endian int64.
        slots: The groups that hidden weights are summed over, as ``groups``.
    """

    model: Root
    layout: Digest
    survivors: tuple[ClientId, ...]
    weights: tuple[Annotated[int, msgspec.Meta(ge=HIDDEN, le=127)], ...]
    groups: bytes
    runs: bytes
    slots: bytes

    @classmethod
    def of(cls, plan: Plan, survivors: Sequence[int]) -> Entry:
        """What a session over these survivors, ascending, would release."""
        session = plan.session
        groups, runs = _grouped(plan, survivors)
        return cls(
            session.model_root,
            session.layout.digest,
            tuple(survivors),
            tuple(_weight(plan, client) for client in survivors),
            groups,
            runs,
            b"".join(sorted({write_bitmap(group, survivors) for group in _weighed_together(plan)})),
        )

    @property
    def start(self) -> tuple[bytes, bytes]:
        """The model that the session starts from, as far as it is known: root and layout."""
        return self.model, self.layout

    def check(self) -> None:
        """Refuses what ``of`` cannot make.

        Raises:
            DecodingError: It cannot.
        """
        runs = self._runs() if len(self.runs) % 24 == 0 else np.zeros((0, 3), np.int64)
        numbers = np.unique(runs[:, 2])
        bounds = runs[:, :2].reshape(-1)
        touching = (runs[1:, 0] == runs[:-1, 1]) & (runs[1:, 2] == runs[:-1, 2])
        holds = (
            len(self.model) in (0, ROOT_BYTES)
            and _ascending(self.survivors)
            and len(self.weights) == len(self.survivors)
            and self._are_bitmaps(self.groups)
            and self._are_bitmaps(self.slots)
            and len(runs) > 0
            and bounds[0] >= 0
            and bool((runs[:, 0] < runs[:, 1]).all() and (bounds[1:] >= bounds[:-1]).all())
            and not touching.any()
            and np.array_equal(numbers, np.arange(len(self.groups) // self._width))
        )
        if not holds:
            raise DecodingError("an entry of a ledger is malformed")

    def group_at(self, coordinates: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the group that each of these coordinates is summed over, or ``WITHHELD``."""
        runs = self._runs()
        run = np.searchsorted(runs[:, 0], coordinates, side="right") - 1
        return np.where((run >= 0) & (coordinates < runs[run, 1]), runs[run, 2], WITHHELD)

    def bounds(self) -> NDArray[np.int64]:
        """Where runs begin and end."""
        return self._runs()[:, :2].reshape(-1)

    def sums(self, numbers: NDArray[np.int64], clients: Sequence[int]) -> list[int]:
        """The groups of these numbers as integers whose bits are the clients, some of whom survived."""
        return self._over(clients, self._bits(self.groups, numbers) & (numbers != WITHHELD)[:, None])

    def weight_sums(self, clients: Sequence[int]) -> list[int]:
        """The groups of all weight slots, likewise."""
        return self._over(clients, self._bits(self.slots))

    @property
    def _width(self) -> int:
        return -(-len(self.survivors) // 8)

    def _runs(self) -> NDArray[np.int64]:
        return np.frombuffer(self.runs, "<i8").reshape(-1, 3)

    def _bits(self, bitmaps: bytes, numbers: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.uint8]:
        return np.unpackbits(np.frombuffer(bitmaps, np.uint8).reshape(-1, self._width)[numbers], axis=1)

    def _over(self, clients: Sequence[int], bits: NDArray[np.uint8]) -> list[int]:
        among = np.zeros((len(bits), len(clients)), np.uint8)
        among[:, np.searchsorted(clients, self.survivors)] = bits[:, : len(self.survivors)]
        return [int.from_bytes(row.tobytes()) for row in np.packbits(among, axis=1)]

    def _are_bitmaps(self, data: bytes) -> bool:
        width = self._width
        if not width or len(data) % width or self._bits(data)[:, len(self.survivors) :].any():
            return False
        return _ascending([data[start : start + width] for start in range(0, len(data), width)])


class Ledger:
    """The memory of one client over its sessions; hand the same one to every ``Client``, and keep it before sending.

    Args:
        scope: ``"model"``: only sessions that start from the same model are compared, because there a client that is
            asked again sends the same update; a session without a model root may start from any model of its layout.
            ``"all"``: values of all sessions that have the same layout, and weights of all sessions, for updates that
            hardly change from round to round and weights that never do. That refuses most rounds in which somebody
            drops out; ``refused`` tells how many.

    Raises:
        ParameterError: Another scope.
    """

    def __init__(self, scope: Scope = "model") -> None:
        if scope not in get_args(Scope):
            raise ParameterError(f"scope must be one of {get_args(Scope)}, not {scope!r}")
        self.scope: Scope = scope
        self._ids: set[bytes] = set()
        self._agreed: set[bytes] = set()
        self._refused: set[bytes] = set()
        self._pending: dict[bytes, tuple[bytes, bytes]] = {}
        self._entries: dict[Entry, None] = {}

    def __repr__(self) -> str:
        return f"Ledger(scope={self.scope!r}, agreed={self.agreed}, refused={self.refused})"

    @property
    def agreed(self) -> int:
        """Sessions whose release this client agreed to."""
        return len(self._agreed)

    @property
    def refused(self) -> int:
        """Sessions that it refused: what the protection costs."""
        return len(self._refused - self._agreed)

    @property
    def pending(self) -> tuple[bytes, ...]:
        """Ids of the sessions that this client sent its vector to and did not unmask: what ``abandon`` takes."""
        return tuple(sorted(self._pending))

    def open(self, session_id: bytes) -> None:
        """Notes that a session begins.

        Raises:
            LocalProtocolError: It has begun before: its keys and masks would not be fresh to those who watched.
        """
        if session_id in self._ids:
            raise LocalProtocolError("this session id was used before: a session is used once, make a new one")
        self._ids.add(session_id)

    def send(self, session: Session) -> None:
        """Notes that this client's vector is about to leave.

        From then on the sum may be released behind this client's back, over survivors that it never hears of: because
        its connection broke, or because an active server told it of others. So until they are known (``settle``),
        nothing else that starts from the same model can be compared with this session.

        Raises:
            DifferencingError: There is such a session already.
        """
        start = (session.model_root, session.layout.digest)
        if any(self.scope == "all" or _may_be_one_model(start, other) for other in self._pending.values()):
            self._refused.add(session.id)
            raise DifferencingError(
                "an earlier session that this client sent its vector to did not end here, and may have been released "
                "all the same: start from a new model, or abandon that session if you know that it was not"
            )
        self._pending[session.id] = start

    def agree(self, plan: Plan, survivors: Sequence[int]) -> None:
        """Notes that this client agrees to the release of a session: from now on it may happen.

        Raises:
            DifferencingError: Together with those before it would isolate too few clients, or it cannot be compared
                with them. It is not noted then.
        """
        entry = Entry.of(plan, survivors)
        try:
            self._compare(entry, plan.session.params.privacy_floor)
        except DifferencingError:
            self._refused.add(plan.session.id)
            raise
        self._agreed.add(plan.session.id)
        self._entries[entry] = None

    def settle(self, session_id: bytes) -> None:
        """Notes that a session, if it is released at all, is so over the survivors that this client agreed to."""
        self._pending.pop(session_id, None)

    def abandon(self, session_id: bytes) -> None:
        """Forgets that a session did not end, for those who know that it was never released."""
        self._pending.pop(session_id, None)

    def to_bytes(self) -> bytes:
        """The ledger, to keep it from run to run."""
        entries = sorted(self._entries, key=msgspec.msgpack.encode)
        pending = sorted(self._pending.items())
        kept = _Kept(self.scope, sorted(self._ids), sorted(self._agreed), sorted(self._refused), pending, entries)
        return bytes([VERSION]) + msgspec.msgpack.encode(kept)

    @classmethod
    def from_bytes(cls, data: bytes) -> Ledger:
        """Inverse of ``to_bytes``.

        Raises:
            DecodingError: No ledger, or none in the form that ``to_bytes`` gives it.
        """
        if not data or data[0] != VERSION:
            raise DecodingError(f"not a ledger of version {VERSION}")
        try:
            kept = msgspec.msgpack.decode(memoryview(data)[1:], type=_Kept)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise DecodingError("not a ledger") from None
        for entry in kept.entries:
            entry.check()
        ledger = cls(kept.scope)
        ledger._ids, ledger._agreed, ledger._refused = set(kept.ids), set(kept.agreed), set(kept.refused)
        ledger._pending, ledger._entries = dict(kept.pending), dict.fromkeys(kept.entries)
        if ledger.to_bytes() != data:
            raise DecodingError("ledger is not in canonical form")
        return ledger

    def _compare(self, entry: Entry, floor: int) -> None:
        past = [one for one in self._entries if self.scope == "all" or _may_be_one_model(one.start, entry.start)]
        if not past:
            return
        said = "of the same model" if self.scope == "model" else "in the ledger"
        if any(one.layout != entry.layout for one in past if one.model == entry.model):
            raise DifferencingError(
                "an earlier session of the same model had another layout, so that their sums cannot be compared: leave "
                "this one out, or set model_root"
            )
        alike = [one for one in past if one.layout == entry.layout]
        if not all(_weighted_alike(one, entry) for one in alike):
            raise DifferencingError(
                f"an earlier session {said} weighted the clients otherwise, so that their sums cannot be compared: "
                "leave this one out"
            )
        smallest = fewest_isolated(_values(alike, entry), floor)
        smallest = fewest_isolated(_weight_slots(past, entry), smallest)
        if smallest < floor:
            raise DifferencingError(
                f"with earlier sessions {said}, this one would isolate {smallest} clients < {floor}: leave it out"
                + (", or start the next from a new model" if self.scope == "model" else "")
            )


class _Kept(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    scope: Scope
    ids: list[SessionId]
    agreed: list[SessionId]
    refused: list[SessionId]
    pending: list[tuple[SessionId, tuple[Root, Digest]]]
    entries: list[Entry]


def _values(past: Sequence[Entry], entry: Entry) -> Iterator[tuple[frozenset[int], int]]:
    """At every coordinate that the new session releases: the past sums, and the new one."""
    clients = _everybody(past, entry)
    sessions = [entry, *past]
    bounds = np.sort(np.concatenate([one.bounds() for one in sessions]), kind="stable")
    bounds = bounds[np.diff(bounds, prepend=-1) > 0]
    for start in range(0, len(bounds), PIECE):
        # Between two bounds nothing changes, so that the coordinate at each bound stands for all up to the next.
        numbers = np.stack([one.group_at(bounds[start : start + PIECE]) for one in sessions])
        numbers = numbers[:, numbers[0] != WITHHELD]
        different = np.array(list(set(zip(*numbers.tolist(), strict=True))), np.int64).reshape(-1, len(sessions))
        sums = [one.sums(column, clients) for one, column in zip(sessions, different.T, strict=True)]
        for new, *old in zip(*sums, strict=True):
            yield frozenset(old) - {NOBODY}, new


def _weight_slots(past: Sequence[Entry], entry: Entry) -> Iterator[tuple[frozenset[int], int]]:
    """For every weight slot of the new session: the past sums of weights and its slots before, and this one."""
    clients = _everybody(past, entry)
    known = frozenset().union(*(one.weight_sums(clients) for one in past))
    for new in entry.weight_sums(clients):
        yield known, new
        known |= {new}


def _may_be_one_model(one: tuple[bytes, bytes], other: tuple[bytes, bytes]) -> bool:
    """Whether two sessions may start from one model: a session without a root may start from any of its layout.

    Of another layout it does not: a counting session, which has no root, is not about the model that it counts for.
    """
    (root, layout), (other_root, other_layout) = one, other
    return root == other_root or (not (root and other_root) and layout == other_layout)


def _everybody(past: Sequence[Entry], entry: Entry) -> list[int]:
    return sorted({client for one in (*past, entry) for client in one.survivors})


def _weighted_alike(one: Entry, other: Entry) -> bool:
    """Whether those who survived both have the same weights in both, as far as can be seen."""
    weights = dict(zip(one.survivors, one.weights, strict=True))
    return all(
        weights.get(client, weight) == weight for client, weight in zip(other.survivors, other.weights, strict=True)
    )


def _weight(plan: Plan, client: int) -> int:
    if not plan.session.weighted:
        return EVEN
    bucket = plan.participants[client].weight_bucket
    return HIDDEN if bucket is None else bucket


def _weighed_together(plan: Plan) -> Sequence[Sequence[int]]:
    """The groups of clients whose weights are summed.

    The slots of single coordinates have the survivors, unknowns and coefficients of the values there, and need no
    comparison of their own.
    """
    if not plan.session.weighted or plan.slots == "none":
        return ()
    return plan.groups if plan.slots == "groups" else (plan.clients,)


def _grouped(plan: Plan, survivors: Sequence[int]) -> tuple[bytes, bytes]:
    """``Entry.groups`` and ``Entry.runs``: runs first, so that masks made of whole tensors cost next to nothing."""
    place = np.flatnonzero(plan.released)
    kinds = {plan.participants[client].declaration: client for client in survivors}
    begins = np.diff(place, prepend=WITHHELD - 1) > 1
    for client in kinds.values():
        held = plan.held(client)
        begins[1:] |= held[1:] != held[:-1]
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(place)) - 1
    held_at = {kind: plan.held(client)[first] for kind, client in kinds.items()}
    bits = np.array([held_at[plan.participants[client].declaration] for client in survivors])
    packed = np.ascontiguousarray(np.packbits(bits, axis=0).T)
    groups, number = np.unique(packed.view(f"V{packed.shape[1]}").reshape(-1), return_inverse=True)
    runs = np.stack([place[first], place[last] + 1, number], axis=1).astype("<i8")
    return groups.tobytes(), runs.tobytes()


def _ascending(values: Sequence[int] | Sequence[bytes]) -> bool:
    return all(one < other for one, other in pairwise(values))  # type: ignore[operator]
