"""Masks: what hides an encoded vector, and how it comes off again.

A client adds one stream of its own (self mask) and one for each neighbour (pairwise mask), the latter with opposite
signs at its two ends (Bonawitz et al., CCS 2017, section 4). Each stream covers only places that matter: the self
mask those that the client fills, a pairwise mask those that both ends fill, in canonical order. So pairwise masks
cancel place by place however the vectors differ, and a client with a quarter of the places does a quarter of the
work.

The two checksums ride along: z = sum of r_c * x_c mod 2^64 over the client's places, for two public vectors r of 32
bits a place. Their sums must equal the same combination of the released sums. For rings of up to 32 bits a wrong sum
passes with probability 2^-64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from secagg.prg import PIECE, Stream, buffer_for, check_masks, derive
from secagg.ring import Ring
from secagg.transcript import id_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from secagg.ring import Words

CHECKS = 2
STREAMS_AT_ONCE = 64
"""Streams that are added to one piece of a vector before the next: what they need in memory is one key schedule each,
and where masks differ the places of their clients, a bit a coordinate."""
_UINT64 = 2**64


@dataclass(frozen=True)
class Term:
    """One stream in a client's masked vector.

    Args:
        sign: +1 or -1.
        peer: The neighbour at the other end, or None for the self mask.
    """

    sign: int
    peer: int | None


def terms(client: int, neighbours: Collection[int]) -> Iterator[Term]:
    """The streams that hide a client's vector: its self mask, and one for each neighbour, signed by order of id."""
    yield Term(1, None)
    for peer in sorted(neighbours):
        yield Term(1 if client < peer else -1, peer)


@dataclass(frozen=True)
class MaskKey:
    """The key of one stream, with the places that it covers.

    Args:
        sign: +1 to add the stream, -1 to take it off.
        key: 16 bytes.
        places: The stream covers those places of the vector at hand that are in all of these sets, each packed to a bit
            a place (``np.packbits``); without a set, all of them.
        start: Elements of the stream that belong before the vector at hand.
    """

    sign: int
    key: bytes = field(repr=False)
    places: tuple[NDArray[np.uint8], ...] = field(default=(), repr=False)
    start: int = 0


def packed(places: NDArray[np.bool_] | None) -> tuple[NDArray[np.uint8], ...]:
    """One set of places for ``MaskKey``; None for all of them."""
    return () if places is None else (np.packbits(places),)


def self_key(seed: bytes, transcript: bytes) -> bytes:
    """Stream key of a self mask."""
    return derive(seed, "self mask", transcript)


def pairwise_key(agreed: bytes, transcript: bytes, one: int, other: int) -> bytes:
    """Stream key of a pairwise mask, the same at both ends."""
    return derive(agreed, "pairwise mask", transcript, id_bytes(min(one, other)), id_bytes(max(one, other)))


class Accumulator:
    """A vector of ring elements and its two checksums, to which masks are added.

    Args:
        ring: The ring.
        vector: Elements; changed in place.
        checks: Two numbers mod 2^64.
    """

    def __init__(self, ring: Ring, vector: Words, checks: tuple[int, int] = (0, 0)) -> None:
        self.ring = ring
        self.vector = vector
        self.checks = checks

    def apply(self, masks: Iterable[MaskKey]) -> None:
        """Adds streams, or takes them off, to vector and checksums."""
        left = iter(masks)
        while some := list(islice(left, STREAMS_AT_ONCE)):
            self.apply_to_vector(some)
            for mask in some:
                self.apply_to_checks(mask.sign, mask.key)

    def apply_to_vector(self, masks: Sequence[MaskKey]) -> None:
        """Adds streams, or takes them off, to the vector alone: all of them to one piece while that is in cache."""
        buffer = buffer_for(self.ring)
        streams = [Stream(mask.key, self.ring, mask.start, buffer) for mask in masks]
        for start in range(0, len(self.vector), PIECE):
            piece = self.vector[start : start + PIECE]
            for mask, stream in zip(masks, streams, strict=True):
                combine = np.add if mask.sign > 0 else np.subtract
                chosen = _chosen(mask.places, start, len(piece)) if mask.places else None
                if chosen is None:
                    combine(piece, stream.take(len(piece)), out=piece)
                elif len(drawn := stream.take(int(np.count_nonzero(chosen)))):
                    index = _index(chosen)
                    piece[index] = combine(piece[index], drawn)

    def apply_to_checks(self, sign: int, key: bytes) -> None:
        """Adds what a stream has for the checksums, or takes it off."""
        self.add_checks(sign, check_masks(key))

    def add_packed(self, vector: bytes, check: bytes, places: NDArray[np.bool_]) -> None:
        """Adds a vector as it travels. What is in the sum cannot be taken out again, so it is checked whole before.

        Args:
            vector: Packed.
            check: Its two checksums, 8 bytes each, little-endian.
            places: Which places it fills, (length,) bool.

        Raises:
            DecodingError: A vector of another length.
        """
        words, taken = self.ring.unpack(vector, int(np.count_nonzero(places))), 0
        for start in range(0, len(self.vector), PIECE):
            piece, chosen = self.vector[start : start + PIECE], places[start : start + PIECE]
            count = int(np.count_nonzero(chosen))
            piece[slice(None) if count == len(piece) else _index(chosen)] += words[taken : taken + count]
            taken += count
        self.add_checks(1, (int.from_bytes(check[:8], "little"), int.from_bytes(check[8:], "little")))

    def add_checks(self, sign: int, checks: tuple[int, int]) -> None:
        """Adds to the checksums."""
        first, second = ((mine + sign * theirs) % _UINT64 for mine, theirs in zip(self.checks, checks, strict=True))
        self.checks = (first, second)


def _chosen(places: tuple[NDArray[np.uint8], ...], start: int, count: int) -> NDArray[np.bool_] | None:
    """The places of one piece that are in all of these sets, (count,) bool; None where that is all of them."""
    packed = np.bitwise_and.reduce([one[start // 8 : (start + PIECE) // 8] for one in places])
    chosen = np.unpackbits(packed, count=count).view(np.bool_)
    return None if chosen.all() else chosen


def _index(chosen: NDArray[np.bool_]) -> NDArray[np.bool_] | NDArray[np.intp]:
    """What numpy reads these places with soonest: bools where they come in long runs, else their numbers."""
    runs = np.count_nonzero(chosen[1:] != chosen[:-1])
    return chosen if 16 * runs < len(chosen) else np.flatnonzero(chosen)


def checksums(
    integers: NDArray[np.int64], transcript: bytes, places: NDArray[np.bool_] | None = None
) -> tuple[int, int]:
    """Both checksums of a vector.

    Args:
        integers: The vector, (number of chosen places,) int64.
        transcript: h2: fixes the coefficients.
        places: The places of the full vector that ``integers`` fills, (length,) bool, or None for all of them.
    """
    length = len(integers) if places is None else len(places)
    streams = [Stream(derive(transcript, "checksum", bytes([k])), Ring(32)) for k in range(CHECKS)]
    sums, taken = [0] * CHECKS, 0
    for start in range(0, length, PIECE):
        stop = min(start + PIECE, length)
        chosen = None if places is None else places[start:stop]
        count = stop - start if chosen is None else int(np.count_nonzero(chosen))
        values = integers[taken : taken + count].view(np.uint64)
        taken += count
        for k, stream in enumerate(streams):
            drawn = stream.take(stop - start)
            coefficients = drawn if chosen is None else drawn[chosen]
            sums[k] += int(np.dot(coefficients.astype(np.uint64), values))
    return sums[0] % _UINT64, sums[1] % _UINT64
