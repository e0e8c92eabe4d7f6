"""The example in one process: who trains what, and what it writes."""

from __future__ import annotations

import runpy
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, Context, RecordDict
from flwr.common.config import get_fused_config_from_dir

from protocols.engines.flower import Fault
from tests.engines.real.locally import APP, model_of, part, rounds_of, rows_of, run_locally

if TYPE_CHECKING:
    from pathlib import Path

STRAGGLER = 3
COORDINATE_BYTES = 3
"""Of an integer in the ring of four nodes and 2**20 levels: 22 bits, in whole bytes."""


def uploads(results: Path) -> list[int]:
    """Bytes of all masked vectors, by round."""
    stages = [stage for row in rows_of(results) for stage in row["stages"]]
    return [stage["upload_bytes"] for stage in stages if stage["stage"] == "MaskedInput"]


def test_the_straggler_uploads_the_part_that_it_trains_from_the_second_round_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_locally(tmp_path, monkeypatch, num_rounds=2)
    task = part("task", monkeypatch).Task(get_fused_config_from_dir(APP, {}))
    start = task.federation.model.state_dict()
    mask = task.mask(STRAGGLER, start, {name: tensor + 1 for name, tensor in start.items()})
    whole, less = uploads(found)
    assert mask.kind == "units"
    assert 0.2 < mask.density < 0.8
    left_out = COORDINATE_BYTES * int((~mask.coordinates).sum())
    assert left_out - 100 < whole - less <= left_out  # less its declaration of 176 units
    assert [row["smallest_group"] for row in rounds_of(found)] == [4, 3]


def test_only_the_straggler_of_the_table_trains_a_part_and_keeps_up_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    task = part("task", monkeypatch).Task(get_fused_config_from_dir(APP, {}))
    assert [task.keep(partition) == 1 for partition in range(4)] == [True, True, True, False]
    others = task.seconds(0, 1.0)
    assert task.seconds(STRAGGLER, 1.0) > others >= task.seconds(STRAGGLER, task.keep(STRAGGLER))


def test_what_a_node_trains_outside_of_its_part_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    task = part("task", monkeypatch).Task(get_fused_config_from_dir(APP, {"steps": 2}))
    start = task.federation.model.state_dict()
    mask = task.mask(STRAGGLER, start, {name: tensor + 1 for name, tensor in start.items()})
    trained, held = task.train(STRAGGLER, 1, start, mask), mask.by_tensor()
    for name, old in start.items():
        np.testing.assert_array_equal(trained[name][~held[name]], old[~held[name]])
        assert (trained[name] != old).any()


def test_the_seed_decides_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, other = (
        model_of(run_locally(tmp_path / name, monkeypatch, num_rounds=2, steps=2, seed=seed))
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first == again != other


def test_a_straggler_that_has_forgotten_the_global_models_trains_everything_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {(STRAGGLER, 2, "Unmask"): Fault.LOST, (STRAGGLER, 3, "AdvertiseKeys"): Fault.FORGETS}
    found = run_locally(tmp_path, monkeypatch, plan, num_rounds=4, steps=2)
    assert [row["smallest_group"] for row in rounds_of(found)] == [4, 3, 4, 3]


def test_the_global_model_before_is_one_of_this_run_and_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    previous = part("client_app", monkeypatch).previous
    one, two, three = (ArrayRecord({"weight": Array(np.full(2, value))}) for value in (1.0, 2.0, 3.0))
    state = RecordDict()
    first = Context(run_id=1, node_id=1, node_config={}, state=state, run_config={})
    assert previous(first, one) is None
    assert previous(first, one) is None  # sent again after a round that was aborted
    assert previous(first, two) == one
    assert previous(first, two) == one
    assert previous(first, three) == two
    second = Context(run_id=2, node_id=1, node_config={}, state=state, run_config={})
    assert previous(second, one) is None


def test_the_script_takes_settings_as_flwr_run_does_and_writes_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(APP))
    settings = ["num-rounds=1 steps=2", f'out="{tmp_path}"']
    monkeypatch.setattr(sys, "argv", ["run_local.py", *(word for one in settings for word in ("--run-config", one))])
    runpy.run_path(str(APP / "run_local.py"), run_name="__main__")
    assert {file.name for file in tmp_path.iterdir()} == {"model.npz", "model.sha256", "rounds.csv", "rounds.json"}
    with np.load(tmp_path / "model.npz") as model:
        assert model["fc2.weight"].shape == (10, 128)
    assert [row["round"] for row in rows_of(tmp_path)] == [1]
