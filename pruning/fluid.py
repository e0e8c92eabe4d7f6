"""FLuID: a server that sees every update drops, for stragglers, the units that hardly change.

I. Wang, P. J. Nair, D. Mahajan, "FLuID: Mitigating Stragglers in Federated Learning using Invariant Dropout", NeurIPS
2023. A parameter is invariant for a client if ``|w_c - w_g| <= threshold * |w_g|``, and for the round if three quarters
of those who are no stragglers agree; a unit is invariant if all of its parameters are. The threshold starts low and is
raised until a straggler can do without invariant units alone.

Every rule is a pure function. Thresholds are plain data, unit group to threshold, so they can be saved as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pruning.changes import largest_by_unit, parameter_tensors, relative, values_of
from pruning.clip import largest_relative_change
from pruning.masks import keep_units, kept_units
from secagg.declaration import Provenance
from secagg.errors import InputError, LayoutMismatchError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pruning.changes import State
    from pruning.masks import Mask
    from pruning.units import Units
    from secagg.layout import Layout

    Thresholds: TypeAlias = Mapping[str, float]

QUORUM = 0.75
"""Share of the voters that has to agree."""

_KEEP_BY_RATIO = ((0.9, 0.95), (0.8, 0.85), (0.7, 0.75), (0.6, 0.65))
_LEAST_KEEP = 0.5


def relative_change(units: Units, before: State, after: State) -> NDArray[np.float64]:
    """One client's change of each unit: the maximum of ``|after - before| / |before|`` over its parameters.

    The smallest threshold under which the unit is invariant for this client. 0 / 0 is no change, and a parameter that
    leaves 0 has changed infinitely.

    Args:
        units: Of the model that the states belong to.
        before: Parameters by name at full shape; more entries than the parameters may be there.
        after: The same, after the client trained.

    Returns:
        (unit_count,) float64, at least 0, maybe infinite.

    Raises:
        LayoutMismatchError: A parameter is missing or has another shape.
    """
    return largest_relative_change(units, before, after, epsilon=0)


def agreed_change(
    units: Units, before: State, afters: Sequence[State], *, quorum: float = QUORUM
) -> NDArray[np.float64]:
    """The smallest threshold under which each unit is invariant for a round, as published: voted by parameter.

    A parameter is invariant under a threshold if ``agreed`` clients are within it, so the one that completes the
    quorum in ascending order decides; and the worst parameter decides for its unit. A vote by unit, which is all that
    a sum of a bit a unit can say (``protocols.sessions.vote``), never calls more units invariant.

    Args:
        units: Of the model that the states belong to.
        before: The global model, parameters by name at full shape.
        afters: What each voter made of it.
        quorum: Share of the voters that has to agree, in (0, 1].

    Returns:
        (unit_count,) float64, at least 0, maybe infinite.

    Raises:
        InputError: Nobody votes.
        LayoutMismatchError: A parameter is missing or has another shape.
        ParameterError: ``quorum`` is outside its domain.
    """
    if not afters:
        raise InputError("a vote needs at least one voter")
    needed = votes_needed(len(afters), quorum)
    changes = (
        (tensor, [relative(values_of(before, tensor), values_of(after, tensor)) for after in afters])
        for tensor in parameter_tensors(units)
    )
    return largest_by_unit(units, ((tensor, _smallest(every, needed)) for tensor, every in changes))


def invariant_units(layout: Layout, changes: NDArray[np.float64], thresholds: Thresholds) -> NDArray[np.bool_]:
    """Which units changed by no more than the threshold of their group, (unit_count,) bool.

    Args:
        layout: Says which units there are.
        changes: Of every unit, (unit_count,).
        thresholds: Group to threshold.

    Raises:
        LayoutMismatchError: Another number of changes than of units.
        ParameterError: ``thresholds`` names other groups than the layout.
    """
    _check_units(layout, changes)
    check_groups(layout, thresholds)
    invariant = np.zeros(layout.unit_count, bool)
    for group in layout.unit_groups:
        units = layout.units_of(group)
        invariant[units] = changes[units] <= thresholds[group]
    return invariant


def votes_needed(voters: int, quorum: float = QUORUM) -> int:
    """The fewest votes that are a quorum: three quarters of 20 voters are exactly 15.

    Exact: ``quorum`` is taken as the decimal number that it is written as.

    Raises:
        ParameterError: ``quorum`` is not in (0, 1].
    """
    if not 0 < quorum <= 1:
        raise ParameterError(f"quorum must be in (0, 1], not {quorum}")
    return math.ceil(Fraction(str(quorum)) * voters)


def agreed(counts: NDArray[np.int64], voters: int, quorum: float = QUORUM) -> NDArray[np.bool_]:
    """Which units, or whatever was voted on, a quorum of the voters called invariant.

    Args:
        counts: Votes for each, whole numbers of any shape.
        voters: How many voted.
        quorum: Share of the voters that has to agree, in (0, 1].

    Raises:
        ParameterError: ``quorum`` is not in (0, 1].
    """
    return np.asarray(counts >= votes_needed(voters, quorum))


def initial_thresholds(layout: Layout, observed: Sequence[NDArray[np.float64]]) -> dict[str, float]:
    """Where the thresholds start: in each group at the change of its most invariant unit.

    That unit's change is its largest of all clients; the smallest of a group, averaged over the rounds observed (as
    published, the second and the third). Reconstructed: the mean is taken of the rounds' minima.

    Args:
        layout: Says which units there are.
        observed: For each round the clients' changes (``relative_change``), (clients, unit_count).

    Raises:
        InputError: No round, a round without clients, or a group whose every unit has a parameter that left 0.
        LayoutMismatchError: Another number of changes than of units.
    """
    if not observed or any(len(changes) == 0 for changes in observed):
        raise InputError("initial thresholds need at least one round with at least one client")
    for changes in observed:
        _check_units(layout, changes[0])
    worst = [changes.max(axis=0) for changes in observed]
    thresholds = {}
    for group in layout.unit_groups:
        units = layout.units_of(group)
        thresholds[group] = float(np.mean([changes[units].min() for changes in worst]))
        if not math.isfinite(thresholds[group]):
            raise InputError(f"every unit of {group!r} has a parameter that left zero: observe later rounds")
    return thresholds


def raise_thresholds(
    layout: Layout, thresholds: Thresholds, invariant: NDArray[np.bool_], keep: float, step: float
) -> dict[str, float]:
    """Raises by ``step`` the thresholds of those groups that have fewer invariant units than are to be dropped.

    Args:
        layout: Says which units there are.
        thresholds: Group to threshold.
        invariant: The units that are invariant under them, (unit_count,) bool.
        keep: The smallest keep ratio of the stragglers, in (0, 1].
        step: See ``Raising``.

    Raises:
        LayoutMismatchError: ``invariant`` does not fit the layout.
        ParameterError: ``keep`` is not in (0, 1], or ``thresholds`` names other groups than the layout.
    """
    check_groups(layout, thresholds)
    found, wanted = count_by_group(layout, invariant), dropped_by_group(layout, keep)
    return {
        group: threshold + step if found[group] < wanted[group] else threshold
        for group, threshold in thresholds.items()
    }


@dataclass(frozen=True, kw_only=True)
class Raising:
    """When thresholds are raised, and by how much.

    Args:
        step: How much, positive.
        every: Rounds from one time to the next, at least 1.
        after: Rounds before it begins, at least 0.

    Raises:
        ParameterError: A setting outside its domain.
    """

    step: float
    every: int
    after: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step) and self.step > 0):
            raise ParameterError("step must be positive and finite")
        if self.every < 1 or self.after < 0:
            raise ParameterError("every must be at least 1 and after at least 0")

    def due(self, finished: int) -> bool:
        """Whether thresholds are raised after so many finished rounds."""
        return finished > self.after and (finished - self.after) % self.every == 0


PUBLISHED_RAISING: Mapping[str, Raising] = {
    "cifar10": Raising(step=0.2, every=2, after=10),
    "femnist": Raising(step=0.01, every=10, after=125),
    "shakespeare": Raising(step=1.0, every=3, after=20),
}
"""The schedules of the paper's experiments, by data set."""


