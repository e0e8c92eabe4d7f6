"""The preflight tells the truth: what it says is withheld is, and what it advises helps."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from secagg import simulate
from secagg.declaration import Provenance, of_units
from secagg.errors import CoverageError, InputError, LayoutMismatchError, TooFewClientsError
from secagg.layout import Layout, Tensor
from secagg.params import Params

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from secagg.explain import Explanation

Masks = dict[int, dict[str, "NDArray[np.bool_]"]]


def masks_of(*rows: str) -> Masks:
    """A client a row: three coordinates of fc1, then two of fc2."""
    bits = [np.array([bit == "1" for bit in row.replace(" ", "")]) for row in rows]
    return {client: {"fc1.w": one[:3], "fc2.w": one[3:]} for client, one in enumerate(bits)}


NINE = masks_of(*["111 11"] * 4, *["111 00"] * 5)


def test_the_table_has_a_line_a_tensor_with_least_coverage_and_what_is_withheld() -> None:
    explanation = Params(max_dropouts=2).explain(NINE)
    assert str(explanation).splitlines() == [
        "9 clients, mask-indexed: a coordinate needs coverage 5 (min_cohort 3 + max_dropouts 2)",
        "  fc1.w  least coverage    9  withheld 0 of 3",
        "  fc2.w  least coverage    4  withheld 2 of 2",
        "max_dropouts=1 would release everything",
    ]
    assert explanation.withheld_share == 0.4


def test_nothing_withheld_needs_no_remedy() -> None:
    explanation = Params(max_dropouts=1).explain(NINE)
    assert explanation.withheld_share == 0
    assert explanation.remedy == ""
    assert len(str(explanation).splitlines()) == 3


def test_the_uniform_mode_is_explained_by_its_counts() -> None:
    explanation = Params(max_dropouts=2).explain(NINE, "uniform")
    assert explanation.mode == "uniform"
    assert [tensor.least_coverage for tensor in explanation.tensors] == [9, 4]


def test_masks_may_be_given_as_declarations_over_a_layout_with_units() -> None:
    layout = Layout((Tensor("fc1.w", (2, 3), unit_axes={0: (0, 1)}),), {"fc1": 2})
    masks = {k: of_units(layout, np.array([True, k < 4]), Provenance.DEVICE) for k in range(6)}
    explanation = Params(max_dropouts=1).explain(masks, layout=layout)
    assert explanation.withheld_share == 0
    assert explanation.tensors[0].least_coverage == 4
    assert explanation.tensors[0].coordinates == 6
    assert Params(max_dropouts=2).explain(masks, layout=layout).withheld_share == 0.5


def test_none_stands_for_the_whole_model_as_in_a_session() -> None:
    whole = {"fc1.w": np.ones(3, bool), "fc2.w": np.ones(2, bool)}
    some = {client: whole if client in (1, 5) else mask for client, mask in NINE.items()}
    assert Params(max_dropouts=2).explain({0: None, **{k: some[k] for k in some if k}}) == Params(
        max_dropouts=2
    ).explain({**some, 0: whole})
    layout = Layout((Tensor("fc1.w", (3,)),))
    assert Params().explain(dict.fromkeys(range(4)), layout=layout).withheld_share == 0


def test_an_empty_tensor_withholds_nothing() -> None:
    masks = {client: {"w": np.ones(2, bool), "none": np.zeros(0, bool)} for client in range(4)}
    explanation = Params().explain(masks)
    assert explanation.tensors[1].withheld == 0
    assert explanation.withheld_share == 0


def test_no_client_too_few_clients_and_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="masks holds no client"):
        Params().explain({})
    with pytest.raises(InputError, match="layout must be given: declarations, and None"):
        Params().explain(dict.fromkeys(range(4)))
    with pytest.raises(TooFewClientsError):
        Params().explain(masks_of("111 11", "111 11"))
    with pytest.raises(LayoutMismatchError, match="the mask of client 3 lacks fc2"):
        Params().explain({**NINE, 3: {"fc1.w": np.ones(3, bool)}})


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Params, Masks]:
    rows = draw(st.lists(st.integers(0, 31).map("{:05b}".format), min_size=3, max_size=9))
    params = Params(
        min_cohort=draw(st.integers(2, 3)),
        corrupt=draw(st.integers(0, 1)),
        max_dropouts=draw(st.none() | st.integers(0, 4)),
        participation=draw(st.sampled_from([0.0, 0.5, 0.9])),
        share_threshold=draw(st.none() | st.just(2 + 1)),
    )
    assume(len(rows) >= params.privacy_floor)
    return params, masks_of(*rows)


def freed_by(explanation: Explanation, params: Params, masks: Masks) -> Explanation:
    """What the round would withhold after following every setting that the remedy names."""
    named: dict[str, Any] = {
        name: float(value) if "." in value else int(value)
        for name, value in re.findall(r"(\w+)=([\d.]*\d)", explanation.remedy)
    }
    more = re.search(r"let (\d+) more clients hold", explanation.remedy)
    if more:
        masks = with_more_holders(masks, int(more[1]))
    assert named or more, explanation.remedy
    return replace(params, **named).explain(masks, explanation.mode)


def with_more_holders(masks: Masks, count: int) -> Masks:
    """Every coordinate held by ``count`` more clients, as far as there are others."""
    more = {client: {name: one.copy() for name, one in mask.items()} for client, mask in masks.items()}
    for name in ("fc1.w", "fc2.w"):
        rows = np.array([more[client][name] for client in more])
        for column in rows.T:
            column[np.flatnonzero(~column)[:count]] = True
        for client, row in zip(more, rows, strict=True):
            more[client][name] = row
    return more


@given(rounds())
def test_following_the_remedy_of_a_mask_indexed_round_releases_everything(case: tuple[Params, Masks]) -> None:
    params, masks = case
    explanation = params.explain(masks)
    if explanation.withheld_share:
        assert freed_by(explanation, params, masks).withheld_share == 0
    else:
        assert explanation.remedy == ""


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"max_dropouts": 2}, ["111 11"] * 4 + ["111 00"] * 5),  # fewer dropouts suffice
        ({"max_dropouts": 2}, ["111 11"] * 2 + ["111 00"] * 7),  # they do not
        ({"participation": 0.6, "max_dropouts": 2}, ["111 11"] * 4 + ["111 00"] * 5),  # participation decides
        ({"participation": 0.6, "max_dropouts": 3}, ["111 11"] * 3 + ["111 00"] * 6),
    ],
)
def test_the_remedy_names_a_setting_that_helps(settings: dict[str, Any], rows: list[str]) -> None:
    params, masks = Params(**settings), masks_of(*rows)
    explanation = params.explain(masks)
    assert explanation.withheld_share > 0
    assert freed_by(explanation, params, masks).withheld_share == 0


@given(rounds())
def test_what_is_explained_is_what_a_round_withholds(case: tuple[Params, Masks]) -> None:
    params, masks = case
    explanation = params.explain(masks)
    updates = {client: {"fc1.w": np.ones(3), "fc2.w": np.ones(2)} for client in masks}
    if explanation.withheld_share == 1:
        with pytest.raises(CoverageError, match=re.escape(explanation.reason)):
            simulate(updates, masks, mode="mask-indexed", params=params, seed=1)
        return
    result = simulate(updates, masks, mode="mask-indexed", params=params, seed=1)
    assert [int(one.sum()) for one in result.withheld.values()] == [one.withheld for one in explanation.tensors]
    assert [int(one.min()) for one in result.coverage.values()] == [one.least_coverage for one in explanation.tensors]
