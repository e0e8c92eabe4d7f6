"""What a round costs each role, as formulas: counted operations times constants that are fitted to measurements.

Counts are in the clients n that advertise keys, the neighbours k of each, the shares t that rebuild a secret, the
coordinates d, and the D clients that drop out before MaskedInput.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from protocols.benchmark.stages import CLIENT_STAGES, DROPOUT
from secagg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Counts = dict[str, float]
"""Name of an operation to how often it is done."""

MEMORY = "memory"


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The numbers on which costs depend; ``dropped`` clients go before MaskedInput."""

    clients: int
    neighbours: int
    threshold: int
    coordinates: int
    dropped: int = 0

    @property
    def survivors(self) -> int:
        """Clients whose vectors are in the sum."""
        return self.clients - self.dropped

    @property
    def lost_pairs(self) -> float:
        """Neighbours one of whom dropped out and the other survived."""
        return self.dropped * self.neighbours * self.survivors / self.clients


def client_counts(stage: str, of: Cohort) -> Counts:
    """What one client does in a stage."""
    n, k, d = of.clients, of.neighbours, of.coordinates
    counts: Counts = {"session": 1}
    match stage:
        case "ShareKeys":
            counts |= {"neighbour": k, "neighbour and share": k * of.threshold, "client": n}
        case "MaskedInput":
            counts |= {"neighbour": k, "client": n, "coordinate": d, "coordinate of a mask": (k + 1) * d}
        case "Unmask":
            counts |= {"neighbour": k, "client": n, "coordinate": d}
    return counts


def server_counts(stage: str, of: Cohort) -> Counts:
    """What the server does in a round, or for one dropout; or what it keeps, in bytes."""
    n, k, d, alive = of.clients, of.neighbours, of.coordinates, of.survivors
    match stage:
        case "AdvertiseKeys":
            return {"session": 1, "client": n, "pair of clients": n * n}
        case "ShareKeys":
            return {"session": 1, "client": n, "box": n * k, "pair of clients": n * n, "client's coordinate": n * d}
        case "MaskedInput":
            return {"session": 1, "client": n, "client's coordinate": alive * d}
        case "Unmask":
            streams = alive + of.lost_pairs
            shares: Counts = {"share": alive * (k + 1), "lost pair": of.lost_pairs}
            return {"session": 1, **shares, "coordinate": d, "coordinate of a mask": streams * d}
        case "memory":
            return {"process": 1, "client": n, "box": n * k, "coordinate": d}
        case _:
            return {"session": 1, "neighbour": k, "coordinate of a mask": k * d}


@dataclass(frozen=True)
class Fit:
    """Constants of a formula.

    Args:
        constants: Operation to what one takes: seconds, or bytes of memory.
        residual: Root mean square of the relative deviations from what was measured.
        points: Measurements that it was fitted to.
    """

    constants: dict[str, float]
    residual: float
    points: int

    def predict(self, counts: Mapping[str, float]) -> float:
        """What so many operations take."""
        return sum(self.constants[name] * count for name, count in counts.items())


def fit(counts: Sequence[Mapping[str, float]], measured: Sequence[float]) -> Fit:
    """Non-negative constants that deviate least from measurements, in relative terms (least squares).

    Args:
        counts: For each measurement how often each operation was done; all name the same operations.
        measured: What was measured, positive.

    Raises:
        InputError: Nothing was measured.
    """
    from scipy.optimize import nnls

    if not counts:
        raise InputError("no measurements to fit a formula to")
    names, values = list(counts[0]), np.array(measured)
    table = np.array([[one[name] for name in names] for one in counts]) / values[:, None]
    scale = table.max(axis=0)
    found, _ = nnls(table / scale, np.ones(len(values)))
    deviations = table @ (found / scale) - 1
    constants = dict(zip(names, map(float, found / scale), strict=True))
    return Fit(constants, float(np.sqrt(np.mean(deviations**2))), len(values))


def fitted(stages: Sequence[Mapping[str, Any]], cohorts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Fit]]:
    """Role to stage to formula.

    Clients' are fitted to medians, of both kinds of measurement; the server's to processor seconds of whole rounds.

    Args:
        stages: What ``stages.measure`` returned.
        cohorts: What ``cohort.measure`` returned.
    """
    of_clients = [(_alone(one), one["seconds"]["secagg"]) for one in stages]
    of_clients += [(_cohort(one), one["client"]) for one in cohorts]
    client = {stage: _fit(stage, client_counts, of_clients, _median) for stage in CLIENT_STAGES}
    rounds = [(_cohort(one), one["server"]["rounds"]) for one in cohorts]
    server = {stage: _fit(stage, server_counts, rounds, lambda one: float(one["processor"])) for stage in CLIENT_STAGES}
    server[MEMORY] = _fit(
        MEMORY, server_counts, [(_cohort(one), {MEMORY: one["server"]["peak_bytes"]}) for one in cohorts], float
    )
    alone = [(_alone(one), one["seconds"]["secagg"]) for one in stages]
    server[DROPOUT] = _fit(DROPOUT, server_counts, alone, _median)
    return {"client": client, "server": server}


def to_json(fits: Mapping[str, Mapping[str, Fit]]) -> dict[str, Any]:
    """All formulas as plain data."""
    return {role: {stage: asdict(one) for stage, one in stages.items()} for role, stages in fits.items()}


def _fit(
    stage: str,
    counted: Callable[[str, Cohort], Counts],
    rows: Sequence[tuple[Cohort, Mapping[str, Any]]],
    value: Callable[[Any], float],
) -> Fit:
    return fit([counted(stage, of) for of, _ in rows], [value(measured[stage]) for _, measured in rows])


def _median(times: Mapping[str, float]) -> float:
    return times["median"]


def _alone(row: Mapping[str, Any]) -> Cohort:
    """The cohort that one client was measured in."""
    n = row["clients"]
    return Cohort(clients=n, neighbours=n - 1, threshold=row["threshold"], coordinates=row["coordinates"])


def _cohort(row: Mapping[str, Any]) -> Cohort:
    names = ("clients", "neighbours", "threshold", "coordinates", "dropped")
    return Cohort(**{name: row[name] for name in names})
