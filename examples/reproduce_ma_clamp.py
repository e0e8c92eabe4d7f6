"""MA-CLAMP beside its baselines on real data: the comparisons behind docs/results/ma-clamp.md.

Run it with `python examples/reproduce_ma_clamp.py --data-dir DIR --out runs/ma-clamp --jobs 2`; `--quick` runs
scikit-learn's digits instead, in minutes and without any files. Interrupted, the same command goes on where it stopped.
"""

from protocols.experiments.reproduce import reproduce

# Two of ten may drop out; three remain in every sum over a layer that five have trained (a participation of .5).
FLEET = "--clients 50 --participants 10 --warm-up 0 --plain --params min_cohort=3 --params max_dropouts=2"

COMPARISONS = {
    "mnist-natural": "--dataset mnist-mlp --partition natural --profile mixed --rounds 40",
    "mnist-skewed": "--dataset mnist-mlp --partition label-skewed --profile mixed --rounds 40",
    "mnist-skewed-uplink": "--dataset mnist-mlp --partition label-skewed --profile mixed-slow-uplink --rounds 40",
    "mnist-skewed-deadline": "--dataset mnist-mlp --partition label-skewed --profile mixed --rounds 40 --deadline 3.2",
    "cifar10": "--dataset cifar10-bn --profile mixed --rounds 40 --training precision=bfloat16",
}
QUICK = {"digits": "--dataset digits-mlp --profile mixed --rounds 10 --training learning_rate=.01"}

if __name__ == "__main__":  # worker processes import this file, and must not begin anew
    reproduce("ma-clamp", __doc__, COMPARISONS, QUICK, FLEET)
