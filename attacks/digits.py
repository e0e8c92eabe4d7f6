"""The federation that an audit runs on by default: clients that learn scikit-learn's handwritten digits."""

from __future__ import annotations

import numpy as np

from attacks.deployment import Deployment
from attacks.protections import PARAMS
from protocols.datasets import divide, load
from protocols.models import mlp
from protocols.training import Training

CLIENTS = 12
TRAINING = Training(steps=5, batch_size=16, learning_rate=0.1, momentum=0.0)


def deployment(clients: int = CLIENTS, seed: int = 0) -> Deployment:
    """A federation without protection, whose labels are skewed from client to client.

    Args:
        clients: How many.
        seed: Of who has which digits, and of the model's first weights.
    """
    division = divide(
        load("digits", None), clients, partition="label-skewed", generator=np.random.default_rng(seed), alpha=0.5
    )
    return Deployment(
        name="plain",
        model=lambda: mlp(64, (64, 32), seed=seed),
        clients=division.parts,
        test=division.test,
        training=TRAINING,
        mode="plain",
        params=PARAMS,
    )
