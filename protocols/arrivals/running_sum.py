"""One running sum in place of a buffer of everybody's latest update, so that asynchronous learning can be encrypted.

A buffered server keeps the latest update x_i of every client and, after each flush (K arrivals), averages over all of
them, weighted by staleness. One that may see no single update keeps one vector. With geometric staleness, decay^age, a
flush needs only the secure sum over its arrivals::

    S <- decay * S + sum of (x_new - decay^age * x_old)

which is the sum of decay^age_i * x_i over everybody's latest x_i, age counted in flushes (from the arrival, or from the
model that x_i started from, where x_new is multiplied by what it has aged already). Other kinds of staleness
re-weight each client by its own age, which no operation on one sum can do. Clients do their part in
``protocols.arrivals.contributor``.

The denominators need no secret sum: masks are declared, so the server knows whose contribution of which flush is in S
at each coordinate, though nobody's values.

Why no flush isolates anybody: take any combination of the flushes so far, and the last flush in it. Wherever that one
released anything, a cohort of honest survivors brought values that are in no other flush but later ones. So no
combination is over fewer. That rests on clients that declare only what they hold now, and on updates that are new.

What remains to be seen: sums over overlapping cohorts can be subtracted, and then whatever is alike in a client's
successive contributions cancels. Upload updates, never models: with 10 clients, 4 a flush and decay .9, two successive
flushes of models that hardly move, subtracted, show the model of whoever joined (cosine above .99). With fresh updates,
x_new - decay^age * x_old is a new vector in each flush, and the others hide one as in any sum. Updates that hardly
change from flush to flush are no better hidden than models.

Reconstructed: PR-FL (arXiv 2403.15439) buffers in the clear; its encrypted form is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from protocols.arrivals.contributor import NEVER
from secagg.errors import InputError, ParameterError, UnknownClientError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from protocols.aggregators import Aggregated, Client, Dropouts, Ledgers
    from protocols.arrivals.contributor import Agreement, Contributor, Indexed, Notice, Offer
    from protocols.federation import Memory
    from pruning.masks import Mask

LEAST_WEIGHT = 1e-3
"""Below this total weight a coordinate has no mean: the rounding errors of n clients, n / 2 units, would show in it."""


class RunningSum:
    """The server's side: the sum, and whose contributions are in it.

    Args:
        agreement: What everybody agreed on.
    """

    number: int
    """Of the next flush: how many there were. A session that broke off is none."""

    _steps: NDArray[np.float64]
    _start_of: dict[Client, NDArray[np.int32]]

    def __init__(self, agreement: Agreement) -> None:
        self.agreement = agreement
        self.recall({})

    @property
    def sum(self) -> NDArray[np.float64]:
        """The sum of everybody's aged contributions, (layout.size,) float64."""
        return self._steps * self.agreement.unit

    def add(self, notices: Mapping[Client, Notice], aggregated: Aggregated) -> None:
        """Takes in the secure sum of the flush ``number``.

        Args:
            notices: Client to what it told beside the session.
            aggregated: What the session returned.

        Raises:
            InputError: Not a sum of integers.
            UnknownClientError: A survivor without a notice.
        """
        if aggregated.integers is None:
            raise InputError("a running sum adds up integers: aggregate by a mask-indexed session, or its twin")
        unknown = [client for client in aggregated.survivors if client not in notices]
        if unknown:
            raise UnknownClientError(f"survivors without a notice: {unknown}", culprits=unknown)
        released = released_by(aggregated)
        steps = self._steps * self.agreement.decay
        steps[released] += aggregated.integers
        nobody = np.full(self.agreement.layout.size, NEVER, np.int32)
        for client in aggregated.survivors:
            notice = notices[client]
            fresh = released & notice.mask.coordinates
            self._start_of[client] = np.where(fresh, np.int32(notice.start), self._start_of.get(client, nobody))
        self._steps, self.number = steps, self.number + 1

    def weights(self) -> NDArray[np.float64]:
        """The total weight behind each coordinate, decay^age summed over its contributors. (layout.size,) float64."""
        by_start = self.agreement.decay ** np.arange(self.number - 1, -1, -1, dtype=np.float64)
        # NEVER is the index of the last entry.
        by_start = np.append(by_start, 0.0)
        total = np.zeros(self.agreement.layout.size)
        for starts in self._start_of.values():
            total += by_start[starts]
        return total

    def mean(self) -> NDArray[np.float64]:
        """The weighted mean of everybody's latest updates, NaN where (almost) nobody's is. (layout.size,) float64.

        Rounding takes it at most clients / 2 / weight units from the mean of the updates themselves.
        """
        weights = self.weights()
        return np.divide(self.sum, weights, out=np.full_like(weights, np.nan), where=weights >= LEAST_WEIGHT)

    def remember(self) -> Memory:
        """Its state in tensors and numbers."""
        start_of = {client: torch.from_numpy(starts.copy()) for client, starts in self._start_of.items()}
        return {"number": self.number, "steps": torch.from_numpy(self._steps.copy()), "start_of": start_of}

    def recall(self, memory: Memory) -> None:
        """Takes up where ``remember`` left off; an empty memory is a beginning."""
        self.number = int(memory.get("number", 0))
        nothing = torch.zeros(self.agreement.layout.size, dtype=torch.float64)
        self._steps = memory.get("steps", nothing).numpy().copy()
        # Per client and coordinate, where the contribution in the sum started: public, since masks are declared.
        self._start_of = {client: own.numpy().copy() for client, own in memory.get("start_of", {}).items()}


