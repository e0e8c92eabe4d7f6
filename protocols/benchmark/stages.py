"""One client of a cohort that is wired completely, stage by stage, and what the server does for one dropout."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import secagg
from protocols.benchmark.timing import alternating
from secagg import encoding, masking, messages, release, shamir
from secagg.keys import KeyPair
from secagg.prg import KEY_BYTES, PIECE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from secagg.masking import MaskKey

LEVELS = 2**20
DROPOUT = "server, per dropout"
CLIENT_STAGES = ("AdvertiseKeys", "ShareKeys", "MaskedInput", "Unmask")
PARTS = ("encode", "masks", "checksum", "pack")
"""What MaskedInput is made of, besides opening shares and the plan."""

_SEED = 0


@dataclass(frozen=True)
class Side:
    """One implementation: its stages in order, and the bytes of the messages that a client sends, by stage."""

    stages: Mapping[str, Callable[[], object]]
    upload_bytes: Callable[[], dict[str, int]]


def measure(coordinates: int, neighbours: int, repeats: int, *, beside_flower: bool) -> dict[str, Any]:
    """Seconds of every stage, and bytes: of this project, and of Flower's SecAgg+ functions in turn with it.

    Args:
        coordinates: Length of the vector, d.
        neighbours: Of the client, k; all others of the cohort.
        repeats: Times that each stage is measured.
        beside_flower: Whether Flower is measured.
    """
    update, params = update_of(coordinates), params_of(neighbours)
    sides = {"secagg": ours(update, neighbours)}
    if beside_flower:
        from protocols.benchmark import flower

        sides["flower"] = flower.functions(update, neighbours, LEVELS)
    works = {(name, stage): work for name, side in sides.items() for stage, work in side.stages.items()}
    taken = alternating({f"{name}\0{stage}": work for (name, stage), work in works.items()}, repeats)
    return {
        "clients": neighbours + 1,
        "neighbours": neighbours,
        "threshold": params.topology(neighbours + 1).threshold,
        "ring_bits": params.ring(neighbours + 1).bits,
        "coordinates": coordinates,
        "seconds": {name: {stage: taken[f"{name}\0{stage}"] for stage in side.stages} for name, side in sides.items()},
        "upload_bytes": {name: side.upload_bytes() for name, side in sides.items()},
    }


def params_of(neighbours: int) -> secagg.Params:
    """Settings with which all of ``neighbours + 1`` clients are neighbours."""
    return secagg.Params(levels=LEVELS, neighbours=neighbours + neighbours % 2)


def update_of(coordinates: int) -> NDArray[np.float32]:
    """An update as training makes them, (coordinates,) float32."""
    drawn = np.random.default_rng(_SEED).standard_normal(coordinates, np.float32)
    return drawn * np.float32(0.1)


def session_over(coordinates: int, params: secagg.Params) -> secagg.Session:
    """A uniform session over one vector."""
    layout = secagg.Layout((secagg.Tensor("weights", (coordinates,)),))
    return secagg.Session(id=os.urandom(16), params=params, layout=layout, mode="uniform")


def ours(update: NDArray[np.float32], neighbours: int) -> Side:
    """Client 0 among ``neighbours + 1`` clients, and the server."""
    session = session_over(update.size, params_of(neighbours))
    server = secagg.Server(session)
    clients = [secagg.Client(number, session) for number in range(neighbours + 1)]
    fresh, values = secagg.Client(0, session), {"weights": update}
    advertised = [client.advertise_keys() for client in clients]
    for message in advertised:
        server.receive(message)
    roster = server.close_round()[0]
    before = copy.copy(clients[0])
    shared = [client.share_keys(roster) for client in clients]
    for message in shared:
        server.receive(message)
    relayed = server.close_round()[0]
    masked = copy.copy(clients[0])
    vector = masked.masked_input(relayed, values)
    survivors = messages.write_bitmap(range(len(clients)), range(len(clients)))
    request = messages.encode(messages.UnmaskRequest(session.id, survivors))
    answer = copy.copy(masked).unmask(request)
    return Side(
        {
            "AdvertiseKeys": lambda: copy.copy(fresh).advertise_keys(),
            "ShareKeys": lambda: copy.copy(before).share_keys(roster),
            "MaskedInput": lambda: copy.copy(clients[0]).masked_input(relayed, values),
            "Unmask": lambda: copy.copy(masked).unmask(request),
            **_parts(session, relayed, values),
            DROPOUT: _removing_a_dropout(session, update.size, neighbours),
        },
        lambda: dict(zip(CLIENT_STAGES, map(len, (advertised[0], shared[0], vector, answer)), strict=True)),
    )


def _parts(
    session: secagg.Session, relayed: bytes, update: Mapping[str, NDArray[np.float32]]
) -> dict[str, Callable[[], object]]:
    """What MaskedInput does with the vector, one thing after the other."""
    message = messages.decode(relayed)
    if not isinstance(message, messages.RelayedShares):
        raise TypeError(type(message).__name__)
    plan = release.Plan(session, 2, message.participants)
    own, h2 = np.ones(session.layout.size, bool), bytes(32)
    integers = encoding.encode_update(plan, 0, update, own, None).take(plan.length)
    words = plan.ring.wrap(integers)
    hidden = masking.Accumulator(plan.ring, words.copy())

    def encode() -> None:
        encoding.check_update(session.layout, session.params, update, own)
        encoded = encoding.encode_update(plan, 0, update, own, None)
        for start in range(0, plan.length, PIECE):
            plan.ring.wrap(encoded.take(min(PIECE, plan.length - start)))

    works: tuple[Callable[[], object], ...] = (
        encode,
        lambda: hidden.apply(_mask_keys(len(plan.clients))),
        lambda: masking.checksums(integers, h2),
        lambda: plan.ring.pack(words),
    )
    return dict(zip(PARTS, works, strict=True))


def _mask_keys(count: int) -> list[MaskKey]:
    return [masking.MaskKey(1, os.urandom(KEY_BYTES)) for _ in range(count)]


def _removing_a_dropout(session: secagg.Session, coordinates: int, neighbours: int) -> Callable[[], None]:
    """Rebuilds the masking key of a client that is gone, and takes its masks with all neighbours off a sum."""
    ring = session.params.ring(neighbours + 1)
    total = masking.Accumulator(ring, ring.zeros(coordinates))
    lost, holders = KeyPair.generate(os.urandom), neighbours + 1
    threshold = holders // 2 + 1
    dealt = shamir.split(lost.seed, threshold, range(1, holders + 1), os.urandom)
    known = dict(list(dealt.items())[:threshold])
    publics = [KeyPair.generate(os.urandom).public for _ in range(neighbours)]

    def once() -> None:
        rebuilt = KeyPair(shamir.rebuild(known))
        keys = (masking.pairwise_key(rebuilt.agree(public), bytes(32), 0, 1 + i) for i, public in enumerate(publics))
        total.apply([masking.MaskKey(-1, key) for key in keys])

    return once
