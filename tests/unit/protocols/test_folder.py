"""A run that stops anywhere goes on as if it had not, and no folder is taken for that of another run."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from protocols.experiments import experiment
from protocols.experiments.folder import CHECKPOINT, LOCK, PERSONAL, ROUNDS, SETUP, RunFolder, locked
from protocols.experiments.setup import Setup
from protocols.federation import Checkpoint
from protocols.results import ClientRound, LostRound, Personal, RoundResult
from protocols.simulation.clock import ClientTime
from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from protocols.results import Outcome, RunResult

ROUND_COUNT = 4


class StoppedError(Exception):
    """Stands for whatever ends a process."""


# ---------------------------------------------------------------------------------- hand-made rounds

PLAN = {"system": "made up", "clients": 3, "training": {"steps": 2}, "rounds": 4}


def played(number: int) -> RoundResult:
    client = ClientRound(
        keep=0.5,
        parameters=10,
        flops=7,
        download_bytes=40,
        upload_bytes=20,
        seconds=ClientTime(download=0.1, compute=1 / 3, upload=0.2, secure=1e-9),
        joules=2.5,
        late=number == 1,
    )
    return RoundResult(
        number=number,
        accuracy=1 / 7,
        finished_at=2.0 * number,
        seconds=2.0,
        clients={"a": client, "b": client},
        survivors=("a", "b"),
        withheld_share=0.0,
        difference=None if number else 0.0,
        verdict='nobody learned "anything", not even ε',
        details={"mean depth": 2.5},
    )


def lost(number: int) -> LostRound:
    return LostRound(number=number, reason="2 clients sent their input < 3", seconds=9.5)


def checkpoint(number: int) -> Checkpoint:
    state = {"weight": torch.full((3, 2), number / 3), "mean": torch.tensor([0.5], dtype=torch.float64)}
    memory = {"depths": {"a": {"depth": number + 1}}, "scores": [torch.arange(3)], "last": None}
    return Checkpoint(number, state, {"weight": torch.zeros(3, 2)} if number else None, 2.0 * number, memory)


def filled(path: Path, outcomes: int = 3) -> RunFolder:
    folder = RunFolder(path, PLAN)
    for number in range(outcomes):
        folder.add(lost(number) if number == 1 else played(number), checkpoint(number + 1))
    return folder


def test_a_new_folder_is_made_with_its_parents_and_is_empty(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "one", PLAN)
    assert (folder.outcomes, folder.checkpoint) == ((), None)
    assert json.loads((tmp_path / "runs" / "one" / SETUP).read_text(encoding="utf-8")) == PLAN


def test_rounds_come_back_as_they_were_the_lost_ones_too(tmp_path: Path) -> None:
    outcomes = filled(tmp_path).outcomes
    assert outcomes == (played(0), lost(1), played(2))
    assert RunFolder(tmp_path, PLAN).outcomes == outcomes


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    filled(tmp_path)
    found, wanted = RunFolder(tmp_path, PLAN).checkpoint, checkpoint(3)
    assert found is not None
    assert (found.number, found.seconds) == (3, 6.0)
    for name, tensor in wanted.state.items():
        assert torch.equal(found.state[name], tensor)
        assert found.state[name].dtype == tensor.dtype
    assert found.memory["depths"] == {"a": {"depth": 4}}
    assert torch.equal(found.memory["scores"][0], torch.arange(3))


def test_a_line_beyond_the_checkpoint_is_dropped_from_the_file_too(tmp_path: Path) -> None:
    filled(tmp_path)
    torch.save(vars(checkpoint(2)), tmp_path / CHECKPOINT)
    folder = RunFolder(tmp_path, PLAN)
    assert folder.outcomes == (played(0), lost(1))
    folder.add(lost(2), checkpoint(3))
    assert RunFolder(tmp_path, PLAN).outcomes == (played(0), lost(1), lost(2))


@pytest.mark.parametrize("cut", [1, 8, 200])
def test_a_half_written_line_is_dropped(tmp_path: Path, cut: int) -> None:
    filled(tmp_path)
    text = (tmp_path / ROUNDS).read_text(encoding="utf-8")
    (tmp_path / ROUNDS).write_text(text + text[:cut], encoding="utf-8")
    assert RunFolder(tmp_path, PLAN).outcomes == (played(0), lost(1), played(2))
    assert (tmp_path / ROUNDS).read_text(encoding="utf-8") == text


@pytest.mark.parametrize("left", [(), (0, 2), (0, 1), (1, 2)])
def test_a_missing_round_is_refused_and_not_played_under_another_number(tmp_path: Path, left: tuple[int, ...]) -> None:
    filled(tmp_path)
    lines = (tmp_path / ROUNDS).read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / ROUNDS).write_text("".join(lines[number] for number in left), encoding="utf-8")
    with pytest.raises(InputError, match=f"{ROUNDS} is damaged"):
        RunFolder(tmp_path, PLAN)


def test_after_a_warm_up_the_first_round_has_its_length_as_number(tmp_path: Path) -> None:
    plan = {**PLAN, "warm_up": 3}
    folder = RunFolder(tmp_path, plan)
    for number in (3, 4):
        folder.add(played(number), checkpoint(number + 1))
    assert RunFolder(tmp_path, plan).outcomes == (played(3), played(4))
    lines = (tmp_path / ROUNDS).read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / ROUNDS).write_text("damaged\n" + lines[1], encoding="utf-8")
    with pytest.raises(InputError, match=f"{ROUNDS} is damaged"):
        RunFolder(tmp_path, plan)


def test_a_checkpoint_without_its_rounds_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / ROUNDS).unlink()
    with pytest.raises(InputError, match=f"{ROUNDS} is damaged"):
        RunFolder(tmp_path, PLAN)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"clients": 4}, "another clients:"),
        ({"training": {"steps": 3}}, "another training:"),
        ({"training": {"steps": 3}, "clients": 5, "rounds": 9}, "another clients, training:"),
        ({"alpha": 0.5}, "another alpha:"),
    ],
)
def test_another_run_is_refused_by_the_settings_that_differ(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    filled(tmp_path)
    with pytest.raises(ParameterError, match=named):
        RunFolder(tmp_path, {**PLAN, **change})
    assert json.loads((tmp_path / SETUP).read_text(encoding="utf-8")) == PLAN
    assert len(RunFolder(tmp_path, PLAN).outcomes) == 3


def test_a_setting_that_is_gone_is_another_run_too(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(ParameterError, match="another clients"):
        RunFolder(tmp_path, {name: value for name, value in PLAN.items() if name != "clients"})


def test_more_rounds_are_the_same_run_and_are_written_down(tmp_path: Path) -> None:
    filled(tmp_path)
    assert len(RunFolder(tmp_path, {**PLAN, "rounds": 30}).outcomes) == 3
    assert json.loads((tmp_path / SETUP).read_text(encoding="utf-8"))["rounds"] == 30


def test_rounds_only_grow(tmp_path: Path) -> None:
    filled(tmp_path)
    assert RunFolder(tmp_path, {**PLAN, "rounds": 2}).setup["rounds"] == PLAN["rounds"]
    assert json.loads((tmp_path / SETUP).read_text(encoding="utf-8")) == PLAN


@pytest.mark.parametrize("rounds", [2, 30])
def test_a_run_that_does_not_grow_has_its_number_of_rounds_for_good(tmp_path: Path, rounds: int) -> None:
    filled(tmp_path)
    with pytest.raises(ParameterError, match="another rounds"):
        RunFolder(tmp_path, {**PLAN, "rounds": rounds}, grows=False)
    assert len(RunFolder(tmp_path, PLAN, grows=False).outcomes) == 3


def test_a_folder_in_which_no_round_was_finished_is_free_for_another_run(tmp_path: Path) -> None:
    RunFolder(tmp_path, PLAN)
    other = {**PLAN, "clients": 4, "rounds": 2}
    assert RunFolder(tmp_path, other).outcomes == ()
    assert json.loads((tmp_path / SETUP).read_text(encoding="utf-8")) == other


def test_a_folder_can_be_opened_as_it_stands(tmp_path: Path) -> None:
    filled(tmp_path / "run")
    found = RunFolder.as_it_stands(tmp_path / "run")
    assert (found.setup, found.outcomes) == (PLAN, (played(0), lost(1), played(2)))
    with pytest.raises(InputError, match=f"{SETUP} is damaged"):
        RunFolder.as_it_stands(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("text", ["", "{", '{"system": "made up"', "\x00\x01"])
def test_a_damaged_setup_is_refused_by_name(tmp_path: Path, text: str) -> None:
    filled(tmp_path)
    (tmp_path / SETUP).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=f"{SETUP} is damaged: remove the folder, or choose another --out"):
        RunFolder(tmp_path, PLAN)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no checkpoint"),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"number": 3}, path),
        lambda path: torch.save({"number": 3, "object": object()}, path),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    filled(tmp_path)
    damage(tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match=f"{CHECKPOINT} is damaged: remove the folder, or choose another --out"):
        RunFolder(tmp_path, PLAN)


PERSONAL_OF_TWO = Personal(
    steps=25, before={"a": 1 / 3, "b": 0.5}, masked={"a": 0.6, "b": 0.5}, whole={"a": 0.7, "b": 1.0}
)


def test_how_clients_fare_comes_back_as_it_was_for_the_rounds_that_led_to_it(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    assert folder.personal(3) is None
    folder.keep_personal(3, PERSONAL_OF_TWO)
    again = RunFolder(tmp_path, PLAN)
    assert again.personal(3) == PERSONAL_OF_TWO
    assert again.personal(2) is again.personal(4) is None
    again.keep_personal(4, replace(PERSONAL_OF_TWO, steps=3))
    assert folder.personal(3) is None
    assert folder.personal(4) == replace(PERSONAL_OF_TWO, steps=3)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"rounds": 3}', '{"rounds": 3, "personal": {"steps": "many"}}'])
def test_a_damaged_judgement_of_clients_is_refused_by_name(tmp_path: Path, text: str) -> None:
    folder = filled(tmp_path)
    (tmp_path / PERSONAL).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=f"{PERSONAL} is damaged"):
        folder.personal(3)


def test_a_place_that_is_no_folder_is_refused_as_the_option_that_named_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ParameterError, match=r"--out .*file"):
        RunFolder(tmp_path / "file" / "below", PLAN)


def test_a_lock_keeps_others_out_until_its_block_is_left_however_that_is(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run"

    def refused() -> None:
        with locked(path), pytest.raises(InputError, match=r"another process is writing in .*run: wait, or"):
            locked(path).__enter__()

    def stopped() -> None:
        with locked(path), locked(path.parent):
            raise StoppedError

    refused()
    with pytest.raises(StoppedError):
        stopped()
    refused()


def test_a_lock_that_cannot_be_written_is_refused_as_the_option_that_named_its_place(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(ParameterError, match="--out"):
        locked(tmp_path).__enter__()


@pytest.mark.parametrize(("number", "refused"), [(errno.ENOLCK, False), (errno.EOPNOTSUPP, False), (errno.EIO, True)])
def test_where_a_file_system_has_no_locks_nobody_is_kept_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, refused: bool
) -> None:
    def failing(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", failing)
    with pytest.raises(ParameterError, match="--out") if refused else nullcontext(), locked(tmp_path):
        assert not refused


# ---------------------------------------------------------------------------------- interrupted runs

SETUP_OF_RUN = Setup(
    system="ma-clamp",
    settings={"patience": 1, "depth": 2},
    dataset="digits-mlp",
    aggregation="float",
    profile="half-everything",
    clients=4,
    rounds=ROUND_COUNT,
    training={"steps": 1, "batch_size": 8},
)
"""In floating point, so that no measured time comes in."""


def run(folder: Path, *, rounds: int = ROUND_COUNT, stop_after: int | None = None) -> tuple[RunResult, list[int]]:
    """The result and the numbers of the rounds that were played; stops after one of them if asked to."""
    numbers: list[int] = []

    def told(_: str, outcome: Outcome) -> None:
        numbers.append(outcome.number)
        if outcome.number == stop_after:
            raise StoppedError

    return experiment.run(replace(SETUP_OF_RUN, rounds=rounds), folder, on_round=told), numbers


def bits(folder: Path) -> dict[str, bytes]:
    found = RunFolder.as_it_stands(folder).checkpoint
    assert found is not None
    return {name: tensor.numpy().tobytes() for name, tensor in found.state.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """A run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)[0]


