"""The README's code runs as it stands, and so do the examples."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_the_readme_has_a_loop_a_preflight_and_a_budget() -> None:
    assert len(BLOCKS) == 3


def test_the_loop_trains_under_encryption(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[0], "README.md", "exec"), {})  # noqa: S102 - our own README
    output = capsys.readouterr().out
    accuracies = [float(match) for match in re.findall(r"accuracy ([\d.]+)", output)]
    assert len(accuracies) == 5
    assert accuracies[-1] > max(0.6, accuracies[0] - 0.05)
    assert "9 survivors" in output
    assert "simulation: this process saw every update" in output


def test_the_preflight_names_the_setting_that_frees_what_is_withheld(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[1], "README.md", "exec"), {})  # noqa: S102 - our own README
    output = capsys.readouterr().out
    assert re.search(r"fc2 +least coverage +5 +withheld 2 of 4", output)
    assert "max_dropouts=2 would release everything" in output


def test_the_budget_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[2], "README.md", "exec"), {})  # noqa: S102 - our own README
    (spent,) = re.findall(r"epsilon spent ([\d.]+)", capsys.readouterr().out)
    assert 4 < float(spent) < 8


def test_the_readme_loop_is_the_example() -> None:
    example = (ROOT / "examples" / "pytorch_loop.py").read_text()
    assert BLOCKS[0].strip() in example


def test_the_transport_example_survives_its_dropout(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "own_transport.py"))
    assert "survivors (0, 1, 2, 3, 4, 6, 7): mean weight 0.3286, mean bias 0.5000" in capsys.readouterr().out


def test_adapters_of_different_ranks_learn_together_and_small_ones_send_less(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runpy.run_path(str(ROOT / "examples" / "lora_ranks.py"))
    printed = capsys.readouterr().out
    accuracies = [float(one) for one in re.findall(r"accuracy ([\d.]+)", printed)]
    assert accuracies[-1] > 0.8 > accuracies[0]
    sent = [int(one.replace(",", "")) for one in re.findall(r"rank \d: ([\d,]+) bytes", printed)]
    assert sent == sorted(set(sent), reverse=True)
    assert len(sent) == 3


def test_importing_secagg_prints_nothing_and_needs_no_torch() -> None:
    code = "import sys, secagg; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True).returncode == 0  # noqa: S603 - our own interpreter
