"""What leaves a node, what stays on it, and for how long."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.run import Run

from protocols.engines.flower import Fault, Keys, LocalGrid, SecureAggregation, SecureAggregationMod, declare
from protocols.engines.flower import secure_aggregation_mod as mod
from protocols.engines.flower.agreement import Agreement
from protocols.engines.flower.records import STAGE, WIRE, as_array, wire
from secagg import Identity, Params, Privacy, messages
from secagg.errors import DecodingError, ParameterError
from tests.engines.federation import (
    EVERYBODY,
    NODES,
    PARAMS,
    PINNED,
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
    trained,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def from_node(message: Message) -> bool:
    return bool(message.metadata.dst_node_id == 0)


def bytes_in(content: RecordDict) -> bytes:
    """Everything that a message says, on end."""
    arrays = [array.data for one in content.array_records.values() for array in one.values()]
    said = [repr(dict(one)).encode() for one in (*content.metric_records.values(), *content.config_records.values())]
    return b"".join([*arrays, *said])


@pytest.mark.parametrize("stage", [None, *STAGES])
def test_no_reply_holds_an_update_a_weight_or_a_metric_in_the_clear(stage: str | None) -> None:
    replies: list[Message] = []
    fault = at(stage, {2: Fault.RAISES, 4: Fault.FORGETS}) if stage else lambda *_: None
    grid = LocalGrid(app_of(), NODES, fault=fault, observe=replies.append)
    run(secure(metrics={"loss": 8.0}, evaluation="secure", evaluation_metrics={"accuracy": 1.0}), grid, rounds=2)
    replies = [message for message in replies if from_node(message) and not message.has_error()]
    assert {stage_of(reply) for reply in replies} >= set(STAGES)
    for reply in replies:
        node, content = reply.metadata.src_node_id, reply.content
        assert set(content) <= {STAGE, WIRE}
        assert set(content[STAGE]) == {"stage", "session"}
        assert all(array.dtype == "uint8" for array in content.array_records.get(WIRE, {}).values())
        after = trained(model(), node)
        plain = [array.tobytes() for name, array in after.items() if array.dtype.kind == "f"]
        plain += [(array - model()[name]).tobytes() for name, array in after.items() if array.dtype.kind == "f"]
        assert not any(one in bytes_in(content) for one in plain)


def test_a_masked_vector_differs_from_the_encoded_update_in_every_coordinate() -> None:
    """The same node sends the same update to two sessions, and what arrives has nothing in common."""
    vectors = []
    for _ in range(2):
        seen: dict[int, bytes] = {}

        def observe(message: Message, seen: dict[int, bytes] = seen) -> None:
            if stage_of(message) == "MaskedInput" and from_node(message):
                seen[message.metadata.src_node_id] = wire(message.content)

        run(secure(), LocalGrid(app_of(), NODES, observe=observe))
        message = messages.decode(seen[1])
        assert isinstance(message, messages.MaskedInput)
        vectors.append(np.frombuffer(message.vector, np.uint8))
    assert (vectors[0] != vectors[1]).mean() > 0.9


def test_what_an_app_raises_stays_on_its_node() -> None:
    def fail(*_: Any) -> Message:
        raise ValueError("patient 4711")

    errors: list[Message] = []
    strategy = secure()
    run(strategy, LocalGrid(app_of(train=fail), NODES, observe=lambda m: errors.append(m) if m.has_error() else None))
    assert len(errors) == NODES
    assert all(one.error.reason == "ValueError in the ClientApp: its log says more" for one in errors)
    assert "4711" not in repr(strategy.history)


def test_an_error_that_an_app_replies_with_is_passed_on() -> None:
    strategy = secure()
    run(strategy, LocalGrid(app_of(train=lambda m, _: Message(Error(6, "no data"), reply_to=m)), NODES))
    assert strategy.history[0].stages[1].failures == dict.fromkeys(EVERYBODY, "no data")


def reply_of(**records: Any) -> Callable[[Message, Context], Message]:
    return lambda message, _: Message(RecordDict(records), reply_to=message)


AFTER, COUNT = record(trained(model(), 1)), MetricRecord({"num-examples": 3})


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (reply_of(metrics=COUNT), "InputError: a message with the model has one ArrayRecord, not 0"),
        (reply_of(arrays=AFTER, more=AFTER, metrics=COUNT), "not 2"),
        (reply_of(arrays=record({"fc.weight": np.ones(3)}), metrics=COUNT), "other arrays than it received"),
        (reply_of(arrays=record(model() | {"fc.bias": np.ones(5)}), metrics=COUNT), "another shape of fc.bias"),
        (reply_of(arrays=AFTER), "WeightError: the app's reply has no metric num-examples"),
        (
            reply_of(arrays=AFTER, metrics=MetricRecord({"num-examples": 101})),
            "WeightError: a weight exceeds max_weight",
        ),
        (reply_of(arrays=record(model() | {"fc.bias": np.full(4, 9, np.float32)}), metrics=COUNT), "OutOfRangeError"),
        (
            reply_of(**{"arrays": AFTER, "metrics": COUNT, "secagg.mask": ConfigRecord({"kind": "full"})}),
            "no declaration of a mask",
        ),
        (
            reply_of(
                **{
                    "arrays": AFTER,
                    "metrics": COUNT,
                    "secagg.mask": ConfigRecord({"kind": "some", "data": b"", "provenance": "data"}),
                }
            ),
            "no declaration of a mask",
        ),
    ],
)
def test_a_reply_that_cannot_be_aggregated_is_refused_on_its_node_by_name(reply: Any, reason: str) -> None:
    strategy = secure()
    run(strategy, LocalGrid(app_of(train=reply), NODES))
    failures = strategy.history[0].stages[1].failures
    assert set(failures) == set(EVERYBODY)
    assert all(reason in one for one in failures.values())


# What stays on a node.


def states_during(stage: str) -> tuple[LocalGrid, dict[int, set[str]]]:
    """The names of what nodes keep when they receive a message of a stage in the second round, and the grid after."""
    kept: dict[int, set[str]] = {}

    def observe(message: Message) -> None:
        if stage_of(message) == stage and not from_node(message):
            kept[message.metadata.dst_node_id] = set(grid.state(message.metadata.dst_node_id))

    grid = LocalGrid(app_of(), NODES, observe=observe)
    run(secure(), grid, rounds=2)
    return grid, kept


def test_an_update_waits_for_its_mask_only_and_after_the_last_round_a_node_keeps_no_secret() -> None:
    session, update, starts = "secagg.train", "secagg.train.update", "secagg.starts"
    for stage, names in (
        ("ShareKeys", {session, starts}),
        ("MaskedInput", {session, update, starts}),
        ("Unmask", {session, starts}),
    ):
        grid, kept = states_during(stage)
        assert kept == dict.fromkeys(EVERYBODY, names)
        assert all(set(grid.state(node)) == {starts} for node in EVERYBODY)


def test_what_the_app_keeps_for_itself_is_left_alone() -> None:
    def remember(_: Message, context: Context) -> None:
        context.state["mine"] = ConfigRecord({"rounds": context.state.get("mine", {"rounds": 0})["rounds"] + 1})

    grid = LocalGrid(app_of(train=remember), NODES)
    run(secure(), grid, rounds=3)
    assert [dict(grid.state(node)["mine"]) for node in EVERYBODY] == [{"rounds": 3}] * NODES


def test_the_app_sees_a_message_as_if_there_were_no_encryption() -> None:
    seen: list[tuple[set[str], list[str], dict[str, Any]]] = []

    def look(message: Message, _: Context) -> None:
        content = message.content
        seen.append((set(content), list(content["arrays"]), dict(content["config"])))

    run(secure(), LocalGrid(app_of(train=look), NODES))
    assert seen == [({"arrays", "config"}, list(model()), {"server-round": 1})] * NODES


def recorded(stage: str, rounds: int = 1) -> tuple[LocalGrid, dict[int, Message]]:
    """A grid in the middle of a session, in front of a stage that nobody reached, and that stage's messages."""
    sent: dict[int, Message] = {}

    def fault(node: int, message: Message) -> Fault | None:
        if stage_of(message) == stage:
            sent.setdefault(node, message)
        return Fault.SILENT if stage_of(message) in {stage, "Abandon"} else None

    grid = LocalGrid(app_of(), NODES, fault=fault)
    run(secure(), grid, rounds)
    grid._fault = lambda *_: None
    return grid, sent


