"""The prime field for secret sharing: p = 2^256 + 297, the smallest prime above 2^256.

Every 32-byte secret is an element as it stands. Elements are Python integers: not constant-time, which matters only
to somebody who can measure the client's own machine (SECURITY: side channels of Python integers).
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from secagg.errors import DecodingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PRIME = 2**256 + 297
ELEMENT_BYTES = 33
_RANDOM_BYTES = 48  # 128 bits beyond the prime: the bias of reducing them is below 2^-127


def encode(element: int) -> bytes:
    """An element as 33 big-endian bytes."""
    return element.to_bytes(ELEMENT_BYTES, "big")


def decode(data: bytes) -> int:
    """The element in 33 big-endian bytes.

    Raises:
        DecodingError: Another length, or a number that is not below the prime.
    """
    element = int.from_bytes(data, "big")
    if len(data) != ELEMENT_BYTES or element >= PRIME:
        raise DecodingError("not a field element")
    return element


def inverses(elements: Sequence[int]) -> list[int]:
    """The inverse of each element, none of them zero, for the price of one (P. L. Montgomery, 1987, section 10.3.1)."""
    products = list(accumulate(elements, lambda product, element: product * element % PRIME, initial=1))
    rest, found = pow(products[-1], -1, PRIME), []
    for element, before in zip(reversed(elements), reversed(products[:-1]), strict=True):
        found.append(rest * before % PRIME)
        rest = rest * element % PRIME
    return found[::-1]


def random(entropy: Callable[[int], bytes]) -> int:
    """A uniform element."""
    return int.from_bytes(entropy(_RANDOM_BYTES), "big") % PRIME
