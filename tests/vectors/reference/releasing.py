"""What a session releases, which places each client fills, and the integers that it brings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tests.vectors.reference.declaring import size_of
from tests.vectors.reference.masking import ring_bits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.vectors.reference.declaring import Json


def magnitude(params: Json) -> int:
    return int((params["levels"] - 1) // 2)


def encoded(value: float, limit: float, bound: int, *, saturate: bool = False) -> int:
    """Python's ``round`` goes to the even neighbour, as IEEE 754 does."""
    return round((min(max(value, -limit), limit) if saturate else value) * (bound / limit))


def encoded_weight(params: Json, weight: float) -> int:
    return round(weight / params["max_weight"] * magnitude(params))


def bucket_of(params: Json, weight: float) -> int:
    return round(-2 * math.log2(weight / params["max_weight"]))


def weight_of_bucket(params: Json, bucket: int) -> int:
    return max(1, round(2.0 ** (-bucket / 2) * magnitude(params)))


class Release:
    """The plan of a session, over the clients that completed ShareKeys.

    ``held`` has the coordinates that each of them declared. In a uniform session that is all of them.
    """

    def __init__(self, session: Json, needed: int, held: dict[int, str]) -> None:
        self.session, self.params = session, session["params"]
        clients, floor = len(held), self.params["min_cohort"] + self.params["corrupt"]
        most = self.params["max_dropouts"]
        self.dropouts = max(0, min(clients // 3 if most is None else most, clients - max(floor, needed)))
        required = max(floor + self.dropouts, math.ceil(self.params["participation"] * clients - 1e-9))
        self.released = [c for c, count in enumerate(self._coverage(held)) if count >= required]
        self.bits = ring_bits(clients * magnitude(self.params))
        self.held = {client: "".join(of[c] for c in self.released) for client, of in held.items()}
        self.groups = list(dict.fromkeys(self.held[client] for client in sorted(self.held)))
        self.slots = self._slots()

    def _coverage(self, held: dict[int, str]) -> list[int]:
        counted = self.session["counted"]
        if counted is None:
            return [column.count("1") for column in zip(*held.values(), strict=True)]
        missing = len(set(counted["clients"]) - set(held))
        return [max(least - missing, 0) for least in counted["least"]]

    def _slots(self) -> str:
        weighting = self.params["weighting"]
        if self.params["exact_denominators"]:
            return "coordinates"
        if not self.session["weighted"] or weighting == "public":
            return "none"
        return "total" if self.session["mode"] == "uniform" or weighting == "average" else "groups"

    def places(self, client: int) -> str:
        held = self.held[client]
        match self.slots:
            case "total":
                return held + "1"
            case "groups":
                return held + "".join("01"[held == group] for group in self.groups)
            case "coordinates":
                return held + "1" * (len(held) + 1)
        return held

    def integers(self, client: int, update: dict[str, list[float]], own: str, weight: int | None) -> list[int]:
        """What the client brings, place by place; zero where it declared a coordinate that it does not hold."""
        limits, values = self._limits(), [value for tensor in update.values() for value in tensor]
        bound = magnitude(self.params) if weight is None else weight
        saturate = self.params["out_of_range"] == "saturate"
        brought = [
            encoded(values[c] if own[c] == "1" else 0.0, limits[c], bound, saturate=saturate)
            for c, bit in zip(self.released, self.held[client], strict=True)
            if bit == "1"
        ]
        one = 1 if weight is None else weight
        match self.slots:
            case "total" | "groups":
                return [*brought, one]
            case "coordinates":
                return [*brought, *(one * int(own[c]) for c in self.released), one]
        return brought

    def total(self, brought: dict[int, list[int]], survivors: Sequence[int]) -> list[int]:
        sums = [0] * len(self.places(survivors[0]))
        for client in survivors:
            filled = [place for place, bit in enumerate(self.places(client)) if bit == "1"]
            for place, value in zip(filled, brought[client], strict=True):
                sums[place] += value
        return sums

    def _limits(self) -> list[float]:
        ranges = self.params["value_range"]
        limits = []
        for tensor in self.session["layout"]["tensors"]:
            limit = ranges if isinstance(ranges, float) else ranges.get(tensor["name"], ranges.get("*"))
            limits += [limit] * size_of(tensor)
        return limits
