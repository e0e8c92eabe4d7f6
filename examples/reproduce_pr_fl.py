"""PR-FL beside its baselines on real data: the comparisons behind docs/results/pr-fl.md.

Run it with `python examples/reproduce_pr_fl.py --data-dir DIR --out runs/pr-fl --jobs 2`; `--quick` runs scikit-learn's
digits instead, in minutes and without any files. Interrupted, the same command goes on where it stopped.
"""

from protocols.experiments.reproduce import reproduce

# Ten clients on the published links, five steps on batches of 20 a trip, as published. A run ends by simulated time.
TRAINING = "--training steps=5 --training batch_size=20 --training optimiser=sgd"
FLEET = "--clients 10 --profile published-links --warm-up 0 --rounds 100000 --plain"
MNIST = "--dataset mnist-mlp --training learning_rate=.1"
SHORT, LONG = "--until 500 --targets .9 .93 .95 .97", "--until 2000 --targets .95 .97 .98 .985"
CIFAR = "--dataset cifar10 --until 1500 --targets .4 .45 .5"
SESSIONS = "--params min_cohort=3 --params max_dropouts=1"

COMPARISONS = {
    "mnist-skewed": f"{MNIST} {SHORT} --partition label-skewed --alpha 0.3",
    "mnist-even": f"{MNIST} {SHORT} --partition even",
    "mnist-skewed-long": f"{MNIST} {LONG} --partition label-skewed --alpha 0.3",
    "mnist-even-long": f"{MNIST} {LONG} --partition even",
    "cifar10-skewed": f"{CIFAR} --partition label-skewed --alpha 1",
    "cifar10-even": f"{CIFAR} --partition even",
}
QUICK = {"digits": "--dataset digits --until 20 --targets 0.8 0.9 --seeds 0 --variants pr-fl fedavg pr-fl-secure"}

if __name__ == "__main__":  # worker processes import this file, and must not begin anew
    reproduce("pr-fl", __doc__, COMPARISONS, QUICK, f"{FLEET} {SESSIONS} {TRAINING}")
