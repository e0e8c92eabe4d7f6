"""The example in one process: who trains what, and what it writes."""

from __future__ import annotations

import runpy
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, Context, RecordDict
from flwr.common.config import get_fused_config_from_dir

from protocols.engines.flower import Fault
from secagg.errors import ParameterError
from tests.engines.real.locally import APP, model_of, part, rounds_of, rows_of, run_locally

if TYPE_CHECKING:
    from pathlib import Path

    from protocols.training import State
    from pruning.masks import Mask

STRAGGLER = 3
COORDINATE_BYTES = 3
"""Of an integer in the ring of four nodes and 2**20 levels: 22 bits, in whole bytes."""


def uploads(results: Path) -> list[int]:
    """Bytes of all masked vectors, by round."""
    stages = [stage for row in rows_of(results) for stage in row["stages"]]
    return [stage["upload_bytes"] for stage in stages if stage["stage"] == "MaskedInput"]


def decided(monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> tuple[Any, Any]:
    """The task of a run, and its method."""
    task = part("task", monkeypatch).Task(get_fused_config_from_dir(APP, overrides))
    return task, part("methods", monkeypatch).method_of(task)


def arrays(state: State) -> ArrayRecord:
    return ArrayRecord(dict(state))


def second_mask(method: Any, state: State) -> Mask:
    """What CLIP's straggler trains of a second global model, which differs from the first by one everywhere."""
    context = Context(run_id=1, node_id=STRAGGLER + 1, node_config={}, state=RecordDict(), run_config={})
    method.mask(STRAGGLER, context, arrays(state))
    mask: Mask = method.mask(STRAGGLER, context, arrays({name: tensor + 1 for name, tensor in state.items()}))
    return mask


def test_the_straggler_uploads_the_part_that_it_trains_from_the_second_round_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_locally(tmp_path, monkeypatch, num_rounds=2)
    task, method = decided(monkeypatch)
    mask = second_mask(method, task.federation.model.state_dict())
    whole, less = uploads(found)
    assert mask.kind == "units"
    assert 0.2 < mask.density < 0.8
    left_out = COORDINATE_BYTES * int((~mask.coordinates).sum())
    assert left_out - 100 < whole - less <= left_out  # less its declaration of 176 units
    assert [row["smallest_group"] for row in rounds_of(found)] == [4, 3]


def test_only_the_straggler_of_the_table_trains_a_part_and_keeps_up_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, method = decided(monkeypatch)
    assert [method.keep(partition) == 1 for partition in range(4)] == [True, True, True, False]
    others = method.seconds(0, 1.0)
    assert method.seconds(STRAGGLER, 1.0) > others >= method.seconds(STRAGGLER, method.keep(STRAGGLER))


def test_what_a_node_trains_outside_of_its_part_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    task, method = decided(monkeypatch, steps=2)
    start = task.federation.model.state_dict()
    mask = second_mask(method, start)
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
    previous = part("clip", monkeypatch).previous
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


def test_a_method_that_there_is_not_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="method must be one of clip, ma-clamp, not 'clamp'"):
        decided(monkeypatch, method="clamp")


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
