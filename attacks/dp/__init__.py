"""Attacks on the noise: what epsilon a deployment's sums have at the least, beside what the accountant says.

``canary`` makes the trials. ``clopper_pearson``, ``gaussian`` and ``one_run`` turn them into lower bounds on epsilon,
each under assumptions of its own; ``oracle`` computes epsilon from the law of the noise, without any trial.
"""

from attacks.dp.probe import probe

__all__ = ["probe"]
