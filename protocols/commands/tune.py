"""The command ``secagg tune``."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from protocols.commands.options import add_experiment, length_of, place_of, setup_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from protocols.experiments.campaign import Tell
    from protocols.results import Outcome


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to ``secagg``."""
    parser = subparsers.add_parser(
        "tune",
        help="choose a learning rate on the validation part",
        description="Trains FedAvg, without encryption, with each learning rate and seed, and compares accuracies on "
        "examples that clients set aside. The test set is not looked at. Interrupted, the same command goes on where "
        "it stopped. Writes tune.json.",
    )
    parser.add_argument("--learning-rates", nargs="+", type=float, required=True, metavar="R", help="those to try")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="S", help="default: 0")
    parser.add_argument("--out", type=Path, default=Path("runs/tune"), metavar="DIR", help="default: runs/tune")
    add_experiment(parser, rounds=20, warm_up=0)
    parser.set_defaults(run=_tune)


def _tune(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from protocols.commands.printing import bars, resumable
    from protocols.experiments import experiment
    from protocols.experiments.folder import rounds_kept

    base = setup_of(arguments, system="fedavg", aggregation="float", judge="validation")
    place, seeds, out = place_of(arguments), arguments.seeds, arguments.out
    labels, runs = {rate: f"{base.dataset} {rate:g}" for rate in arguments.learning_rates}, {}
    totals = dict.fromkeys(labels.values(), (base.warm_up + base.rounds) * len(seeds))
    folders = {label: [out / label.replace(" ", "-") / f"seed-{seed}" for seed in seeds] for label in labels.values()}
    kept = {
        label: sum(rounds_kept(one) + rounds_kept(one / experiment.WARM_UP) for one in own)
        for label, own in folders.items()
    }
    with resumable(out), bars(totals, kept) as tell:
        for rate, label in labels.items():
            runs[rate] = [
                experiment.run(
                    replace(base, training={**base.training, "learning_rate": rate}, seed=seed),
                    folder,
                    place,
                    on_round=partial(_told, tell, label, seed),
                )
                for seed, folder in zip(seeds, folders[label], strict=True)
            ]
    found = {rate: fmean(run.accuracy for run in own) for rate, own in runs.items()}
    best = max(found, key=lambda rate: found[rate])
    written = {
        "setup": base.to_json(),
        "seeds": seeds,
        "validation": {f"{rate:g}": value for rate, value in found.items()},
        "best": best,
    }
    (out / "tune.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    if arguments.format == "json":
        print(json.dumps(written, indent=1))
    else:
        length = length_of(base, [run for own in runs.values() for run in own])
        _print(found, best, f"FedAvg on {base.dataset}, {length}", f"\nWritten to {out}: tune.json")
    return 0


def _told(tell: Tell, label: str, seed: int, _name: str, outcome: Outcome) -> None:
    tell(label, seed, outcome)


def _print(found: Mapping[float, float], best: float, title: str, below: str) -> None:
    from rich.table import Table

    from protocols.commands.printing import print_tables

    table = Table()
    table.add_column("Learning rate", justify="right")
    table.add_column("Validation accuracy", justify="right")
    for rate, value in found.items():
        table.add_row(f"{rate:g}", f"{value:.1%}" + (" *" if rate == best else ""))
    print_tables({title: table}, below)