def fluid_mask(
    layout: Layout,
    invariant: NDArray[np.bool_],
    previously_dropped: NDArray[np.bool_],
    keep: float,
    generator: np.random.Generator,
) -> Mask:
    """A straggler's mask: dropped first are invariant units that it lacked before, then other invariant ones, then any.

    Reconstructed: units that this leaves equal are dropped in random order.

    Args:
        layout: Says which units there are.
        invariant: The invariant units, (unit_count,) bool.
        previously_dropped: The units that the straggler did not hold in the round before, (unit_count,) bool.
        keep: Share of each group that is kept, as ``kept_units``, in (0, 1].
        generator: The only source of randomness.

    Returns:
        A mask that the server issues, and so one of public provenance.

    Raises:
        LayoutMismatchError: ``invariant`` or ``previously_dropped`` do not fit the layout.
        ParameterError: ``keep`` is not in (0, 1].
    """
    _check_units(layout, invariant)
    _check_units(layout, previously_dropped)
    # Random numbers in [0, 1) order units within a class; the classes lie further apart than that.
    class_of_unit = 2.0 * invariant + 2.0 * (invariant & previously_dropped)
    scores = generator.random(layout.unit_count) - class_of_unit
    return keep_units(layout, scores, keep, provenance=Provenance.PUBLIC)


