"""What is trained on what, and on which devices: all of it from the run's config alone.

So the nodes and the server come to the same, and a run gives the same model on any engine. The straggler is one on
simulated time, by the table of devices that the config names; a clock on the wall decides nothing.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch

from protocols.datasets.digits import load
from protocols.datasets.division import divide
from protocols.federation import Federation
from protocols.models import digits_cnn
from protocols.randomness import generator, number
from protocols.simulation.profiles import profile
from protocols.training import Training, with_state
from pruning import find_units
from pruning.submodel import extract, scatter

if TYPE_CHECKING:
    from flwr.app import UserConfig

    from protocols.training import Examples, State
    from pruning.masks import Mask


class Task:
    """Model, data, devices and training of one run.

    Args:
        config: Of the run.
    """

    def __init__(self, config: UserConfig) -> None:
        torch.set_num_threads(1)  # with more, sums depend on how many there are
        self._config = config
        self.nodes = int(config["nodes"])
        self.max_dropouts = int(config["max-dropouts"])
        self.method = str(config["method"])
        self.patience = int(config["patience"])

    @cached_property
    def federation(self) -> Federation:
        """Model, devices and data; the node of partition ``i`` is the client of the fleet's device ``i``."""
        config, seed = self._config, int(self._config["seed"])
        model = digits_cnn(seed=seed)
        fleet = profile(str(config["profile"])).fleet(self.nodes, generator(seed, "devices"))
        parts = divide(load(), self.nodes, partition="label-skewed", generator=generator(seed, "division"))
        return Federation(
            model=model,
            units=find_units(model, parts.test.inputs[:1]),
            fleet=fleet,
            examples=dict(zip(fleet.names, parts.parts, strict=True)),
            test=parts.test,
            training=Training(
                steps=int(config["steps"]),
                batch_size=int(config["batch-size"]),
                learning_rate=float(config["learning-rate"]),
            ),
            seed=seed,
        )

    def train(self, partition: int, round_number: int, start: State, mask: Mask) -> State:
        """Trains the submodel that a mask leaves of the global model.

        Returns:
            The global model with the trained tensors in their places.
        """
        federation = self.federation
        model = extract(with_state(federation.model, start), mask)
        seed = number(federation.seed, "training", round_number, partition)
        federation.training.train(model, self._examples(partition), seed)
        trained, held = scatter(model.state_dict(), mask), mask.by_tensor()
        return {name: torch.where(torch.from_numpy(held[name]), trained[name], old) for name, old in start.items()}

    def example_count(self, partition: int) -> int:
        """How many examples a partition has."""
        return len(self._examples(partition))

    def accuracy(self, state: State) -> float:
        """Share of the test set that a model gets right."""
        test = self.federation.test
        model = with_state(self.federation.model, state).eval()
        with torch.no_grad():
            right = model(test.inputs).argmax(dim=1) == test.labels
        return float(right.float().mean())

    def _examples(self, partition: int) -> Examples:
        return self.federation.examples[self.federation.fleet.names[partition]]
