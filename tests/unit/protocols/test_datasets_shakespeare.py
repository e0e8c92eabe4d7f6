"""The plays, on a few short roles in both formats."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from protocols.datasets import load, shakespeare
from protocols.datasets.shakespeare import ALPHABET, VOCAB, tokens_of
from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from protocols.datasets import Dataset

VERSES = "To be, or not to be: that is the question.\n"
LONG, MIDDLE, SHORT = (VERSES * 20)[:83], (VERSES[::-1] * 20)[:60], VERSES[:19]
LENGTH = 3
"""So that a sequence takes 4 characters, and a role 20."""


def write_one_file(folder: Path, texts: list[str]) -> Path:
    roles, start = [], 0
    for number, text in enumerate(texts):
        end = start + len(text.encode())
        roles.append({"play": "hamlet", "role": f"ROLE {number}", "start": start, "end": end, "speeches": 1})
        start = end
    (folder / "shakespeare_by_role.txt").write_bytes("".join(texts).encode())
    (folder / "shakespeare_roles.json").write_text(json.dumps({"file": "shakespeare_by_role.txt", "roles": roles}))
    return folder


def write_by_role(folder: Path, texts: list[str]) -> Path:
    folder.mkdir(parents=True)
    for number, text in enumerate(texts):
        (folder / f"HAMLET_ROLE_{number}.txt").write_bytes(text.encode())
    return folder


def read(tokens: torch.Tensor) -> str:
    return "".join(ALPHABET[token] for token in tokens.tolist())


def of_role(dataset: Dataset, role: int) -> tuple[str, str]:
    """The text of a role's training sequences, and of its test sequences."""
    texts = []
    for examples, owners in ((dataset.train, dataset.owners), (dataset.test, dataset.test_owners)):
        assert owners is not None
        places = np.flatnonzero(owners == role)
        texts.append("".join(read(examples.inputs[place]) + read(examples.labels[place, -1:]) for place in places))
    return texts[0], texts[1]


def test_a_roles_text_is_cut_in_time_and_no_character_is_in_two_sequences(tmp_path: Path) -> None:
    dataset = shakespeare.load(write_one_file(tmp_path, [LONG, SHORT, MIDDLE]), length=LENGTH)
    # 80 % of 83 characters are 66, which make 16 sequences; the other 17 make 4.
    assert of_role(dataset, 0) == (LONG[:64], LONG[66:82])
    assert of_role(dataset, 2) == (MIDDLE[:48], MIDDLE[48:])
    assert (len(dataset.train), len(dataset.test)) == (16 + 12, 4 + 3)
    assert dataset.classes == VOCAB == 81


def test_labels_are_the_characters_that_follow(tmp_path: Path) -> None:
    train = shakespeare.load(write_one_file(tmp_path, [LONG]), length=LENGTH).train
    assert train.inputs.shape == train.labels.shape == (16, LENGTH)
    assert (read(train.inputs[0]), read(train.labels[0])) == ("To ", "o b")


def test_a_role_too_short_for_five_sequences_is_left_out_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    write_one_file(tmp_path, [SHORT, VERSES[:20], VERSES[:19], LONG])
    dataset = shakespeare.load(tmp_path, length=LENGTH)
    assert dataset.owners is not None
    assert dataset.test_owners is not None
    assert set(dataset.owners.tolist()) == set(dataset.test_owners.tolist()) == {1, 3}
    assert (dataset.owners == 1).sum() == 4
    assert (dataset.test_owners == 1).sum() == 1


@pytest.mark.parametrize("within", ["by_play_and_character", "raw_data/by_play_and_character", "shakespeare/raw_data/"])
def test_a_file_for_each_role_gives_the_same(tmp_path: Path, within: str) -> None:
    texts = [LONG, SHORT, MIDDLE]
    folder = tmp_path / within
    write_by_role(folder if folder.name == "by_play_and_character" else folder / "by_play_and_character", texts)
    dataset = shakespeare.load(tmp_path, length=LENGTH)
    one_file = shakespeare.load(write_one_file(tmp_path, texts), length=LENGTH)
    assert [of_role(dataset, role) for role in (0, 2)] == [of_role(one_file, role) for role in (0, 2)]


def test_the_folder_of_the_roles_itself_will_do(tmp_path: Path) -> None:
    folder = write_by_role(tmp_path / "by_play_and_character", [LONG])
    assert of_role(shakespeare.load(folder, length=LENGTH), 0)[0] == LONG[:64]


def test_sequences_are_of_80_characters_unless_asked_otherwise(tmp_path: Path) -> None:
    dataset = load("shakespeare", write_one_file(tmp_path, [VERSES * 10]))
    assert dataset.train.inputs.shape == (4, 80)
    assert dataset.test.inputs.shape == (1, 80)


def test_the_alphabet_is_fixed_and_every_other_character_is_one_token() -> None:
    assert len(set(ALPHABET)) == len(ALPHABET) == 80
    assert tokens_of(ALPHABET).tolist() == list(range(80))
    assert tokens_of("$\x7f\x80é€\U0001f3ad").tolist() == [80] * 6
    assert tokens_of("").tolist() == []


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", "roles.json cannot be read"),
        ("[]", "roles.json cannot be read"),
        ('{"plays": []}', "roles.json cannot be read: .*`roles`"),
        ('{"roles": [{"play": "hamlet", "role": "HAMLET", "start": "0", "end": 80}]}', r"cannot be read: .*start"),
        ('{"roles": [{"play": "hamlet", "role": "HAMLET", "start": 0, "end": 84}]}', "role 0 is at bytes 0 to 84"),
        ('{"roles": [{"play": "hamlet", "role": "HAMLET", "start": -1, "end": 80}]}', "role 0 is at bytes -1"),
        ('{"roles": [{"play": "hamlet", "role": "HAMLET", "start": 5, "end": 5}]}', "role 0 is at bytes 5 to 5"),
        (
            '{"roles":[{"play": "", "role": "", "start": 0, "end": 9},{"role": "", "play": "", "start": 8, "end": 9}]}',
            "role 1 is at bytes 8",
        ),
        ('{"roles": []}', "no role has 20 characters"),
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, index: str, message: str) -> None:
    write_one_file(tmp_path, [LONG])
    (tmp_path / "shakespeare_roles.json").write_text(index)
    with pytest.raises(InputError, match=message):
        shakespeare.load(tmp_path, length=LENGTH)


def test_a_text_without_its_index_or_that_is_no_text_is_named(tmp_path: Path) -> None:
    write_one_file(tmp_path, [LONG])
    (tmp_path / "shakespeare_by_role.txt").write_bytes(b"\xff" * 83)
    with pytest.raises(InputError, match=r"shakespeare_by_role.txt cannot be read"):
        shakespeare.load(tmp_path, length=LENGTH)
    (tmp_path / "shakespeare_roles.json").unlink()
    with pytest.raises(InputError, match=r"shakespeare_roles.json cannot be read"):
        shakespeare.load(tmp_path, length=LENGTH)
    (write_by_role(tmp_path / "own" / "by_play_and_character", [LONG]) / "A.txt").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"A.txt cannot be read"):
        shakespeare.load(tmp_path / "own", length=LENGTH)


def test_a_length_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="length must be at least 1"):
        shakespeare.load(write_one_file(tmp_path, [LONG]), length=0)
