"""HAR and WISDM, on small made-up recordings in both forms: no sample is on both sides of a split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from protocols.datasets import divide, har, load, wisdm
from secagg.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from protocols.datasets import Dataset

SIZES = {(5, 0): [4, 3, 3], (5, 1): [6], (9, 0): [1, 1, 1, 1, 1], (9, 5): [2, 2]}
"""Windows of each recording, by subject and label."""

TAKEN = {(5, 0): 3, (5, 1): 0, (9, 0): 1, (9, 5): 2}
"""How many windows are for testing, counted by hand: the latest whole recordings nearest to a fifth, at least one."""


def noise(channels: int, samples: int, seed: int) -> NDArray[np.float32]:
    """Samples that are all different, around a mean and with a deviation of each channel's own."""
    values = np.random.default_rng(seed).standard_normal((channels, samples))
    return (values * (1 + np.arange(channels))[:, np.newaxis] + 3).astype(np.float32)


def activities() -> dict[str, NDArray[Any]]:
    """Half-overlapping windows of recordings of these sizes, with subject, label and recording of each."""
    columns: dict[str, list[Any]] = {"X": [], "y": [], "subject": [], "recording": []}
    number = 0
    for (subject, label), sizes in SIZES.items():
        for size in sizes:
            samples = noise(9, 64 * (size + 1), number)
            columns["X"] += [samples[:, 64 * place : 64 * place + 128] for place in range(size)]
            for name, value in (("y", label), ("subject", subject), ("recording", number)):
                columns[name] += [value] * size
            number += 1
    return {name: np.array(values) for name, values in columns.items()}


def write_har_archive(folder: Path, **changes: Any) -> Path:
    np.savez(folder / "ucihar_inertial.npz", **(activities() | changes))
    return folder


def write_har_files(folder: Path) -> Path:
    """The same windows as the distribution has them: those of subject 5 for training, those of 9 for testing."""
    rows = activities()
    for half, subject in (("train", 5), ("test", 9)):
        own = rows["subject"] == subject
        inner = folder / "UCI HAR Dataset" / half / "Inertial Signals"
        inner.mkdir(parents=True)
        for channel, name in enumerate(har.SIGNALS):
            np.savetxt(inner / f"{name}_{half}.txt", rows["X"][own, channel], fmt=" %.9e")
        np.savetxt(inner.parent / f"y_{half}.txt", rows["y"][own] + 1, fmt="%d")
        np.savetxt(inner.parent / f"subject_{half}.txt", rows["subject"][own], fmt="%d")
    return folder


def pairs(owners: NDArray[np.intp] | None, labels: torch.Tensor) -> list[tuple[int, int]]:
    assert owners is not None
    return list(zip(owners.tolist(), labels.tolist(), strict=True))


def halves_of(inputs: torch.Tensor) -> list[bytes]:
    """The two halves of every window: two windows that overlap have one in common."""
    middle = inputs.shape[2] // 2
    return [half.numpy().tobytes() for window in inputs for half in (window[:, :middle], window[:, middle:])]


def assert_same(one: Dataset, other: Dataset) -> None:
    for half in ("train", "test"):
        assert torch.equal(getattr(one, half).inputs, getattr(other, half).inputs)
        assert torch.equal(getattr(one, half).labels, getattr(other, half).labels)
    for owners in ("owners", "test_owners", "recordings"):
        assert np.array_equal(getattr(one, owners), getattr(other, owners))


def test_har_is_the_same_from_an_archive_and_from_the_official_files(tmp_path: Path) -> None:
    (tmp_path / "har").mkdir()
    (tmp_path / "official").mkdir()
    write_har_archive(tmp_path / "har")
    archive, official = load("har", tmp_path), load("har", write_har_files(tmp_path / "official"))
    assert_same(archive, official)
    assert (archive.name, archive.classes) == ("har", 6)
    assert archive.train.inputs.shape == (19, 9, 128)
    assert archive.train.inputs.dtype == torch.float32
    assert archive.train.labels.dtype == torch.int64


def test_of_every_subject_and_activity_the_latest_whole_recordings_are_for_testing(tmp_path: Path) -> None:
    dataset, rows = load("har", write_har_archive(tmp_path)), activities()
    tested = pairs(dataset.test_owners, dataset.test.labels)
    assert {pair: tested.count(pair) for pair in SIZES} == TAKEN
    kept = pairs(dataset.owners, dataset.train.labels)
    assert {pair: kept.count(pair) for pair in SIZES} == {pair: sum(SIZES[pair]) - TAKEN[pair] for pair in SIZES}
    # Recordings are numbered as they come, and the third of the first subject's first activity is the one tested.
    assert dataset.recordings is not None
    assert set(dataset.recordings.tolist()) == set(rows["recording"].tolist()) - {2, 8, 10}


