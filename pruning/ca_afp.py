"""CA-AFP: which weights of a cluster's model stay, by what the cluster's clients agree on (arXiv 2603.01739).

A weight counts for more the larger it is, the less the clients' own weights scatter around the cluster's, and the more
their gradients agree in sign. All of that is read off means over the cluster, so that sums suffice and nobody sees a
single client. Only kernels are pruned; biases and normalisations are always held.

Reconstructed from public descriptions and code. Known weaknesses of the published score, kept where its name is given:
``1 / (1 + variance)`` is nearly constant, since trained weights scatter by far less than 1; and a weight that never
moves, because its inputs or its gradients are always zero, looks perfectly coherent. ``corrected`` and ``rank`` cure
the first, ``shared`` both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from pruning.kernels import FLOOR, Kernels, best, check_density
from secagg.errors import LayoutMismatchError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from pruning.kernels import Group, Scope, Vector
    from pruning.masks import Mask

Coherence: TypeAlias = Literal["paper", "corrected", "shared"]
"""How much clients agree on a weight; see ``ScoreSettings``."""

SQUARE, SIGN, GRADIENT = "square", "sign", "gradient"
"""Names of the means that a cluster takes. The mean deviation is the round's own mean: deviations are the updates."""

CUT_FROM = 0.01
"""How far above the start density a mask is cut to it at once."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Public bounds of what a client contributes to a cluster's means; what is beyond them is clipped.

    Args:
        deviation: Of a weight from the cluster's: about learning rate times local steps with Adam.
        gradient: Of a coordinate of a gradient.

    Raises:
        ParameterError: A bound that is not positive and finite.
    """

    deviation: float
    gradient: float

    def __post_init__(self) -> None:
        for name, bound in (("deviation", self.deviation), ("gradient", self.gradient)):
            if not 0 < bound < math.inf:
                raise ParameterError(f"the bound of a {name} must be positive and finite, not {bound}")

    @property
    def ranges(self) -> dict[str, float]:
        """Largest magnitude of each contribution, by name."""
        # As NumPy squares: ** may round otherwise, and leave the bound itself out of range.
        return {SQUARE: self.deviation * self.deviation, SIGN: 1.0, GRADIENT: self.gradient}

    def contribution(self, own: Vector, cluster: Vector, gradient: Vector) -> dict[str, Vector]:
        """What a client gives to the means, by name.

        Args:
            own: The client's weights after local training.
            cluster: Those of the cluster's model.
            gradient: The client's, of one batch at the cluster's model; not masked, or nothing pruned grows back.
        """
        deviation = np.clip(own - cluster, -self.deviation, self.deviation)
        return {
            SQUARE: deviation**2,
            SIGN: np.sign(gradient),
            GRADIENT: np.clip(gradient, -self.gradient, self.gradient),
        }


