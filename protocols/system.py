"""A federated system: rounds on a simulated fleet, measured. What makes it one system or another is its stages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from protocols.federation import Checkpoint
from protocols.fetch import Served
from protocols.measuring import SILENCE, Measuring
from protocols.randomness import session_seed
from protocols.results import LostRound, RoundResult, RunResult
from protocols.round import RoundContext, aggregate_work, new_model, work_of
from protocols.simulation.calibration import Calibration
from protocols.stages import Delta, Fetch, LocalTraining
from protocols.training import accuracy
from pruning.masks import Mask
from secagg.driver import Stage as SessionStage
from secagg.errors import AbortError, DifferencingError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from protocols.aggregators import Aggregated, Aggregator, Client, Dropouts, Ledgers
    from protocols.federation import Federation, Memory
    from protocols.measuring import Talk
    from protocols.results import ClientRound, Outcome
    from protocols.round import Stage, Work


class System(ABC):
    """A federated system.

    What it learns from round to round goes through ``remember`` and ``recall``, so that a run may stop after any round
    and go on from its checkpoint.

    Args:
        federation: What it runs on.
        aggregator: What joins the updates.
        twin: Aggregates every round's updates a second time; results then hold the largest difference. If it is
            always zero, a run with the twin instead of the aggregator gives the same models.
        calibration: Where the times of secure aggregation are kept; shared by systems whose times are compared.
    """

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
        self._twin = twin
        self.measuring = Measuring(federation, aggregator, calibration or Calibration())

    @property
    @abstractmethod
    def name(self) -> str:
        """How results call it."""

    def stages(self) -> tuple[Stage, ...]:
        """The stages of its rounds, outermost first: by default the whole model is fetched, trained and subtracted."""
        setup = self.federation
        return Fetch(), LocalTraining(setup.examples, setup.training, setup.seed), Delta()

    @property
    def notes(self) -> tuple[str, ...]:
        """What it has to say of itself beside the results."""
        return ()

    def cohort(self, number: int) -> tuple[Client, ...]:
        """Who is invited to a round: by default whoever the federation draws."""
        return self.federation.cohort(number)

    def foreseen_masks(self) -> Mapping[Client, Mask]:
        """What clients would hold in a round, as far as that is known before any training: by default everything."""
        return dict.fromkeys(self.cohort(0), Mask.full(self.federation.units.layout))

    def confer(self, context: RoundContext, work: Mapping[Client, Work]) -> Talk:  # noqa: ARG002 - most say nothing
        """Sessions of its own after training, in which clients find out together what none may know of another.

        Args:
            context: Where the round started.
            work: What everybody has trained who is in time.
        """
        return SILENCE

    def learn(
        self,
        number: int,  # noqa: ARG002 - most learn nothing
        clients: Mapping[Client, ClientRound],  # noqa: ARG002
        work: Mapping[Client, Work],  # noqa: ARG002
        aggregated: Aggregated | None,  # noqa: ARG002
    ) -> Mapping[str, float]:
        """Takes in a finished round for the next one.

        Args:
            number: Of the round.
            clients: What everybody did.
            work: Their finished work, which only systems without encryption may look at for the server's sake.
            aggregated: What came of it; None where the round was lost.

        Returns:
            What it measured, for the results.
        """
        return {}

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
        checkpoint, stages = start or self.federation.start(), self.stages()
        self.recall(checkpoint.memory)
        for number in range(checkpoint.number, checkpoint.number + rounds):
            outcome, checkpoint = self._play(stages, checkpoint, (dropouts or {}).get(number, {}), ledgers)
            yield outcome, checkpoint

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

    def _play(
        self, stages: tuple[Stage, ...], checkpoint: Checkpoint, dropouts: Dropouts, ledgers: Ledgers | None
    ) -> tuple[Outcome, Checkpoint]:
        """One round: what was measured, and where the next one starts."""
        number, setup = checkpoint.number, self.federation
        served = Served(setup.units.layout, checkpoint.state)
        context = RoundContext(number, setup.model_at(checkpoint), checkpoint.state, served, checkpoint.previous)
        work = work_of(stages, context, self.cohort(number), self.aggregator.layout)
        late, talk = self.measuring.late(work), SILENCE
        dropouts = {**dropouts, **{client: _last_stage_if_late(dropouts.get(client)) for client in late}}
        try:
            talk = self.confer(context, {client: one for client, one in work.items() if client not in late})
            aggregated = aggregate_work(
                self.aggregator,
                work,
                dropouts=dropouts,
                model_root=served.root,
                ledgers=ledgers,
                seed=self._session_seed(number),
            )
        except AbortError as error:
            drawn = self.federation.participants is not None
            if not (late or drawn or isinstance(error, DifferencingError)):
                raise  # and so would every other round
            return self._lose(checkpoint, work, talk, late, error)
        clients = self.measuring.clients(work, aggregated, talk, late)
        details = self.learn(number, clients, work, aggregated)
        seconds = self.measuring.round_seconds(clients)
        after = Checkpoint(
            number + 1,
            new_model(stages, context, aggregated),
            checkpoint.state,
            checkpoint.seconds + seconds,
            self.remember(),
        )
        model, precision = setup.model_at(after), setup.training.precision
        result = RoundResult(
            number=number,
            accuracy=accuracy(model, setup.test, precision),
            finished_at=after.seconds,
            seconds=seconds,
            clients={str(client): one for client, one in clients.items()},
            survivors=tuple(map(str, aggregated.survivors)),
            withheld_share=aggregated.withheld_share,
            difference=self._difference(aggregated, work, dropouts),
            verdict=" Besides: ".join([aggregated.verdict, *(tally.verdict for tally in talk.tallies)]),
            details=details,
        )
        return result, after

    def _lose(
        self,
        checkpoint: Checkpoint,
        work: Mapping[Client, Work],
        talk: Talk,
        late: frozenset[Client],
        error: AbortError,
    ) -> tuple[LostRound, Checkpoint]:
        """A round that moved nothing but the clock, and not even that where a ledger refused it."""
        refused = isinstance(error, DifferencingError)
        clients = self.measuring.clients(work, None, talk, late)
        seconds = 0.0 if refused else self.measuring.round_seconds(clients)
        if not refused:
            self.learn(checkpoint.number, clients, work, None)
        after = replace(
            checkpoint, number=checkpoint.number + 1, seconds=checkpoint.seconds + seconds, memory=self.remember()
        )
        return LostRound(number=checkpoint.number, reason=str(error), seconds=seconds), after

    def _session_seed(self, number: int) -> bytes:
        """Secrets of its own for every session, although runs repeat."""
        return session_seed(self.federation.seed, "round", self.name, self.settings, number)

    def _difference(self, aggregated: Aggregated, work: Mapping[Client, Work], dropouts: Dropouts) -> float | None:
        if self._twin is None:
            return None
        return largest_difference(aggregated, aggregate_work(self._twin, work, dropouts=dropouts))


def _last_stage_if_late(own: SessionStage | str | None) -> SessionStage:
    """Where a late client leaves: its vector never arrives, and it may have left on its own before."""
    return SessionStage.SHARE_KEYS if own is None else min(SessionStage.of(own), SessionStage.SHARE_KEYS)


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
