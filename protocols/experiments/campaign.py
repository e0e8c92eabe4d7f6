"""All runs of a comparison: every variant with every seed, each in its own folder, several at once if wanted.

Each seed has one warm-up, where all variants begin. Every run goes on from where its folder stands, so a campaign may
be stopped at any time and called again.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from protocols.experiments import experiment
from protocols.experiments import setup as setups
from protocols.experiments.folder import RunFolder, locked, rounds_kept
from protocols.results import RoundResult
from protocols.simulation.calibration import CALIBRATION, Calibration
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from queue import Queue

    from protocols.experiments.comparison import Runs
    from protocols.experiments.setup import Place, Setup
    from protocols.experiments.suites import Variant
    from protocols.results import Begin, Outcome, RunResult

Tell: TypeAlias = "Callable[[str, int, Outcome], None]"
"""Is told the label, the seed, and what came of a round."""


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """What to run.

    Args:
        base: What all runs have in common; its system, settings, aggregation, mode and seed are ignored.
        variants: The systems, the baseline first.
        seeds: One run of every system for each.
        encrypted: False runs the same sums in the clear, which give the same models. They are charged the time of the
            encryption, but not the few kilobytes of keys and shares.

    Raises:
        ParameterError: No seed, or one twice.
    """

    base: Setup
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    encrypted: bool = True

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ParameterError("seeds must be at least one, and different")

    def setup(self, variant: Variant, seed: int) -> Setup:
        """One run."""
        one = replace(
            self.base,
            system=variant.system,
            settings=variant.settings,
            aggregation=variant.aggregation,
            mode=None,
            seed=seed,
        )
        if self.encrypted or one.aggregation == "float":
            return one
        return replace(one, aggregation="plain", mode=setups.mode_of(one))


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One run, as a worker process takes it."""

    label: str
    setup: Setup
    folder: Path
    warm_up: Path
    place: Place
    calibration: Calibration


def run(
    campaign: Campaign,
    out: Path,
    place: Place,
    *,
    jobs: int = 1,
    on_round: Tell = lambda *_: None,
) -> Mapping[str, Runs]:
    """Runs a campaign to its end.

    Args:
        campaign: What to run.
        out: Folder of all runs.
        place: Where to train.
        jobs: Runs at once, each on one core.
        on_round: Called after every round with the label, the seed and what came of it; ``"warm-up"`` for warm-ups.

    Returns:
        Label to seed to run.

    Raises:
        SecAggError: A setting, a file or a round that is at fault, or a folder where another process is writing.
    """
    if jobs < 1:
        raise ParameterError(f"jobs must be at least 1, not {jobs}")
    calibration = Calibration.load(out / CALIBRATION)
    todo = [
        _Job(
            label=variant.label,
            setup=campaign.setup(variant, seed),
            folder=_folder(out, variant, seed),
            warm_up=_warm_up_folder(out, seed),
            place=place,
            calibration=calibration,
        )
        for variant in campaign.variants
        for seed in campaign.seeds
    ]
    # Sessions of more clients than there are data for would take long to measure: what cannot be fails here.
    setups.federation_of(todo[0].setup, place)
    for job in todo:
        experiment.calibrate(job.setup, calibration)
    with locked(out), _workers(jobs, on_round) as each:
        calibration.save(out / CALIBRATION)
        first = {job.setup.seed: job for job in todo}  # variants of a seed share its warm-up: made before any of them
        if campaign.base.warm_up:
            each(_warm_up, list(first.values()))
        results = each(_run, todo)
    runs: dict[str, dict[int, RunResult]] = {variant.label: {} for variant in campaign.variants}
    for job, result in zip(todo, results, strict=True):
        runs[job.label][job.setup.seed] = result
    return runs


def kept(campaign: Campaign, out: Path) -> dict[str, int]:
    """Label to the rounds of all its seeds that an earlier call left in a folder; with ``"warm-up"``."""
    base, seeds = campaign.base, campaign.seeds
    return {
        experiment.WARM_UP: sum(min(base.warm_up, rounds_kept(_warm_up_folder(out, seed))) for seed in seeds),
        **{
            one.label: sum(min(base.rounds, rounds_kept(_folder(out, one, seed))) for seed in seeds)
            for one in campaign.variants
        },
    }


def resolved(campaign: Campaign, out: Path) -> dict[str, Any]:
    """All that decided the first run of the baseline, in a folder where the campaign ran (``experiment.resolved``)."""
    setup = RunFolder.as_it_stands(_folder(out, campaign.variants[0], campaign.seeds[0])).setup
    return setup | {"rounds": campaign.base.rounds}


def begins(campaign: Campaign, out: Path) -> dict[int, Begin]:
    """Seed to where its warm-up ended, in a folder where the campaign ran; empty without a warm-up."""
    found = {}
    for seed in campaign.seeds if campaign.base.warm_up else ():
        outcomes = RunFolder.as_it_stands(_warm_up_folder(out, seed)).outcomes
        last = next(one for one in reversed(outcomes) if isinstance(one, RoundResult))
        found[seed] = (last.finished_at, last.accuracy)
    return found


def _folder(out: Path, variant: Variant, seed: int) -> Path:
    return out / variant.label / f"seed-{seed}"


def _warm_up_folder(out: Path, seed: int) -> Path:
    return out / experiment.WARM_UP / f"seed-{seed}"


def _warm_up(job: _Job, tell: Tell) -> None:
    experiment.warm_up(
        job.setup,
        job.warm_up,
        job.place,
        calibration=job.calibration,
        on_round=lambda name, outcome: tell(name, job.setup.seed, outcome),
    )


def _run(job: _Job, tell: Tell) -> RunResult:
    return experiment.run(
        job.setup,
        job.folder,
        job.place,
        warm_up_folder=job.warm_up,
        calibration=job.calibration,
        on_round=lambda name, outcome: tell(name if name == experiment.WARM_UP else job.label, job.setup.seed, outcome),
    )


@contextmanager
def _workers(jobs: int, on_round: Tell) -> Iterator[Callable[[Callable[..., Any], list[_Job]], list[Any]]]:
    """A way to do a list of jobs, in this process or in several; rounds are told here as they end.

    Whatever ends it ends the other processes too: every finished round is on disk.
    """
    if jobs == 1:
        yield lambda work, todo: [work(job, on_round) for job in todo]
        return
    spawning = multiprocessing.get_context("spawn")
    # An interrupt reaches every process of a terminal, but only this one is to act on it.
    deaf: dict[str, Any] = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    with spawning.Manager() as manager, ProcessPoolExecutor(jobs, mp_context=spawning, **deaf) as pool:
        told, others = manager.Queue(), set(multiprocessing.active_children())
        failed: list[Exception] = []
        listener = threading.Thread(target=_listen, args=(told, on_round, failed), daemon=True)
        listener.start()
        try:
            yield lambda work, todo: list(pool.map(work, todo, [_Teller(told)] * len(todo)))
        except BaseException:
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            told.put(None)
            listener.join()
        if failed:
            raise failed[0]


@dataclass(frozen=True)
class _Teller:
    """Tells the first process of a round; can be sent to another process, as a function inside a function cannot."""

    told: Queue[Any]

    def __call__(self, label: str, seed: int, outcome: Outcome) -> None:
        self.told.put((label, seed, outcome))


def _listen(told: Queue[Any], on_round: Tell, failed: list[Exception]) -> None:
    """Passes on what is told; what the listener raises is kept for the thread that waits for the runs."""
    while (one := told.get()) is not None:
        try:
            on_round(*one)
        except Exception as error:  # noqa: BLE001 - raised again in the other thread
            failed.append(error)
