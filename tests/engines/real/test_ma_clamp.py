"""The example with method="ma-clamp", beside plain rounds that know nothing of Flower, of masks, or of submodels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("flwr")

import torch
from flwr.app import ArrayRecord, Context, RecordDict
from flwr.common.config import get_fused_config_from_dir
from torch import nn
from torch.nn import functional

from protocols.engines.flower import Fault
from protocols.randomness import number
from secagg import Params, delta, simulate
from tests.engines.real.locally import APP, NODES, part, rounds_of, rows_of, run_locally

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from protocols.training import Examples

STRAGGLER = 3
BLOCKS = ("conv1", "conv2", "fc1", "fc2")
SIZES = {"conv1": 16 * 9 + 16, "conv2": 32 * 16 * 9 + 32, "fc1": 128 * 512 + 128, "fc2": 10 * 128 + 10}
DEPTHS = (4, 3, 2, 1, 2)
"""The straggler's: one less after each round that is too long for it, until one is short enough for one more."""

STEPS, BATCH, RATE, MOMENTUM = 20, 16, 0.05, 0.9


def settings(monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> tuple[Any, Any]:
    """The task of a run, and MA-CLAMP's decisions."""
    task = part("task", monkeypatch).Task(get_fused_config_from_dir(APP, {"method": "ma-clamp", **overrides}))
    return task, part("ma_clamp", monkeypatch).MaClamp(task)


def block_of(name: str) -> str:
    """The block of a parameter."""
    return name.split(".", maxsplit=1)[0]


def train_last(model: nn.Sequential, depth: int, examples: Examples, seed: int) -> None:
    """Trains the last blocks of a model in place: what comes before them is a function of the inputs, and no more."""
    children = [name for name, _ in model.named_children()]
    first = children.index(BLOCKS[-depth])
    front, back = model[:first], model[first:]
    optimiser = torch.optim.SGD(back.parameters(), RATE, MOMENTUM)
    torch.manual_seed(seed)
    passes = -(-STEPS * BATCH // len(examples))
    order = torch.cat([torch.randperm(len(examples)) for _ in range(passes)])
    for step in range(STEPS):
        batch = order[step * BATCH : (step + 1) * BATCH]
        with torch.no_grad():
            features = front(examples.inputs[batch])
        optimiser.zero_grad()
        functional.cross_entropy(back(features), examples.labels[batch]).backward()
        optimiser.step()


def plain_rounds(task: Any, depths: Mapping[int, tuple[int, ...]], rounds: int, params: Params) -> dict[str, Any]:
    """The model after some rounds: every node trains its last blocks, and a session sums what it trained."""
    model: nn.Sequential = task.federation.model
    names = task.federation.fleet.names
    for round_number in range(1, rounds + 1):
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        updates, masks = {}, {}
        for node in range(NODES):
            depth = depths[node][round_number - 1]
            model.load_state_dict(start)
            seed = number(0, "training", round_number, node)
            train_last(model, depth, task.federation.examples[names[node]], seed)
            updates[node + 1] = delta({name: tensor.clone() for name, tensor in model.state_dict().items()}, start)
            held = BLOCKS[-depth:]
            masks[node + 1] = {
                name: torch.full_like(old, name.split(".", maxsplit=1)[0] in held, dtype=torch.bool)
                for name, old in start.items()
            }
        model.load_state_dict(simulate(updates, masks=masks, mode="mask-indexed", params=params).apply(start))
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def test_it_ends_with_the_model_of_plain_rounds_bit_for_bit_and_nodes_upload_what_they_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_locally(tmp_path, monkeypatch, method="ma-clamp", num_rounds=len(DEPTHS))
    task, _ = settings(monkeypatch)
    depths = dict.fromkeys(range(NODES), (4,) * len(DEPTHS)) | {STRAGGLER: DEPTHS}
    wanted = plain_rounds(task, depths, len(DEPTHS), Params(min_cohort=2, max_dropouts=1, participation=0.5))
    with np.load(found / "model.npz") as model:
        assert set(model) == set(wanted)
        for name, values in wanted.items():
            np.testing.assert_array_equal(model[name], values)
    assert [row["smallest_group"] for row in rounds_of(found)] == [4, 3, 3, 3, 3]
    stages = [stage for row in rows_of(found) for stage in row["stages"]]
    uploads = [stage["upload_bytes"] for stage in stages if stage["stage"] == "MaskedInput"]
    saved = [3 * sum(SIZES[block] for block in BLOCKS[:-depth]) for depth in DEPTHS]  # 22 bits of a ring, in bytes
    for upload, less in zip(uploads, saved, strict=True):
        assert abs(uploads[0] - upload - less) < 100


def test_a_block_that_too_few_train_leaves_no_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes, of which one does not train the first block: it would be the other's update in the clear."""
    found = {
        rounds: run_locally(
            tmp_path / str(rounds), monkeypatch, method="ma-clamp", nodes=2, max_dropouts=0, num_rounds=rounds
        )
        for rounds in (1, 2)
    }
    withheld = rounds_of(found[2])[1]["withheld_share"]
    assert withheld == pytest.approx(SIZES["conv1"] / sum(SIZES.values()))
    with np.load(found[1] / "model.npz") as before, np.load(found[2] / "model.npz") as after:
        for name in before:
            assert np.array_equal(before[name], after[name]) == name.startswith("conv1")
    first, second = (
        stage["upload_bytes"] for row in rows_of(found[2]) for stage in row["stages"] if stage["stage"] == "MaskedInput"
    )
    assert first - second >= 2 * 2 * SIZES["conv1"]  # at least two bytes a coordinate, of both nodes


def test_a_depth_follows_its_own_devices_rounds_and_only_after_several_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    for patience, wanted in ((1, DEPTHS), (2, (4, 4, 3, 3, 2))):
        _, method = settings(monkeypatch, patience=patience)
        context = Context(run_id=1, node_id=STRAGGLER + 1, node_config={}, state=RecordDict(), run_config={})
        masks = [method.mask(STRAGGLER, context, ArrayRecord()) for _ in wanted]
        assert [mask.density for mask in masks] == [method.blocks(depth).density for depth in wanted]
    _, method = settings(monkeypatch)
    again = Context(run_id=2, node_id=STRAGGLER + 1, node_config={}, state=context.state, run_config={})
    assert method.mask(STRAGGLER, again, ArrayRecord()).density == 1  # another run begins with the whole model


def test_a_node_that_was_restarted_begins_with_the_whole_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {(STRAGGLER, 2, "Unmask"): Fault.LOST, (STRAGGLER, 3, "AdvertiseKeys"): Fault.FORGETS}
    found = run_locally(tmp_path, monkeypatch, plan, method="ma-clamp", num_rounds=3, steps=2)
    assert [row["smallest_group"] for row in rounds_of(found)] == [4, 3, 4]


def test_a_round_stops_back_propagating_at_its_depth_and_takes_less_the_sooner_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, method = settings(monkeypatch, steps=2)
    start = task.federation.model.state_dict()
    reached: set[tuple[int, ...]] = set()

    def observe(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        if output.requires_grad and isinstance(module, nn.Conv2d | nn.Linear):
            reached.add(tuple(module.weight.shape))

    for depth in range(1, len(BLOCKS) + 1):
        reached.clear()
        handle = nn.modules.module.register_module_forward_hook(observe)
        trained = task.train(STRAGGLER, 1, start, method.blocks(depth))
        handle.remove()
        held = BLOCKS[-depth:]
        assert reached == {tuple(start[f"{block}.weight"].shape) for block in held}
        assert {block_of(name) for name, old in start.items() if not torch.equal(trained[name], old)} == set(held)
    seconds = [method.seconds(STRAGGLER, depth) for depth in range(1, len(BLOCKS) + 1)]
    assert seconds == sorted(set(seconds))
