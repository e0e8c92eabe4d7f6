"""The command ``secagg tune``."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from protocols.commands.options import add_experiment, place_of, setup_of

if TYPE_CHECKING:
    import argparse

    from protocols.campaign import Tell
    from protocols.results import Outcome


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to ``secagg``."""
    parser = subparsers.add_parser(
        "tune",
        help="choose a learning rate on the validation part",
        description="Trains FedAvg, without encryption, with each learning rate and seed, and compares accuracies on "
        "examples that clients set aside. The test set is not looked at.",
    )
    parser.add_argument("--learning-rates", nargs="+", type=float, required=True, metavar="R", help="those to try")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="S", help="default: 0")
    parser.add_argument("--out", type=Path, default=Path("runs/tune"), metavar="DIR", help="default: runs/tune")
    add_experiment(parser, rounds=20, warm_up=0)
    parser.set_defaults(run=_tune)


def _tune(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from rich.table import Table

    from protocols import experiment
    from protocols.commands.printing import bars, print_tables

    base = setup_of(arguments, system="fedavg", aggregation="float", validate=True)
    place, found = place_of(arguments), {}
    labels = {rate: f"{base.dataset} {rate:g}" for rate in arguments.learning_rates}
    with bars(dict.fromkeys(labels.values(), base.rounds * len(arguments.seeds))) as tell:
        for rate, label in labels.items():
            setups = [replace(base, training={**base.training, "learning_rate": rate}, seed=s) for s in arguments.seeds]
            validations = []
            for setup in setups:
                on_round = partial(_told, tell, label, setup.seed)
                folder = arguments.out / label.replace(" ", "-") / f"seed-{setup.seed}"
                validations.append(experiment.run(setup, folder, place, on_round=on_round).validation or 0.0)
            found[rate] = fmean(validations)
    best = max(found, key=lambda rate: found[rate])
    if arguments.format == "json":
        print(json.dumps({"validation": {f"{rate:g}": value for rate, value in found.items()}, "best": best}))
        return 0
    table = Table(title=f"FedAvg on {base.dataset}, {base.rounds} rounds", title_justify="left")
    table.add_column("Learning rate", justify="right")
    table.add_column("Validation accuracy", justify="right")
    for rate, value in found.items():
        table.add_row(f"{rate:g}", f"{value:.1%}" + (" *" if rate == best else ""))
    print_tables([table])
    return 0


def _told(tell: Tell, label: str, seed: int, _name: str, outcome: Outcome) -> None:
    tell(label, seed, outcome)
