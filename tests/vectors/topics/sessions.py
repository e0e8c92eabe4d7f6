"""Vectors of whole sessions: everything on the wire, byte for byte, from the entropy of each client."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from tests.vectors.reference import primitives, transcripts, wiring
from tests.vectors.reference.declaring import (
    bits_to_bytes,
    declaration,
    elias_fano,
    held_by_layers,
    held_by_units,
    layout,
    size_of,
    tensor,
)
from tests.vectors.reference.playing import ROUNDS, Play, Player
from tests.vectors.reference.transcripts import PARAMS

if TYPE_CHECKING:
    from tests.vectors.reference.declaring import Json

UNITS = layout(
    tensor("fc1.weight", [3, 2], axis0=[0, 1, 2]),
    tensor("fc1.bias", [3], axis0=[0, 1, 2]),
    tensor("fc2.weight", [2, 3], axis1=[0, 1, 2]),
    tensor("fc2.bias", [2]),
    tensor("head.weight", [100]),
    unit_groups=[("fc1", 3)],
)
SMALL = layout(tensor("fc1.weight", [2, 2]), tensor("fc1.bias", [2], "float64"), tensor("scale", []))
SMALL_SIZE, UNITS_SIZE = 7, 117


def session(
    name: str, of: Json, mode: str, *, weighted: bool = False, counted: Json | None = None, **settings: object
) -> Json:
    number = primitives.digest(name.encode())[:16]
    root = primitives.digest(b"model", name.encode())
    return {
        "id": number,
        "params": PARAMS | settings,
        "layout": of,
        "mode": mode,
        "weighted": weighted,
        "counted": counted,
        "model_root": root,
    }


def update(of: Json, client: int, limit: float) -> dict[str, list[float]]:
    """Values of a few decimals in [-limit, limit]."""
    values = {}
    for one in of["tensors"]:
        drawn = primitives.seeded(f"{one['name']} {client}".encode(), 2 * size_of(one))
        pairs = [int.from_bytes(drawn[at : at + 2], "big") for at in range(0, len(drawn), 2)]
        values[one["name"]] = [round((pair / 32768 - 1) * limit, 4) for pair in pairs]
    return values


def uniform() -> Json:
    """Weighted, 24 bits; somebody drops out after each of the first three rounds."""
    ranges = {"fc1.bias": 0.5, "*": 2.0}
    agreed = session("uniform", SMALL, "uniform", weighted=True, value_range=ranges, max_weight=10.0)
    last = {3: "AdvertiseKeys", 11: "ShareKeys", 70_000: "MaskedInput"}
    cast = {
        client: {
            "mask": declaration("full"),
            "held": "1" * SMALL_SIZE,
            "weight": 1.5 + place,
            "update": update(SMALL, client, 0.5),
            "last_round": last.get(client, "Unmask"),
        }
        for place, client in enumerate((2, 3, 7, 11, 300, 70_000, 2**40))
    }
    return played(agreed, cast)


def masked_active() -> Json:
    """Masks of every kind, public weights, everything signed; dropouts as in ``uniform``."""
    agreed = session(
        "mask-indexed active",
        UNITS,
        "mask-indexed",
        weighted=True,
        weighting="public",
        adversary="active",
        min_cohort=2,
        max_weight=2.0,
    )
    most = "".join("01"[place not in (2, 50, 116)] for place in range(UNITS_SIZE))
    half = "".join("01"[place % 3 > 0] for place in range(UNITS_SIZE))
    full = (declaration("full"), "1" * UNITS_SIZE)
    of_units = (declaration("units", bits_to_bytes("101"), "data"), held_by_units(UNITS, "101"))
    of_layers = (declaration("layers", bits_to_bytes("011"), "device"), held_by_layers(UNITS, "011"))
    masks = {
        0: full,
        1: of_units,
        5: of_layers,
        9: (declaration("sparse", elias_fano(most), "data"), most),
        12: (declaration("bitmap", bits_to_bytes(half), "data"), half),
        40: full,
        200: (declaration("units", bits_to_bytes("110"), "data"), held_by_units(UNITS, "110")),
        2**63 - 1: of_units,
    }
    last = {40: "AdvertiseKeys", 9: "ShareKeys", 200: "MaskedInput"}
    cast = {
        client: {
            "mask": mask,
            "held": held,
            "weight": 2.0 / (1 + place),
            "update": update(UNITS, client, 4.0),
            "last_round": last.get(client, "Unmask"),
        }
        for place, (client, (mask, held)) in enumerate(masks.items())
    }
    return played(agreed, cast)


def masked_weighted() -> Json:
    """Hidden weights by group of equal masks, 16 bits, some of the values out of range and clipped."""
    settings: Json = {
        "levels": 2**12,
        "min_cohort": 2,
        "max_dropouts": 1,
        "value_range": 1.0,
        "out_of_range": "saturate",
    }
    agreed = session("mask-indexed", SMALL, "mask-indexed", weighted=True, **settings)
    small = (declaration("layers", bits_to_bytes("10")), held_by_layers(SMALL, "10"))
    full = (declaration("full"), "1" * SMALL_SIZE)
    cast = {
        client: {
            "mask": mask,
            "held": held,
            "weight": 1.0 - client / 10,
            "update": update(SMALL, client, 1.2),
            "last_round": "ShareKeys" if client == 4 else "Unmask",
        }
        for client, (mask, held) in enumerate((full, small, full, small, full, small, full))
    }
    return played(agreed, cast)


def sparse_counted() -> Json:
    """A sparse graph, pruned updates whose masks stay secret, exact denominators, 64 bits."""
    settings: Json = {
        "levels": 2**48,
        "max_dropouts": 0,
        "neighbours": 4,
        "security_bits": 20,
        "exact_denominators": True,
    }
    counted = {"clients": [*range(9), 12], "least": [10, 8, 5, 4, 3, 10, 9]}
    agreed = session("sparse", SMALL, "uniform", counted=counted, **settings)
    cast = {}
    for client in range(9):
        held = "".join("01"[(client + place) % 4 > 0 or place == 0] for place in range(SMALL_SIZE))
        cast[client] = {
            "mask": declaration("bitmap", bits_to_bytes(held), "data"),
            "held": held,
            "weight": None,
            "update": update(SMALL, client, 4.0),
            "last_round": "Unmask",
        }
    return played(agreed, cast)


def played(agreed: Json, cast: dict[int, Json]) -> Json:
    """A session and everything that follows from it, as it goes into the file."""
    wired = wiring.wired(agreed["params"], len(cast), agreed["mode"])
    active = agreed["params"]["adversary"] == "active"
    digest = transcripts.digests(agreed)["session"]
    players: list[Player] = []
    for client, brings in cast.items():
        shares_keys = brings["last_round"] != "AdvertiseKeys"
        length = 64 + shares_keys * (32 + 96 * (wired.threshold - 1) + 32 * (wired.degree + 1))
        entropy = primitives.seeded(b"entropy" + agreed["id"] + bytes([len(players)]), length)
        identity = primitives.seeded(b"identity" + bytes([len(players)]), 32) if active else None
        players.append(Player(client, brings, identity, entropy, digest))
    play = Play(agreed, players, wired)
    clients = [
        {
            "client": one.id,
            "entropy": one.entropy,
            "identity": one.identity,
            "public_identity": one.identity and primitives.public_identity(one.identity),
            **one.brings,
            "integers": play.brought.get(one.id),
        }
        for one in players
    ]
    return {
        "session": transcripts.with_texts(agreed),
        "digests": play.digests,
        "wiring": asdict(wired),
        "clients": clients,
        "graph_seed": play.graph_seed,
        "ring": play.order,
        "h1": play.h1,
        "h2": play.h2,
        "rounds": [
            {"round": name, "sent": listed(play.sent[name]), "delivered": by_content(play.delivered[name])}
            for name in ROUNDS
            if name in play.sent
        ],
        "released": play.release.released,
        "bits": play.release.bits,
        "places": [{"client": client, "places": play.release.places(client)} for client in play.participants],
        "survivors": play.survivors,
        "sum": play.total,
    }


def listed(sent: dict[int, bytes]) -> list[Json]:
    return [{"client": client, "bytes": data} for client, data in sent.items()]


def by_content(delivered: dict[int, bytes]) -> list[Json]:
    """What several clients receive alike stands there once."""
    return [
        {"clients": [client for client, one in delivered.items() if one == data], "bytes": data}
        for data in dict.fromkeys(delivered.values())
    ]
