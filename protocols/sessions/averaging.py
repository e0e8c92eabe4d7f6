"""A secure mean of a few vectors: what a group's clients have on average, and nobody learns what one of them has.

A uniform session beside that of the updates, over a layout of its own, in which all clients weigh the same. Statistics
differ in size by orders of magnitude (a weight's deviation, and its square), so each name has a public range of its
own, which must not be chosen from private data. A client clips what is beyond it before it sends anything.

The same vector summed over two groups that differ by one client is that client's vector: what is averaged in more than
one session must be new in each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from protocols.aggregators import FLOAT_BYTES, FixedPoint, Uniform
from pruning.masks import Mask
from secagg.declaration import Provenance
from secagg.errors import InputError, LayoutMismatchError, ParameterError
from secagg.layout import Layout, Tensor
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.aggregators import Client, Dropouts, Updates

LEVELS = 2**24
"""Steps of a range. The most with which a number takes four bytes among up to 256 clients."""


@dataclass(frozen=True, eq=False)
class Averages:
    """What a secure mean returns.

    Args:
        mean: By name, float64; for each number within ``range / LEVELS`` of the mean of the clipped ones.
        clients: Those in the mean, in order.
        upload_bytes: Client to bytes that it sent.
        download_bytes: Client to bytes that it received.
        seconds: Role and stage to seconds of computation, all clients together; empty without encryption.
        verdict: Who learned what, in a sentence.
        length: Numbers that a client sent.
        vector_bytes: What they weigh on the wire, keys and shares aside; the same with encryption and without.
    """

    mean: Mapping[str, torch.Tensor]
    clients: tuple[Client, ...]
    upload_bytes: Mapping[Client, int]
    download_bytes: Mapping[Client, int]
    seconds: Mapping[str, float]
    verdict: str
    length: int
    vector_bytes: int

    provenance = Provenance.DATA
    """What the numbers say something about."""

    def __repr__(self) -> str:
        return f"Averages({self.verdict!r})"


def averages(
    vectors: Updates,
    *,
    ranges: Mapping[str, float],
    params: Params | None = None,
    dropouts: Dropouts | None = None,
    seed: bytes | None = None,
    encrypted: bool = True,
) -> Averages:
    """The mean of every named vector over the clients.

    Args:
        vectors: Client to vectors by name, of any shape and floating-point type, the same for all clients.
        ranges: Name to the largest magnitude of a number under it; larger ones are clipped by the client. Public.
        params: The thresholds, as in any session; see ``average_params`` for what else of them counts.
        dropouts: Client to the last stage of the session that it completes. Who leaves before its input arrived is
            not in the mean.
        seed: Makes the secrets of the session repeatable: for simulations, and a new one each session.
        encrypted: False computes the same mean in the clear, under the same thresholds; it agrees bit for bit.

    Raises:
        InputError: No client, or nothing to average.
        LayoutMismatchError: A client has other names or shapes than the first one; ``culprits`` names it.
        NotFiniteError: A client has NaN or infinity; ``culprits`` names it.
        ParameterError: ``ranges`` has other names than the vectors, or a range outside its domain.
        TooFewClientsError: Fewer clients than a threshold demands.
    """
    layout = _common_layout(vectors)
    names = {tensor.name for tensor in layout.tensors}
    if names != set(ranges):
        raise ParameterError(f"ranges must name what is averaged: {', '.join(sorted(names ^ set(ranges)))}")
    kind = Uniform if encrypted else FixedPoint
    aggregator = kind(layout, average_params(params or Params(), ranges))
    # Copies: tensors that share memory would count as one.
    own = {
        client: {name: tensor.detach().to("cpu", torch.float64, copy=True) for name, tensor in named.items()}
        for client, named in vectors.items()
    }
    averaged = aggregator.aggregate(own, dropouts=dropouts, seed=seed)
    return Averages(
        mean=averaged.mean,
        clients=averaged.survivors,
        upload_bytes=averaged.upload_bytes,
        download_bytes=averaged.download_bytes,
        seconds=averaged.seconds,
        verdict=averaged.verdict,
        length=layout.size,
        vector_bytes=aggregator.upload_of(Mask.full(layout), len(own)),
    )


def average_params(params: Params, ranges: Mapping[str, float]) -> Params:
    """The settings of a session that averages: the same thresholds and adversary, ranges and levels of its own."""
    return replace(
        params,
        value_range=dict(ranges),
        levels=LEVELS,
        out_of_range="saturate",
        weighting="hidden",
        exact_denominators=False,
        participation=0.0,
        privacy=None,
    )


def open_averages(vectors: Updates) -> Averages:
    """The same in floating point and in the open, for systems whose server sees everything anyway.

    Args:
        vectors: As ``averages``.

    Raises:
        InputError: As ``averages``.
        LayoutMismatchError: Likewise.
    """
    layout, clients = _common_layout(vectors), tuple(vectors)
    return Averages(
        mean={
            tensor.name: torch.stack([vectors[client][tensor.name].double() for client in clients]).mean(dim=0)
            for tensor in layout.tensors
        },
        clients=clients,
        upload_bytes=dict.fromkeys(clients, FLOAT_BYTES * layout.size),
        download_bytes=dict.fromkeys(clients, 0),
        seconds={},
        verdict=f"no encryption: the server sees what each of {len(clients)} clients has.",
        length=layout.size,
        vector_bytes=FLOAT_BYTES * layout.size,
    )


def _common_layout(vectors: Updates) -> Layout:
    """The layout of the first client's vectors, if it is that of all."""
    if not vectors:
        raise InputError("there is no client to average")
    shapes = {client: {name: tuple(one.shape) for name, one in named.items()} for client, named in vectors.items()}
    first = next(iter(shapes.values()))
    for client, own in shapes.items():
        if own != first:
            message = f"client {client}: its vectors differ in names or shapes from those of the first client"
            raise LayoutMismatchError(message, culprits=[client])
    layout = [Tensor(name, shape, "float64") for name, shape in first.items()]
    if not sum(tensor.size for tensor in layout):
        raise InputError("there is nothing to average")
    return Layout(tuple(layout))
