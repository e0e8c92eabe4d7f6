"""The field: its prime is prime, its elements have one coding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import field
from secagg.errors import DecodingError


def passes_miller_rabin(candidate: int, bases: range) -> bool:
    odd, twos = candidate - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        power = pow(base, odd, candidate)
        chain = [pow(power, 2**square, candidate) for square in range(twos)]
        if power != 1 and candidate - 1 not in chain:
            return False
    return True


def test_the_prime_passes_miller_rabin_for_64_bases() -> None:
    assert passes_miller_rabin(field.PRIME, range(2, 66))


def test_no_number_between_2_to_256_and_the_prime_is_prime() -> None:
    smaller = range(2**256, field.PRIME)
    assert not any(passes_miller_rabin(candidate, range(2, 4)) for candidate in smaller)
    assert passes_miller_rabin(2**127 - 1, range(2, 66))  # the check itself accepts a known prime


@given(st.integers(0, field.PRIME - 1))
def test_an_element_is_decoded_from_33_big_endian_bytes(element: int) -> None:
    data = field.encode(element)
    assert data == element.to_bytes(33, "big")
    assert field.decode(data) == element


@pytest.mark.parametrize("element", [0, 1, 2**256, field.PRIME - 1])
def test_the_smallest_and_the_largest_elements_survive_the_wire(element: int) -> None:
    assert field.decode(field.encode(element)) == element


@pytest.mark.parametrize("number", [field.PRIME, field.PRIME + 1, 2**264 - 1])
def test_a_number_from_the_prime_on_is_no_element(number: int) -> None:
    with pytest.raises(DecodingError, match="not a field element"):
        field.decode(number.to_bytes(33, "big"))


@pytest.mark.parametrize("length", [0, 32, 34])
def test_another_length_is_no_element(length: int) -> None:
    with pytest.raises(DecodingError, match="not a field element"):
        field.decode(bytes(length))


@given(st.binary(min_size=48, max_size=48))
def test_a_random_element_is_48_bytes_of_entropy_reduced(data: bytes) -> None:
    asked: list[int] = []

    def entropy(count: int) -> bytes:
        asked.append(count)
        return data

    assert field.random(entropy) == int.from_bytes(data, "big") % field.PRIME
    assert asked == [48]


@given(st.lists(st.integers(1, field.PRIME - 1), max_size=9))
def test_inverses_are_taken_together(elements: list[int]) -> None:
    assert field.inverses(elements) == [pow(element, -1, field.PRIME) for element in elements]
