"""Shamir sharing: any t shares rebuild, t - 1 say nothing."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import field, shamir
from secagg.errors import ParameterError, ShareError
from secagg.prg import SeededEntropy

SECRET = bytes(range(32))
secrets = st.binary(min_size=32, max_size=32)


def through(points: dict[int, int], at: int) -> int:
    """The value at ``at`` of the polynomial of least degree through ``points``."""
    total = 0
    for x, y in points.items():
        term = y
        for other in points:
            if other != x:
                term = term * (at - other) * pow(x - other, -1, field.PRIME) % field.PRIME
        total += term
    return total % field.PRIME


@pytest.mark.parametrize("threshold", range(1, 6))
def test_any_threshold_of_shares_rebuilds_the_secret(threshold: int) -> None:
    shares = shamir.split(SECRET, threshold, [1, 2, 5, 9, 1000], SeededEntropy(b"deal"))
    for chosen in combinations(shares, threshold):
        assert shamir.rebuild({point: shares[point] for point in chosen}) == SECRET


@given(secrets, st.integers(1, 8), st.data())
def test_shares_in_any_order_rebuild_any_secret(secret: bytes, threshold: int, data: st.DataObject) -> None:
    points = data.draw(st.lists(st.integers(1, field.PRIME - 1), min_size=threshold, max_size=12, unique=True))
    shares = shamir.split(secret, threshold, points, SeededEntropy(b"deal"))
    order = data.draw(st.permutations(points))[:threshold]
    assert shamir.rebuild({point: shares[point] for point in order}) == secret


@given(secrets, secrets, st.integers(2, 6))
def test_fewer_shares_than_the_threshold_fit_every_other_secret_equally(
    secret: bytes, other: bytes, threshold: int
) -> None:
    """For any other secret there is one polynomial, so one choice of the dealer's coins, that deals the same shares.

    Feeding those coins to ``split`` must therefore reproduce the t - 1 shares: they carry no information.
    """
    points = list(range(1, threshold + 3))
    seen = dict(list(shamir.split(secret, threshold, points, SeededEntropy(b"deal")).items())[: threshold - 1])
    twin = {0: int.from_bytes(other, "big"), **seen}
    coefficients = coefficients_of(twin)
    coins = iter(coefficient.to_bytes(48, "big") for coefficient in reversed(coefficients[1:]))
    redealt = shamir.split(other, threshold, points, lambda _: next(coins))
    assert {point: redealt[point] for point in seen} == seen


def coefficients_of(points: dict[int, int]) -> list[int]:
    """The polynomial of least degree through ``points``, constant first, by Newton's divided differences."""
    xs, table = list(points), list(points.values())
    for level in range(1, len(xs)):
        for index in range(len(xs) - 1, level - 1, -1):
            slope = table[index] - table[index - 1]
            table[index] = slope * pow(xs[index] - xs[index - level], -1, field.PRIME) % field.PRIME
    result = [0]
    for x, difference in zip(reversed(xs), reversed(table), strict=True):
        shifted = [0, *result]
        result = [(shifted[k] - x * (result[k] if k < len(result) else 0)) % field.PRIME for k in range(len(shifted))]
        result[0] = (result[0] + difference) % field.PRIME
    return result[: len(xs)]


def test_shares_beyond_the_threshold_lie_on_the_same_polynomial() -> None:
    shares = shamir.split(SECRET, 3, range(1, 8), SeededEntropy(b"deal"))
    first = {point: shares[point] for point in (1, 2, 3)}
    assert {point: through(first, point) for point in shares} == shares
    assert through(first, 0) == int.from_bytes(SECRET, "big")


def test_the_polynomial_has_full_degree_so_that_fewer_shares_rebuild_something_else() -> None:
    shares = shamir.split(SECRET, 3, [1, 2, 3], SeededEntropy(b"deal"))
    assert through({1: shares[1], 2: shares[2]}, 0) != int.from_bytes(SECRET, "big")


def test_two_dealings_of_one_secret_share_no_share() -> None:
    entropy = SeededEntropy(b"deal")
    once, again = (shamir.split(SECRET, 2, [1, 2, 3], entropy) for _ in range(2))
    assert not set(once.values()) & set(again.values())


def test_a_wrong_share_is_noticed_where_the_result_is_no_32_byte_secret() -> None:
    """p - 2^256 is 297: a share off by the right amount moves the constant above 2^256."""
    shares = shamir.split(b"\xff" * 32, 1, [1], SeededEntropy(b""))
    with pytest.raises(ShareError, match="rebuild no secret"):
        shamir.rebuild({1: shares[1] + 1})


def test_every_secret_up_to_the_largest_comes_back() -> None:
    for secret in (bytes(32), b"\xff" * 32):
        assert shamir.rebuild(shamir.split(secret, 2, [3, 4], SeededEntropy(b""))) == secret


def test_the_weights_at_zero_turn_values_into_the_constant() -> None:
    points = [2, 3, 7]
    weights = shamir.lagrange_at_zero(points)
    values = [5 + 11 * x + 13 * x * x for x in points]
    assert sum(w * v for w, v in zip(weights, values, strict=True)) % field.PRIME == 5


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ParameterError, match="a secret has 32 bytes"):
        shamir.split(bytes(length), 1, [1], SeededEntropy(b""))


@pytest.mark.parametrize("threshold", [-1, 0, 4])
def test_a_threshold_outside_the_holders_is_refused(threshold: int) -> None:
    with pytest.raises(ParameterError, match=rf"share_threshold {threshold} is not in 1\.\.3"):
        shamir.split(SECRET, threshold, [1, 2, 3], SeededEntropy(b""))


@pytest.mark.parametrize("points", [[1, 1], [0, 1], [1, field.PRIME], [-1, 1]])
def test_repeated_or_unusable_evaluation_points_are_refused(points: list[int]) -> None:
    with pytest.raises(ParameterError, match="distinct and positive"):
        shamir.split(SECRET, 1, points, SeededEntropy(b""))


@given(st.sets(st.integers(1, 2**40), min_size=2, max_size=9), st.data())
def test_a_spare_point_changes_how_the_weights_are_found_not_which(among: set[int], data: st.DataObject) -> None:
    spare = data.draw(st.sampled_from(sorted(among)))
    points = data.draw(st.permutations(sorted(among - {spare})))
    assert shamir.lagrange_at_zero(points, spare) == shamir.lagrange_at_zero(points)


def test_secrets_of_one_set_of_points_are_rebuilt_from_any_of_them_but_one() -> None:
    shares = shamir.split(SECRET, 3, [1, 2, 5, 6], SeededEntropy(b"deal"))
    for spare in shares:
        assert shamir.rebuild({point: share for point, share in shares.items() if point != spare}, spare) == SECRET


def test_a_spare_point_that_is_no_spare_is_refused() -> None:
    with pytest.raises(ParameterError, match="spare point"):
        shamir.lagrange_at_zero([1, 2, 3], 2)
