"""The adapter on NVFlare's own simulator, where every site is a process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nvflare.collab")
if not os.environ.get("SECAGG_ENGINES"):
    pytest.skip("takes a minute: make test-engines", allow_module_level=True)

ROOT = Path(__file__).parent.parent.parent
TRIES = 4
"""On a busy machine NVFlare 2.9 sometimes loses a simulated site while it starts, and ends before the first round."""


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / script), *arguments]
    # Sites write to the same pipe: unbuffered, what is printed at once arrives in one piece, if not on its own line.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    for _ in range(TRIES):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - our own scripts
        if "failed to sync clients" not in done.stdout + done.stderr:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_learns_the_plane_and_goes_on_without_the_site_that_fails() -> None:
    lines = re.findall(r"round (\d): (\d) sites, slope \[([^]]*)\]", run("examples/nvflare_collab.py"))
    assert [int(number) for number, _, _ in lines] == list(range(5))
    assert [int(sites) for _, sites, _ in lines] == [6, 5, 6, 6, 6]
    np.testing.assert_allclose([float(one) for one in lines[-1][2].split()], [1, -2, 0.5], atol=0.05)


def test_whatever_a_site_does_the_mean_is_over_the_others_or_over_all_if_its_vector_was_there(tmp_path: Path) -> None:
    printed = run("tests/engines/nvflare_faults.py", str(tmp_path))
    rows = [json.JSONDecoder().raw_decode(printed, match.end())[0] for match in re.finditer("ROW ", printed)]
    everybody, others = [0, 1, 2, 3, 4], [0, 1, 3, 4]
    assert [row["survivors"] for row in rows] == [others, others, everybody, others, everybody, others, others]
    assert [row["failed"] for row in rows] == [
        {"ShareKeys": ["site-3"]},
        {"MaskedInput": ["site-3"]},
        {"Unmask": ["site-3"]},
        {"MaskedInput": ["site-3"]},
        {},
        {"MaskedInput": ["site-3"]},
        {"AdvertiseKeys": ["site-3"]},
    ]
    for row in rows:
        np.testing.assert_allclose(row["mean"], np.mean(row["survivors"]) / 8 + 1 / 8, rtol=0, atol=4 / 2**20)
