"""What a session of a given size will be like: its wiring, its bytes and its seconds, before anybody is asked."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from secagg import field, masking, messages, shamir
from secagg.declaration import FULL
from secagg.errors import ParameterError
from secagg.identity import Directory, Identity
from secagg.keys import KeyPair, seal, unseal
from secagg.prg import KEY_BYTES
from secagg.ring import Ring
from secagg.session import ID_BYTES
from secagg.topology import Topology, topology

if TYPE_CHECKING:
    from collections.abc import Callable

    from secagg.messages import Message
    from secagg.params import Mode, Params

TRIES = 5
"""Times that each operation is measured; the fastest counts."""

SAMPLE = 1 << 18
"""Most coordinates of a measured mask; the cost of more is in proportion."""


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """A session in which everybody holds everything and nobody drops out, but for the server's seconds per dropout.

    Args:
        clients: Clients that advertise keys, n.
        coordinates: Length of the vector, d.
        mode: Of the session.
        adversary: Against whom.
        topology: Neighbours, share threshold and, for a sparse graph, its failure probabilities.
        max_dropouts: Dropouts after ShareKeys that the session survives, D.
        smallest_sum: Fewest honest survivors in any released sum.
        ring_bits: Width of a coordinate on the wire.
        upload_bytes: Message to the bytes that one client sends.
        download_bytes: Message to the bytes that one client receives.
        client_seconds: Computation of one client in the whole session, on this machine, with one thread.
        server_seconds_per_dropout: To take one dropout's masks out of the sum, likewise.
    """

    clients: int
    coordinates: int
    mode: Mode
    adversary: str
    topology: Topology
    max_dropouts: int
    smallest_sum: int
    ring_bits: int
    upload_bytes: dict[str, int]
    download_bytes: dict[str, int]
    client_seconds: float
    server_seconds_per_dropout: float

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        wired = self.topology
        graph = "everybody" if wired.failures is None else f"{wired.degree} of them, chosen at random"
        lines = [
            f"{self.clients} clients, {self.coordinates:,} coordinates, {self.mode}, {self.adversary} server",
            f"  neighbours of a client       {graph}",
            f"  shares that rebuild a secret {wired.threshold} of {wired.degree + 1}",
            f"  dropouts after ShareKeys     up to {self.max_dropouts}",
            f"  smallest sum released        {self.smallest_sum} honest clients",
        ]
        if wired.failures is not None:
            lines += [
                f"  a part's sum opens           with probability 2^{wired.failures.split:.1f}",
                f"  a client's secrets open      with probability 2^{wired.failures.opened:.1f}",
                f"  the round aborts             with probability 2^{wired.failures.starved:.1f}",
            ]
        lines += [
            f"  ring                         {self.ring_bits} bits a coordinate",
            f"  a client sends               {sum(self.upload_bytes.values()):,} bytes",
            f"  a client receives            {sum(self.download_bytes.values()):,} bytes",
            f"  a client computes            {self.client_seconds:.3f} s",
            f"  the server, per dropout      {self.server_seconds_per_dropout:.3f} s",
        ]
        return "\n".join(lines)


def expect(params: Params, clients: int, coordinates: int, mode: Mode = "uniform") -> Expectation:
    """See ``Params.expect``."""
    if coordinates < 1:
        raise ParameterError(f"coordinates must be at least 1, not {coordinates}")
    wired = topology(params, mode, clients)
    ring = Ring.holding(clients * params.magnitude)
    up, down = _messages(params, clients, wired, ring.nbytes(coordinates))
    client, server = _seconds(params, clients, wired, ring, coordinates)
    return Expectation(
        clients=clients,
        coordinates=coordinates,
        mode=mode,
        adversary=params.adversary,
        topology=wired,
        max_dropouts=params.dropouts_tolerated(clients, wired.threshold),
        smallest_sum=params.min_cohort,
        ring_bits=ring.bits,
        upload_bytes=_sizes(up),
        download_bytes=_sizes(down),
        client_seconds=client,
        server_seconds_per_dropout=server,
    )


def _sizes(sent: list[Message]) -> dict[str, int]:
    return {type(message).__name__: len(messages.encode(message)) for message in sent}


def _messages(params: Params, clients: int, wired: Topology, vector: int) -> tuple[list[Message], list[Message]]:
    """All messages of one client, with the right numbers of parts and ids as long as they get."""
    session, id_, key = bytes(ID_BYTES), clients, bytes(32)
    signature = bytes(64) if params.active else None
    sealed = (messages.SealedShares(id_, id_, bytes(114), key, key, signature),) * wired.degree
    revealed = (messages.RevealedShare(id_, bytes(field.ELEMENT_BYTES), bytes(16)),) * (wired.degree + 1)
    signatures = (bytes(64),) * clients if params.active else ()
    survivors = bytes(-(-clients // 8))
    quorum = (messages.Endorsement(id_, bytes(64)),) * params.quorum(clients)
    up: list[Message] = [
        messages.AdvertiseKeys(session, id_, key, key),
        messages.ShareKeys(session, id_, key, key, key, FULL, None, key, sealed, signature),
        messages.MaskedInput(session, id_, bytes(16), bytes(vector), signature),
        messages.Unmask(session, id_, revealed),
    ]
    down: list[Message] = [
        messages.Roster(session, (messages.Member(id_, key, key),) * clients),
        messages.RelayedShares(session, (messages.Participant(id_, FULL, None),) * clients, sealed, signatures),
        messages.UnmaskRequest(session, survivors, quorum),
    ]
    if params.active:
        up.append(messages.ConsistencyCheck(session, id_, bytes(64)))
        down.append(messages.ConsistencyRequest(session, survivors, signatures))
    return up, down


def _seconds(params: Params, clients: int, wired: Topology, ring: Ring, coordinates: int) -> tuple[float, float]:
    """Computation of a client, and of the server for one dropout: operations counted, their times measured here."""
    sample = min(coordinates, SAMPLE)
    total = masking.Accumulator(ring, ring.zeros(sample))
    integers = np.zeros(sample, np.int64)
    one, other = KeyPair.generate(os.urandom), KeyPair.generate(os.urandom)
    identity = Identity.generate()
    directory = Directory({0: identity.public})
    signature = identity.sign(b"")
    box = seal(one.seed, bytes(98), b"")
    points = range(1, wired.degree + 2)
    k = wired.degree
    mask = _fastest(lambda: total.apply(masking.MaskKey(1, bytes(KEY_BYTES)))) * coordinates / sample
    check = _fastest(lambda: masking.checksums(integers, bytes(32))) * coordinates / sample
    agree = _fastest(lambda: one.agree(other.public))
    deal = _fastest(lambda: shamir.split(one.seed, wired.threshold, points, os.urandom))
    client = (k + 1) * mask + check + (3 * k + 2 * clients) * agree + 2 * deal  # each key is checked by agreeing
    client += k * (_fastest(lambda: seal(one.seed, bytes(98), b"")) + _fastest(lambda: unseal(one.seed, box, b"")))
    if params.active:
        verified = 2 * clients + k + params.quorum(clients)
        client += verified * _fastest(lambda: directory.check(0, signature, b""))
        client += (k + 3) * _fastest(lambda: identity.sign(b""))
    return client, k * (mask + agree)


def _fastest(operation: Callable[[], object]) -> float:
    def once() -> float:
        start = time.perf_counter()
        operation()
        return time.perf_counter() - start

    return min(once() for _ in range(TRIES))
