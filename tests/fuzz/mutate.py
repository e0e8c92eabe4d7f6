"""Mutations: of bytes as they stand, and of the values in them where what is inside is MessagePack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from secagg import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

Node = Any
"""A MessagePack value."""

NUMBERS = (0, 1, -1, 127, 128, 255, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))
"""Numbers at the edges of their spellings and types."""

NO_MESSAGEPACK = (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError)
"""What taking bytes apart and putting them together again may raise: then their bytes are mutated instead."""


@dataclass(frozen=True)
class Framing:
    """What is around the MessagePack of an input.

    Args:
        opened: Input to MessagePack.
        closed: MessagePack to input.
    """

    opened: Callable[[bytes], bytes]
    closed: Callable[[bytes], bytes]


BARE = Framing(bytes, bytes)
VERSIONED = Framing(lambda data: data[1:], lambda body: bytes([messages.VERSION]) + body)
"""A version byte first: messages and ledgers are both in their first version."""


def mutant(data: bytes, rng: Random, seeds: Sequence[bytes], framing: Framing | None) -> bytes:
    """An input near ``data``.

    Args:
        data: An input.
        rng: Source of every choice.
        seeds: Inputs that pieces are taken from.
        framing: What is around the MessagePack; None where the input is none.
    """
    if framing is None or rng.random() < 0.3:
        return mangled(data, rng, seeds)
    try:
        body = framing.opened(data)
        if rng.random() < 0.2:
            return framing.closed(mangled(body, rng, seeds))
        tree, donor = (msgspec.msgpack.decode(one) for one in (body, framing.opened(rng.choice(seeds))))
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            tree = changed(tree, rng, donor)
        return framing.closed(msgspec.msgpack.encode(tree))
    except NO_MESSAGEPACK:
        return mangled(data, rng, seeds)


def mangled(data: bytes, rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Bytes with one of them changed, some cut out, repeated or put in, cut short, or spliced with another input."""
    first, second = sorted(rng.randint(0, len(data)) for _ in range(2))
    match rng.randrange(7):
        case 0 if data:
            place = rng.randrange(len(data))
            return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        case 1:
            return data[:first] + rng.randbytes(rng.randint(1, 8)) + data[first:]
        case 2:
            return data[:first]
        case 3:
            return data[:first] + data[second:]
        case 4:
            return data[:second] + data[first:]
        case 5:
            other = rng.choice(seeds)
            return data[:first] + other[rng.randint(0, len(other)) :]
        case _:
            return data[:first] + rng.randbytes(min(second - first, 8)) + data[min(second, first + 8) :]


def changed(tree: Node, rng: Random, donor: Node) -> Node:
    """A tree with one of its nodes changed; every level is as likely as the next."""
    if isinstance(tree, list | dict) and tree and rng.random() < 0.8:
        place = rng.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
        copy = tree.copy()
        copy[place] = changed(tree[place], rng, donor)
        return copy
    return _piece_of(donor, rng) if rng.random() < 0.2 else _other(tree, rng)


def _piece_of(tree: Node, rng: Random) -> Node:
    """Any node."""
    while isinstance(tree, list | dict) and tree and rng.random() < 0.8:
        tree = rng.choice(list(tree.values()) if isinstance(tree, dict) else tree)
    return tree


def _other(node: Node, rng: Random) -> Node:
    """Another value, most often of the same type."""
    match node:
        case bytes() if node[:1] == bytes([messages.VERSION]) and rng.random() < 0.7:
            return mutant(node, rng, [node], VERSIONED)
        case bytes():
            return mangled(node, rng, [node])
        case bool() | None:
            return rng.choice((None, True, False, 0, b"", []))
        case int():
            return rng.choice((*NUMBERS, node + 1, node - 1, node ^ 1 << rng.randrange(63)))
        case list() if node:
            return _other_list(node, rng)
        case dict() if node:
            lost = rng.choice(list(node))
            return {key: value for key, value in node.items() if key != lost}
        case _:
            return rng.choice((None, 0, "", b"", [], {}, [node], [[node] * 3]))


def _other_list(node: list[Node], rng: Random) -> list[Node]:
    place, other = rng.randrange(len(node)), rng.randrange(len(node))
    match rng.randrange(4):
        case 0:
            return node[:place] + node[place + 1 :]
        case 1:
            return [*node[:place], node[other], *node[place:]]
        case 2:
            swapped = node.copy()
            swapped[place], swapped[other] = node[other], node[place]
            return swapped
        case _:
            return [*node, None]
