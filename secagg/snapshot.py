"""A server between two messages, as bytes: what it has received, and the sum so far. All else follows from that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import msgspec
import numpy as np

from secagg import messages
from secagg.errors import DecodingError
from secagg.masking import CHECKS, Accumulator
from secagg.messages import ClientId, Digest, Member, Message

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from secagg.release import Plan
    from secagg.rounds import Round

Kind = TypeVar("Kind", bound=Message)


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="secagg server 1"):
    """What ``Server.save`` keeps.

    Args:
        session: Digest of the session.
        round: What the server waits for.
        answers: Messages of this round; masked vectors are in the sum already, and cut out here.
        members: U1.
        shared: Messages of U2.
        survivors: U3.
        endorsed: Messages of the consistency check, once it is over.
        outgoing: What was sent when the round before was closed, each message with its readers.
        vector: The sum so far, as machine words of the ring.
        checks: Both checksums so far.
    """

    session: Digest
    round: Literal["AdvertiseKeys", "ShareKeys", "MaskedInput", "ConsistencyCheck", "Unmask"]
    answers: tuple[bytes, ...]
    members: tuple[Member, ...]
    shared: tuple[bytes, ...]
    survivors: tuple[int, ...]
    endorsed: tuple[bytes, ...]
    outgoing: tuple[tuple[bytes, tuple[ClientId, ...]], ...]
    vector: bytes
    checks: tuple[Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)], ...]

    def __repr__(self) -> str:
        return f"Snapshot(round={self.round})"


def encode(snapshot: Snapshot) -> bytes:
    """A snapshot as bytes."""
    return msgspec.msgpack.encode(snapshot)


def decode(data: bytes) -> Snapshot:
    """Inverse of ``encode``.

    Raises:
        DecodingError: Anything else.
    """
    try:
        return msgspec.msgpack.decode(data, type=Snapshot)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise DecodingError("not a saved server") from None


def check_round(kept: Snapshot, rounds: Sequence[Round]) -> None:
    """Refuses a snapshot that holds less, or more, than a server in its round has.

    Args:
        kept: The snapshot.
        rounds: Of the session, in order.

    Raises:
        DecodingError: It does, or the session has no such round.
    """
    names = [round_.value for round_ in rounds]
    past = names[: names.index(kept.round)] if kept.round in names else []
    outcomes = {
        "AdvertiseKeys": kept.members,
        "ShareKeys": kept.shared,
        "MaskedInput": kept.survivors,
        "ConsistencyCheck": kept.endorsed,
    }
    if kept.round not in names or any(bool(outcome) != (name in past) for name, outcome in outcomes.items()):
        raise DecodingError("not a saved server")


def check_survivors(survivors: tuple[int, ...], clients: Collection[int]) -> None:
    """Refuses survivors that are not some of the clients, once each in ascending order.

    Raises:
        DecodingError: They are not.
    """
    if survivors != tuple(sorted(set(survivors).intersection(clients))):
        raise DecodingError("not a saved server")


def summed(snapshot: Snapshot, plan: Plan) -> Accumulator:
    """The sum so far.

    Raises:
        DecodingError: It does not fit the plan.
    """
    if len(snapshot.vector) != plan.length * plan.ring.dtype.itemsize or len(snapshot.checks) != CHECKS:
        raise DecodingError("not a saved server")
    first, second = (int.from_bytes(check, "little") for check in snapshot.checks)
    return Accumulator(plan.ring, np.frombuffer(snapshot.vector, plan.ring.dtype).copy(), (first, second))


def by_message(outgoing: Mapping[int, bytes]) -> tuple[tuple[bytes, tuple[int, ...]], ...]:
    """Messages with their readers: most rounds send everybody the same."""
    readers: dict[bytes, list[int]] = {}
    for client, message in outgoing.items():
        readers.setdefault(message, []).append(client)
    return tuple((message, tuple(clients)) for message, clients in readers.items())


def by_reader(kept: tuple[tuple[bytes, tuple[int, ...]], ...], readers: Collection[int]) -> dict[int, bytes]:
    """Inverse of ``by_message``, in ascending order of id.

    Raises:
        DecodingError: Not exactly one message for each of the readers that there have to be.
    """
    found = sorted((client, message) for message, clients in kept for client in clients)
    if [client for client, _ in found] != sorted(readers):
        raise DecodingError("not a saved server")
    return dict(found)


def by_sender(kept: tuple[bytes, ...], kind: type[Kind]) -> dict[int, Kind]:
    """Kept messages of one kind by their senders.

    Raises:
        DecodingError: One of another kind, or two of one sender.
    """
    found: dict[int, Kind] = {}
    for data in kept:
        message = messages.decode(data)
        sender = getattr(message, "sender", None)
        if not isinstance(message, kind) or not isinstance(sender, int) or sender in found:
            raise DecodingError("not a saved server")
        found[sender] = message
    return found
