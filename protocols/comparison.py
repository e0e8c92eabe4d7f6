"""Systems side by side over several seeds: the numbers that count, each beside the baseline of its own seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, TypeAlias

from scipy import stats

from protocols.depth import sdir
from protocols.simulation.clock import speed_up
from secagg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from protocols.results import ClientRound, RoundResult, RunResult

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
class Row:
    """One system beside the baseline. All but accuracies are means over seeds and rounds.

    Args:
        label: What the comparison calls it.
        system: Its own name.
        seeds: Over which.
        accuracy: Test accuracy over the last rounds.
        gain: The same less the baseline's, seed by seed.
        accuracy_in_time: Test accuracy when the first system of its seed had finished all of its rounds.
        round_seconds: Simulated length of a round.
        speed_up: Share of the baseline's round time that is saved.
        bound: The same if the baseline's stragglers were as fast as the slowest of the others: what no pruning of
            stragglers can exceed.
        above_bound: How much longer rounds are than at the bound, as a share of its time.
        seconds: Where the time of the slowest client of a round goes: download, compute, upload, secure aggregation.
        keep: Share of the units, or layers, that stragglers train; None without stragglers in its rounds.
        upload_bytes: What a client sends a round.
        straggler_upload_bytes: What a straggler sends a round; None as ``keep``.
        download_bytes: What a client receives a round.
        joules: Energy of a round's training, all clients together.
        inclusion: SDIR, the share of slow participants in time; None without any.
        layers_recovered: Blocks averaged a round that the shallowest participant had frozen; None without depths.
        withheld_share: Share of the coordinates that the release rule kept back.
        lost_rounds: Rounds that left the model as it was, all seeds together.
        difference: Largest difference to the twin in the clear; None without a twin.
    """

    label: str
    system: str
    seeds: tuple[int, ...]
    accuracy: Spread
    gain: Spread
    accuracy_in_time: Spread
    round_seconds: float
    speed_up: float
    bound: float
    above_bound: float
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

    def to_json(self) -> dict[str, Any]:
        """The row as plain data."""
        return asdict(self)


def compare(runs: Mapping[str, Runs]) -> tuple[Row, ...]:
    """One row a system; the first one is the baseline.

    Args:
        runs: Label to seed to run; all systems have the baseline's seeds.

    Raises:
        InputError: Nothing to compare, or other seeds.
    """
    if not runs:
        raise InputError("there is nothing to compare")
    baseline = next(iter(runs.values()))
    for label, own in runs.items():
        if set(own) != set(baseline):
            raise InputError(f"{label} ran with other seeds than the baseline")
    ends = {seed: min(own[seed].rounds[-1].finished_at for own in runs.values()) for seed in baseline}
    return tuple(_row(label, own, baseline, ends) for label, own in runs.items())


def _row(label: str, runs: Runs, baseline: Runs, ends: Mapping[int, float]) -> Row:
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
        accuracy_in_time=Spread.of(run.accuracy_at(ends[seed]) or 0.0 for seed, run in runs.items()),
        round_seconds=seconds,
        speed_up=speed_up(whole, seconds),
        bound=speed_up(whole, bound),
        above_bound=seconds / bound - 1,
        seconds=_breakdown(rounds),
        keep=_mean(client.keep for client in slow),
        upload_bytes=fmean(client.upload_bytes for client in clients),
        straggler_upload_bytes=_mean(client.upload_bytes for client in slow),
        download_bytes=fmean(client.download_bytes for client in clients),
        joules=fmean(sum(client.joules for client in one.clients.values()) for one in rounds),
        inclusion=_mean(share for run in runs.values() for share in _inclusions(run)),
        layers_recovered=_mean(one.details["layers recovered"] for one in rounds if "layers recovered" in one.details),
        withheld_share=fmean(one.withheld_share for one in rounds),
        lost_rounds=sum(len(run.lost) for run in runs.values()),
        difference=_largest(run.difference for run in runs.values()),
    )


def _breakdown(rounds: Sequence[RoundResult]) -> dict[str, float]:
    """Mean seconds of each part, of the client that was slowest in its round."""
    slowest: list[ClientRound] = [max(one.clients.values(), key=lambda client: client.seconds.total) for one in rounds]
    return {
        part: fmean(getattr(client.seconds, part) for client in slowest)
        for part in ("download", "compute", "upload", "secure")
    }


def _inclusions(run: RunResult) -> list[float]:
    """SDIR round by round; a fleet drawn from the seed has stragglers of its own."""
    shares = [
        sdir({name: client.seconds.total for name, client in one.clients.items()}, run.stragglers) for one in run.rounds
    ]
    return [share for share in shares if share is not None]


def _mean(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return fmean(numbers) if numbers else None


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
