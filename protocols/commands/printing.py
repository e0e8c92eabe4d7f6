"""What the commands print: bars while they work, tables when they are done."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from protocols.experiments.markdown import costs, legend, personal, results, times, trips
from protocols.results import LostRound
from protocols.simulation.profiles import outline, profile
from secagg.commands import InterruptedRunError
from secagg.errors import SecAggError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from rich.table import Table

    from protocols.experiments.campaign import Tell
    from protocols.experiments.comparison import Row
    from protocols.experiments.setup import Setup
    from protocols.results import Outcome

ONLY_ON_PAGES = ("Down s", "Energy kJ", "Layers recovered")
"""Columns of costs for which a terminal has no room."""


@contextmanager
def bars(totals: Mapping[str, int], kept: Mapping[str, int]) -> Iterator[Tell]:
    """Bars on standard error, one a label, that a campaign moves with every round.

    Args:
        totals: Label to the rounds that it takes, all seeds together.
        kept: Label to those of them that were played before.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:>22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[said]}"), console=Console(stderr=True)) as progress:
        tasks = {
            label: progress.add_task(label, total=total, completed=kept.get(label, 0), said="", start=False)
            for label, total in totals.items()
        }

        def tell(label: str, _seed: int, outcome: Outcome) -> None:
            progress.start_task(tasks[label])
            progress.update(tasks[label], advance=1, said=_said(outcome))

        try:
            yield tell
        except SecAggError:
            # Bars of runs that never began would only stand above the reason.
            progress.live.transient = not any(task.completed for task in progress.tasks)
            raise


def _said(outcome: Outcome) -> str:
    if isinstance(outcome, LostRound):
        return "round lost"
    spent = outcome.details.get("epsilon")
    return f"accuracy {outcome.accuracy:.1%}" + ("" if spent is None else f", epsilon {spent:.2f}")


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Says, when the user interrupts, that nothing is lost.

    Raises:
        InterruptedRunError: The user did.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted; every finished round is in {folder}, and the same command goes on from there"
        ) from None


def print_tables(tables: Mapping[str, Table], *below: str) -> None:
    """Prints tables by their titles, and lines below, on standard output; as wide as the tables: no number is cut."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(file=sys.stdout)
    boundless = console.options.update(width=sys.maxsize)
    needed = max(Measurement.get(console, boundless, table).maximum for table in tables.values())
    if console.width < needed:
        console = Console(file=sys.stdout, width=needed)
    for title, table in tables.items():
        console.print(f"[italic]{title}[/italic]", soft_wrap=True)
        console.print(table)
    for line in below:
        console.print(line, highlight=False)


def print_comparison(rows: Sequence[Row], title: str, setup: Setup, *below: str, stragglers_only: bool) -> None:
    """Prints accuracies and round times, where time and bytes go, what the columns mean, and the devices.

    Args:
        rows: A row a system, the baseline first; or one alone.
        title: Above the tables.
        setup: What the rows have in common.
        below: Lines below.
        stragglers_only: As ``protocols.experiments.markdown.results``.
    """
    labels, first = [row.label for row in rows], results(rows, stragglers_only=stragglers_only)
    second = {name: cells for name, cells in costs(rows).items() if name not in ONLY_ON_PAGES}
    columns = {
        title: first,
        "Time to targets": times(rows),
        "On their own test examples": personal(rows),
        "Out of step": trips(rows),
        "Where it goes, in a round": second,
    }
    tables = {heading: _table(labels, cells) for heading, cells in columns.items() if cells}
    shown = [name for cells in columns.values() for name in cells]
    print_tables(tables, *legend(shown), _devices(setup), *below)


def _devices(setup: Setup) -> str:
    kinds = setup.to_json()["devices"]
    shown = "; ".join(
        f"{row['device']}" + (f" ({row['number']})" if row["number"] > 1 else "") + f": {row['GFLOP/s']:.3g} GFLOP/s, "
        f"{row['up Mbit/s']:.3g} Mbit/s up, {row['down Mbit/s']:.3g} down"
        for row in outline(kinds)
    )
    return f"\nDevices, {setup.profile} ({profile(setup.profile).about}). {shown}."


def _table(labels: Sequence[str], columns: Mapping[str, Sequence[str]]) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("System", no_wrap=True)
    for name in columns:
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    for label, *cells in zip(labels, *columns.values(), strict=True):
        table.add_row(label, *cells)
    return table
