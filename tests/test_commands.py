"""``secagg run``, ``compare`` and ``tune`` from the outside, on digits."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from protocols import commands as plugged_in
from protocols.commands.options import pairs
from protocols.commands.printing import bars
from protocols.experiments import campaign
from protocols.experiments.folder import RunFolder, locked
from protocols.experiments.setup import params_of, settings_of
from protocols.experiments.tasks import task
from protocols.results import LostRound
from protocols.simulation import calibration
from protocols.simulation.calibration import CALIBRATION, Calibration
from secagg import commands
from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocols.experiments.campaign import Campaign
    from protocols.experiments.setup import Setup

TINY = ("--dataset", "digits-mlp", "--clients", "5", "--params", "max_dropouts=0")


class EntryPoint:
    """What installing would have registered."""

    name = "protocols"

    def load(self) -> Any:
        return plugged_in


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "LENGTHS", (8, 64))
    monkeypatch.setattr(calibration, "SESSIONS", 1)
    monkeypatch.setattr(commands, "entry_points", lambda *, group: [EntryPoint()] if group == commands.GROUP else [])


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert commands.main(arguments) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], arguments: Sequence[str], code: int = commands.FAILED) -> str:
    """The one line of a command that has to fail."""
    assert commands.main(arguments) == code
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
    settings = said["setup"]["settings"]
    assert (settings["statistic"], settings["keep"], settings["budget"]) == ("vote", 0.5, "round")
    assert said["setup"]["training"]["learning_rate"] == 0.01
    assert said["summary"]["system"] == "CLIP vote mask-indexed"
    assert 0.5 < said["summary"]["keep"] < 1  # everything in the first round, half of it in the second
    assert not {"gain", "gain_in_time", "accuracy_in_time", "speed_up", "bound"} & set(said["summary"])


def test_a_run_alone_is_not_compared_with_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--aggregation", "float", "--rounds", "1", "--profile", "mixed", "--out", str(tmp_path))
    said = printed(capsys, "run", "fedavg", "--dataset", "digits-mlp", *options)
    assert "Accuracy" in said
    assert not any(word in said for word in ("Speed-up", "baseline", "kept"))
    assert "Devices, mixed (a tenth of the devices slow, a tenth fast, links equal)." in " ".join(said.split())
    assert all(f"{which} of 20" in " ".join(said.split()) for which in ("slowest", "median", "fastest"))


PRIVATE = ("--params", "max_dropouts=1", "--aggregation", "uniform", "--epsilon", "20", "--clip", ".5")


def test_a_private_run_tells_what_it_spent_in_the_table_and_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ("run", "fedavg", *TINY, *PRIVATE, "--rounds", "2", "--out", str(tmp_path))
    assert "Epsilon" in printed(capsys, *run)
    told = json.loads(printed(capsys, *run, "--format", "json"))
    # Nobody dropped out of four in five rounds for which the noise was sized.
    assert 15 < told["summary"]["at_end"]["epsilon"] < 20
    assert told["setup"]["params"]["privacy"]["clip"] == 0.5
    spent = [json.loads(line)["details"]["epsilon"] for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert spent[0] < spent[1] == told["summary"]["at_end"]["epsilon"]


def test_with_the_surplus_removed_a_run_spends_its_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ("run", "fedavg", *TINY, *PRIVATE, "--remove-surplus", "--rounds", "2", "--out", str(tmp_path))
    told = json.loads(printed(capsys, *run, "--format", "json"))
    assert 19.9 < told["summary"]["at_end"]["epsilon"] <= 20


def test_the_privacy_of_examples_is_another_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ("run", "fedavg", *TINY, *PRIVATE, "--unit", "sample", "--rounds", "2", "--out", str(tmp_path))
    told = json.loads(printed(capsys, *run, "--format", "json"))
    assert 19.9 < told["summary"]["at_end"]["epsilon"] <= 20
    assert told["setup"]["params"]["privacy"] is None
    assert told["setup"]["training"]["sample_level"]["clip"] == 0.5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("fedavg", "--warm-up", "1"), "set warm_up to 0 with epsilon"),
        (("fluid", "--aggregation", "plain"), "releases more than noisy updates"),
        (("fedavg", "--epsilon", ".001"), "raise epsilon or delta, or lower rounds"),
    ],
)
def test_a_private_run_that_cannot_be_names_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: Sequence[str], said: str
) -> None:
    assert said in refused(capsys, ("run", *TINY, *PRIVATE, "--rounds", "2", "--out", str(tmp_path), *given))


def test_bars_stay_above_the_reason_only_where_a_round_was_played(capsys: pytest.CaptureFixture[str]) -> None:
    lost = LostRound(number=0, reason="", seconds=0.0)
    for played in (False, True):
        with pytest.raises(ParameterError), bars({"a label": 3}, {}) as tell:  # noqa: PT012 - the round comes before it
            if played:
                tell("a label", 0, lost)
            raise ParameterError("it cannot be")
        assert ("a label" in capsys.readouterr().err) == played


def test_the_bars_of_runs_that_go_on_begin_where_these_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "compare",
        "ma-clamp",
        *TINY,
        "--variants",
        "ma-clamp",
        "--seeds",
        "0",
        "--plain",
        "--out",
        str(tmp_path),
    )
    for rounds in ("2", "3"):
        assert commands.main([*options, "--warm-up", "1", "--rounds", rounds]) == 0
    assert "0/" not in capsys.readouterr().err
    assert commands.main([*options, "--warm-up", "1", "--rounds", "3"]) == 0
    told = capsys.readouterr().err
    assert "0/" not in told
    assert told.count("3/3") == 2
    assert "1/1" in told


@pytest.mark.parametrize(("command", "more"), [("run", ()), ("compare", ("--variants", "ca-afp", "--seeds", "0"))])
@pytest.mark.parametrize("rounds", [None, 2])
def test_a_schedule_gets_its_rounds_unless_others_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, more: tuple[str, ...], rounds: int | None
) -> None:
    options = (*TINY, "--training", "steps=1", "--warm-up", "0", *more, "--out", str(tmp_path))
    asked = () if rounds is None else ("--rounds", str(rounds))
    said = printed(capsys, command, "ca-afp", *options, *asked)
    assert f"{rounds or 36} rounds" in said
    assert ("ca-afp comes to its end in 36 rounds" in said) == (rounds is not None)


def test_a_wrong_value_is_refused_in_one_line_that_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ("run", "fedavg", *TINY, "--params", "levels=many", "--out", str(tmp_path))
    assert commands.main(wrong) == commands.FAILED
    assert capsys.readouterr().err.strip() == "secagg: levels must be int, not 'many'"


@pytest.mark.parametrize("command", ["run fedavg", "compare clip", "tune --learning-rates 0.01"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--clip 0.1 --mechanism discrete-gaussian", "--clip, --mechanism need --epsilon"),
        ("--delta 1e-6", "--delta needs --epsilon"),
        ("--rotate", "--rotate needs --epsilon"),
        ("--ring-bits 16", "--ring-bits needs --epsilon"),
        ("--remove-surplus", "--remove-surplus needs --epsilon"),
        ("--unit sample", "--unit needs --epsilon"),
        ("--epsilon inf --clip 0.1", "--clip needs --epsilon, and a finite one"),
    ],
)
def test_what_only_a_budget_gives_a_meaning_is_refused_without_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, given: str, said: str
) -> None:
    assert said in refused(capsys, (*command.split(), *given.split(), "--out", str(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_the_private_systems_are_not_compared_without_a_word_on_their_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, ("compare", "private", *TINY, "--out", str(tmp_path)))
    assert "give --epsilon, or --epsilon inf for none" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "warm_up", "epsilon"),
    [
        ("private --epsilon 8", 0, 8.0),
        ("private --epsilon inf", 0, None),
        ("private --epsilon inf --warm-up 2", 2, None),
        ("clip --epsilon 8", 0, 8.0),
        ("clip", 5, None),
        ("clip --warm-up 0", 0, None),
    ],
)
def test_by_default_nothing_is_trained_before_that_would_spend_of_a_budget(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, warm_up: int, epsilon: float | None
) -> None:
    asked: list[Campaign] = []

    def noted(planned: Campaign, *_: Any, **__: Any) -> None:
        asked.append(planned)
        raise InputError("enough")

    monkeypatch.setattr(campaign, "run", noted)
    commands.main(["compare", *given.split(), "--out", str(tmp_path)])
    assert [one.base.warm_up for one in asked] == [warm_up]
    assert asked[0].base.privacy.get("epsilon") == epsilon


def test_a_warm_up_that_would_spend_of_a_budget_is_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--epsilon", "8", "--warm-up", "1", "--out", str(tmp_path))
    assert "--warm-up 0" in refused(capsys, ("compare", "private", *options))


@pytest.mark.parametrize("command", ["run fedavg", "compare clip --seeds 0"])
@pytest.mark.parametrize(
    ("given", "said"),
    [("--clients 5000", "do not make 5000 parts: choose fewer clients (--clients)"), ("--dataset mnist", "--data-dir")],
)
def test_data_that_do_not_do_are_refused_before_anything_is_measured_or_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    command: str,
    given: str,
    said: str,
) -> None:
    measured: list[int] = []
    monkeypatch.setattr(Calibration, "time", lambda _, __, clients, ___: measured.append(clients))
    assert said in refused(capsys, (*command.split(), *given.split(), "--out", str(tmp_path / "out")))
    assert measured == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fewer", [("--rounds", "1"), ("--rounds", "3", "--until", "1e-9")])
def test_the_result_of_a_longer_run_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fewer: Sequence[str]
) -> None:
    command = ("run", "fedavg", *TINY, "--aggregation", "float", "--out", str(tmp_path))
    printed(capsys, *command, "--rounds", "3")
    before = {name: (tmp_path / name).read_bytes() for name in ("result.json", "rounds.jsonl")}
    said = refused(capsys, (*command, *fewer))
    assert "holds 3 rounds" in said
    assert "--rounds" in said
    assert "--out" in said
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert "3 rounds" in printed(capsys, *command, "--rounds", "3")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--rounds", "1"), "profile half-speed, 1 round\n"),
        (("--rounds", "2"), "profile half-speed, 2 rounds\n"),
        (("--rounds", "100000", "--until", "1e-9"), "profile half-speed, the first 1e-09 s\n"),
        (("--rounds", "1", "--until", "123456789"), "profile half-speed, 1 round\n"),
    ],
)
def test_a_title_tells_how_far_a_run_went(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: Sequence[str], said: str
) -> None:
    command = ("run", "fedavg", *TINY, "--aggregation", "float", "--out", str(tmp_path))
    assert said in printed(capsys, *command, *given)


@pytest.mark.parametrize("command", [("run", "fedavg"), ("compare", "clip", "--variants", "clip", "--seeds", "0")])
def test_a_folder_in_which_another_process_writes_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Sequence[str]
) -> None:
    options = (*TINY, "--rounds", "1", "--warm-up", "0", "--out", str(tmp_path))
    with locked(tmp_path):
        before = sorted(tmp_path.rglob("*"))
        assert "another process is writing in" in refused(capsys, (*command, *options))
        assert sorted(tmp_path.rglob("*")) == before
    printed(capsys, *command, *options)


def test_an_interrupted_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("run", "fedavg", *TINY, "--aggregation", "plain", "--rounds", "3", "--out", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "add", _interrupted_after_the_first(RunFolder.add))
        assert "the same command goes on" in refused(capsys, command, commands.INTERRUPTED)
    assert len((tmp_path / "rounds.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    printed(capsys, *command)
    assert len((tmp_path / "rounds.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_an_interrupted_run_and_its_warm_up_keep_their_calibrated_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (
        "run",
        "clip",
        *TINY,
        "--aggregation",
        "plain",
        "--warm-up",
        "3",
        "--rounds",
        "1",
        "--out",
        str(tmp_path),
    )
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "add", _interrupted_after_the_first(RunFolder.add))
        assert "the same command goes on" in refused(capsys, command, commands.INTERRUPTED)
    before = (tmp_path / CALIBRATION).read_bytes()
    assert {one["mode"] for one in json.loads(before)} == {"uniform", "mask-indexed"}
    printed(capsys, *command)
    assert (tmp_path / CALIBRATION).read_bytes() == before


def test_a_warm_up_cannot_be_lengthened_and_the_run_that_is_there_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("run", "fedavg", *TINY, "--aggregation", "float", "--out", str(tmp_path))
    printed(capsys, *command, "--rounds", "1", "--warm-up", "1")
    assert "holds a run with another warm_up" in refused(capsys, (*command, "--rounds", "1", "--warm-up", "2"))
    printed(capsys, *command, "--rounds", "2", "--warm-up", "1")
    assert len((tmp_path / "warm-up" / "rounds.jsonl").read_text(encoding="utf-8").splitlines()) == 1


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
    assert "kept up" not in page + said  # not only stragglers train less
    assert "partition label-skewed (alpha 0.5)" in page
    assert "warm-up rounds 1, rounds 2," in page
    assert "learning rate 0.001" in page
    assert "seeds 4, 5." in page
    assert f"{written['setup']['data']['train']} training and {written['setup']['data']['test']} test examples" in page
    assert "`mixed`: a tenth of the devices slow, a tenth fast, links equal." in page
    assert [f"| {which} of 5 |" in page for which in ("slowest", "median", "fastest")] == [True] * 3
    assert len(written["setup"]["devices"]) == 5


@pytest.mark.parametrize("fine_tuning", [0, 1])
def test_how_clients_fare_is_drawn_where_they_are_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fine_tuning: int
) -> None:
    options = ("--variants", "local", "--seeds", "0", "--rounds", "1", "--warm-up", "0", "--plain")
    asked = ("--fine-tuning", str(fine_tuning))
    said = printed(capsys, "compare", "ca-afp", *TINY, *options, *asked, "--out", str(tmp_path))
    assert (tmp_path / "clients.png").exists() == ("clients.png" in said) == bool(fine_tuning)
    assert said.rstrip().endswith("gains.png, clients.png" if fine_tuning else "gains.png")


def test_numbers_are_never_cut_however_narrow_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    options = ("--variants", "clip-uniform-compute", "exclusion", "--seeds", "0", "1", "--rounds", "1", "--plain")
    said = printed(capsys, "compare", "clip", *TINY, *options, "--warm-up", "0", "--out", str(tmp_path))
    tables = [line for line in said.splitlines() if line.startswith("\u2502")]
    assert len(tables) == 2 * 3
    assert "\u2026" not in said
    assert max(map(len, said.splitlines())) <= 118
    page = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    told = {cell.strip() for line in tables for cell in line.strip("\u2502").split("\u2502")}
    assert told <= {cell.strip() for line in page.splitlines() for cell in line.split("|")}
    assert "If stragglers kept up" in page


def test_a_comparison_in_json_prints_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--variants", "exclusion", "--seeds", "0", "--rounds", "1", "--warm-up", "0", "--format", "json")
    said = json.loads(printed(capsys, "compare", "clip", *TINY, *options, "--out", str(tmp_path)))
    assert said == json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert said["rows"][1]["gain"]["margin"] is None


TUNE = ("tune", *TINY, "--learning-rates", "1e-9", "0.01", "--rounds", "4")


def test_tuning_looks_at_the_validation_part_alone_and_names_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = json.loads(printed(capsys, *TUNE, "--format", "json", "--out", str(tmp_path)))
    assert said["best"] == 0.01
    assert said["validation"]["0.01"] > said["validation"]["1e-09"]
    assert said == json.loads((tmp_path / "tune.json").read_text(encoding="utf-8"))
    setup = json.loads((tmp_path / "digits-mlp-0.01" / "seed-0" / "setup.json").read_text(encoding="utf-8"))
    assert setup["judge"] == said["setup"]["judge"] == "validation"
    assert set(setup["data"]) == {"train", "validation", "sha256"}


def test_tuning_that_was_interrupted_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "add", _interrupted_after_the_first(RunFolder.add))
        assert "the same command goes on" in refused(capsys, (*TUNE, "--out", str(tmp_path)), commands.INTERRUPTED)
    assert not (tmp_path / "tune.json").exists()
    assert "0.01" in printed(capsys, *TUNE, "--out", str(tmp_path))
    assert (tmp_path / "tune.json").exists()


SCRIPTS = ("reproduce_clip", "reproduce_ma_clamp", "reproduce_pr_fl", "reproduce_ca_afp", "reproduce_privacy")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_names_the_comparisons_that_there_are(
    script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(Path(__file__).parent.parent / "examples" / f"{script}.py")
    first = next(iter(runpy.run_path(path)["COMPARISONS"]))
    monkeypatch.setattr(sys, "argv", [script, "--only", first, "nothing"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(path, run_name="__main__")
    assert ended.value.code == 2
    assert f"--only nothing: there are {first}, " in capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_comparison_of_a_script_is_one_that_the_command_knows(
    script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Setup] = []

    def noted(planned: Campaign, *_: Any, **__: Any) -> None:
        asked.extend(planned.setup(variant, planned.seeds[0]) for variant in planned.variants)
        raise InputError("enough")

    monkeypatch.setattr(campaign, "run", noted)
    path = str(Path(__file__).parent.parent / "examples" / f"{script}.py")
    named = runpy.run_path(path)
    for name in named["COMPARISONS"]:
        monkeypatch.setattr(sys, "argv", [script, "--out", str(tmp_path), "--only", name])
        with pytest.raises(SystemExit):
            runpy.run_path(path, run_name="__main__")
    assert len(asked) >= 3 * len(named["COMPARISONS"])
    for one in asked:
        task(one.dataset)
        settings_of(one)
        params_of(one)


def test_a_script_runs_as_few_variants_and_seeds_as_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def main(arguments: list[str]) -> int:
        asked.append(arguments)
        return 0

    monkeypatch.setattr("secagg.commands.main", main)
    monkeypatch.delitem(sys.modules, "protocols.experiments.reproduce", raising=False)
    path = str(Path(__file__).parent.parent / "examples" / "reproduce_ca_afp.py")
    options = ["--only", "har", "--device", "cuda", "--variants", "fedavg", "local", "--seeds", "1", "2"]
    monkeypatch.setattr(sys, "argv", ["reproduce_ca_afp", *options])
    runpy.run_path(path, run_name="__main__")
    (command,) = asked
    assert command[:2] == ["compare", "ca-afp"]
    assert command[command.index("--device") + 1] == "cuda"
    assert command[-6:] == ["--variants", "fedavg", "local", "--seeds", "1", "2"]


@pytest.mark.parametrize(
    ("given", "taken"), [(".5", "0.5"), ("-.5", "-0.5"), ("0.5", "0.5"), (".", "."), ("a.5", "a.5")]
)
def test_a_number_may_leave_out_its_leading_zero(given: str, taken: str) -> None:
    assert pairs("--set", [f"keep={given}"]) == {"keep": taken}


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
        (("run", "clip", "--participants", "-1"), "participants must be from 1 to the 20 clients, not -1"),
        (("compare", "clip", "--fleet-seed", "-1"), "fleet_seed"),
        (("compare", "nothing"), "clip, ma-clamp"),
        (("compare", "clip", "--variants", "nothing"), "no variant nothing; there are fedavg"),
        (("compare", "clip", "--seeds", "1", "1"), "seeds"),
        (("compare", "clip", "--jobs", "0"), "jobs"),
        (("compare", "clip", "--targets", "0.9", "90"), "--targets 90: an accuracy is a share in (0, 1], as 0.9"),
        (("compare", "clip", "--targets", "0"), "--targets 0:"),
        (("compare", "clip", "--targets", "nan"), "--targets nan:"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    arguments: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refused(capsys, (*arguments, "--out", str(tmp_path)))
