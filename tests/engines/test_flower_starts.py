"""One vector for each model: no two sums hold one update, whatever became of the first; and what outlives a round."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from protocols.engines.flower import Fault, LocalGrid, SecureAggregationMod
from protocols.engines.flower import secure_aggregation_mod as mod
from protocols.engines.flower.records import WIRE, as_array, wire
from protocols.engines.flower.starts import Starts
from secagg import Params, Privacy, messages
from secagg.errors import DifferencingError
from tests.engines.federation import (
    EVERYBODY,
    NODES,
    PARAMS,
    STAGES,
    app_of,
    assert_same,
    at,
    expected,
    model,
    record,
    run,
    secure,
    stage_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from flwr.clientapp.typing import Mod

    from protocols.engines.flower.history import RoundRecord

SPENT = "start from a new model"
PRIVATE = Params(min_cohort=3, max_dropouts=1, privacy=Privacy(clip=1.0, noise_multiplier=0.5))


def spoiler(times: int = 1) -> Mod:
    """A mod whose node 6 sends a checksum of something else, so many times."""
    left = [times]

    def spoil(message: Message, context: Context, call_next: Any) -> Message:
        reply = mod(message, context, call_next)
        if stage_of(message) == "MaskedInput" and context.node_id == 6 and not reply.has_error() and left[0]:
            left[0] -= 1
            sent = messages.decode(wire(reply.content))
            assert isinstance(sent, messages.MaskedInput)
            other = msgspec.structs.replace(sent, check=bytes([sent.check[0] ^ 1]) + sent.check[1:])
            reply.content[WIRE] = ArrayRecord({"message": as_array(messages.encode(other))})
        return reply

    return spoil


def refused(row: RoundRecord) -> set[int]:
    """Who sends nothing more for a model."""
    return {node for stage in row.stages for node, reason in stage.failures.items() if SPENT in reason}


def test_a_sum_that_was_seen_but_not_released_cannot_be_subtracted_from_the_next() -> None:
    """Node 6 spoils the first round, node 3 is silent in the second: the difference would be node 3's update."""
    trains: list[int] = []
    app = app_of([spoiler()], train=lambda _, context: trains.append(context.node_id))
    strategy = secure(weighted=False)

    def silent(node: int, message: Message) -> Fault | None:
        second = stage_of(message) == "MaskedInput" and message.metadata.group_id == "2"
        return Fault.SILENT if second and node == 3 else None

    assert_same(run(strategy, LocalGrid(app, NODES, fault=silent), rounds=2), model())
    first, second = strategy.history
    assert first.reason.startswith("ChecksumError")
    assert first.used_up
    assert SPENT in first.line()
    assert "nothing was released" not in first.line()
    assert refused(second) == set(EVERYBODY)
    assert trains == list(EVERYBODY)  # nobody trains to find out


def test_a_node_may_do_without_that_rule() -> None:
    grid = LocalGrid(app_of([SecureAggregationMod(once=False)]), NODES)
    for _ in range(2):
        assert_same(run(secure(), grid), expected(model()))


def test_a_run_that_starts_from_the_same_model_is_refused_where_nodes_remember(tmp_path: Path) -> None:
    def folder(context: Context) -> Path:
        return tmp_path / str(context.node_id)

    for nodes, outcome in ((SecureAggregationMod(), "aggregated"), (SecureAggregationMod(remember=folder), "aborted")):
        rows = []
        for silent in ({}, {3: Fault.SILENT}):
            strategy = secure()
            run(strategy, LocalGrid(app_of([nodes]), NODES, fault=at("MaskedInput", silent)))
            rows += strategy.history
        assert [row.outcome for row in rows] == ["aggregated", outcome]
    assert refused(rows[1]) == set(EVERYBODY)


def test_a_model_is_remembered_in_one_run_of_two_at_a_time(tmp_path: Path) -> None:
    first, second = (Starts(RecordDict(), tmp_path / "starts") for _ in range(2))
    one, other = bytes(32), b"1" * 32
    for starts in (first, second):
        starts.check(one)
    first.add(one)
    with pytest.raises(DifferencingError, match=SPENT):
        second.add(one)
    second.add(other)
    first.discard(one)
    second.check(one)
    with pytest.raises(DifferencingError, match=SPENT):
        second.check(other)


