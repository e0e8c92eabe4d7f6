"""The example on Flower itself: simulated and deployed it gives the local grid's model, and so it does with faults."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("flwr")
if not os.environ.get("SECAGG_ENGINES"):
    pytest.skip("takes minutes: make test-engines", allow_module_level=True)

from protocols.engines.flower import Fault
from tests.engines.real.deployment import Deployment, wait_until
from tests.engines.real.locally import NODES, Place, failures_of, model_of, rounds_of, run_locally

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ROUNDS = 2
"""Enough for a round in which the straggler trains a part."""

PLAN: Mapping[Place, str] = {
    (0, 1, "AdvertiseKeys"): "kill",
    (0, 2, "ShareKeys"): "kill",  # while it trains
    (1, 3, "MaskedInput"): "hang",
    (2, 4, "ShareKeys"): "raise",
    (1, 5, "ShareKeys"): "raise",
    (2, 5, "ShareKeys"): "raise",
    (1, 6, "Unmask"): "kill",
}
LOCAL = {"kill": Fault.SILENT, "hang": Fault.SILENT, "raise": Fault.RAISES}
PATIENCE = ("timeout=45.0", "quorum=0.5", "grace=20.0")


METHODS = ("clip", "ma-clamp")


def test_simulated_the_model_is_the_local_grids_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    with Deployment(tmp_path, simulation=True) as deployment:
        deployment.start_superlink()
        for method in METHODS:
            wanted = run_locally(tmp_path / f"local-{method}", monkeypatch, num_rounds=ROUNDS, method=method)
            assert deployment.run(method, f'num-rounds={ROUNDS} method="{method}"').wait(300) == 0
            assert model_of(tmp_path / method) == model_of(wanted), deployment.log(method)
            assert rounds_of(tmp_path / method) == rounds_of(wanted)


def test_deployed_it_is_too_after_a_superlink_was_killed_in_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Deployment(tmp_path) as deployment:
        deployment.start_superlink()
        nodes = [deployment.start_supernode(partition) for partition in range(NODES)]
        planned = deployment.plan("wait", 0, 2, "MaskedInput")
        deployment.run("killed", f"num-rounds={ROUNDS}")
        wait_until(planned.with_name(planned.name + ".reached").exists, 300)
        for name in ("superlink", *nodes):  # a SuperLink without a database knows its nodes no more: they leave
            deployment.kill(name)
        assert not (tmp_path / "killed").exists()
        planned.unlink()
        deployment.start_superlink()
        for partition in range(NODES):
            deployment.start_supernode(partition)
        for method in METHODS:
            wanted = run_locally(tmp_path / f"local-{method}", monkeypatch, num_rounds=ROUNDS, method=method)
            assert deployment.run(method, f'num-rounds={ROUNDS} method="{method}"').wait(300) == 0
            assert model_of(tmp_path / method) == model_of(wanted), deployment.log(method)
            assert rounds_of(tmp_path / method) == rounds_of(wanted)


def test_whatever_happens_to_nodes_a_round_ends_with_the_survivors_mean_or_with_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {place: LOCAL[fault] for place, fault in PLAN.items()}
    wanted = run_locally(tmp_path / "local", monkeypatch, plan, num_rounds=6)
    with Deployment(tmp_path) as deployment:
        deployment.start_superlink()
        nodes = [deployment.start_supernode(partition) for partition in range(NODES)]
        written = {"raise": "raise", "kill": "wait", "hang": "wait"}
        files = {place: deployment.plan(written[fault], *place) for place, fault in PLAN.items()}
        running = deployment.run("faults", "num-rounds=6", *PATIENCE)
        for place, fault in PLAN.items():
            wait_until(files[place].with_name(files[place].name + ".reached").exists, 300)
            if fault == "raise":
                continue
            partition = place[0]
            {"kill": deployment.kill, "hang": deployment.stop}[fault](nodes[partition])
            nodes[partition] = deployment.start_supernode(partition)
            files[place].unlink()
        assert running.wait(300) == 0
        found = tmp_path / "faults"
        assert rounds_of(found) == rounds_of(wanted), deployment.log("faults")
        assert model_of(found) == model_of(wanted)
        assert [row["outcome"] for row in rounds_of(found)] == [*["aggregated"] * 4, "aborted", "aggregated"]
        assert [row["survivors"] for row in rounds_of(found)] == [3, 3, 3, 3, 0, 4]
        told = [reason for reason in failures_of(found) if "RuntimeError" in reason]
        assert told == ["RuntimeError in the ClientApp: its log says more"] * 3
        assert "a private value" not in deployment.log("faults")
        assert any("a private value" in deployment.log(node) for node in nodes)
