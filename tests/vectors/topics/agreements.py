"""Vectors of what everybody agrees on: digests, transcripts and signatures, graphs, and what settings lead to."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from tests.vectors.reference import model, primitives, sharing, transcripts, wiring
from tests.vectors.reference.declaring import layout, size_of, tensor
from tests.vectors.reference.transcripts import PARAMS
from tests.vectors.topics import declarations
from tests.vectors.topics.messages import MASK

if TYPE_CHECKING:
    from tests.vectors.reference.declaring import Json

ID, ROOT = bytes(range(16)), b"\x33" * 32
SMALL = layout(tensor("w", [4]))


def session(**changes: object) -> Json:
    plain: Json = {
        "id": ID,
        "params": PARAMS,
        "layout": SMALL,
        "mode": "uniform",
        "weighted": False,
        "counted": None,
        "model_root": b"",
    }
    return plain | changes


def digests() -> list[Json]:
    ranges = {"value_range": {"fc1.weight": 0.5, "*": 1e-7}, "max_weight": 1e16, "participation": 0.25}
    sessions = [
        session(),
        session(mode="mask-indexed", weighted=True, layout=declarations.UNITS, params=PARAMS | ranges),
        session(layout=declarations.TWO_AXES, model_root=ROOT, params=PARAMS | {"corrupt": 2, "share_threshold": 7}),
        session(counted={"clients": [3, 5, 9], "least": [3, 0, 2, 3]}),
        session(params=PARAMS | {"adversary": "active", "max_dropouts": 0}, model_root=ROOT),
        session(mode="mask-indexed", layout=declarations.STATISTICS),
    ]
    return [transcripts.with_texts(one) | {"digests": transcripts.digests(one)} for one in sessions]


def signatures() -> Json:
    """Each statement with its signature, and signatures that must not pass."""
    one = session(params=PARAMS | {"adversary": "active"})
    digest = transcripts.digests(one)["session"]
    seeds = {client: primitives.seeded(b"identity %d" % client, 32) for client in (5, 9)}
    member = {
        "id": 5,
        "masking_key": primitives.public_key(bytes(32)),
        "transport_key": primitives.public_key(b"\x01" * 32),
    }
    members = [member, member | {"id": 9}]
    participant = {"id": 5, "declaration": MASK, "weight_bucket": 3}
    h1 = transcripts.h1(digest, members, 1, 2)
    h2 = transcripts.h2(h1, [participant])
    pair = tuple((sharing.share_bytes(kind), bytes(16)) for kind in (1, 2))
    sealed = sharing.sealed_shares(5, 9, b"\x07" * 32, h1, pair)
    statements = {
        "keys": transcripts.says_keys(digest, member),
        "h1": transcripts.says_first(h1, participant),
        "shares": transcripts.says_dealt(h1, sealed),
        "h2": transcripts.says_second(h2, 5),
        "survivors": transcripts.says_survivors(h2, b"\xc0", 5),
    }
    signed = {name: primitives.sign(seeds[5], statement) for name, statement in statements.items()}
    altered = signed["h2"][:-1] + bytes([signed["h2"][-1] ^ 1])
    refused = [
        ("of another client", "h2", primitives.sign(seeds[9], statements["h2"])),
        ("of another purpose", "h2", signed["survivors"]),
        ("altered", "h2", altered),
        ("cut short", "h2", signed["h2"][:-1]),
        ("empty", "h2", b""),
    ]
    return {
        "session": transcripts.with_texts(one),
        "graph_seed": transcripts.graph_seed(digest, members),
        "h1": h1,
        "h2": h2,
        "degree": 1,
        "threshold": 2,
        "members": members,
        "participants": [participant],
        "sealed": sealed,
        "survivors": b"\xc0",
        "identities": [
            {"client": client, "seed": seed, "public": primitives.public_identity(seed)}
            for client, seed in seeds.items()
        ],
        "signed": [
            {"says": name, "statement": statements[name], "signature": signature} for name, signature in signed.items()
        ],
        "refused": [{"name": name, "statement": statements[says], "signature": of} for name, says, of in refused],
    }


def graphs() -> list[Json]:
    """Rings and neighbours; ``fewest_in_window`` counts the given survivors."""
    rows = [
        ([9, 3, 5], 2, bytes(32), [3, 5]),
        (list(range(10)), 4, bytes(32), [0, 1, 2, 3, 4, 5, 6, 7]),
        ([*range(0, 60, 4), 2**40, 2**63 - 1], 6, b"\x42" * 32, list(range(0, 40, 4))),
        (list(range(7)), 2, b"\x01" * 32, [0, 1, 2, 3, 4, 5, 6]),
    ]
    cases = []
    for clients, degree, seed, survivors in rows:
        order = transcripts.ring_order(clients, degree, seed)
        listed = [
            {"client": client, "neighbours": transcripts.neighbours(order, degree, client)}
            for client in sorted(clients)
        ]
        window = (degree + 1) // 2
        rings = [[order[(first + step) % len(order)] for step in range(window)] for first in range(len(order))]
        fewest = min(len(set(survivors).intersection(ring)) for ring in rings)
        cases.append({"clients": clients, "degree": degree, "seed": seed, "order": order, "neighbours": listed})
        cases[-1] |= {"survivors": survivors, "fewest_in_window": fewest}
    return cases


def models() -> list[Json]:
    """Models as lists of values, their leaves and their roots."""
    cases = []
    half = layout(tensor("a", [2], "float16"), tensor("b", [1], "bfloat16"), tensor("c", [2, 1], "float64"))
    for of in (SMALL, half, declarations.UNITS, declarations.TWO_AXES):
        values = {one["name"]: [(place - 3) / 4 for place in range(size_of(one))] for one in of["tensors"]}
        found = model.leaves(of, values)
        cases.append({"layout": of, "model": values, "leaves": found, "root": model.root(found)})
    return cases


def wirings() -> list[Json]:
    """Degree, share threshold, quorum and window floor that follow from settings and the number of clients."""
    rows: list[tuple[int, Json]] = [
        (3, {}),
        (4, {}),
        (20, {"corrupt": 3}),
        (20, {"corrupt": 12, "min_cohort": 2}),
        (7, {"share_threshold": 3}),
        (9, {"adversary": "active"}),
        (10, {"adversary": "active", "corrupt": 3, "max_dropouts": 1}),
        (200, {}),
        (201, {"max_dropouts": 10}),
        (300, {"max_dropouts": 30, "corrupt": 3}),
        (250, {"max_dropouts": 5, "corrupt": 2, "adversary": "active"}),
        (9, {"max_dropouts": 0, "neighbours": 4, "security_bits": 20}),
        (9, {"neighbours": 8}),
    ]
    wired = [wiring.wired(PARAMS | settings, clients) for clients, settings in rows]
    return [
        {"clients": clients, "settings": settings, "wiring": asdict(one)}
        for (clients, settings), one in zip(rows, wired, strict=True)
    ]
