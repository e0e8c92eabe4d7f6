"""A run on disk: what it is, the rounds it finished, and where it goes on.

``setup.json`` says what runs, ``rounds.jsonl`` has a line for every round, ``checkpoint.pt`` is where the next round
starts. The line is written first. A run that was stopped between the two writes plays that round again, and its line is
dropped: so no finished round is lost, and none counts twice. A folder without a checkpoint holds no run yet.
"""

from __future__ import annotations

import errno
import json
import pickle
import sys
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from protocols.federation import Checkpoint
from protocols.results import LostRound, Personal, RoundResult
from secagg.errors import InputError, ParameterError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from protocols.results import Outcome

SETUP, ROUNDS, CHECKPOINT, PERSONAL = "setup.json", "rounds.jsonl", "checkpoint.pt", "personal.json"
LOCK = "lock"
"""The empty file that whoever writes in a folder holds locked; it stays, and says nothing by being there."""


def make_folder(path: Path) -> None:
    """Makes a folder where there is none.

    Raises:
        ParameterError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(f"--out {path}: {error.strerror}") from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes from writing in a folder, which is made where there is none, until the block is left.

    The lock ends with the process, however that ends. Where the system or the file system has none, nobody is kept out.

    Args:
        path: The folder.

    Raises:
        ParameterError: The folder cannot be written.
        InputError: Another process holds it, or another block of this one.
    """
    make_folder(path)
    try:
        lock = (path / LOCK).open("ab")
    except OSError as error:
        raise ParameterError(f"--out {path}: {error.strerror}") from None
    with lock:
        if sys.platform != "win32":
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"another process is writing in {path}: wait, or choose another --out") from None
            except OSError as error:
                if error.errno not in _LOCKLESS:
                    raise ParameterError(f"--out {path}: {error.strerror}") from None
        yield


_LOCKLESS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What file systems without locks answer."""


def rounds_kept(path: Path) -> int:
    """How many rounds of a run are in a folder; none where there is no run."""
    rounds = path / ROUNDS
    return len(rounds.read_bytes().splitlines()) if rounds.exists() else 0


class RunFolder:
    """The folder of one run, made where there is none.

    Args:
        path: Where.
        setup: What runs, as plain data; its ``warm_up`` is the number of the first round, 0 without. A folder that
            holds another run is refused.
        grows: Whether more rounds than planned before, its ``rounds``, are the same run.

    Raises:
        ParameterError: The folder cannot be written, or holds another run; the message names the setting that differs.
        InputError: A file in it is damaged.
    """

    def __init__(self, path: Path, setup: Mapping[str, Any], *, grows: bool = True) -> None:
        make_folder(path)
        self.path = path
        self.setup: dict[str, Any] = json.loads(json.dumps(setup))
        self.checkpoint = self._read_checkpoint()
        found = _read_setup(path) if (path / SETUP).exists() else None
        if found is not None and self.checkpoint is not None:
            _refuse_another(path, found, self.setup, grows=grows)
            self.setup["rounds"] = max(found.get("rounds", 0), self.setup["rounds"])
        if found != self.setup:
            _replace(path / SETUP, json.dumps(self.setup, indent=1) + "\n")
        self._outcomes = self._read_rounds()

    @classmethod
    def as_it_stands(cls, path: Path) -> RunFolder:
        """The folder of a run that there is, whatever runs in it.

        Raises:
            InputError: There is none, or a file in it is damaged.
        """
        return cls(path, _read_setup(path))

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What came of every round so far."""
        return tuple(self._outcomes)

    def add(self, outcome: Outcome, checkpoint: Checkpoint) -> None:
        """Keeps a round that ended, and where the next one starts."""
        self._outcomes.append(outcome)
        self.checkpoint = checkpoint
        with (self.path / ROUNDS).open("a", encoding="utf-8") as lines:
            lines.write(_line(outcome) + "\n")
        fresh = self.path / (CHECKPOINT + ".new")
        torch.save({name: getattr(checkpoint, name) for name in _FIELDS}, fresh)
        fresh.replace(self.path / CHECKPOINT)

    def personal(self, rounds: int) -> Personal | None:
        """How clients fare after so many rounds, if that was kept.

        Raises:
            InputError: The file is damaged.
        """
        path = self.path / PERSONAL
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return msgspec.convert(found["personal"], Personal) if found["rounds"] == rounds else None
        except (ValueError, KeyError, TypeError, msgspec.ValidationError):
            raise _damaged(path) from None

    def keep_personal(self, rounds: int, personal: Personal) -> None:
        """Keeps how clients fare after so many rounds."""
        text = json.dumps({"rounds": rounds, "personal": asdict(personal)}) + "\n"
        _replace(self.path / PERSONAL, text)

    def _read_checkpoint(self) -> Checkpoint | None:
        path = self.path / CHECKPOINT
        if not path.exists():
            return None
        try:
            return Checkpoint(**torch.load(path, weights_only=True))
        except (pickle.UnpicklingError, RuntimeError, TypeError, ValueError, EOFError, OSError):
            raise _damaged(path) from None

    def _read_rounds(self) -> list[Outcome]:
        path, first = self.path / ROUNDS, self.setup.get("warm_up", 0)
        end = first if self.checkpoint is None else self.checkpoint.number
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        outcomes = [one for one in map(_outcome, lines) if one is not None and first <= one.number < end]
        if [one.number for one in outcomes] != list(range(first, end)):
            raise _damaged(path)
        if len(outcomes) != len(lines):
            _replace(path, "".join(_line(one) + "\n" for one in outcomes))
        return outcomes


_FIELDS = ("number", "state", "previous", "seconds", "memory")


def _read_setup(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((path / SETUP).read_text(encoding="utf-8"))
    except (ValueError, OSError):
        raise _damaged(path / SETUP) from None
    return found


def _refuse_another(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], *, grows: bool) -> None:
    may_differ = {"rounds", "until"} if grows else set()
    other = [name for name in {**found, **wanted} if name not in may_differ and found.get(name) != wanted.get(name)]
    if other:
        raise ParameterError(f"{path} holds a run with another {', '.join(sorted(other))}: choose another --out")


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is damaged: remove the folder, or choose another --out")


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def _line(outcome: Outcome) -> str:
    return json.dumps({"lost": isinstance(outcome, LostRound)} | asdict(outcome))


def _outcome(line: str) -> Outcome | None:
    """One round; None for a line whose writing was cut short."""
    try:
        fields = json.loads(line)
        if fields.pop("lost"):
            return msgspec.convert(fields, LostRound)
        return msgspec.convert(fields, RoundResult)
    except (ValueError, KeyError, msgspec.ValidationError):
        return None
