from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.ca_afp import Bounds, ClusterStatistics, Coherence, Schedule, ScoreSettings, mask_step, score
from pruning.kernels import Kernels
from secagg.declaration import Provenance
from secagg.errors import LayoutMismatchError, NotFiniteError, ParameterError
from secagg.layout import Layout, Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pruning.masks import Mask

PAIR = Kernels(Layout((Tensor("a.weight", (2, 2)), Tensor("a.bias", (2,)), Tensor("b.weight", (1, 2)))))
WIDE = Kernels(Layout((Tensor("a.weight", (20, 5)), Tensor("b.weight", (10, 4)))))
ALL = np.ones(6, bool)


def statistics(variance: ArrayLike, signs: ArrayLike) -> ClusterStatistics:
    zeros = np.zeros(6)
    return ClusterStatistics(zeros, np.asarray(variance, np.float64), np.asarray(signs, np.float64), zeros)


def held(kernels: Kernels, mask: Mask) -> list[int]:
    return np.flatnonzero(kernels.active(mask)).tolist()


def test_contributions_average_to_the_variance_of_the_weights_and_the_agreement_of_signs() -> None:
    draws = np.random.default_rng(3)
    own, cluster, gradients = draws.normal(size=(5, 6)), draws.normal(size=6), draws.normal(size=(5, 6))
    bounds = Bounds(deviation=100.0, gradient=100.0)
    given = [bounds.contribution(one, cluster, gradient) for one, gradient in zip(own, gradients, strict=True)]
    means = {name: np.mean([one[name] for one in given], axis=0) for name in bounds.ranges}
    found = ClusterStatistics.of(PAIR, (own - cluster).mean(axis=0), means)
    assert np.allclose(found.variance, own.var(axis=0))
    assert np.allclose(found.mean_sign, np.sign(gradients).mean(axis=0))
    assert np.allclose(found.mean_gradient, gradients.mean(axis=0))


def test_a_contribution_is_clipped_before_it_is_squared() -> None:
    bounds = Bounds(deviation=0.5, gradient=2.0)
    given = bounds.contribution(np.array([3.0, 1.25]), np.array([1.0, 1.0]), np.array([-7.0, 0.0]))
    assert {name: values.tolist() for name, values in given.items()} == {
        "square": [0.25, 0.0625],
        "sign": [-1.0, 0.0],
        "gradient": [-2.0, 0.0],
    }
    assert all(np.abs(values).max() <= bounds.ranges[name] for name, values in given.items())


def test_a_variance_that_was_rounded_below_zero_is_zero() -> None:
    rounded = ClusterStatistics(np.full(6, 0.1), np.full(6, 0.0099), np.zeros(6), np.zeros(6))
    assert rounded.variance.tolist() == [0.0] * 6


def test_the_published_score_by_hand() -> None:
    weights = np.array([2.0, -4.0, 0.0, 1.0, 0.5, -0.25])
    found = score(
        PAIR, weights, statistics([0, 1, 3, 0, 1, 3], [1, -0.5, 0, 0, -1, 0]), ALL, ScoreSettings(coherence="paper")
    )
    layer_a = [0.25 + 0.25 + 0.25, 0.5 + 0.125 + 0.125, 0.0625, 0.125 + 0.25]
    layer_b = [0.5 + 0.25 + 0.25, 0.25 + 0.125]  # the largest coherence of the layer is 1/2
    assert np.allclose(found, layer_a + layer_b)


def test_the_corrected_coherence_is_relative_to_the_scatter_of_the_layer() -> None:
    only = ScoreSettings(alpha=0.0, beta=1.0, gamma=0.0, coherence="corrected")
    variance = np.array([0.0, 1.0, 3.0, 0.0, 2.0, 2.0])
    found = score(PAIR, np.ones(6), statistics(variance, np.zeros(6)), ALL, only)
    assert np.allclose(found, [1, 0.5, 0.25, 1, 1, 1])
    tiny = score(PAIR, np.ones(6), statistics(variance * 1e-12, np.zeros(6)), ALL, only)
    assert np.allclose(found, tiny)
    assert score(PAIR, np.ones(6), statistics(np.zeros(6), np.zeros(6)), ALL, only).tolist() == [1.0] * 6


def test_the_shared_coherence_is_the_part_of_the_movement_that_all_have_in_common() -> None:
    only = ScoreSettings(alpha=0.0, beta=1.0, gamma=0.0, coherence="shared")
    # By weight: all move alike, half of them move, two go opposite ways, nobody moves; and two that nobody moves.
    moves = np.array([[2.0, 2.0, 1.0, 0.0, 0.0, 0.0], [2.0, 0.0, -1.0, 0.0, 0.0, 0.0]])
    means = ClusterStatistics(moves.mean(axis=0), np.square(moves).mean(axis=0), np.zeros(6), np.zeros(6))
    assert score(PAIR, np.ones(6), means, ALL, only).tolist() == [1, 0.5, 0, 0, 0, 0]
    rounded = ClusterStatistics(np.full(6, 0.1), np.full(6, 0.0099), np.zeros(6), np.zeros(6))
    assert score(PAIR, np.ones(6), rounded, ALL, only).tolist() == [1] * 6


