"""PR-FL: slow links carry sparse models, late contributions count on in a buffer, and density comes back when it hurts.

ArXiv 2403.15439. Each client's density follows its own communication times (``protocols.density``); all masks come from
one ranking of squared gradients, so they are nested (``pruning.pr_fl``). In the clear, as published, the server buffers
everybody's latest model and averages each coordinate over those who hold it (``protocols.arrivals.buffer``). Under
encryption it may hold nobody's, and keeps one running sum of updates instead (``protocols.arrivals.running_sum``):
batches of arrivals, which need enough holders of every coordinate, and staleness that is geometric.

When the global model stops improving on examples that the server holds, the best one is restored, with all that was
joined by then, and the floor of all densities rises. Trips under way, which started from a model that is no more, begin
anew: in a buffer of models each would undo its client's share of the restoring (ours; not published).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, final, get_args

import torch

from protocols.arrivals.buffer import MaskFedAvg
from protocols.arrivals.contributor import Agreement
from protocols.arrivals.distribution import split
from protocols.arrivals.joining import InBuffer, InRunningSum
from protocols.arrivals.staleness import Kind as StalenessKind  # noqa: TC001 - read when settings are given as text
from protocols.asynchronous import AsynchronousSystem, StaleSettings
from protocols.density import DensityRule, DensityState, Recovery, RecoveryState
from protocols.randomness import generator, session_seed
from protocols.sessions.averaging import averages, open_averages
from protocols.training import accuracy, cross_entropy
from protocols.vectors import vector_of
from pruning.masks import Mask
from pruning.pr_fl import ranking, squared_gradients
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from protocols.aggregators import Aggregator, Client, Dropouts
    from protocols.arrivals.flight import Arrival, Flight
    from protocols.arrivals.joining import Joining
    from protocols.asynchronous import Joined
    from protocols.federation import Federation, Memory
    from protocols.sessions.averaging import Averages
    from protocols.simulation.calibration import Calibration
    from protocols.training import Examples, State
    from pruning.pr_fl import Ranking
    from secagg.params import Params

Contribution = Literal["model", "update"]

HEADROOM = 16.0
"""How far a client's squared gradient may exceed the largest on the server's examples before a secure mean clips it.

Each tensor has a range of its own: theirs differ by orders of magnitude, and what is rounded to zero has no rank.
"""

LEAST_RANGE = 1e-20
"""Of a squared gradient where the server's own are all zero."""


@dataclass(frozen=True, kw_only=True)
class PrFlSettings(StaleSettings):
    """The settings of PR-FL.

    Args:
        contribution: What clients send: ``"model"``, as published, or ``"update"``, as encryption needs it. None: what
            the aggregator can do.
        batch: Arrivals that are joined at once. None for one in the clear, and for four of five clients under
            encryption: fewer seldom meet enough others that hold what they hold, and much of it is withheld.
        server_rate: Learning rate of the server (eta), in (0, 1]. None: 1 for models in a buffer; else the share of
            the clients that a batch is, since everybody's latest update is applied anew with every batch.
        buffer: Whether contributions stay until the client sends another. Only in the clear they may not.
        prune: Whether densities follow communication times.
        recover: Whether the best model is restored when evaluations stop improving.
        least_density: Of any client at first, in (0, 1].
        rank_every: Intervals from one ranking of the coordinates to the next.
        patience: Evaluations without improvement until the best model is restored.
        increment: By how much the least density then rises.

    Raises:
        ParameterError: A setting outside its domain.
    """

    staleness: StalenessKind = "geometric"
    contribution: Contribution | None = None
    batch: int | None = None
    server_rate: float | None = None
    buffer: bool = True
    prune: bool = True
    recover: bool = True
    least_density: float = 0.1
    rank_every: int = 5
    patience: int = 10
    increment: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contribution not in (None, *get_args(Contribution)):
            choices = ", ".join(map(repr, get_args(Contribution)))
            raise ParameterError(f"contribution must be one of {choices} or None, not {self.contribution!r}")
        for setting, value in (("rank_every", self.rank_every), ("batch", self.batch), ("patience", self.patience)):
            if value is not None and value < 1:
                raise ParameterError(f"{setting} must be at least 1, not {value}")
        if not 0 < self.least_density <= 1:
            raise ParameterError(f"least_density must be in (0, 1], not {self.least_density}")
        if self.server_rate is not None and not 0 < self.server_rate <= 1:
            raise ParameterError(f"server_rate must be in (0, 1], not {self.server_rate}")
        _ = self.recovery

    @property
    def recovery(self) -> Recovery:
        """When the best model is restored."""
        return Recovery(floor=self.least_density, patience=self.patience, increment=self.increment)


