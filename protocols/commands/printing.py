"""What the commands print: bars while they work, tables when they are done."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from protocols.markdown import costs, results
from secagg.errors import SecAggError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from rich.table import Table

    from protocols.campaign import Tell
    from protocols.comparison import Row
    from protocols.results import Outcome


class InterruptedRunError(SecAggError):
    """The user stopped a run."""


_NARROWEST = 118
"""Columns that the tables need; a pipe has no width of its own."""


@contextmanager
def bars(totals: Mapping[str, int]) -> Iterator[Tell]:
    """Bars on standard error, one a label, that a campaign moves with every round.

    Args:
        totals: Label to the rounds that it takes, all seeds together.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:>22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[said]}"), console=Console(stderr=True)) as progress:
        tasks = {label: progress.add_task(label, total=total, said="", start=False) for label, total in totals.items()}

        def tell(label: str, _seed: int, outcome: Outcome) -> None:
            accuracy = getattr(outcome, "accuracy", None)
            progress.start_task(tasks[label])
            progress.update(
                tasks[label], advance=1, said="round lost" if accuracy is None else f"accuracy {accuracy:.1%}"
            )

        yield tell


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


def print_tables(tables: Sequence[Table], *below: str) -> None:
    """Prints tables and lines below them on standard output."""
    from rich.console import Console

    console = Console(file=sys.stdout)
    if console.width < _NARROWEST:
        console = Console(file=sys.stdout, width=_NARROWEST)
    for table in tables:
        console.print(table)
    for line in below:
        console.print(line, highlight=False)


def comparison_tables(rows: Sequence[Row], title: str) -> tuple[Table, Table]:
    """A row a system in each: accuracies and round times, and where time, bytes and energy go."""
    labels = [row.label for row in rows]
    return _table(title, labels, results(rows)), _table("Where it goes, in a round", labels, costs(rows))


def _table(title: str, labels: Sequence[str], columns: Mapping[str, Sequence[str]]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("System", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    for label, *cells in zip(labels, *columns.values(), strict=True):
        table.add_row(label, *cells)
    return table


LEGEND = """\
Times are simulated: operations counted, bytes on the wire, and secure aggregation as calibrated. Accuracy is the mean
over a run's last rounds, ± deviation between seeds; less baseline: in points, ± 95 % interval over paired seeds; in
equal time: when the fastest system had finished. Compute, up, down and secure are those of a round's slowest client.
Speed-up is 1 - T'/T; its bound is that of stragglers as fast as the slowest of the others."""
"""What the columns mean."""
