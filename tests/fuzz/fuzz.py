"""Coverage-guided fuzzing of every target with Atheris: `make fuzz`.

    python -m tests.fuzz.fuzz [--seconds 60 | --inputs 1000000] [--target NAME ...] [--seed 1] [--findings FOLDER]

Time is shared equally; inputs so that a state machine, which is slower, gets fewer. Each target runs in a process of
its own, because libFuzzer ends the process that it runs in. Only the package is instrumented. Exit code 1 where
anything but a named refusal came out, or an input took over ten seconds or over 2 GiB: that input lies in a file that
the output names, and `--target NAME --replay FILE` hands it to the target again.
"""

# ruff: noqa: T201 - a script that prints

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import math
import multiprocessing
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.fuzz.targets import Target

NO_ATHERIS = "fuzzing needs Atheris, which has wheels for Linux: pip install 'secagg[fuzz]' (make fuzz does)"
SECONDS_AN_INPUT, MEGABYTES = 10, 2048


@dataclass(frozen=True)
class Limit:
    """When to stop: after so many inputs, or after so many seconds."""

    inputs: int | None
    seconds: int

    def shared(self, targets: Mapping[str, Target]) -> dict[str, Limit]:
        """The share of each target, at least one second: equal times, or inputs by what they cost."""
        seconds = max(1, self.seconds // len(targets))
        if self.inputs is None:
            return dict.fromkeys(targets, Limit(None, seconds))
        share = self.inputs / sum(1 / target.cost for target in targets.values())
        return {name: Limit(math.ceil(share / target.cost), seconds) for name, target in targets.items()}

    @property
    def flag(self) -> str:
        """For libFuzzer."""
        return f"-max_total_time={self.seconds}" if self.inputs is None else f"-runs={self.inputs}"


@dataclass(frozen=True)
class Outcome:
    """What fuzzing one target gave.

    Args:
        inputs: Inputs run.
        seconds: Wall time.
        finding: The file of an input by which something other than a refusal came out.
        story: What came out.
    """

    inputs: int
    seconds: float
    finding: Path | None
    story: str


def instrumented_targets() -> Mapping[str, Target]:
    """The targets, with coverage measured in the package and nowhere else."""
    import atheris

    with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["secagg"]):
        from tests.fuzz.targets import TARGETS
    return TARGETS


def fuzz(target: Target, limit: Limit, seed: int, prefix: str) -> Outcome:
    """Fuzzes one target in a process of its own.

    Args:
        target: What to fuzz.
        limit: When to stop.
        seed: Of all choices.
        prefix: What the file of a finding begins with.
    """
    with tempfile.TemporaryDirectory() as folder:
        corpus, log = Path(folder, "corpus"), Path(folder, "log")
        corpus.mkdir()
        for number, data in enumerate(target.seeds):
            corpus.joinpath(str(number)).write_bytes(data)
        flags = [
            limit.flag,
            f"-seed={seed}",
            f"-artifact_prefix={prefix}",
            f"-timeout={SECONDS_AN_INPUT}",
            f"-rss_limit_mb={MEGABYTES}",
            "-print_final_stats=1",
        ]
        start = time.monotonic()
        child = multiprocessing.get_context("fork").Process(target=_run, args=(target, flags, corpus, log))
        child.start()
        child.join()
        seconds = time.monotonic() - start
        output = log.read_text(encoding="utf-8", errors="replace")
    counted = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
    written = re.search(r"Test unit written to (.*)", output)
    failed = bool(child.exitcode) or counted is None
    return Outcome(
        inputs=int(counted[1]) if counted else 0,
        seconds=seconds,
        finding=Path(written[1] if written else f"{prefix}unknown") if failed else None,
        story=_told(output),
    )


def _told(output: str) -> str:
    """What libFuzzer's output says of a finding: the exception, or else (too slow, too large) its last lines."""
    raised = re.search(r"=== Uncaught Python exception: ===\n(.*?)\n\n", output, re.DOTALL)
    return raised[1] if raised else output[-2000:]


def _run(target: Target, flags: list[str], corpus: Path, log: Path) -> None:
    """In the child; returns only where nothing was found."""
    import atheris

    from tests.fuzz.mutate import mutant

    def mutated(data: bytes, longest: int, seed: int) -> bytes:
        rng = Random(seed)
        if rng.random() < 0.5:
            return atheris.Mutate(data, longest)
        return mutant(data, rng, target.seeds, target.framing)[:longest]

    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    atheris.Setup(["fuzz", *flags, str(corpus)], target.run, custom_mutator=mutated)
    try:
        atheris.Fuzz()
    except SystemExit:
        ctypes.CDLL(None).exit(1)  # multiprocessing would pass over the exit handler by which libFuzzer saves the input


def fuzz_all(targets: Mapping[str, Target], limit: Limit, seed: int, findings: Path) -> int:
    """Fuzzes the targets in turn and prints a line for each; 1 if anything was found, else 0."""
    shares, outcomes = limit.shared(targets), []
    print(f"{'target':32}{'inputs':>12}{'seconds':>10}{'findings':>10}")
    for name, target in targets.items():
        outcome = fuzz(target, shares[name], seed, f"{findings / name.replace(' ', '-')}-")
        outcomes.append(outcome)
        print(_row(name, [outcome]), flush=True)
        if outcome.finding:
            print(f"{outcome.story}\ninput: {outcome.finding}", flush=True)
    print(_row("total", outcomes))
    return int(any(outcome.finding for outcome in outcomes))


def _row(name: str, outcomes: list[Outcome]) -> str:
    inputs, seconds = sum(one.inputs for one in outcomes), sum(one.seconds for one in outcomes)
    return f"{name:32}{inputs:12,}{seconds:10.1f}{sum(one.finding is not None for one in outcomes):10}"


def main(arguments: list[str] | None = None) -> int:
    """Reads the arguments and fuzzes; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="in all (default: 60)")
    parser.add_argument("--inputs", type=int, help="in all, however long they take")
    parser.add_argument("--target", action="append", help="only this one (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path(), help="where to save inputs (default: here)")
    parser.add_argument("--replay", type=Path, help="hand this input to the target, and nothing else")
    given = parser.parse_args(arguments)
    try:
        targets = instrumented_targets()
    except ModuleNotFoundError as error:
        if error.name != "atheris":
            raise
        print(NO_ATHERIS, file=sys.stderr)
        return 2
    if unknown := set(given.target or ()).difference(targets):
        parser.error(f"no target {sorted(unknown)}: choose from {list(targets)}")
    chosen = {name: targets[name] for name in given.target or targets}
    if given.replay:
        for target in chosen.values():
            target.run(given.replay.read_bytes())
        return 0
    given.findings.mkdir(parents=True, exist_ok=True)
    return fuzz_all(chosen, Limit(given.inputs, given.seconds), given.seed, given.findings)


if __name__ == "__main__":
    sys.exit(main())
