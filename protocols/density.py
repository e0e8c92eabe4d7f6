"""PR-FL's choice of density, and its way back: slow clients hold less, and all hold more when pruning hurts.

ArXiv 2403.15439. The density rule is that of the authors' public code: the paper's own form, measured again on pruned
and so faster rounds, would push every density back to 1. The rule only ever prunes, so recovery is what ends it: when
evaluations stop improving, the best model is restored and the floor of all densities rises.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import msgspec

from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.aggregators import Client

Verdict: TypeAlias = Literal["better", "nothing", "restore"]
"""What to do after an evaluation: keep the model as the best so far, nothing, or go back to the best."""

Record = TypeVar("Record")

_DECIMALS = 9
"""To which floors are rounded, so that .1 + .2 is .3 in results and in masks."""


@dataclass(frozen=True)
class DensityState:
    """Where one client stands.

    Args:
        density: Share of the coordinates that it holds, in (0, 1].
        times: Its last round times in seconds, the oldest first; positive and finite.

    Raises:
        ParameterError: A value outside its domain.
    """

    density: float
    times: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ParameterError(f"density must be in (0, 1], not {self.density}")
        if not all(0 < seconds < math.inf for seconds in self.times):
            raise ParameterError("round times must be positive and finite")

    @property
    def mean_time(self) -> float | None:
        """Mean of its round times in seconds; None before the first."""
        return fmean(self.times) if self.times else None

    def to_json(self) -> dict[str, Any]:
        """The state as plain data."""
        return {"density": self.density, "times": list(self.times)}

    @classmethod
    def from_json(cls, data: Any) -> DensityState:
        """What ``to_json`` gave.

        Raises:
            InputError: No such data.
        """
        return _converted(data, cls, "density state")


@dataclass(frozen=True, kw_only=True)
class DensityRule:
    """How densities follow round times.

    Args:
        interval: Rounds from one change to the next, and how many round times a client remembers.
        tolerance: A client that is slower than the fastest by at most this share of its own time is left alone.
        gain: How much of its lag a client's density gives up, in [0, 1).
        dense: How many clients hold everything: 1 so that every coordinate has a trainer; under encryption as many as
            the release of a coordinate takes. The slowest of them is whom the others are to keep pace with.
        forget: Whether a client whose density changed forgets its times, which another density took. As published it
            remembers them, so a client that has few rounds between two changes pays for old times twice.

    Raises:
        ParameterError: A setting outside its domain.
    """

    interval: int = 50
    tolerance: float = 0.05
    gain: float = 0.9
    dense: int = 1
    forget: bool = False

    def __post_init__(self) -> None:
        if self.interval < 1 or self.dense < 1:
            raise ParameterError("interval and dense must be at least 1")
        if not (0 <= self.tolerance < 1 and 0 <= self.gain < 1):
            raise ParameterError("tolerance and gain must be in [0, 1)")

    def observe(self, state: DensityState, seconds: float) -> DensityState:
        """A client's state after one more round.

        Raises:
            InputError: ``seconds`` is not positive and finite.
        """
        if not 0 < seconds < math.inf:
            raise InputError("a round time must be positive and finite")
        return replace(state, times=(*state.times, seconds)[-self.interval :])

    def next(self, states: Mapping[Client, DensityState], floor: float) -> dict[Client, DensityState]:
        """All clients' states after a change of densities.

        A client that lags behind the fastest by ``r = (t - t_min) / t`` loses the share ``gain * r`` of its density,
        where t is its mean round time; with ``dense`` of k, behind the k-th fastest. Clients without a time lose
        nothing. Where fewer than k would be left at density 1, those that held most before are put there, the fastest
        of them first. (Ours: the code relies on the fastest, whose lag is 0, but a client may well be the fastest
        because it holds little.)

        Args:
            states: Client to its state.
            floor: The smallest density, in (0, 1].

        Raises:
            InputError: No client.
            ParameterError: ``floor`` is outside its domain.
        """
        _check(states, floor)
        means = {client: mean for client, state in states.items() if (mean := state.mean_time) is not None}
        pace = max(sorted(means.values())[: self.dense], default=0.0)
        densities = {
            client: max(floor, state.density * (1 - self.gain * self._lag(means.get(client), pace)))
            for client, state in states.items()
        }
        sparse = [client for client, density in densities.items() if density < 1]
        sparse.sort(key=lambda client: (-states[client].density, means.get(client, math.inf)))
        lacking = max(0, self.dense - (len(densities) - len(sparse)))
        densities.update(dict.fromkeys(sparse[:lacking], 1.0))
        return {client: self._changed(state, densities[client]) for client, state in states.items()}

    def _lag(self, mean: float | None, pace: float) -> float:
        """The share of its time by which a client is slower than the pace; 0 if that is within the tolerance."""
        lag = 0.0 if mean is None else (mean - pace) / mean
        return lag if lag > self.tolerance else 0.0

    def _changed(self, state: DensityState, density: float) -> DensityState:
        forgotten = self.forget and density != state.density
        return DensityState(density, () if forgotten else state.times)


@dataclass(frozen=True)
class RecoveryState:
    """Where recovery stands.

    Args:
        floor: The smallest density of any client, in (0, 1].
        best: The best evaluation so far; None before the first.
        waited: Evaluations since then, or since the last restoring, that were no better.

    Raises:
        ParameterError: A value outside its domain.
    """

    floor: float
    best: float | None = None
    waited: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise ParameterError(f"floor must be in (0, 1], not {self.floor}")
        if self.waited < 0:
            raise ParameterError("waited must be at least 0")

    def to_json(self) -> dict[str, Any]:
        """The state as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> RecoveryState:
        """What ``to_json`` gave.

        Raises:
            InputError: No such data.
        """
        return _converted(data, cls, "recovery state")


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """When the best model is restored.

    Args:
        floor: The smallest density at the start, in (0, 1]: PR-FL's 0.10 for CIFAR-10, 0.08 for FEMNIST.
        patience: Evaluations without improvement that it takes to restore.
        increment: By how much the floor then rises, up to 1; at least 0.
        stretch: How many times longer the patience is once the floor is at 1, where restoring makes nothing denser.

    Raises:
        ParameterError: A setting outside its domain.
    """

    floor: float = 0.1
    patience: int = 10
    increment: float = 0.2
    stretch: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise ParameterError(f"floor must be in (0, 1], not {self.floor}")
        if self.patience < 1 or self.stretch < 1:
            raise ParameterError("patience and stretch must be at least 1")
        if not 0 <= self.increment <= 1:
            raise ParameterError(f"increment must be in [0, 1], not {self.increment}")

    def start(self) -> RecoveryState:
        """The state before the first evaluation."""
        return RecoveryState(self.floor)

    def next(self, state: RecoveryState, score: float) -> tuple[RecoveryState, Verdict]:
        """The state after one more evaluation, and what to do.

        After ``"restore"`` the floor may be higher; ``DensityRule.next`` lifts densities to it.

        Args:
            state: Before the evaluation.
            score: Of the global model, higher is better, for instance its accuracy.

        Raises:
            InputError: ``score`` is not finite.
        """
        if not math.isfinite(score):
            raise InputError("a score must be finite")
        if state.best is None or score > state.best:
            return replace(state, best=score, waited=0), "better"
        waited = state.waited + 1
        if waited < self.patience * (self.stretch if state.floor == 1 else 1):
            return replace(state, waited=waited), "nothing"
        floor = min(round(state.floor + self.increment, _DECIMALS), 1.0)
        return replace(state, floor=floor, waited=0), "restore"


def _check(states: Mapping[Client, DensityState], floor: float) -> None:
    if not states:
        raise InputError("densities need at least one client")
    if not 0 < floor <= 1:
        raise ParameterError(f"floor must be in (0, 1], not {floor}")


def _converted(data: Any, record: type[Record], what: str) -> Record:
    try:
        return msgspec.convert(data, record)
    except msgspec.ValidationError as error:
        raise InputError(f"this is no {what}: {error}") from None
