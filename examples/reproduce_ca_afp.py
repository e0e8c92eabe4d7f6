"""CA-AFP beside its baselines on real data: the comparisons behind docs/results/ca-afp.md.

Run it with `python examples/reproduce_ca_afp.py --data-dir DIR --out runs/ca-afp --jobs 2`; `--quick` runs
scikit-learn's digits instead, in minutes and without any files. Interrupted, the same command goes on where it stopped.
"""

from protocols.experiments.reproduce import reproduce

# Fifteen rounds of FedAvg, one in which clusters are found, fifteen dense ones and twenty in which they are pruned. In
# bfloat16 a step takes half the time.
LENGTHS = "--warm-up 15 --rounds 36 --seeds 42 123 456 789 1024 --training precision=bfloat16"
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
EPOCHS = {
    "har-two-labels-epochs": f"{COMPARISONS['har-two-labels']} --training steps=8",
    "wisdm-epochs": "--dataset wisdm --clients 51 --fine-tuning 8 --training steps=8",
    "wisdm-two-labels-epochs": "--dataset wisdm --clients 51 --partition few-labels --fine-tuning 3 --training steps=3",
}
"""As published: three local epochs a round, whatever a client has, and a pull towards the cluster's model."""

COMPARISONS |= {name: f"{options} --training proximal=.01" for name, options in EPOCHS.items()}
QUICK = {
    "digits": "--dataset digits --clients 12 --partition label-skewed --fine-tuning 20 --seeds 0 "
    "--variants fedavg local ca-afp magnitude ca-afp-secure"
}

if __name__ == "__main__":  # worker processes import this file, and must not begin anew
    reproduce("ca-afp", __doc__, COMPARISONS, QUICK, f"{LENGTHS} {SESSIONS}")
