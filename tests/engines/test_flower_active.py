"""What a node holds an active server to: all nodes are asked for the same, on terms that the server does not choose."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from protocols.engines.flower import Fault, Keys, LocalGrid, SecureAggregationMod
from protocols.engines.flower import secure_aggregation_mod as mod
from protocols.engines.flower.agreement import Agreement
from protocols.engines.flower.records import STAGE, digest
from secagg import Params
from secagg.errors import ParameterError
from tests.engines.federation import (
    ACTIVE,
    EVERYBODY,
    IDENTITIES,
    NODES,
    PARAMS,
    PINNED,
    active_mod,
    app_of,
    arrays_of,
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
    from collections.abc import Callable, Container

    from protocols.engines.flower import SecureAggregation


def lying(
    grid: LocalGrid, stage: str, lie: Callable[[Message], None], to: Container[int] = (1,), kind: str = "train"
) -> LocalGrid:
    """A grid whose server alters its messages of a stage to some nodes."""
    genuine = grid.push_messages

    def push(sent: Any) -> Any:
        sent = list(sent)
        for message in sent:
            about = stage_of(message), message.metadata.message_type
            if message.metadata.dst_node_id in to and about == (stage, kind):
                lie(message)
        return genuine(sent)

    grid.push_messages = push  # type: ignore[assignment, method-assign]
    return grid


def proposing(**fields: Any) -> Callable[[Message], None]:
    """A lie about the agreement."""

    def lie(message: Message) -> None:
        agreement = Agreement.decode(message.content[STAGE]["agreement"])
        altered = msgspec.structs.replace(agreement, **fields)
        message.content[STAGE] = ConfigRecord({**message.content[STAGE], "agreement": altered.encode()})

    return lie


def refusals(strategy: SecureAggregation, stage: str) -> dict[int, str]:
    """Why nodes refused a stage of the first round."""
    return next(row.failures for row in strategy.history[0].stages if row.stage == stage)


# What is asked.


def other_config(message: Message) -> None:
    message.content["config"] = ConfigRecord({"server-round": 1, "lr": 0.0})


def other_value(message: Message) -> None:
    arrays = arrays_of(message.content["arrays"])
    message.content["arrays"] = record(arrays | {"fc.bias": arrays["fc.bias"] + 1})


def other_buffer(message: Message) -> None:
    message.content["arrays"] = record(arrays_of(message.content["arrays"]) | {"steps": np.array([8], np.int64)})


def other_order(message: Message) -> None:
    arrays = message.content["arrays"]
    message.content["arrays"] = ArrayRecord({name: arrays[name] for name in reversed(list(arrays))})


def fewer_arrays(message: Message) -> None:
    arrays = message.content["arrays"]
    message.content["arrays"] = ArrayRecord({name: arrays[name] for name in list(arrays)[1:]})


def one_more_record(message: Message) -> None:
    message.content["more"] = MetricRecord({"lr": 0.0})


@pytest.mark.parametrize("lie", [other_config, other_value, other_buffer, other_order, fewer_arrays, one_more_record])
def test_whoever_is_asked_for_something_else_refuses_before_it_trains(lie: Callable[[Message], None]) -> None:
    trains: list[int] = []
    app = app_of([active_mod()], train=lambda _, context: trains.append(context.node_id))
    strategy = secure(ACTIVE)
    run(strategy, lying(LocalGrid(app, NODES), "ShareKeys", lie))
    assert "something else than was agreed on" in refusals(strategy, "ShareKeys")[1]
    assert strategy.history[0].survivors == NODES - 1
    assert trains == [2, 3, 4, 5, 6]


def test_so_is_another_type_of_message_of_a_record_or_of_a_value_and_another_order() -> None:
    said = {"arrays": record(model()), "config": ConfigRecord({"lr": 1.0, "epochs": 1})}
    content = RecordDict(said)
    assert digest("train", content) == digest("train", RecordDict(said))
    assert digest("train", content) != digest("train.gently", content)
    for other in (
        dict(reversed(said.items())),
        said | {"config": MetricRecord({"lr": 1.0, "epochs": 1})},
        said | {"config": ConfigRecord({"lr": 1, "epochs": 1})},
        said | {"config": ConfigRecord({"epochs": 1, "lr": 1.0})},
    ):
        assert digest("train", content) != digest("train", RecordDict(other))


def test_a_learning_rate_of_zero_for_all_but_one_node_gives_nothing() -> None:
    app = ClientApp()

    @app.train(mods=[active_mod()])  # type: ignore[untyped-decorator]  # Flower's types are not read
    def train(message: Message, context: Context) -> Message:
        start, rate = arrays_of(message.content["arrays"]), message.content["config"]["lr"]
        moved = trained(start, context.node_id)
        after = {name: (old + rate * (moved[name] - old)).astype(old.dtype) for name, old in start.items()}
        return Message(
            RecordDict({"arrays": record(after), "metrics": MetricRecord({"num-examples": 1})}), reply_to=message
        )

    def lie(message: Message) -> None:
        message.content["config"] = ConfigRecord({**message.content["config"], "lr": 0.0})

    strategy = secure(ACTIVE)
    grid = lying(LocalGrid(app, NODES), "ShareKeys", lie, to=range(2, NODES + 1))
    strategy.start(grid, record(model()), num_rounds=1, train_config=ConfigRecord({"lr": 1.0}))
    assert strategy.history[0].outcome == "aborted"
    assert set(refusals(strategy, "ShareKeys")) == {2, 3, 4, 5, 6}


def test_evaluation_is_bound_to_what_is_evaluated() -> None:
    def lie(message: Message) -> None:
        message.content["arrays"] = record({name: old * 0 for name, old in model().items()})

    strategy = secure(ACTIVE, evaluation="secure", evaluation_metrics={"accuracy": 1.0})
    grid = LocalGrid(app_of([active_mod(evaluation_metrics={"accuracy": 1.0})]), NODES)
    run(strategy, lying(grid, "ShareKeys", lie, to=(1, 3, 4, 5, 6), kind="evaluate"))
    train, evaluate = strategy.history
    assert (train.outcome, evaluate.outcome) == ("aggregated", "aborted")
    assert set(evaluate.stages[1].failures) == {1, 3, 4, 5, 6}


def test_nodes_that_are_told_different_things_make_no_sum() -> None:
    """The others' signatures are on another session than the server's."""
    for fields in ({"request": bytes(32)}, {"round": 7}):
        strategy = secure(ACTIVE)
        run(strategy, lying(LocalGrid(app_of([active_mod()]), NODES), "AdvertiseKeys", proposing(**fields)))
        assert "SignatureError" in refusals(strategy, "AdvertiseKeys")[1]
        assert strategy.history[0].survivors == NODES - 1


def test_the_session_is_all_of_the_agreement_however_its_numbers_are_spelled() -> None:
    agreement = Agreement(
        run="1",
        round=1,
        session=bytes(16),
        params=PARAMS,
        mode="uniform",
        weighted_by="num-examples",
        metrics=(("loss", 8),),
        tensors=(),
        unit_groups=(),
    )
    whole = agreement.as_session().digest
    assert Agreement.decode(agreement.encode()).as_session().digest == whole
    for fields in ({"run": "2"}, {"round": 2}, {"weighted_by": "loss"}, {"request": bytes(32)}):
        assert msgspec.structs.replace(agreement, **fields).as_session().digest != whole


def test_a_server_that_binds_the_session_to_nothing_is_refused() -> None:
    strategy = secure(ACTIVE)
    run(strategy, lying(LocalGrid(app_of([active_mod()]), NODES), "AdvertiseKeys", proposing(request=b"")))
    assert "has to say what it asks" in refusals(strategy, "AdvertiseKeys")[1]


def test_a_strategy_that_asks_nodes_for_different_things_is_refused_with_an_active_server() -> None:
    class Different(FedAvg):  # type: ignore[misc]  # Flower's types are not read
        def configure_train(self, *args: Any) -> Any:
            for message in super().configure_train(*args):
                config = ConfigRecord({"epochs": message.metadata.dst_node_id})
                message.content = RecordDict({**message.content, "config": config})
                yield message

    with pytest.raises(ParameterError, match="ask all nodes for the same"):
        run(secure(ACTIVE, Different()), LocalGrid(app_of([active_mod()]), NODES))
    assert_same(run(secure(strategy=Different()), LocalGrid(app_of(), NODES)), expected(model()))


# On which terms.


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"metrics": (("private", 2000.0),)}, "metrics"),
        ({"metrics": (("loss", 9.0),)}, "metrics"),
        ({"metrics": ()}, "metrics"),
        ({"weighted_by": "loss"}, "weighted_by"),
        ({"weighted_by": ""}, "weighted_by"),
        ({"mode": "mask-indexed"}, "mode"),
        ({"params": replace(ACTIVE, max_weight=99)}, "params"),
        ({"params": PARAMS}, "params"),
        ({"tensors": ()}, "tensors"),
    ],
)
def test_a_node_agrees_to_what_it_was_given_alone(fields: dict[str, Any], named: str) -> None:
    nodes = active_mod(metrics={"loss": 8.0})
    strategy = secure(ACTIVE, metrics={"loss": 8.0})
    run(strategy, lying(LocalGrid(app_of([nodes]), NODES), "AdvertiseKeys", proposing(**fields)))
    assert f"other {named} than" in refusals(strategy, "AdvertiseKeys")[1]
    assert strategy.history[0].survivors == NODES - 1


def test_so_it_is_in_evaluation() -> None:
    nodes = active_mod(metrics={"loss": 8.0}, evaluation_metrics={"accuracy": 1.0}, mode="mask-indexed")
    for fields, named in (({"metrics": (("loss", 8.0),)}, "evaluation_metrics"), ({"mode": "mask-indexed"}, "mode")):
        settings: dict[str, Any] = {"evaluation": "secure", "evaluation_metrics": {"accuracy": 1.0}}
        strategy = secure(ACTIVE, mode="mask-indexed", metrics={"loss": 8.0}, **settings)
        grid = LocalGrid(app_of([nodes]), NODES)
        run(strategy, lying(grid, "AdvertiseKeys", proposing(**fields), kind="evaluate"))
        assert f"other {named} than" in strategy.history[1].stages[0].failures[1]


def test_limits_of_a_metric_cannot_be_tried_out() -> None:
    """A node refuses a metric beyond its limit, so a server that chose limits would find any metric by bisection."""
    trains: list[int] = []
    app = app_of([active_mod()], train=lambda _, context: trains.append(context.node_id))
    for limit in (1000.0, 2000.0):
        strategy = secure(ACTIVE, metrics={"private": limit})
        run(strategy, LocalGrid(app, NODES, fault=at("MaskedInput", dict.fromkeys(EVERYBODY, Fault.SILENT))))
        assert set(refusals(strategy, "AdvertiseKeys")) == set(EVERYBODY)
    assert trains == []


def test_settings_of_a_mod_that_contradict_each_other_are_refused_by_name() -> None:
    def keys(context: Context) -> Keys:
        return Keys(IDENTITIES[context.node_id], PINNED)

    for settings, named in (
        ({"keys": keys}, "keys"),
        ({"keys": keys, "params": PARAMS}, "keys"),
        ({"params": ACTIVE}, "keys"),
        ({"metrics": {"loss": 8.0}}, "metrics"),
        ({"evaluation_metrics": {"loss": 8.0}}, "metrics"),
        ({"once": False, "remember": lambda _: None}, "once"),
    ):
        with pytest.raises(ParameterError, match=named):
            SecureAggregationMod(**settings)


def test_a_node_with_keys_takes_no_semi_honest_session() -> None:
    strategy = secure(PARAMS)
    run(strategy, LocalGrid(app_of([active_mod()]), NODES))
    assert "other params" in refusals(strategy, "AdvertiseKeys")[1]


@pytest.mark.parametrize("nodes", [mod, active_mod()])
def test_no_metric_of_an_evaluation_goes_out_in_the_clear(nodes: SecureAggregationMod) -> None:
    evaluates = Message(RecordDict({"arrays": record(model())}), 1, MessageType.EVALUATE)
    (reply,) = LocalGrid(app_of([nodes]), NODES).send_and_receive([evaluates])
    assert "evaluate under secure aggregation only" in reply.error.reason


def test_messages_about_something_else_pass() -> None:
    app = ClientApp(mods=[active_mod()])

    @app.query()  # type: ignore[untyped-decorator]  # Flower's types are not read
    def query(message: Message, _: Context) -> Message:
        return Message(RecordDict({"said": ConfigRecord({"ready": True})}), reply_to=message)

    (reply,) = LocalGrid(app, NODES).send_and_receive([Message(RecordDict(), 1, MessageType.QUERY)])
    assert reply.content["said"]["ready"]


def test_a_settings_proposal_that_comes_with_the_round_before_and_is_refused_costs_no_answer() -> None:
    def lie(message: Message) -> None:
        if "next" not in message.content[STAGE]:
            return
        following = Agreement.decode(message.content[STAGE]["next"])
        other = msgspec.structs.replace(following, params=Params(max_weight=3))
        message.content[STAGE] = ConfigRecord({**message.content[STAGE], "next": other.encode()})

    strategy = secure()
    grid = LocalGrid(app_of([SecureAggregationMod(params=PARAMS)]), NODES)
    found = run(strategy, lying(grid, "Unmask", lie), rounds=2)
    first, second = strategy.history
    assert first.stages[-1].failures == {}
    assert first.stages[-1].answered == NODES
    assert second.stages[0].asked == 1
    assert_same(found, expected(expected(model())))


def test_the_word_of_an_active_server_that_nothing_came_of_a_round_counts_for_nothing() -> None:
    def lie(message: Message) -> None:
        message.content[STAGE] = ConfigRecord({**message.content[STAGE], "used_up": False})

    strategy = secure(ACTIVE)
    grid = LocalGrid(app_of([active_mod()]), NODES, fault=at("MaskedInput", dict.fromkeys((1, 2), Fault.SILENT)))
    run(strategy, lying(grid, "Abandon", lie, to=EVERYBODY), rounds=2)
    first, second = strategy.history
    assert (first.outcome, first.used_up, second.outcome) == ("aborted", True, "aborted")
    assert set(second.stages[1].failures) == {3, 4, 5, 6}
    assert all("start from a new model" in reason for reason in second.stages[1].failures.values())
