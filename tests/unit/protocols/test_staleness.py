"""Weights by staleness are those of their formulas, and only two kinds can be kept in one running sum."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.arrivals.staleness import Kind, Staleness
from secagg.errors import InputError, ParameterError

KINDS = get_args(Kind)


@pytest.mark.parametrize(
    ("staleness", "expected"),
    [
        (Staleness("const"), [1, 1, 1, 1, 1]),
        (Staleness("poly"), [1, 0.659754, 0.517282, 0.435275, 0.380731]),
        (Staleness("poly", exponent=1), [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]),
        (Staleness("hinge"), [1, 1, 1, 1 / 1.6, 1 / 2.2]),
        (Staleness("hinge", exponent=2, grace=1), [1, 1, 1 / 3, 1 / 5, 1 / 7]),
        (Staleness("geometric", decay=0.5), [1, 0.5, 0.25, 0.125, 0.0625]),
        (Staleness("geometric", decay=1), [1, 1, 1, 1, 1]),
    ],
)
def test_the_weights_of_the_first_five_versions(staleness: Staleness, expected: list[float]) -> None:
    assert [staleness(tau) for tau in range(5)] == pytest.approx(expected, abs=1e-6)


@given(
    kind=st.sampled_from(KINDS),
    exponent=st.floats(0, 3),
    grace=st.integers(0, 5),
    decay=st.floats(0.01, 1),
    tau=st.integers(0, 60),
)
def test_a_weight_starts_at_one_and_never_rises(
    kind: Kind, exponent: float, grace: int, decay: float, tau: int
) -> None:
    staleness = Staleness(kind, exponent, grace, decay)
    assert staleness(0) == 1
    assert 0 < staleness(tau + 1) <= staleness(tau) <= 1


@given(decay=st.floats(0.05, 1), tau=st.integers(0, 100))
def test_a_running_sums_factor_turns_each_weight_into_the_next(decay: float, tau: int) -> None:
    for staleness in (Staleness("geometric", decay=decay), Staleness("const", decay=decay)):
        assert staleness.recursive
        assert staleness(tau + 1) == pytest.approx(staleness.factor * staleness(tau), rel=1e-12)


@pytest.mark.parametrize("kind", ["poly", "hinge"])
def test_poly_and_hinge_have_no_running_sum(kind: Kind) -> None:
    staleness = Staleness(kind)
    assert not staleness.recursive
    assert staleness(3) / staleness(2) != pytest.approx(staleness(4) / staleness(3), rel=1e-3)
    with pytest.raises(ParameterError, match=f"'{kind}' cannot be re-weighted from one running sum"):
        _ = staleness.factor


@pytest.mark.parametrize(
    "setting",
    [
        {"kind": "linear"},
        {"exponent": -0.1},
        {"exponent": math.inf},
        {"grace": -1},
        {"grace": math.nan},
        {"decay": 0.0},
        {"decay": 1.1},
        {"decay": math.nan},
    ],
)
def test_a_setting_outside_its_domain_is_refused_by_name(setting: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(setting))):
        Staleness(**{"kind": "const", **setting})


@pytest.mark.parametrize("kind", KINDS)
def test_a_contribution_from_the_future_has_no_weight(kind: Kind) -> None:
    with pytest.raises(InputError, match="negative"):
        Staleness(kind)(-1)
