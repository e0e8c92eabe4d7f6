"""CA-AFP beside its baselines on real data: the comparisons behind docs/results.md.

Run it with `python examples/reproduce_ca_afp.py --data-dir DIR --out runs/ca-afp --jobs 2`; `--quick` runs
scikit-learn's digits instead, in minutes and without any files. Interrupted, the same command goes on where it stopped.
"""

import argparse
from pathlib import Path

from secagg.commands import main

# Fifteen rounds of FedAvg, one in which clusters are found, fifteen dense ones and twenty in which they are pruned.
LENGTHS = "--warm-up 15 --rounds 36 --seeds 42 123 456 789 1024"
SESSIONS = "--participants 10 --plain --params min_cohort=3 --params max_dropouts=1"

COMPARISONS = {
    "har": "--dataset har --clients 30 --fine-tuning 225",
    "har-two-labels": "--dataset har --clients 30 --partition few-labels --fine-tuning 75",
    "har-skewed-0.1": "--dataset har --clients 30 --partition label-skewed --alpha 0.1 --fine-tuning 225",
    "har-skewed-1": "--dataset har --clients 30 --partition label-skewed --alpha 1 --fine-tuning 225",
    "har-skewed-10": "--dataset har --clients 30 --partition label-skewed --alpha 10 --fine-tuning 225",
    "wisdm": "--dataset wisdm --clients 51 --fine-tuning 12",
    "wisdm-two-labels": "--dataset wisdm --clients 51 --partition few-labels --fine-tuning 6",
}
QUICK = {"digits": "--dataset digits --clients 12 --partition label-skewed --fine-tuning 20"}


def reproduce() -> None:
    """Runs the comparisons one after another; runs within one go on several cores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", help="where the data sets lie")
    parser.add_argument("--out", type=Path, default=Path("runs/ca-afp"))
    parser.add_argument("--jobs", default="1", help="runs at once")
    parser.add_argument("--quick", action="store_true", help="digits only")
    parser.add_argument("--only", nargs="*", default=[], help="names of comparisons, for instance: har")
    arguments = parser.parse_args()

    comparisons = QUICK if arguments.quick else COMPARISONS
    if unknown := set(arguments.only) - set(comparisons):
        parser.error(f"--only {' '.join(sorted(unknown))}: there are {', '.join(comparisons)}")
    for name in arguments.only or comparisons:
        options = ["--jobs", arguments.jobs, "--out", str(arguments.out / name)]
        if arguments.data_dir:
            options += ["--data-dir", arguments.data_dir]
        if code := main([*f"compare ca-afp {LENGTHS} {SESSIONS} {comparisons[name]}".split(), *options]):
            raise SystemExit(code)


if __name__ == "__main__":  # worker processes import this file, and must not begin anew
    reproduce()