def test_a_round_that_nobody_was_asked_to_unmask_is_repeated() -> None:
    silent = dict.fromkeys((1, 2, 3), Fault.LOST)
    strategy = secure()
    found = run(strategy, LocalGrid(app_of(), NODES, fault=at("MaskedInput", silent)), rounds=2)
    assert [(row.outcome, row.used_up) for row in strategy.history] == [("aborted", False), ("aggregated", False)]
    assert_same(found, expected(model()))


def test_a_round_that_late_answers_could_open_to_the_harm_of_somebody_is_not_repeated() -> None:
    """Two answers open everything, and the cohort is to be three; or nobody knows what those who answer hold."""
    low = secure(Params(min_cohort=3, max_dropouts=2, share_threshold=2, max_weight=100))
    silent = dict.fromkeys((1, 2, 3, 4, 5), Fault.SILENT)
    for strategy in (low, secure(mode="mask-indexed")):
        run(strategy, LocalGrid(app_of(), NODES, fault=at("Unmask", silent)), rounds=2)
        assert [(row.outcome, row.used_up) for row in strategy.history] == [("aborted", True), ("aborted", False)]
        assert refused(strategy.history[1]) == set(EVERYBODY)


def test_a_model_is_trained_and_evaluated_once_each() -> None:
    strategy = secure(evaluation="secure", evaluation_metrics={"accuracy": 1.0}, params=PARAMS)
    silent = dict.fromkeys((1, 2, 3, 4, 5), Fault.SILENT)
    grid = LocalGrid(app_of(), NODES, fault=at("ShareKeys", silent))
    run(strategy, grid, rounds=2)
    assert [(row.kind, row.outcome) for row in strategy.history] == [
        ("train", "aborted"),
        ("evaluate", "aggregated"),  # of the first model
        ("train", "aggregated"),
        ("evaluate", "aggregated"),
    ]


def test_noise_that_was_seen_is_spent() -> None:
    spoilt, whole = secure(PRIVATE), secure(PRIVATE)
    run(spoilt, LocalGrid(app_of([spoiler()]), NODES))
    run(whole, LocalGrid(app_of(), NODES))
    assert spoilt.history[0].outcome == "aborted"
    assert spoilt.history[0].event == whole.history[0].event
    assert 0 < spoilt.spent.epsilon(1e-5) == whole.spent.epsilon(1e-5) < math.inf
    early = secure(PRIVATE)
    run(early, LocalGrid(app_of(), NODES, fault=at("MaskedInput", dict.fromkeys((1, 2), Fault.SILENT))))
    assert early.history[0].event is None
    assert early.spent.epsilon(1e-5) == 0


