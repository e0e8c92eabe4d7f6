"""What Flower's SecAgg+ survives and shows, found out by running its own workflow and client module on local nodes."""

from __future__ import annotations

import importlib
import logging
import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

import secagg
from protocols.benchmark.flower import version
from protocols.benchmark.stages import LEVELS, session_over
from secagg import driver
from secagg.driver import Contribution, Stage
from secagg.errors import AbortError
from secagg.masking import Accumulator, MaskKey
from secagg.prg import KEY_BYTES
from secagg.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp
    from numpy.typing import NDArray

    from protocols.engines.flower import Fault
    from secagg import Aggregate

CLIENTS = 10
WIDTH = 8
DROPOUTS = (1, 3)
EXAMPLES, MOST_EXAMPLES = 777, 1000
"""Weight of everybody, a number that is nowhere else in what clients send; and the largest one."""
STAGES = {
    "AdvertiseKeys": "setup",
    "ShareKeys": "share_keys",
    "MaskedInput": "collect_masked_vectors",
    "Unmask": "unmask",
}
"""What a stage is called here and there."""
DRAWS = 100_000

SURVIVED, WRONG, ABORTED = "mean of the others", "another mean", "aborts"


def facts() -> dict[str, Any]:
    """Dropouts survived by both, and what Flower's masks and messages show.

    Raises:
        ParameterError: Flower is not installed.
    """
    with _quiet():
        params = secagg.Params(levels=LEVELS, max_weight=MOST_EXAMPLES)
        topology = params.topology(CLIENTS)
        patterns = [(stage, count) for stage in STAGES for count in DROPOUTS]
        return {
            "flower": version(),
            "clients": CLIENTS,
            "share_threshold": topology.threshold,
            "dropouts": [
                {
                    "before": stage,
                    "clients": count,
                    "secagg": _ours(params, stage, count),
                    "flower": _Round(topology.threshold, stage, count).outcome(),
                }
                for stage, count in patterns
            ],
            "leakage": _leakage(params, topology.threshold),
        }


def _leakage(params: secagg.Params, threshold: int) -> dict[str, Any]:
    """The size of mask seeds, what masks leave out, and weights on the wire; each tried, not read."""
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    seed, other = bytearray(os.urandom(32)), bytearray(os.urandom(32))
    folded = np.bitwise_xor.reduce(np.frombuffer(bytes(seed), "<u4")) ^ np.bitwise_xor.reduce(
        np.frombuffer(bytes(other[:28]), "<u4")
    )
    other[28:] = int(folded).to_bytes(4, "little")
    streams = [pseudo_rand_gen(bytes(one), 1 << 32, [(64,)])[0] for one in (seed, other)]
    drawn = pseudo_rand_gen(bytes(seed), 4, [(DRAWS,)])[0]
    ours = Accumulator(Ring(16), Ring(16).zeros(DRAWS))
    ours.apply([MaskKey(1, os.urandom(KEY_BYTES))])
    watched = _Round(threshold, "AdvertiseKeys", 0)
    watched.outcome()
    return {
        "flower: seeds that agree in 32 bits make one mask": bool((streams[0] == streams[1]).all()),
        "flower: mask values of 4, drawn": np.unique(drawn).tolist(),
        "flower: weight readable in a client's answer": watched.told == CLIENTS,
        "secagg: bits of a mask's key": 8 * KEY_BYTES,
        "secagg: mask values of 4, drawn": np.unique(ours.vector % 4).tolist(),
        "secagg: weights are summed": _play(params, (), Stage.UNMASK).plan.slots == "total",
    }


def _vector_of(number: int) -> NDArray[np.float32]:
    """What a client brings, unlike all others."""
    return np.full(WIDTH, 0.01 * (number + 1), np.float32)


def _is_mean(found: NDArray[Any], lost: Sequence[int], *, answered: bool) -> bool:
    present = [number for number in range(CLIENTS) if answered or number not in lost]
    return bool(np.allclose(found, np.mean([_vector_of(number) for number in present], axis=0), atol=1e-4))


def _ours(params: secagg.Params, before: str, count: int) -> str:
    """What becomes of a session in which clients go before they answer in a stage."""
    lost, last = range(count), Stage.MASKED_INPUT if before == "Unmask" else Stage(Stage.of(before) - 1)
    try:
        aggregate = _play(params, lost, last)
    except AbortError:
        return ABORTED
    return SURVIVED if _is_mean(aggregate.mean, lost, answered=before == "Unmask") else WRONG


