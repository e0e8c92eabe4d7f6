"""``secagg run``, ``compare`` and ``tune`` from the outside, on digits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from protocols import commands as plugged_in
from protocols.folder import RunFolder
from secagg import commands

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TINY = ("--dataset", "digits-mlp", "--clients", "5", "--params", "max_dropouts=0")


class EntryPoint:
    """What installing would have registered."""

    name = "protocols"

    def load(self) -> Any:
        return plugged_in


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "entry_points", lambda *, group: [EntryPoint()] if group == commands.GROUP else [])


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert commands.main(arguments) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> str:
    """The one line of a command that has to fail."""
    assert commands.main(arguments) == commands.FAILED
    out, err = capsys.readouterr()
    assert not out
    return err.strip().splitlines()[-1]


def test_a_run_prints_a_table_and_keeps_its_rounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, "run", "clip", *TINY, "--rounds", "2", "--warm-up", "2", "--check", "--out", str(tmp_path))
    assert "CLIP global mask-indexed on digits-mlp" in said
    assert "called themselves stragglers" in said
    written = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert [one["number"] for one in written["result"]["rounds"]] == [2, 3]
    assert [one["difference"] for one in written["result"]["rounds"]] == [0, 0]
    assert len((tmp_path / "rounds.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_a_run_takes_settings_as_text_and_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--set", "statistic=vote", "--set", "keep=0.5", "--training", "learning_rate=0.01", "--format", "json")
    said = json.loads(printed(capsys, "run", "clip", *TINY, "--rounds", "2", *options, "--out", str(tmp_path)))
    assert said["setup"]["settings"] == {"statistic": "vote", "keep": "0.5"}
    assert said["summary"]["system"] == "CLIP vote mask-indexed"
    assert 0.5 < said["summary"]["keep"] < 1  # everything in the first round, half of it in the second


def test_an_interrupted_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("run", "fedavg", *TINY, "--aggregation", "plain", "--rounds", "3", "--out", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "add", _interrupted_after_the_first(RunFolder.add))
        assert "the same command goes on" in refused(capsys, command)
    assert len((tmp_path / "rounds.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    printed(capsys, *command)
    assert len((tmp_path / "rounds.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def _interrupted_after_the_first(add: Any) -> Any:
    def keep(folder: Any, outcome: Any, checkpoint: Any) -> None:
        if outcome.number == 1:
            raise KeyboardInterrupt
        add(folder, outcome, checkpoint)

    return keep


def test_a_comparison_writes_tables_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--variants", "ma-clamp", "clamp", "--seeds", "4", "5", "--rounds", "2", "--warm-up", "1", "--plain")
    said = printed(capsys, "compare", "ma-clamp", *TINY, "--profile", "mixed", *options, "--out", str(tmp_path))
    assert all(label in said for label in ("fedavg", "ma-clamp", "clamp", "SDIR"))
    written = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert [row["label"] for row in written["rows"]] == ["fedavg", "ma-clamp", "clamp"]
    assert all(row["seeds"] == [4, 5] for row in written["rows"])
    assert written["rows"][0]["gain"]["mean"] == 0
    for name in ("accuracy.png", "time.png", "gains.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert page.count("| ma-clamp |") == 2
    assert "Layers recovered" in page


def test_a_comparison_in_json_prints_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--variants", "exclusion", "--seeds", "0", "--rounds", "1", "--warm-up", "0", "--format", "json")
    said = json.loads(printed(capsys, "compare", "clip", *TINY, *options, "--out", str(tmp_path)))
    assert said == json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert said["rows"][1]["gain"]["margin"] is None


def test_tuning_looks_at_the_validation_part_and_names_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--learning-rates", "1e-9", "0.01", "--rounds", "4", "--format", "json", "--out", str(tmp_path))
    said = json.loads(printed(capsys, "tune", *TINY, *options))
    assert said["best"] == 0.01
    assert said["validation"]["0.01"] > said["validation"]["1e-09"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("run", "nothing"), "no system is called 'nothing'; there are fedavg"),
        (("run", "fedavg", "--dataset", "nothing"), "dataset must be one of digits"),
        (("run", "fedavg", "--dataset", "mnist"), "--data-dir"),
        (("run", "fedavg", "--profile", "nothing"), "profile must be one of half-speed"),
        (("run", "fedavg", "--aggregation", "mask-indexed"), "aggregation"),
        (("run", "fluid", "--aggregation", "uniform"), "aggregation"),
        (("run", "clip", "--set", "statistic"), "--set takes NAME=VALUE"),
        (("run", "clip", "--set", "nothing=1"), "no setting nothing; there are budget"),
        (("run", "clip", "--set", "keep=2"), "keep"),
        (("run", "clip", "--training", "steps=zero"), "steps"),
        (("run", "clip", "--device", "nowhere"), "--device nowhere"),
        (("compare", "nothing"), "clip, ma-clamp"),
        (("compare", "clip", "--variants", "nothing"), "no variant nothing; there are fedavg"),
        (("compare", "clip", "--seeds", "1", "1"), "seeds"),
        (("compare", "clip", "--jobs", "0"), "jobs"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    arguments: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refused(capsys, (*arguments, "--out", str(tmp_path)))