def stop_after_the_round(folder: Path, stop: int) -> int:
    with pytest.raises(StoppedError):
        run(folder, stop_after=stop)
    return stop + 1


def stop_between_line_and_checkpoint(folder: Path, stop: int) -> int:
    with pytest.MonkeyPatch.context() as patched:
        save, saved = torch.save, iter(range(ROUND_COUNT))

        def failing(fields: Any, path: Path) -> None:
            if next(saved) == stop:
                raise StoppedError
            save(fields, path)

        patched.setattr(torch, "save", failing)
        with pytest.raises(StoppedError):
            run(folder)
    return stop


def stop_in_the_line(folder: Path, stop: int) -> int:
    stop_between_line_and_checkpoint(folder, stop)
    path = folder / ROUNDS
    path.write_bytes(path.read_bytes()[:-100])
    return stop


def stop_before_the_checkpoint_is_in_place(folder: Path, stop: int) -> int:
    stop_between_line_and_checkpoint(folder, stop)
    (folder / (CHECKPOINT + ".new")).write_bytes(b"half a checkpoint")
    return stop


@pytest.mark.parametrize("stop", [0, 2])
@pytest.mark.parametrize(
    "interrupt",
    [
        stop_after_the_round,
        stop_between_line_and_checkpoint,
        stop_in_the_line,
        stop_before_the_checkpoint_is_in_place,
    ],
)
def test_an_interrupted_run_goes_on_and_ends_where_the_uninterrupted_one_does(
    tmp_path: Path, whole: tuple[Path, RunResult], interrupt: Callable[[Path, int], int], stop: int
) -> None:
    kept = interrupt(tmp_path, stop)
    result, numbers = run(tmp_path)
    assert numbers == list(range(kept, ROUND_COUNT))
    assert result == whole[1]
    assert bits(tmp_path) == bits(whole[0])