def published_keep(ratio: float) -> float:
    """The keep ratio of a straggler as published, in steps.

    Args:
        ratio: Time of the next slower client that is no straggler, divided by the straggler's.

    Raises:
        InputError: ``ratio`` is not positive, or not a number.
    """
    if not ratio > 0:
        raise InputError("a ratio of times must be positive")
    return next((keep for least, keep in _KEEP_BY_RATIO if ratio >= least), _LEAST_KEEP)


def count_by_group(layout: Layout, marked: NDArray[np.bool_]) -> dict[str, int]:
    """How many units of each group are marked. ``marked``: (unit_count,) bool.

    Raises:
        LayoutMismatchError: ``marked`` does not fit the layout.
    """
    _check_units(layout, marked)
    return {group: int(marked[layout.units_of(group)].sum()) for group in layout.unit_groups}


def dropped_by_group(layout: Layout, keep: float) -> dict[str, int]:
    """How many units of each group a keep ratio drops.

    Raises:
        ParameterError: ``keep`` is not in (0, 1].
    """
    return {group: size - kept_units(size, keep) for group, size in layout.unit_groups.items()}


def check_groups(layout: Layout, thresholds: Thresholds) -> None:
    """Refuses thresholds of other groups than the layout's.

    Raises:
        ParameterError: They differ.
    """
    if set(thresholds) != set(layout.unit_groups):
        raise ParameterError(f"thresholds must name each unit group once: {', '.join(layout.unit_groups) or 'none'}")


def _smallest(values: list[NDArray[np.float64]], rank: int) -> NDArray[np.float64]:
    """The value of a rank in ascending order, from 1, element by element."""
    stacked = np.stack(values)
    stacked.partition(rank - 1, axis=0)
    chosen: NDArray[np.float64] = stacked[rank - 1]
    return chosen


def _check_units(layout: Layout, values: NDArray[np.float64] | NDArray[np.bool_]) -> None:
    if values.shape != (layout.unit_count,):
        raise LayoutMismatchError(f"{layout.unit_count} units need as many values, not an array of {values.shape}")
