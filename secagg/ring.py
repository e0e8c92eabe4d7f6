"""Arithmetic in Z_{2^b} on vectors, and its packed form on the wire.

Elements live in the machine word that holds them and are reduced when packed: reduction mod 2^b is a ring
homomorphism from Z_{2^w}, so nothing is lost on the way, and a ring of 24 bits adds at the speed of one of 32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodingError, ParameterError

Words: TypeAlias = NDArray[np.unsignedinteger[Any]]

_word_of_bits: dict[int, np.dtype[Any]] = {
    16: np.dtype("<u2"),
    24: np.dtype("<u4"),
    32: np.dtype("<u4"),
    64: np.dtype("<u8"),
}


@dataclass(frozen=True)
class Ring:
    """The integers modulo 2^bits.

    Args:
        bits: 16, 24, 32 or 64.

    Raises:
        ParameterError: Any other width.
    """

    bits: int

    def __post_init__(self) -> None:
        if self.bits not in _word_of_bits:
            raise ParameterError(f"a ring of {self.bits} bits is not offered: use one of {sorted(_word_of_bits)}")

    @classmethod
    def holding(cls, largest: int) -> Ring:
        """The narrowest ring in which every integer of magnitude up to ``largest`` has its own element.

        Raises:
            ParameterError: Not even 64 bits suffice.
        """
        for bits in sorted(_word_of_bits):
            if largest <= (ring := cls(bits)).largest:
                return ring
        raise ParameterError("the sum would overflow 64 bits: lower levels")

    @property
    def largest(self) -> int:
        """The largest integer that has an element of its own, and its negative too."""
        return (1 << (self.bits - 1)) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Machine word of an element: little-endian, unsigned, at least ``bits`` wide."""
        return _word_of_bits[self.bits]

    def nbytes(self, count: int) -> int:
        """Length in bytes of ``count`` packed elements."""
        return count * (self.bits // 8)

    def zeros(self, count: int) -> Words:
        """A vector of ``count`` zeros."""
        return np.zeros(count, self.dtype)

    def wrap(self, integers: NDArray[np.int64]) -> Words:
        """Signed integers as ring elements (two's complement)."""
        return integers.astype(self.dtype)

    def centred(self, words: Words) -> NDArray[np.int64]:
        """Ring elements as the signed integers of least magnitude, int64."""
        unused = 64 - self.bits
        return (words.astype(np.uint64) << np.uint64(unused)).view(np.int64) >> np.int64(unused)

    def pack(self, words: Words) -> bytes:
        """Elements as ``nbytes(len(words))`` little-endian bytes, reduced mod 2^bits."""
        return _pack24(words) if self.bits == 24 else words.astype(self.dtype, copy=False).tobytes()

    def unpack(self, data: bytes, count: int) -> Words:
        """The ``count`` elements in ``data``, read-only where no copy was needed.

        Raises:
            DecodingError: ``data`` has another length than ``nbytes(count)``.
        """
        if len(data) != self.nbytes(count):
            raise DecodingError(f"a vector of {count} elements takes {self.nbytes(count)} bytes, not {len(data)}")
        return _unpack24(data, count) if self.bits == 24 else np.frombuffer(data, self.dtype)


def _pack24(words: Words) -> bytes:
    """Elements of four bytes, each written over the unused byte of the one before: as fast as memory.

    numpy copies one dimension from its first element to its last. Were that to change, no sum would pass its checksum.
    """
    packed = np.empty(3 * len(words) + 1, np.uint8)
    np.ndarray(len(words), "<u4", packed, strides=(3,))[...] = words
    return packed[:-1].tobytes()


def _unpack24(data: bytes, count: int) -> Words:
    words = np.empty(count, "<u4")
    if count:  # the last element has no byte after it to read along
        words[:-1] = np.ndarray(count - 1, "<u4", data, strides=(3,))
        words[-1] = int.from_bytes(data[-3:], "little")
    words &= np.uint32(0xFFFFFF)
    return words
