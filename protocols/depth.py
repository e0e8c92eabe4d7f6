"""MA-CLAMP's choice of depth: how many of the last layers each client trains, by what its device went through.

A device suggests one layer less, one more, or none; the depth follows only after several equal suggestions in a row, so
that one slow round changes nothing. The rule by round time is that of the authors' public code; the one by all signals,
``ByResources``, is reconstructed. The measures by which MA-CLAMP is judged are here too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from protocols.aggregators import Client

Suggestion: TypeAlias = Literal[-1, 0, 1]
"""Blocks to train more: one less, as many, or one more."""

STRAGGLER_FACTOR = 1.5
"""Who takes longer than this many medians is a straggler (gamma)."""

RECOVERED_MARGIN = 1.2
"""A slow client whose time is within this many times the straggler's limit counts as recovered."""


@dataclass(frozen=True, kw_only=True)
class DeviceSignals:
    """What a device knows of its last round. Signals that it has no sensor for are None and count for nothing.

    Args:
        seconds: Its round time, training and links.
        cpu_load: Share of its processor that other work takes, in [0, 1].
        bandwidth: Of its uplink, bytes per second.
        battery: Charge left, in [0, 1]; None also while it is plugged in.

    Raises:
        InputError: A signal outside its domain.
    """

    seconds: float
    cpu_load: float | None = None
    bandwidth: float | None = None
    battery: float | None = None

    def __post_init__(self) -> None:
        for name, value, most in (
            ("seconds", self.seconds, math.inf),
            ("cpu_load", self.cpu_load, 1),
            ("bandwidth", self.bandwidth, math.inf),
            ("battery", self.battery, 1),
        ):
            if value is not None and not 0 <= value <= most:
                raise InputError(f"{name} must be in [0, {most}]")


@dataclass(frozen=True)
class Thresholds:
    """The round times by which one client is judged, in seconds.

    Args:
        t_high: Above it the client is slow.
        t_low: Below it the client is fast.
    """

    t_high: float
    t_low: float


Suggest: TypeAlias = Callable[[DeviceSignals, Thresholds], Suggestion]
"""What a device makes of its signals, given its thresholds."""


def by_time(signals: DeviceSignals, thresholds: Thresholds) -> Suggestion:
    """One block less if the round took longer than ``t_high``, one more if it took less than ``t_low``."""
    if signals.seconds > thresholds.t_high:
        return -1
    return 1 if signals.seconds < thresholds.t_low else 0


@dataclass(frozen=True, kw_only=True)
class ByResources:
    """One block less if the device is slow or short of anything, one more only if it is fast and short of nothing.

    Reconstructed: MA-CLAMP names CPU load, bandwidth and battery as signals and gives no rule. The alternative is
    ``by_time``, with which this one agrees where all other signals are None.

    Args:
        cpu_load: Above this load the device is short of its processor, in [0, 1].
        bandwidth: Below this many bytes per second it is short of its uplink; by default 128 kbit/s.
        battery: Below this charge it is short of energy, in [0, 1].

    Raises:
        ParameterError: A limit outside its domain.
    """

    cpu_load: float = 0.9
    bandwidth: float = 16e3
    battery: float = 0.2

    def __post_init__(self) -> None:
        if not (0 <= self.cpu_load <= 1 and 0 <= self.battery <= 1):
            raise ParameterError("cpu_load and battery must be in [0, 1]")
        if not 0 <= self.bandwidth < math.inf:
            raise ParameterError("bandwidth must be bytes per second, finite and not negative")

    def __call__(self, signals: DeviceSignals, thresholds: Thresholds) -> Suggestion:
        """The suggestion of one device for its next round."""
        short = (
            (signals.cpu_load is not None and signals.cpu_load > self.cpu_load)
            or (signals.bandwidth is not None and signals.bandwidth < self.bandwidth)
            or (signals.battery is not None and signals.battery < self.battery)
        )
        return -1 if short else by_time(signals, thresholds)


