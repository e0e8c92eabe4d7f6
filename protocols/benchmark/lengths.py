"""Lengths of messages, from what they hold (docs/wire.md, sections 2 and 3): bytes need no measuring.

For a uniform session with a semi-honest server. A client's number takes one byte up to 127, two up to 255, then three,
five and nine; counts of parts and lengths of vectors have heads that grow likewise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_VERSION = 1
_NIL = 1
_SESSION, _KEY, _DIGEST, _SALT, _CHECK = 2 + 16, 2 + 32, 2 + 32, 2 + 16, 2 + 16
_ELEMENT, _BOX = 2 + 33, 2 + 114
_FULL = 1 + (1 + len("full")) + 2 + (1 + len("public"))


def advertise_keys(sender: int) -> int:
    """From a client: two keys."""
    return _head("AdvertiseKeys", 5) + number(sender) + 2 * _KEY + _NIL


def roster(clients: Collection[int]) -> int:
    """To a client: everybody's keys.

    Args:
        clients: Those that advertised keys.
    """
    members = sum(1 + number(client) + 2 * _KEY for client in clients)
    return _head("Roster", 3) + array(len(clients)) + members + array(0)


def share_keys(sender: int, neighbours: Collection[int]) -> int:
    """From a client: what it believes the session to be, and a box of shares for each neighbour.

    Args:
        sender: The client.
        neighbours: Of the client.
    """
    sealed = sum(_sealed(sender, holder) for holder in neighbours)
    believed = 3 * _DIGEST + _FULL + _NIL + _DIGEST
    return _head("ShareKeys", 9) + number(sender) + believed + array(len(neighbours)) + sealed + _NIL


def relayed_shares(reader: int, clients: Collection[int], neighbours: Collection[int]) -> int:
    """To a client: who shared keys, and the boxes of its neighbours.

    Args:
        reader: The client.
        clients: Those that shared keys.
        neighbours: Those of the client's among them.
    """
    participants = sum(1 + number(client) + _FULL + _NIL for client in clients)
    sealed = sum(_sealed(dealer, reader) for dealer in neighbours)
    parts = array(len(clients)) + participants + array(len(neighbours)) + sealed + array(0)
    return _head("RelayedShares", 4) + parts


def masked_input(sender: int, vector: int) -> int:
    """From a client: its vector and two checksums.

    Args:
        sender: The client.
        vector: Bytes of the packed vector.
    """
    return _head("MaskedInput", 5) + number(sender) + _CHECK + binary(vector) + _NIL


def unmask_request(clients: int) -> int:
    """To a survivor: who survived, a bit each.

    Args:
        clients: How many shared keys.
    """
    return _head("UnmaskRequest", 3) + binary(-(-clients // 8)) + array(0)


def unmask(sender: int, dealers: Collection[int]) -> int:
    """From a survivor: a share of each neighbour, and of its own.

    Args:
        sender: The survivor.
        dealers: It and those of its neighbours that shared keys.
    """
    shares = sum(1 + number(dealer) + _ELEMENT + _SALT for dealer in dealers)
    return _head("Unmask", 3) + number(sender) + array(len(dealers)) + shares


def number(value: int) -> int:
    """Bytes of a non-negative integer."""
    return 1 if value < 1 << 7 else 1 + next(size for size in (1, 2, 4, 8) if value < 1 << 8 * size)


def array(count: int) -> int:
    """Bytes of the head of a list."""
    return 1 if count < 16 else 3 if count < 1 << 16 else 5


def binary(count: int) -> int:
    """Bytes of that many bytes with their head."""
    return count + (2 if count < 1 << 8 else 3 if count < 1 << 16 else 5)


def _head(tag: str, fields: int) -> int:
    """Version, list, tag and session."""
    return _VERSION + array(1 + fields) + (1 + len(tag)) + _SESSION


def _sealed(dealer: int, holder: int) -> int:
    return 1 + number(dealer) + number(holder) + _BOX + 2 * _DIGEST + _NIL
