"""The notebook runs from its first cell to its last, and what is stored in it is what it prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "flower_clip"
NOTEBOOK = FOLDER / "walkthrough.ipynb"
CELLS = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
RUN = """
import json, sys
names = {"__name__": "__main__"}
for cell in json.load(sys.stdin):
    exec(compile("".join(cell["source"]), "a cell", "exec"), names)
"""
PATIENCE = 300
"""Seconds after which a cell hangs."""


def printed(cell: dict[str, Any]) -> str:
    """What a cell printed when it was stored."""
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def in_words(text: str) -> list[str]:
    """Lines without their numbers, which differ from machine to machine."""
    return [re.sub(r"[\d.,e+-]*\d", "#", line) for line in text.splitlines()]


def test_its_cells_run_in_order_and_print_what_is_stored() -> None:
    found = subprocess.run(  # noqa: S603 - our own interpreter and notebook
        [sys.executable, "-c", RUN],
        input=json.dumps(CELLS),
        text=True,
        capture_output=True,
        check=False,
        cwd=FOLDER,
        env={**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": f"{FOLDER}{os.pathsep}{ROOT}"},
        timeout=PATIENCE,
    )
    assert found.returncode == 0, found.stderr
    assert in_words(found.stdout) == in_words("".join(map(printed, CELLS)))


def test_it_was_stored_after_one_run_from_the_top_without_an_error() -> None:
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    for cell in CELLS:
        assert {output["output_type"] for output in cell["outputs"]} <= {"stream", "display_data"}
        assert all(output.get("name", "stdout") == "stdout" for output in cell["outputs"])
        source = "".join(cell["source"])
        top = [line for line in source.splitlines() if re.match(r"(    )?print\(|plt\.show", line)]
        assert bool(cell["outputs"]) >= bool(top and "def " not in source)
    assert sum("image/png" in output.get("data", {}) for cell in CELLS for output in cell["outputs"]) == 1


def test_what_it_says_of_the_two_changed_lines_of_the_verdict_and_of_noise_is_stored() -> None:
    stored = "".join(map(printed, CELLS))
    assert float(re.findall(r"after the first round: ([\d.e-]+)", stored)[0]) < 1e-4
    assert abs(float(re.findall(r"correlation with the update (-?[\d.]+)", stored)[0])) < 0.02
    assert float(re.findall(r"over the same three: ([\d.e-]+)", stored)[0]) < 1e-4
    assert "would learn the uniform sum over 4 survivors" in stored
    assert re.search(r"noise 1\.5: epsilon \d", stored)


def test_it_is_small_and_names_no_place_on_a_machine() -> None:
    text = NOTEBOOK.read_text()
    assert len(text) < 100_000
    assert not re.search(r"/(home|tmp|root|usr|work|Users|mnt|opt)/|\\\\Users", re.sub(r'"image/png": ".*?"', "", text))
    assert NOTEBOOK.name in (FOLDER / "README.md").read_text()
