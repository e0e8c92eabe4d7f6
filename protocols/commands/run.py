"""The command ``secagg run``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocols.commands.options import add_experiment, at_length, length_of, pairs, place_of, setup_of, unfinished
from secagg.errors import ParameterError

if TYPE_CHECKING:
    import argparse

    from protocols.experiments.setup import Setup
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
    from protocols.commands.printing import bars, resumable
    from protocols.experiments import experiment
    from protocols.experiments.catalogue import system_kind
    from protocols.experiments.folder import RunFolder, rounds_kept

    kind = system_kind(arguments.system)
    setup = setup_of(
        arguments,
        system=arguments.system,
        settings=pairs("--set", arguments.set),
        aggregation=arguments.aggregation or (kind.modes[0] if kind.encrypts else "float"),
        mode=arguments.mode,
        seed=arguments.seed,
    )
    setup = at_length(arguments, setup, [setup])
    folder: Path = arguments.out or Path("runs") / f"{setup.system}-{setup.dataset}"
    place, totals = place_of(arguments), {experiment.WARM_UP: setup.warm_up} if setup.warm_up else {}
    kept = {experiment.WARM_UP: rounds_kept(folder / experiment.WARM_UP), setup.system: rounds_kept(folder)}
    with resumable(folder), bars(totals | {setup.system: setup.rounds}, kept) as tell:
        result = experiment.run(
            setup,
            folder,
            place,
            on_round=lambda name, one: tell(name if name == experiment.WARM_UP else setup.system, setup.seed, one),
        )
    found = RunFolder.as_it_stands(folder)
    if len(found.outcomes) > len(result.rounds) + len(result.lost):
        raise ParameterError(
            f"{folder} holds {len(found.outcomes)} rounds, and result.json is of all of them: ask for as many with "
            "--rounds, and for no less time with --until, or choose another --out"
        )
    resolved = found.setup | {"rounds": setup.rounds}
    written = {"setup": resolved, "result": result.to_json()}
    (folder / "result.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    if arguments.format == "json":
        print(json.dumps({"setup": resolved, "summary": _summary(setup, result)}, indent=1))
    else:
        _print(setup, result, folder)
    return 0


def _summary(setup: Setup, result: RunResult) -> dict[str, Any]:
    from protocols.experiments.comparison import BESIDE_BASELINE, compare

    (row,) = compare({setup.system: {setup.seed: result}})
    return {name: value for name, value in row.to_json().items() if name not in BESIDE_BASELINE}


def _print(setup: Setup, result: RunResult, folder: Path) -> None:
    from protocols.commands.printing import print_comparison
    from protocols.experiments.comparison import compare

    print_comparison(
        compare({setup.system: {setup.seed: result}}),
        f"{result.system} on {setup.dataset}, profile {setup.profile}, {length_of(setup, [result])}",
        setup,
        *(f"\n{note}" for note in result.notes),
        *unfinished([setup]),
        f"\n{result.verdict}",
        f"\nKept in {folder}: setup.json, rounds.jsonl, checkpoint.pt, result.json",
        stragglers_only=False,
    )
