"""Several comparisons of a system under one command: what the scripts behind docs/results have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from secagg.commands import main

if TYPE_CHECKING:
    from collections.abc import Mapping


def reproduce(
    system: str, about: str, comparisons: Mapping[str, str], quick: Mapping[str, str], common: str = ""
) -> None:
    """Runs ``secagg compare`` once for each comparison; runs within one go on several cores.

    Reads the options ``--data-dir``, ``--out``, ``--jobs``, ``--device``, ``--quick``, ``--only``, ``--variants`` and
    ``--seeds`` from the command line.

    Args:
        system: What is compared.
        about: What the script says of itself; its first line is shown as help.
        comparisons: Name to the options of ``secagg compare``.
        quick: The same where ``--quick`` is given: digits, in minutes and without any files.
        common: Options of all comparisons.

    Raises:
        SystemExit: A wrong option, or a comparison that failed.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--data-dir", help="where the data sets lie")
    parser.add_argument("--out", type=Path, default=Path("runs") / system)
    parser.add_argument("--jobs", default="1", help="runs at once")
    parser.add_argument("--device", default="cpu", help="where PyTorch trains: cpu, cuda (default: cpu)")
    parser.add_argument("--quick", action="store_true", help="digits only")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help=f"of {', '.join(comparisons)}")
    parser.add_argument("--variants", nargs="+", metavar="LABEL", help="only these besides the baseline (default: all)")
    parser.add_argument("--seeds", nargs="+", metavar="S", help="only these (default: those of docs/results)")
    arguments = parser.parse_args()

    chosen = quick if arguments.quick else comparisons
    if unknown := sorted(set(arguments.only) - set(chosen)):
        parser.error(f"--only {' '.join(unknown)}: there are {', '.join(chosen)}")
    for name in arguments.only or chosen:
        options = ["--jobs", arguments.jobs, "--device", arguments.device, "--out", str(arguments.out / name)]
        if arguments.data_dir:
            options += ["--data-dir", arguments.data_dir]
        if arguments.variants:
            options += ["--variants", *arguments.variants]
        if arguments.seeds:
            options += ["--seeds", *arguments.seeds]
        if code := main(["compare", system, *common.split(), *chosen[name].split(), *options]):
            raise SystemExit(code)
