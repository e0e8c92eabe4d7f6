"""What a session must come to, in plain arithmetic: exact fractions, loops over clients, no masks, no wire.

Written from the documentation of ``Params``, ``encoding`` and the release rule; it calls none of their code.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from secagg import declaration
from secagg.driver import Stage
from secagg.errors import CoverageError, ParameterError, SecAggError, TooFewClientsError
from secagg.layout import NO_UNIT

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from secagg.layout import Layout
    from tests.strategies import Mask, Scenario


def encoded(value: float, limit: float, weight: int) -> int:
    """Fixed point: ``rint(value * weight / limit)``, ties to even; ``weight`` is the magnitude where all weigh alike.

    What lies beyond the range is clipped: the other choice, refusing it, never gets here.
    """
    clipped = max(-Fraction(limit), min(Fraction(limit), Fraction(value)))
    return round(clipped * weight / Fraction(limit))


def bucketed(weight: float, most: float, magnitude: int) -> int:
    """A public weight: the nearest power of the square root of two below ``most``, in steps of ``most / magnitude``."""
    bucket = min(range(200), key=lambda j: abs(math.log2(weight / most) + j / 2))
    return max(1, round(2.0 ** -(bucket // 2) * math.sqrt(0.5) ** (bucket % 2) * magnitude))


def least_coverage(layout: Layout, masks: Collection[Mask]) -> NDArray[np.int32]:
    """What sums of dense, layer and unit bits say for certain about the coverage, coordinate by coordinate.

    Of s clients whose masks are made of units, a coordinate of units u and v is held by at least
    count_u + count_v - s; everybody who is dense, or holds the whole layer, holds it too.
    """
    compact = [
        declaration.of_coordinates(layout, mask.given, declaration.Provenance.DATA)
        if isinstance(mask.given, np.ndarray)
        else mask.given or declaration.FULL
        for mask in masks
    ]
    made_of_units = [mask.held.all() or one.kind == "units" for mask, one in zip(masks, compact, strict=True)]
    units = [
        np.ones(layout.unit_count, bool) if mask.held.all() else declaration.read_units(layout, one)
        for mask, one, structured in zip(masks, compact, made_of_units, strict=True)
        if structured
    ]
    least = []
    for tensor, place in layout.slices():
        of_layer = [t.name for t in layout.tensors if t.layer == tensor.layer]
        whole = sum(all(mask.held[where].all() for t, where in layout.slices() if t.name in of_layer) for mask in masks)
        for index in itertools.product(*map(range, tensor.shape)):
            mine = [u for u in (tensor.unit_axes[a][index[a]] for a in tensor.unit_axes) if u != NO_UNIT]
            bound = sum(sum(bool(held[u]) for held in units) for u in mine) - (len(mine) - 1) * len(units)
            least.append(max(whole, bound))
        assert len(least) == place.stop
    return np.array(least, np.int32)


@dataclass(frozen=True, eq=False)
class Plain:
    """The plain account of a scenario."""

    scenario: Scenario

    @cached_property
    def magnitude(self) -> int:
        """Largest encoded value."""
        return (self.scenario.session.params.levels - 1) // 2

    @cached_property
    def floor(self) -> int:
        """Fewest clients in a sum."""
        return self.scenario.session.params.min_cohort + self.scenario.session.params.corrupt

    @cached_property
    def threshold(self) -> int:
        """Shares that rebuild a secret: at most a majority, and no more than survive the dropouts."""
        params, count = self.scenario.session.params, len(self.scenario.completed(Stage.ADVERTISE_KEYS))
        if params.share_threshold is not None:
            return params.share_threshold
        if params.adversary == "active":
            return self._quorum(count)
        return max(2, params.corrupt + 1, min(count // 2 + 1, count - self._tolerated(count, 0)))

    @cached_property
    def needed(self) -> int:
        """Clients that have to stay to the end, for their shares and, with an active server, for their agreement."""
        active = self.scenario.session.params.adversary == "active"
        quorum = self._quorum(len(self.scenario.completed(Stage.ADVERTISE_KEYS))) if active else 0
        return max(self.threshold, quorum)

    @cached_property
    def shared(self) -> list[int]:
        """U2."""
        return self.scenario.completed(Stage.SHARE_KEYS)

    @cached_property
    def survivors(self) -> list[int]:
        """U3."""
        return self.scenario.completed(Stage.MASKED_INPUT)

    @cached_property
    def dropouts(self) -> int:
        """D."""
        return self._tolerated(len(self.shared), self.needed)

    @cached_property
    def required(self) -> int:
        """Coverage that releases a coordinate."""
        participation = Fraction(self.scenario.session.params.participation).limit_denominator(1000)
        return max(self.floor + self.dropouts, math.ceil(participation * len(self.shared)))

    @cached_property
    def released(self) -> NDArray[np.bool_]:
        """Coordinates that enough clients of U2 hold, as far as anybody can know."""
        session, masks = self.scenario.session, self.scenario.masks
        if session.mode == "mask-indexed":
            coverage = np.sum([masks[client].held for client in self.shared], axis=0)
        elif session.counted is None:
            coverage = np.full(session.layout.size, len(self.shared))
        else:
            coverage = session.counted.least - (len(masks) - len(self.shared))
        return np.asarray(coverage >= self.required)

    @cached_property
    def failure(self) -> type[SecAggError] | None:
        """The error that ends the session, or None if it comes to a sum."""
        advertised, params = self.scenario.completed(Stage.ADVERTISE_KEYS), self.scenario.session.params
        if len(advertised) < self.floor:
            return TooFewClientsError
        if params.share_threshold is not None:
            least = self._quorum(len(advertised)) if params.adversary == "active" else params.corrupt + 1
            if not least <= params.share_threshold <= len(advertised):
                return ParameterError
        if len(self.shared) < max(self.floor, self.needed):
            return TooFewClientsError
        if not self.released.any():
            return CoverageError
        if self._slots == "groups" and min(map(len, self.groups)) < self.floor + self.dropouts:
            return CoverageError
        if len(self.survivors) < len(self.shared) - self.dropouts:
            return TooFewClientsError
        active = params.adversary == "active"
        agreeing = len(self.scenario.completed(Stage.CONSISTENCY_CHECK))
        if active and agreeing < self.needed:
            return TooFewClientsError
        if len(self.scenario.completed(Stage.UNMASK)) < self.threshold:
            return TooFewClientsError
        return None

    @cached_property
    def groups(self) -> list[list[int]]:
        """Clients of U2 with equal released coordinates, in order of their first member."""
        groups: dict[tuple[bool, ...], list[int]] = {}
        for client in self.shared:
            groups.setdefault(tuple(self.scenario.masks[client].held[self.released]), []).append(client)
        return list(groups.values())

    @cached_property
    def weights(self) -> dict[int, int]:
        """Encoded weights; the magnitude, which stands for 1, where all weigh the same."""
        session = self.scenario.session
        most = session.params.max_weight
        weights = {}
        for client, contribution in self.scenario.contributions.items():
            if contribution.weight is None:
                weights[client] = self.magnitude
            elif session.mode == "mask-indexed" and session.params.weighting == "public":
                weights[client] = bucketed(contribution.weight, most, self.magnitude)
            else:
                weights[client] = round(Fraction(contribution.weight) / Fraction(most) * self.magnitude)
        return weights

    @cached_property
    def limits(self) -> list[float]:
        """Value range of each coordinate."""
        layout, params = self.scenario.session.layout, self.scenario.session.params
        return [params.range_of(tensor.name) for tensor in layout.tensors for _ in range(tensor.size)]

    @cached_property
    def values(self) -> dict[int, NDArray[np.float64]]:
        """Each client's update as one vector; rubbish outside its mask."""
        return {
            client: np.concatenate(
                [
                    np.asarray(contribution.update[t.name], np.float64).reshape(-1)
                    for t in self.scenario.session.layout.tensors
                ]
            )
            for client, contribution in self.scenario.contributions.items()
        }

    def holders(self, coordinate: int) -> list[int]:
        """Survivors that hold a coordinate."""
        return [client for client in self.survivors if self.scenario.masks[client].held[coordinate]]

    @cached_property
    def integers(self) -> list[int]:
        """The sums that a session must release: released coordinates, then weight slots."""
        places = np.flatnonzero(self.released)
        sums = [
            sum(encoded(self.values[c][place], self.limits[place], self.weights[c]) for c in self.holders(int(place)))
            for place in places
        ]
        slot = self.weights if self.scenario.session.weighted else dict.fromkeys(self.weights, 1)
        match self._slots:
            case "none":
                return sums
            case "total":
                return [*sums, sum(slot[c] for c in self.survivors)]
            case "groups":
                return sums + [sum(slot[c] for c in group if c in self.survivors) for group in self.groups]
            case _:
                covering = [sum(slot[c] for c in self.holders(int(place))) for place in places]
                return [*sums, *covering, sum(slot[c] for c in self.survivors)]

    def weight(self, coordinate: int) -> Fraction:
        """The denominator of a coordinate, in multiples of ``max_weight``, or in clients without weights."""
        session, holders = self.scenario.session, self.holders(coordinate)
        if session.mode == "uniform" and not session.params.exact_denominators:
            return self._total(self.survivors)
        if session.mode == "mask-indexed" and session.weighted and session.params.weighting == "average":
            return self._total(self.survivors) * len(holders) / len(self.survivors)
        return self._total(holders)

    def mean(self, coordinate: int) -> Fraction:
        """The weighted mean of the clipped values under the rounded weights, without rounding of the values."""
        limit = Fraction(self.limits[coordinate])
        total = Fraction(0)
        for client in self.holders(coordinate):
            value = max(-limit, min(limit, Fraction(float(self.values[client][coordinate]))))
            total += value * self.weights[client] / self.magnitude
        return total / self.weight(coordinate)

    @property
    def _slots(self) -> str:
        session = self.scenario.session
        if session.mode == "uniform" and session.params.exact_denominators:
            return "coordinates"
        if not session.weighted:
            return "none"
        if session.mode == "uniform":
            return "total"
        return {"hidden": "groups", "average": "total", "public": "none"}[session.params.weighting]

    def _total(self, clients: list[int]) -> Fraction:
        return Fraction(sum(self.weights[client] for client in clients), self.magnitude)

    def _tolerated(self, clients: int, needed: int) -> int:
        wanted = self.scenario.session.params.max_dropouts
        wanted = clients // 3 if wanted is None else wanted
        return max(0, min(wanted, clients - self.floor, clients - needed))

    def _quorum(self, clients: int) -> int:
        """More than half of the clients and of the corrupt ones together."""
        return math.floor((clients + self.scenario.session.params.corrupt) / 2) + 1
