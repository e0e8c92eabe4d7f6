"""What is learned: a data set with the model, the training and the public range of values that suit it.

Learning rates were chosen by ``secagg tune`` on the validation part, never on the test set; but those of HAR and WISDM
are CA-AFP's.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from protocols.datasets import har, wisdm
from protocols.datasets.shakespeare import VOCAB
from protocols.models import char_lstm, conv_bn, digits_cnn, har_cnn, mlp, mnist_cnn, vgg9
from protocols.training import Training
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from protocols.datasets.division import Partition


@dataclass(frozen=True, kw_only=True)
class Task:
    """One thing to learn.

    Args:
        dataset: Name of the data set, as ``protocols.datasets`` knows it.
        model: Its network, given a seed for the initial weights.
        training: How clients train, unless settings say otherwise.
        partition: How examples are divided over clients, unless settings say otherwise.
        value_range: Largest change of a parameter in one round that a session has room for. Public.
        watts: What a device draws in training: 40 for dense networks, 60 for the others, as MA-CLAMP counts.
        owners_per_client: Where natural clients are dealt out: how many make a client; None for all of them.
        most_examples: Most examples of a client; None for no limit.
    """

    dataset: str
    model: Callable[[int], nn.Module]
    training: Training
    partition: Partition = "label-skewed"
    value_range: float = 2.0
    watts: float = 60.0
    owners_per_client: int | None = None
    most_examples: int | None = None


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "digits": Task(
            dataset="digits",
            model=lambda seed: digits_cnn(seed=seed),
            training=Training(steps=10, batch_size=16, learning_rate=0.1),
            value_range=8.0,  # of a client with one label, the bias of that class moves by 4
        ),
        "digits-mlp": Task(
            dataset="digits",
            model=lambda seed: mlp(64, (64, 48, 32, 24), seed=seed),
            training=Training(steps=10, batch_size=32, optimiser="adam", learning_rate=1e-3),
            watts=40.0,
        ),
        "mnist": Task(
            dataset="mnist",
            model=lambda seed: mnist_cnn(seed=seed),
            training=Training(steps=10, batch_size=20, learning_rate=0.03),
        ),
        "mnist-mlp": Task(
            dataset="mnist",
            model=lambda seed: mlp(784, seed=seed),
            training=Training(steps=10, batch_size=64, optimiser="adam", learning_rate=1e-3),
            partition="natural",
            watts=40.0,
        ),
        # Noise is added to every coordinate, so the fewer there are, the more is left of the update.
        "mnist-small": Task(
            dataset="mnist",
            model=lambda seed: mlp(784, (32,), seed=seed),
            training=Training(steps=5, batch_size=20, learning_rate=0.1, momentum=0.0),
            partition="natural",
            watts=40.0,
        ),
        "fashion-mnist": Task(
            dataset="fashion-mnist",
            model=lambda seed: mlp(784, seed=seed),
            training=Training(steps=10, batch_size=64, optimiser="adam", learning_rate=1e-3),
            watts=40.0,
        ),
        "cifar10": Task(
            dataset="cifar10",
            model=lambda seed: vgg9(seed=seed),
            training=Training(steps=10, batch_size=20, learning_rate=0.005),
        ),
        "cifar10-bn": Task(
            dataset="cifar10",
            model=lambda seed: conv_bn(seed=seed),
            training=Training(steps=10, batch_size=64, optimiser="adam", learning_rate=1e-3),
            value_range=16.0,
        ),
        "shakespeare": Task(
            dataset="shakespeare",
            model=lambda seed: char_lstm(VOCAB, hidden=128, seed=seed),
            training=Training(steps=10, batch_size=10, optimiser="adam", learning_rate=3e-2),
            partition="natural",
            owners_per_client=1,
        ),
        "har": Task(
            dataset="har",
            model=lambda seed: har_cnn(len(har.SIGNALS), har.LENGTH, seed=seed),
            training=Training(steps=25, batch_size=32, optimiser="adam", learning_rate=1e-3),
            partition="natural",
            owners_per_client=1,
        ),
        "wisdm": Task(
            dataset="wisdm",
            model=lambda seed: har_cnn(wisdm.AXES, wisdm.LENGTH, seed=seed),
            training=Training(steps=25, batch_size=32, optimiser="adam", learning_rate=1e-3),
            partition="natural",
            owners_per_client=1,
        ),
    }
)
"""All tasks, by the name that settings use."""


def task(name: str) -> Task:
    """The task of this name.

    Raises:
        ParameterError: There is none.
    """
    if name not in TASKS:
        raise ParameterError(f"dataset must be one of {', '.join(TASKS)}, not {name!r}")
    return TASKS[name]