@dataclass(frozen=True, eq=False)
class Flushed:
    """A flush that ended.

    Args:
        number: Its number.
        aggregated: What the session returned; its ``vector`` is a mean of differences and of no use by itself.
        withheld_share: Of the coordinates that the batch declared, all clients together, the share that was withheld.
        missing_share: Share of the coordinates that have no mean, because (almost) nobody's contribution is there.
    """

    number: int
    aggregated: Aggregated
    withheld_share: float
    missing_share: float


def released_by(aggregated: Aggregated) -> NDArray[np.bool_]:
    """Which coordinates a mask-indexed aggregation released, (layout.size,) bool."""
    return ~np.isnan(aggregated.vector)


def flush(
    server: RunningSum,
    contributors: Mapping[Client, Contributor],
    updates: Mapping[Client, NDArray[np.float64]],
    masks: Mapping[Client, Mask],
    aggregator: Indexed,
    *,
    starts: Mapping[Client, int] | None = None,
    dropouts: Dropouts | None = None,
    model_root: bytes = b"",
    ledgers: Ledgers | None = None,
    seed: bytes | None = None,
) -> Flushed:
    """Plays one flush. Where it raises, neither the server nor a client has changed.

    Args:
        server: The running sum.
        contributors: Client to its side; those without an update take no part.
        updates: Client to its latest update, (layout.size,) float64: the batch.
        masks: Client to what it holds; one for each update.
        aggregator: ``Agreement.aggregator``, or one with equal settings.
        starts: Client to its update's ``start``, where it is not this flush.
        dropouts: Client to the last stage that it completes. After ``MASKED_INPUT`` it is counted all the same, and
            gets its receipt when it is back.
        model_root: As ``Aggregator.aggregate``.
        ledgers: Likewise.
        seed: Likewise.

    Raises:
        ParameterError: The batch is too small, or the aggregator has other settings than the running sum.
        UnknownClientError: An update of an unknown client, or one without a mask.
        InputError: As ``Contributor.offer``; ``culprits`` names the client.
        AbortError: As ``Aggregator.aggregate``: the flush is lost.
    """
    agreement, number = server.agreement, server.number
    _check_aggregator(agreement, aggregator)
    agreement.check_batch(len(updates))
    unknown = [client for client in updates if client not in contributors or client not in masks]
    if unknown:
        raise UnknownClientError(f"updates of unknown clients, or without a mask: {unknown}", culprits=unknown)
    offers: dict[Client, Offer] = {}
    for client, update in updates.items():
        try:
            offers[client] = contributors[client].offer(update, masks[client], number, (starts or {}).get(client))
        except InputError as error:
            raise type(error)(f"client {client}: {error}", culprits=[client]) from None
    aggregated = aggregator.aggregate(
        {client: offer.update for client, offer in offers.items()},
        {client: offer.notice.mask.declaration() for client, offer in offers.items()},
        dropouts=dropouts,
        model_root=model_root,
        ledgers=ledgers,
        seed=seed,
    )
    released = released_by(aggregated)
    server.add({client: offer.notice for client, offer in offers.items()}, aggregated)
    for client in aggregated.survivors:
        contributors[client].settle(offers[client], released)
    declared = np.sum([offer.notice.mask.coordinates for offer in offers.values()], axis=0)
    withheld_share = float(declared[~released].sum() / declared.sum())
    return Flushed(number, aggregated, withheld_share, float(np.isnan(server.mean()).mean()))


def _check_aggregator(agreement: Agreement, aggregator: Indexed) -> None:
    if aggregator.mode != "mask-indexed":
        raise ParameterError("a running sum needs declared masks: use mode 'mask-indexed'")
    if aggregator.params != agreement.session or aggregator.layout != agreement.layout:
        raise ParameterError("the aggregator has another layout or other params than Agreement.session")