@dataclass(frozen=True)
class DepthState:
    """Where one client stands.

    Args:
        depth: Blocks that it trains, at least 1.
        suggestion: Its last suggestion.
        streak: How often in a row it has made it, since it was last applied.

    Raises:
        ParameterError: A value outside its domain.
    """

    depth: int
    suggestion: Suggestion = 0
    streak: int = 0

    def __post_init__(self) -> None:
        if self.depth < 1 or self.streak < 0:
            raise ParameterError("depth must be at least 1 and streak at least 0")
        if self.suggestion not in {-1, 0, 1}:
            raise ParameterError(f"a suggestion is -1, 0 or 1, not {self.suggestion}")

    def to_json(self) -> dict[str, int]:
        """The state as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> DepthState:
        """What ``to_json`` gave.

        Raises:
            InputError: No such data.
        """
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise InputError(f"this is no depth state: {error}") from None


@dataclass(frozen=True, kw_only=True)
class DepthRule:
    """When a client's depth changes.

    Args:
        t_high: Seconds above which a round was slow, positive.
        t_low: Seconds below which a round was fast, less than ``t_high``.
        deepest: The largest depth, at most the number of blocks of the model.
        shallowest: The smallest depth, at least 1.
        patience: Equal suggestions in a row that it takes to change the depth.
        jitter: Whether thresholds differ between clients, so that they do not all change in one round.

    Raises:
        ParameterError: A setting outside its domain.
    """

    t_high: float
    t_low: float
    deepest: int
    shallowest: int = 1
    patience: int = 3
    jitter: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.t_low < self.t_high < math.inf:
            raise ParameterError(f"t_low {self.t_low} must be less than t_high {self.t_high}, and neither negative")
        if not 1 <= self.shallowest <= self.deepest:
            raise ParameterError(f"shallowest {self.shallowest} and deepest {self.deepest} must be 1 or more, in order")
        if self.patience < 1:
            raise ParameterError("patience must be at least 1")

    def thresholds(self, number: int) -> Thresholds:
        """Those of the client with this number: by its last digit 0.8 to 2.6 times ``t_high``, 0.7 to 1.6 ``t_low``."""
        if not self.jitter:
            return Thresholds(self.t_high, self.t_low)
        digit = number % 10
        return Thresholds(self.t_high * (0.8 + 0.2 * digit), self.t_low * (0.7 + 0.1 * digit))

    def start(self, depth: int) -> DepthState:
        """A client's first state, at the depth within the bounds that is nearest to ``depth``."""
        return DepthState(self._within(depth))

    def next(self, state: DepthState, suggestion: Suggestion) -> DepthState:
        """The state after one more suggestion. Whether it changed the depth or met a bound, the streak starts anew."""
        streak = state.streak + 1 if suggestion == state.suggestion else 1
        after = replace(state, suggestion=suggestion, streak=streak)
        if streak < self.patience:
            return after
        return replace(after, depth=self._within(state.depth + suggestion), streak=0)

    def _within(self, depth: int) -> int:
        return min(max(depth, self.shallowest), self.deepest)


def straggler_count(seconds: Mapping[Client, float], gamma: float = STRAGGLER_FACTOR) -> int:
    """How many participants of a round took longer than ``gamma`` times its median.

    Args:
        seconds: Participant to its round time.
        gamma: Who takes longer than this many medians is a straggler; positive.

    Raises:
        InputError: No participant.
    """
    limit = gamma * _median(seconds)
    return sum(time > limit for time in seconds.values())


def sdir(seconds: Mapping[Client, float], slow: Collection[Client], gamma: float = STRAGGLER_FACTOR) -> float | None:
    """MA-CLAMP's SDIR in one round: the share of its slow participants that took at most ``1.2 * gamma`` medians.

    Args:
        seconds: Participant to its round time.
        slow: The clients on slow devices, whether they take part or not; in MA-CLAMP those of a speed below 0.8.
        gamma: Who takes longer than this many medians is a straggler; positive.

    Returns:
        A share in [0, 1]; None if no slow client takes part.

    Raises:
        InputError: No participant.
    """
    limit = RECOVERED_MARGIN * gamma * _median(seconds)
    in_time = [time <= limit for client, time in seconds.items() if client in slow]
    return sum(in_time) / len(in_time) if in_time else None


def layers_recovered(aggregated: Sequence[bool], depths: Collection[int]) -> int:
    """Blocks that a round aggregated though some participant had frozen them: CLAMP, without masks, loses these.

    Args:
        aggregated: Whether each block of the model was, from input to output (``pruning.depth.whole_blocks``).
        depths: Those of the participants, each from 1 to ``len(aggregated)``.

    Raises:
        InputError: No participant, or a depth that the model does not have.
    """
    if not depths or not 1 <= min(depths) <= max(depths) <= len(aggregated):
        raise InputError(f"a round has participants of depths from 1 to {len(aggregated)}")
    return sum(aggregated[: len(aggregated) - min(depths)])


def _median(seconds: Mapping[Client, float]) -> float:
    if not seconds:
        raise InputError("a round without participants has no median time")
    return median(seconds.values())
