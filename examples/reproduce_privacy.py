"""Accuracy against epsilon on real data: the comparisons behind docs/results/privacy.md.

Run it with `python examples/reproduce_privacy.py --data-dir DIR --out runs/privacy --jobs 2`; `--quick` runs
scikit-learn's digits instead, in minutes and without any files. Interrupted, the same command goes on where it stopped.
"""

from protocols.experiments.reproduce import reproduce

# Five hundred writers, all of them in every round.
FLEET = "--dataset mnist-small --partition natural --clients 500 --warm-up 0 --rounds 20 --plain --clip .5"

COMPARISONS = {
    "epsilon-2": f"{FLEET} --epsilon 2",
    "epsilon-4": f"{FLEET} --epsilon 4",
    "epsilon-8": f"{FLEET} --epsilon 8",
    "epsilon-8-no-surplus": f"{FLEET} --epsilon 8 --remove-surplus",
    "epsilon-8-16-bits": f"{FLEET} --epsilon 8 --ring-bits 16",
    "epsilon-8-32-bits": f"{FLEET} --epsilon 8 --ring-bits 32",
    "samples-epsilon-8": f"{FLEET} --epsilon 8 --unit sample --clip 1",
    "no-budget": FLEET.replace(" --clip .5", "") + " --epsilon inf",
}
SMALL = "--dataset digits-mlp --clients 60 --warm-up 0 --rounds 10 --training learning_rate=3e-3 --plain --clip .5"
QUICK = {"digits-epsilon-20": f"{SMALL} --epsilon 20"}

if __name__ == "__main__":  # worker processes import this file, and must not begin anew
    reproduce("private", __doc__, COMPARISONS, QUICK)
