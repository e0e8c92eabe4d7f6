"""Vectors of vectors: the ring and its packing, the encoding of values and weights, and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.vectors.reference import masking, primitives, releasing
from tests.vectors.reference.transcripts import PARAMS

if TYPE_CHECKING:
    from tests.vectors.reference.declaring import Json

H2 = b"\x42" * 32


def ring() -> Json:
    rows = {16: [0, 1, -1, 2**15 - 1, -(2**15), 258], 24: [0, 1, -1, 2**23 - 1, -(2**23)], 32: [0, -2, 2**31 - 1]}
    rows[64] = [0, -1, 2**63 - 1, -(2**63)]
    largest = [1, 2**15 - 1, 2**15, 2**23 - 1, 2**23, 2**31 - 1, 2**31, 2**63 - 1]
    return {
        "packed": [
            {"bits": bits, "integers": integers, "bytes": masking.packed_vector(bits, integers)}
            for bits, integers in rows.items()
        ],
        "holding": [{"largest": one, "bits": masking.ring_bits(one)} for one in largest],
        "overflow": [2**63],
    }


def encoding() -> Json:
    """Values of one tensor. NaN and infinity are text, as JSON has no numbers for them."""
    rows: list[tuple[str, Json, list[float]]] = [
        ("ties go to the even neighbour", {"levels": 9}, [0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5]),
        ("an even number of levels wastes one", {"levels": 10}, [4.0, -4.0, 0.4999, 0.0, -0.0]),
        ("the default", {}, [4.0, -4.0, 1e-6, 3.8e-6, 3.9e-6, 0.1]),
        ("saturated", {"levels": 9, "value_range": 1.0, "out_of_range": "saturate"}, [1.0, 1.1, -7.0, 0.3, -0.12]),
        ("weighted", {"weight": 0.3}, [4.0, -4.0, 0.1]),
        ("a range that is no power of two", {"levels": 2**16, "value_range": 0.3, "weight": 1.0}, [0.3, 0.1, -0.2]),
        ("many levels", {"levels": 2**48, "value_range": 1.0}, [1.0, 0.1, -1e-13, 3e-15]),
    ]
    refused: list[tuple[str, str, list[float | str]]] = [
        ("NaN", "refuse", [0.0, "nan"]),
        ("infinity", "refuse", ["inf"]),
        ("infinity is never saturated", "saturate", ["-inf"]),
        ("NaN is never saturated", "saturate", ["nan"]),
        ("just out of range", "refuse", [4.000000000000001]),
        ("below the range", "refuse", [-5.0]),
    ]
    return {
        "values": [encoded(name, values, **settings) for name, settings, values in rows],
        "refused": [{"name": name, "out_of_range": mode, "values": values} for name, mode, values in refused],
        "weights": weights(),
        "refused_weights": [0.0, -1.0, "nan", "inf", 10.000000000000002, 1e-9],
    }


def encoded(name: str, values: list[float], weight: float | None = None, **changes: object) -> Json:
    settings = {"levels": 2**20, "value_range": 4.0, "out_of_range": "refuse"} | changes
    params = PARAMS | settings
    bound = releasing.magnitude(params) if weight is None else releasing.encoded_weight(params, weight)
    limit, saturate = params["value_range"], params["out_of_range"] == "saturate"
    integers = [releasing.encoded(value, limit, bound, saturate=saturate) for value in values]
    return {"name": name, **settings, "weight": weight, "values": values, "integers": integers}


def weights() -> list[Json]:
    params = PARAMS | {"max_weight": 10.0}
    rows = []
    for weight in (10.0, 7.5, 5.0, 3.5, 1.0, 0.001):
        bucket = releasing.bucket_of(params, weight)
        public = releasing.weight_of_bucket(params, bucket)
        rows.append({"weight": weight, "encoded": releasing.encoded_weight(params, weight)})
        rows[-1] |= {"bucket": bucket, "bucket_weight": public}
    return rows


def masks() -> Json:
    """Two neighbours of one client: one below it that fills some of its places, one above that fills all of them."""
    seeds = {client: primitives.seeded(b"masking %d" % client, 32) for client in (2, 5, 9)}
    self_seed = primitives.seeded(b"self", 32)
    agreed = {peer: primitives.agree(seeds[5], primitives.public_key(seeds[peer])) for peer in (2, 9)}
    places = {5: "1101111", 2: "0110010", 9: "1111111"}
    integers = {16: [0, 1, -1, 300, 32767, -5], 24: [0, 1, -1, 8388607, -8388608, 7]}
    integers |= {32: [0, 1, -1, 2**31 - 1, 5, 6], 64: [0, 1, -1, 2**47, -(2**47), 12]}
    cases = []
    for bits, values in integers.items():
        check, vector = masking.masked(5, bits, H2, values, places, self_seed=self_seed, agreed=agreed)
        cases.append({"bits": bits, "integers": values, "check": check, "vector": vector})
    keys = {str(peer): masking.pairwise_key(secret, H2, 5, peer) for peer, secret in agreed.items()}
    return {
        "h2": H2,
        "client": 5,
        "self_seed": self_seed,
        "self_key": masking.self_key(self_seed, H2),
        "masking_seeds": {str(client): seed for client, seed in seeds.items()},
        "pairwise_keys": keys,
        "places": {str(client): of for client, of in places.items()},
        "checksums": [
            {"integers": values, "sums": list(map(str, masking.checksums(H2, places[5], values)))}
            for values in integers.values()
        ],
        "masked": cases,
    }
