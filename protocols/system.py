"""A federated system: a run on a simulated fleet, one outcome after another, that may stop and go on at any of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from protocols.measuring import Measuring
from protocols.results import LostRound, RoundResult, RunResult
from protocols.simulation.calibration import Calibration
from protocols.spending import Spending
from pruning.masks import Mask
from secagg.errors import AbortError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from protocols.aggregators import Aggregated, Aggregator, Client, Dropouts, Ledgers
    from protocols.federation import Checkpoint, Federation, Memory
    from protocols.results import Outcome
    from protocols.training import State


SPENDING = "spending"
"""Where a checkpoint keeps what has been spent, beside what the system remembers itself."""


class System(ABC):
    """A federated system.

    Where its sums carry noise for differential privacy, it keeps what every client has spent, and goes on from there.

    What it learns from round to round goes through ``remember`` and ``recall``, so that a run may stop after any round
    and go on from its checkpoint.

    Args:
        federation: What it runs on.
        aggregator: What joins the updates.
        twin: Aggregates every round's updates a second time; results then hold the largest difference. If it is
            always zero, a run with the twin instead of the aggregator gives the same models.
        calibration: Where the times of secure aggregation are kept; shared by systems whose times are compared.

    Raises:
        ParameterError: The aggregator's sums carry noise, and the system releases more than those.
    """

    accounts = False
    """Whether it charges all that it releases to the privacy of its clients."""

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.settings: object = None
        self.federation = federation
        self.aggregator = aggregator
        self.twin = twin
        self.measuring = Measuring(federation, aggregator, calibration or Calibration())
        privacy = aggregator.privacy or federation.training.sample_level
        self.spending = None if privacy is None else Spending(privacy.delta)
        if privacy is not None and not self.accounts:
            raise ParameterError(f"{type(self).__name__} releases more than noisy updates: leave out epsilon")
        if aggregator.privacy is not None and federation.training.sample_level is not None:
            raise ParameterError("privacy of clients and of examples are two budgets: choose one unit")

    @property
    @abstractmethod
    def name(self) -> str:
        """How results call it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What it has to say of itself beside the results."""
        return ()

    def foreseen_masks(self) -> Mapping[Client, Mask]:
        """What clients would hold in a round, as far as that is known before any training: by default everything."""
        return dict.fromkeys(self.federation.cohort(0), Mask.full(self.federation.units.layout))

    @abstractmethod
    def step(self, checkpoint: Checkpoint, dropouts: Dropouts, ledgers: Ledgers | None) -> tuple[Outcome, Checkpoint]:
        """Plays one round.

        Args:
            checkpoint: Where it starts.
            dropouts: Client to the last stage of its session that it completes.
            ledgers: As ``run``.

        Returns:
            What was measured, and where the next one starts.
        """

    def model_of(self, client: Client, checkpoint: Checkpoint) -> tuple[State, Mask]:  # noqa: ARG002 - all alike
        """The model that a client ends with, and the mask that it is held to: by default the global one, whole.

        Args:
            client: Whose.
            checkpoint: Where the run ended; what the system remembers of it is recalled already.
        """
        return checkpoint.state, Mask.full(self.federation.units.layout)

    def remember(self) -> Memory:
        """All that it has learned: dicts, lists, numbers, strings and tensors."""
        return {}

    def recall(self, memory: Memory) -> None:
        """Takes up where ``remember`` left off; an empty memory is a beginning."""
        del memory

    def run(
        self,
        rounds: int,
        start: Checkpoint | None = None,
        *,
        dropouts: Mapping[int, Dropouts] | None = None,
        ledgers: Ledgers | None = None,
        on_round: Callable[[Outcome], None] = lambda _: None,
    ) -> tuple[RunResult, Checkpoint]:
        """Plays rounds one after another.

        Args:
            rounds: How many, at least one.
            start: Where to begin, by default at the federation's own model.
            dropouts: Number of a round to who drops out of it, and after which stage.
            ledgers: Client to what it remembers of its sessions, for those that do. A round that one of them refuses
                leaves the model as it was; its time is not counted.
            on_round: Called with what came of every round.

        Returns:
            What was measured, and where the run ended.

        Raises:
            ParameterError: Fewer than one round, or ledgers where cohorts are drawn.
            AbortError: Every round was lost: ledgers refused, or too few clients met the deadline.
            SecAggError: A round that cannot be aggregated.
        """
        if rounds < 1:
            raise ParameterError(f"rounds must be at least 1, not {rounds}")
        outcomes: list[Outcome] = []
        played = self.play(rounds, start, dropouts=dropouts, ledgers=ledgers)
        for outcome, checkpoint in played:  # noqa: B007 - the last one is where the run ended
            on_round(outcome)
            outcomes.append(outcome)
        return self.result_of(outcomes), checkpoint

    def play(
        self,
        rounds: int,
        start: Checkpoint | None = None,
        *,
        dropouts: Mapping[int, Dropouts] | None = None,
        ledgers: Ledgers | None = None,
    ) -> Iterator[tuple[Outcome, Checkpoint]]:
        """As ``run``, a round at a time: what came of it, and where the next one starts."""
        if ledgers and self.federation.participants is not None:
            # They know a client by its place in the cohort, which would be another's in the next round.
            raise ParameterError("ledgers need the same cohort in every round: leave participants unset")
        checkpoint = start or self.federation.start()
        self.recall(checkpoint.memory)
        if self.spending is not None:
            self.spending.recall(checkpoint.memory.get(SPENDING, {}))
        for number in range(checkpoint.number, checkpoint.number + rounds):
            outcome, checkpoint = self.step(checkpoint, (dropouts or {}).get(number, {}), ledgers)
            yield outcome, checkpoint

    def memory(self) -> Memory:
        """What the next round starts with, besides the model."""
        return self.remember() if self.spending is None else {**self.remember(), SPENDING: self.spending.remember()}

    def result_of(self, outcomes: Iterable[Outcome]) -> RunResult:
        """What came of the rounds of this system, as one run.

        Raises:
            AbortError: Every round was lost.
        """
        outcomes = tuple(outcomes)
        rounds = tuple(one for one in outcomes if isinstance(one, RoundResult))
        lost = tuple(one for one in outcomes if isinstance(one, LostRound))
        if not rounds:
            raise AbortError("every round was lost" + "".join(f"; the last one: {one.reason}" for one in lost[-1:]))
        return RunResult(
            system=self.name,
            aggregator=self.aggregator.name,
            stragglers=tuple(device.name for device in self.federation.fleet.stragglers),
            rounds=rounds,
            lost=lost,
            notes=self.notes,
        )


def largest_difference(one: Aggregated, other: Aggregated) -> float:
    """Largest difference of two means and, where both have them, of their integer sums.

    Infinite if they do not even withhold the same coordinates.
    """
    if not np.array_equal(np.isnan(one.vector), np.isnan(other.vector)):
        return float("inf")
    differences = np.abs(np.nan_to_num(one.vector) - np.nan_to_num(other.vector)).max(initial=0.0)
    if one.integers is None or other.integers is None:
        return float(differences)
    if one.integers.shape != other.integers.shape:
        return float("inf")
    return max(float(differences), float(np.abs(one.integers - other.integers).max(initial=0)))
