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
from typing import TYPE_CHECKING, Protocol

import numpy as np

from secagg.prg import PIECE, Stream, buffer_for, check_masks, derive
from secagg.ring import Ring
from secagg.transcript import id_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from secagg.ring import Words

CHECKS = 2
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

    def apply(self, masks: Sequence[MaskKey]) -> None:
        """Adds streams, or takes them off, to vector and checksums."""
        self.apply_to_vector(masks)
        for mask in masks:
            self.apply_to_checks(mask.sign, mask.key)

    def apply_to_vector(self, masks: Sequence[MaskKey]) -> None:
        """Adds streams, or takes them off, to the vector alone: all of them to one piece while that is in cache."""
        buffer = buffer_for(self.ring)
        streams = [Stream(mask.key, self.ring, mask.start, buffer) for mask in masks]
        for start in range(0, len(self.vector), PIECE):
            _add_streams(self.vector[start : start + PIECE], start, masks, streams)

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


class Checksums:
    """Both checksums of a vector whose integers come in order, piece by piece.

    Args:
        transcript: h2: fixes the coefficients.
        length: Places of the full vector.
        places: Those of them that the integers fill, (length,) bool, or None for all.
    """

    def __init__(self, transcript: bytes, length: int, places: NDArray[np.bool_] | None = None) -> None:
        self._coefficients = _coefficients(transcript, length, places)
        self._left = np.zeros((CHECKS, 0), np.uint64)
        self._sums = [0] * CHECKS

    def add(self, integers: NDArray[np.int64]) -> None:
        """Adds the next integers; no more than there are places."""
        values = integers.view(np.uint64)
        while len(values):
            if not self._left.shape[1]:
                self._left = next(self._coefficients)
            count = min(len(values), self._left.shape[1])
            for k, coefficients in enumerate(self._left[:, :count]):
                self._sums[k] += int(np.dot(coefficients, values[:count]))
            self._left, values = self._left[:, count:], values[count:]

    @property
    def sums(self) -> tuple[int, int]:
        """The two numbers, mod 2^64."""
        return self._sums[0] % _UINT64, self._sums[1] % _UINT64


def checksums(
    integers: NDArray[np.int64], transcript: bytes, places: NDArray[np.bool_] | None = None
) -> tuple[int, int]:
    """Both checksums of a whole vector.

    Args:
        integers: The vector, (number of chosen places,) int64.
        transcript: As ``Checksums``.
        places: As ``Checksums``.
    """
    both = Checksums(transcript, len(integers) if places is None else len(places), places)
    for start in range(0, len(integers), PIECE):
        both.add(integers[start : start + PIECE])
    return both.sums


def _coefficients(transcript: bytes, length: int, places: NDArray[np.bool_] | None) -> Iterator[NDArray[np.uint64]]:
    """Coefficients of the chosen places, of both checksums, some at a time: (2, some) uint64."""
    streams = [Stream(derive(transcript, "checksum", bytes([k])), Ring(32)) for k in range(CHECKS)]
    for start in range(0, length, PIECE):
        count = min(PIECE, length - start)
        chosen = slice(None) if places is None else _index(places[start : start + count])
        yield np.stack([stream.take(count)[chosen] for stream in streams], dtype=np.uint64)


class Integers(Protocol):
    """A vector whose integers are read in order."""

    def take(self, count: int) -> NDArray[np.int64]:
        """The next ``count`` integers, at most ``PIECE``."""


def hide(
    integers: Integers, length: int, ring: Ring, masks: Sequence[MaskKey], checks: Checksums
) -> tuple[bytes, bytes]:
    """A client's vector as it travels: read, masked and packed piece by piece, so that no piece leaves the cache.

    Args:
        integers: The vector.
        length: How many they are.
        ring: The ring.
        masks: All streams that hide it.
        checks: Takes the checksums, and has seen nothing yet.

    Returns:
        The packed vector, and the two checksums under the same masks, 8 bytes each, little-endian.
    """
    buffer, packed_pieces = buffer_for(ring), []
    streams = [Stream(mask.key, ring, mask.start, buffer) for mask in masks]
    for start in range(0, length, PIECE):
        piece = integers.take(min(PIECE, length - start))
        checks.add(piece)
        words = ring.wrap(piece)
        _add_streams(words, start, masks, streams)
        packed_pieces.append(ring.pack(words))
    hidden = Accumulator(ring, ring.zeros(0), checks.sums)
    for mask in masks:
        hidden.apply_to_checks(mask.sign, mask.key)
    return b"".join(packed_pieces), b"".join(number.to_bytes(8, "little") for number in hidden.checks)


def _add_streams(piece: Words, start: int, masks: Sequence[MaskKey], streams: Sequence[Stream]) -> None:
    """Adds what each stream has for one piece of a vector, which begins at ``start``, or takes it off."""
    for mask, stream in zip(masks, streams, strict=True):
        combine = np.add if mask.sign > 0 else np.subtract
        chosen = _chosen(mask.places, start, len(piece)) if mask.places else None
        if chosen is None:
            combine(piece, stream.take(len(piece)), out=piece)
        elif len(drawn := stream.take(int(np.count_nonzero(chosen)))):
            index = _index(chosen)
            piece[index] = combine(piece[index], drawn)
