"""Two ways to join what asynchronous clients send: a buffer in the clear, and a running sum under encryption."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

import numpy as np

from protocols.arrivals.buffer import Buffer, Contribution, MaskFedAvg
from protocols.arrivals.contributor import Contributor
from protocols.arrivals.running_sum import Flushed, RunningSum, flush, released_by
from protocols.asynchronous import Joined
from protocols.system import largest_difference
from pruning.masks import Mask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from protocols.aggregators import Aggregated, Aggregator, Client, Dropouts
    from protocols.arrivals.contributor import Agreement
    from protocols.arrivals.flight import Arrival
    from protocols.federation import Memory
    from protocols.simulation.calibration import Calibration

_OF_ALL_FLUSHES = (
    " Of all flushes together: what is alike in a client's successive updates shows in their differences. Which model "
    "a client started from is bound by nothing."
)


class Joining(ABC):
    """Joins arrivals to the model; what was joined before counts on, less with every version."""

    @abstractmethod
    def join(
        self, arrivals: Sequence[Arrival], model: NDArray[np.float32], version: int, dropouts: Dropouts, seed: bytes
    ) -> Joined:
        """The next model.

        Args:
            arrivals: What has arrived.
            model: The global model now, (size,) float32.
            version: Its version.
            dropouts: Client to the last stage of the session that it completes, if there is one.
            seed: Of that session.
        """

    @abstractmethod
    def upload_of(self, mask: Mask) -> int:
        """Bytes that a client sends who holds ``mask``."""

    def foreseen(self, masks: Mapping[Client, Mask]) -> Mapping[Client, int]:
        """Bytes that clients with these masks send who are joined together: by default what each sends anyway."""
        return {client: self.upload_of(mask) for client, mask in masks.items()}

    @abstractmethod
    def remember(self) -> Memory:
        """All that was joined."""

    @abstractmethod
    def recall(self, memory: Memory) -> None:
        """Takes up where ``remember`` left off; an empty memory is a beginning."""


@final
class InBuffer(Joining):
    """The server holds everybody's latest contribution in the clear.

    Args:
        aggregator: Says what a vector weighs on the wire.
        rule: How contributions are averaged.
        keep: Whether contributions stay for later versions; False joins the arrivals alone.
    """

    _number: int
    _buffer: Buffer

    def __init__(self, aggregator: Aggregator, rule: MaskFedAvg, *, keep: bool = True) -> None:
        self._aggregator = aggregator
        self._rule = rule
        self._keep = keep
        self.recall({})

    def join(
        self,
        arrivals: Sequence[Arrival],
        model: NDArray[np.float32],
        version: int,
        dropouts: Dropouts,  # noqa: ARG002 - there is no session
        seed: bytes,  # noqa: ARG002 - nor secrets
    ) -> Joined:
        """See ``Joining.join``."""
        for arrival in arrivals:
            values = arrival.model if self._rule.kind == "model" else arrival.update
            flight, start = arrival.flight, self._number - (version - arrival.flight.version)
            self._buffer = self._buffer.put(flight.client, Contribution(values, flight.mask.coordinates, 1.0, start))
        vector = self._rule.merge(self._buffer, model, self._number).astype(np.float32)
        self._number += 1
        if not self._keep:
            self._buffer = Buffer(self._aggregator.layout.size)
        verdict = f"no encryption: the server sees and keeps every client's {self._rule.kind}."
        return Joined(vector=vector, verdict=verdict)

    def upload_of(self, mask: Mask) -> int:
        """See ``Joining.upload_of``."""
        return self._aggregator.upload_of(mask, 1)

    def remember(self) -> Memory:
        """See ``Joining.remember``."""
        return {"number": self._number, "buffer": self._buffer.to_memory()}

    def recall(self, memory: Memory) -> None:
        """See ``Joining.recall``."""
        # Of the next join: versions go on where the best model was restored, while what was joined is as old as then.
        self._number = int(memory.get("number", 0))
        self._buffer = Buffer.from_memory(self._aggregator.layout.size, memory.get("buffer", {}))


@final
class InRunningSum(Joining):
    """The server holds one sum of everybody's latest updates, into which batches of arrivals are added secretly.

    Args:
        agreement: What everybody agreed on.
        clients: Everybody.
        batch: Arrivals that are flushed together.
        server_rate: Learning rate of the server, on the mean update.
        calibration: Times of secure aggregation.
        encrypted: False sums the same in the clear.
        check: Whether every flush is compared with its twin in the clear.

    Raises:
        ParameterError: The batch is too small for the settings.
    """

    def __init__(
        self,
        agreement: Agreement,
        clients: Sequence[Client],
        *,
        batch: int,
        server_rate: float,
        calibration: Calibration,
        encrypted: bool = True,
        check: bool = False,
    ) -> None:
        agreement.check_batch(batch)
        self._server_rate = server_rate
        self._aggregator = agreement.aggregator(encrypted=encrypted)
        self._batch = batch
        self._width = self._aggregator.upload_of(Mask.full(agreement.layout), batch) // agreement.layout.size
        session = agreement.session
        borne = session.dropouts_tolerated(batch, session.topology(batch, "mask-indexed").needed)
        self._holders = session.coverage_required(batch, borne)
        self._time = calibration.time("mask-indexed", batch, agreement.session)
        self._sum = RunningSum(agreement)
        self._contributors: Mapping[Client, Contributor] = {client: Contributor(agreement) for client in clients}
        self._twin = None
        if check:
            self._twin = InRunningSum(
                agreement, clients, batch=batch, server_rate=server_rate, calibration=calibration, encrypted=False
            )

    def join(
        self, arrivals: Sequence[Arrival], model: NDArray[np.float32], version: int, dropouts: Dropouts, seed: bytes
    ) -> Joined:
        """See ``Joining.join``."""
        lengths = self._lengths({one.flight.client: one.flight.mask for one in arrivals}).values()
        flushed = self._flush(arrivals, version, dropouts, seed)
        aggregated = flushed.aggregated
        # Elsewhere nothing is new, and a mean, which does not age, would move the model on and on.
        step = np.where(released_by(aggregated), np.nan_to_num(self._sum.mean()), 0.0)
        return Joined(
            vector=(model + self._server_rate * step).astype(np.float32),
            verdict=aggregated.verdict + _OF_ALL_FLUSHES * self._aggregator.encrypted,
            missed=frozenset(one.flight.client for one in arrivals).difference(aggregated.survivors),
            sent_bytes=aggregated.upload_bytes,
            received_bytes=aggregated.download_bytes,
            secure_seconds=self._time.seconds(max(lengths), sum(lengths)),
            withheld_share=flushed.withheld_share,
            missing_share=flushed.missing_share,
            difference=self._difference(aggregated, arrivals, version, dropouts),
        )

    def upload_of(self, mask: Mask) -> int:
        """See ``Joining.upload_of``."""
        return self._aggregator.upload_of(mask, self._batch)

    def foreseen(self, masks: Mapping[Client, Mask]) -> Mapping[Client, int]:
        """See ``Joining.foreseen``: nobody sends what will be withheld, if nobody drops out."""
        return {client: self._width * length for client, length in self._lengths(masks).items()}

    def remember(self) -> Memory:
        """See ``Joining.remember``; in a simulation the clients' own memories lie beside the server's.

        Both go back together when the best model is restored, so a client keeps what it had in the sum by then, too.
        """
        return {
            "sum": self._sum.remember(),
            "contributors": {str(client): one.remember() for client, one in self._contributors.items()},
            "twin": None if self._twin is None else self._twin.remember(),
        }

    def recall(self, memory: Memory) -> None:
        """See ``Joining.recall``."""
        self._sum.recall(memory.get("sum", {}))
        for client, own in self._contributors.items():
            own.recall(memory.get("contributors", {}).get(client, {}))
        if self._twin is not None:
            self._twin.recall(memory.get("twin") or {})

    def _lengths(self, masks: Mapping[Client, Mask]) -> dict[Client, int]:
        """Coordinates that each client of a batch sends: what it holds, and enough others too."""
        released = np.sum([mask.coordinates for mask in masks.values()], axis=0) >= self._holders
        return {client: int(np.count_nonzero(mask.coordinates & released)) for client, mask in masks.items()}

    def _flush(self, arrivals: Sequence[Arrival], version: int, dropouts: Dropouts, seed: bytes) -> Flushed:
        flights = {one.flight.client: one.flight for one in arrivals}
        number = self._sum.number
        return flush(
            self._sum,
            self._contributors,
            {one.flight.client: one.update.astype(np.float64) for one in arrivals},
            {client: flight.mask for client, flight in flights.items()},
            self._aggregator,
            # By staleness: versions go on where the best model was restored, while flushes are numbered as then.
            starts={client: number - (version - flight.version) for client, flight in flights.items()},
            dropouts={client: stage for client, stage in dropouts.items() if client in flights},
            model_root=hashlib.sha256(f"flush {number} of version {version}".encode()).digest(),
            seed=seed,
        )

    def _difference(
        self, aggregated: Aggregated, arrivals: Sequence[Arrival], version: int, dropouts: Dropouts
    ) -> float | None:
        if self._twin is None:
            return None
        twin = self._twin._flush(arrivals, version, dropouts, b"")  # noqa: SLF001 - one of its own kind
        return largest_difference(aggregated, twin.aggregated)
