"""The command ``secagg`` from the outside: the demonstration from end to end, and how it fails."""

from __future__ import annotations

import json
import sys
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from protocols.experiments import demo as demonstration
from secagg import commands

if TYPE_CHECKING:
    from protocols.experiments.demo import DemoResult
    from secagg.dryrun import DryRun

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
PLUGGED_IN = tuple(
    EntryPoint(name, value, commands.GROUP)
    for name, value in PROJECT["project"]["entry-points"][commands.GROUP].items()
)
LABELS = ["fedavg", "clip", "clip-uniform"]


@dataclass(frozen=True)
class Finished:
    """A run of the command: what it wrote, returned and printed, and the result behind it."""

    folder: Path
    code: int
    out: str
    err: str
    result: DemoResult

    @property
    def json(self) -> dict[str, Any]:
        written: dict[str, Any] = json.loads((self.folder / "demo.json").read_text(encoding="utf-8"))
        return written


def plug_in(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    """Makes these the entry points that installing would have registered."""
    monkeypatch.setattr(commands, "entry_points", lambda *, group: [point for point in points if point.group == group])


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, *PLUGGED_IN)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One short run for all tests that look at its outcome."""
    folder, out, err = tmp_path_factory.mktemp("demo") / "not" / "there yet", StringIO(), StringIO()
    results: list[DemoResult] = []
    run = demonstration.run

    def remembered(*arguments: Any) -> DemoResult:
        results.append(run(*arguments))
        return results[0]

    with pytest.MonkeyPatch.context() as monkeypatch, redirect_stdout(out), redirect_stderr(err):
        plug_in(monkeypatch, *PLUGGED_IN)
        monkeypatch.setattr(demonstration, "run", remembered)
        code = commands.main(["demo", "--rounds", "1", "--out", str(folder)])
    return Finished(folder, code, out.getvalue(), err.getvalue(), results[0])


def test_the_demo_compares_three_encrypted_systems(finished: Finished) -> None:
    assert finished.code == 0
    assert [row["label"] for row in finished.json["systems"]] == LABELS
    assert [run["aggregator"] for run in finished.json["runs"].values()] == ["uniform", "mask-indexed", "uniform"]


def test_encryption_changes_no_bit(finished: Finished) -> None:
    assert [row["difference"] for row in finished.json["systems"]] == [0, 0, 0]


def test_pruned_stragglers_train_less_and_send_less(finished: Finished) -> None:
    fedavg, indexed, uniform = finished.json["systems"]
    assert fedavg["speed_up"] == 0
    assert fedavg["keep"] == 1
    assert uniform["keep"] < indexed["keep"] < 1
    assert uniform["joules"] < indexed["joules"] < fedavg["joules"]
    assert indexed["straggler_upload_bytes"] < 0.8 * uniform["straggler_upload_bytes"]
    for row in finished.json["systems"]:
        assert row["speed_up"] == pytest.approx(1 - row["round_seconds"] / fedavg["round_seconds"])


def test_pruning_and_then_packing_shorten_the_round(finished: Finished) -> None:
    """Without the calibrated seconds of secure aggregation, which this machine's mood decides."""
    parts = ("download", "compute", "upload")
    fedavg, indexed, uniform = (
        max(sum(client["seconds"][part] for part in parts) for client in run["rounds"][0]["clients"].values())
        for run in finished.json["runs"].values()
    )
    assert fedavg > uniform > indexed


def test_the_json_holds_devices_calibration_and_verdicts(finished: Finished) -> None:
    written = finished.json
    assert sum(row["number"] for row in written["setup"]["devices"]) == 20
    assert {time["mode"] for time in written["secure_times"]} == {"uniform", "mask-indexed"}
    assert all(time["client"] > 0 and time["server"] > 0 for time in written["secure_times"])
    assert list(written["verdicts"]) == LABELS
    assert all(len(run["rounds"]) == 1 for run in written["runs"].values())


def test_the_table_stands_on_stdout_and_the_progress_on_stderr(finished: Finished) -> None:
    assert all(label in finished.out for label in LABELS)
    assert "Speed-up" in finished.out
    assert "nothing else about any client" in " ".join(finished.out.split())
    assert "warm-up" in finished.err
    assert "Speed-up" not in finished.err


