"""A secure count: how many clients set each of a few bits, exactly, and nobody learns anybody's bits.

A uniform session whose values are zero or one, so that fixed point is exact and a bit takes two bytes among up to
32,767 clients. What the counts themselves say is for the caller to weigh: where all clients set a bit, or none does,
everybody's is known.

Signatures do not make the server add truthfully. One that does anything (``adversary="active"``) learns no more than
a sum over enough clients, but can announce counts of its own making; a client that acts upon them can be misled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from protocols.aggregators import FixedPoint, Uniform
from secagg.counts import bit_params
from secagg.declaration import Provenance
from secagg.errors import InputError, LayoutMismatchError
from secagg.layout import Layout, Tensor
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from protocols.aggregators import Client, Dropouts

_BITS = "bits"


@dataclass(frozen=True, eq=False)
class Tally:
    """What a secure count returns.

    Args:
        counts: Clients that set each bit, (bits,) int64, read-only.
        clients: Those that were counted, in order.
        upload_bytes: Client to bytes that it sent.
        download_bytes: Client to bytes that it received.
        seconds: Role and stage to seconds of computation, all clients together; empty without encryption.
        verdict: Who learned what, in a sentence.
        provenance: What the bits say something about.
    """

    counts: NDArray[np.int64]
    clients: tuple[Client, ...]
    upload_bytes: Mapping[Client, int]
    download_bytes: Mapping[Client, int]
    seconds: Mapping[str, float]
    verdict: str
    provenance: Provenance = Provenance.DATA

    @property
    def length(self) -> int:
        """Numbers that were added up."""
        return self.counts.size

    def __repr__(self) -> str:
        return f"Tally({self.verdict!r})"


def tally(
    bits: Mapping[Client, NDArray[np.bool_]],
    *,
    params: Params | None = None,
    dropouts: Dropouts | None = None,
    seed: bytes | None = None,
    encrypted: bool = True,
    provenance: Provenance = Provenance.DATA,
) -> Tally:
    """Counts, for each of a few bits, the clients that set it.

    Args:
        bits: Client to its bits, all equally many, (bits,) bool.
        params: The thresholds, as in any session; see ``bit_params`` for what else of them counts.
        dropouts: Client to the last stage of the session that it completes. Who leaves before its input arrived is
            not counted.
        seed: Makes the secrets of the session repeatable: for simulations, and a new one each session.
        encrypted: False counts the same in the clear, under the same thresholds.
        provenance: What the bits say something about: counts carry no noise, so those of data are not differentially
            private.

    Raises:
        InputError: No client, or no bit.
        LayoutMismatchError: Bits that are not bools, or not as many as the first client's.
        TooFewClientsError: Fewer clients than a threshold demands.
    """
    if not bits:
        raise InputError("there is no client to count")
    length = len(next(iter(bits.values())))
    if not length:
        raise InputError("there is no bit to count")
    for client, own in bits.items():
        if own.dtype != np.bool_ or own.shape != (length,):
            message = f"client {client}: {length} bits must be as many bools, not {own.dtype} of shape {own.shape}"
            raise LayoutMismatchError(message, culprits=[client])
    kind = Uniform if encrypted else FixedPoint
    aggregator = kind(Layout((Tensor(_BITS, (length,)),)), bit_params(params or Params()))
    updates = {client: {_BITS: torch.from_numpy(own.astype(np.float32))} for client, own in bits.items()}
    counted = aggregator.aggregate(updates, dropouts=dropouts, seed=seed)
    counts = np.rint(counted.vector * len(counted.survivors)).astype(np.int64)
    counts.setflags(write=False)
    return Tally(
        counts=counts,
        clients=counted.survivors,
        upload_bytes=counted.upload_bytes,
        download_bytes=counted.download_bytes,
        seconds=counted.seconds,
        verdict=counted.verdict,
        provenance=provenance,
    )