@final
class PrFl(AsynchronousSystem):
    """Pruning and recovery, asynchronous and buffered.

    Args:
        federation: What it runs on; its validation examples are the server's.
        aggregator: ``MaskIndexed`` or its twin for the running sum of updates; ``FloatMean`` for the buffer.
        settings: As ``PrFlSettings``.
        twin: Whether flushes are compared with their twins in the clear.
        calibration: As ``System``.

    Raises:
        ParameterError: Settings that contradict the aggregator, or a batch that is too small for its rules or larger
            than the federation.
    """

    settings: PrFlSettings
    densities: dict[Client, DensityState]

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: PrFlSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        settings = settings or PrFlSettings()
        super().__init__(federation, aggregator, settings, twin=twin, calibration=calibration)
        if federation.validation is None:
            raise ParameterError("PR-FL judges the global model on validation examples: the federation has none")
        if settings.batch is not None and settings.batch > len(federation.examples):
            raise ParameterError(
                f"batch {settings.batch} is more than the {len(federation.examples)} clients: lower it"
            )
        self._evaluation: Examples = federation.validation
        self._rule = DensityRule(interval=settings.interval, dense=self._dense, forget=True)
        self._rule_of_recovery = settings.recovery
        self.joining = self._joining()
        self.recall({})

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"PR-FL {self.aggregator.name}"

    @property
    def notes(self) -> tuple[str, ...]:
        """How arrivals are joined."""
        if self.aggregator.params is None:
            return (f"the server buffers every client's {self._contribution}, weighted by {self.settings.staleness}",)
        return (f"the server keeps one sum of updates, into which {self._batch} arrivals are flushed together",)

    def mask_of(self, client: Client) -> Mask:
        """The top of the ranking, as much of it as the client's density says."""
        density = self.densities[client].density
        if self._ranking is None or density == 1:
            return Mask.full(self.layout)
        if density not in self._masks:
            self._masks[density] = self._ranking.mask(density)
        return self._masks[density]

    def upload_of(self, client: Client, mask: Mask) -> int:  # noqa: ARG002 - whoever it is
        """As the way of joining asks for."""
        return self.joining.upload_of(mask)

    def serve(self, masks: Mapping[Client, Mask]) -> tuple[Mapping[Client, int], int]:
        """Differential distribution: each coordinate is sent once to all who leave together."""
        distribution = split(masks, self.model)
        return {client: distribution.download_bytes(client) for client in masks}, distribution.server_bytes

    def due(self) -> tuple[list[Flight], float]:
        """The first that is back; of a batch, those that are trained first, when the slowest of them has sent.

        Flushes follow one another, since each is told by its number how old all contributions are.
        """
        if self._batch == 1:
            return super().due()
        fleet = self.federation.fleet
        ready = sorted(self.flights.values(), key=lambda one: (one.trained_at, fleet.number(one.client)))
        batch = self._sending(ready[: self._batch])
        from_all = sum(flight.sent_bytes for flight in batch) / fleet.server.download_bytes_per_second
        begun = max(self.now, batch[-1].trained_at)
        return batch, begun + max(from_all, *(flight.time.upload for flight in batch))

    def join(self, arrivals: Sequence[Arrival], dropouts: Dropouts) -> Joined:
        """Joins them to what there is, and notes how long their links took."""
        for arrival in arrivals:
            self._observe(arrival.flight)
        # No trip is flushed twice, not even where the best model is restored.
        trips = [(arrival.flight.client, arrival.flight.trip) for arrival in arrivals]
        seed = session_seed(self.federation.seed, "flush", self.name, self.settings, trips)
        return self.joining.join(arrivals, self.model, self.version, dropouts, seed)

    def conclude(self, model: nn.Module) -> tuple[Mapping[str, float], tuple[str, ...]]:
        """Evaluates the model, recovers where it is time, adapts densities and now and then the ranking."""
        self._intervals += 1
        score = accuracy(model, self._evaluation, self.federation.training.precision)
        restored, averaged = self.settings.recover and self._recover(score), None
        if self.settings.prune:
            # Lifts those below the floor, too, where it has just risen.
            self.densities = self._rule.next(self.densities, self._recovery.floor)
            averaged = self._rank()
        if restored:
            self._depart(self.federation.fleet.names, anew=True)
        if averaged is not None:
            self._charge(averaged)
        densities = [state.density for state in self.densities.values()]
        measured = {
            "validation accuracy": score,
            "least density": min(densities),
            "mean density": sum(densities) / len(densities),
            "density floor": self._recovery.floor,
            "recoveries": float(self._recoveries),
        }
        return measured, (() if averaged is None else (f"of squared gradients, {averaged.verdict}",))

    def remember(self) -> Memory:
        """The clock, densities, the ranking, what was joined, and the best of all that."""
        return {
            **super().remember(),
            **self._state(),
            "intervals": self._intervals,
            "recovery": self._recovery.to_json(),
            "recoveries": self._recoveries,
            "best": self._best,
        }

    def recall(self, memory: Memory) -> None:
        """Takes up where ``remember`` left off."""
        super().recall(memory)
        self._intervals = int(memory.get("intervals", 0))
        self._recoveries = int(memory.get("recoveries", 0))
        kept = memory.get("recovery")
        self._recovery = self.settings.recovery.start() if kept is None else RecoveryState.from_json(kept)
        self._best: Memory | None = memory.get("best")
        self._restore(memory)

    @property
    def _contribution(self) -> Contribution:
        in_the_clear = self.aggregator.params is None
        return self.settings.contribution or ("model" if in_the_clear else "update")

    @property
    def _batch(self) -> int:
        """Arrivals that are joined at once."""
        params, clients = self.aggregator.params, len(self.federation.examples)
        if self.settings.batch is not None:
            return self.settings.batch
        return 1 if params is None else max(smallest_batch(params, clients), clients - clients // 5)

    @property
    def _dense(self) -> int:
        """How many clients hold everything: without encryption one, else as many as release what nobody else holds."""
        params = self.aggregator.params
        return 1 if params is None else smallest_batch(params, len(self.federation.examples))

    @property
    def _server_rate(self) -> float:
        models_stay = self._contribution == "model" and self.settings.buffer
        return self.settings.server_rate or (1.0 if models_stay else self._batch / len(self.federation.examples))

    def _joining(self) -> Joining:
        settings, params = self.settings, self.aggregator.params
        if params is None:
            rule = MaskFedAvg(kind=self._contribution, staleness=settings.weighing, learning_rate=self._server_rate)
            return InBuffer(self.aggregator, rule, keep=settings.buffer)
        if params.active:
            raise ParameterError(
                "adversary 'active': nothing binds the model that a client's trip started from, so such a server could "
                "give each client another; use 'semi-honest'"
            )
        if self._contribution == "model":
            raise ParameterError("contribution 'model': two flushes of models differ by one; use 'update' or 'float'")
        if not settings.buffer:
            raise ParameterError("buffer cannot be turned off under encryption: set aggregation to 'float' for that")
        return InRunningSum(
            Agreement(layout=self.layout, params=params, decay=settings.weighing.factor),
            self.federation.fleet.names,
            batch=self._batch,
            server_rate=self._server_rate,
            calibration=self.measuring.calibration,
            encrypted=self.aggregator.encrypted,
            check=self.twin is not None,
        )

    def _sending(self, batch: Sequence[Flight]) -> list[Flight]:
        """Flights that are flushed together, each with what it sends in this company."""
        sent = self.joining.foreseen({flight.client: flight.mask for flight in batch})
        uploads = {client: self._time_of(client, 0, 0, own).upload for client, own in sent.items()}
        return [
            replace(one, sent_bytes=sent[one.client], time=replace(one.time, upload=uploads[one.client]))
            for one in batch
        ]

    def _observe(self, flight: Flight) -> None:
        """Notes how long a client's links take for its mask, unless its density is another one by now.

        What else it sent, and what it did not have to send, depend on the company and on masks before.
        """
        client, mask = flight.client, flight.mask
        if mask.density == self.mask_of(client).density:
            upload = self._time_of(client, 0, 0, self.joining.upload_of(mask)).upload
            self.densities[client] = self._rule.observe(self.densities[client], flight.time.download + upload)

    def _recover(self, score: float) -> bool:
        """Keeps the best model, or restores it; returns whether it did."""
        self._recovery, verdict = self._rule_of_recovery.next(self._recovery, score)
        if verdict == "better":
            self._best = {"model": torch.tensor(self.model), **self._state()}
        elif verdict == "restore" and self._best is not None:
            self.model = self._best["model"].numpy().copy()
            self._restore(self._best)
            self._recoveries += 1
        return verdict == "restore"

    def _state(self) -> dict[str, object]:
        """What goes back with the model when the best one is restored."""
        return {
            "densities": {str(client): state.to_json() for client, state in self.densities.items()},
            "importance": None if self._importance is None else torch.tensor(self._importance),
            "joined": self.joining.remember(),
        }

    def _restore(self, state: Memory) -> None:
        known, importance = state.get("densities", {}), state.get("importance")
        self.densities = {
            client: DensityState.from_json(known[client]) if client in known else DensityState(1.0)
            for client in self.federation.fleet.names
        }
        self._use(None if importance is None else importance.numpy())
        self.joining.recall(state.get("joined", {}))

    def _use(self, importance: NDArray[np.float32] | None) -> None:
        self._importance = importance
        self._ranking: Ranking | None = None if importance is None else ranking(self.federation.units, importance)
        self._masks: dict[float, Mask] = {}

    def _rank(self) -> Averages | None:
        """A new ranking, when one is due: all clients tell their squared gradients, or the sum of them in secret."""
        pruned = any(state.density < 1 for state in self.densities.values())
        if not pruned or (self._ranking is not None and self._intervals % self.settings.rank_every):
            return None
        model = self.module_of(self.model)
        squares: dict[Client, State] = {one: self._squares(model, one) for one in self.federation.fleet.names}
        if self.aggregator.params is None:
            averaged = open_averages(squares)
        else:
            own = self._squares(model, None)
            averaged = averages(
                squares,
                ranges={name: max(HEADROOM * float(one.max()), LEAST_RANGE) for name, one in own.items()},
                params=self.aggregator.params,
                seed=session_seed(self.federation.seed, "squares", self.name, self.settings, self._intervals),
                encrypted=self.aggregator.encrypted,
            )
        self._use(vector_of(self.layout, averaged.mean))
        return averaged

    def _squares(self, model: nn.Module, client: Client | None) -> State:
        """Squared gradients on a batch of a client's examples, or of the server's, by tensor name."""
        setup = self.federation
        examples = self._evaluation if client is None else setup.examples[client]
        whose = len(setup.examples) if client is None else setup.fleet.number(client)
        drawn = generator(setup.seed, "squares", self._intervals, whose).permutation(len(examples))
        batch = examples.subset(drawn[: setup.training.batch_size].tolist())
        squares = squared_gradients(setup.units, model.to(batch.device), [(batch.inputs, batch.labels)], cross_entropy)
        return {name: torch.from_numpy(values) for name, values in self.layout.by_tensor(squares).items()}

    def _charge(self, averaged: Averages) -> None:
        """Everybody's trip lasts longer by fetching the whole model, a training step and what it sends of it."""
        setup, params, clients = self.federation, self.aggregator.params, len(averaged.clients)
        fetched, served = self.serve(dict.fromkeys(averaged.clients, Mask.full(self.layout)))
        waited, to_all = self._send(served)
        step_flops = self.measuring.costs.of(setup.model).step_flops
        from_all = clients * averaged.vector_bytes / setup.fleet.server.download_bytes_per_second
        for client in averaged.clients:
            device, flight = setup.fleet.device(client), self.flights[client]
            compute = flight.time.compute + step_flops / device.flops_per_second
            fetching = waited + max(fetched[client] / device.download_bytes_per_second, to_all)
            # By the vector alone: what is trained next must not depend on whether it was encrypted.
            sending = max(averaged.vector_bytes / device.upload_bytes_per_second, from_all)
            self.flights[client] = replace(
                flight,
                time=replace(flight.time, compute=compute),
                side_seconds=flight.side_seconds + fetching + sending,
                side_bytes=flight.side_bytes + averaged.upload_bytes[client],
                side_flops=flight.side_flops + step_flops,
                fetched_bytes=flight.fetched_bytes + fetched[client] + averaged.download_bytes[client],
            )
        if params is not None:
            time = self.measuring.calibration.time("uniform", clients, params)
            self.secure_seconds += time.seconds(averaged.length, clients * averaged.length)


def smallest_batch(params: Params, clients: int) -> int:
    """The fewest arrivals of which a flush can bear its dropouts and still release something.

    Raises:
        ParameterError: There are not so many clients.
    """
    for batch in range(1, clients + 1):
        lost = batch // 3 if params.max_dropouts is None else params.max_dropouts
        if batch >= params.privacy_floor + lost:
            return batch
    dropouts = "a third that may drop out" if params.max_dropouts is None else f"max_dropouts {params.max_dropouts}"
    raise ParameterError(
        f"{clients} clients are too few for min_cohort {params.min_cohort} + corrupt {params.corrupt} + {dropouts}: "
        "lower one of these, or have more clients"
    )
