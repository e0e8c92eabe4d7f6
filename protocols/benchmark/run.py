"""Measures a whole grid, one thing after the other; what was interrupted goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from protocols.benchmark import cohort, coverage, density, machine, stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from protocols.benchmark.grid import Grid

    Say = Callable[[str], None]

UNFINISHED = "unfinished.jsonl"
"""A line for each measurement, while others are still to come."""
PROCESSES = 2
"""With how many the server takes masks off, for comparison with one."""


@dataclass(frozen=True)
class Task:
    """One measurement.

    Args:
        group: Under which its result is kept: ``machine``, ``stages``, ``cohorts``, ``density``, ``coverage`` or
            ``flower``.
        name: What is measured, unlike all others.
        work: Measures; is told a function to say what it is doing.
    """

    group: str
    name: str
    work: Callable[[Say], Any]


def tasks(grid: Grid, *, against_flower: bool) -> Iterator[Task]:
    """All measurements of a grid, the short ones first.

    Args:
        grid: What to measure.
        against_flower: Whether Flower is measured beside.
    """
    masked = max(length for length, _ in grid.stages)
    length, repeats, seconds = min(masked, 1_000_000), grid.repeats, grid.openssl_seconds
    yield Task("machine", f"machine d={length} x{repeats}", lambda _: machine.measure(length, repeats, seconds))
    for d, k in grid.stages:
        yield _stages(d, k, repeats, beside_flower=against_flower and (d, k) in grid.flower)
    d, k = grid.density
    yield Task("density", f"density d={d} k={k} x{repeats}", lambda _: density.measure(*grid.density, repeats))
    d, n = grid.coverage
    yield Task("coverage", f"coverage d={d} n={n} x{repeats}", lambda _: coverage.measure(*grid.coverage, repeats))
    if against_flower:
        yield Task("flower", "dropouts and leakage", _flower)
    for size in grid.cohorts:
        name = f"cohort n={size.clients} d={size.coordinates} k={size.neighbours or 'auto'} dropped={size.dropped:g}"
        yield Task("cohorts", name, partial(cohort.measure, size, PROCESSES))


def measure(planned: list[Task], folder: Path, tell: Callable[[Task, str], None]) -> dict[str, Any]:
    """Measures what is not measured yet.

    Args:
        planned: All measurements.
        folder: Where they are kept until the last is there.
        tell: Called with a measurement and what it is doing; with an empty text when it is done.

    Returns:
        Group to its results, in order; a group of one measurement to its result.
    """
    path = folder / UNFINISHED
    known = _read(path)
    results: dict[str, list[Any]] = {}
    for task in planned:
        if task.name not in known:
            tell(task, "begins")
            known[task.name] = task.work(partial(tell, task))
            with path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps([task.name, known[task.name]]) + "\n")
        tell(task, "")
        results.setdefault(task.group, []).append(known[task.name])
    return {group: found if group in ("stages", "cohorts") else found[0] for group, found in results.items()}


def finish(folder: Path) -> None:
    """Forgets what was kept for going on: the next run measures everything anew."""
    (folder / UNFINISHED).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """What was measured before; a line whose writing was cut short is dropped."""
    known: dict[str, Any] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        try:
            name, result = json.loads(line)
        except ValueError:
            continue
        known[name] = result
    if len(known) < len(lines):
        path.write_text("".join(json.dumps(pair) + "\n" for pair in known.items()), encoding="utf-8")
    return known


def _stages(coordinates: int, neighbours: int, repeats: int, *, beside_flower: bool) -> Task:
    name = f"stages d={coordinates} k={neighbours} x{repeats}" + (" and Flower" if beside_flower else "")
    return Task("stages", name, lambda _: stages.measure(coordinates, neighbours, repeats, beside_flower=beside_flower))


def _flower(_say: Say) -> dict[str, Any]:
    from protocols.benchmark import workflow

    return workflow.facts()