def test_pruned_weights_score_nothing_and_do_not_count_in_a_layers_mean() -> None:
    only = ScoreSettings(alpha=0.0, beta=1.0, gamma=0.0, coherence="corrected")
    active = np.array([False, True, True, False, False, False])
    found = score(PAIR, np.ones(6), statistics([0, 1, 3, 0, 2, 2], np.zeros(6)), active, only)
    assert np.allclose(found, [0, 1, (1 / 2.5) / (1 / 1.5), 0, 0, 0])


def test_ranked_terms_depend_on_the_order_alone_and_equal_values_share_a_rank() -> None:
    ranked = ScoreSettings(alpha=1.0, beta=0.0, gamma=0.0, terms="rank")
    weights = np.array([1.0, -1.0, 1000.0, 0.0, 5.0, 5.0])
    found = score(PAIR, weights, statistics(np.zeros(6), np.zeros(6)), ALL, ranked)
    assert np.allclose(found, [0.5, 0.5, 1, 0, 0.5, 0.5])
    single = score(PAIR, weights, statistics(np.zeros(6), np.zeros(6)), np.eye(6, dtype=bool)[4], ranked)
    assert single.tolist() == [0, 0, 0, 0, 0.5, 0]


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=12, max_size=12),
    st.sampled_from(get_args(Coherence)),
    st.sampled_from(["scaled", "rank"]),
)
def test_a_score_lies_between_zero_and_the_sum_of_its_factors(
    numbers: list[float], coherence: Coherence, terms: Literal["scaled", "rank"]
) -> None:
    weights, moved = np.array(numbers[:6]), np.array(numbers[6:])
    means = ClusterStatistics(moved / 2, np.square(moved), np.clip(weights, -1, 1), np.zeros(6))
    found = score(PAIR, weights, means, ALL, ScoreSettings(coherence=coherence, terms=terms))
    assert (found >= 0).all()
    assert (found <= 1 + 1e-12).all()


def test_magnitude_alone_is_a_weights_size_over_the_largest_of_its_layer() -> None:
    weights = np.array([2.0, -4.0, 0.0, 1.0, 0.0, 0.0])
    found = score(
        PAIR, weights, statistics(np.arange(6), np.ones(6)), ALL, ScoreSettings(alpha=1.0, beta=0.0, gamma=0.0)
    )
    assert np.allclose(found, [0.5, 1, 0, 0.25, 0, 0])


def test_a_step_prunes_the_lowest_and_regrows_by_the_gradient_what_it_did_not_just_prune() -> None:
    kernels = Kernels(Layout((Tensor("w", (1, 20)),)))
    active = np.arange(20) < 10
    scores, gradient = np.arange(20.0), np.zeros(20)
    gradient[[0, 15, 17]] = [9.0, -3.0, 2.0]  # 0 is pruned by this very step
    after = mask_step(kernels.mask(active), scores, gradient, Schedule(target_density=0.4, churn=0.1), 1)
    assert held(kernels, after) == [*range(3, 10), 15]


def test_the_density_falls_by_equal_parts_to_exactly_the_target() -> None:
    draws = np.random.default_rng(0)
    for scope in ("layer", "global"):
        schedule, mask = Schedule(scope=scope), WIDE.mask(np.ones(140, bool))
        densities = []
        for steps_left in (4, 3, 2, 1):
            mask = mask_step(mask, draws.random(140), draws.random(140), schedule, steps_left)
            densities.append(WIDE.density(mask))
        assert np.allclose(densities, [0.825, 0.65, 0.475, 0.3], atol=1.5 / 40)
        assert densities[-1] == 0.3


def test_every_layer_has_the_same_density_unless_the_ranking_is_global() -> None:
    scores = np.arange(140.0)
    full = WIDE.mask(np.ones(140, bool))
    layered, ranked = (
        WIDE.active(mask_step(full, scores, scores, Schedule(scope=scope), 1)) for scope in ("layer", "global")
    )
    assert [layered[place].mean() for place in WIDE.places] == [0.3, 0.3]
    assert [ranked[place].sum() for place in WIDE.places] == [2, 40]
    assert np.flatnonzero(ranked)[:2].tolist() == [98, 99]  # the floor keeps the best two hundredths


def test_a_mask_far_above_the_start_density_is_cut_to_it_without_regrowth() -> None:
    scores = np.arange(140.0)
    schedule = Schedule(start_density=0.5, scope="global", floor=0.0)
    after = mask_step(WIDE.mask(np.ones(140, bool)), scores, -scores, schedule, 4)
    assert held(WIDE, after) == [*range(70, 140)]


