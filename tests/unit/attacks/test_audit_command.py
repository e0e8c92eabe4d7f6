from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from attacks import auditing
from attacks.attack import Threat
from attacks.finding import Finding
from attacks.measurement import Exposure
from secagg.commands import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

    from attacks.deployment import Deployment
    from attacks.finding import Effort

MINE = """
import torch

def net():
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))

def data():
    torch.manual_seed(0)
    pairs = [(torch.rand(20, 6), torch.arange(20) % 3) for _ in range(7)]
    return pairs[:6], pairs[6]
"""


def counted(deployment: Deployment, _effort: Effort, _rng: np.random.Generator) -> Iterator[Finding]:
    """Finds every coordinate of every deployment exposed, which only the private one promised not to happen."""
    yield Finding(
        attack="counting",
        question="Is anybody alone?",
        threat=Threat.THE_MASKS,
        deployment=deployment.name,
        measurement=Exposure("alone", 1, deployment.layout.size),
        claimed=deployment.name == "private",
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(auditing, "PROBES", {"masks": counted})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_an_audit_of_ones_own_model_writes_a_page_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_own_federation.py").write_text(MINE, encoding="utf-8")
    own = ["--model", "my_own_federation:net", "--data", "my_own_federation:data"]
    modes = ["--mode", "plain", "uniform", "--groups", "masks"]
    assert main(["audit", *own, *modes, "--training", "batch_size=4", "--params", "min_cohort=2"]) == 0
    assert "report.html" in capsys.readouterr().out
    page = (tmp_path / "audit-out" / "report.html").read_text(encoding="utf-8")
    assert "Is anybody alone?" in page
    written = json.loads((tmp_path / "audit-out" / "audit.json").read_text(encoding="utf-8"))
    assert [one["parameters"] for one in written["deployments"]] == [53, 53]
    assert [(one["batch_size"], one["min_cohort"]) for one in written["deployments"]] == [(4, 2), (4, 2)]


def test_only_a_broken_promise_ends_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--mode", "mask-indexed", "--groups", "masks", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"][0]["leaks"]
    assert main(["audit", "--mode", "private", "--groups", "masks", "--format", "json"]) == 1
    assert not json.loads(capsys.readouterr().out)["passed"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--model", "a:b"], "--model and --data go together"),
        (["--groups", "stars"], "there are update, total"),
        (["--masks", "stars"], "changed-units"),
        (["--keep", "2"], "keep must be in"),
        (["--pruned", "2"], "pruned must be in"),
        (["--effort", "0"], "effort"),
        (["--epsilon", "0"], "epsilon"),
        (["--training", "stars=1"], "stars"),
    ],
)
def test_a_wrong_setting_is_named(options: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *options]) == 2
    assert named in capsys.readouterr().err
