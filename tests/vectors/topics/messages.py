"""Vectors of messages: one of each type with and without signatures, and bytes that decoding must refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.vectors.reference.declaring import declaration
from tests.vectors.reference.messagepack import on_wire, packed

if TYPE_CHECKING:
    from tests.vectors.reference.declaring import Json

SESSION, KEY, OTHER = bytes(range(16)), b"\x01" * 32, b"\x02" * 32
SIGNATURE = b"\x08" * 64
MEMBER = {"id": 7, "masking_key": KEY, "transport_key": OTHER}
SEALED = {
    "dealer": 7,
    "holder": 300,
    "box": b"\x03" * 114,
    "self_seed_commitment": KEY,
    "masking_key_commitment": OTHER,
    "signature": None,
}
MASK = declaration("bitmap", b"\xf0\x80", "data")
FULL = declaration("full")
SHARED = {
    "session": SESSION,
    "sender": 7,
    "params": KEY,
    "layout": OTHER,
    "transcript": KEY,
    "declaration": MASK,
    "weight_bucket": 127,
    "seed_commitment": OTHER,
    "shares": [SEALED | {"signature": SIGNATURE}],
    "signature": SIGNATURE,
}
PARTICIPANTS = [
    {"id": 7, "declaration": FULL, "weight_bucket": None},
    {"id": 200, "declaration": MASK, "weight_bucket": 0},
]


def examples() -> list[tuple[str, Json]]:
    members = [MEMBER, MEMBER | {"id": 2**63 - 1}]
    revealed = {"dealer": 70_000, "share": b"\x04" * 33, "salt": b"\x05" * 16}
    advertised = {"session": SESSION, "sender": 7, "masking_key": KEY, "transport_key": OTHER}
    masked = {"session": SESSION, "sender": 7, "check": b"\x06" * 16}
    relayed = {"session": SESSION, "participants": PARTICIPANTS, "shares": [SEALED, SEALED]}
    quorum = [{"id": 7, "signature": SIGNATURE}, {"id": 200, "signature": SIGNATURE}]
    return [
        ("AdvertiseKeys", advertised | {"signature": None}),
        ("AdvertiseKeys", advertised | {"sender": 2**32, "signature": SIGNATURE}),
        ("Roster", {"session": SESSION, "members": members, "signatures": []}),
        ("Roster", {"session": SESSION, "members": [MEMBER] * 16, "signatures": [SIGNATURE] * 16}),
        ("ShareKeys", SHARED),
        ("ShareKeys", SHARED | {"declaration": FULL, "weight_bucket": None, "shares": [], "signature": None}),
        ("RelayedShares", relayed | {"signatures": [SIGNATURE, SIGNATURE]}),
        ("RelayedShares", relayed | {"signatures": []}),
        ("MaskedInput", masked | {"vector": bytes(range(256)) + b"\x07", "signature": None}),
        ("MaskedInput", masked | {"vector": b"\x01\x02", "signature": SIGNATURE}),
        ("MaskedInput", masked | {"vector": b"", "signature": None}),
        ("ConsistencyRequest", {"session": SESSION, "survivors": b"\xc0", "signatures": [SIGNATURE, SIGNATURE]}),
        ("ConsistencyCheck", {"session": SESSION, "sender": 7, "signature": SIGNATURE}),
        ("UnmaskRequest", {"session": SESSION, "survivors": b"\xc0", "quorum": []}),
        ("UnmaskRequest", {"session": SESSION, "survivors": b"\xc0", "quorum": quorum}),
        ("Unmask", {"session": SESSION, "sender": 7, "shares": [revealed, revealed | {"dealer": 70_001}]}),
    ]


def refused() -> list[tuple[str, bytes]]:
    good = ("AdvertiseKeys", SESSION, 7, KEY, OTHER, None)
    sent, id_ = on_wire(*good), SESSION + b"\x07"
    return [
        ("empty", b""),
        ("version 0", b"\x00" + sent[1:]),
        ("version 2", b"\x02" + sent[1:]),
        ("version only", b"\x01"),
        ("unknown tag", on_wire("AdvertiseKey", *good[1:])),
        ("tag of another message", on_wire("MaskedInput", *good[1:])),
        ("tag alone", on_wire("AdvertiseKeys")),
        ("a map for the array", b"\x01\x81" + packed("AdvertiseKeys") + packed(SESSION)),
        ("trailing byte", sent + b"\xc0"),
        ("last byte missing", sent[:-1]),
        ("signature left out", on_wire(*good[:-1])),
        ("field too many", on_wire(*good, None)),
        ("session of 15 bytes", sent.replace(packed(SESSION), packed(SESSION[1:]))),
        ("key of 33 bytes", sent.replace(packed(KEY), packed(KEY + b"\0"))),
        ("id of 64 bits", sent.replace(id_, SESSION + packed(2**63))),
        ("negative id", sent.replace(id_, SESSION + b"\xff")),
        ("id in two bytes", sent.replace(id_, SESSION + b"\xcc\x07")),
        ("id as a float", sent.replace(id_, SESSION + b"\xca\x40\xe0\x00\x00")),
        ("long length of bytes", sent.replace(b"\xc4\x10" + SESSION, b"\xc5\x00\x10" + SESSION)),
        ("long length of the array", b"\x01\xdc\x00\x06" + sent[2:]),
        ("long length of the tag", sent.replace(b"\xadAdvertiseKeys", b"\xd9\x0dAdvertiseKeys")),
        ("text for bytes", sent.replace(b"\xc4\x20" + KEY, b"\xd9\x20" + KEY)),
        ("an empty signature", on_wire(*good[:-1], b"")),
        ("an id in a roster is nil", on_wire("Roster", SESSION, [MEMBER | {"id": None}], [])),
        ("a roster's signatures left out", on_wire("Roster", SESSION, [MEMBER])),
        ("a key of a roster too short", on_wire("Roster", SESSION, [MEMBER | {"masking_key": KEY[1:]}], [])),
        ("params of 31 bytes", on_wire("ShareKeys", *(SHARED | {"params": KEY[1:]}).values())[1:]),
        ("a box of 113 bytes", on_wire("ShareKeys", *(SHARED | {"shares": [SEALED | {"box": bytes(113)}]}).values())),
        (
            "an unknown kind of declaration",
            on_wire("RelayedShares", SESSION, [[7, ["none", b"", "public"], 1]], [], []),
        ),
        ("bucket 128", on_wire("RelayedShares", SESSION, [[7, FULL, 128]], [], [])),
        ("unknown provenance", on_wire("RelayedShares", SESSION, [[7, ["full", b"", "secret"], None]], [], [])),
        ("a declaration cut short", on_wire("RelayedShares", SESSION, [[7, ["full"], None]], [], [])),
        ("a masked input without the field of its signature", on_wire("MaskedInput", SESSION, 7, bytes(16), b"")),
        ("checksums of 15 bytes", on_wire("MaskedInput", SESSION, 7, bytes(15), b"", None)),
        ("no signatures of survivors", on_wire("ConsistencyRequest", SESSION, b"\xc0", None)),
        ("signature of 63 bytes", on_wire("ConsistencyCheck", SESSION, 7, SIGNATURE[1:])),
        ("consistency without a signature", on_wire("ConsistencyCheck", SESSION, 7, None)),
        ("a quorum without signatures", on_wire("UnmaskRequest", SESSION, b"\xc0", [[7, None]])),
        ("an unmask request without a quorum", on_wire("UnmaskRequest", SESSION, b"\xc0")),
        ("both shares of one dealer in one", on_wire("Unmask", SESSION, 7, [[8, bytes(33), bytes(16), bytes(33)]])),
        ("a dealer twice", on_wire("Unmask", SESSION, 7, [[8, bytes(33), bytes(16)], [8, KEY + b"\0", bytes(16)]])),
        ("dealers out of order", on_wire("Unmask", SESSION, 7, [[8, bytes(33), bytes(16)], [7, bytes(33), bytes(16)]])),
        ("a share of 32 bytes", on_wire("Unmask", SESSION, 7, [[8, bytes(32), bytes(16)]])),
        ("a salt of 17 bytes", on_wire("Unmask", SESSION, 7, [[8, bytes(33), bytes(17)]])),
    ]


def long_vector() -> Json:
    """A masked input whose vector of zeros takes a length of 32 bits: what stands before and after them."""
    zeros = bytes(2**16)
    head, tail = on_wire("MaskedInput", SESSION, 7, b"\x06" * 16, zeros, SIGNATURE).split(zeros)
    return {"head": head, "zeros": len(zeros), "tail": tail}


def messages() -> Json:
    clients = [3, 5, 9, 12, 13, 14, 20, 200, 300]
    return {
        "valid": [
            {"type": tag, "fields": fields, "bytes": on_wire(tag, *fields.values())} for tag, fields in examples()
        ],
        "long": long_vector(),
        "invalid": [{"name": name, "bytes": data} for name, data in refused()],
        "bitmaps": {
            "clients": clients,
            "valid": [
                {"data": b"\xff\x80", "chosen": clients},
                {"data": b"\x50\x80", "chosen": [5, 12, 300]},
                {"data": b"\x00\x00", "chosen": []},
            ],
            "invalid": [b"", b"\xff", b"\xff\x80\x00", b"\xff\xc0", b"\xff\x81"],
        },
    }