@pytest.mark.parametrize("bound", [4 * 3e-4 * 49, 4 * 3e-4 * 98, 0.1])
def test_a_weight_that_moves_to_its_bound_is_within_the_range_of_its_square(bound: float) -> None:
    """Of the first two, Python's ``**`` makes other squares than NumPy's."""
    bounds = Bounds(deviation=bound, gradient=1.0)
    far = bounds.contribution(np.full(6, 9e9), np.zeros(6), np.zeros(6))
    assert far["square"].max() == bounds.ranges["square"] == pytest.approx(bound**2)


@pytest.mark.parametrize(("active", "left"), [(70, 63), (71, 64), (72, 70), (140, 70)])
def test_no_more_than_a_hundredth_above_the_start_density_a_mask_follows_the_schedule(active: int, left: int) -> None:
    schedule = Schedule(start_density=0.5, scope="global")
    after = mask_step(WIDE.mask(np.arange(140) < active), np.arange(140.0), np.ones(140), schedule, 4)
    assert WIDE.active(after).sum() == left  # a quarter of the way to 42, or 70


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from(["layer", "global"]))
def test_churn_exchanges_weights_and_keeps_the_density(seed: int, steps_left: int, scope: str) -> None:
    draws = np.random.default_rng(seed)
    start = np.concatenate([draws.permutation(size) < 0.3 * size for size in (100, 40)])
    schedule: Any = Schedule(churn=0.2, scope=scope)  # type: ignore[arg-type]
    after = WIDE.active(mask_step(WIDE.mask(start), draws.random(140), draws.normal(size=140), schedule, steps_left))
    assert after.sum() == start.sum() == 42
    assert (start & ~after).sum() == (after & ~start).sum() == 8  # a fifth, in each layer rounded down: 6 and 2


@given(st.integers(0, 2**32 - 1), st.integers(1, 140), st.sampled_from(["layer", "global"]), st.floats(0, 0.9))
def test_the_last_step_ends_at_the_target_from_any_mask_and_no_layer_falls_below_the_floor(
    seed: int, count: int, scope: str, churn: float
) -> None:
    draws = np.random.default_rng(seed)
    schedule: Any = Schedule(target_density=0.35, churn=churn, floor=0.1, scope=scope)  # type: ignore[arg-type]
    before = WIDE.mask(draws.permutation(140) < count)
    after = WIDE.active(mask_step(before, draws.integers(3, size=140), draws.normal(size=140), schedule, 1))
    assert after.sum() == 49
    if all(WIDE.active(before)[place].mean() >= 0.1 for place in WIDE.places):
        assert all(after[place].mean() >= 0.1 for place in WIDE.places)


def test_of_equal_scores_the_lower_coordinates_stay_and_grow_first() -> None:
    kernels = Kernels(Layout((Tensor("w", (1, 20)),)))
    active = np.arange(20) % 2 == 0
    after = mask_step(kernels.mask(active), np.ones(20), np.ones(20), Schedule(target_density=0.5, churn=0.3), 1)
    assert held(kernels, after) == sorted([0, 2, 4, 6, 8, 10, 12, 1, 3, 5])


def test_a_step_keeps_the_provenance() -> None:
    mask = WIDE.mask(np.ones(140, bool), Provenance.DATA)
    assert mask_step(mask, np.ones(140), np.ones(140), Schedule(), 1).provenance is Provenance.DATA


def test_what_cannot_be_scored_is_refused() -> None:
    good = statistics(np.zeros(6), np.zeros(6))
    with pytest.raises(LayoutMismatchError, match="weights"):
        score(PAIR, np.ones(5), good, ALL)
    with pytest.raises(NotFiniteError, match="weights"):
        score(PAIR, np.full(6, np.inf), good, ALL)
    with pytest.raises(LayoutMismatchError, match="gradient, sign"):
        ClusterStatistics.of(PAIR, np.zeros(6), {"square": np.zeros(6)})
    with pytest.raises(ParameterError, match="steps_left"):
        mask_step(PAIR.mask(ALL), np.ones(6), np.ones(6), Schedule(), 0)


def wrong(make: type, **settings: Any) -> tuple[type, dict[str, Any]]:
    return make, settings


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (wrong(ScoreSettings, alpha=-1.0), "alpha"),
        (wrong(ScoreSettings, alpha=0.0, beta=0.0, gamma=0.0), "alpha"),
        (wrong(ScoreSettings, coherence="other"), "coherence"),
        (wrong(ScoreSettings, terms="other"), "terms"),
        (wrong(Bounds, deviation=0.0, gradient=1.0), "deviation"),
        (wrong(Bounds, deviation=1.0, gradient=float("inf")), "gradient"),
        (wrong(Schedule, target_density=0.0), "target_density"),
        (wrong(Schedule, start_density=0.2), "start_density"),
        (wrong(Schedule, churn=1.0), "churn"),
        (wrong(Schedule, floor=0.5), "floor"),
        (wrong(Schedule, scope="model"), "scope"),
    ],
)
def test_settings_outside_their_domains_are_refused(made: tuple[type, dict[str, Any]], message: str) -> None:
    make, settings = made
    with pytest.raises(ParameterError, match=message):
        make(**settings)
