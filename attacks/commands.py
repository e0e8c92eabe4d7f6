"""The command ``secagg audit``. Nothing heavy is imported before it runs."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from attacks.deployment import Deployment

MODES = ("plain", "uniform", "mask-indexed", "private")
BROKEN = 1
"""Exit code where a promise is broken."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to ``secagg``."""
    parser = subparsers.add_parser(
        "audit",
        help="attack your own deployment, and get a report",
        description="Runs every attack on a federation: by default on digits, in the clear, with whole sums, with "
        "declared masks and with differential privacy, side by side; or on your own model and data. Writes report.html "
        "and audit.json. The exit code is 1 only where something that the settings promise does not hold.",
    )
    parser.add_argument("--model", metavar="MODULE:FACTORY", help="a function that returns your torch.nn.Module")
    parser.add_argument(
        "--data",
        metavar="MODULE:LOADERS",
        help="a function that returns (clients, test): for each client, and the test, (inputs, labels), a Dataset or a "
        "DataLoader",
    )
    parser.add_argument(
        "--mode", nargs="+", choices=MODES, default=list(MODES), help="deployments to audit (default: all)"
    )
    parser.add_argument(
        "--masks", default="changed-units", metavar="RULE", help="what pruned clients keep (default: changed-units)"
    )
    parser.add_argument("--keep", type=float, default=0.5, metavar="R", help="share that they keep (default: 0.5)")
    parser.add_argument("--pruned", type=float, default=1 / 3, metavar="R", help="share of them (default: a third)")
    parser.add_argument("--epsilon", type=float, default=8.0, metavar="E", help="of private, over all rounds")
    parser.add_argument("--delta", type=float, default=1e-5, metavar="D", help="of epsilon (default: 1e-05)")
    parser.add_argument("--clip", type=float, metavar="C", help="of private (default: the median norm of an update)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="of the budget (default: 10)")
    parser.add_argument(
        "--training", action="append", default=[], metavar="NAME=VALUE", help="local training: learning_rate=0.01"
    )
    parser.add_argument("--params", action="append", default=[], metavar="NAME=VALUE", help="sessions: min_cohort=5")
    parser.add_argument("--groups", nargs="+", metavar="G", help="only these attacks; a wrong name lists all")
    parser.add_argument("--effort", type=float, default=1.0, metavar="X", help="times the trials (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="decides what is drawn (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("audit-out"), metavar="DIR", help="default: audit-out")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="what to print (default: table)")
    parser.set_defaults(run=_audit)


def _audit(arguments: argparse.Namespace) -> int:
    from attacks.auditing import GROUPS, PROBES, audit
    from attacks.finding import Effort
    from attacks.report import figures, table, write
    from protocols.experiments.folder import make_folder

    deployments = _deployments(arguments)
    groups = tuple(arguments.groups or GROUPS)
    make_folder(arguments.out)
    total = len(deployments) * len(set(groups) & set(PROBES)) + ("wire" in groups)
    with _bar(total) as tell:
        found = audit(
            deployments, effort=Effort().times(arguments.effort), groups=groups, seed=arguments.seed, tell=tell
        )
    page = write(found, arguments.out)
    print(figures(found) if arguments.format == "json" else f"{table(found)}\nReport: {page}")
    return 0 if found.passed else BROKEN


def _deployments(arguments: argparse.Namespace) -> tuple[Deployment, ...]:
    from attacks.protections import side_by_side
    from attacks.rules import rule
    from protocols.commands.options import pairs
    from protocols.experiments.setup import settings_from

    plain = _plain(arguments)
    plain = plain.variant(
        "plain",
        training=settings_from(plain.training, pairs("--training", arguments.training)),
        params=settings_from(plain.params, pairs("--params", arguments.params)),
    )
    return side_by_side(
        plain,
        tuple(dict.fromkeys(arguments.mode)),
        mask=rule(arguments.masks, arguments.keep),
        pruned=arguments.pruned,
        epsilon=arguments.epsilon,
        delta=arguments.delta,
        clip=arguments.clip,
        rounds=arguments.rounds,
    )


def _plain(arguments: argparse.Namespace) -> Deployment:
    from attacks import digits
    from attacks.deployment import Deployment
    from attacks.loading import data_of, model_of, named
    from attacks.protections import PARAMS
    from secagg.errors import ParameterError

    if (arguments.model is None) != (arguments.data is None):
        raise ParameterError("--model and --data go together: the default model fits digits only")
    if arguments.model is None:
        return digits.deployment()
    clients, test = data_of(named("--data", arguments.data))
    return Deployment(
        name="plain",
        model=model_of(named("--model", arguments.model)),
        clients=clients,
        test=test,
        training=digits.TRAINING,
        mode="plain",
        params=PARAMS,
    )


@contextmanager
def _bar(total: int) -> Iterator[Callable[[str, str], None]]:
    """A bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("auditing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[said]}"), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total, said="")
        yield lambda deployment, group: progress.update(task, advance=1, said=f"{deployment}: {group}")
