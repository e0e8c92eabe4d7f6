"""CLIP beside its baselines on real data: the comparisons behind docs/results.md.

Run it with `python examples/reproduce_clip.py --data-dir DIR --out runs/clip --jobs 2`; `--quick` runs scikit-learn's
digits instead, in minutes and without any files. Interrupted, the same command goes on where it stopped.
"""

import argparse
from pathlib import Path

from secagg.commands import main

MAIN = "clip clip-uniform clip-vote random-dropout ordered-dropout fluid exclusion"
EVERY = f"{MAIN} clip-local clip-largest clip-uniform-compute"

COMPARISONS = (
    ("cifar10", "half-speed", EVERY, "--rounds 20 --warm-up 30"),
    ("cifar10", "slow-links", MAIN, "--rounds 20 --warm-up 30"),
    ("cifar10", "near-speed", MAIN, "--rounds 20 --warm-up 30"),
    ("mnist", "half-speed", MAIN, "--rounds 20 --warm-up 10"),
    ("mnist", "slow-links", MAIN, "--rounds 20 --warm-up 10"),
    ("mnist", "near-speed", MAIN, "--rounds 20 --warm-up 10"),
    ("shakespeare", "half-speed", MAIN, "--rounds 20 --warm-up 40"),
    ("shakespeare", "slow-links", MAIN, "--rounds 20 --warm-up 40"),
    ("shakespeare", "near-speed", MAIN, "--rounds 20 --warm-up 40"),
)
QUICK = (("digits", "half-everything", MAIN, "--rounds 5 --warm-up 3"),)


def reproduce() -> None:
    """Runs the comparisons one after another; runs within one go on several cores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", help="where the data sets lie")
    parser.add_argument("--out", type=Path, default=Path("runs/clip"))
    parser.add_argument("--jobs", default="1", help="runs at once")
    parser.add_argument("--quick", action="store_true", help="digits only")
    parser.add_argument("--only", nargs="*", default=[], help="a data set, a profile or both: mnist slow-links")
    arguments = parser.parse_args()

    comparisons = [one for one in (QUICK if arguments.quick else COMPARISONS) if set(arguments.only) <= set(one[:2])]
    if not comparisons:
        parser.error(f"--only {' '.join(arguments.only)}: no comparison is of all of these")
    for dataset, profile, variants, lengths in comparisons:
        command = (
            f"compare clip --dataset {dataset} --profile {profile} --plain --training precision=bfloat16 {lengths}"
        )
        options = ["--variants", *variants.split(), "--jobs", arguments.jobs]
        options += ["--out", str(arguments.out / f"{dataset}-{profile}")]
        if arguments.data_dir:
            options += ["--data-dir", arguments.data_dir]
        if code := main([*command.split(), *options]):
            raise SystemExit(code)


if __name__ == "__main__":  # worker processes import this file, and must not begin anew
    reproduce()
