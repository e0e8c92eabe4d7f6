"""The server of a measured cohort, in a process of its own: it takes messages from a pipe, and keeps time."""

from __future__ import annotations

import copy
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from protocols.benchmark import memory
from protocols.benchmark.timing import spread, timed
from secagg import Server, lifting
from secagg.masking import MaskKey
from secagg.prg import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.connection import Connection

    from secagg import Session

CLOSE = b""
"""What the pipe carries where a round ends; no message is empty."""

REPEATS = 3
LONG = 20.0
"""Seconds after which taking masks off is measured no further."""

LAST = "Unmask"


class _Clock:
    """Wall and processor seconds of the server in one round: of each message, and of what came after the last."""

    def __init__(self) -> None:
        self._receive: list[float] = []
        self._last = self._processor = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs while the server works."""
        start, processor = time.perf_counter(), time.process_time()
        yield
        self._last, self._processor = time.perf_counter() - start, self._processor + time.process_time() - processor

    def received(self) -> None:
        """What ran last was a message."""
        self._receive.append(self._last)

    def to_json(self) -> dict[str, Any]:
        """Seconds of the messages, of closing the round, and of the processor for both."""
        return {
            "messages": len(self._receive),
            "receive": spread(self._receive),
            "received": sum(self._receive),
            "close": self._last,
            "processor": self._processor,
        }


def serve(pipe: Connection, session: Session, processes: int) -> None:
    """Plays the server of one session, then tells what that took.

    After each round it sends ``(clients, message)`` for every different message, and None. At the end it sends the
    sums as integers, and what was measured.

    Args:
        pipe: To the clients.
        session: The session.
        processes: With how many processes masks are taken off as well, for comparison; fewer than two for none.
    """
    before, server = memory.resident(), Server(session)
    rounds: dict[str, dict[str, Any]] = {}
    while (name := server.round.value) != LAST:
        clock = _received(pipe, server)
        with clock.running():
            outgoing = server.close_round()
        rounds[name] = clock.to_json()
        _send(pipe, outgoing)
    clock, ended = _received(pipe, server), copy.copy(server)
    with clock.running():
        ended.close_round()
    rounds[LAST] = clock.to_json()
    measured = {"rounds": rounds, "peak_bytes": memory.peak() - before}
    pipe.send((ended.outcome.integers, measured | _unmasking(server, processes)))


def _received(pipe: Connection, server: Server) -> _Clock:
    """Takes the messages of a round; the clock has run while it did."""
    clock = _Clock()
    while (data := pipe.recv_bytes()) != CLOSE:
        with clock.running():
            server.receive(data)
        clock.received()
    return clock


def _send(pipe: Connection, outgoing: Mapping[int, bytes]) -> None:
    """One message at a time, and one that goes to everybody once: what is sent takes no memory besides."""
    everybody = list(outgoing)
    while everybody:
        message = outgoing[everybody[0]]
        readers = [client for client in everybody if outgoing[client] is message]
        pipe.send((readers, message))
        alike = set(readers)
        everybody = [client for client in everybody if client not in alike]
    pipe.send(None)


def _unmasking(server: Server, processes: int) -> dict[str, Any]:
    """The last round closed again and again, here and with several processes by turns.

    ``at_best`` is how many times as much the processes do together as one of them alone, at the same time and with
    nothing to share: on a machine that has other work they are less than so many cores.
    """
    if processes < 2:
        return {}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as executor:
        before = max(executor.map(_settled, range(processes)))
        works: dict[str, Callable[[], object]] = {
            "1": lambda: copy.copy(server).close_round(),
            str(processes): lambda: copy.copy(server).close_round(executor),
        }
        best: dict[str, Callable[[], object]] = {
            "1": lambda: list(executor.map(_masks, range(1))),
            str(processes): lambda: list(executor.map(_masks, range(processes))),
        }
        seconds: dict[str, list[float]] = {name: [] for name in works}
        apart: dict[str, list[float]] = {name: [] for name in works}
        while len(seconds["1"]) < REPEATS and sum(map(sum, seconds.values())) < LONG:
            for name, work in works.items():
                seconds[name].append(timed(work, time.perf_counter))
                apart[name].append(timed(best[name], time.perf_counter))
        grown = max(executor.map(_peak, range(processes))) - before
    return {
        "unmask": {name: spread(one) for name, one in seconds.items()},
        "at_best": processes * spread(apart["1"])["median"] / spread(apart[str(processes)])["median"],
        "process_peak_bytes": grown,
    }


def _masks(_number: int) -> None:
    """Takes masks off nobody's vector."""
    lifting.summed(32, lifting.RANGE, [MaskKey(1, os.urandom(KEY_BYTES)) for _ in range(lifting.STREAMS)])


def _settled(_number: int) -> int:
    """Memory of a process of the pool that is up and has all its modules; others have the time to come up as well."""
    time.sleep(0.5)
    return memory.resident()


def _peak(_number: int) -> int:
    time.sleep(0.1)
    return memory.peak()
