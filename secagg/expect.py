"""What a session of a given size will be like: its wiring, its bytes and its seconds, before anybody is asked."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import structs

from secagg import dealing, masking, messages
from secagg.declaration import FULL
from secagg.errors import ParameterError
from secagg.identity import Directory, Identity
from secagg.keys import SEED_BYTES, KeyPair
from secagg.prg import KEY_BYTES
from secagg.session import ID_BYTES
from secagg.topology import Topology, topology

if TYPE_CHECKING:
    from collections.abc import Callable

    from secagg.messages import Message
    from secagg.params import Mode, Params
    from secagg.ring import Ring
    from secagg.states import HeldShares

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
    ring = params.ring(clients)
    up, down = _messages(params, clients, wired, ring.nbytes(coordinates))
    client, server = _seconds(params, clients, wired, ring, coordinates)
    return Expectation(
        clients=clients,
        coordinates=coordinates,
        mode=mode,
        adversary=params.adversary,
        topology=wired,
        max_dropouts=params.dropouts_tolerated(clients, wired.needed),
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
    session, id_, key, check = bytes(ID_BYTES), clients, bytes(32), bytes(16)
    signature = Identity.generate().sign(b"") if params.active else None
    signatures = () if signature is None else (signature,) * clients
    dealt = _deal(id_, wired)
    sealed = structs.replace(dealing.seal_shares(dealt, id_, key, key), signature=signature)
    survivors = messages.write_bitmap((), range(clients))
    quorum = tuple(messages.Endorsement(id_, one) for one in signatures[: wired.needed])
    up: list[Message] = [
        messages.AdvertiseKeys(session, id_, key, key, signature),
        messages.ShareKeys(session, id_, key, key, key, FULL, None, key, (sealed,) * wired.degree, signature),
        messages.MaskedInput(session, id_, check, bytes(vector), signature),
        messages.Unmask(session, id_, (dealt.self_seed,) * (wired.degree + 1)),
    ]
    down: list[Message] = [
        messages.Roster(session, (messages.Member(id_, key, key),) * clients, signatures),
        messages.RelayedShares(
            session, (messages.Participant(id_, FULL, None),) * clients, (sealed,) * wired.degree, signatures
        ),
        messages.UnmaskRequest(session, survivors, quorum),
    ]
    if signature is not None:
        up.append(messages.ConsistencyCheck(session, id_, signature))
        down.append(messages.ConsistencyRequest(session, survivors, signatures))
    return up, down


def _deal(dealer: int, wired: Topology) -> HeldShares:
    """The shares that a client deals to its first holder."""
    secrets = (bytes(SEED_BYTES), bytes(SEED_BYTES))
    points = {holder: 1 + holder for holder in range(wired.degree + 1)}
    return dealing.deal(dealer, secrets, wired.threshold, points, os.urandom)[0]


def _seconds(params: Params, clients: int, wired: Topology, ring: Ring, coordinates: int) -> tuple[float, float]:
    """Computation of a client, and of the server for one dropout: operations counted, their times measured here."""
    sample = min(coordinates, SAMPLE)
    total = masking.Accumulator(ring, ring.zeros(sample))
    integers = np.zeros(sample, np.int64)
    one, other = KeyPair.generate(os.urandom), KeyPair.generate(os.urandom)
    shares, secret, h1 = _deal(0, wired), bytes(32), bytes(32)
    sealed = dealing.seal_shares(shares, 0, secret, h1)
    identity = Identity.generate()
    directory = Directory({0: identity.public})
    signature = identity.sign(b"")
    k = wired.degree
    mask = _fastest(lambda: total.apply([masking.MaskKey(1, bytes(KEY_BYTES))])) * coordinates / sample
    check = _fastest(lambda: masking.checksums(integers, bytes(32))) * coordinates / sample
    agree = _fastest(lambda: one.agree(other.public))
    client = (k + 1) * mask + check + 3 * k * agree
    client += _fastest(lambda: _deal(0, wired))
    client += k * _fastest(lambda: dealing.seal_shares(shares, 0, secret, h1))
    client += k * _fastest(lambda: dealing.open_shares(sealed, secret, h1))
    if params.active:
        verified = 3 * clients + k + wired.needed
        client += verified * _fastest(lambda: directory.check(0, signature, b""))
        client += (k + 4) * _fastest(lambda: identity.sign(b""))
    return client, k * (mask + agree)


def _fastest(operation: Callable[[], object]) -> float:
    def once() -> float:
        start = time.perf_counter()
        operation()
        return time.perf_counter() - start

    return min(once() for _ in range(TRIES))
