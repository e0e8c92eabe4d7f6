"""Systems side by side over several seeds: the numbers that count, each beside the baseline of its own seed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import fmean, pstdev, stdev
from typing import TYPE_CHECKING, Any, TypeAlias

from scipy import stats

from protocols.depth import sdir
from protocols.results import LAST_ROUNDS
from protocols.simulation.clock import speed_up
from secagg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from protocols.results import Begin, RoundResult, RunResult

CONFIDENCE = 0.95
"""Of the intervals."""

Runs: TypeAlias = "Mapping[int, RunResult]"
"""Seed to the run of one system."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A number over seeds.

    Args:
        mean: Over the seeds.
        deviation: Standard deviation between seeds; None with a single one.
        margin: Half the width of the 95 % confidence interval of the mean (Student's t); None with a single seed.
    """

    mean: float
    deviation: float | None
    margin: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of some numbers, at least one."""
        numbers = list(values)
        if len(numbers) < 2:
            return cls(mean=fmean(numbers), deviation=None, margin=None)
        deviation = stdev(numbers)
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(numbers) - 1))
        return cls(mean=fmean(numbers), deviation=deviation, margin=quantile * deviation / len(numbers) ** 0.5)


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """How clients fare on their own test examples.

    Args:
        mean: Mean accuracy over the clients.
        deviation: Standard deviation between clients.
        worst: Accuracy of the client that fares worst.
    """

    mean: Spread
    deviation: Spread
    worst: Spread

    @classmethod
    def of(cls, accuracies: Iterable[Mapping[str, float]]) -> Fairness:
        """From each seed's accuracy by client."""
        seeds = [list(one.values()) for one in accuracies]
        return cls(
            mean=Spread.of(map(fmean, seeds)), deviation=Spread.of(map(pstdev, seeds)), worst=Spread.of(map(min, seeds))
        )


BESIDE_BASELINE = ("gain", "accuracy_in_time", "gain_in_time", "speed_up", "bound")
"""What a row says only beside others."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One system beside the baseline. All but accuracies are means over seeds and rounds.

    Args:
        label: What the comparison calls it.
        system: Its own name.
        seeds: Over which.
        accuracy: Test accuracy over the last rounds.
        gain: The same less the baseline's, seed by seed.
        accuracy_in_time: Test accuracy when the first system of its seed had finished all of its rounds, over as much
            simulated time for all: that of the first system's last rounds. None if a run without a warm-up had not
            ended a round by then.
        gain_in_time: The same less the baseline's, seed by seed.
        round_seconds: Simulated length of a round.
        speed_up: Share of the baseline's round time that is saved.
        bound: The same if the baseline's stragglers were as fast as the slowest of the others. Where only stragglers
            are relieved, no system exceeds it.
        seconds: Where the time of the slowest client of a round goes that was in time: download, compute, upload,
            secure aggregation.
        keep: Share of the units, or layers, that stragglers train; None without stragglers in its rounds.
        upload_bytes: What a client sends a round.
        straggler_upload_bytes: What a straggler sends a round; None as ``keep``.
        download_bytes: What a client receives a round.
        joules: Energy of a round's training, all clients together.
        inclusion: SDIR, the share of slow participants in time, late ones not among them; None without any.
        layers_recovered: Blocks averaged a round that the shallowest participant had frozen; None without depths.
        withheld_share: Share of the coordinates that the release rule kept back.
        lost_rounds: Rounds that left the model as it was, all seeds together.
        difference: Largest difference to the twin in the clear; None without a twin.
        seconds_to: Target accuracy to the simulated seconds until it was reached and held (``RunResult.seconds_to``);
            None where a seed did not.
        personal: ``before``, ``masked`` and ``whole`` (``Personal``) to how clients fare; empty where nobody asked.
        details: Means over rounds and seeds of what the system measured besides.
        at_end: The same of last rounds alone.
    """

    label: str
    system: str
    seeds: tuple[int, ...]
    accuracy: Spread
    gain: Spread
    accuracy_in_time: Spread | None
    gain_in_time: Spread | None
    round_seconds: float
    speed_up: float
    bound: float
    seconds: Mapping[str, float]
    keep: float | None
    upload_bytes: float
    straggler_upload_bytes: float | None
    download_bytes: float
    joules: float
    inclusion: float | None
    layers_recovered: float | None
    withheld_share: float
    lost_rounds: int
    difference: float | None
    seconds_to: Mapping[float, Spread | None]
    personal: Mapping[str, Fairness]
    details: Mapping[str, float]
    at_end: Mapping[str, float]

    @property
    def asynchronous(self) -> bool:
        """Whether clients come and go on trips of their own, so that a round is what lies between two evaluations."""
        return "staleness" in self.details

    def to_json(self) -> dict[str, Any]:
        """The row as plain data."""
        return asdict(self)


def compare(
    runs: Mapping[str, Runs], begins: Mapping[int, Begin] | None = None, targets: Sequence[float] = ()
) -> tuple[Row, ...]:
    """One row a system; the first one is the baseline.

    Args:
        runs: Label to seed to run; all systems have the baseline's seeds.
        begins: Seed to where its warm-up ended; None without one.
        targets: Accuracies to tell the time to.

    Raises:
        InputError: Nothing to compare, or other seeds.
    """
    if not runs:
        raise InputError("there is nothing to compare")
    baseline = next(iter(runs.values()))
    for label, own in runs.items():
        if set(own) != set(baseline):
            raise InputError(f"{label} ran with other seeds than the baseline")
    in_time = _in_time(runs, begins or {})
    of_baseline = in_time[next(iter(runs))]
    return tuple(
        _row(label, own, baseline, in_time[label], of_baseline, targets=targets) for label, own in runs.items()
    )


