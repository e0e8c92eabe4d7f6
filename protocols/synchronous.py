"""Synchronous rounds: a cohort trains, its updates are joined, and the slowest client decides how long it takes.

What makes one system of this kind differ from another is its stages.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from protocols.federation import Checkpoint
from protocols.fetch import Served
from protocols.measuring import SILENCE
from protocols.randomness import session_seed
from protocols.results import LostRound, RoundResult
from protocols.round import RoundContext, aggregate_work, new_model, work_of
from protocols.stages import Delta, Fetch, LocalTraining
from protocols.system import System, largest_difference
from protocols.training import accuracy
from pruning.masks import Mask
from secagg.declaration import Provenance
from secagg.driver import Stage as SessionStage
from secagg.errors import AbortError, DifferencingError
from secagg.privacy.events import NonPrivate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.aggregators import Aggregated, Client, Dropouts, Ledgers
    from protocols.measuring import Talk
    from protocols.results import ClientRound, Outcome
    from protocols.round import Stage, Work


class SynchronousSystem(System):
    """A federated system in rounds; by default federated averaging."""

    accounts = True

    def stages(self) -> tuple[Stage, ...]:
        """The stages of its rounds, outermost first: by default the whole model is fetched, trained and subtracted."""
        setup = self.federation
        return Fetch(), LocalTraining(setup.examples, setup.training, setup.seed), Delta()

    def cohort(self, number: int) -> tuple[Client, ...]:
        """Who is invited to a round: by default whoever the federation draws."""
        return self.federation.cohort(number)

    def foreseen_masks(self) -> Mapping[Client, Mask]:
        """See ``System.foreseen_masks``: of its own cohort."""
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
        context: RoundContext,  # noqa: ARG002 - most learn nothing
        clients: Mapping[Client, ClientRound],  # noqa: ARG002
        work: Mapping[Client, Work],  # noqa: ARG002
        aggregated: Aggregated | None,  # noqa: ARG002
    ) -> Mapping[str, float]:
        """Takes in a finished round for the next one.

        Args:
            context: Where it started.
            clients: What everybody did.
            work: Their finished work, which only systems without encryption may look at for the server's sake.
            aggregated: What came of it; None where the round was lost.

        Returns:
            What it measured, for the results.
        """
        return {}

    def step(self, checkpoint: Checkpoint, dropouts: Dropouts, ledgers: Ledgers | None) -> tuple[Outcome, Checkpoint]:
        """See ``System.step``."""
        number, setup, stages = checkpoint.number, self.federation, self.stages()
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
            return self._lose(checkpoint, context, work, talk, late, error=error)
        clients = self.measuring.clients(work, aggregated, talk, late)
        difference = self._difference(aggregated, work, dropouts)
        details = {**self.learn(context, clients, work, aggregated), **self._spent(work, aggregated, talk)}
        seconds = self.measuring.round_seconds(clients)
        after = Checkpoint(
            number + 1,
            new_model(stages, context, aggregated),
            checkpoint.state,
            checkpoint.seconds + seconds,
            self.memory(),
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
            difference=difference,
            verdict=" Besides: ".join([aggregated.verdict, *(one.verdict for one in talk.sessions), *self._promised()]),
            details=details,
        )
        return result, after

    def _spent(self, work: Mapping[Client, Work], aggregated: Aggregated | None, talk: Talk) -> Mapping[str, float]:
        """Charges a round to those whose updates are in it, and tells the most that any client has spent so far.

        What has no guarantee, such as masks from data, is charged to all who took part: they were seen before anybody
        dropped out, and even if the round was lost. So is training with private examples: all that is said of the
        trained models comes after it.
        """
        if self.spending is None:
            return {}
        private = self.federation.training.private
        if private is not None:
            for client in work:
                self.spending.record([client], private.event(len(self.federation.examples[client])))
            return {"epsilon": self.spending.epsilon}
        if any(session.provenance is Provenance.DATA for session in talk.sessions):
            self.spending.record(work, NonPrivate(reason="clients conferred about their data without noise"))
        elif aggregated is not None:
            event = aggregated.event or NonPrivate(reason="updates were joined without noise")
            self.spending.record(work if isinstance(event, NonPrivate) else aggregated.survivors, event)
        return {"epsilon": self.spending.epsilon}

    def _promised(self) -> tuple[str, ...]:
        """What training with private examples adds to the verdict."""
        if self.spending is None or self.federation.training.sample_level is None:
            return ()
        spent = f"epsilon {self.spending.epsilon:.3g} at delta {self.spending.delta:g} so far"
        return (f"each client's examples are differentially private (one, or no gradient of it), by DP-SGD: {spent}.",)

    def _lose(
        self,
        checkpoint: Checkpoint,
        context: RoundContext,
        work: Mapping[Client, Work],
        talk: Talk,
        late: frozenset[Client],
        *,
        error: AbortError,
    ) -> tuple[LostRound, Checkpoint]:
        """A round that moved nothing but the clock, and not even that where a ledger refused it."""
        refused = isinstance(error, DifferencingError)
        clients = self.measuring.clients(work, None, talk, late)
        seconds = 0.0 if refused else self.measuring.round_seconds(clients)
        if not refused:
            self.learn(context, clients, work, None)
        self._spent(work, None, talk)
        after = replace(
            checkpoint, number=checkpoint.number + 1, seconds=checkpoint.seconds + seconds, memory=self.memory()
        )
        opened = "".join(f" Before it was lost: {one.verdict}" for one in talk.sessions)
        return LostRound(number=checkpoint.number, reason=str(error) + opened, seconds=seconds), after

    def _session_seed(self, number: int) -> bytes:
        """Secrets of its own for every session, although runs repeat."""
        return session_seed(self.federation.seed, "round", self.name, self.settings, number)

    def _difference(self, aggregated: Aggregated, work: Mapping[Client, Work], dropouts: Dropouts) -> float | None:
        if self.twin is None:
            return None
        return largest_difference(aggregated, aggregate_work(self.twin, work, dropouts=dropouts))


def _last_stage_if_late(own: SessionStage | str | None) -> SessionStage:
    """Where a late client leaves: its vector never arrives, and it may have left on its own before."""
    return SessionStage.SHARE_KEYS if own is None else min(SessionStage.of(own), SessionStage.SHARE_KEYS)
