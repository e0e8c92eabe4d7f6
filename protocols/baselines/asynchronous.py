"""FedAsync and FedFix: asynchronous systems that train the whole model and look at every arrival in the clear."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, final

import numpy as np

from protocols.asynchronous import AsynchronousSettings, AsynchronousSystem, Joined, StaleSettings
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocols.aggregators import Aggregator, Dropouts
    from protocols.arrivals.flight import Arrival, Flight
    from protocols.federation import Federation
    from protocols.simulation.calibration import Calibration

_SLACK = 1e-6
"""Share of a tick by which an arrival may miss it: sums of times are rounded, and the median trip lasts just a tick."""


@dataclass(frozen=True, kw_only=True)
class FedAsyncSettings(StaleSettings):
    """The settings of FedAsync.

    Args:
        mixing: Share of an arrival in the new model before its staleness counts, in (0, 1].

    Raises:
        ParameterError: A setting outside its domain.
    """

    mixing: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mixing <= 1:
            raise ParameterError(f"mixing must be in (0, 1], not {self.mixing}")


@dataclass(frozen=True, kw_only=True)
class FedFixSettings(AsynchronousSettings):
    """The settings of FedFix.

    Args:
        every: Seconds from one version to the next; None for the median of the clients' trips.
        server_rate: Learning rate of the server, on the weighted mean of the changes. With 1 a client that comes
            seldom, and so weighs much, throws the model about where labels are skewed.

    Raises:
        ParameterError: A setting outside its domain.
    """

    every: float | None = None
    server_rate: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every is not None and not 0 < self.every < math.inf:
            raise ParameterError("every must be positive and finite, or None")
        if not 0 < self.server_rate < math.inf:
            raise ParameterError("server_rate must be positive and finite")


@final
class FedAsync(AsynchronousSystem):
    """Every arrival moves the model towards it, by less the staler it is.

    C. Xie, S. Koyejo, I. Gupta, "Asynchronous Federated Optimization", 2019, algorithm 1.
    """

    settings: FedAsyncSettings
    encrypts = False

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: FedAsyncSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        settings = settings or FedAsyncSettings()
        super().__init__(federation, aggregator, settings, twin=twin, calibration=calibration)

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"FedAsync {self.aggregator.name}"

    def join(self, arrivals: Sequence[Arrival], dropouts: Dropouts) -> Joined:  # noqa: ARG002 - there is no session
        """Mixes the trained models in, one after another."""
        vector = self.model
        for arrival in arrivals:
            share = self.settings.mixing * self.settings.weighing(self.version - arrival.flight.version)
            vector = (vector + np.float32(share) * (arrival.model - vector)).astype(np.float32)
        return Joined(vector=vector, verdict="no encryption: the server sees every client's model.")


@final
class FedFix(AsynchronousSystem):
    """At fixed times all changes that have arrived are applied, each weighted by how seldom its client arrives.

    Y. Fraboni et al., "A General Theory for Federated Optimization with Asynchronous and Heterogeneous Clients
    Updates", JMLR 2023: a client that takes ``ceil(trip / every)`` versions for a trip weighs so many times its share,
    so that all count alike in the long run. Reconstructed.
    """

    settings: FedFixSettings
    encrypts = False

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: FedFixSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        settings = settings or FedFixSettings()
        super().__init__(federation, aggregator, settings, twin=twin, calibration=calibration)
        self._clients = len(federation.examples)
        self.every = settings.every or median(map(self.trip_seconds, federation.fleet.names))

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"FedFix {self.aggregator.name}"

    def due(self) -> tuple[list[Flight], float]:
        """All that is back at the next tick at which anything is."""
        first = min(flight.back_at for flight in self.flights.values())
        number = max(math.floor(self.now / self.every + _SLACK) + 1, self._ticks(first))
        back = [flight for flight in self.flights.values() if self._ticks(flight.back_at) <= number]
        by_number = self.federation.fleet.number
        return sorted(back, key=lambda one: (one.back_at, by_number(one.client))), number * self.every

    def join(self, arrivals: Sequence[Arrival], dropouts: Dropouts) -> Joined:  # noqa: ARG002 - there is no session
        """Adds the weighted changes."""
        step = np.zeros(self.layout.size)
        for arrival in arrivals:
            trip = arrival.flight.back_at - arrival.flight.left_at
            step += max(1, self._ticks(trip)) / self._clients * arrival.update
        vector = (self.model + self.settings.server_rate * step).astype(np.float32)
        return Joined(vector=vector, verdict="no encryption: the server sees every client's change.")

    def _ticks(self, seconds: float) -> int:
        """In how many ticks so many seconds are over."""
        return math.ceil(seconds / self.every - _SLACK)