def _in_time(runs: Mapping[str, Runs], begins: Mapping[int, Begin]) -> dict[str, dict[int, float | None]]:
    """Label to seed to the accuracy when the seed's first system was done, over the time of that one's last rounds."""
    found: dict[str, dict[int, float | None]] = {label: {} for label in runs}
    for seed in next(iter(runs.values())):
        first = min((own[seed].rounds for own in runs.values()), key=lambda rounds: rounds[-1].finished_at)
        since = first[-LAST_ROUNDS - 1].finished_at if len(first) > LAST_ROUNDS else -math.inf
        for label, own in runs.items():
            accuracy = own[seed].accuracy_at(first[-1].finished_at, since)
            found[label][seed] = begins[seed][1] if accuracy is None and seed in begins else accuracy
    return found


def _row(
    label: str,
    runs: Runs,
    baseline: Runs,
    in_time: Mapping[int, float | None],
    of_baseline: Mapping[int, float | None],
    *,
    targets: Sequence[float],
) -> Row:
    rounds = [one for run in runs.values() for one in run.rounds]
    clients = [client for one in rounds for client in one.clients.values()]
    slow = [client for run in runs.values() for client in run.of_stragglers()]
    seconds, whole, bound = (
        fmean(values)
        for values in (
            [run.round_seconds for run in runs.values()],
            [run.round_seconds for run in baseline.values()],
            [run.round_seconds_of_rest for run in baseline.values()],
        )
    )
    first = next(iter(runs.values()))
    return Row(
        label=label,
        system=first.system,
        seeds=tuple(runs),
        accuracy=Spread.of(run.accuracy for run in runs.values()),
        gain=Spread.of(run.accuracy - baseline[seed].accuracy for seed, run in runs.items()),
        accuracy_in_time=_spread_of_all(in_time[seed] for seed in runs),
        gain_in_time=_spread_of_all(_less(in_time[seed], of_baseline[seed]) for seed in runs),
        round_seconds=seconds,
        speed_up=speed_up(whole, seconds),
        bound=speed_up(whole, bound),
        seconds=_breakdown(rounds),
        keep=_mean(client.keep for client in slow),
        upload_bytes=_mean(client.upload_bytes for client in clients) or 0.0,  # none in a round without anybody
        straggler_upload_bytes=_mean(client.upload_bytes for client in slow),
        download_bytes=_mean(client.download_bytes for client in clients) or 0.0,
        joules=fmean(sum(client.joules for client in one.clients.values()) for one in rounds),
        inclusion=_mean(share for run in runs.values() for share in _inclusions(run)),
        layers_recovered=_mean(one.details["layers recovered"] for one in rounds if "layers recovered" in one.details),
        withheld_share=fmean(one.withheld_share for one in rounds),
        lost_rounds=sum(len(run.lost) for run in runs.values()),
        difference=_largest(run.difference for run in runs.values()),
        seconds_to={target: _spread_of_all(run.seconds_to(target) for run in runs.values()) for target in targets},
        personal=_personal(runs),
        details=_details(rounds),
        at_end=_details([run.rounds[-1] for run in runs.values()]),
    )


def _personal(runs: Runs) -> dict[str, Fairness]:
    known = [run.personal for run in runs.values() if run.personal is not None]
    if len(known) < len(runs):
        return {}
    return {kind: Fairness.of(getattr(one, kind) for one in known) for kind in ("before", "masked", "whole")}


def _details(rounds: Sequence[RoundResult]) -> dict[str, float]:
    names = {name for one in rounds for name in one.details}
    return {name: fmean(one.details[name] for one in rounds if name in one.details) for name in sorted(names)}


def _breakdown(rounds: Sequence[RoundResult]) -> dict[str, float]:
    """Mean seconds of each part, of the client that was slowest in its round, among those in time."""
    in_time = [[client for client in one.clients.values() if not client.late] for one in rounds]
    slowest = [max(clients, key=lambda client: client.seconds.total) for clients in in_time if clients]
    return {
        part: _mean(getattr(client.seconds, part) for client in slowest) or 0.0
        for part in ("download", "compute", "upload", "secure")
    }


def _inclusions(run: RunResult) -> list[float]:
    """SDIR round by round, where a straggler takes part."""
    shares = [_inclusion(one, run.stragglers) for one in run.rounds]
    return [share for share in shares if share is not None]


def _inclusion(one: RoundResult, stragglers: Collection[str]) -> float | None:
    """SDIR, where whoever is late is slow and not in time, however the median stands."""
    slow = [client for name, client in one.clients.items() if name in stragglers]
    if not slow:
        return None
    in_time = [name for name, client in one.clients.items() if name in stragglers and not client.late]
    share = sdir({name: client.seconds.total for name, client in one.clients.items()}, in_time)
    return (share or 0.0) * len(in_time) / len(slow)


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _spread_of_all(values: Iterable[float | None]) -> Spread | None:
    """The spread of numbers that are all known."""
    numbers = list(values)
    known = [number for number in numbers if number is not None]
    return Spread.of(known) if len(known) == len(numbers) else None


def _mean(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return fmean(numbers) if numbers else None


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
