"""A federated round as an onion of stages.

Every client takes its work through the stages in order, from the global model to an update at full shape. The
aggregator turns the updates into one mean step. The server takes that step through the same stages in reverse, each
undoing what it did on the clients, until it is a model again::

    Fetch -> Submodel -> LocalTraining -> Delta -> | aggregator | -> Delta -> LocalTraining -> Submodel -> Fetch

A stage that only one side knows is the identity on the other. ``Weigh`` and whatever else changes an update come after
``Delta``; noise comes last before the aggregator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pruning.masks import Mask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from protocols.aggregators import Aggregated, Aggregator, Client, Dropouts, Ledgers
    from protocols.fetch import Served
    from protocols.training import State
    from secagg.layout import Layout


@dataclass(frozen=True, eq=False)
class RoundContext:
    """Where a round starts. All of it is public, and nobody changes it.

    Args:
        number: Of the round, from 0; part of every seed.
        model: The global model, of which clients know the architecture only.
        start: Its floating-point tensors by name, those of the layout, as the server has them.
        served: The same as clients fetch them; its root is everybody's.
        previous: The tensors of the global model one round earlier, which clients have seen; None in the first round.
    """

    number: int
    model: nn.Module
    start: State
    served: Served
    previous: State | None = None


@dataclass(frozen=True, eq=False)
class Work:
    """What one client carries from stage to stage.

    Args:
        client: Whose it is.
        model: What it trains: the architecture at first, then a module of its own.
        mask: The coordinates that ``model`` holds.
        keep: Share of the units, or of the blocks, that it trains.
        start: The tensors that it fetched, in the shapes of ``model``; empty until then.
        fetched_bytes: What they and their proof weighed on the wire.
        update: Its change at full shape, zero outside the mask; empty until there is one. A stage may add tensors that
            the model lacks, and takes them out again on the server.
        weight: Its weight in the mean; None where all clients weigh the same.
        further_steps: Batches whose gradients it takes besides those of training.
    """

    client: Client
    model: nn.Module
    mask: Mask
    keep: float = 1.0
    start: State = field(default_factory=dict)
    fetched_bytes: int = 0
    update: State = field(default_factory=dict)
    weight: float | None = None
    further_steps: int = 0


class Stage(ABC):
    """One layer of the onion."""

    @abstractmethod
    def on_client(self, context: RoundContext, work: Work) -> Work:
        """Does its part of one client's work."""

    def on_server(self, context: RoundContext, values: State) -> State:  # noqa: ARG002 - the null object of a stage
        """Undoes that part in the aggregate: float64 tensors of the layout, zero where withheld."""
        return values


@dataclass(frozen=True, eq=False)
class PlayedRound:
    """A round that ended: every client's finished work, what was aggregated, and the tensors of the new model."""

    work: Mapping[Client, Work]
    aggregated: Aggregated
    state: State


def play(
    stages: Sequence[Stage],
    context: RoundContext,
    clients: Sequence[Client],
    aggregator: Aggregator,
    *,
    dropouts: Dropouts | None = None,
    ledgers: Ledgers | None = None,
    seed: bytes | None = None,
) -> PlayedRound:
    """Plays one round.

    Args:
        stages: Outermost first.
        context: Where the round starts.
        clients: Who takes part.
        aggregator: What joins the updates.
        dropouts: Client to the last stage of the session that it completes.
        ledgers: Client to what it remembers of its sessions, for those that do.
        seed: Makes the secrets of the session repeatable, for simulations.

    Raises:
        SecAggError: As ``Aggregator.aggregate``.
    """
    work = work_of(stages, context, clients, aggregator.layout)
    aggregated = aggregate_work(
        aggregator, work, dropouts=dropouts, model_root=context.served.root, ledgers=ledgers, seed=seed
    )
    return PlayedRound(work, aggregated, new_model(stages, context, aggregated))


def work_of(
    stages: Sequence[Stage], context: RoundContext, clients: Sequence[Client], layout: Layout
) -> dict[Client, Work]:
    """What every client makes of the global model on its way through the stages."""
    work = {}
    for client in clients:
        carried = Work(client, context.model, Mask.full(layout))
        for stage in stages:
            carried = stage.on_client(context, carried)
        work[client] = carried
    return work


def new_model(stages: Sequence[Stage], context: RoundContext, aggregated: Aggregated) -> State:
    """The tensors of the global model that the server makes of an aggregate on its way back through the stages."""
    values: State = aggregated.step
    for stage in reversed(stages):
        values = stage.on_server(context, values)
    return values


def aggregate_work(
    aggregator: Aggregator,
    work: Mapping[Client, Work],
    *,
    dropouts: Dropouts | None = None,
    model_root: bytes = b"",
    ledgers: Ledgers | None = None,
    seed: bytes | None = None,
) -> Aggregated:
    """Aggregates finished work: updates, the masks of those that are pruned, and the weights if there are any."""
    masks = {client: one.mask.declaration() for client, one in work.items() if one.mask.kind != "full"}
    weights = {client: one.weight for client, one in work.items() if one.weight is not None}
    return aggregator.aggregate(
        {client: one.update for client, one in work.items()},
        masks or None,
        weights or None,
        dropouts,
        model_root=model_root,
        ledgers=ledgers,
        seed=seed,
    )
