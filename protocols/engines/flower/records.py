"""How the messages of a session are put into Flower's records.

A stage is a message of Flower's type ``train`` (or ``evaluate``, where only metrics are averaged) with a ConfigRecord
that names stage and session. The protocol's own bytes stand in an ArrayRecord: of all records only arrays are cut into
pieces when they travel. They are no file of numpy's, so that nobody has to parse what a stranger sent as one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from secagg.errors import DecodingError
from secagg.messages import LARGEST_ID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flwr.app import Message

STAGE = "secagg"
"""The record that tells what a message is about: ``stage``, ``session``, and ``agreement`` where a session begins."""
WIRE = "secagg.wire"
"""The record of the protocol's bytes: ``message``, and ``keys`` of the next round's session."""
MASK = "secagg.mask"
"""The record in which a ClientApp says what it holds."""
OURS = (STAGE, WIRE, MASK)

ABANDON = "Abandon"
"""The stage that ends a session for a node that has not answered its last one. ``used_up`` says whether what the node
has masked counts as sent."""

BYTES = "bytes"
"""How arrays of ours are serialized."""


def category_of(message_type: str) -> str:
    """``train`` or ``evaluate``, whichever function of an app of that kind a message is for."""
    return message_type.split(".", maxsplit=1)[0]


def number_of(node: int) -> int:
    """The number under which a node is a client where no identities are pinned: the low 63 bits of Flower's id."""
    return node & LARGEST_ID


def write(stage: str, session: bytes, wire: dict[str, bytes] | None = None, **said: bytes | bool) -> RecordDict:
    """The records of one message.

    Args:
        stage: Its stage.
        session: Id of its session.
        wire: Name to bytes of the protocol.
        said: What else is said.
    """
    records = RecordDict({STAGE: ConfigRecord({"stage": stage, "session": session, **said})})
    if wire:
        records[WIRE] = ArrayRecord({name: as_array(data) for name, data in wire.items()})
    return records


def said(records: RecordDict, name: str, kind: type = bytes) -> Any:
    """What a message says of its stage.

    Raises:
        DecodingError: Nothing of that name and kind.
    """
    value = records.config_records.get(STAGE, {}).get(name)
    if not isinstance(value, kind):
        raise DecodingError(f"a message without {name}")
    return value


def wire(records: RecordDict, name: str = "message") -> bytes:
    """The protocol's bytes in a message.

    Raises:
        DecodingError: There are none of that name.
    """
    array = records.array_records.get(WIRE, {}).get(name)
    if array is None:
        raise DecodingError(f"a message without {name}")
    return as_bytes(array)


def as_array(data: bytes) -> Array:
    """Bytes as an array."""
    return Array("uint8", (len(data),), BYTES, data)


def as_bytes(array: Array) -> bytes:
    """Inverse of ``as_array``.

    Raises:
        DecodingError: Another array.
    """
    if array.stype != BYTES:
        raise DecodingError("an array that holds no bytes")
    return bytes(array.data)


def without_ours(records: RecordDict) -> RecordDict:
    """What is left for the app: a copy, since strategies hand one set of records to all nodes."""
    return RecordDict({name: record for name, record in records.items() if name not in OURS})


def digest(kind: str, records: Mapping[str, Any]) -> bytes:
    """SHA-256 over a type of message and all that records hold, in their order, by which an app may go too."""
    told = [
        (name, type(record).__name__, [(key, _plain(value)) for key, value in record.items()])
        for name, record in records.items()
    ]
    return hashlib.sha256(msgspec.msgpack.encode((kind, told))).digest()


def payload_bytes(message: Message) -> int:
    """Bytes of arrays and of byte strings in a message; names, numbers and framing are not counted."""
    if message.has_error():
        return 0
    arrays = sum(len(one.data) for record in message.content.array_records.values() for one in record.values())
    configs = message.content.config_records.values()
    return arrays + sum(len(value) for record in configs for value in record.values() if isinstance(value, bytes))


def _plain(value: Any) -> Any:
    if isinstance(value, Array):
        return value.dtype, value.shape, value.stype, hashlib.sha256(value.data).digest()
    return value
