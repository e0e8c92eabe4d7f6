"""The settings: what is refused, what follows from them, and what every key is bound to."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.errors import ParameterError
from secagg.explain import Explanation
from secagg.params import MOST_LEVELS, Params
from secagg.privacy.settings import Privacy

BAD = [
    ("min_cohort", 1),
    ("min_cohort", 0),
    ("min_cohort", 2.0),
    ("min_cohort", True),
    ("max_dropouts", -1),
    ("max_dropouts", 1.5),
    ("corrupt", -1),
    ("corrupt", None),
    ("participation", -0.01),
    ("participation", 1.01),
    ("participation", math.nan),
    ("value_range", 0.0),
    ("value_range", -1.0),
    ("value_range", math.inf),
    ("value_range", math.nan),
    ("value_range", 1e-31),
    ("value_range", 1e31),
    ("value_range", {}),
    ("value_range", {"w": 0.0}),
    ("value_range", {"w": 1.0, "*": math.inf}),
    ("levels", 3),
    ("levels", MOST_LEVELS + 1),
    ("levels", 2.0**20),
    ("out_of_range", "clip"),
    ("max_weight", 0.0),
    ("max_weight", -1.0),
    ("max_weight", math.inf),
    ("weighting", "secret"),
    ("share_threshold", 1),
    ("share_threshold", 2.5),
    ("neighbours", 0),
    ("neighbours", 3),
    ("neighbours", -2),
    ("security_bits", 19),
    ("security_bits", 129),
    ("privacy", 1.0),
    ("adversary", "malicious"),
]

OTHER: dict[str, Any] = {
    "min_cohort": 4,
    "max_dropouts": 0,
    "corrupt": 1,
    "participation": 0.5,
    "value_range": 4.5,
    "levels": 2**19,
    "out_of_range": "saturate",
    "max_weight": 2.0,
    "weighting": "public",
    "exact_denominators": True,
    "share_threshold": 2,
    "neighbours": 2,
    "security_bits": 60,
    "privacy": Privacy(clip=1.0, noise_multiplier=1.0),
    "adversary": "active",
}


@pytest.mark.parametrize(("setting", "value"), BAD)
def test_a_setting_outside_its_domain_is_refused_by_name(setting: str, value: object) -> None:
    settings: dict[str, Any] = {setting: value}
    with pytest.raises(ParameterError, match=f"^{setting} must "):
        Params(**settings)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("participation", "half"),
        ("value_range", "wide"),
        ("value_range", [1.0]),
        ("value_range", None),
        ("max_weight", "heavy"),
    ],
)
def test_a_setting_of_the_wrong_type_is_refused_by_name(setting: str, value: object) -> None:
    settings: dict[str, Any] = {setting: value}
    with pytest.raises(ParameterError, match=f"^{setting} must "):
        Params(**settings)


@pytest.mark.parametrize("settings", [{"min_cohort": 2}, {"participation": 1}, {"levels": 4}, {"levels": MOST_LEVELS}])
def test_the_limits_themselves_are_allowed(settings: dict[str, Any]) -> None:
    assert Params(**settings) != Params()


def test_another_value_of_any_setting_gives_another_digest() -> None:
    assert set(OTHER) == {field.name for field in fields(Params)}
    variants = [Params(), *(replace(Params(), **{name: value}) for name, value in OTHER.items())]
    variants += [Params(value_range={"*": 4.0}), Params(value_range={"w": 4.0}), Params(value_range={"w": 4.5})]
    assert len({variant.digest for variant in variants}) == len(variants)


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"value_range": 4}, {"value_range": 4.0}),
        ({"value_range": np.float64(4)}, {"value_range": 4.0}),
        ({"value_range": {"a": 1.0, "b": 2}}, {"value_range": {"b": 2.0, "a": 1}}),
        ({"participation": 0}, {"participation": 0.0}),
        ({"max_weight": 1}, {"max_weight": 1.0}),
    ],
)
def test_equal_settings_have_equal_digests(one: dict[str, Any], same: dict[str, Any]) -> None:
    assert Params(**one) == Params(**same)
    assert Params(**one).digest == Params(**same).digest


def test_the_settings_do_not_change_with_the_mapping_that_they_were_made_from() -> None:
    ranges = {"w": 1.0}
    params = Params(value_range=ranges)
    digest = params.digest
    ranges["w"] = 2.0
    assert params.digest == digest
    assert params.range_of("w") == 1.0


def test_settings_are_hashable_even_with_a_range_for_each_tensor() -> None:
    assert len({Params(value_range={"a": 1.0, "b": 2.0}), Params(value_range={"b": 2, "a": 1})}) == 1


def test_the_privacy_floor_counts_honest_and_colluding_clients() -> None:
    assert Params(min_cohort=4, corrupt=2).privacy_floor == 6


@given(st.integers(4, MOST_LEVELS))
def test_zero_and_as_many_levels_on_either_side_fit_the_levels(levels: int) -> None:
    magnitude = Params(levels=levels).magnitude
    assert 2 * magnitude + 1 <= levels < 2 * (magnitude + 1) + 1


def test_a_range_is_looked_up_by_name_then_by_star() -> None:
    assert Params(value_range=2.5).range_of("anything") == 2.5
    params = Params(value_range={"fc.bias": 1.0, "*": 3.0})
    assert (params.range_of("fc.bias"), params.range_of("fc.weight")) == (1.0, 3.0)
    with pytest.raises(ParameterError, match=r"value_range has no entry for fc\.weight: add it, or '\*'"):
        Params(value_range={"fc.bias": 1.0}).range_of("fc.weight")


@pytest.mark.parametrize(
    ("settings", "clients", "threshold", "expected"),
    [
        ({}, 9, 5, 3),  # a third
        ({}, 9, 8, 1),  # what the share threshold leaves
        ({}, 4, 2, 1),  # a third again, although min_cohort would allow as many
        ({"min_cohort": 8}, 9, 5, 1),  # what min_cohort leaves
        ({"min_cohort": 6, "corrupt": 2}, 9, 5, 1),  # ... and corrupt
        ({"max_dropouts": 2}, 9, 5, 2),
        ({"max_dropouts": 100}, 9, 5, 4),
        ({"max_dropouts": 0}, 9, 5, 0),
        ({"min_cohort": 9}, 9, 9, 0),
        ({"min_cohort": 9}, 5, 3, 0),  # never negative
    ],
)
def test_the_dropouts_tolerated_never_break_a_threshold(
    settings: dict[str, Any], clients: int, threshold: int, expected: int
) -> None:
    assert Params(**settings).dropouts_tolerated(clients, threshold) == expected


@pytest.mark.parametrize(
    ("settings", "clients", "dropouts", "expected"),
    [
        ({}, 9, 3, 6),
        ({"corrupt": 2}, 9, 1, 6),
        ({"participation": 0.5}, 20, 3, 10),
        ({"participation": 0.5}, 21, 3, 11),
        ({"participation": 0.1}, 30, 0, 3),  # 0.1 * 30 is 3.0000000000000004 in floats
        ({"participation": 0.7}, 10, 0, 7),
        ({"participation": 1.0}, 7, 1, 7),
    ],
)
def test_the_coverage_required_is_the_larger_of_privacy_and_participation(
    settings: dict[str, Any], clients: int, dropouts: int, expected: int
) -> None:
    assert Params(**settings).coverage_required(clients, dropouts) == expected


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "6 (min_cohort 3 + max_dropouts 3)"),
        ({"corrupt": 1}, "7 (min_cohort 3 + corrupt 1 + max_dropouts 3)"),
        ({"participation": 0.75}, "15 (participation 0.75 of 20 clients)"),
    ],
)
def test_the_requirement_is_explained_by_the_settings_that_make_it(settings: dict[str, Any], text: str) -> None:
    assert Params(**settings).explain_requirement(20, 3) == text


def test_explain_is_reached_from_the_settings() -> None:
    explanation = Params(max_dropouts=0).explain({client: np.ones(3, bool) for client in range(4)})
    assert isinstance(explanation, Explanation)
    assert explanation.required == 3


@pytest.mark.parametrize(("clients", "corrupt", "quorum"), [(3, 0, 2), (4, 0, 3), (10, 3, 7), (1000, 50, 526)])
def test_two_quorums_share_an_honest_client(clients: int, corrupt: int, quorum: int) -> None:
    """Both together have more signatures than the honest clients once and the corrupt ones twice."""
    assert Params(adversary="active", corrupt=corrupt).quorum(clients) == quorum
    assert 2 * quorum > clients + corrupt >= 2 * (quorum - 1)


def test_a_semi_honest_server_needs_no_quorum() -> None:
    assert Params(corrupt=3).quorum(10) == 0


def test_an_active_server_leaves_fewer_dropouts_to_tolerate() -> None:
    assert Params(max_dropouts=5).dropouts_tolerated(10, 3) == 5
    for corrupt, left in ((0, 4), (2, 3)):
        params = Params(max_dropouts=5, corrupt=corrupt, adversary="active")
        assert params.dropouts_tolerated(10, params.topology(10).needed) == left
