"""The example on the local grid, and what it wrote."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Context, RecordDict
from flwr.common.config import get_fused_config_from_dir

from protocols.engines.flower import Fault, LocalGrid
from tests.engines.federation import stage_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest
    from flwr.app import Message

APP = Path(__file__).parents[3] / "examples" / "flower_clip"
NODES = 4

Place = tuple[int, int, str]
"""Where a fault is: partition, round, stage."""


def part(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the example, which is a package of its own."""
    monkeypatch.syspath_prepend(str(APP))
    return importlib.import_module(f"flower_clip.{name}")


def run_locally(
    folder: Path, monkeypatch: pytest.MonkeyPatch, plan: Mapping[Place, Fault] | None = None, **overrides: Any
) -> Path:
    """Runs the example with faults; the folder of its results."""

    def fault(node: int, message: Message) -> Fault | None:
        return (plan or {}).get((node - 1, int(message.metadata.group_id), stage_of(message)))

    settings = {name.replace("_", "-"): value for name, value in overrides.items()}
    config = get_fused_config_from_dir(APP, {"out": str(folder), "timeout": 0.01, **settings})
    grid = LocalGrid(part("client_app", monkeypatch).app, int(config["nodes"]), run_config=config, fault=fault)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config)
    part("server_app", monkeypatch).app(grid, context)
    return folder


def model_of(results: Path) -> str:
    """The digest of the final model."""
    return (results / "model.sha256").read_text()


def rows_of(results: Path) -> list[dict[str, Any]]:
    """Every round."""
    rows: list[dict[str, Any]] = json.loads((results / "rounds.json").read_text())
    return rows


def rounds_of(results: Path) -> list[dict[str, Any]]:
    """Every round, without what differs from engine to engine: seconds, node ids, bytes and verdicts."""
    names = ("round", "outcome", "survivors", "total_weight", "smallest_group", "withheld_share")
    return [{name: row[name] for name in names} for row in rows_of(results)]


def failures_of(results: Path) -> list[str]:
    """Why nodes' answers were none, in the order of the rounds."""
    return [reason for row in rows_of(results) for stage in row["stages"] for reason in stage["failures"].values()]