def _play(params: secagg.Params, lost: Iterable[int], last: Stage) -> Aggregate:
    """A weighted session in which some clients complete no stage after the last one."""
    session = replace(session_over(WIDTH, params), weighted=True)
    brought = {number: Contribution({"weights": _vector_of(number)}, weight=EXAMPLES) for number in range(CLIENTS)}
    return driver.run(session, brought, dict.fromkeys(lost, last)).aggregate


class _Round:
    """One round of Flower's SecAgg+ on nodes in this process, of which some go before they answer in a stage."""

    def __init__(self, threshold: int, before: str, count: int) -> None:
        self._threshold, self._before, self._lost = threshold, STAGES[before], range(count)
        self.told = 0

    def outcome(self) -> str:
        """What becomes of it."""
        from flwr.common import parameters_to_ndarrays
        from flwr.compat.common.recorddict_compat import arrayrecord_to_parameters
        from flwr.server.workflow.constant import MAIN_PARAMS_RECORD
        from flwr.server.workflow.secure_aggregation import SecAggPlusWorkflow

        from protocols.engines.flower import LocalGrid

        grid = LocalGrid(_app(), CLIENTS, fault=self._fault, observe=self._observe)
        context = _context(grid)
        before = context.state.array_records[MAIN_PARAMS_RECORD]
        workflow = SecAggPlusWorkflow(
            CLIENTS, self._threshold, max_weight=MOST_EXAMPLES, clipping_range=4.0, timeout=0.1
        )
        try:
            workflow(grid, context)
        except Exception as error:  # noqa: BLE001 - whatever it is, the round is lost
            return f"{ABORTED}: {type(error).__name__}"
        after = context.state.array_records[MAIN_PARAMS_RECORD]
        if after is before:
            return ABORTED
        (found,) = parameters_to_ndarrays(arrayrecord_to_parameters(after, keep_input=True))
        return SURVIVED if _is_mean(found, self._lost, answered=self._before == "unmask") else WRONG

    def _fault(self, node: int, message: Message) -> Fault | None:
        from protocols.engines.flower import Fault

        order = list(STAGES.values())
        stage = message.content.config_records["secaggplus_configs"]["stage"]
        gone = node - 1 in self._lost and order.index(stage) >= order.index(self._before)
        return Fault.SILENT if gone else None

    def _observe(self, message: Message) -> None:
        """Counts answers in which the weight stands as it is."""
        if message.has_content() and message.metadata.src_node_id:
            records = [*message.content.metric_records.values(), *message.content.config_records.values()]
            self.told += any(
                value == EXAMPLES for record in records for value in record.values() if not isinstance(value, list)
            )


def _app() -> ClientApp:
    """A client that has trained already."""
    from flwr.app import Message
    from flwr.client.mod import secaggplus_mod
    from flwr.clientapp import ClientApp
    from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
    from flwr.compat.common.recorddict_compat import fitres_to_recorddict

    app = ClientApp(mods=[secaggplus_mod])

    @app.train()  # type: ignore[untyped-decorator]  # Flower's types are not read
    def train(message: Message, context: Context) -> Message:
        parameters = ndarrays_to_parameters([_vector_of(context.node_id - 1)])
        result = FitRes(Status(Code.OK, ""), parameters, EXAMPLES, {})
        return Message(fitres_to_recorddict(result, keep_input=True), reply_to=message)

    return app


def _context(grid: Any) -> Any:
    """What the workflow finds: a model, a strategy that averages, and a proxy for every node."""
    from flwr.app import ConfigRecord, Context, RecordDict
    from flwr.common import ndarrays_to_parameters
    from flwr.compat.common.recorddict_compat import parameters_to_arrayrecord
    from flwr.server.client_manager import SimpleClientManager
    from flwr.server.compat.grid_client_proxy import GridClientProxy
    from flwr.server.compat.legacy_context import LegacyContext
    from flwr.server.strategy import FedAvg
    from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key

    manager = SimpleClientManager()
    for node in grid.get_node_ids():
        manager.register(GridClientProxy(node, grid, 1))
    start = ndarrays_to_parameters([np.zeros(WIDTH, np.float32)])
    state = RecordDict(
        {
            MAIN_CONFIGS_RECORD: ConfigRecord({Key.CURRENT_ROUND: 1}),
            MAIN_PARAMS_RECORD: parameters_to_arrayrecord(start, keep_input=True),
        }
    )
    context = Context(run_id=1, node_id=0, node_config={}, state=state, run_config={})
    return LegacyContext(context, strategy=FedAvg(min_available_clients=2), client_manager=manager)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Flower's reports of every stage, and without its telemetry."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    importlib.import_module("flwr.supercore")  # sets the level of its logger
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
