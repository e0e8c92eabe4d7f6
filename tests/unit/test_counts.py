"""Counting masks without seeing them: the bits a client gives, and the bound that their sums give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import counts, declaration
from secagg.declaration import FULL, Declaration, Provenance
from secagg.layout import NO_UNIT, Layout, Tensor
from secagg.params import Params
from secagg.ring import Ring

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYOUT = Layout(
    (
        Tensor("fc1.weight", (3, 2), unit_axes={0: (0, 1, 2)}),
        Tensor("fc2.weight", (2, 3), unit_axes={0: (3, NO_UNIT), 1: (0, 1, 2)}),
        Tensor("fc2.bias", (2,), unit_axes={0: (3, NO_UNIT)}),
        Tensor("head.bias", (1,)),
    ),
    {"fc1": 3, "fc2": 1},
)


def units(bits: int) -> Declaration:
    return declaration.of_units(LAYOUT, np.array([bits >> k & 1 for k in range(4)], bool), Provenance.DATA)


def layers(bits: int) -> Declaration:
    return declaration.of_layers(LAYOUT, np.array([bits >> k & 1 for k in range(3)], bool), Provenance.DATA)


def coordinates(bits: int) -> Declaration:
    held = np.array([bits >> k & 1 for k in range(LAYOUT.size)], bool)
    return declaration.of_coordinates(LAYOUT, held, Provenance.DATA)


declarations = st.one_of(
    st.just(FULL),
    st.integers(0, 2**4 - 1).map(units),
    st.integers(0, 2**3 - 1).map(layers),
    st.integers(0, 2**LAYOUT.size - 1).map(coordinates),
)


def summed(declared: list[Declaration], layout: Layout = LAYOUT) -> dict[str, NDArray[np.float64]]:
    bits = [counts.bits(layout, one) for one in declared]
    return {name: np.sum([one[name] for one in bits], axis=0) for name in bits[0]}


def true_coverage(declared: list[Declaration]) -> NDArray[np.int64]:
    total: NDArray[np.int64] = np.sum([declaration.expand(LAYOUT, one) for one in declared], axis=0)
    return total


def test_the_counting_layout_has_a_place_for_every_bit() -> None:
    layout = counts.counting_layout(LAYOUT)
    assert {tensor.name: tensor.shape for tensor in layout.tensors} == {
        "dense": (1,),
        "structured": (1,),
        "layers": (3,),
        "units": (4,),
    }


def test_a_layout_without_units_is_counted_too() -> None:
    plain = Layout((Tensor("w", (2,)),))
    assert counts.counting_layout(plain).size == 3
    assert counts.least_coverage(plain, summed([FULL, FULL], plain)).tolist() == [2, 2]


def test_the_counting_session_keeps_the_thresholds_and_sums_bits_exactly() -> None:
    params = Params(
        min_cohort=4,
        max_dropouts=2,
        corrupt=1,
        share_threshold=3,
        participation=0.9,
        value_range={"w": 0.1},
        out_of_range="saturate",
        weighting="average",
        exact_denominators=True,
    )
    counting = counts.counting_params(params)
    assert (counting.min_cohort, counting.max_dropouts, counting.corrupt) == (4, 2, 1)
    assert counting.share_threshold == 3
    assert counting.participation == 0
    assert counting.magnitude == counting.range_of("dense") == 1
    assert not counting.exact_denominators
    assert Ring.holding(2000 * counting.magnitude) == Ring(16)


Bits = tuple[list[float], list[float], list[float], list[float]]


def given_bits(declared: Declaration) -> Bits:
    bits = counts.bits(LAYOUT, declared)
    return (bits["dense"].tolist(), bits["structured"].tolist(), bits["layers"].tolist(), bits["units"].tolist())


def test_a_dense_client_counts_everywhere() -> None:
    everything: Bits = ([1], [1], [1, 1, 1], [1, 1, 1, 1])
    assert given_bits(FULL) == everything
    assert given_bits(units(0b1111)) == everything
    assert given_bits(layers(0b111)) == everything
    assert given_bits(coordinates(2**LAYOUT.size - 1)) == everything


def test_a_client_with_a_unit_mask_counts_for_its_units_and_for_layers_that_it_holds_whole() -> None:
    assert given_bits(units(0b1011)) == ([0], [1], [0, 0, 1], [1, 1, 0, 1])
    assert given_bits(units(0b0111)) == ([0], [1], [1, 0, 1], [1, 1, 1, 0])


def test_a_client_with_another_mask_counts_for_its_whole_layers_only() -> None:
    assert given_bits(layers(0b101)) == ([0], [0], [1, 0, 1], [0, 0, 0, 0])
    assert given_bits(coordinates(0b0111111)) == ([0], [0], [1, 0, 0], [0, 0, 0, 0])
    assert given_bits(coordinates(0b101)) == ([0], [0], [0, 0, 0], [0, 0, 0, 0])


def test_the_bound_of_a_weight_is_count_u_plus_count_v_minus_the_structured_clients() -> None:
    """Units 0 and 1 of fc1 are held by 3 and 2 of 3 clients, unit 3 of fc2 by 2."""
    least = LAYOUT.by_tensor(counts.least_coverage(LAYOUT, summed([units(0b1011), units(0b1011), units(0b0001)])))
    assert least["fc1.weight"].tolist() == [[3, 3], [2, 2], [0, 0]]
    assert least["fc2.weight"].tolist() == [[3 + 2 - 3, 2 + 2 - 3, 0], [3, 2, 0]]
    assert least["fc2.bias"].tolist() == [2, 3]
    assert least["head.bias"].tolist() == [3]


def test_whole_layers_and_dense_clients_are_a_floor() -> None:
    least = LAYOUT.by_tensor(counts.least_coverage(LAYOUT, summed([FULL, layers(0b001), layers(0b001), units(0)])))
    assert least["fc1.weight"].tolist() == [[3, 3]] * 3
    assert least["fc2.weight"][0].tolist() == [1, 1, 1]
    assert least["head.bias"].tolist() == [2]


@given(st.lists(declarations, min_size=1, max_size=8))
def test_the_bound_is_never_above_the_true_coverage(declared: list[Declaration]) -> None:
    least = counts.least_coverage(LAYOUT, summed(declared))
    assert least.dtype == np.int32
    assert (least >= 0).all()
    assert (least <= true_coverage(declared)).all()


@given(st.lists(st.integers(0, 2**4 - 1), min_size=1, max_size=8))
def test_for_unit_masks_the_bound_is_exact_where_one_unit_decides(masks: list[int]) -> None:
    declared = [units(mask) for mask in masks]
    least = LAYOUT.by_tensor(counts.least_coverage(LAYOUT, summed(declared)))
    true = LAYOUT.by_tensor(true_coverage(declared))
    for name in ("fc1.weight", "fc2.bias", "head.bias"):
        assert least[name].tolist() == true[name].tolist()
    assert least["fc2.weight"][1].tolist() == true["fc2.weight"][1].tolist()


@given(st.lists(st.integers(0, 2**4 - 1), min_size=1, max_size=6))
def test_no_greater_bound_follows_from_the_counts_where_two_units_decide(masks: list[int]) -> None:
    """Some masks with the same unit counts have exactly the coverage that the bound says."""
    bits = np.array([[mask >> k & 1 for k in (0, 3)] for mask in masks])
    n, (one, other) = len(masks), bits.sum(axis=0)
    worst = np.zeros((n, 2), int)
    worst[:one, 0] = 1
    worst[n - other :, 1] = 1
    reached = int((worst.sum(axis=1) == 2).sum())
    least = LAYOUT.by_tensor(counts.least_coverage(LAYOUT, summed([units(mask) for mask in masks])))
    dense = sum(mask == 0b1111 for mask in masks)
    layer = sum(bool(declaration.expand(LAYOUT, units(mask))[6:14].all()) for mask in masks)
    assert least["fc2.weight"][0, 0] == max(reached, dense, layer)


@pytest.mark.parametrize("noise", [-0.4, 0.4])
def test_sums_a_little_off_an_integer_count_as_that_integer(noise: float) -> None:
    declared = [units(0b1011), units(0b0001)]
    exact = summed(declared)
    off = {name: values + noise for name, values in exact.items()}
    assert counts.least_coverage(LAYOUT, off).tolist() == counts.least_coverage(LAYOUT, exact).tolist()