@dataclass(frozen=True, eq=False)
class ClusterStatistics:
    """Means over a cluster, for each coordinate of the kernels. All (kernels.size,) float64.

    Args:
        mean_deviation: Of a client's weight from the cluster's.
        mean_square: Of that deviation's square.
        mean_sign: Of the sign of a client's gradient, in [-1, 1].
        mean_gradient: Of the gradient.
    """

    mean_deviation: Vector
    mean_square: Vector
    mean_sign: Vector
    mean_gradient: Vector

    @classmethod
    def of(cls, kernels: Kernels, mean_deviation: ArrayLike, means: Mapping[str, ArrayLike]) -> ClusterStatistics:
        """From the mean deviation, and the means of what ``Bounds.contribution`` returns, by its names.

        Raises:
            LayoutMismatchError: A mean is missing or has another length.
            NotFiniteError: A mean is NaN or infinite.
        """
        missing = {SQUARE, SIGN, GRADIENT} - set(means)
        if missing:
            raise LayoutMismatchError(f"means that are missing: {', '.join(sorted(missing))}")
        deviation = kernels.checked("deviation", mean_deviation)
        return cls(deviation, *(kernels.checked(name, means[name]) for name in (SQUARE, SIGN, GRADIENT)))

    @property
    def variance(self) -> Vector:
        """Of the clients' weights; not below 0, whatever the means were rounded to."""
        return np.maximum(self.mean_square - self.mean_deviation**2, 0.0)


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How a weight is scored.

    Args:
        alpha: Factor of magnitude.
        beta: Factor of coherence.
        gamma: Factor of the agreement of signs.
        coherence: ``"paper"``: ``1 / (1 + variance)``. ``"corrected"``, ours: the same of the variance over its mean in
            the layer. ``"shared"``, ours: the share of a weight's movement that all clients have in common, the square
            of the mean deviation over the mean square, from 0 to 1; where nobody moves, 0.
        terms: ``"scaled"``: magnitude and coherence over their largest, as published. ``"rank"``, ours: each term by
            its rank in the layer, from 0 to 1, so that a factor says what share a term has in the order; ``"paper"``
            and ``"corrected"`` make no difference then.

    Raises:
        ParameterError: A factor is negative or not finite, all are 0, or a name is unknown.
    """

    alpha: float = 0.5
    beta: float = 0.25
    gamma: float = 0.25
    coherence: Coherence = "shared"
    terms: Literal["scaled", "rank"] = "scaled"

    def __post_init__(self) -> None:
        factors = (self.alpha, self.beta, self.gamma)
        if not all(0 <= factor < math.inf for factor in factors) or not any(factors):
            raise ParameterError("alpha, beta and gamma must be at least 0, finite, and not all 0")
        if self.coherence not in get_args(Coherence):
            raise ParameterError(f"coherence must be one of {', '.join(get_args(Coherence))}, not {self.coherence!r}")
        if self.terms not in {"scaled", "rank"}:
            raise ParameterError(f"terms must be scaled or rank, not {self.terms!r}")


def score(
    kernels: Kernels,
    weights: Vector,
    statistics: ClusterStatistics,
    active: NDArray[np.bool_],
    settings: ScoreSettings | None = None,
) -> Vector:
    """How much each weight counts: ``alpha |w| + beta C + gamma |mean sign|``, its terms scaled within its layer.

    Reconstructed: the largest, the mean and the rank are taken over the active weights of a layer. Weights that are
    pruned do not scatter at all, and counted in would make all others look less coherent the more of them there are.

    Args:
        kernels: Of the model.
        weights: Of the cluster's model.
        statistics: Of the cluster.
        active: The weights that are scored, (kernels.size,) bool; all others score 0.
        settings: By default the published factors, with the coherence that clients share.

    Raises:
        LayoutMismatchError: ``weights`` has another length.
        NotFiniteError: A weight is NaN or infinite.
    """
    settings = settings or ScoreSettings()
    sizes, agreement = np.abs(kernels.checked("weights", weights)), np.abs(statistics.mean_sign)
    scores = np.zeros(kernels.size)
    for place in kernels.places:
        held = active[place]
        if held.any():
            coherence = _coherence(statistics, place, held, settings.coherence)
            scores[place][held] = _layer_scores(sizes[place][held], coherence, agreement[place][held], settings)
    return scores


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How dense the kernels are, from mask step to mask step.

    Args:
        target_density: After the last step, in (0, 1].
        start_density: To which a denser mask is cut at once; 1 prunes by and by.
        churn: Share of the active weights that a step exchanges for others, in [0, 1).
        floor: Least density of every kernel, at most ``target_density``. Ours. At least one weight stays in any case.
        scope: ``"layer"``: every kernel is pruned to the same density, as published; the floor never binds then.
            ``"global"``, ours: one ranking over all kernels.

    Raises:
        ParameterError: A setting outside its domain.
    """

    target_density: float = 0.3
    start_density: float = 1.0
    churn: float = 0.05
    floor: float = FLOOR
    scope: Scope = "global"

    def __post_init__(self) -> None:
        if not 0 < self.target_density <= self.start_density <= 1:
            raise ParameterError("target_density must be in (0, start_density], and start_density at most 1")
        if not 0 <= self.churn < 1:
            raise ParameterError(f"churn must be in [0, 1), not {self.churn}")
        check_density(self.target_density, self.floor, self.scope)