def test_no_sample_of_har_is_in_a_training_and_a_test_window(tmp_path: Path) -> None:
    dataset = load("har", write_har_archive(tmp_path))
    assert len(set(halves_of(dataset.train.inputs))) < len(halves_of(dataset.train.inputs))
    assert not set(halves_of(dataset.train.inputs)) & set(halves_of(dataset.test.inputs))


def test_channels_are_scaled_by_the_training_windows_alone(tmp_path: Path) -> None:
    dataset = load("har", write_har_archive(tmp_path))
    torch.testing.assert_close(dataset.train.inputs.mean(dim=(0, 2)), torch.zeros(9), atol=1e-6, rtol=0)
    torch.testing.assert_close(dataset.train.inputs.square().mean(dim=(0, 2)), torch.ones(9))
    rows = activities()
    tested = np.isin(rows["recording"], [2, 8, 10])
    means = rows["X"][~tested].mean(axis=(0, 2), dtype=np.float64)
    deviations = rows["X"][~tested].std(axis=(0, 2), dtype=np.float64)
    expected = (rows["X"][tested] - means[:, np.newaxis]) / deviations[:, np.newaxis]
    torch.testing.assert_close(dataset.test.inputs, torch.from_numpy(expected).float())


def test_what_clients_set_aside_shares_no_sample_with_what_they_train_on(tmp_path: Path) -> None:
    dataset = load("har", write_har_archive(tmp_path))
    for seed in range(3):
        generator = np.random.default_rng(seed)
        division = divide(dataset, 2, partition="natural", generator=generator, validation_share=0.3)
        kept = [half for part in division.parts for half in halves_of(part.inputs)]
        assert not set(kept) & set(halves_of(division.validation.inputs))
        # 30 % of subject 5's 13 are two of each label, of subject 9's 6 one of each. Of what is left, the window before
        # shares samples with them; but not where label 0 of subject 9 was recorded window by window.
        assert len(division.validation) == 4 + 2
        assert sum(map(len, division.parts)) == 19 - 6 - 3


