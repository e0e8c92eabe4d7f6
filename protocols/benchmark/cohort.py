"""A whole session whose server is a process of its own, so that memory and processor time are the server's alone."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np

import secagg
from protocols.benchmark.cohort_server import CLOSE, serve
from protocols.benchmark.stages import LEVELS, session_over, update_of
from protocols.benchmark.timing import spread
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray

    Say = Callable[[str], None]

LEAVING = 120.0
"""Seconds that a server is waited for when it has told everything."""


@dataclass(frozen=True)
class Size:
    """A cohort.

    Args:
        clients: How many, n.
        coordinates: Length of the vector, d.
        neighbours: Of each client, k; None for what suits that many clients.
        dropped: Share that drops out between ShareKeys and MaskedInput.
    """

    clients: int
    coordinates: int
    neighbours: int | None = None
    dropped: float = 0.1

    @property
    def params(self) -> secagg.Params:
        """Settings that bear the dropouts, and one client in twenty that colludes."""
        lost, corrupt = round(self.dropped * self.clients), self.clients // 20
        return secagg.Params(max_dropouts=lost, corrupt=corrupt, neighbours=self.neighbours, levels=LEVELS)

    @property
    def lost(self) -> frozenset[int]:
        """Who drops out: as many as there may, at even distances."""
        count = round(self.dropped * self.clients)
        return frozenset(number * self.clients // count for number in range(count))


def measure(size: Size, processes: int, say: Say = lambda _: None) -> dict[str, Any]:
    """Plays a session and tells what it took: seconds by round and role, the server's memory, bytes of a client.

    Args:
        size: Of the cohort.
        processes: With how many processes the server takes masks off as well; fewer than two for none.
        say: Told the round that begins.

    Raises:
        ParameterError: No session of this size is possible.
    """
    session, wired = session_over(size.coordinates, size.params), size.params.topology(size.clients)
    if size.clients - len(size.lost) < wired.needed:
        raise ParameterError(f"{size.clients} clients do not survive {len(size.lost)} dropouts: lower the share")
    cohort = _Cohort(size, session)
    with _server(session, processes) as pipe:
        cohort.play(pipe, say)
        say("taking masks off")
        integers, measured = pipe.recv()
    return {
        "clients": size.clients,
        "neighbours": wired.degree,
        "threshold": wired.threshold,
        "coordinates": size.coordinates,
        "dropped": len(size.lost),
        "ring_bits": size.params.ring(size.clients).bits,
        "exact": bool(np.array_equal(integers, cohort.expected)),
        "client": {name: spread(times) for name, times in cohort.seconds.items()},
        "upload_bytes": {name: max(sent) for name, sent in cohort.sent.items()},
        "download_bytes": {name: max(read) for name, read in cohort.read.items()},
        "server": measured,
    }


def after_last_upload(measured: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of the server from the last masked vector to the sums, in one process, and those of its processor.

    Args:
        measured: What ``measure`` returned.
    """
    upload, last = (measured["server"]["rounds"][name] for name in ("MaskedInput", "Unmask"))
    return {
        "close MaskedInput": upload["close"],
        "receive Unmask": last["received"],
        "close Unmask": last["close"],
        "total": upload["close"] + last["received"] + last["close"],
        "processor": last["processor"],
    }


class _Cohort:
    """The clients of a session, one after the other, and the sum that is to come out.

    A client that has sent its vector is kept as bytes: it holds the plan, which is as long as the vector.
    """

    def __init__(self, size: Size, session: secagg.Session) -> None:
        self._size, self._session = size, session
        self._clients = {number: secagg.Client(number, session) for number in range(size.clients)}
        self._saved: dict[int, bytes] = {}
        self._update = update_of(size.coordinates)
        self.expected: NDArray[np.int64] = np.zeros(size.coordinates, np.int64)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.sent: dict[str, list[int]] = defaultdict(list)
        self.read: dict[str, list[int]] = defaultdict(list)

    def play(self, pipe: Connection, say: Say) -> None:
        """All rounds; the server has what it needs for the sums afterwards."""
        clients, lost = self._clients, self._size.lost
        for client in clients:
            self._answer(pipe, "AdvertiseKeys", clients[client].advertise_keys)
        say("ShareKeys")
        for client, roster in _next_round(pipe):
            self._answer(pipe, "ShareKeys", partial(clients[client].share_keys, roster), roster)
        say("MaskedInput")
        for client, relayed in _next_round(pipe):
            if client not in lost:
                update = {"weights": self._update_of(client)}
                self._answer(pipe, "MaskedInput", partial(clients[client].masked_input, relayed, update), relayed)
                self._saved[client] = clients[client].save()
            del clients[client]
        say("Unmask")
        for client, request in _next_round(pipe):
            restored = secagg.Client.restore(self._session, self._saved.pop(client))
            self._answer(pipe, "Unmask", partial(restored.unmask, request), request)
        pipe.send_bytes(CLOSE)

    def _answer(self, pipe: Connection, name: str, answer: Callable[[], bytes], received: bytes = b"") -> None:
        start = time.process_time()
        sent = answer()
        self.seconds[name].append(time.process_time() - start)
        self.sent[name].append(len(sent))
        self.read[name].append(len(received))
        pipe.send_bytes(sent)

    def _update_of(self, client: int) -> NDArray[np.float32]:
        """Every client's is another, the same numbers scaled; it is in the sum that is expected."""
        update = self._update * np.float32(1 - client / (2 * self._size.clients))
        params = self._session.params
        scaled = update.astype(np.float64) * (params.magnitude / params.range_of("weights"))
        self.expected += np.rint(scaled).astype(np.int64)
        return update


def _next_round(pipe: Connection) -> list[tuple[int, bytes]]:
    """Ends a round, and reads the pipe to its end before anybody answers."""
    pipe.send_bytes(CLOSE)
    inbox = list(iter(pipe.recv, None))
    return [(client, message) for readers, message in inbox for client in readers]


@contextmanager
def _server(session: secagg.Session, processes: int) -> Iterator[Connection]:
    """A pipe to the server, in a process that has been started for it."""
    context = get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, session, processes))
    process.start()
    theirs.close()
    try:
        yield pipe
        process.join(LEAVING)
    finally:
        process.kill()
        process.join()
        pipe.close()
