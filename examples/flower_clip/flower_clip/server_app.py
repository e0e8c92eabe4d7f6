"""What the server does: FedAvg, whose aggregation is wrapped."""

from __future__ import annotations

import hashlib
import time
from logging import INFO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.supercore import log

from protocols.engines.flower import SecureAggregation
from protocols.engines.flower.history import write_csv, write_json

from .methods import method_of
from .task import Task

if TYPE_CHECKING:
    from flwr.app import UserConfig

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]  # Flower's types are not read
def main(grid: Grid, context: Context) -> None:
    """Runs all rounds, and writes what came of them."""
    config = context.run_config
    task, timeout = Task(config), float(config["timeout"])
    method = method_of(task)
    for partition, device in enumerate(task.federation.fleet.devices):
        log(INFO, "partition %s, %s: trains %s", partition, device.name, method.about(partition))
    wait_for(grid, task.nodes)
    strategy = SecureAggregation(
        FedAvg(fraction_evaluate=0.0, min_available_nodes=method.params.min_cohort),
        method.params,
        mode="mask-indexed",
        layout=task.federation.units.layout,
        weighted=False,  # all have the same number of examples
        timeout=timeout,
        quorum=float(config["quorum"]),
        grace=float(config["grace"]),
    )
    result = strategy.start(
        grid,
        ArrayRecord(task.federation.model.state_dict()),
        num_rounds=int(config["num-rounds"]),
        timeout=timeout,
        evaluate_fn=lambda _, arrays: MetricRecord({"accuracy": task.accuracy(arrays.to_torch_state_dict())}),
    )
    _write(config, strategy, result.arrays)


def wait_for(grid: Grid, nodes: int) -> None:
    """Returns when so many nodes are connected; later rounds do with those that are left."""
    while len(list(grid.get_node_ids())) < nodes:
        time.sleep(1)


def digest(arrays: ArrayRecord) -> str:
    """SHA-256 of the names, types, shapes and values of arrays, in hex."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        values = array.numpy()
        found.update(f"{name} {values.dtype} {values.shape}\n".encode() + np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def _write(config: UserConfig, strategy: SecureAggregation, arrays: ArrayRecord | None) -> None:
    """The final model, if a round came to anything, and every round."""
    log(INFO, "final model: SHA-256 %s", digest(arrays) if arrays else "of none: no round was aggregated")
    if not config["out"]:
        return
    folder = Path(str(config["out"]))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(strategy.history, folder / "rounds.json")
    write_csv(strategy.history, folder / "rounds.csv")
    if arrays:
        (folder / "model.sha256").write_text(digest(arrays) + "\n", encoding="utf-8")
        np.savez(folder / "model.npz", **{name: array.numpy() for name, array in arrays.items()})
