"""The server's side: a wrapper around a strategy, which is handed the mean as if it were one client's reply.

A round is three exchanges with a semi-honest server: shares, masked vectors, unmasking. The keys of the next round come
with the unmasking, so that only the first round, and nodes that were not in the last one, need an exchange to advertise
them. With an active server a round is five. Nodes check whether all of them agree on who survived; and keys are for one
session, which is bound to what is asked of everybody in its round, so they cannot come with the round before.
"""

from __future__ import annotations

import os
from logging import INFO, WARNING
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log

from protocols.engines.flower.agreement import METRIC, Agreement, tensors_of
from protocols.engines.flower.exchange import Patience
from protocols.engines.flower.history import RoundRecord
from protocols.engines.flower.means import check_strategy, weight_key
from protocols.engines.flower.records import category_of, digest, without_ours
from protocols.engines.flower.secure_round import BREAKS_OFF, SecureRound, abandon
from protocols.engines.flower.training import arrays_in, shapes_of
from secagg import Params
from secagg.errors import InputError, ParameterError
from secagg.privacy.ledger import PrivacyLedger
from secagg.session import ID_BYTES
from secagg.structure import Structure
from secagg.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flwr.app import ConfigRecord
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Result
    from numpy.typing import NDArray

    from secagg import Aggregate, Layout
    from secagg.params import Mode

    Arrays = dict[str, NDArray[Any]]

Evaluation = Literal["none", "secure", "clear"]
EVALUATIONS: tuple[Evaluation, ...] = ("none", "secure", "clear")


