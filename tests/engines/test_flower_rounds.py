"""Strategies under secure aggregation come to the means that ``simulate`` has, with whoever is left."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp.mod import fixedclipping_mod
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAdam, FedAvg

from protocols.engines.flower import Fault, LocalGrid, SecureAggregation, SecureAggregationMod
from protocols.engines.flower import secure_aggregation_mod as mod
from protocols.engines.flower.history import write_csv, write_json
from secagg import Declaration, Layout, Params, Privacy, Provenance, Tensor, declaration
from secagg.errors import ParameterError
from tests.engines.federation import (
    ACTIVE,
    EVERYBODY,
    NODES,
    PARAMS,
    PINNED,
    STAGES,
    active_mod,
    app_of,
    arrays_of,
    assert_same,
    at,
    examples,
    expected,
    model,
    record,
    run,
    trained,
)

if TYPE_CHECKING:
    from pathlib import Path

    from flwr.serverapp.strategy import Strategy


def secure(strategy: Strategy | None = None, params: Params = PARAMS, **settings: Any) -> SecureAggregation:
    return SecureAggregation(strategy or FedAvg(), params, **({"timeout": 0.01} | settings))


def test_fedavg_ends_with_the_model_that_simulate_ends_with_bit_for_bit() -> None:
    found = run(secure(), LocalGrid(app_of(), NODES), rounds=3)
    wanted = model()
    for _ in range(3):
        wanted = expected(wanted)
    assert_same(found, wanted)


def test_fedadam_steps_by_that_mean() -> None:
    found = run(secure(FedAdam()), LocalGrid(app_of(), NODES))
    plain, grid = FedAdam(), LocalGrid(app_of(), NODES)
    asked = list(plain.configure_train(1, record(model()), ConfigRecord(), grid))
    mean = RecordDict({"arrays": record(expected(model())), "metrics": MetricRecord({"num-examples": 1.0})})
    arrays, _ = plain.aggregate_train(1, [Message(mean, reply_to=asked[0])])
    wanted = arrays_of(arrays)
    for name in ("fc.weight", "fc.bias"):
        np.testing.assert_array_equal(found[name], wanted[name].astype(found[name].dtype))
    assert found["steps"] == model()["steps"]


@pytest.mark.parametrize("kind", ["FedProx", "FedAvgM", "FedAdagrad", "FedYogi"])
def test_other_strategies_of_the_mean_run(kind: str) -> None:
    strategy = secure(getattr(flower, kind)())
    found = run(strategy, LocalGrid(app_of(), NODES), rounds=2)
    assert [row.outcome for row in strategy.history] == ["aggregated", "aggregated"]
    assert not np.array_equal(found["fc.weight"], model()["fc.weight"])


def test_updates_are_clipped_on_the_client_by_a_mod_that_knows_nothing_of_encryption() -> None:
    clip = 0.5
    strategy = flower.DifferentialPrivacyClientSideFixedClipping(FedAvg(), 0.0, clip, NODES)
    start = {name: values for name, values in model().items() if name != "steps"}  # Flower's mod clips no integers
    found = run(secure(strategy, weighted=False), LocalGrid(app_of([mod, fixedclipping_mod]), NODES), start=start)
    steps = []
    for node in EVERYBODY:
        step = {name: trained(start, node)[name] - values for name, values in start.items()}
        norm = math.sqrt(sum(float((values.astype(float) ** 2).sum()) for values in step.values()))
        steps.append({name: values * clip / norm for name, values in step.items()})
        assert norm > clip
    for name, values in start.items():
        wanted = values + np.mean([step[name] for step in steps], axis=0)
        np.testing.assert_allclose(found[name], wanted, atol=1e-6)


@pytest.mark.parametrize(
    "kind",
    ["FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum", "Bulyan", "FedXgbBagging", "FedXgbCyclic"],
)
def test_a_strategy_that_needs_single_updates_is_refused_by_name(kind: str) -> None:
    settings = {"num_malicious_nodes": 1} if kind in {"Krum", "MultiKrum", "Bulyan"} else {}
    with pytest.raises(ParameterError, match=f"^{kind} needs single updates"):
        secure(getattr(flower, kind)(**settings))


def test_so_are_those_that_clip_on_the_server_weigh_by_loss_or_count_replies() -> None:
    for wrapped in (
        flower.DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, NODES),
        flower.DifferentialPrivacyClientSideFixedClipping(flower.FedMedian(), 0.0, 1.0, NODES),
        flower.DifferentialPrivacyClientSideAdaptiveClipping(FedAvg(), 0.1, NODES),
        flower.QFedAvg(client_learning_rate=0.1),
    ):
        with pytest.raises(ParameterError, match="needs single updates"):
            secure(wrapped)


def test_a_strategy_of_ones_own_takes_ones_own_word() -> None:
    class Own(FedAvg):  # type: ignore[misc]  # Flower's types are not read
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            return super().aggregate_train(server_round, replies)

    with pytest.raises(ParameterError, match="needs_only_mean=True"):
        secure(Own())
    assert_same(run(secure(Own(), needs_only_mean=True), LocalGrid(app_of(), NODES)), expected(model()))


def test_a_strategy_that_trains_nobody_or_sends_nothing_to_train_is_told_from_one_that_fails() -> None:
    nobody = secure(FedAvg(fraction_train=0.0))
    assert_same(run(nobody, LocalGrid(app_of(), NODES)), model())
    assert nobody.history == []
    with pytest.raises(ParameterError, match="no model that can be aggregated"):
        run(secure(), LocalGrid(app_of(), NODES), start={"steps": np.array([1])})
    other = Layout((Tensor("fc.weight", (4, 4)),))
    with pytest.raises(ParameterError, match="layout names other tensors"):
        run(secure(layout=other), LocalGrid(app_of(), NODES))


def test_an_accountant_of_single_replies_is_refused() -> None:
    strategy = flower.DifferentialPrivacyClientSideFixedClipping(FedAvg(), 1.0, 1.0, NODES)
    strategy.accountant = object()
    with pytest.raises(ParameterError, match="counts single replies"):
        secure(strategy)


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_mean_that_nobody_fetched_is_that_of_no_other_round(kind: str) -> None:
    strategy = secure(evaluation="secure", evaluation_metrics={"accuracy": 1.0})
    configure, aggregate = getattr(strategy, f"configure_{kind}"), getattr(strategy, f"aggregate_{kind}")
    one, other = (record({"fc": np.full(3, float(number))}) for number in range(2))
    nothing = (None, None) if kind == "train" else None
    for number in (1, 2):
        strategy.history.clear()
        grid = LocalGrid(app_of(), NODES)
        configure(1, one, ConfigRecord(), grid)
        configure(number, one, ConfigRecord(), grid)  # nodes have sent what they have for this model
        assert [row.outcome for row in strategy.history] == ["aggregated", "aborted"]
        assert aggregate(number, []) == nothing
    for number in (2, 1):
        configure(1, other, ConfigRecord(), LocalGrid(app_of(), NODES))
        assert (aggregate(number, []) == nothing) == (number == 2)


# Exchanges.


def test_keys_come_with_the_round_before_so_that_a_round_takes_one_exchange_less() -> None:
    strategy = secure()
    found = run(strategy, LocalGrid(app_of(), NODES), rounds=2)
    first, second = ([stage.stage for stage in row.stages] for row in strategy.history)
    assert first == list(STAGES)
    assert second == list(STAGES[1:])
    assert_same(found, expected(expected(model())))


def test_with_an_active_server_a_round_takes_five_since_keys_are_for_what_is_asked_in_it() -> None:
    strategy = secure(params=ACTIVE, pinned=PINNED)
    found = run(strategy, LocalGrid(app_of([active_mod()]), NODES), rounds=2)
    wanted = ["AdvertiseKeys", "ShareKeys", "MaskedInput", "ConsistencyCheck", "Unmask"]
    assert [[stage.stage for stage in row.stages] for row in strategy.history] == [wanted, wanted]
    assert_same(found, expected(expected(model())))


def test_only_nodes_that_were_not_in_the_last_round_are_asked_for_keys() -> None:
    strategy = secure()
    run(strategy, LocalGrid(app_of(), NODES, fault=at("Unmask", {2: Fault.SILENT, 5: Fault.LOST})), rounds=2)
    asked = {stage.stage: stage.asked for stage in strategy.history[1].stages}
    assert asked == {"AdvertiseKeys": 2, "ShareKeys": 6, "MaskedInput": 6, "Unmask": 6}


# Dropouts.


def left(stage: str, node: int, fault: Fault) -> tuple[list[int], dict[int, str]]:
    """Who is in the session at all, and who drops out of it after which stage."""
    if stage == "AdvertiseKeys":
        return [one for one in EVERYBODY if one != node or fault is Fault.FORGETS], {}
    return list(EVERYBODY), {node: {"ShareKeys": "AdvertiseKeys", "MaskedInput": "ShareKeys"}.get(stage, "MaskedInput")}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", Fault)
def test_the_mean_is_over_whoever_is_left_and_the_next_round_is_whole_again(fault: Fault, stage: str) -> None:
    strategy = secure()
    found = run(strategy, LocalGrid(app_of(), NODES, fault=at(stage, {3: fault})), rounds=2)
    nodes, dropouts = left(stage, 3, fault)
    assert_same(found, expected(expected(model(), nodes, dropouts=dropouts)))
    first, second = strategy.history
    assert first.survivors == (NODES if stage == "Unmask" or len(nodes) == NODES > len(dropouts) == 0 else NODES - 1)
    assert second.survivors == NODES
    failures = {name: reason for row in first.stages for name, reason in row.failures.items()}
    assert set(failures) <= {3}
    assert bool(failures) == (fault is Fault.RAISES or (fault is Fault.FORGETS and stage != "AdvertiseKeys"))


@pytest.mark.parametrize("stage", [*STAGES, "ConsistencyCheck"])
@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.FORGETS])
def test_so_it_is_with_an_active_server(fault: Fault, stage: str) -> None:
    strategy = secure(params=ACTIVE, pinned=PINNED)
    found = run(strategy, LocalGrid(app_of([active_mod()]), NODES, fault=at(stage, {3: fault})))
    nodes, dropouts = left(stage, 3, fault)
    assert_same(found, expected(model(), nodes, dropouts=dropouts))


@pytest.mark.parametrize("stage", STAGES)
def test_with_too_few_left_nothing_is_released_the_model_stays_and_the_next_round_works(stage: str) -> None:
    strategy = secure()
    silent = dict.fromkeys((1, 2, 3, 4, 5), Fault.SILENT)
    grid = LocalGrid(app_of(), NODES, fault=at(stage, silent))
    found = run(strategy, grid, rounds=2)
    assert [row.outcome for row in strategy.history] == ["aborted", "aggregated"]
    assert "nothing was released" in strategy.history[0].line()
    assert strategy.history[0].stages[-1].stage == stage
    again = EVERYBODY if stage != "Unmask" else [1, 2, 3, 4, 5]  # who has answered the last stage masks nothing more
    assert_same(found, expected(model(), again))


def test_a_round_that_was_aborted_leaves_nothing_on_the_nodes() -> None:
    grid = LocalGrid(app_of(), NODES, fault=at("MaskedInput", dict.fromkeys((1, 2, 3, 4), Fault.RAISES)))
    assert_same(run(secure(), grid), model())
    assert not any(grid.state(node) for node in EVERYBODY)


def test_a_node_that_fails_to_train_counts_for_no_dropout_after_shares() -> None:
    def fail(_: Message, context: Any) -> None:
        if context.node_id <= 2:
            raise ValueError

    strategy = secure(params=replace(PARAMS, max_dropouts=0))
    assert_same(run(strategy, LocalGrid(app_of(train=fail), NODES)), expected(model(), [3, 4, 5, 6]))


def test_a_quorum_ends_the_waiting_after_the_grace_period() -> None:
    """Within the timeout of an hour, the test would not end without it."""
    strategy = secure(timeout=3600, quorum=0.8, grace=0.01, poll=0.01)
    found = run(strategy, LocalGrid(app_of(), NODES, fault=at("ShareKeys", {3: Fault.SILENT})))
    assert_same(found, expected(model(), dropouts={3: "AdvertiseKeys"}))


# Masks, metrics, noise.

LAYOUT = Layout(
    (Tensor("fc.weight", (4, 3), "float64", {0: (0, 1, 2, 3)}), Tensor("fc.bias", (4,), unit_axes={0: (0, 1, 2, 3)})),
    {"fc": 4},
)
PRUNED = {2: [1, 1, 1, 0], 5: [1, 1, 0, 0], 6: [1, 1, 1, 0]}


def declarations() -> dict[int, Declaration]:
    return {
        node: declaration.of_units(LAYOUT, np.array(units, bool), Provenance.DEVICE) for node, units in PRUNED.items()
    }


def bools() -> dict[int, dict[str, Any]]:
    return {
        node: {"fc.weight": np.repeat(np.array(units, bool)[:, None], 3, axis=1), "fc.bias": np.array(units, bool)}
        for node, units in PRUNED.items()
    }


@pytest.mark.parametrize("weighting", ["average", "public"])
@pytest.mark.parametrize("spelling", ["declarations", "bools"])
def test_pruned_clients_come_to_the_mean_that_simulate_has_with_their_masks(spelling: str, weighting: Any) -> None:
    masks = declarations() if spelling == "declarations" else bools()
    params = replace(PARAMS, weighting=weighting)
    strategy = secure(params=params, mode="mask-indexed", layout=LAYOUT, metrics={"loss": 8.0})
    found = run(strategy, LocalGrid(app_of(masks=masks), NODES, fault=at("MaskedInput", {4: Fault.SILENT})))
    settings: dict[str, Any] = {
        "masks": declarations(),
        "mode": "mask-indexed",
        "layout": LAYOUT,
        "dropouts": {4: "ShareKeys"},
    }
    assert_same(found, expected(model(), params=params, **settings))
    row = strategy.history[0]
    assert row.withheld_share == pytest.approx(4 / 17)  # unit 3 is held by half of the clients, the metric by all
    assert "every client's mask" in row.verdict


def test_units_make_short_declarations_and_small_masks_small_uploads() -> None:
    strategy = secure(params=replace(PARAMS, weighting="average"), mode="mask-indexed", layout=LAYOUT)
    uploads: dict[str, dict[int, int]] = {"masked": {}}

    def observe(message: Message) -> None:
        from protocols.engines.flower.records import payload_bytes
        from tests.engines.federation import stage_of

        if stage_of(message) == "MaskedInput" and message.metadata.dst_node_id == 0:
            uploads["masked"][message.metadata.src_node_id] = payload_bytes(message)

    run(strategy, LocalGrid(app_of(masks=declarations()), NODES, observe=observe))
    assert uploads["masked"][5] < uploads["masked"][2] == uploads["masked"][6] == uploads["masked"][1]


def test_a_pruned_client_is_refused_where_masks_are_secret_and_nobody_counted() -> None:
    strategy = secure()
    run(strategy, LocalGrid(app_of(masks=bools()), NODES))
    failures = strategy.history[0].stages[1].failures
    assert set(failures) == set(PRUNED)
    assert all("set mode='mask-indexed'" in reason for reason in failures.values())


def test_metrics_come_out_as_weighted_means_and_others_stay_where_they_are() -> None:
    strategy = secure(
        metrics={"loss": 8.0}, evaluation="secure", evaluation_metrics={"accuracy": 1.0}, params=replace(PARAMS)
    )
    result = strategy.start(LocalGrid(app_of(), NODES), record(model()), num_rounds=2)
    weights = [examples(node) for node in EVERYBODY]
    for found, values in (
        (result.train_metrics_clientapp, {"loss": np.average([node / 4 for node in EVERYBODY], weights=weights)}),
        (result.evaluate_metrics_clientapp, {"accuracy": np.average([n / 8 for n in EVERYBODY], weights=weights)}),
    ):
        assert list(found) == [1, 2]
        assert dict(found[2]) == pytest.approx(values, abs=1e-6)
    assert [(row.kind, len(row.stages)) for row in strategy.history] == [
        ("train", 4),
        ("evaluate", 4),
        ("train", 3),
        ("evaluate", 3),
    ]


def test_a_metric_that_is_missing_or_out_of_range_is_refused_by_its_node() -> None:
    missing, beyond = secure(metrics={"perplexity": 1.0}), secure(metrics={"private": 10.0})
    for strategy, reason in ((missing, "no metric perplexity"), (beyond, "secagg.metric.private")):
        assert_same(run(strategy, LocalGrid(app_of(), NODES)), model())
        failures = strategy.history[0].stages[1].failures
        assert len(failures) == NODES
        assert all(reason in one and "1234" not in one for one in failures.values())


def test_evaluation_is_left_out_unless_it_is_asked_for() -> None:
    sent: list[str] = []
    grid = LocalGrid(app_of(), NODES, observe=lambda message: sent.append(message.metadata.message_type))
    run(secure(), grid)
    assert set(sent) == {MessageType.TRAIN}
    grid = LocalGrid(app_of([SecureAggregationMod(clear_evaluation=True)]), NODES)
    clear = secure(evaluation="clear").start(grid, record(model()), num_rounds=1)
    assert clear.evaluate_metrics_clientapp[1]["accuracy"] == pytest.approx(
        np.average([node / 8 for node in EVERYBODY], weights=[examples(node) for node in EVERYBODY])
    )


def test_clients_add_noise_and_the_strategy_keeps_count() -> None:
    privacy = Privacy(clip=1.0, noise_multiplier=0.5)
    strategy = secure(params=Params(min_cohort=3, max_dropouts=1, privacy=privacy))
    found = run(strategy, LocalGrid(app_of(), NODES), rounds=2)
    assert strategy.history[0].event is not None
    assert 0 < strategy.spent.epsilon(1e-5) < math.inf
    assert strategy.history[0].total_weight == NODES
    moved = np.abs(found["fc.weight"] - model()["fc.weight"])
    assert 0 < moved.max() < 2 * (1 + 8 * 0.5) / NODES  # two means of clipped updates, each with noise of 8 sigma


def test_settings_that_contradict_each_other_are_refused_by_name() -> None:
    private = Params(privacy=Privacy(clip=1.0, noise_multiplier=1.0))
    for settings, named in (
        ({"params": private, "metrics": {"loss": 1.0}}, "Params.privacy"),
        ({"params": private, "evaluation": "clear"}, "Params.privacy"),
        ({"params": ACTIVE}, "pinned"),
        ({"pinned": PINNED}, "pinned"),
        ({"evaluation": "secure"}, "evaluation_metrics"),
        ({"evaluation": "loud"}, "evaluation"),
        ({"quorum": 0}, "quorum"),
        ({"timeout": 0}, "timeout"),
    ):
        with pytest.raises(ParameterError, match=named):
            secure(**settings)


def test_rounds_are_written_as_json_and_csv(tmp_path: Path) -> None:
    strategy = secure()
    run(strategy, LocalGrid(app_of(), NODES, fault=at("ShareKeys", dict.fromkeys(EVERYBODY, Fault.RAISES))), rounds=2)
    write_json(strategy.history, tmp_path / "rounds.json")
    write_csv(strategy.history, tmp_path / "rounds.csv")
    rows = json.loads((tmp_path / "rounds.json").read_text())
    assert [(row["round"], row["outcome"], len(row["stages"])) for row in rows] == [
        (1, "aborted", 2),
        (2, "aggregated", 4),
    ]
    with (tmp_path / "rounds.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["round"], line["stage"], line["answered"]) for line in lines][:3] == [
        ("1", "AdvertiseKeys", "6"),
        ("1", "ShareKeys", "0"),
        ("2", "AdvertiseKeys", "6"),
    ]
    assert "injected" in lines[1]["failures"]
