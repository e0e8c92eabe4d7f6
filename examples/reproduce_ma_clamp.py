"""MA-CLAMP beside its baselines on real data: the comparisons behind docs/results.md.

Run it with `python examples/reproduce_ma_clamp.py --data-dir DIR --out runs/ma-clamp --jobs 2`; `--quick` runs
scikit-learn's digits instead, in minutes and without any files. Interrupted, the same command goes on where it stopped.
"""

import argparse
from pathlib import Path

from secagg.commands import main

COMPARISONS = {
    "mnist-natural": "--dataset mnist-mlp --partition natural --profile mixed --rounds 40",
    "mnist-skewed": "--dataset mnist-mlp --partition label-skewed --profile mixed --rounds 40",
    "mnist-skewed-uplink": "--dataset mnist-mlp --partition label-skewed --profile mixed-slow-uplink --rounds 40",
    "mnist-skewed-deadline": "--dataset mnist-mlp --partition label-skewed --profile mixed --rounds 40 --deadline 3.2",
    "cifar10": "--dataset cifar10-bn --profile mixed --rounds 40 --training precision=bfloat16",
}
QUICK = {"digits": "--dataset digits-mlp --profile mixed --rounds 10"}


def reproduce() -> None:
    """Runs the comparisons one after another; runs within one go on several cores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", help="where the data sets lie")
    parser.add_argument("--out", type=Path, default=Path("runs/ma-clamp"))
    parser.add_argument("--jobs", default="1", help="runs at once")
    parser.add_argument("--quick", action="store_true", help="digits only")
    parser.add_argument("--only", nargs="*", default=[], help="names of comparisons, for instance: mnist-natural")
    arguments = parser.parse_args()

    # Two of ten may drop out; three remain in every sum over a layer that five have trained (a participation of .5).
    FLEET = "--clients 50 --participants 10 --warm-up 0 --plain --params min_cohort=3 --params max_dropouts=2"

    comparisons = QUICK if arguments.quick else COMPARISONS
    if unknown := set(arguments.only) - set(comparisons):
        parser.error(f"--only {' '.join(sorted(unknown))}: there are {', '.join(comparisons)}")
    for name in arguments.only or comparisons:
        options = ["--jobs", arguments.jobs, "--out", str(arguments.out / name)]
        if arguments.data_dir:
            options += ["--data-dir", arguments.data_dir]
        if code := main([*f"compare ma-clamp {FLEET} {comparisons[name]}".split(), *options]):
            raise SystemExit(code)


if __name__ == "__main__":  # worker processes import this file, and must not begin anew
    reproduce()
