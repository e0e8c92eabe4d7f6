"""HeteroFL: every client trains a width of the model that suits its device, the same in every round.

E. Diao, J. Ding, V. Tarokh, "HeteroFL: Computation and Communication Efficient Federated Learning for Heterogeneous
Clients", ICLR 2021. A client of level p, counted from 0, holds the first units of each layer, the share
``shrinkage ** p`` of them. Submodels are nested, and each coordinate is averaged over those who hold it.

The paper draws levels at random, as stand-ins for devices; here they follow the devices' times (reconstructed). They
are no secret from the server, so a client fetches its part only.

The paper's scaler, which makes up in training for the units that are missing, is a setting. It comes with a batch
normalisation after each layer; in a network without, it makes the gradients of narrow submodels grow by the inverse of
the width for each layer, and so it is off unless asked for.

Two things of the paper are left out. Its masked cross entropy zeroes the logits of labels that a client has no example
of: on label-skewed data that helps, but it would help any system, and those that are compared share their training.
Its static batch normalisation tracks no running statistics in training, and asks clients for them at the end: a model
without batch normalisation has nothing to track, and in one with it they are averaged like all other tensors.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, final, get_args

import numpy as np
from torch import nn

from protocols.budget import KeepRatios, of_size
from protocols.round import Stage
from protocols.stages import Delta, Fetch, LocalTraining, Submodel
from protocols.synchronous import SynchronousSystem
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from protocols.aggregators import Aggregator, Client
    from protocols.federation import Federation
    from protocols.round import RoundContext, Work
    from protocols.simulation.calibration import Calibration
    from pruning.masks import Mask

Assignment = Literal["ranked", "solved"]


@dataclass(frozen=True, kw_only=True)
class HeteroFlSettings:
    """The settings of HeteroFL.

    Args:
        levels: How many widths there are.
        shrinkage: Each width over the next larger one, in (0, 1); the largest is the whole model.
        assign: Who trains which. ``"ranked"``: clients, fastest first, are cut into a group for each level, as equal as
            can be, and the larger groups first; ``"solved"``: each has the largest with which it keeps up with the
            fastest quarter of all clients, and the smallest where none does.
        scale: Whether layers that read fewer units read them as much louder in training, for normalised networks.

    Raises:
        ParameterError: A setting outside its domain.
    """

    levels: int = 5
    shrinkage: float = 0.5
    assign: Assignment = "ranked"
    scale: bool = False

    def __post_init__(self) -> None:
        if self.levels < 1 or not 0 < self.shrinkage < 1:
            raise ParameterError("levels must be at least 1, and shrinkage in (0, 1)")
        if self.assign not in get_args(Assignment):
            raise ParameterError(f"assign must be one of {get_args(Assignment)}, not {self.assign!r}")

    @property
    def widths(self) -> tuple[float, ...]:
        """Share of the units at each level, largest first."""
        return tuple(self.shrinkage**level for level in range(self.levels))


@final
class HeteroFl(SynchronousSystem):
    """Federated averaging over submodels of fixed widths. Somebody always trains the whole model, if it is invited.

    Args:
        federation: As ``System``.
        aggregator: As ``System``; in the mask-indexed mode the mean is over those who hold a coordinate.
        settings: Which widths there are, and who trains which.
        twin: As ``System``.
        calibration: As ``System``.
    """

    settings: HeteroFlSettings

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: HeteroFlSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(federation, aggregator, twin=twin, calibration=calibration)
        self.settings = settings or HeteroFlSettings()
        self._ratios = KeepRatios(federation, aggregator, fetches_parts=True)
        self.width: Mapping[Client, float] = self._ranked() if self.settings.assign == "ranked" else self._solved()

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"HeteroFL {self.aggregator.name}"

    @property
    def notes(self) -> tuple[str, ...]:
        """How many clients train which width."""
        given = list(self.width.values())
        groups = ", ".join(f"{given.count(width)} of width {width:.4g}" for width in self.settings.widths)
        return (f"clients by width of their submodel: {groups}",)

    def mask_of(self, client: Client) -> Mask:
        """The first units of each layer, the same in every round."""
        return of_size(self.federation.units.layout, self.width[client])

    def foreseen_masks(self) -> Mapping[Client, Mask]:
        """Those of every round."""
        return {client: self.mask_of(client) for client in self.cohort(0)}

    def stages(self) -> tuple[Stage, ...]:
        """Extract a submodel, fetch it, where asked for scale what its layers read, train it, subtract."""
        setup = self.federation
        submodel = Submodel(lambda client, _: self.mask_of(client))
        scale = (_Scale(),) if self.settings.scale else ()
        return submodel, Fetch(), *scale, LocalTraining(setup.examples, setup.training, setup.seed), Delta()

    def _ranked(self) -> dict[Client, float]:
        times = self._seconds(1.0)
        fastest_first = sorted(times, key=times.__getitem__)
        groups = np.array_split(range(len(times)), self.settings.levels)
        widths = zip(self.settings.widths, groups, strict=True)
        return {fastest_first[place]: width for width, places in widths for place in places}

    def _solved(self) -> dict[Client, float]:
        widths = self.settings.widths
        times = {width: self._seconds(width) for width in widths}
        whole = sorted(times[1.0].values())
        deadline = whole[math.ceil(len(whole) / 4) - 1]
        return {
            client: next((width for width in widths if times[width][client] <= deadline), widths[-1])
            for client in times[1.0]
        }

    def _seconds(self, width: float) -> dict[Client, float]:
        """Device name to seconds of a round with this width, by operations and bytes alone."""
        return {device.name: self._ratios.seconds(device, width, "round") for device in self.federation.fleet.devices}


@final
class _Scale(Stage):
    """In training, makes up for the units that a layer does not read.

    What a dense or convolutional layer reads is divided by the share of it that the submodel has, so that sums over it
    are as large as in the whole model. The paper divides what each hidden layer returns, by the width. Between layers
    joined by ReLU and pooling that is the same; a normalisation between them, which would undo it, here sees what it
    sees in the whole model. Inside a recurrent layer nothing is scaled.
    """

    def on_client(self, context: RoundContext, work: Work) -> Work:
        """Returns a submodel that scales; a whole model stays as it is."""
        if work.mask.kind == "full":
            return work
        model, whole = copy.deepcopy(work.model), dict(context.model.named_modules())
        for name, layer in model.named_modules():
            if isinstance(layer, _SUMMING):
                share = layer.weight.shape[1] / whole[name].get_parameter("weight").shape[1]
                layer.register_forward_pre_hook(partial(_louder, share))
        return replace(work, model=model)


_SUMMING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose weights have what is read along their second axis."""


def _louder(share: float, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(one / share for one in inputs) if layer.training else inputs
