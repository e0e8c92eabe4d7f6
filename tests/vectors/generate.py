"""Writes the vectors beside this file: ``python tests/vectors/generate.py``.

Nothing here comes from secagg. Hashes are hashlib's, HKDF is written out over hmac, counter mode is single AES blocks,
MessagePack and Elias-Fano coding are written bit by bit, sums are Python integers. So the vectors pin the format, and
a change of secagg that alters a byte on the wire or in a key shows.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

Json = dict[str, Any]

# ---------------------------------------------------------------------------------------------- primitives


def lengths_and(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def digest(*parts: bytes) -> bytes:
    return hashlib.sha256(lengths_and(*parts)).digest()


def derive(secret: bytes, purpose: str, *binders: bytes, length: int = 16) -> bytes:
    info = lengths_and(b"secagg 1", purpose.encode(), *binders)
    pseudorandom = hmac.digest(bytes(32), secret, "sha256")
    block, output = b"", b""
    for index in range(1, 256):
        block = hmac.digest(pseudorandom, block + info + bytes([index]), "sha256")
        output += block
        if len(output) >= length:
            break
    return output[:length]


def keystream(key: bytes, count: int) -> bytes:
    block = Cipher(AES(key), ECB()).encryptor()  # noqa: S305 - the building block of counter mode
    return b"".join(block.update(index.to_bytes(16, "big")) for index in range(-(-count // 16)))[:count]


def word_bytes(bits: int) -> int:
    return {16: 2, 24: 4, 32: 4, 64: 8}[bits]


def elements(key: bytes, bits: int, count: int) -> list[int]:
    size = word_bytes(bits)
    data = keystream(key, 16 + count * size)[16:]
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]


def check_masks(key: bytes) -> list[int]:
    head = keystream(key, 16)
    return [int.from_bytes(head[:8], "little"), int.from_bytes(head[8:], "little")]


def public_key(seed: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def agree(seed: bytes, peer_seed: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(seed).exchange(
        X25519PrivateKey.from_private_bytes(peer_seed).public_key()
    )


# --------------------------------------------------------------------------------------------- MessagePack


def packed(value: object) -> bytes:
    """The shortest MessagePack coding of nil, unsigned integers, bytes, text and arrays."""
    if value is None:
        return b"\xc0"
    if isinstance(value, int):
        if value < 128:
            return bytes([value])
        size = next(size for size in (1, 2, 4, 8) if value < 256**size)
        return bytes([{1: 0xCC, 2: 0xCD, 4: 0xCE, 8: 0xCF}[size]]) + value.to_bytes(size, "big")
    if isinstance(value, bytes):
        head = b"\xc4" + bytes([len(value)]) if len(value) < 256 else b"\xc5" + len(value).to_bytes(2, "big")
        return head + value
    if isinstance(value, str):
        return bytes([0xA0 | len(value)]) + value.encode()
    if not isinstance(value, (list, tuple)) or len(value) >= 16:
        raise TypeError("the vectors need no other types")
    return bytes([0x90 | len(value)]) + b"".join(map(packed, value))


def on_wire(*fields: object) -> bytes:
    return b"\x01" + packed(fields)


# -------------------------------------------------------------------------------------------- declarations


def bits_to_bytes(bits: str) -> bytes:
    padded = bits + "0" * (-len(bits) % 8)
    return bytes(int(padded[at : at + 8], 2) for at in range(0, len(padded), 8))


def elias_fano(held: str) -> bytes:
    rare = "1" if 2 * held.count("1") <= len(held) else "0"
    positions = [place for place, bit in enumerate(held) if bit == rare]
    head = ((rare == "1") << 63 | len(positions)).to_bytes(8, "big")
    if not positions:
        return head
    low_bits = 0
    while len(positions) << (low_bits + 1) <= len(held):
        low_bits += 1
    high, low, reached = "", "", 0
    for position in positions:
        high += "0" * ((position >> low_bits) - reached) + "1"
        reached = position >> low_bits
        low += "".join("01"[position >> place & 1] for place in range(low_bits))
    return head + bits_to_bytes(high) + bits_to_bytes(low)


def spread(size: int, places: list[int], symbol: str = "1") -> str:
    other = "01"[symbol == "0"]
    return "".join(symbol if place in places else other for place in range(size))


def declarations() -> Json:
    """A layout of two layers and three units; coordinate strings have a character a coordinate."""
    layout = {
        "tensors": [
            {"name": "fc1.weight", "shape": [3, 2], "unit_axes": {"0": [0, 1, 2]}},
            {"name": "fc1.bias", "shape": [3], "unit_axes": {"0": [0, 1, 2]}},
            {"name": "fc2.weight", "shape": [2, 3], "unit_axes": {"1": [0, 1, 2]}},
            {"name": "fc2.bias", "shape": [2], "unit_axes": {}},
        ],
        "unit_groups": {"fc1": 3},
    }
    flat = {"tensors": [{"name": "w", "shape": [200], "unit_axes": {}}], "unit_groups": {}}
    few, most = spread(200, [0, 3, 64, 65, 199]), spread(200, [7, 8, 9, 100], "0")
    half = "10" * 100
    units = "110011" + "101" + "101101" + "11"
    valid = [
        {"layout": "units", "kind": "full", "data": b"", "held": "1" * 17},
        {"layout": "units", "kind": "layers", "data": bits_to_bytes("01"), "held": "0" * 9 + "1" * 8},
        {"layout": "units", "kind": "units", "data": bits_to_bytes("101"), "held": units},
        {"layout": "units", "kind": "bitmap", "data": bits_to_bytes("1" + "0" * 16), "held": "1" + "0" * 16},
        {"layout": "flat", "kind": "bitmap", "data": bits_to_bytes(half), "held": half},
        {"layout": "flat", "kind": "sparse", "data": elias_fano(few), "held": few},
        {"layout": "flat", "kind": "sparse", "data": elias_fano(most), "held": most},
        {"layout": "flat", "kind": "sparse", "data": elias_fano("0" * 200), "held": "0" * 200},
    ]
    coded = elias_fano(few)
    invalid = [
        {"layout": "units", "kind": "full", "data": b"\x80", "why": "carries no data"},
        {"layout": "units", "kind": "layers", "data": b"\x41", "why": "padding bit"},
        {"layout": "units", "kind": "units", "data": b"", "why": "take 1 bytes"},
        {"layout": "units", "kind": "units", "data": b"\xa0\x00", "why": "take 1 bytes"},
        {"layout": "units", "kind": "units", "data": b"\xb0", "why": "padding bit"},
        {"layout": "flat", "kind": "bitmap", "data": bits_to_bytes(few), "why": "canonical"},
        {"layout": "flat", "kind": "sparse", "data": elias_fano(half), "why": "canonical"},
        {"layout": "flat", "kind": "sparse", "data": coded[:7], "why": "head"},
        {"layout": "flat", "kind": "sparse", "data": coded[:-1], "why": "number of positions"},
        {"layout": "flat", "kind": "sparse", "data": coded[:8] + b"\x00" + coded[8:], "why": "canonical|outside"},
        {"layout": "flat", "kind": "sparse", "data": b"\xff" * 8 + coded[8:], "why": "too short"},
    ]
    return {"layouts": {"units": layout, "flat": flat}, "valid": valid, "invalid": invalid}


# ------------------------------------------------------------------------------------------------- vectors


def streams() -> Json:
    secret, h2 = bytes(range(32)), b"\x42" * 32
    derivations = [
        ("self mask", [h2], 16),
        ("pairwise mask", [h2, (3).to_bytes(8, "big"), (8).to_bytes(8, "big")], 16),
        ("seal", [h2, bytes(8), b"\x01" * 8], 32),
        ("", [], 100),
        ("checksum", [b""], 16),
    ]
    key = derive(secret, "self mask", h2)
    return {
        "derive": [
            {
                "secret": secret,
                "purpose": purpose,
                "binders": binders,
                "key": derive(secret, purpose, *binders, length=n),
            }
            for purpose, binders, n in derivations
        ],
        "stream": [
            {"key": key, "bits": bits, "start": start, "elements": elements(key, bits, start + 6)[start:]}
            for bits in (16, 24, 32, 64)
            for start in (0, 5, 1000)
        ],
        "check_masks": [{"key": key, "masks": check_masks(key)}],
    }


def commitments() -> Json:
    salt, share = b"\x05" * 16, (2**256 + 296).to_bytes(33, "big")
    pairs = [(0, 1), (1, 0), (2**63 - 1, 12)]
    return {
        "share": [
            {
                "salt": salt,
                "dealer": dealer,
                "holder": holder,
                "share": share,
                "commitment": digest(
                    b"secagg share", salt, dealer.to_bytes(8, "big"), holder.to_bytes(8, "big"), share
                ),
            }
            for dealer, holder in pairs
        ],
        "seed": [
            {
                "h1": b"\x11" * 32,
                "owner": owner,
                "seed": b"\x22" * 32,
                "commitment": digest(b"secagg seed", b"\x11" * 32, owner.to_bytes(8, "big"), b"\x22" * 32),
            }
            for owner in (0, 258)
        ],
        "not_a_field_element": [(2**256 + 297).to_bytes(33, "big"), b"\xff" * 33, bytes(32), bytes(34)],
    }


def messages() -> Json:
    session, key, other = bytes(range(16)), b"\x01" * 32, b"\x02" * 32
    sealed = {
        "dealer": 7,
        "holder": 300,
        "box": b"\x03" * 114,
        "self_seed_commitment": key,
        "masking_key_commitment": other,
        "signature": None,
    }
    signature = b"\x08" * 64
    mask = {"kind": "bitmap", "data": b"\xf0\x80", "provenance": "data"}
    full = {"kind": "full", "data": b"", "provenance": "public"}
    member = {"id": 7, "masking_key": key, "transport_key": other}
    revealed = {"dealer": 70_000, "share": b"\x04" * 33, "salt": b"\x05" * 16}
    examples: dict[str, Json] = {
        "AdvertiseKeys": {"session": session, "sender": 7, "masking_key": key, "transport_key": other},
        "Roster": {"session": session, "members": [member, member | {"id": 2**63 - 1}]},
        "ShareKeys": {
            "session": session,
            "sender": 7,
            "params": key,
            "layout": other,
            "transcript": key,
            "declaration": mask,
            "weight_bucket": 127,
            "seed_commitment": other,
            "shares": [sealed | {"signature": signature}],
            "signature": signature,
        },
        "RelayedShares": {
            "session": session,
            "participants": [
                {"id": 7, "declaration": full, "weight_bucket": None},
                {"id": 200, "declaration": mask, "weight_bucket": 0},
            ],
            "shares": [sealed, sealed],
            "signatures": [signature, signature],
        },
        "MaskedInput": {
            "session": session,
            "sender": 7,
            "check": b"\x06" * 16,
            "vector": bytes(range(256)) + b"\x07",
            "signature": None,
        },
        "ConsistencyRequest": {"session": session, "survivors": b"\xc0", "signatures": [signature, signature]},
        "ConsistencyCheck": {"session": session, "sender": 7, "signature": signature},
        "UnmaskRequest": {
            "session": session,
            "survivors": b"\xc0",
            "quorum": [{"id": 7, "signature": signature}, {"id": 200, "signature": signature}],
        },
        "Unmask": {"session": session, "sender": 7, "shares": [revealed, revealed]},
    }
    valid = [
        {"type": tag, "fields": fields, "bytes": on_wire(tag, *positional(fields))} for tag, fields in examples.items()
    ]
    good = ("AdvertiseKeys", session, 7, key, other)
    invalid = [
        ("empty", b""),
        ("version 0", b"\x00" + packed(good)),
        ("version 2", b"\x02" + packed(good)),
        ("version only", b"\x01"),
        ("unknown tag", on_wire("AdvertiseKey", *good[1:])),
        ("tag of another message", on_wire("MaskedInput", *good[1:])),
        ("trailing byte", on_wire(*good) + b"\xc0"),
        ("last byte missing", on_wire(*good)[:-1]),
        ("field missing", on_wire(*good[:-1])),
        ("field too many", on_wire(*good, None)),
        ("session of 15 bytes", on_wire("AdvertiseKeys", session[:15], 7, key, other)),
        ("key of 33 bytes", on_wire("AdvertiseKeys", session, 7, key + b"\0", other)),
        ("id of 64 bits", on_wire("AdvertiseKeys", session, 2**63, key, other)),
        ("negative id", on_wire(*good).replace(session + b"\x07", session + b"\xff")),
        ("id in two bytes", on_wire(*good).replace(session + b"\x07", session + b"\xcc\x07")),
        ("id as a float", on_wire(*good).replace(session + b"\x07", session + b"\xca\x40\xe0\x00\x00")),
        ("long length of bytes", on_wire(*good).replace(b"\xc4\x10" + session, b"\xc5\x00\x10" + session)),
        ("long length of the array", b"\x01\xdc\x00\x05" + packed(good)[1:]),
        ("text for bytes", on_wire(*good).replace(b"\xc4\x20" + key, b"\xd9\x20" + key)),
        ("bucket 128", on_wire("RelayedShares", session, [[7, ["full", b"", "public"], 128]], [], [])),
        ("unknown provenance", on_wire("RelayedShares", session, [[7, ["full", b"", "secret"], None]], [], [])),
        ("defaults left out", on_wire("RelayedShares", session, [[7, ["full"], None]], [], [])),
        ("default signature left out", on_wire("MaskedInput", session, 7, bytes(16), b"")),
        ("signature of 63 bytes", on_wire("ConsistencyCheck", session, 7, signature[1:])),
        ("both shares of one dealer in one", on_wire("Unmask", session, 7, [[8, bytes(33), bytes(16), bytes(33)]])),
    ]
    return {"valid": valid, "invalid": [{"name": name, "bytes": data} for name, data in invalid]}


def positional(value: Json) -> list[object]:
    """Structs travel as arrays of their fields."""
    return [as_fields(field) for field in value.values()]


def as_fields(value: object) -> object:
    if isinstance(value, dict):
        return positional(value)
    if isinstance(value, list):
        return [as_fields(entry) for entry in value]
    return value


def session() -> Json:
    """Three clients, uniform, ring of 24 bits: from seeds to what each sends and what the server is left with."""
    seeds = {
        client: {
            name: hashlib.sha256(f"{name} {client}".encode()).digest() for name in ("masking", "transport", "self")
        }
        for client in (3, 5, 9)
    }
    inputs = {3: [5, -7, 0, 524287], 5: [1, 1, 1, 1], 9: [-524287, 2, -3, 524287]}
    session_id = bytes(range(16))
    params = (
        "[('adversary', 'semi-honest'), ('corrupt', 0), ('exact_denominators', False), ('levels', 1048576), "
        "('max_dropouts', None), ('max_weight', 1.0), ('min_cohort', 3), ('neighbours', None), "
        "('out_of_range', 'refuse'), ('participation', 0.0), ('security_bits', 40), ('share_threshold', None), "
        "('value_range', 4.0), ('weighting', 'hidden')]"
    )
    params_digest = hashlib.sha256(b"secagg params" + params.encode()).digest()
    layout_digest = hashlib.sha256(b"secagg layout([('w', (4,), 'float32', [])], [])").digest()
    session_digest = digest(session_id, params_digest, layout_digest, b"uniform", b"\0", b"", b"")
    members = [[client, public_key(of["masking"]), public_key(of["transport"])] for client, of in seeds.items()]
    roster = on_wire("Roster", session_id, members)
    h1 = digest(b"secagg h1", b"1 2 2", session_digest, roster)
    h2 = digest(b"secagg h2", h1, *(packed([client, ["full", b"", "public"], None]) for client in seeds))
    vectors, checks = masked(seeds, inputs, h2)
    return {
        "id": session_id,
        "graph_seed": digest(b"secagg graph", session_digest, roster),
        "seeds": [{"client": client} | of for client, of in seeds.items()],
        "params_digest": params_digest,
        "layout_digest": layout_digest,
        "session_digest": session_digest,
        "h1": h1,
        "h2": h2,
        "inputs": [{"client": client, "integers": values} for client, values in inputs.items()],
        "masked": [
            {
                "client": client,
                "check": b"".join(value.to_bytes(8, "little") for value in checks[client]),
                "vector": b"".join(value.to_bytes(3, "little") for value in vectors[client]),
            }
            for client in seeds
        ],
        "sum": [sum(column) for column in zip(*inputs.values(), strict=True)],
    }


def masked(
    seeds: dict[int, dict[str, bytes]], inputs: dict[int, list[int]], h2: bytes
) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """What each client sends: input, self mask, and a signed pairwise mask a neighbour."""
    coefficients = [elements(derive(h2, "checksum", bytes([k])), 32, 4) for k in range(2)]
    vectors, checks = {}, {}
    for client, of in seeds.items():
        keys = [(1, derive(of["self"], "self mask", h2))]
        for peer, other in seeds.items():
            if peer != client:
                low, high = sorted((client, peer))
                agreed = agree(of["masking"], other["masking"])
                key = derive(agreed, "pairwise mask", h2, low.to_bytes(8, "big"), high.to_bytes(8, "big"))
                keys.append((1 if client < peer else -1, key))
        vector = [
            value + sum(sign * elements(key, 24, 4)[place] for sign, key in keys)
            for place, value in enumerate(inputs[client])
        ]
        vectors[client] = [value % 2**24 for value in vector]
        checks[client] = [
            (
                sum(c * x for c, x in zip(coefficients[k], inputs[client], strict=True))
                + sum(sign * check_masks(key)[k] for sign, key in keys)
            )
            % 2**64
            for k in range(2)
        ]
    return vectors, checks


def everything() -> dict[str, str]:
    """File name to content."""
    topics = {
        "prg": streams(),
        "declarations": declarations(),
        "messages": messages(),
        "commitments": commitments(),
        "session": session(),
    }
    return {f"{name}.json": json.dumps(topic, indent=1, default=bytes.hex) + "\n" for name, topic in topics.items()}


if __name__ == "__main__":
    for file_name, content in everything().items():
        (Path(__file__).parent / file_name).write_text(content)
