"""Running an experiment: from where its folder stands to its last round, after a warm-up that all systems share."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from protocols.experiments.catalogue import system_kind
from protocols.experiments.folder import RunFolder, locked
from protocols.experiments.setup import aggregator_of, federation_of, resolved, system_of
from protocols.personal import check_judgeable, judged_once
from protocols.results import RoundResult
from protocols.simulation.calibration import CALIBRATION, Calibration
from protocols.training import one_thread
from secagg.layout import Layout, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from protocols.experiments.setup import Place, Setup
    from protocols.federation import Checkpoint
    from protocols.results import Outcome, RunResult
    from protocols.system import System
    from secagg.params import Mode

OnRound: TypeAlias = "Callable[[str, Outcome], None]"
"""Is told the name of what runs, and what came of a round."""

WARM_UP = "warm-up"
"""What the rounds before a run call themselves."""


def run(
    setup: Setup,
    folder: Path,
    place: Place | None = None,
    *,
    warm_up_folder: Path | None = None,
    calibration: Calibration | None = None,
    on_round: OnRound = lambda *_: None,
) -> RunResult:
    """Runs a setup to its last round, on one thread, from where its folder stands.

    What cannot be is refused before the times of secure aggregation are measured and anything is written.

    Args:
        setup: What to run.
        folder: Where its rounds are kept.
        place: Where to train.
        warm_up_folder: Folder of the warm-up, which runs may share; by default one inside ``folder``.
        calibration: Times of secure aggregation that are known already; the folder keeps them, and more.
        on_round: Called after every round with the name of what runs and what came of it.

    Raises:
        SecAggError: A setting, a file or a round that is at fault, or a folder where another process is writing.
    """
    # What is measured on the way, such as sessions of clusters that are found there, goes on with the run.
    known = (calibration or Calibration()).joined(Calibration.load(folder / CALIBRATION))
    with one_thread():
        system = system_of(setup, federation_of(setup, place), known)
        if setup.fine_tuning:
            check_judgeable(system.federation, setup.fine_tuning)
        whole = resolved(setup, system.federation)
        with locked(folder):
            kept, start = RunFolder(folder, whole), None
            calibrate(setup, known)
            known.save(folder / CALIBRATION)

            def told(name: str, outcome: Outcome) -> None:
                known.save(folder / CALIBRATION)
                on_round(name, outcome)

            if setup.warm_up and kept.checkpoint is None:
                before = warm_up_folder or folder / "warm-up"
                start = warm_up(setup, before, place, calibration=known, on_round=told)
            outcomes = _go_on(system, kept, start, setup, told)
            result = system.result_of(outcomes)
            if setup.fine_tuning:
                result = replace(result, personal=judged_once(system, kept, len(outcomes), setup.fine_tuning))
    return result


def warm_up(
    setup: Setup,
    folder: Path,
    place: Place | None = None,
    *,
    calibration: Calibration | None = None,
    on_round: OnRound = lambda *_: None,
) -> Checkpoint:
    """Where FedAvg leaves the model before a setup begins; arguments as ``run``.

    The same fixed point for all, so that what differs later is the system. Once begun it keeps its length: runs that
    started from it stay comparable with those that start later.
    """
    before = warm_up_setup(setup)
    with one_thread():
        system = system_of(before, federation_of(before, place), calibration)
        kept = RunFolder(folder, resolved(before, system.federation), grows=False)
        _go_on(system, kept, None, before, lambda _, outcome: on_round(WARM_UP, outcome))
    return replace(kept.checkpoint or system.federation.start(), memory={})


def warm_up_setup(setup: Setup) -> Setup:
    """The warm-up of a setup, as a setup."""
    return replace(
        setup,
        system="fedavg",
        settings={},
        aggregation="plain",
        mode="uniform",
        check=False,
        deadline=None,
        until=None,
        fine_tuning=0,
        rounds=setup.warm_up,
        warm_up=0,
        params=dict(setup.params) | {"participation": 0.0},
    )


def calibrate(setup: Setup, calibration: Calibration) -> None:
    """Measures what secure aggregation takes in a setup and its warm-up, if it has any and it is not known yet."""
    for one in (setup, warm_up_setup(setup)) if setup.warm_up else (setup,):
        aggregator = aggregator_of(one, _NO_LAYOUT)
        if aggregator.params is None:
            continue
        able = len(one.fleet().rest) if system_kind(one.system).excludes else one.clients
        for mode in dict.fromkeys((_COUNTS, aggregator.mode)):
            calibration.time(mode, min(one.participants or able, able), aggregator.params)


def _go_on(
    system: System, kept: RunFolder, start: Checkpoint | None, setup: Setup, on_round: OnRound
) -> tuple[Outcome, ...]:
    """Plays the rounds that a folder does not have yet; returns all that were asked for, though it may have more."""
    end, left = setup.until or math.inf, setup.rounds - len(kept.outcomes)
    begin = kept.checkpoint or start
    if left > 0 and (begin is None or begin.seconds < end):
        for outcome, checkpoint in system.play(left, begin):
            kept.add(outcome, checkpoint)
            on_round(system.name, outcome)
            if checkpoint.seconds >= end:
                break
    ended = (one.finished_at >= end if isinstance(one, RoundResult) else False for one in kept.outcomes)
    last = next((place for place, at_last in enumerate(ended) if at_last), setup.rounds)
    return kept.outcomes[: min(setup.rounds, last + 1)]


_COUNTS: Mode = "uniform"
"""The mode in which clients of every system count and vote."""

_NO_LAYOUT = Layout((Tensor("nothing", (1,)),))
