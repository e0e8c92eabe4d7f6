"""What a sum leaves when past sums are taken off it, against trying every coefficient that can matter."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.errors import DifferencingError
from secagg.isolation import MOST_WORK, Work, fewest_isolated, fewest_left

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

COEFFICIENTS = {1: 1, 2: 1, 3: 2}
"""Past sums to the largest determinant of as many rows and columns of zeros and ones (Hadamard).

A combination of least support is fixed by the columns that it cancels, so by Cramer's rule its coefficients are
quotients of such determinants.
"""


def row(clients: int, count: int) -> NDArray[np.int64]:
    return np.array([clients >> bit & 1 for bit in range(count)])


def tried(past: Iterable[int], new: int, count: int) -> int:
    """Fewest clients left, or 0 for none, by trying all coefficients, scaled so that they are integers."""
    past = list(past)
    if not past:
        return new.bit_count()
    largest = COEFFICIENTS[len(past)]
    choices = {Fraction(p, q) for p in range(-largest, largest + 1) for q in range(1, largest + 1)}
    scale = np.lcm.reduce([choice.denominator for choice in choices])
    coefficients = np.array(list(itertools.product([int(scale * choice) for choice in choices], repeat=len(past))))
    left = scale * row(new, count) + coefficients @ np.array([row(one, count) for one in past])
    return int((left != 0).sum(axis=1).min())


def solved(past: Iterable[int], new: int, enough: int = 99) -> int:
    return fewest_left(frozenset(past), new, enough, Work(MOST_WORK))


@pytest.mark.parametrize(("sessions", "clients"), [(1, 5), (2, 5), (3, 5), (4, 4)])
def test_of_few_sums_over_few_clients_exactly_that_is_left_which_trying_finds(sessions: int, clients: int) -> None:
    """All of them, up to the names of clients: which of the sums each client is in."""
    for columns in itertools.combinations_with_replacement(range(2**sessions), clients):
        sums = [sum((column >> one & 1) << bit for bit, column in enumerate(columns)) for one in range(sessions)]
        past, new = frozenset(sums[1:]), sums[0]
        if new and all(past):
            assert solved(past, new) == tried(past, new, clients), (past, new)


@given(st.sets(st.integers(1, 2**12 - 1), min_size=3, max_size=3), st.integers(1, 2**12 - 1), st.integers(1, 6))
def test_a_search_ends_where_enough_are_left(past: set[int], new: int, enough: int) -> None:
    assert solved(past, new, enough) == min(tried(past, new, 12), enough)


@given(st.sets(st.integers(1, 2**6 - 1), max_size=3), st.integers(1, 2**6 - 1), st.integers(2, 30))
def test_clients_that_are_always_together_count_one_by_one(past: set[int], new: int, times: int) -> None:
    wide = (1 << times) - 1

    def widened(one: int) -> int:
        return sum(wide << (bit * times) for bit in range(6) if one >> bit & 1)

    assert solved(map(widened, past), widened(new), 999) == times * solved(past, new)


def test_half_of_three_sums_is_one_client() -> None:
    """(A + B - C) / 2, with pairs of sums that are far apart."""
    assert solved([0b000011111, 0b111100001], 0b111111110) == 1


def test_large_determinants_are_exact() -> None:
    """Row i holds column i - 1 and every second one from i on: determinants are Fibonacci numbers, past 2^62 here."""
    count = 95
    rows = [sum(1 << j for j in range(count) if j == i - 1 or (j >= i and (j - i) % 2 == 0)) for i in range(count)]
    assert solved(rows[:-1], rows[-1]) == 1


def test_what_follows_from_the_past_is_no_news_and_excuses_nothing_else() -> None:
    past = [0b00111, 0b11000, 0b00001]
    assert solved(past, 0b11111) == solved(past, 0b00110) == 0
    assert solved(past, 0b01110) == 1


def test_many_random_sums_over_many_clients_are_decided() -> None:
    rng = np.random.default_rng(5)
    new, *past = (sum(1 << int(client) for client in rng.choice(100, 90, replace=False)) for _ in range(41))
    assert solved(past, new, 3) == 3
    assert solved([*past, new], new & (new - 1), 3) == 1


def test_a_question_that_takes_too_long_is_refused() -> None:
    with pytest.raises(DifferencingError, match="takes too long to tell"):
        fewest_left(frozenset([0b0111, 0b1110]), 0b1011, 3, Work(10))


def test_of_many_families_the_smallest_counts_and_known_sums_do_not() -> None:
    full, known = 0b111111, (frozenset([0b111]), 0b111)
    assert fewest_isolated([known, (frozenset(), full), (frozenset([full]), 0b001111)], 5) == 2
    assert fewest_isolated([known], 5) == 5