def mask_step(mask: Mask, scores: ArrayLike, regrow_scores: ArrayLike, schedule: Schedule, steps_left: int) -> Mask:
    """The next mask of a cluster.

    A mask well above the start density is cut to it, and nothing grows back. Otherwise the density moves by an equal
    part of what is missing from the target, ``push``: the ``churn + push`` active weights of the lowest scores are
    pruned, and the ``churn`` pruned ones of the largest regrow scores come back. After the last step the density is
    the target, unless a floor is above it.

    What this very step prunes does not grow back, so that churn is an exchange; hence a full mask has no churn. Where
    the density is below the target, more grow back than are pruned. Of equal scores the lower coordinate stays, and
    grows back, first, so that everybody computes the same mask.

    Args:
        mask: Of the kernels' layout; the new one has its provenance.
        scores: Of the kernels' coordinates, as ``score``; only those of active ones count.
        regrow_scores: Mean gradient of each; only its size counts, where nothing is active.
        schedule: The densities.
        steps_left: Mask steps up to the last one, this one included.

    Raises:
        LayoutMismatchError: Another number of scores than of coordinates of the kernels.
        NotFiniteError: A score is NaN or infinite.
        ParameterError: ``steps_left`` is below 1.
    """
    if steps_left < 1:
        raise ParameterError(f"steps_left counts this step and must be at least 1, not {steps_left}")
    kernels = Kernels(mask.layout)
    order, growth = kernels.checked("scores", scores), np.abs(kernels.checked("regrow_scores", regrow_scores))
    active = kernels.active(mask)
    after = np.empty_like(active)
    for group in kernels.groups(schedule.floor, schedule.scope):
        own = active[group.place]
        stay, grow = _counts(group, int(own.sum()), schedule, steps_left)
        after[group.place] = group.keep(order[group.place], own, stay) | best(growth[group.place], ~own, grow)
    return kernels.mask(after, mask.provenance)


def _coherence(statistics: ClusterStatistics, place: slice, held: NDArray[np.bool_], kind: Coherence) -> Vector:
    """Of the held weights of a layer."""
    if kind == "shared":
        common, square = statistics.mean_deviation[place][held] ** 2, statistics.mean_square[place][held]
        return np.minimum(np.divide(common, square, out=np.zeros_like(common), where=square > 0), 1.0)
    variance = statistics.variance[place][held]
    mean = 1.0 if kind == "paper" else variance.mean()
    return 1 / (1 + np.divide(variance, mean, out=np.zeros_like(variance), where=mean > 0))


def _layer_scores(sizes: Vector, coherence: Vector, agreement: Vector, settings: ScoreSettings) -> Vector:
    terms = (_ranks(sizes), _ranks(coherence), _ranks(agreement))
    if settings.terms == "scaled":
        terms = (sizes / (sizes.max() or 1.0), coherence / (coherence.max() or 1.0), agreement)
    factors = (settings.alpha, settings.beta, settings.gamma)
    total: Vector = sum((factor * term for factor, term in zip(factors, terms, strict=True)), np.zeros_like(sizes))
    return total


def _ranks(values: Vector) -> Vector:
    """Ranks from 0 to 1; equal values share the mean of theirs, and a single one is in the middle."""
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Vector = (np.cumsum(counts) - (counts + 1) / 2)[number] / (len(values) - 1 or 1)
    return ranks if len(values) > 1 else np.full(1, 0.5)


def _counts(group: Group, active: int, schedule: Schedule, steps_left: int) -> tuple[int, int]:
    """How many of the active coordinates of a group stay, and how many of the others grow back."""
    start, target = group.nearest(schedule.start_density), group.nearest(schedule.target_density)
    if active - start > CUT_FROM * group.size:
        return start, 0
    push = int((active - target) / steps_left)
    churn = min(int(schedule.churn * active + 1e-9), group.size - active - max(-push, 0))
    stay = min(active, max(group.least, active - churn - max(push, 0)))
    return stay, active - push - stay
