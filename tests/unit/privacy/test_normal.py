"""Gaussian numbers from a stream: the distribution, and that equal streams give equal ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from secagg.prg import PIECE, Stream
from secagg.privacy.normal import normal, words
from secagg.ring import Ring

COUNT = 200_001


def stream(key: bytes = bytes(16)) -> Stream:
    return Stream(key, Ring(64))


def test_numbers_are_standard_normal() -> None:
    numbers = normal(stream(), COUNT)
    # By the inequality of Dvoretzky, Kiefer and Wolfowitz, a right sampler fails once in 10^9 keys.
    assert stats.kstest(numbers, "norm").statistic < np.sqrt(np.log(2e9) / (2 * COUNT))
    assert numbers.var() == pytest.approx(1, abs=7 * np.sqrt(2 / COUNT))


def test_neither_half_of_a_pair_tells_of_the_other() -> None:
    one, other = normal(stream(), 2 * PIECE).reshape(2, -1)
    for first, second in ((one, other), (one**2, other**2)):
        assert abs(np.corrcoef(first, second)[0, 1]) < 7 / np.sqrt(PIECE)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_as_many_come_as_were_asked_for_and_equal_keys_give_equal_ones(count: int) -> None:
    assert len(normal(stream(), count)) == count
    assert normal(stream(), count).tolist() == normal(stream(), count).tolist()


def test_words_go_on_where_they_stopped() -> None:
    whole, parts = words(stream(), PIECE + 5), stream()
    assert np.array_equal(whole, np.concatenate([words(parts, 3), words(parts, PIECE + 2)]))


def test_another_key_gives_other_numbers() -> None:
    assert not np.isin(normal(stream(), 50), normal(stream(bytes(range(16))), 50)).any()
