"""PR-FL beside its baselines on real data: the comparisons behind docs/results.md.

Run it with `python examples/reproduce_pr_fl.py --data-dir DIR --out runs/pr-fl --jobs 2`; `--quick` runs scikit-learn's
digits instead, in minutes and without any files. Interrupted, the same command goes on where it stopped.
"""

import argparse
from pathlib import Path

from secagg.commands import main

# Ten clients on the published links, five steps on batches of 20 a trip, as published. A run ends by simulated time.
TRAINING = "--training steps=5 --training batch_size=20 --training optimiser=sgd"
FLEET = "--clients 10 --profile published-links --warm-up 0 --rounds 100000 --plain"
SESSIONS = "--params min_cohort=3 --params max_dropouts=1"

COMPARISONS = {
    "mnist-skewed": "--dataset mnist-mlp --partition label-skewed --alpha 0.3 --until 1500 --targets 0.9 0.95 0.97",
    "mnist-even": "--dataset mnist-mlp --partition even --until 1500 --targets 0.9 0.95 0.97",
    "cifar10-skewed": "--dataset cifar10 --partition label-skewed --alpha 1.0 --until 6000 --targets 0.4 0.45 0.5",
    "cifar10-even": "--dataset cifar10 --partition even --until 6000 --targets 0.4 0.45 0.5",
}
QUICK = {"digits": "--dataset digits --until 20 --targets 0.8 0.9"}


def reproduce() -> None:
    """Runs the comparisons one after another; runs within one go on several cores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", help="where the data sets lie")
    parser.add_argument("--out", type=Path, default=Path("runs/pr-fl"))
    parser.add_argument("--jobs", default="1", help="runs at once")
    parser.add_argument("--quick", action="store_true", help="digits only")
    parser.add_argument("--only", nargs="*", default=[], help="names of comparisons, for instance: mnist-skewed")
    arguments = parser.parse_args()

    comparisons = QUICK if arguments.quick else COMPARISONS
    if unknown := set(arguments.only) - set(comparisons):
        parser.error(f"--only {' '.join(sorted(unknown))}: there are {', '.join(comparisons)}")
    for name in arguments.only or comparisons:
        options = ["--jobs", arguments.jobs, "--out", str(arguments.out / name)]
        if arguments.data_dir:
            options += ["--data-dir", arguments.data_dir]
        if code := main([*f"compare pr-fl {FLEET} {SESSIONS} {TRAINING} {comparisons[name]}".split(), *options]):
            raise SystemExit(code)


if __name__ == "__main__":  # worker processes import this file, and must not begin anew
    reproduce()
