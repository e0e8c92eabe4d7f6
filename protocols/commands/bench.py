"""The command ``secagg bench``."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

    from protocols.benchmark.report import Table
    from protocols.benchmark.run import Task


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to ``secagg``."""
    parser = subparsers.add_parser(
        "bench",
        help="what the protocol costs on this machine, and beside Flower's SecAgg+",
        description="Measures every stage, whole cohorts, a pruned client and the machine's own limits, fits formulas "
        "of cost, and says what they predict. Takes about five minutes on two quiet cores; what was interrupted goes "
        "on where it stopped. Writes bench.json, bench.md and four pictures.",
    )
    parser.add_argument("--against", choices=("flower",), help="measure Flower's SecAgg+ beside it")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller sizes, in half a minute")
    parser.add_argument("--coordinates", nargs="+", type=int, metavar="D", help="lengths of vectors (default: a grid)")
    parser.add_argument("--neighbours", nargs="+", type=int, metavar="K", help="of the client that is measured alone")
    parser.add_argument("--clients", nargs="+", type=int, metavar="N", help="of whole cohorts")
    parser.add_argument("--repeats", type=int, metavar="R", help="of each short measurement")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="what to print (default: table)")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), metavar="DIR", help="default: bench-out")
    parser.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    from protocols.benchmark import costs, flower, grid, plots, prediction, report, run
    from protocols.experiments.folder import make_folder

    planned = grid.chosen(
        grid.QUICK if arguments.quick else grid.FULL,
        arguments.coordinates,
        arguments.neighbours,
        arguments.clients,
        arguments.repeats,
    )
    if arguments.against:
        flower.version()
    folder: Path = arguments.out
    make_folder(folder)
    todo = list(run.tasks(planned, against_flower=arguments.against is not None))
    with _bar(len(todo), folder) as tell:
        results = run.measure(todo, folder, tell)
    fits = costs.fitted(results["stages"], results["cohorts"])
    predicted = prediction.predictions(fits)
    found = report.tables(results, fits, predicted)
    written = {
        **results,
        "formulas": costs.to_json(fits),
        "predictions": prediction.to_json(predicted),
    }
    (folder / "bench.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    (folder / "bench.md").write_text(report.page(found, _about(results)), encoding="utf-8")
    plots.draw(results, fits, folder)
    run.finish(folder)
    if arguments.format == "json":
        print(json.dumps(written, indent=1))
    else:
        _print({title: found[title] for title in report.SHORT if title in found}, results, folder)
    return 0


@contextmanager
def _bar(total: int, folder: Path) -> Iterator[Callable[[Task, str], None]]:
    """A bar on standard error that moves with every measurement and says what is being measured.

    Raises:
        InterruptedRunError: The user interrupted; nothing that was measured is lost.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from secagg.commands import InterruptedRunError

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=total)

        def tell(task: Task, doing: str) -> None:
            progress.update(bar, advance=not doing, description=f"{task.name} {doing}".strip())

        try:
            yield tell
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"interrupted; what has been measured is in {folder}, and the same command goes on from there"
            ) from None


def _about(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    beside = f" Flower {results['flower']['flower']}." if "flower" in results else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores. One thread, but where processes are counted. Medians, and "
        f"the fastest of several repetitions in which whatever is compared takes turns.{beside}"
    )


def _print(tables: Mapping[str, Table], results: Mapping[str, Any], folder: Path) -> None:
    from rich.table import Table as Drawn

    from protocols.commands.printing import print_tables

    drawn = {}
    for title, (head, *rows) in tables.items():
        drawn[title] = Drawn()
        for number, name in enumerate(head):
            drawn[title].add_column(name, justify="right" if number else "left", no_wrap=True)
        for row in rows:
            drawn[title].add_row(*row)
    files = "bench.json, bench.md (all tables), time.png, bytes.png, cohorts.png, density.png"
    print_tables(drawn, _about(results), f"\nWritten to {folder}: {files}")
