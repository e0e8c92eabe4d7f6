"""Writes the vectors beside this file: ``python -m tests.vectors.generate``.

Nothing here, in ``topics`` or in ``reference`` comes from secagg: the protocol is written a second time, with Python
integers and text of zeros and ones, after docs/wire.md. So the vectors pin the format, and a change of secagg that
alters a byte on the wire or in a key shows.

In the files, bytes are hexadecimal, and integers of 2^53 and more, which many readers of JSON would round, are decimal
text. ``published.json`` is not written here: its vectors come from the standards that it names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.vectors.topics import agreements, declarations, messages, secrets, sessions, vectors

if TYPE_CHECKING:
    from collections.abc import Callable

TOPICS: dict[str, Callable[[], Any]] = {
    "prg": secrets.prg,
    "shamir": secrets.shamir,
    "commitments": secrets.commitments,
    "sealing": secrets.sealing,
    "declarations": declarations.declarations,
    "messages": messages.messages,
    "ring": vectors.ring,
    "encoding": vectors.encoding,
    "masks": vectors.masks,
    "digests": agreements.digests,
    "signatures": agreements.signatures,
    "graphs": agreements.graphs,
    "wirings": agreements.wirings,
    "models": agreements.models,
    "session-uniform": sessions.uniform,
    "session-mask-indexed-active": sessions.masked_active,
    "session-mask-indexed-weighted": sessions.masked_weighted,
    "session-uniform-sparse": sessions.sparse_counted,
}
LARGEST_NUMBER = 2**53


def plain(value: Any) -> Any:
    """A value as JSON holds it."""
    match value:
        case bytes():
            return value.hex()
        case int() if abs(value) >= LARGEST_NUMBER:
            return str(value)
        case dict():
            return {name: plain(one) for name, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
    return value


def everything() -> dict[str, str]:
    """File name to content."""
    return {f"{name}.json": json.dumps(plain(topic()), indent=1) + "\n" for name, topic in TOPICS.items()}


if __name__ == "__main__":
    for file_name, content in everything().items():
        (Path(__file__).parent / file_name).write_text(content, encoding="utf-8")
