"""The command ``secagg demo``. Nothing heavy is imported before it runs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from secagg.errors import ParameterError

if TYPE_CHECKING:
    import argparse

    from rich.table import Table

    from protocols.demo import DemoResult, DemoSettings
    from protocols.results import RoundResult

_NARROWEST = 118
"""Columns that the table needs; a pipe has no width of its own."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the commands of this package to ``secagg``."""
    parser = subparsers.add_parser(
        "demo",
        help="train with FedAvg and CLIP under encryption, and compare",
        description="Trains scikit-learn's digits on 20 simulated clients, 4 of them stragglers, with encrypted "
        "FedAvg, encrypted CLIP, and encrypted CLIP whose uploads shrink. Writes demo.json and demo.png.",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="what to print (default: table)")
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="where to write (default: demo-out)"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each system after the warm-up")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="decides everything random (default: 0)")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what a round of each system would take; train and write nothing"
    )
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from protocols.demo import DemoSettings

    settings = DemoSettings(seed=arguments.seed)
    if arguments.rounds is not None:
        settings = replace(settings, rounds=arguments.rounds)
    if arguments.dry_run:
        return _dry_run(settings, arguments.format)
    folder: Path = arguments.out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(f"--out {folder}: {error.strerror}") from None
    result = _run_with_progress(settings)
    result.write(folder)
    if arguments.format == "json":
        print(json.dumps(result.to_json(), indent=1))
    else:
        _print_table(result, folder)
    return 0


def _dry_run(settings: DemoSettings, form: str) -> int:
    from protocols.demo import dry_run

    foreseen = dry_run(settings)
    if form == "json":
        print(json.dumps({name: one.to_json() for name, one in foreseen.items()}, indent=1))
    else:
        print("\n\n".join(f"{name}\n{one}" for name, one in foreseen.items()))
    return 0


def _run_with_progress(settings: DemoSettings) -> DemoResult:
    """Runs the demonstration with a bar for each system on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from protocols.demo import WARM_UP, run

    columns = (TextColumn("{task.description:>20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[accuracy]}"), console=Console(stderr=True)) as progress:
        tasks = {WARM_UP: progress.add_task(WARM_UP, total=settings.warm_up, accuracy="")}

        def on_round(name: str, done: RoundResult) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=settings.rounds, accuracy="")
            progress.update(tasks[name], advance=1, accuracy=f"accuracy {done.accuracy:.1%}")

        return run(settings, on_round)


def _print_table(result: DemoResult, folder: Path) -> None:
    from rich.console import Console

    console = Console(file=sys.stdout)
    if console.width < _NARROWEST:
        console = Console(file=sys.stdout, width=_NARROWEST)
    console.print(_table(result))
    console.print(_legend(result.settings), highlight=False)
    for run in result.runs:
        console.print(f"\n[bold]{run.system}[/bold]: {run.verdict}", highlight=False)
    console.print(f"\nWritten to {folder}: demo.json, demo.png", highlight=False)


def _table(result: DemoResult) -> Table:
    from rich.table import Table

    table = Table(title="Encrypted federated learning with stragglers")
    table.add_column("System")
    for column in (
        "Accuracy",
        "Round time",
        "Speed-up",
        "Bound",
        "Keep ratio",
        "Straggler trains",
        "Straggler sends",
        "Difference to plain",
    ):
        table.add_column(column, justify="right")
    for row in result.rows:
        table.add_row(
            row.system,
            f"{row.accuracy:.1%}",
            f"{row.round_seconds:.2f} s",
            f"{row.speed_up:.1%}",
            f"{row.bound:.1%}",
            f"{row.keep:.2f}",
            f"{row.straggler_compute_seconds:.2f} s",
            f"{row.straggler_upload_bytes / 1e3:.0f} kB",
            "not checked" if row.difference is None else f"{row.difference:g}",
        )
    return table


def _legend(settings: DemoSettings) -> str:
    from protocols.results import LAST_ROUNDS

    fleet, averaged = settings.fleet, min(LAST_ROUNDS, settings.rounds)
    slow, fast = fleet.stragglers[0], fleet.rest[0]
    speed = slow.flops_per_second / fast.flops_per_second
    links = slow.upload_bytes_per_second / fast.upload_bytes_per_second
    return (
        f"{len(fleet.devices)} clients, {len(fleet.stragglers)} of them stragglers with {speed:.0%} of the others' "
        f"speed and {links:.0%} of their links; {settings.rounds} rounds after a warm-up of {settings.warm_up}.\n"
        "Times are simulated: operations counted, bytes on the wire, and secure aggregation as calibrated.\n"
        f"Accuracy is the mean over the last {averaged} rounds. Speed-up is 1 - T'/T; its bound is that of "
        "stragglers as fast as the rest.\n"
        "Difference to plain: the largest to the same fixed-point sums without encryption, over all rounds."
    )