def asked(grid: LocalGrid, message: Message) -> Message:
    """What a node answers to a message."""
    (reply,) = grid.send_and_receive([message])
    return reply


def test_a_message_of_one_run_is_refused_in_another() -> None:
    grid, sent = recorded("MaskedInput")
    grid.set_run(Run.create_empty(2))
    assert "belongs to another run" in asked(grid, sent[1]).error.reason
    grid, sent = recorded("AdvertiseKeys")
    grid.set_run(Run.create_empty(2))
    assert "a session of another run" in asked(grid, sent[1]).error.reason


def test_two_runs_on_the_same_nodes_do_not_mix() -> None:
    grid, _ = recorded("MaskedInput")
    grid.set_run(Run.create_empty(2))
    assert_same(run(secure(), grid), expected(model()))


def test_a_vector_is_masked_once() -> None:
    grid, sent = recorded("MaskedInput")
    first = asked(grid, sent[1])
    assert not first.has_error()
    kept = grid.states[1]
    assert "in state Masked" in asked(grid, sent[1]).error.reason
    assert grid.states[1] == kept


def test_a_node_whose_state_was_put_back_sends_the_same_bytes_again() -> None:
    """Flower keeps the state of before, if an app dies between its answer and its end."""
    grid, sent = recorded("MaskedInput")
    before = grid.states
    answers = []
    for _ in range(2):
        grid.states = before
        answers.append(wire(asked(grid, sent[1]).content))
    assert answers[0] == answers[1]


