"""A run on disk: what it is, the rounds it finished, and where it goes on.

``setup.json`` says what runs, ``rounds.jsonl`` has a line for every round, ``checkpoint.pt`` is where the next round
starts. The line is written first. A run that was stopped between the two writes plays that round again, and its line is
dropped: so no finished round is lost, and none counts twice.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from protocols.federation import Checkpoint
from protocols.results import LostRound, RoundResult
from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from protocols.results import Outcome

SETUP, ROUNDS, CHECKPOINT = "setup.json", "rounds.jsonl", "checkpoint.pt"


class RunFolder:
    """The folder of one run, made where there is none.

    Args:
        path: Where.
        setup: What runs, as plain data. A folder that holds another run is refused, but the number of rounds may grow.

    Raises:
        ParameterError: The folder cannot be written, or holds another run; the message names the setting that differs.
        InputError: A file in it is damaged.
    """

    def __init__(self, path: Path, setup: Mapping[str, Any]) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ParameterError(f"--out {path}: {error.strerror}") from None
        wanted = json.loads(json.dumps(setup))
        found = self._read_setup() if (path / SETUP).exists() else None
        if found is not None:
            _refuse_another(path, found, wanted)
        if found != wanted:
            _replace(path / SETUP, json.dumps(wanted, indent=1) + "\n")
        self.checkpoint = self._read_checkpoint()
        self._outcomes = self._read_rounds()

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

    def _read_setup(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.path / SETUP).read_text(encoding="utf-8"))
        except ValueError:
            raise _damaged(self.path / SETUP) from None
        return found

    def _read_checkpoint(self) -> Checkpoint | None:
        path = self.path / CHECKPOINT
        if not path.exists():
            return None
        try:
            return Checkpoint(**torch.load(path, weights_only=True))
        except (pickle.UnpicklingError, RuntimeError, TypeError, ValueError, EOFError, OSError):
            raise _damaged(path) from None

    def _read_rounds(self) -> list[Outcome]:
        path, end = self.path / ROUNDS, 0 if self.checkpoint is None else self.checkpoint.number
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        outcomes = [one for one in map(_outcome, lines) if one is not None and one.number < end]
        numbers = [one.number for one in outcomes]
        if self.checkpoint is not None and not (numbers and numbers == list(range(numbers[0], end))):
            raise _damaged(path)
        if len(outcomes) != len(lines):
            _replace(path, "".join(_line(one) + "\n" for one in outcomes))
        return outcomes


_FIELDS = ("number", "state", "previous", "seconds", "memory")


def _refuse_another(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    other = [name for name in {**found, **wanted} if name != "rounds" and found.get(name) != wanted.get(name)]
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
