"""CLIP: stragglers train a submodel without the units that hardly change (arXiv 2510.16694).

A straggler needs nobody's help for it. A secure histogram of times tells it which round time the others reach
(``protocols.sessions.stragglers``), so it solves for the largest submodel that keeps up (``protocols.budget``); and it
chooses the units by itself, from its own last full update or from two consecutive global models, or the others vote on
them (``protocols.sessions.vote``). Reconstructed, since the paper's rules are not public: see ``pruning.clip`` for the
scores.

As published, its update travels at full size, padded with zeros, because pairwise masks need equal vectors: the
aggregator ``Uniform``. With ``MaskIndexed`` the upload shrinks too, and so does the download of a straggler that
chooses its units without a look at the global model: the server learns the mask in any case.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, final, get_args

import torch

from protocols.measuring import Talk
from protocols.randomness import session_seed
from protocols.round import Stage
from protocols.sessions.vote import VoteThresholds, vote, voted_mask
from protocols.submodels import SubmodelSettings, SubmodelSystem
from pruning.clip import Score, largest_relative_change, relative_norm
from pruning.fluid import invariant_units
from pruning.masks import Mask, keep_units
from secagg.declaration import Provenance
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from protocols.aggregators import Aggregator, Client
    from protocols.federation import Federation, Memory
    from protocols.round import RoundContext, Work
    from protocols.simulation.calibration import Calibration
    from protocols.stages import MaskPolicy
    from protocols.training import State

Statistic = Literal["local", "global", "vote"]
ScoreName = Literal["norm", "largest-change"]

SCORES: Mapping[ScoreName, Score] = MappingProxyType({"norm": relative_norm, "largest-change": largest_relative_change})
"""The scores of invariance, by the names that settings use."""


@dataclass(frozen=True, kw_only=True)
class ClipSettings(SubmodelSettings):
    """The settings of CLIP.

    Args:
        statistic: What tells which units are invariant. ``"global"``: two consecutive global models, so that the mask
            says nothing about the client's data; ``"local"``: the client's own last full update; ``"vote"``: a secure
            sum of the other clients' votes, the same public mask for every straggler.
        score: How invariance is measured: ``"norm"``, ``pruning.relative_norm``, or ``"largest-change"``,
            ``pruning.largest_relative_change``.
        refresh_every: With ``"local"``, a straggler trains the whole model every so many rounds, since a unit that is
            dropped has no change of its own to be scored by.
        vote_start: With ``"vote"``, the threshold of every unit group in the first vote; votes move it to where it
            separates.
    """

    statistic: Statistic = "global"
    score: ScoreName = "norm"
    refresh_every: int = 5
    vote_start: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.statistic not in get_args(Statistic):
            raise ParameterError(f"statistic must be one of {get_args(Statistic)}, not {self.statistic!r}")
        if self.score not in SCORES:
            raise ParameterError(f"score must be one of {tuple(SCORES)}, not {self.score!r}")
        if self.refresh_every < 1:
            raise ParameterError("refresh_every must be at least 1")
        VoteThresholds(start=self.vote_start)


@final
class Clip(SubmodelSystem):
    """FedAvg in which stragglers train submodels without their most invariant units.

    Args:
        federation: What it runs on.
        aggregator: ``Uniform`` or ``MaskIndexed``, or one without encryption.
        settings: How stragglers prune.
        twin: As ``System``.
        calibration: As ``System``.
    """

    settings: ClipSettings

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: ClipSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        settings = settings or ClipSettings()
        super().__init__(
            federation,
            aggregator,
            settings,
            twin=twin,
            calibration=calibration,
            fetches_parts=settings.statistic != "global",
        )
        # Units are chosen by what is public, but how many, where a device solves for it, says something of the device.
        self._public = Provenance.DEVICE if settings.keep is None else Provenance.PUBLIC
        self.scores: dict[Client, NDArray[np.float64]] = {}
        self._counts: NDArray[np.int64] | None = None
        self._thresholds: dict[str, float] = {}

    @property
    def name(self) -> str:
        """The system, what tells it the invariant units, and its aggregator."""
        return f"CLIP {self.settings.statistic} {self.aggregator.name}"

    def policy(self) -> MaskPolicy:
        """A straggler drops the units of the lowest scores; where there is nothing to score by, none."""
        source = {"global": self._by_global_models, "local": self._by_own_update, "vote": self._by_vote}
        mask = source[self.settings.statistic]

        def kept(client: Client, context: RoundContext) -> Mask:
            keep = self.keep.get(client, 1.0)
            chosen = mask(client, context, keep) if keep < 1 else None
            return chosen or Mask.full(self.federation.units.layout)

        return kept

    def watchers(self) -> tuple[Stage, ...]:
        """With the local statistic, stragglers look at their own full updates."""
        return (_OwnUpdates(self),) if self.settings.statistic == "local" else ()

    def score(self, before: State, after: State) -> NDArray[np.float64]:
        """How much each unit changed, (unit_count,)."""
        return SCORES[self.settings.score](self.federation.units, before, after)

    def confer(self, context: RoundContext, work: Mapping[Client, Work]) -> Talk:
        """With the vote, those who trained the whole model vote on the units."""
        before = super().confer(context, work)
        if self.settings.statistic != "vote":
            return before
        layout, rules = self.federation.units.layout, VoteThresholds(start=self.settings.vote_start)
        thresholds = self._thresholds or rules.initial(layout)
        bits = {
            client: invariant_units(layout, self.score(one.start, one.model.state_dict()), thresholds)
            for client, one in work.items()
            if client not in self.keep
        }
        ballots = [(str(client), own.tobytes()) for client, own in bits.items()]
        held = vote(
            layout,
            bits,
            params=self.aggregator.params,
            seed=session_seed(self.federation.seed, "vote", context.number, ballots),
            encrypted=self.aggregator.encrypted,
        )
        self._counts = held.tally.counts
        self._thresholds = rules.moved(thresholds, held, min(self.keep.values(), default=1.0))
        return Talk((*before.sessions, held.tally))

    def remember(self) -> Memory:
        """Scores of stragglers' own updates, or the last vote and its thresholds."""
        return {
            **super().remember(),
            "scores": {str(client): torch.from_numpy(scores) for client, scores in self.scores.items()},
            "counts": None if self._counts is None else torch.tensor(self._counts),
            "thresholds": dict(self._thresholds),
        }

    def recall(self, memory: Memory) -> None:
        """Takes up where ``remember`` left off."""
        super().recall(memory)
        self.scores = {client: scores.numpy() for client, scores in memory.get("scores", {}).items()}
        counts = memory.get("counts")
        self._counts = None if counts is None else counts.numpy()
        self._thresholds = dict(memory.get("thresholds", {}))

    def _by_global_models(self, client: Client, context: RoundContext, keep: float) -> Mask | None:  # noqa: ARG002
        """By two consecutive global models, which say nothing about one client."""
        if context.previous is None:
            return None
        scores = self.score(context.previous, context.start)
        return keep_units(self.federation.units.layout, scores, keep, provenance=self._public)

    def _by_own_update(self, client: Client, context: RoundContext, keep: float) -> Mask | None:
        """By the client's own last full update; now and then it trains everything, to have one."""
        scores = self.scores.get(client)
        if scores is None or context.number % self.settings.refresh_every == 0:
            return None
        return keep_units(self.federation.units.layout, scores, keep, provenance=Provenance.DATA)

    def _by_vote(self, client: Client, context: RoundContext, keep: float) -> Mask | None:  # noqa: ARG002
        """By the last round's vote, which is public."""
        if self._counts is None:
            return None
        return voted_mask(self.federation.units.layout, self._counts, keep, self._public)


@final
class _OwnUpdates(Stage):
    """Scores, on each straggler, the units by what a training of the whole model changed.

    Args:
        system: Remembers the scores.
    """

    def __init__(self, system: Clip) -> None:
        self._system = system

    def on_client(self, context: RoundContext, work: Work) -> Work:  # noqa: ARG002 - work carries all
        """Looks at a trained model and passes it on."""
        if work.client in self._system.keep and work.mask.kind == "full":
            self._system.scores[work.client] = self._system.score(work.start, work.model.state_dict())
        return work