def test_stages_out_of_turn_and_of_other_sessions_are_refused_and_change_nothing() -> None:
    grid, sent = recorded("MaskedInput")
    message, kept = sent[1], grid.states[1]

    def altered(**fields: Any) -> Message:
        content = RecordDict({**message.content, STAGE: ConfigRecord({**message.content[STAGE], **fields})})
        return Message(content, 1, "train")

    for fields, reason in (
        ({"stage": "Unmask"}, "in state Shared"),
        ({"stage": "Nonsense"}, "no such stage"),
        ({"stage": 3}, "without stage"),
        ({"session": bytes(16)}, "keeps nothing of that session"),
        ({"stage": "Abandon", "session": bytes(16)}, "keeps nothing of that session"),
        ({"stage": "AdvertiseKeys"}, "without agreement"),
        ({"stage": "AdvertiseKeys", "agreement": b"nonsense"}, "not an agreement"),
    ):
        assert reason in asked(grid, altered(**fields)).error.reason
    empty = Message(RecordDict({STAGE: message.content[STAGE]}), 1, "train")
    assert "without message" in asked(grid, empty).error.reason
    assert grid.states[1] == kept


# What a node agrees to.


def test_a_node_trains_under_secure_aggregation_only() -> None:
    grid = LocalGrid(app_of(), NODES)
    found = FedAvg().start(grid, record(model()), num_rounds=1, evaluate_config=None)
    assert not found.train_metrics_clientapp
    assert not found.arrays


def test_a_node_that_has_settings_agrees_to_no_others() -> None:
    for theirs, outcome in ((PARAMS, "aggregated"), (replace(PARAMS, min_cohort=3), "aborted")):
        strategy = secure(metrics={"loss": 8.0})
        nodes = SecureAggregationMod(params=theirs, metrics={"loss": 8})
        run(strategy, LocalGrid(app_of([nodes]), NODES))
        assert strategy.history[0].outcome == outcome
    assert "other params" in strategy.history[0].stages[0].failures[1]


def test_against_an_active_server_a_node_needs_settings_and_a_key_that_is_pinned() -> None:
    params = replace(PARAMS, adversary="active")
    stranger = SecureAggregationMod(params=params, keys=lambda _: Keys(Identity(bytes(32)), PINNED))
    for nodes, reason in ((mod, "takes no settings from an active server"), (stranger, "not among those")):
        strategy = secure(params)
        run(strategy, LocalGrid(app_of([nodes]), NODES))
        assert reason in strategy.history[0].stages[0].failures[1]


def test_a_secret_key_is_not_shown() -> None:
    assert "seed" not in repr(Keys(Identity(b"s" * 32), {}))


# What a server accepts.


