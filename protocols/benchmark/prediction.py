"""What the formulas say of cohorts that nobody measures: one graph for all, or shards whose sums are summed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from protocols.benchmark import lengths
from protocols.benchmark.costs import MEMORY, Cohort, client_counts, server_counts
from protocols.benchmark.stages import CLIENT_STAGES, LEVELS
from secagg import Params
from secagg.shards import shard_params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.benchmark.costs import Fit

CLIENTS = (1_000, 10_000, 100_000, 1_000_000)
COORDINATES = 1_000_000
SHARD = 1_000
"""Clients of a shard."""
DROPPED, CORRUPT = 0.1, 0.05


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A session of so many clients.

    Args:
        clients: In all.
        shards: Into how many the cohort is cut; 1 for one graph.
        neighbours: Of a client; a shard bears more dropouts and colluders than its part, as they fall by chance.
        ring_bits: Of a coordinate on the wire.
        upload_bytes: Of one client.
        download_bytes: Likewise.
        client_seconds: Likewise.
        server_seconds: Of one core, over all shards.
        last_seconds: Those of them that follow the last upload, on one core, over all shards.
        server_bytes: Memory for one shard.
    """

    clients: int
    shards: int
    neighbours: int
    ring_bits: int
    upload_bytes: int
    download_bytes: int
    client_seconds: float
    server_seconds: float
    last_seconds: float
    server_bytes: float


def predictions(fits: Mapping[str, Mapping[str, Fit]]) -> list[Prediction]:
    """Each number of clients in one graph, and in shards."""
    return [predict(fits, clients, shards) for clients in CLIENTS for shards in sorted({1, clients // SHARD})]


def predict(fits: Mapping[str, Mapping[str, Fit]], clients: int, shards: int) -> Prediction:
    """One number of clients.

    Args:
        fits: As ``costs.fitted``.
        clients: In all.
        shards: Of equal size.
    """
    size = clients // shards
    lost, corrupt = round(DROPPED * clients), round(CORRUPT * clients)
    params = shard_params(Params(max_dropouts=lost, corrupt=corrupt, levels=LEVELS), clients, shards)
    wired, ring = params.topology(size), params.ring(size)
    of = Cohort(
        clients=size,
        neighbours=wired.degree,
        threshold=wired.threshold,
        coordinates=COORDINATES,
        dropped=round(DROPPED * size),
    )
    last = clients - 1  # the longest numbers
    everybody, neighbours = range(clients - size, clients), range(last - wired.degree, last)
    up = (
        lengths.advertise_keys(last)
        + lengths.share_keys(last, neighbours)
        + lengths.masked_input(last, ring.nbytes(COORDINATES))
        + lengths.unmask(last, [*neighbours, last])
    )
    down = (
        lengths.roster(everybody) + lengths.relayed_shares(last, everybody, neighbours) + lengths.unmask_request(size)
    )
    server = {stage: fits["server"][stage].predict(server_counts(stage, of)) for stage in (*CLIENT_STAGES, MEMORY)}
    return Prediction(
        clients=clients,
        shards=shards,
        neighbours=wired.degree,
        ring_bits=ring.bits,
        upload_bytes=up,
        download_bytes=down,
        client_seconds=sum(fits["client"][stage].predict(client_counts(stage, of)) for stage in CLIENT_STAGES),
        server_seconds=shards * sum(server[stage] for stage in CLIENT_STAGES),
        last_seconds=shards * server["Unmask"],
        server_bytes=server[MEMORY],
    )


def to_json(found: list[Prediction]) -> list[dict[str, Any]]:
    """As plain data."""
    return [asdict(one) for one in found]
