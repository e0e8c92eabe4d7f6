"""Shakespeare's plays, by role: what comes next after each character of a text (S. Caldas et al., "LEAF", 2018).

A role's text is cut where 80 % of it are over: the training sequences come before, the test sequences after. Every
character is in one sequence only. Unlike LEAF's, whose examples are a window at every character and the one character
that follows, a sequence has a label at each of its steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch

from protocols.datasets.dataset import Dataset
from protocols.datasets.files import Distribution, reading
from protocols.training import Examples
from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

ALPHABET = "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}"
"""The characters that have a token of their own: those of LEAF. Fixed, so that no client's text decides it."""

VOCAB = len(ALPHABET) + 1
"""Number of tokens; the last stands for every other character."""

LENGTH = 80
_TEXT, _INDEX = "shakespeare_by_role.txt", "shakespeare_roles.json"
_BY_ROLE = "by_play_and_character"
_TRAIN_PARTS, _PARTS = 4, 5
"""Of a role's text, and the fewest sequences that a role must have."""

_SHAKESPEARE = Distribution(
    "shakespeare",
    (f"{_TEXT} and {_INDEX}", f"{_BY_ROLE}/*.txt, one a role, as LEAF's preprocessing writes to raw_data"),
    ("https://github.com/TalwalkarLab/leaf",),
)


class _Role(msgspec.Struct, frozen=True):
    """Where a role's text is in the file, in bytes."""

    play: str
    role: str
    start: int
    end: int


class _Index(msgspec.Struct, frozen=True):
    """The index of the file with the text of all roles."""

    roles: list[_Role]


def load(folder: Path | None, *, length: int = LENGTH) -> Dataset:
    """The plays as sequences of tokens; the owner of a sequence is its role, numbered as the files list them.

    Inputs are (n, length) int64 tokens, labels (n, length) int64 the tokens that follow. A role too short for a test
    sequence and four training sequences is left out.

    Args:
        folder: Where the files are, or what has a folder ``shakespeare`` or ``raw_data`` with them.
        length: Characters of a sequence.

    Raises:
        ParameterError: No folder, or a length below 1.
        InputError: No files there, or damaged ones, or no role that is long enough.
    """
    if length < 1:
        raise ParameterError(f"length must be at least 1, not {length}")
    for place in _SHAKESPEARE.places(folder, "raw_data"):
        if (path := place / _TEXT).is_file():
            return _dataset(_from_one_file(path, place / _INDEX), length, path)
        for by_role in (place / _BY_ROLE, place):
            if by_role.name == _BY_ROLE and by_role.is_dir():
                return _dataset(_from_folder(by_role), length, by_role)
    raise _SHAKESPEARE.missing(folder)


def tokens_of(text: str) -> NDArray[np.int64]:
    """The tokens of a text, one for each character."""
    table = np.full(128, len(ALPHABET), np.int64)
    table[[ord(character) for character in ALPHABET]] = np.arange(len(ALPHABET))
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    # The last character of ASCII is none of the alphabet's, so all beyond it may take its place.
    tokens: NDArray[np.int64] = table[np.minimum(points, 127)]
    return tokens


def _dataset(texts: Sequence[str], length: int, path: Path) -> Dataset:
    """Cuts each role's text in time, and both pieces into sequences."""
    chunk = length + 1
    halves: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    roles = [role for role, text in enumerate(texts) if len(text) >= _PARTS * chunk]
    if not roles:
        raise InputError(f"{path}: no role has {_PARTS * chunk} characters, enough for {_PARTS} sequences")
    for role in roles:
        tokens = tokens_of(texts[role])
        cut = len(tokens) * _TRAIN_PARTS // _PARTS
        for half, piece in zip(halves, (tokens[:cut], tokens[cut:]), strict=True):
            half.append(piece[: len(piece) // chunk * chunk].reshape(-1, chunk))
    train, test = (torch.from_numpy(np.concatenate(half)) for half in halves)
    owners, test_owners = (np.repeat(np.array(roles, np.intp), [len(rows) for rows in half]) for half in halves)
    return Dataset(
        name=_SHAKESPEARE.name,
        train=Examples(train[:, :-1], train[:, 1:]),
        test=Examples(test[:, :-1], test[:, 1:]),
        classes=VOCAB,
        owners=owners,
        test_owners=test_owners,
    )


def _from_one_file(path: Path, index_path: Path) -> list[str]:
    """The texts of all roles, out of one file by the index that goes with it."""
    with reading(path):
        content = path.read_bytes()
    # An error of msgspec is a ValueError.
    with reading(index_path):
        roles = msgspec.json.decode(index_path.read_bytes(), type=_Index).roles
    last = 0
    for number, role in enumerate(roles):
        if not last <= role.start < role.end <= len(content):
            raise InputError(
                f"{index_path}: role {number} is at bytes {role.start} to {role.end}, beside the "
                f"{len(content)} of {path.name} or in another role"
            )
        last = role.end
    with reading(path):
        return [content[role.start : role.end].decode() for role in roles]


def _from_folder(folder: Path) -> list[str]:
    """The texts of all roles, each a file, in the order of their names."""
    texts = []
    for path in sorted(folder.glob("*.txt")):
        with reading(path):
            texts.append(path.read_bytes().decode())
    return texts