class SecureAggregation(Strategy):  # type: ignore[misc]  # Flower's types are not read
    """A strategy whose server learns the weighted mean of the updates, and no update.

    Nodes need ``secure_aggregation_mod``; with an active server a ``SecureAggregationMod`` that was given the same
    settings, and all of them are asked for the same. Who fails, or does not answer in time, has dropped out; where too
    few are left, the round is aborted: the model stays as it is, and ``history`` says why. If it had come so far that
    the sum may be known, nodes send nothing more for this model, and training goes on from another one only.

    Args:
        strategy: The strategy to wrap; one that needs no more than the mean.
        params: The settings of the sessions. ``max_weight`` is the most examples that a client may have.
        mode: ``"uniform"``, or ``"mask-indexed"`` where apps ``declare`` what they hold.
        layout: The layout of the model with its units, for compact declarations of unit masks.
        weighted: Whether clients weigh as much as the metric says that the strategy weights by; else all weigh the
            same. None: they do, unless there is ``params.privacy``. Weights are hidden in one round, not over rounds:
            when a node drops out or comes back, the total changes by its weight.
        metrics: Name of each metric of training that is averaged, to its largest magnitude: public, never chosen from
            private data. Other metrics stay on the nodes.
        evaluation: What becomes of the strategy's evaluation on nodes. ``"none"``: there is none; ``"secure"``: its
            ``evaluation_metrics`` are averaged in a session of their own; ``"clear"``: every node's metrics and number
            of examples go to the server as they are.
        evaluation_metrics: As ``metrics``.
        timeout: As ``Patience``; that of ``start`` holds for evaluation in the clear alone.
        quorum: As ``Patience``.
        grace: As ``Patience``.
        poll: As ``Patience``.
        pinned: With an active server, the public identity of every client by its number, as the nodes have it.
        needs_only_mean: Your word for a strategy that is not Flower's own.

    Raises:
        ParameterError: The strategy needs single updates, or settings contradict each other.
    """

    def __init__(
        self,
        strategy: Strategy,
        params: Params | None = None,
        *,
        mode: Mode = "uniform",
        layout: Layout | None = None,
        weighted: bool | None = None,
        metrics: Mapping[str, float] | None = None,
        evaluation: Evaluation = "none",
        evaluation_metrics: Mapping[str, float] | None = None,
        timeout: float = 600.0,
        quorum: float = 1.0,
        grace: float = 0.0,
        poll: float = 0.1,
        pinned: Mapping[int, bytes] | None = None,
        needs_only_mean: bool = False,
    ) -> None:
        check_strategy(strategy, needs_only_mean=needs_only_mean)
        self.strategy = strategy
        self.params = params or Params()
        self.history: list[RoundRecord] = []
        self.spent = PrivacyLedger()
        self._weighted = self.params.privacy is None if weighted is None else weighted
        self._mode: Mode = mode
        self._layout = layout
        self._metrics = {MessageType.TRAIN: dict(metrics or {}), MessageType.EVALUATE: dict(evaluation_metrics or {})}
        self._patience = Patience(timeout=timeout, quorum=quorum, grace=grace, poll=poll)
        self._pinned = pinned
        self._evaluation = evaluation
        self._last_round: int | None = None
        self._keys: dict[str, tuple[Agreement, dict[int, bytes]]] = {}
        self._found: dict[str, tuple[int, tuple[Aggregate, Message]]] = {}
        self._check_settings()

    def start(self, grid: Grid, initial_arrays: ArrayRecord, num_rounds: int = 3, *args: Any, **kwargs: Any) -> Result:
        """Runs the strategy, as ``Strategy.start``; in the end no node keeps a secret, if it hears of the end."""
        self._last_round = num_rounds
        try:
            return super().start(grid, initial_arrays, num_rounds, *args, **kwargs)
        finally:
            for kind, (following, keys) in self._keys.items():
                abandon(grid, kind, following, keys, used_up=False)
            self._keys, self._found = {}, {}

    def summary(self) -> None:
        """Logs the settings."""
        params = self.params
        log(INFO, "\t├──> Secure aggregation: %s, against %s server", self._mode, params.adversary)
        log(INFO, "\t│\t├── min_cohort %s, max_dropouts %s", params.min_cohort, params.max_dropouts)
        log(INFO, "\t│\t└── evaluation on nodes: %s", self._evaluation)
        if self._evaluation == "clear":
            log(WARNING, "\t│\tevaluation='clear': every node's metrics and number of examples go to the server")
        if self._weighted:
            log(WARNING, "\t│\tweighted=True: over rounds with dropouts, totals of weights may give single ones away")
        self.strategy.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Plays the session, in which nodes train: ``start`` has nothing left to send, and nobody to wait for."""
        self._found.pop(MessageType.TRAIN, None)
        self._play(server_round, list(self.strategy.configure_train(server_round, arrays, config, grid)), grid)
        return []

    def aggregate_train(
        self,
        server_round: int,
        replies: Iterable[Message],  # noqa: ARG002 - there are none
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hands the strategy the mean as one reply."""
        found = self._found_in(server_round, MessageType.TRAIN)
        if found is None:
            return None, None
        aggregate, asked = found
        before = arrays_in(asked.content)
        reply = self._reply(aggregate, asked, _applied(aggregate, before))
        arrays, metrics = self.strategy.aggregate_train(server_round, [reply])
        return None if arrays is None else _like(arrays, before, _withheld(aggregate)), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As ``configure_train``, for evaluation."""
        self._found.pop(MessageType.EVALUATE, None)
        if self._evaluation == "none":
            return []
        asked = list(self.strategy.configure_evaluate(server_round, arrays, config, grid))
        if self._evaluation == "clear":
            return asked
        self._play(server_round, asked, grid)
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """As ``aggregate_train``, for evaluation."""
        if self._evaluation == "clear":
            return self.strategy.aggregate_evaluate(server_round, replies)
        found = self._found_in(server_round, MessageType.EVALUATE)
        if found is None:
            return None
        return self.strategy.aggregate_evaluate(server_round, [self._reply(*found)])

    def _check_settings(self) -> None:
        if self.params.privacy is not None and (self._metrics[MessageType.TRAIN] or self._evaluation != "none"):
            raise ParameterError("metrics and evaluation have no noise: with Params.privacy, leave both out")
        if self._evaluation not in EVALUATIONS:
            raise ParameterError(f"evaluation must be one of {EVALUATIONS}, not {self._evaluation!r}")
        if (self._evaluation == "secure") != bool(self._metrics[MessageType.EVALUATE]):
            raise ParameterError("evaluation='secure' and evaluation_metrics belong together: set both, or neither")
        if (self._pinned is not None) != self.params.active:
            raise ParameterError("pinned identities and adversary='active' belong together: set both, or neither")

    def _play(self, server_round: int, asked: list[Message], grid: Grid) -> None:
        if not asked:
            return
        kind = asked[0].metadata.message_type
        category = category_of(kind)
        _check_alike(asked, bound=self.params.active)
        requests = {message.metadata.dst_node_id: message.content for message in asked}
        agreement, keys = self._agreed(server_round, kind, requests, grid)
        last = self.params.active or server_round == self._last_round
        following = None if last else agreement.next(_id())
        playing = SecureRound(agreement, grid, kind, self._patience, self._pinned)
        try:
            aggregate, keys = playing.run(requests, keys, following)
        except BREAKS_OFF as error:
            self._abort(playing, server_round, category, error)
            return
        except BaseException as error:  # answers that open the sum may be on their way
            self._abort(playing, server_round, category, error)
            raise
        if following is not None:
            self._keys[category] = (following, keys)
        if aggregate.event is not None:
            self.spent.record(aggregate.event)
        row = _row(server_round, category, playing, aggregate)
        self.history.append(row)
        log(INFO, "secure_aggregation: round %s, %s: %s", server_round, category, row.line())
        log(INFO, "\t└──> %s", row.verdict)
        self._found[category] = server_round, (aggregate, asked[0])

    def _found_in(self, server_round: int, category: str) -> tuple[Aggregate, Message] | None:
        """What a round came to, once; nothing where it is another round's."""
        kept, found = self._found.pop(category, (server_round, None))
        return found if kept == server_round else None

    def _abort(self, playing: SecureRound, server_round: int, category: str, error: BaseException) -> None:
        row = RoundRecord(
            round=server_round,
            kind=category,
            outcome="aborted",
            reason=f"{type(error).__name__}: {error}",
            stages=tuple(playing.stages),
            event=playing.event,
            used_up=playing.used_up,
        )
        if row.event is not None:
            self.spent.record(row.event)
        self.history.append(row)
        log(WARNING, "secure_aggregation: round %s, %s: %s", server_round, category, row.line())

    def _agreed(
        self, server_round: int, kind: str, requests: Mapping[int, RecordDict], grid: Grid
    ) -> tuple[Agreement, dict[int, bytes]]:
        """The session of this round, and the keys that were advertised for it in the round before."""
        content = next(iter(requests.values()))
        layout = self._model(content) if category_of(kind) == MessageType.TRAIN else None
        evaluated = layout is None
        agreement = Agreement(
            run=str(grid.run.run_id),
            round=server_round,
            session=_id(),
            params=self.params,
            mode="uniform" if evaluated else self._mode,
            weighted_by=weight_key(self.strategy) if self._weighted else "",
            metrics=tuple(self._metrics[category_of(kind)].items()),
            tensors=tensors_of(layout),
            unit_groups=() if layout is None else tuple(layout.unit_groups.items()),
            request=digest(kind, without_ours(content)) if self.params.active else b"",
        )
        prepared, keys = self._keys.pop(category_of(kind), (agreement, {}))
        # Whatever the strategy changed in between, keys are good for the session that they were made for only.
        unchanged = agreement.next(prepared.session).encode() == prepared.next(prepared.session).encode()
        abandon(grid, kind, prepared, set(keys).difference(requests if unchanged else ()), used_up=False)
        return (prepared, keys) if unchanged else (agreement, {})

    def _model(self, content: RecordDict) -> Layout:
        try:
            found = Structure(arrays_in(content)).layout
        except InputError as error:
            raise ParameterError(f"the strategy sends no model that can be aggregated: {error}") from None
        if self._layout is None:
            return found
        if shapes_of(self._layout) != shapes_of(found):
            raise ParameterError("layout names other tensors, or other shapes, than the model has")
        return self._layout

    def _reply(self, aggregate: Aggregate, asked: Message, arrays: Arrays | None = None) -> Message:
        """The mean, as a strategy would have it from a single client."""
        means = aggregate.plan.session.layout.by_tensor(aggregate.mean)
        metrics = {name.removeprefix(METRIC): float(mean) for name, mean in means.items() if name.startswith(METRIC)}
        records = RecordDict({"metrics": MetricRecord({**metrics, weight_key(self.strategy): aggregate.total_weight})})
        if arrays is not None:
            name = next(iter(asked.content.array_records))
            records[name] = ArrayRecord({key: Array(values) for key, values in arrays.items()})
        return Message(records, reply_to=asked)


