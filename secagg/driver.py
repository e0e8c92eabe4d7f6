"""A whole session in memory: the protocol as readable prose, and the reference for anyone who brings a network."""

from __future__ import annotations

import enum
import os
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from secagg.client import Client
from secagg.errors import ParameterError, SecAggError
from secagg.identity import introduce
from secagg.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from secagg.aggregate import Aggregate
    from secagg.declaration import Declaration
    from secagg.ledger import Ledger
    from secagg.session import Session


class Stage(enum.IntEnum):
    """The last round that a client completes before it drops out."""

    NONE = 0
    ADVERTISE_KEYS = 1
    SHARE_KEYS = 2
    MASKED_INPUT = 3
    CONSISTENCY_CHECK = 4
    UNMASK = 5

    @classmethod
    def of(cls, name: Stage | str) -> Stage:
        """A stage, or the one of that name: ``"MaskedInput"``, ``"masked_input"`` and ``"MASKED_INPUT"`` are one.

        Raises:
            ParameterError: No such stage.
        """
        if isinstance(name, Stage):
            return name
        for stage in cls:
            if str(name).replace("_", "").lower() == stage.name.replace("_", "").lower():
                return stage
        raise ParameterError(f"no stage {name!r}: use one of {', '.join(stage.name for stage in cls)}")


@dataclass(frozen=True, eq=False)
class Contribution:
    """What one client brings to a session.

    Args:
        update: Tensor name to values.
        mask: Coordinates that it holds: a declaration or (layout.size,) bools; None for all of them.
        weight: Its weight, if the session is weighted.
    """

    update: Mapping[str, ArrayLike]
    mask: Declaration | NDArray[np.bool_] | None = None
    weight: float | None = None


@dataclass
class Traffic:
    """What a session cost: bytes on the wire by client, seconds of computation by stage and role."""

    upload_bytes: Counter[int] = field(default_factory=Counter)
    download_bytes: Counter[int] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, other: Traffic, prefix: str = "") -> None:
        """Adds what another session cost, its stages named with a prefix."""
        self.upload_bytes.update(other.upload_bytes)
        self.download_bytes.update(other.download_bytes)
        self.seconds.update({prefix + stage: seconds for stage, seconds in other.seconds.items()})

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time spent inside to ``seconds[stage]``."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, eq=False)
class Played:
    """A session that ended: its result, what it cost, and the share of values that saturation clipped by client."""

    aggregate: Aggregate
    traffic: Traffic
    clipped_share: Mapping[int, float]


def run(
    session: Session,
    contributions: Mapping[int, Contribution],
    last_stage: Mapping[int, Stage] | None = None,
    *,
    ledgers: Mapping[int, Ledger] | None = None,
    entropy_of: Callable[[int], Callable[[int], bytes]] = lambda _: os.urandom,
    observe: Callable[[bytes], None] = lambda _: None,
) -> Played:
    """Plays a session in which clients may drop out. With an active server, everybody pins fresh identities.

    Args:
        session: What all parties agree on.
        contributions: What each client brings, by client id.
        last_stage: The last round that a client completes, for those that drop out.
        ledgers: What clients remember of their sessions, for those that do. Those that drop out after MaskedInput keep
            the session as ``Ledger.pending``; one that breaks off is abandoned.
        entropy_of: Source of random bytes of each client.
        observe: Called with every message on the wire, in order.

    Raises:
        SecAggError: As ``Client`` and ``Server``; nothing is released then, but ``opened`` says whether the server may
            have seen the sum.
    """
    traffic = Traffic()
    entropy = {id_: entropy_of(id_) for id_ in sorted(contributions)}
    identities, pinned = introduce(session.params, entropy)
    clients = {
        id_: Client(id_, session, identities.get(id_), pinned, ledger=(ledgers or {}).get(id_), entropy=source)
        for id_, source in entropy.items()
    }
    server = Server(session, clients, pinned)

    def play(stage: Stage, answer: Callable[[int, bytes], bytes], inbox: Mapping[int, bytes]) -> dict[int, bytes]:
        """Each client that is still there gets its message and answers it; then the server closes the round."""
        name = stage.name.lower()
        for id_, received in inbox.items():
            if (last_stage or {}).get(id_, Stage.UNMASK) < stage:
                continue
            traffic.download_bytes[id_] += len(received)
            with traffic.timed(f"client {name}"):
                sent = answer(id_, received)
            traffic.upload_bytes[id_] += len(sent)
            observe(sent)
            with traffic.timed(f"server {name}"):
                server.receive(sent)
        with traffic.timed(f"server {name}"):
            outgoing = server.close_round()
        for message in outgoing.values():
            observe(message)
        return outgoing

    def share_keys(id_: int, roster: bytes) -> bytes:
        return clients[id_].share_keys(roster, contributions[id_].mask, contributions[id_].weight)

    def masked_input(id_: int, relayed: bytes) -> bytes:
        return clients[id_].masked_input(relayed, contributions[id_].update)

    rosters = play(Stage.ADVERTISE_KEYS, lambda id_, _: clients[id_].advertise_keys(), dict.fromkeys(clients, b""))
    relayed = play(Stage.SHARE_KEYS, share_keys, rosters)
    with _abandoned_if_it_breaks_off(session, ledgers or {}):
        requests = play(Stage.MASKED_INPUT, masked_input, relayed)
        if session.params.active:
            requests = play(
                Stage.CONSISTENCY_CHECK, lambda id_, request: clients[id_].check_consistency(request), requests
            )
        try:
            play(Stage.UNMASK, lambda id_, request: clients[id_].unmask(request), requests)
        except SecAggError as error:
            error.opened, error.event = True, server.event
            raise
    return Played(server.outcome, traffic, {id_: client.clipped_share for id_, client in clients.items()})


@contextmanager
def _abandoned_if_it_breaks_off(session: Session, ledgers: Mapping[int, Ledger]) -> Iterator[None]:
    """Within one process it is known that nothing was released then. A client that only has the server's word waits."""
    try:
        yield
    except SecAggError:
        for ledger in ledgers.values():
            ledger.abandon(session.id)
        raise