def test_the_picture_is_a_png(finished: Finished) -> None:
    assert (finished.folder / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_with_format_json_nothing_else_stands_on_stdout(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demonstration, "run", lambda *_: finished.result)
    assert commands.main(["demo", "--format", "json", "--out", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def foreseen() -> dict[str, DryRun]:
    """One dry run for all tests that look at its outcome."""
    return demonstration.dry_run(demonstration.DemoSettings())


def printed_by_a_dry_run(
    foreseen: dict[str, DryRun], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str
) -> str:
    """What the command prints instead of training."""
    monkeypatch.setattr(demonstration, "run", lambda *_: pytest.fail("a dry run trains nothing"))
    monkeypatch.setattr(demonstration, "dry_run", lambda _: foreseen)
    assert commands.main(["demo", "--dry-run", *options]) == 0
    return capsys.readouterr().out


def test_a_dry_run_foresees_every_system_and_writes_nothing(
    foreseen: dict[str, DryRun], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    printed = printed_by_a_dry_run(foreseen, monkeypatch, capsys, "--out", str(tmp_path / "nowhere"))
    assert not list(tmp_path.iterdir())
    assert list(foreseen) == LABELS
    assert printed == "\n\n".join(f"{name}\n{one}" for name, one in foreseen.items()) + "\n"


def test_a_dry_run_in_json_holds_sessions_and_what_they_release(
    foreseen: dict[str, DryRun], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fedavg, indexed, uniform = json.loads(
        printed_by_a_dry_run(foreseen, monkeypatch, capsys, "--format", "json")
    ).values()
    assert list(fedavg["sessions"]) == ["whole update"]
    assert list(uniform["sessions"]) == ["counting before", "whole update"]
    assert list(indexed["sessions"]) == ["whole update", "smallest update"]
    assert indexed["sessions"]["smallest update"]["coordinates"] < indexed["sessions"]["whole update"]["coordinates"]
    assert all(one["sessions"]["whole update"]["clients"] == 20 for one in (fedavg, uniform, indexed))
    assert all(one["released_share"] == 1 for one in (fedavg, uniform, indexed))


def test_the_uploads_foreseen_are_those_of_the_demo(foreseen: dict[str, DryRun], finished: Finished) -> None:
    for label, besides in (("fedavg", 0.01), ("clip", 0.05)):  # in its first round CLIP also finds its stragglers
        sent = finished.json["runs"][label]["rounds"][0]["clients"]["fast-01"]["upload_bytes"]
        whole = sum(foreseen[label].sessions["whole update"].upload_bytes.values())
        assert sent == pytest.approx(whole, rel=besides)


def fails_with(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs a command that has to fail, and returns its one line."""
    assert commands.main(arguments) == commands.FAILED
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(("option", "value"), [("--rounds", "0"), ("--seed", "-1")])
def test_a_wrong_setting_is_one_line(
    option: str, value: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    message = fails_with(capsys, "demo", option, value, "--out", str(tmp_path))
    assert message.startswith("secagg: ")
    assert option.removeprefix("--") in message


def test_a_folder_that_cannot_be_made_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "--out" in fails_with(capsys, "demo", "--out", str(tmp_path / "file"))


def test_a_missing_extra_is_named_when_the_command_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "protocols.experiments.demo")
    monkeypatch.delitem(sys.modules, "protocols.experiments.plots")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    message = fails_with(capsys, "demo", "--out", str(tmp_path))
    assert "needs matplotlib" in message
    assert "pip install 'secagg[experiments]'" in message


def test_a_missing_extra_is_named_when_the_command_cannot_even_be_registered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(monkeypatch, EntryPoint("shiny", "no_such_dependency.commands", commands.GROUP))
    message = fails_with(capsys, "shiny", "--with", "options")
    assert "`secagg shiny` needs no_such_dependency: pip install" in message


def test_a_broken_import_of_our_own_is_no_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, EntryPoint("broken", "secagg.no_such_module", commands.GROUP))
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        commands.main(["broken"])


def test_a_package_that_is_shadowed_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "shadowed_plug_in.py").write_text("raise ImportError('rename that folder')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    plug_in(monkeypatch, EntryPoint("shadowed", "shadowed_plug_in", commands.GROUP))
    assert "rename that folder" in fails_with(capsys, "shadowed")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "version", lambda _: "1.2.3")
    with pytest.raises(SystemExit) as ended:
        commands.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == "secagg 1.2.3\n"


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main([]) == commands.FAILED
    out, err = capsys.readouterr()
    assert not out
    assert "train with FedAvg and CLIP under encryption" in err