def _check_alike(asked: list[Message], *, bound: bool) -> None:
    """Refuses a strategy that sends nodes different models: their updates have no common mean.

    Args:
        asked: What it sends.
        bound: Whether all else has to be the same, too.
    """
    first = asked[0]
    for message in asked[1:]:
        same = message.content is first.content or message.content.array_records == first.content.array_records
        if not same or message.metadata.message_type != first.metadata.message_type:
            raise ParameterError("the strategy sends nodes different models, whose updates have no common mean")
        if bound and message.content is not first.content and message.content != first.content:
            raise ParameterError("with adversary='active' the strategy has to ask all nodes for the same")


def _applied(aggregate: Aggregate, before: Arrays) -> Arrays:
    """The model after the mean; what is withheld or not aggregated stays as it was."""
    steps = aggregate.plan.session.layout.by_tensor(np.nan_to_num(aggregate.mean, nan=0.0))
    moved: Arrays = Structure(before).moved(before, steps)
    return moved


def _withheld(aggregate: Aggregate) -> Mapping[str, NDArray[np.bool_]]:
    """Tensor name to the coordinates without a mean."""
    return aggregate.plan.session.layout.by_tensor(np.isnan(aggregate.mean))


def _like(arrays: ArrayRecord, before: Arrays, withheld: Mapping[str, NDArray[np.bool_]]) -> ArrayRecord:
    """Arrays in the types of the model; integers, which strategies average, and what is withheld, as they were.

    Momentum would move what is withheld, too.
    """
    kept = {}
    for name, array in arrays.items():
        old = before.get(name)
        if old is None:
            kept[name] = array
        elif name in withheld:
            kept[name] = Array(np.where(withheld[name], old, array.numpy()).astype(old.dtype))
        else:
            kept[name] = Array(old)
    return ArrayRecord(kept)


def _row(server_round: int, kind: str, playing: SecureRound, aggregate: Aggregate) -> RoundRecord:
    released = aggregate.plan.released
    return RoundRecord(
        round=server_round,
        kind=kind,
        outcome="aggregated",
        stages=tuple(playing.stages),
        survivors=len(aggregate.survivors),
        total_weight=aggregate.total_weight,
        smallest_group=aggregate.smallest_group,
        withheld_share=1 - aggregate.plan.released_count / len(released),
        verdict=verdict(aggregate),
        event=aggregate.event,
    )


def _id() -> bytes:
    return os.urandom(ID_BYTES)
