"""Digests of what everybody agrees on, transcript hashes, statements that are signed, and the masking graph."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from tests.vectors.reference.messagepack import packed
from tests.vectors.reference.primitives import digest, id_bytes, seeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.vectors.reference.declaring import Json

PARAMS: Json = {
    "adversary": "semi-honest",
    "corrupt": 0,
    "exact_denominators": False,
    "levels": 2**20,
    "max_dropouts": None,
    "max_weight": 1.0,
    "min_cohort": 3,
    "neighbours": None,
    "out_of_range": "refuse",
    "participation": 0.0,
    "security_bits": 40,
    "share_threshold": None,
    "value_range": 4.0,
    "weighting": "hidden",
}


def literal(value: object) -> str:
    """A value as Python writes it; text holds no quotes and no backslashes here."""
    match value:
        case str():
            return f"'{value}'"
        case list():
            return "[" + ", ".join(map(literal, value)) + "]"
        case tuple():
            return "(" + ", ".join(map(literal, value)) + "," * (len(value) == 1) + ")"
        case _:
            return str(value)


def params_text(params: Json) -> str:
    ranges = params["value_range"]
    if isinstance(ranges, dict):
        params = params | {"value_range": tuple((name, ranges[name]) for name in sorted(ranges))}
    return literal([(name, params[name]) for name in sorted(params)])


def layout_text(layout: Json) -> str:
    tensors = [
        (
            one["name"],
            tuple(one["shape"]),
            one["dtype"],
            [(int(axis), tuple(one["unit_axes"][axis])) for axis in sorted(one["unit_axes"])],
            *([one["layer"]] if "layer" in one else []),
        )
        for one in layout["tensors"]
    ]
    return literal((tensors, [tuple(group) for group in layout["unit_groups"]]))


def with_texts(session: Json) -> Json:
    """The session, with the two texts that are hashed."""
    texts = {"params_text": params_text(session["params"]), "layout_text": layout_text(session["layout"])}
    return session | texts


def digests(session: Json) -> Json:
    """The digests of a session: ``id``, ``params``, ``layout``, ``mode``, ``weighted``, ``counted``, ``model_root``."""
    params = hashlib.sha256(b"secagg params" + params_text(session["params"]).encode()).digest()
    layout = hashlib.sha256(b"secagg layout" + layout_text(session["layout"]).encode()).digest()
    counted = b"" if session["counted"] is None else counted_digest(**session["counted"])
    mode, weighted = session["mode"].encode(), bytes([session["weighted"]])
    whole = digest(session["id"], params, layout, mode, weighted, counted, session["model_root"])
    return {"params": params, "layout": layout, "counted": counted, "session": whole}


def counted_digest(clients: list[int], least: list[int]) -> bytes:
    counts = b"".join(count.to_bytes(4, "little") for count in least)
    return hashlib.sha256(literal(sorted(clients)).encode() + counts).digest()


def graph_seed(session: bytes, members: Sequence[Json]) -> bytes:
    return digest(b"secagg graph", session, *map(packed, members))


def h1(session: bytes, members: Sequence[Json], degree: int, threshold: int) -> bytes:
    return digest(b"secagg h1", f"1 {degree} {threshold}".encode(), session, *map(packed, members))


def h2(first: bytes, participants: Sequence[Json]) -> bytes:
    return digest(b"secagg h2", first, *map(packed, participants))


def says_keys(session: bytes, member: Json) -> bytes:
    return digest(b"secagg signs keys", session, packed(member))


def says_first(first: bytes, participant: Json) -> bytes:
    return digest(b"secagg signs h1", first, packed(participant))


def says_dealt(first: bytes, sealed: Json) -> bytes:
    return digest(b"secagg signs shares", first, packed(sealed | {"signature": None}))


def says_second(second: bytes, client: int) -> bytes:
    return digest(b"secagg signs h2", second, id_bytes(client))


def says_survivors(second: bytes, survivors: bytes, client: int) -> bytes:
    return digest(b"secagg signs survivors", second, survivors, id_bytes(client))


def ring_order(clients: Sequence[int], degree: int, seed: bytes) -> list[int]:
    """Ascending for the complete graph, else by 32 bytes of a stream that the seed fixes."""
    ascending = sorted(clients)
    if degree >= len(clients) - 1:
        return ascending
    drawn = seeded(b"graph" + seed, 32 * len(clients))
    keys = {client: drawn[32 * place : 32 * place + 32] for place, client in enumerate(ascending)}
    return sorted(ascending, key=lambda client: keys[client])


def neighbours(order: Sequence[int], degree: int, client: int) -> list[int]:
    n, place = len(order), order.index(client)
    if degree >= n - 1:
        return [peer for peer in order if peer != client]
    steps: list[Any] = [step for step in range(-degree // 2, degree // 2 + 1) if step]
    return sorted(order[(place + step) % n] for step in steps)
