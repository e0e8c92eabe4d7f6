"""What is trained on what, and by whom with which part of the model: all of it from the run's config alone.

So the nodes and the server come to the same, and a run gives the same model on any engine. The straggler is one on
simulated time, by the table of devices that the config names; a clock on the wall decides nothing.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch

from protocols.aggregators import MaskIndexed
from protocols.budget import KeepRatios
from protocols.datasets.digits import load
from protocols.datasets.division import divide
from protocols.federation import Federation
from protocols.models import digits_cnn
from protocols.randomness import generator, number
from protocols.simulation.profiles import profile
from protocols.training import Training, with_state
from pruning import find_units
from pruning.clip import invariant_mask, relative_norm
from pruning.masks import Mask
from pruning.submodel import extract, scatter
from secagg import Params

if TYPE_CHECKING:
    from flwr.app import UserConfig

    from protocols.training import Examples, State

LEAST_KEEP = 0.05
"""Share of the units that a straggler keeps at least, however slow it is."""


class Task:
    """Model, data, devices and training of one run.

    Args:
        config: Of the run.
    """

    def __init__(self, config: UserConfig) -> None:
        torch.set_num_threads(1)  # with more, sums depend on how many there are
        self._config = config
        self.nodes = int(config["nodes"])
        self.params = Params(min_cohort=2, max_dropouts=int(config["max-dropouts"]))

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

    def seconds(self, partition: int, keep: float) -> float:
        """Simulated seconds that a partition's device takes for a round with a share of the units."""
        return self._ratios.seconds(self.federation.fleet.devices[partition], keep, "round")

    def keep(self, partition: int) -> float:
        """Share of the units that a partition trains: all, or what lets a straggler keep up with the other devices."""
        fleet = self.federation.fleet
        device = fleet.devices[partition]
        if not device.straggler:
            return 1.0
        deadline = max(self._ratios.seconds(other, 1.0, "round") for other in fleet.rest)
        return self._ratios.solve(device, "round", deadline, LEAST_KEEP)

    def mask(self, partition: int, before: State | None, after: State) -> Mask:
        """The units that a partition trains, by how two global models differ; all while there is only one of them."""
        units, keep = self.federation.units, self.keep(partition)
        if before is None or keep == 1:
            return Mask.full(units.layout)
        return invariant_mask(units, before, after, keep, statistic="global", score=relative_norm)

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

    @cached_property
    def _ratios(self) -> KeepRatios:
        return KeepRatios(self.federation, MaskIndexed(self.federation.units.layout, self.params))