class Failing(LocalGrid):
    """A grid that fails once, when the server looks for answers to a stage, or says it farewell."""

    def __init__(self, stage: str, error: BaseException, **settings: Any) -> None:
        super().__init__(app_of(), NODES, **settings)
        self._stage, self._error = stage, [error]
        self._asked: set[str] = set()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Nodes answer; what they said waits."""
        sent = list(messages)
        self._asked = set(map(stage_of, sent))
        if "Abandon" in self._asked:
            self._fail()
        return super().push_messages(sent)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """What they said, or the error."""
        self._fail()
        return super().pull_messages(message_ids)

    def _fail(self) -> None:
        if self._stage in self._asked and self._error:
            raise self._error.pop()


@pytest.mark.parametrize("error", [ConnectionError("away"), KeyboardInterrupt()])
@pytest.mark.parametrize("stage", ["Unmask", "Abandon"])
def test_so_it_is_where_an_error_ends_the_round_with_the_answers_on_their_way(stage: str, error: BaseException) -> None:
    lost, whole = secure(PRIVATE), secure(PRIVATE)
    grid = Failing(stage, error, fault=at("Unmask", {3: Fault.LOST}))
    with pytest.raises(type(error)):
        run(lost, grid)
    run(whole, LocalGrid(app_of(), NODES))
    (row,) = lost.history
    assert (row.outcome, row.used_up, row.event) == ("aborted", True, whole.history[0].event)
    assert row.reason.startswith(type(error).__name__)
    assert [stage.stage for stage in row.stages] == list(STAGES)
    run(lost, grid, start={name: values + 1 for name, values in model().items()})
    assert lost.history[1].outcome == "aggregated"
    assert len(lost.spent.events) == 2


def test_an_error_before_anybody_was_asked_to_unmask_costs_nothing() -> None:
    strategy = secure(PRIVATE)
    grid = Failing("MaskedInput", ConnectionError("away"))
    with pytest.raises(ConnectionError):
        run(strategy, grid)
    run(strategy, grid)
    first, second = strategy.history
    assert (first.outcome, first.used_up, first.event) == ("aborted", False, None)
    assert strategy.spent.events == (second.event,)


def test_an_error_that_ends_the_unmasking_uses_the_model_up_whoever_has_answered() -> None:
    strategy = secure()
    grid = Failing("Unmask", ConnectionError("away"), fault=at("Unmask", dict.fromkeys(EVERYBODY, Fault.SILENT)))
    with pytest.raises(ConnectionError):
        run(strategy, grid)
    run(strategy, grid)
    first, second = strategy.history
    assert SPENT in first.line()
    assert refused(second) == set(EVERYBODY)


def test_that_weights_are_not_hidden_over_rounds_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for weighted in (True, False):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "flwr"):
            secure(weighted=weighted).summary()
        assert ("totals of weights" in caplog.text) == weighted


# What outlives a round.


def secrets(grid: LocalGrid) -> dict[int, set[str]]:
    """What nodes keep besides digests of models."""
    kept = {node: set(grid.state(node)) - {"secagg.starts"} for node in EVERYBODY}
    return {node: names for node, names in kept.items() if names}


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.LOST, Fault.RAISES])
@pytest.mark.parametrize("stage", ["AdvertiseKeys", "ShareKeys", "MaskedInput", "Unmask"])
def test_who_has_dropped_out_is_told_to_forget(stage: str, fault: Fault) -> None:
    grid = LocalGrid(app_of(), NODES, fault=at(stage, {3: fault}))
    strategy = secure()
    run(strategy, grid)
    assert strategy.history[0].outcome == "aggregated"
    assert secrets(grid) == {}


class Fewer(FedAvg):  # type: ignore[misc]  # Flower's types are not read
    """Leaves node 2 out after the first round; all of them in a third."""

    def configure_train(self, server_round: int, *args: Any) -> Any:
        for message in super().configure_train(server_round, *args):
            if server_round == 1 or (server_round == 2 and message.metadata.dst_node_id != 2):
                yield message


def test_keys_for_a_round_in_which_a_node_is_not_drawn_are_forgotten() -> None:
    for rounds in (2, 3):
        grid = LocalGrid(app_of(), NODES)
        run(secure(strategy=Fewer()), grid, rounds)
        assert secrets(grid) == {}


def test_a_run_that_crashes_leaves_neither_keys_nor_updates() -> None:
    class Crashing(FedAvg):  # type: ignore[misc]  # Flower's types are not read
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            if server_round == 2:
                raise RuntimeError
            return super().aggregate_train(server_round, replies)

    class Broken(LocalGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            sent = list(messages)
            names = super().push_messages(sent)
            if "MaskedInput" in map(stage_of, sent):
                raise RuntimeError
            return names

    for strategy, grid in (
        (secure(strategy=Crashing(), needs_only_mean=True), LocalGrid(app_of(), NODES)),
        (secure(), Broken(app_of(), NODES)),
    ):
        with pytest.raises(RuntimeError):
            strategy.start(grid, record(model()), num_rounds=3)
        assert secrets(grid) == {}


def test_dropouts_that_leave_too_few_for_a_setting_abort_the_round_and_no_more() -> None:
    strategy = secure(replace(PARAMS, share_threshold=5, max_dropouts=None))
    grid = LocalGrid(app_of(), NODES, fault=at("AdvertiseKeys", dict.fromkeys((1, 2), Fault.SILENT)))
    assert_same(run(strategy, grid, rounds=2), expected(model()))
    first, second = strategy.history
    assert first.reason.startswith("ParameterError: share_threshold 5 exceeds")
    assert second.outcome == "aggregated"
