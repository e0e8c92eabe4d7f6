"""CA-AFP: a cluster's model is pruned by and by, by what the cluster's clients agree on (arXiv 2603.01739).

Within a cluster, on mask rounds only, clients add to their updates: of the weights that the mask holds the squares of
how far they have moved and the signs of their gradients, of all others the gradients, by which some grow back. One
session sums it all (``protocols.aggregators.joint``). That suffices for the score (``pruning.ca_afp``), and so for the
next mask, which clients fetch with the model. ``AdaptivePruning`` is that, and ``CaAfp`` a system of it for each
cluster; clusters are found, and played side by side, by ``protocols.clustered``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

from protocols.clustered import Clustered, ClusterSettings
from protocols.sparse import SparseSystem
from pruning.ca_afp import (
    GRADIENT,
    SQUARE,
    Bounds,
    ClusterStatistics,
    Coherence,
    Schedule,
    ScoreSettings,
    mask_step,
    score,
)
from pruning.kernels import FLOOR, Scope
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from protocols.aggregators import Aggregator
    from protocols.federation import Federation
    from protocols.round import RoundContext, Work
    from protocols.simulation.calibration import Calibration
    from pruning.kernels import Vector
    from pruning.masks import Mask

LEAST_COHORT = 3
"""Fewest clients in a sum beside which there is one of squares."""

DEVIATIONS = 4.0
"""How far a weight may move in a round before a client clips it, in learning rates times steps: Adam moves it by
about one at most."""


@dataclass(frozen=True, kw_only=True)
class AdaptiveSettings:
    """How the models of clusters are pruned.

    Args:
        density: Of the kernels after the last mask step, at least ``pruning.kernels.FLOOR`` and at most 1.
        start_density: To which a model is cut at the first mask step, from ``density`` to 1; 1 prunes by and by.
        dense_rounds: Rounds up to the first mask step, at the end of the last of them; lost ones do not count, here and
            below.
        prune_rounds: Rounds after it, so that every mask is trained on before the next one comes.
        step_every: Of them, those that a mask is trained on.
        churn: Share of the held weights that a mask step exchanges for others, in [0, 1).
        scope: Whether every layer is pruned to the same density, or one ranking goes over all.
        alpha: Factor of magnitude in the score.
        beta: Factor of coherence.
        gamma: Factor of the agreement of signs.
        coherence: As ``pruning.ca_afp.ScoreSettings``.
        terms: Likewise.
        largest_gradient: Of a coordinate, beyond which a client clips it.

    Raises:
        ParameterError: A setting outside its domain.
    """

    density: float = 0.3
    start_density: float = 1.0
    dense_rounds: int = 15
    prune_rounds: int = 20
    step_every: int = 5
    churn: float = 0.05
    scope: Scope = "global"
    alpha: float = 0.5
    beta: float = 0.25
    gamma: float = 0.25
    coherence: Coherence = "shared"
    terms: Literal["scaled", "rank"] = "scaled"
    largest_gradient: float = 4.0

    def __post_init__(self) -> None:
        if not FLOOR <= self.density <= self.start_density <= 1:
            raise ParameterError(
                f"density must be from {FLOOR} to start_density, and start_density at most 1, not {self.density} and "
                f"{self.start_density}"
            )
        if self.dense_rounds < 1 or not 1 <= self.step_every <= self.prune_rounds:
            raise ParameterError("dense_rounds must be at least 1, and step_every from 1 to prune_rounds")
        _ = self.schedule, self.score, Bounds(deviation=1.0, gradient=self.largest_gradient)

    @property
    def schedule(self) -> Schedule:
        """The densities from mask step to mask step."""
        return Schedule(
            target_density=self.density, start_density=self.start_density, churn=self.churn, scope=self.scope
        )

    @property
    def score(self) -> ScoreSettings:
        """How a weight is scored."""
        return ScoreSettings(
            alpha=self.alpha, beta=self.beta, gamma=self.gamma, coherence=self.coherence, terms=self.terms
        )

    def steps_left(self, played: int) -> int:
        """Mask steps to come when so many rounds have been played, if one is due at the end of this one; else 0."""
        since = played + 1 - self.dense_rounds
        due = 0 <= since < self.prune_rounds and since % self.step_every == 0
        return (self.prune_rounds - 1 - since) // self.step_every + 1 if due else 0


@final
class AdaptivePruning(SparseSystem):
    """One cluster of CA-AFP: FedAvg whose model is pruned by and by.

    Args:
        federation: The cluster's.
        aggregator: As ``SparseSystem``.
        settings: How to prune.
        twin: As ``System``.
        calibration: As ``System``.
    """

    settings: AdaptiveSettings
    derived = frozenset({SQUARE})

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: AdaptiveSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(federation, aggregator, twin=twin, calibration=calibration)
        if aggregator.encrypted and aggregator.params is not None and aggregator.params.min_cohort < LEAST_COHORT:
            raise ParameterError(
                f"min_cohort must be at least {LEAST_COHORT}: over two clients sum and sum of squares are both values"
            )
        self.settings = settings or AdaptiveSettings()
        training = federation.training
        self._bounds = Bounds(
            deviation=DEVIATIONS * training.learning_rate * training.steps, gradient=self.settings.largest_gradient
        )

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"adaptive pruning {self.aggregator.name}"

    def ranges(self) -> Mapping[str, float]:
        """Those of the score where a mask step is due."""
        return self._bounds.ranges if self.settings.steps_left(self.played) else {}

    def places(self, name: str) -> NDArray[np.bool_]:
        """Gradients count where nothing is held, all else where something is."""
        active = self.kernels.active(self.mask)
        return ~active if name == GRADIENT else active

    def contribution(self, context: RoundContext, own: Work) -> Mapping[str, Vector]:
        """What a client gives to the score."""
        before, trained = self.kernels.values(context.start), self.kernels.values(own.model.state_dict())
        gradient = self.gradient(context, own.client)
        return self._bounds.contribution(trained, before, gradient)

    def renewed(self, means: Mapping[str, torch.Tensor], before: Vector, after: Vector) -> Mask:
        """A mask step; the weights are scored as the round leaves them."""
        vectors = {name: mean.numpy() for name, mean in means.items()}
        statistics = ClusterStatistics.of(self.kernels, after - before, vectors)
        active = self.kernels.active(self.mask)
        scores = score(self.kernels, after, statistics, active, self.settings.score)
        left = self.settings.steps_left(self.played)
        return mask_step(self.mask, scores, statistics.mean_gradient, self.settings.schedule, left)


@dataclass(frozen=True, kw_only=True)
class CaAfpSettings(ClusterSettings, AdaptiveSettings):
    """The settings of CA-AFP: of its clusters, and of their pruning."""

    def __post_init__(self) -> None:
        ClusterSettings.__post_init__(self)
        AdaptiveSettings.__post_init__(self)

    @property
    def rounds(self) -> int:
        """Rounds that it takes to find clusters, and to train on every mask as long as ``step_every``."""
        return 1 + self.dense_rounds + self.prune_rounds


@final
class CaAfp(Clustered):
    """Cluster-aware adaptive pruning.

    Args:
        federation: As ``Clustered``.
        aggregator: As ``Clustered``.
        settings: Of clusters and their pruning.
        twin: As ``System``.
        calibration: As ``System``.
    """

    settings: CaAfpSettings

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: CaAfpSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(federation, aggregator, settings or CaAfpSettings(), twin=twin, calibration=calibration)

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"CA-AFP {self.aggregator.name}"

    def inner_of(self, federation: Federation) -> AdaptivePruning:
        """See ``Clustered.inner_of``."""
        return AdaptivePruning(
            federation, self.aggregator, self.settings, twin=self.twin, calibration=self.measuring.calibration
        )
