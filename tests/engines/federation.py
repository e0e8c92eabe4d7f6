"""Nodes that train without training: each moves the model by numbers of its own, and says what it likes about it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from protocols.engines.flower import (
    Fault,
    Keys,
    LocalGrid,
    SecureAggregation,
    SecureAggregationMod,
    declare,
    secure_aggregation_mod,
)
from protocols.engines.flower.records import STAGE
from secagg import Identity, Params, delta, simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flwr.app import Context
    from flwr.clientapp.typing import Mod
    from flwr.serverapp.strategy import Strategy
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

NODES = 6
PARAMS = Params(min_cohort=2, max_dropouts=2, max_weight=100, levels=2**30)
STAGES = ("AdvertiseKeys", "ShareKeys", "MaskedInput", "Unmask")

EVERYBODY = range(1, NODES + 1)
IDENTITIES = {node: Identity(bytes([node]) * 32) for node in EVERYBODY}
PINNED = {node: identity.public for node, identity in IDENTITIES.items()}
ACTIVE = replace(PARAMS, adversary="active", max_dropouts=1)


def secure(params: Params = PARAMS, strategy: Strategy | None = None, **settings: Any) -> SecureAggregation:
    """A strategy that waits for nobody; with an active server it has everybody's identity."""
    pinned = {"pinned": PINNED} if params.active else {}
    return SecureAggregation(strategy or FedAvg(), params, **({"timeout": 0.01} | pinned | settings))


def active_mod(params: Params = ACTIVE, **settings: Any) -> SecureAggregationMod:
    """A mod with all that it takes against an active server."""
    return SecureAggregationMod(
        params=params, keys=lambda context: Keys(IDENTITIES[context.node_id], PINNED), **settings
    )


def model() -> Arrays:
    """A model of two types, with a buffer of integers that nobody averages."""
    rng = np.random.default_rng(0)
    return {
        "fc.weight": rng.normal(size=(4, 3)),
        "fc.bias": rng.normal(size=4).astype(np.float32),
        "steps": np.array([7], np.int64),
    }


def record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(values) for name, values in arrays.items()})


def arrays_of(found: ArrayRecord) -> Arrays:
    return {name: array.numpy() for name, array in found.items()}


def trained(start: Arrays, node: int) -> Arrays:
    """The model after a node has moved it."""
    rng = np.random.default_rng(node)
    return {
        name: values + 1 if values.dtype.kind == "i" else values + rng.uniform(-1, 1, values.shape).astype(values.dtype)
        for name, values in start.items()
    }


def examples(node: int) -> int:
    return 10 * node


def app_of(
    mods: Sequence[Mod] = (secure_aggregation_mod,),
    masks: Mapping[int, Any] | None = None,
    train: Callable[[Message, Context], Message | None] = lambda *_: None,
) -> ClientApp:
    """An app whose nodes train as above, and evaluate.

    Args:
        mods: Around its training and its evaluation.
        masks: What nodes declare to hold.
        train: Called first; what it returns is returned.
    """
    app = ClientApp()

    @app.train(mods=list(mods))  # type: ignore[untyped-decorator]  # Flower's types are not read
    def move(message: Message, context: Context) -> Message:
        found = train(message, context)
        if found is not None:
            return found
        node = context.node_id
        metrics = MetricRecord({"num-examples": examples(node), "loss": node / 4, "private": 1234.5})
        content = {"arrays": record(trained(arrays_of(message.content["arrays"]), node)), "metrics": metrics}
        reply = Message(RecordDict(content), reply_to=message)
        return reply if masks is None or node not in masks else declare(reply, masks[node])

    @app.evaluate(mods=list(mods[:1]))  # type: ignore[untyped-decorator]  # likewise
    def evaluate(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": examples(context.node_id), "accuracy": context.node_id / 8})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def run(strategy: SecureAggregation, grid: LocalGrid, rounds: int = 1, start: Arrays | None = None) -> Arrays:
    """The model after some rounds; the one that it began with if no round came to anything."""
    start = start or model()
    found = strategy.start(grid, record(start), num_rounds=rounds).arrays
    return arrays_of(found) if found else start


def expected(
    start: Arrays, nodes: Sequence[int] = range(1, NODES + 1), params: Params = PARAMS, **settings: Any
) -> Arrays:
    """The model after one round over these nodes, as ``simulate`` has it."""
    deltas = {node: delta(trained(start, node), start) for node in nodes}
    settings = {"weights": {node: examples(node) for node in nodes}} | settings
    after: Arrays = simulate(deltas, params=params, **settings).apply(start)
    return after


def assert_same(found: Arrays, wanted: Arrays) -> None:
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def stage_of(message: Message) -> str:
    """The stage that a message belongs to; empty for one that is not ours."""
    if message.has_error():
        return ""
    return str(message.content.config_records.get(STAGE, {}).get("stage", ""))


def at(stage: str, faults: Mapping[int, Fault], times: int = 1) -> Callable[[int, Message], Fault | None]:
    """Faults of some nodes when they receive a message of a stage, the first so many times each."""
    left = dict.fromkeys(faults, times)

    def fault(node: int, message: Message) -> Fault | None:
        if node not in faults or stage_of(message) != stage or not left[node]:
            return None
        left[node] -= 1
        return faults[node]

    return fault