def test_a_node_that_speaks_for_another_client_has_dropped_out() -> None:
    others: dict[str, bytes] = {}

    def impostor(message: Message, context: Context, call_next: Any) -> Message:
        reply = mod(message, context, call_next)
        stage = stage_of(message)
        if stage == "MaskedInput" and context.node_id == 2:
            others[stage] = wire(reply.content)
        if stage == "MaskedInput" and context.node_id == 3:
            reply.content[WIRE] = ArrayRecord({"message": as_array(others[stage])})
        return reply

    strategy = secure()
    assert_same(run(strategy, LocalGrid(app_of([impostor]), NODES)), expected(model(), dropouts={3: "ShareKeys"}))
    assert "another client's name" in strategy.history[0].stages[2].failures[3]


@pytest.mark.parametrize("stage", STAGES)
def test_nonsense_from_a_node_is_a_dropout(stage: str) -> None:
    def hostile(message: Message, context: Context, call_next: Any) -> Message:
        reply = mod(message, context, call_next)
        if stage_of(message) == stage:
            if context.node_id == 1:
                reply.content[WIRE] = record({"message": np.zeros(3)})
            if context.node_id == 2:
                reply.content = RecordDict({"metrics": MetricRecord({"num-examples": 1})})
        return reply

    strategy = secure()
    run(strategy, LocalGrid(app_of([hostile]), NODES), rounds=2)
    failures = next(row.failures for row in strategy.history[0].stages if row.stage == stage)
    assert set(failures) == {1, 2}
    assert all(reason.startswith("DecodingError") for reason in failures.values())
    assert strategy.history[0].outcome == "aggregated"


def test_keys_for_the_next_round_that_are_nonsense_are_asked_for_again() -> None:
    def hostile(message: Message, context: Context, call_next: Any) -> Message:
        reply = mod(message, context, call_next)
        if stage_of(message) == "Unmask" and context.node_id < 3:
            reply.content[WIRE]["keys"] = as_array(b"nonsense") if context.node_id == 1 else record(model())["fc.bias"]
        return reply

    strategy = secure()
    found = run(strategy, LocalGrid(app_of([hostile]), NODES), rounds=2)
    assert strategy.history[1].stages[0].asked == 2
    assert_same(found, expected(expected(model())))


def test_a_strategy_that_sends_nodes_different_models_is_refused() -> None:
    class Different(FedAvg):  # type: ignore[misc]  # Flower's types are not read
        def configure_train(self, *args: Any) -> Any:
            for message in super().configure_train(*args):
                node = message.metadata.dst_node_id
                message.content = RecordDict({"arrays": record(trained(model(), node))})
                yield message

    with pytest.raises(ParameterError, match="different models"):
        run(SecureAggregation(Different(), PARAMS), LocalGrid(app_of(), NODES))


def test_what_is_no_mask_is_not_declared() -> None:
    with pytest.raises(ParameterError, match="declare takes"):
        declare(Message(RecordDict(), 1, "train"), {"fc.weight": np.ones(3)})  # type: ignore[dict-item]


def agreement_of(params: Params) -> Agreement:
    proposed: list[bytes] = []

    def observe(message: Message) -> None:
        if stage_of(message) == "AdvertiseKeys" and not from_node(message):
            proposed.append(message.content[STAGE]["agreement"])

    run(secure(params, metrics={"loss": 8.0}), LocalGrid(app_of(), NODES, observe=observe))
    return Agreement.decode(proposed[0])


def test_everybody_agrees_on_the_session_that_was_proposed() -> None:
    for ranges in (2.0, {"fc.bias": 1.5, "*": 3.0}):
        agreement = agreement_of(replace(PARAMS, value_range=ranges))
        session = agreement.as_session()
        assert Agreement.decode(agreement.encode()) == agreement
        assert session.digest == Agreement.decode(agreement.encode()).as_session().digest
        assert session.params.range_of("secagg.metric.loss") == 8.0
        assert session.params.range_of("fc.weight") == (2.0 if ranges == 2.0 else 3.0)
        assert (agreement.run, agreement.round, session.weighted) == ("1", 1, True)


def test_metrics_that_would_share_the_clip_are_refused_on_the_node_too() -> None:
    with pytest.raises(ParameterError, match=r"clip of Params\.privacy"):
        msgspec.structs.replace(
            agreement_of(PARAMS), params=replace(PARAMS, privacy=Privacy(clip=1.0, noise_multiplier=1.0))
        ).as_session()
    for data in (b"", b"nonsense"):
        with pytest.raises(DecodingError, match="not an agreement"):
            Agreement.decode(data)
