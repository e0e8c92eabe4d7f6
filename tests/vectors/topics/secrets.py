"""Vectors of what hides: keys and streams, shares, commitments, boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.vectors.reference import masking, primitives, sharing
from tests.vectors.reference.primitives import derive, id_bytes

if TYPE_CHECKING:
    from tests.vectors.reference.declaring import Json

SECRET, H1, H2 = bytes(range(32)), b"\x11" * 32, b"\x42" * 32


def prg() -> Json:
    derivations: list[tuple[str, list[bytes], int]] = [
        ("self mask", [H2], 16),
        ("pairwise mask", [H2, id_bytes(3), id_bytes(8)], 16),
        ("seal", [H1, id_bytes(0), b"\x01" * 8], 32),
        ("", [], 100),
        ("checksum", [b""], 16),
    ]
    key = derive(SECRET, "self mask", H2)
    return {
        "derive": [
            {
                "secret": SECRET,
                "purpose": purpose,
                "binders": binders,
                "key": derive(SECRET, purpose, *binders, length=n),
            }
            for purpose, binders, n in derivations
        ],
        "stream": [
            {"key": key, "bits": bits, "start": start, "words": words(key, bits, start, 6)}
            for bits in masking.WORD_BYTES
            for start in (0, 5, 1000)
        ],
        "check_masks": [{"key": key, "masks": list(map(str, masking.check_masks(key)))}],
        "seeded_entropy": [
            {"seed": seed, "bytes": primitives.seeded(seed, count)} for seed, count in ((b"", 1), (b"graph", 50))
        ],
    }


def words(key: bytes, bits: int, start: int, count: int) -> bytes:
    size = masking.WORD_BYTES[bits]
    return primitives.keystream(key, 16 + (start + count) * size)[16 + start * size :]


def shamir() -> Json:
    entropy = primitives.seeded(b"shamir", 96)
    rows = [
        (SECRET, b"", [1]),
        (SECRET, entropy, [1, 2, 3, 5]),
        (b"\xff" * 32, b"\xff" * 48, [1, 200, 2**40]),
        (bytes(32), bytes(96), [1, 2, 3]),
    ]
    split = []
    for secret, drawn, points in rows:
        shares = sharing.shares(secret, sharing.coefficients(drawn), points)
        threshold = 1 + len(drawn) // 48
        split.append({"secret": secret, "threshold": threshold, "entropy": drawn, "shares": listed(shares)})
    return {"split": split, "rebuild": rebuilt(entropy), "refused_split": refused_split()}


def listed(shares: dict[int, int]) -> list[Json]:
    return [{"point": point, "share": sharing.share_bytes(share)} for point, share in shares.items()]


def rebuilt(entropy: bytes) -> list[Json]:
    """``secret`` is null where the shares must be refused: what they rebuild has more than 32 bytes."""
    shares = sharing.shares(SECRET, sharing.coefficients(entropy), [1, 2, 3, 5, 9])
    beyond = sharing.shares(b"\xff" * 32, sharing.coefficients(entropy), [1, 2, 3])
    cases = {
        "the first three": {point: shares[point] for point in (1, 2, 3)},
        "any three": {point: shares[point] for point in (9, 2, 5)},
        "too few: another secret": {point: shares[point] for point in (1, 2)},
        "an altered share: another secret": {1: shares[1], 2: shares[2] + 1, 3: shares[3]},
        "a secret of 2^256": {point: (share + 1) % sharing.PRIME for point, share in beyond.items()},
    }
    found = {name: sharing.value_at_zero(known) for name, known in cases.items()}
    return [
        {
            "name": name,
            "shares": listed(known),
            "secret": found[name].to_bytes(32, "big") if found[name] < 2**256 else None,
        }
        for name, known in cases.items()
    ]


def refused_split() -> list[Json]:
    rows: list[tuple[str, bytes, int, list[int]]] = [
        ("threshold 0", SECRET, 0, [1, 2]),
        ("threshold above the number of points", SECRET, 3, [1, 2]),
        ("a point twice", SECRET, 2, [1, 1]),
        ("point 0", SECRET, 2, [0, 1]),
        ("a secret of 31 bytes", SECRET[1:], 2, [1, 2]),
    ]
    return [{"name": name, "secret": secret, "threshold": t, "points": points} for name, secret, t, points in rows]


def commitments() -> Json:
    salt, share = b"\x05" * 16, sharing.share_bytes(sharing.PRIME - 1)
    return {
        "share": [
            {
                "salt": salt,
                "dealer": dealer,
                "holder": holder,
                "share": share,
                "commitment": sharing.share_commitment(salt, dealer, holder, share),
            }
            for dealer, holder in ((0, 1), (1, 0), (2**63 - 1, 12))
        ],
        "seed": [
            {"h1": H1, "owner": owner, "seed": SECRET, "commitment": sharing.seed_commitment(H1, owner, SECRET)}
            for owner in (0, 258)
        ],
        "not_a_field_element": [sharing.share_bytes(sharing.PRIME), b"\xff" * 33, bytes(32), bytes(34)],
    }


def sealing() -> Json:
    """Boxes between two transport keys, and what must not open."""
    dealer, holder = primitives.seeded(b"dealer", 32), primitives.seeded(b"holder", 32)
    agreed = primitives.agree(dealer, primitives.public_key(holder))
    pair = tuple((sharing.share_bytes(2**200 + kind), bytes([kind]) * 16) for kind in (1, 2))
    sealed = sharing.sealed_shares(7, 300, agreed, H1, pair)
    box = sealed["box"]
    altered: dict[str, Json] = {
        "the first byte altered": {"box": bytes([box[0] ^ 1]) + box[1:]},
        "the tag altered": {"box": box[:-1] + bytes([box[-1] ^ 1])},
        "another holder": {"holder": 301},
        "dealer and holder exchanged": {"dealer": 300, "holder": 7},
        "another commitment to the self seed": {"self_seed_commitment": sealed["masking_key_commitment"]},
        "another commitment to the masking key": {"masking_key_commitment": sealed["self_seed_commitment"]},
    }
    secrets = {"dealer_seed": dealer, "holder_seed": holder, "h1": H1}
    opened = [{"share": share, "salt": salt} for share, salt in pair]
    refused = [{"name": name, "h1": H1, "sealed": sealed | change} for name, change in altered.items()]
    refused.append({"name": "another transcript", "h1": H2, "sealed": sealed})
    beyond = sharing.sealed_shares(7, 300, agreed, H1, [(sharing.share_bytes(sharing.PRIME), bytes(16)), pair[1]])
    refused.append({"name": "no field element", "h1": H1, "sealed": beyond})
    keys = {
        "dealer_public": primitives.public_key(dealer),
        "holder_public": primitives.public_key(holder),
        "agreed": agreed,
    }
    return secrets | keys | {"sealed": sealed, "opened": opened, "refused": refused}
