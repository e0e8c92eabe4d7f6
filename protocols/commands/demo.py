"""The command ``secagg demo``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from protocols.experiments.demo import DemoResult, DemoSettings


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to ``secagg``."""
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
    from protocols.experiments.demo import DemoSettings
    from protocols.experiments.folder import make_folder

    settings = DemoSettings(seed=arguments.seed)
    if arguments.rounds is not None:
        settings = replace(settings, rounds=arguments.rounds)
    if arguments.dry_run:
        return _dry_run(settings, arguments.format)
    folder: Path = arguments.out
    make_folder(folder)
    result = _run_with_progress(settings)
    result.write(folder)
    if arguments.format == "json":
        print(json.dumps(result.to_json(), indent=1))
    else:
        _print(result, folder)
    return 0


def _dry_run(settings: DemoSettings, form: str) -> int:
    from protocols.experiments.demo import dry_run

    foreseen = dry_run(settings)
    if form == "json":
        print(json.dumps({label: one.to_json() for label, one in foreseen.items()}, indent=1))
    else:
        print("\n\n".join(f"{label}\n{one}" for label, one in foreseen.items()))
    return 0


def _run_with_progress(settings: DemoSettings) -> DemoResult:
    from protocols.commands.printing import bars
    from protocols.experiments.demo import run
    from protocols.experiments.experiment import WARM_UP

    planned = settings.campaign
    totals = {WARM_UP: planned.base.warm_up} | {one.label: planned.base.rounds for one in planned.variants}
    with bars(totals, {}) as tell:
        return run(settings, tell)


def _print(result: DemoResult, folder: Path) -> None:
    from protocols.commands.printing import print_comparison

    print_comparison(
        result.rows,
        "Encrypted federated learning with stragglers",
        result.settings.campaign.base,
        *(f"\n[bold]{label}[/bold]: {verdict}" for label, verdict in result.verdicts().items()),
        f"\nWritten to {folder}: demo.json, demo.png",
        stragglers_only=True,
    )