def test_natural_clients_of_har_are_judged_on_their_own_windows(tmp_path: Path) -> None:
    dataset = load("har", write_har_archive(tmp_path))
    division = divide(dataset, 2, partition="natural", generator=np.random.default_rng(0))
    assert sorted(len(own) for own in division.tests) == [3, 3]
    assert {frozenset(own.labels.tolist()) for own in division.tests} == {frozenset({0}), frozenset({0, 5})}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": np.zeros((25, 9, 128), np.int64)}, "X must be .* real numbers"),
        ({"X": np.zeros((25, 9, 64), np.float32)}, "X must be"),
        ({"y": np.zeros(3, np.int64)}, "equally long"),
        ({"y": np.full(25, 6)}, r"label must be in \[0, 6\)"),
        ({"X": np.full((25, 9, 128), np.nan, np.float32)}, "finite"),
        ({"X": np.zeros((25, 9, 128), np.float32)}, "too short"),
        ({"X": activities()["X"] * np.array([1, 0, *[1] * 7]).reshape(-1, 1)}, "channel 1 never varies"),
    ],
)
def test_an_archive_of_another_form_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load("har", write_har_archive(tmp_path, **changes))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train/y_train.txt", None, "y_train.txt is missing in"),
        ("test/Inertial Signals/total_acc_z_test.txt", None, "total_acc_z_test.txt is missing in"),
        ("test/subject_test.txt", "9\n", "as many rows"),
        ("test/subject_test.txt", "nine\n", "subject_test.txt cannot be read"),
        ("test/subject_test.txt", "", "subject_test.txt cannot be read: it is empty"),
        ("train/y_train.txt", "1 2\n", "1 numbers a row, not 2"),
    ],
)
def test_a_missing_or_damaged_file_of_har_is_named(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    path = write_har_files(tmp_path) / "UCI HAR Dataset" / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        load("har", tmp_path)


ROWS = {(1607, "A"): 1290, (1607, "D"): 200, (1607, "F"): 400, (1650, "M"): 1200, (1650, "E"): 199}
"""Samples of each recording, by user and activity; F is none of the six, and the last is too short for a window."""


def recording(user: int, activity: str) -> NDArray[np.float32]:
    """Its samples, (3, n)."""
    return noise(3, ROWS[user, activity], user + ord(activity))


def write_wisdm_files(folder: Path) -> Path:
    raw = folder / "wisdm-dataset" / "raw" / "watch" / "accel"
    raw.mkdir(parents=True)
    for user in (1607, 1650):
        lines = [
            f"{user},{activity},{9000000 + 50 * time},{x:.9g},{y:.9g},{z:.9g};"
            for own, activity in ROWS
            if own == user
            for time, (x, y, z) in enumerate(recording(user, activity).T)
        ]
        (raw / f"data_{user}_accel_watch.txt").write_text("\n".join([*lines, *lines[:300]]) + "\n")
    return folder


def write_wisdm_archive(folder: Path, **changes: Any) -> Path:
    columns: dict[str, list[Any]] = {"X": [], "y": [], "user": [], "run": [], "start": []}
    for number, (user, activity) in enumerate(ROWS):
        if activity not in wisdm.ACTIVITIES:
            continue
        samples = recording(user, activity)
        starts = range(0, samples.shape[1] - 199, 100)
        columns["X"] += [samples[:, start : start + 200] for start in starts]
        columns["start"] += starts
        for name, value in (("y", "ABCDEM".index(activity)), ("user", user), ("run", number)):
            columns[name] += [value] * len(starts)
    arrays = {name: np.array(values) for name, values in columns.items()}
    # In another order than that of time, which the file does not promise.
    order = np.random.default_rng(0).permutation(len(arrays["y"]))
    np.savez(folder / "wisdm19_watch.npz", **({name: array[order] for name, array in arrays.items()} | changes))
    return folder


def test_wisdm_is_the_same_from_an_archive_and_from_the_official_files(tmp_path: Path) -> None:
    (tmp_path / "wisdm").mkdir()
    (tmp_path / "official").mkdir()
    write_wisdm_archive(tmp_path / "wisdm")
    archive, official = load("wisdm", tmp_path), load("wisdm", write_wisdm_files(tmp_path / "official"))
    assert_same(archive, official)
    assert (archive.name, archive.classes) == ("wisdm", 6)
    assert archive.train.inputs.shape[1:] == (3, 200)
    assert archive.train.inputs.dtype == torch.float32


def test_each_recording_of_wisdm_is_cut_in_time_with_a_windows_gap(tmp_path: Path) -> None:
    """1290 samples make 11 windows: 80 % are 9, of which the last shares samples with the first test window."""
    dataset = load("wisdm", write_wisdm_archive(tmp_path))
    kept, tested = (
        pairs(dataset.owners, dataset.train.labels),
        pairs(dataset.test_owners, dataset.test.labels),
    )
    assert {pair: kept.count(pair) for pair in set(kept)} == {(1607, 0): 8, (1607, 3): 1, (1650, 5): 8}
    assert {pair: tested.count(pair) for pair in set(tested)} == {(1607, 0): 2, (1650, 5): 2}
    assert not set(halves_of(dataset.train.inputs)) & set(halves_of(dataset.test.inputs))
    raw = [recording(1607, "A"), recording(1607, "D"), recording(1650, "M")]
    windows = [raw[0][:, 100 * place : 100 * place + 200] for place in range(8)]
    windows += [raw[1], *(raw[2][:, 100 * place : 100 * place + 200] for place in range(8))]
    stacked = np.stack(windows).astype(np.float64)
    first_test = (raw[0][:, 900:1100] - stacked.mean((0, 2))[:, np.newaxis]) / stacked.std((0, 2))[:, np.newaxis]
    torch.testing.assert_close(dataset.test.inputs[0], torch.from_numpy(first_test).float())


def test_the_official_files_of_wisdm_come_before_an_archive_that_holds_a_part_of_them(tmp_path: Path) -> None:
    write_wisdm_files(tmp_path)
    (tmp_path / "wisdm19_watch.npz").write_bytes(b"never read")
    assert len(load("wisdm", tmp_path).train) == 17


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": np.zeros(23, np.int64)}, "100 samples apart"),
        ({"user": np.arange(23)}, "one user and one label"),
        ({"y": np.arange(23) % 6}, "one user and one label"),
        ({"X": np.zeros((23, 3, 128), np.float32)}, "X must be"),
    ],
)
def test_an_archive_whose_runs_are_none_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load("wisdm", write_wisdm_archive(tmp_path, **changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1607,A,1,0.5,0.5;\n", "data_1607_accel_watch.txt cannot be read: its rows must be"),
        ("1607,A,1,0.5,0.5,0.5;\n1608,A,2,0.5,0.5,0.5;\n", "all of one user"),
        ("", "data_1607_accel_watch.txt cannot be read"),
        ("".join(f"1607,A,{time},0.5,x,0.5;\n" for time in range(200)), "data_1607_accel_watch.txt cannot be read"),
        ("1607,A,1,0.5,0.5,0.5;\n", "no recording of the activities ABCDEM has 200 samples"),
    ],
)
def test_a_damaged_file_of_wisdm_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "data_1607_accel_watch.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        load("wisdm", tmp_path)
