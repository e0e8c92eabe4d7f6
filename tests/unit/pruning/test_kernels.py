from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.kernels import Kernels, keep_top, snip_scores
from pruning.masks import Mask
from secagg.declaration import Provenance
from secagg.errors import LayoutMismatchError, NotFiniteError, ParameterError
from secagg.layout import Layout, Tensor

LAYOUT = Layout(
    (
        Tensor("conv.weight", (2, 1, 3)),
        Tensor("conv.bias", (2,)),
        Tensor("norm.weight", (2,)),
        Tensor("out.weight", (2, 2)),
    )
)
KERNELS = Kernels(LAYOUT)


def test_kernels_are_the_tensors_of_two_axes_or_more_numbered_through() -> None:
    state = {name: torch.full(values.shape, float(i)) for i, (name, values) in enumerate(by_name().items())}
    assert KERNELS.size == 10
    assert KERNELS.places == (slice(0, 6), slice(6, 10))
    assert KERNELS.values(state).tolist() == [0.0] * 6 + [3.0] * 4


def by_name() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    return LAYOUT.by_tensor(np.arange(LAYOUT.size, dtype=np.float64))


def test_what_is_no_kernel_is_always_held() -> None:
    mask = KERNELS.mask(np.arange(10) % 2 == 0)
    held = mask.by_tensor()
    assert held["conv.bias"].all()
    assert held["norm.weight"].all()
    assert held["conv.weight"].reshape(-1).tolist() == [True, False] * 3
    assert (KERNELS.density(mask), mask.density) == (0.5, 9 / 14)
    assert mask.provenance is Provenance.PUBLIC


@given(st.lists(st.booleans(), min_size=10, max_size=10))
def test_a_mask_gives_back_what_it_was_made_of(active: list[bool]) -> None:
    assert KERNELS.active(KERNELS.mask(np.array(active))).tolist() == active


def test_the_best_of_all_kernels_are_kept_and_of_equal_ones_the_first() -> None:
    scores = np.array([0, 9, 0, 8, 0, 0, 7, 7, 7, 0])
    assert np.flatnonzero(KERNELS.active(keep_top(KERNELS, scores, 0.3))).tolist() == [1, 3, 6]
    assert np.flatnonzero(KERNELS.active(keep_top(KERNELS, np.ones(10), 0.5, scope="layer"))).tolist() == [
        0,
        1,
        2,
        6,
        7,
    ]


def test_a_floor_keeps_the_best_of_a_kernel_that_scores_low() -> None:
    scores = np.array([9, 9, 9, 9, 9, 9, 1, 2, 4, 3])
    kept = {floor: KERNELS.active(keep_top(KERNELS, scores, 0.5, floor=floor)) for floor in (0.0, 0.5)}
    assert np.flatnonzero(kept[0.0]).tolist() == [0, 1, 2, 3, 8]
    assert np.flatnonzero(kept[0.5]).tolist() == [0, 1, 2, 8, 9]


@given(
    st.lists(st.integers(-3, 3), min_size=10, max_size=10),
    st.floats(0.2, 1),
    st.floats(0, 1),
    st.sampled_from(["layer", "global"]),
)
def test_no_kernel_falls_below_its_floor(scores: list[int], density: float, share: float, scope: str) -> None:
    floor = share * density
    active = KERNELS.active(keep_top(KERNELS, scores, density, floor=floor, scope=scope))  # type: ignore[arg-type]
    assert all(active[place].mean() >= floor - 1e-9 for place in KERNELS.places)
    assert all(active[place].any() for place in KERNELS.places)


def test_snip_scores_a_weight_by_its_product_with_the_gradient() -> None:
    assert snip_scores(np.array([2.0, -3.0, 0.0]), np.array([-1.0, 2.0, 5.0])).tolist() == [2.0, 6.0, 0.0]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ParameterError, match="nothing to prune"):
        Kernels(Layout((Tensor("bias", (3,)),)))
    with pytest.raises(LayoutMismatchError, match="another layout"):
        KERNELS.active(Mask.full(Layout((Tensor("w", (2, 2)),))))
    with pytest.raises(LayoutMismatchError, match="10 coordinates"):
        KERNELS.mask(np.ones(9, bool))
    with pytest.raises(LayoutMismatchError, match="scores"):
        keep_top(KERNELS, np.ones(9), 0.5)
    with pytest.raises(NotFiniteError, match="scores"):
        keep_top(KERNELS, np.full(10, np.nan), 0.5)


@pytest.mark.parametrize(
    ("density", "floor", "scope", "message"),
    [
        (0.0, 0.0, "layer", "density"),
        (1.1, 0.0, "layer", "density"),
        (0.3, 0.4, "layer", "floor"),
        (1, 0, "x", "scope"),
    ],
)
def test_settings_outside_their_domains_are_refused(density: float, floor: float, scope: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        keep_top(KERNELS, np.ones(10), density, floor=floor, scope=scope)  # type: ignore[arg-type]
