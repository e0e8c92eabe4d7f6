"""How the messages of a session are put into Flower's records.

A stage is a message of Flower's type ``train`` (or ``evaluate``, where only metrics are averaged) with a ConfigRecord
that names stage and session. The protocol's own bytes stand in an ArrayRecord: of all records only arrays are cut into
pieces when they travel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from secagg.errors import DecodingError

if TYPE_CHECKING:
    from flwr.app import Message

STAGE = "secagg"
"""The record that tells what a message is about: ``stage``, ``session``, and ``agreement`` where a session begins."""
WIRE = "secagg.wire"
"""The record of the protocol's bytes: ``message``, and ``keys`` of the next round's session."""
MASK = "secagg.mask"
"""The record in which a ClientApp says what it holds."""
OURS = (STAGE, WIRE, MASK)

ABANDON = "Abandon"
"""The stage that ends a session without a result."""


def write(stage: str, session: bytes, wire: dict[str, bytes] | None = None, **said: bytes) -> RecordDict:
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
    return Array(np.frombuffer(data, np.uint8))


def as_bytes(array: Array) -> bytes:
    """Inverse of ``as_array``.

    Raises:
        DecodingError: Another array.
    """
    try:
        values = array.numpy()
    except (TypeError, ValueError, EOFError):
        raise DecodingError("an array cannot be read") from None
    if values.dtype != np.uint8 or values.ndim != 1:
        raise DecodingError("an array that holds no bytes")
    return bytes(values.tobytes())


def without_ours(records: RecordDict) -> RecordDict:
    """What is left for the app: a copy, since strategies hand one set of records to all nodes."""
    return RecordDict({name: record for name, record in records.items() if name not in OURS})


def payload_bytes(message: Message) -> int:
    """Bytes of arrays and of byte strings in a message; names, numbers and framing are not counted."""
    if message.has_error():
        return 0
    arrays = sum(len(one.data) for record in message.content.array_records.values() for one in record.values())
    configs = message.content.config_records.values()
    return arrays + sum(len(value) for record in configs for value in record.values() if isinstance(value, bytes))
