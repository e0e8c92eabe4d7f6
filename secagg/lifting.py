"""Takes off a sum every mask that is still in it, here or on several cores.

The work is cut by streams and by ranges of the vector: a stream can be read from anywhere, so a range takes nothing
but the number of elements before it. A task returns the sum of its streams, which is small beside what it reads, so
cores share no memory, and any executor will do. Processes bring a gain; threads do not, as the cipher keeps the
interpreter to itself.
"""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - the annotation of a field
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from secagg.errors import ChecksumError
from secagg.masking import Accumulator, MaskKey
from secagg.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Executor

    from numpy.typing import NDArray

    from secagg.ring import Words

    Places = Callable[[int], NDArray[np.uint8]]
    Task = tuple[int, int, list[MaskKey]]

RANGE = 1 << 18
"""Coordinates of a task, a multiple of eight."""
STREAMS = 1024
"""Streams of a task."""


@dataclass(frozen=True)
class MaskLeft:
    """One stream in the sum.

    Args:
        sign: +1 to add the stream, -1 to take it off.
        key: Derives its key, 16 bytes; asked once, while other cores are at work.
        holders: It covers the places that all of these clients fill; without clients, all places.
    """

    sign: int
    key: Callable[[], bytes] = field(repr=False)
    holders: tuple[int, ...] = ()


def lift(
    total: Accumulator,
    masks: Iterable[MaskLeft],
    places_of: Places,
    *,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> None:
    """Adds streams to a sum and its checksums.

    Args:
        total: The sum; half done if an error comes through.
        masks: The streams.
        places_of: Client to the places that it fills, packed to a bit a place.
        executor: Where the streams are expanded; None for here.
        progress: Called with the tasks done and all tasks; an exception that it raises ends the work.

    Raises:
        ChecksumError: The executor returned something else than was asked of it.
    """
    left = list(masks)
    ranges = range(0, len(total.vector), RANGE)
    of = len(ranges) * -(-len(left) // STREAMS)
    for done, (start, words) in enumerate(_summed(total.ring, _tasks(left, ranges, total, places_of), executor), 1):
        piece = total.vector[start : start + RANGE]
        if not isinstance(words, np.ndarray) or words.dtype != piece.dtype or words.shape != piece.shape:
            raise ChecksumError("the executor returned no sum of masks")
        piece += words
        progress(done, of)


def summed(bits: int, length: int, masks: Sequence[MaskKey]) -> Words:
    """The sum of streams over a range of the vector: what a task does, wherever it does it.

    Args:
        bits: Of the ring.
        length: Of the range.
        masks: The streams, placed within the range.
    """
    ring = Ring(bits)
    partial = Accumulator(ring, ring.zeros(length))
    partial.apply_to_vector(masks)
    return partial.vector


def _tasks(masks: Sequence[MaskLeft], ranges: range, total: Accumulator, places_of: Places) -> Iterator[Task]:
    """Start and length of a range, and streams placed within it; what streams have for the checksums is added here."""
    left = iter(masks)
    while some := list(islice(left, STREAMS)):
        secrets = [mask.key() for mask in some]
        for mask, key in zip(some, secrets, strict=True):
            total.apply_to_checks(mask.sign, key)
        places = {client: places_of(client) for mask in some for client in mask.holders}
        read = [0] * len(some)
        for start in ranges:
            count = min(RANGE, len(total.vector) - start)
            # Clients with equal masks share one array, so that it travels once.
            parts = {id(one): one[start // 8 : (start + RANGE) // 8] for one in places.values()}
            keys = [
                MaskKey(mask.sign, key, tuple(parts[id(places[client])] for client in mask.holders), before)
                for mask, key, before in zip(some, secrets, read, strict=True)
            ]
            yield start, count, keys
            read = [before + _covered(key.places, count) for before, key in zip(read, keys, strict=True)]


def _covered(places: tuple[NDArray[np.uint8], ...], count: int) -> int:
    return int(np.bitwise_count(np.bitwise_and.reduce(places)).sum()) if places else count


def _summed(ring: Ring, tasks: Iterator[Task], executor: Executor | None) -> Iterator[tuple[int, Words]]:
    """Start of each range, and the sum of a task over it, in the order in which they are ready."""
    if executor is None:
        for start, length, masks in tasks:
            yield start, summed(ring.bits, length, masks)
        return
    waiting = {executor.submit(summed, ring.bits, length, masks): start for start, length, masks in tasks}
    try:
        for future in as_completed(set(waiting)):
            yield waiting.pop(future), future.result()
    finally:
        for future in waiting:
            future.cancel()
