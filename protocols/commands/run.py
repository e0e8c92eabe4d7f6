"""The command ``secagg run``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from protocols.commands.options import add_experiment, pairs, place_of, setup_of

if TYPE_CHECKING:
    import argparse

    from protocols.experiment import Setup
    from protocols.results import RunResult


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to ``secagg``."""
    parser = subparsers.add_parser(
        "run",
        help="train one federated system on simulated devices",
        description="Runs a system round after round and keeps every round in a folder. Interrupted, the same command "
        "goes on where it stopped; with more --rounds it goes further.",
    )
    parser.add_argument("system", metavar="SYSTEM", help="for instance fedavg, clip, ma-clamp; a wrong name lists all")
    parser.add_argument("--aggregation", default=None, metavar="HOW", help="float, plain, uniform or mask-indexed")
    parser.add_argument(
        "--mode", choices=("uniform", "mask-indexed"), help="of float and plain (default: the system's)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="decides everything random (default: 0)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change the system: statistic=local"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to keep it (default: runs/SYSTEM-DATASET)")
    add_experiment(parser, rounds=20, warm_up=0)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from protocols import campaign, experiment
    from protocols.catalogue import system_kind
    from protocols.commands.printing import bars, resumable
    from protocols.comparison import compare
    from protocols.simulation.calibration import Calibration

    kind = system_kind(arguments.system)
    setup = setup_of(
        arguments,
        system=arguments.system,
        settings=pairs("--set", arguments.set),
        aggregation=arguments.aggregation or (kind.modes[0] if kind.encrypts else "float"),
        mode=arguments.mode,
        seed=arguments.seed,
    )
    folder: Path = arguments.out or Path("runs") / f"{setup.system}-{setup.dataset}"
    calibration = Calibration.load(folder / campaign.CALIBRATION)
    experiment.calibrate(setup, calibration)
    with resumable(folder), bars({experiment.WARM_UP: setup.warm_up} | {setup.system: setup.rounds}) as tell:
        result = experiment.run(
            setup,
            folder,
            place_of(arguments),
            calibration=calibration,
            on_round=lambda name, one: tell(name if name == experiment.WARM_UP else setup.system, setup.seed, one),
        )
    calibration.save(folder / campaign.CALIBRATION)
    written = {"setup": setup.to_json(), "result": result.to_json()}
    (folder / "result.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    if arguments.format == "json":
        print(
            json.dumps(
                {"setup": setup.to_json(), "summary": compare({setup.system: {setup.seed: result}})[0].to_json()}
            )
        )
    else:
        _print(setup, result, folder)
    return 0


def _print(setup: Setup, result: RunResult, folder: Path) -> None:
    from protocols.commands.printing import LEGEND, comparison_tables, print_tables
    from protocols.comparison import compare

    rows = compare({setup.system: {setup.seed: result}})
    print_tables(
        comparison_tables(rows, f"{result.system} on {setup.dataset}, profile {setup.profile}, {setup.rounds} rounds"),
        LEGEND,
        *(f"\n{note}" for note in result.notes),
        f"\n{result.verdict}",
        f"\nKept in {folder}: setup.json, rounds.jsonl, checkpoint.pt, result.json",
    )
