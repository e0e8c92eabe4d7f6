"""Times of work that is repeated: median, and fastest, which is nearer to the work's own cost on a busy machine.

Work of one thread is told in seconds of its processor, as ``openssl speed`` tells it: on a quiet machine that is what
passes on the wall, and on a busy one it leaves out what others took.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Spread: TypeAlias = dict[str, float]
"""``median`` and ``fastest``, in seconds."""

KINDS = ("median", "fastest")


def spread(seconds: Iterable[float]) -> Spread:
    """Median and fastest of some times."""
    times = list(seconds)
    return {"median": statistics.median(times), "fastest": min(times)}


def timed(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds that some work takes once."""
    start = clock()
    work()
    return clock() - start


def alternating(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Spread]:
    """Times of several works that take turns, so that a slow moment of the machine meets all of them.

    Args:
        works: Name to what is to be measured; once more than is counted, to warm up.
        repeats: Times that each is measured.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            took = timed(work)
            if repeat:
                seconds[name].append(took)
    return {name: spread(times) for name, times in seconds.items()}