ANOTHER_PROCESS = """
import sys
from pathlib import Path
from protocols.experiments import experiment
from protocols.experiments.setup import Setup

def told(_, outcome):
    if outcome.number == 1:
        print("there", flush=True)
        sys.stdin.read()

experiment.run(Setup(**SETTINGS), Path(sys.argv[1]), on_round=told)
"""


def test_a_folder_is_another_processs_until_that_is_killed_and_then_goes_on(
    tmp_path: Path, whole: tuple[Path, RunResult]
) -> None:
    code = ANOTHER_PROCESS.replace("SETTINGS", repr(vars(SETUP_OF_RUN)))
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:  # noqa: S603 - our own code
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == "there\n"
            before = {path: path.read_bytes() for path in tmp_path.iterdir()}
            with pytest.raises(InputError, match="another process is writing"):
                run(tmp_path)
            assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
        finally:
            other.kill()
    result, numbers = run(tmp_path)
    assert numbers == [2, 3]
    assert result == whole[1]
    assert bits(tmp_path) == bits(whole[0])


def test_a_run_that_is_done_plays_nothing_again(whole: tuple[Path, RunResult]) -> None:
    result, numbers = run(whole[0])
    assert numbers == []
    assert result == whole[1]


def test_more_rounds_extend_a_run_as_if_they_had_been_asked_for_at_once(
    tmp_path: Path, whole: tuple[Path, RunResult]
) -> None:
    run(tmp_path, rounds=2)
    result, numbers = run(tmp_path)
    assert numbers == [2, 3]
    assert result == whole[1]
    assert bits(tmp_path) == bits(whole[0])


def test_fewer_rounds_are_the_first_of_those_that_are_there(tmp_path: Path, whole: tuple[Path, RunResult]) -> None:
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    result, numbers = run(tmp_path, rounds=2)
    assert numbers == []
    assert result.rounds == whole[1].rounds[:2]
    assert run(tmp_path)[1] == []


def test_depths_differ_in_the_run_so_that_a_memory_that_is_lost_would_show(whole: tuple[Path, RunResult]) -> None:
    assert len({one.details["mean depth"] for one in whole[1].rounds}) > 1
