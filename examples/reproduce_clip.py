"""CLIP beside its baselines on real data: the comparisons behind docs/results/clip.md.

Run it with `python examples/reproduce_clip.py --data-dir DIR --out runs/clip --jobs 2`; `--quick` runs scikit-learn's
digits instead, in minutes and without any files. Interrupted, the same command goes on where it stopped.
"""

from protocols.experiments.reproduce import reproduce

COMMON = "--plain --training precision=bfloat16"
MAIN = "--variants clip clip-uniform clip-vote random-dropout ordered-dropout fluid exclusion"
EVERY = f"{MAIN} clip-local clip-largest clip-uniform-compute"

LENGTHS = {
    "cifar10": "--rounds 20 --warm-up 30",
    "mnist": "--rounds 20 --warm-up 10",
    "shakespeare": "--rounds 20 --warm-up 40",
}
COMPARISONS = {
    f"{dataset}-{profile}": f"--dataset {dataset} --profile {profile} {lengths} "
    + (EVERY if (dataset, profile) == ("cifar10", "half-speed") else MAIN)
    for dataset, lengths in LENGTHS.items()
    for profile in ("half-speed", "slow-links", "near-speed")
}
QUICK = {"digits": f"--dataset digits --profile half-everything --rounds 5 --warm-up 3 {MAIN}"}

if __name__ == "__main__":  # worker processes import this file, and must not begin anew
    reproduce("clip", __doc__, COMPARISONS, QUICK, COMMON)
