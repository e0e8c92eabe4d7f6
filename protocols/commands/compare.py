"""The command ``secagg compare``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocols.commands.options import add_experiment, at_length, length_of, place_of, setup_of, unfinished
from secagg.errors import ParameterError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from protocols.experiments.campaign import Campaign
    from protocols.experiments.comparison import Row, Runs
    from protocols.results import Begin

_STRAGGLERS_ONLY = ("clip",)
"""Suites in which a system relieves stragglers and nobody else."""

_PRIVATE = ("private",)
"""Suites of systems that differ in who adds the noise."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to ``secagg``."""
    parser = subparsers.add_parser(
        "compare",
        help="all variants of a system beside its baselines, over several seeds",
        description="Runs every variant and baseline with every seed from a common warm-up, and compares them seed by "
        "seed. Interrupted, the same command goes on where it stopped. Writes comparison.json, a page and pictures.",
    )
    parser.add_argument("system", metavar="SYSTEM", help="clip, ma-clamp, pr-fl, ca-afp or private")
    parser.add_argument(
        "--variants", nargs="+", metavar="LABEL", help="only these besides the baseline; a wrong one lists all"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="S", help="default: 0 1 2")
    parser.add_argument(
        "--plain",
        action="store_true",
        help="the same sums in the clear: the same models in less time, charged the time of the encryption",
    )
    parser.add_argument(
        "--targets", nargs="+", type=float, default=[], metavar="A", help="accuracies to tell the time to: 0.9 0.95"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once, a core each (default: 1)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to keep all (default: runs/compare-...)")
    add_experiment(parser, rounds=20, warm_up=5)
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from protocols.commands.printing import bars, print_comparison, resumable
    from protocols.experiments import campaign
    from protocols.experiments.campaign import Campaign
    from protocols.experiments.comparison import compare
    from protocols.experiments.experiment import WARM_UP
    from protocols.experiments.setup import partition_of
    from protocols.experiments.suites import suite

    variants = suite(arguments.system, None if arguments.variants is None else tuple(arguments.variants))
    _check(arguments)
    base = setup_of(arguments, system=arguments.system)
    planned = Campaign(base=base, variants=variants, seeds=tuple(arguments.seeds), encrypted=not arguments.plain)
    base = at_length(arguments, base, [planned.setup(variant, planned.seeds[0]) for variant in variants])
    planned = replace(planned, base=base)
    out: Path = arguments.out or Path("runs") / f"compare-{arguments.system}-{base.dataset}-{base.profile}"
    totals = {WARM_UP: base.warm_up} if base.warm_up else {}
    totals |= {variant.label: base.rounds for variant in variants}
    totals = {label: rounds * len(planned.seeds) for label, rounds in totals.items()}
    with resumable(out), bars(totals, campaign.kept(planned, out)) as tell:
        runs = campaign.run(planned, out, place_of(arguments), jobs=arguments.jobs, on_round=tell)
    begins = campaign.begins(planned, out)
    rows = compare(runs, begins, arguments.targets)
    length = length_of(base, [run for own in runs.values() for run in own.values()])
    title = f"{arguments.system} on {base.dataset}, {partition_of(base)}, profile {base.profile}, {length}"
    stragglers_only = arguments.system in _STRAGGLERS_ONLY
    summary = _write(planned, runs, rows, title, out, stragglers_only=stragglers_only)
    drawn = _draw(runs, rows, title, out, begins, stragglers_only=stragglers_only)
    if arguments.format == "json":
        print(json.dumps(summary, indent=1))
    else:
        files = ", ".join(("comparison.json", "comparison.md", *drawn))
        left = unfinished(planned.setup(variant, planned.seeds[0]) for variant in variants)
        print_comparison(rows, title, base, *left, f"\nWritten to {out}: {files}", stragglers_only=stragglers_only)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    for target in arguments.targets:
        if not 0 < target <= 1:
            raise ParameterError(f"--targets {target:g}: an accuracy is a share in (0, 1], as 0.9 for 90 %")
    if arguments.system in _PRIVATE and arguments.epsilon is None:
        raise ParameterError(
            f"{arguments.system} compares systems by their noise: give --epsilon, or --epsilon inf for none"
        )


def _write(
    planned: Campaign, runs: Mapping[str, Runs], rows: tuple[Row, ...], title: str, out: Path, *, stragglers_only: bool
) -> dict[str, Any]:
    """Writes the comparison; returns what it says."""
    from dataclasses import asdict

    from protocols.experiments import campaign
    from protocols.experiments.markdown import page
    from protocols.simulation.calibration import CALIBRATION, Calibration

    setup = campaign.resolved(planned, out)
    summary = {
        "setup": setup,
        "encrypted": planned.encrypted,
        "seeds": list(planned.seeds),
        "rows": [row.to_json() for row in rows],
        "verdicts": {label: next(iter(own.values())).verdict for label, own in runs.items()},
        "secure_times": [asdict(time) for time in Calibration.load(out / CALIBRATION).times],
    }
    (out / "comparison.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    written = page(rows, title, setup, stragglers_only=stragglers_only)
    (out / "comparison.md").write_text(written, encoding="utf-8")
    return summary


def _draw(
    runs: Mapping[str, Runs],
    rows: tuple[Row, ...],
    title: str,
    out: Path,
    begins: Mapping[int, Begin],
    *,
    stragglers_only: bool,
) -> list[str]:
    """Draws what there is to see; returns the names of the pictures."""
    from protocols.experiments import plots

    plots.accuracy_over_time(runs, out / "accuracy.png", title=title, begins=begins)
    plots.round_times(rows, out / "time.png", title=title, stragglers_only=stragglers_only)
    drawn = ["accuracy.png", "time.png"]
    if len(rows) > 1:
        plots.gains(rows, out / "gains.png", title=title)
        drawn.append("gains.png")
    if fared := [row for row in rows if row.personal]:
        plots.clients_own(fared, out / "clients.png", title=title)
        drawn.append("clients.png")
    return drawn
