"""What pruned clients declare to hold: rules from those that look at no data to those that follow the update itself."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from protocols.training import with_state
from pruning import Mask, invariant_mask, random_units
from secagg import Provenance
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from attacks.deployment import Deployment
    from protocols.training import State
    from pruning import Units

MaskRule: TypeAlias = "Callable[[Deployment, nn.Module, State, np.random.Generator], Mask]"
"""From the deployment, the model of the round, a client's update of all of it, and what is random, to a mask."""


def units_at_random(keep: float) -> MaskRule:
    """A share of the units of each group, drawn anew: says nothing about anybody's data.

    Args:
        keep: Share of the units that are kept, in (0, 1].
    """

    def rule(deployment: Deployment, _model: nn.Module, _update: State, rng: np.random.Generator) -> Mask:
        return random_units(_units(deployment).layout, keep, rng, provenance=Provenance.DEVICE)

    return rule


def changed_units(keep: float) -> MaskRule:
    """The units that a client's own training changed most, as CLIP with local statistics.

    Args:
        keep: Share of the units that are kept, in (0, 1].
    """

    def rule(deployment: Deployment, model: nn.Module, update: State, _rng: np.random.Generator) -> Mask:
        before = model.state_dict()
        after = with_state(model, {name: before[name] + change for name, change in update.items()}).state_dict()
        return invariant_mask(_units(deployment), before, after, keep, statistic="local")

    return rule


def largest_coordinates(density: float) -> MaskRule:
    """The coordinates that change most, whichever they are: top-k sparsification.

    Args:
        density: Share of the coordinates that are kept, in (0, 1].
    """

    def rule(deployment: Deployment, _model: nn.Module, update: State, _rng: np.random.Generator) -> Mask:
        size = np.abs(deployment.vector(update))
        kept = max(1, round(density * size.size))
        held = np.zeros(size.size, bool)
        held[np.argsort(-size, kind="stable")[:kept]] = True
        return Mask.of_coordinates(deployment.layout, held, Provenance.DATA)

    return rule


RULES: Mapping[str, Callable[[float], MaskRule]] = MappingProxyType(
    {
        "units-at-random": units_at_random,
        "changed-units": changed_units,
        "largest-coordinates": largest_coordinates,
    }
)
"""By the name that settings use; each takes the share that is kept."""


def rule(name: str, keep: float) -> MaskRule:
    """The rule of this name.

    Args:
        name: One of ``RULES``.
        keep: Share that is kept, in (0, 1].

    Raises:
        ParameterError: There is none, or ``keep`` is outside its domain.
    """
    if name not in RULES:
        raise ParameterError(f"masks must be one of {', '.join(RULES)}, not {name!r}")
    if not 0 < keep <= 1:
        raise ParameterError(f"keep must be in (0, 1], not {keep}")
    return RULES[name](keep)


def _units(deployment: Deployment) -> Units:
    if deployment.units is None:
        raise ParameterError("this model has no prunable units that can be told: use largest-coordinates")
    return deployment.units
