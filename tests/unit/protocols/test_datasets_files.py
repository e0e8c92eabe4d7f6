"""Loaders of images, on small files of every format, and what they say of files that are damaged or not there."""

from __future__ import annotations

import gzip
import os
import pickle
import pickletools
import re
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from protocols.datasets import load
from protocols.datasets.pickled import read_batch
from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from protocols.datasets import Dataset

MNIST_LABELS = np.array([5, 0, 4, 1, 9, 2], np.uint8)
FASHION_LABELS = np.array([9, 0, 0, 3, 0, 2], np.uint8)
TEST_LABELS = np.array([7, 2], np.uint8)
COMPANIONS = ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

HOMES = {
    "mnist": "http://yann.lecun.com/exdb/mnist/ or https://github.com/facebookresearch/qmnist",
    "fashion-mnist": "https://github.com/zalandoresearch/fashion-mnist",
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar.html",
    "shakespeare": "https://github.com/TalwalkarLab/leaf",
    "har": "https://archive.ics.uci.edu/dataset/240/human+activity+recognition+using+smartphones",
    "wisdm": (
        "https://archive.ics.uci.edu/dataset/507/wisdm+smartphone+and+smartwatch+activity+and+biometrics+dataset"
    ),
}
LOOKED_FOR = {
    "mnist": ["mnist_writers.npz", "train-images-idx3-ubyte"],
    "fashion-mnist": ["train-images-idx3-ubyte"],
    "cifar10": ["cifar-10-batches-bin/", "cifar-10-batches-py/", "cifar10_18k.npz"],
    "shakespeare": ["shakespeare_by_role.txt", "by_play_and_character/*.txt"],
    "har": ["ucihar_inertial.npz", "UCI HAR Dataset/", "Inertial Signals/*.txt"],
    "wisdm": ["wisdm19_watch.npz", "wisdm-dataset/raw/watch/accel/data_*_accel_watch.txt"],
}


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx(values: NDArray[Any], code: int = 0x08) -> bytes:
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes((0, 0, code, values.ndim)) + sizes + values.astype(">i4" if code == 0x0C else "u1").tobytes()


def write_idx(folder: Path, labels: NDArray[np.uint8] = MNIST_LABELS, suffix: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "train-images-idx3-ubyte": pixels(len(labels), 28, 28),
        "train-labels-idx1-ubyte": labels,
        "t10k-images-idx3-ubyte": pixels(2, 28, 28, seed=1),
        "t10k-labels-idx1-ubyte": TEST_LABELS,
    }
    for name, values in files.items():
        content = idx(values)
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    return folder


def write_archive(path: Path, **changes: NDArray[Any] | None) -> Path:
    arrays: dict[str, Any] = {
        "X": pixels(8, 28, 28),
        "y": np.array([*MNIST_LABELS, *TEST_LABELS]),
        "split": np.array([0, 0, 1, 0, 0, 0, 1, 0], np.uint8),
        "writer": np.array([3, 3, 2100, 4, 4, 4, 2200, 3], np.int16),
    } | changes
    np.savez_compressed(path, **{name: values for name, values in arrays.items() if values is not None})
    return path.parent


def as_images(values: NDArray[np.uint8], means: list[float], deviations: list[float]) -> torch.Tensor:
    scaled = torch.from_numpy(values).double() / 255
    return ((scaled - torch.tensor(means).view(-1, 1, 1)) / torch.tensor(deviations).view(-1, 1, 1)).float()


def assert_same(one: Dataset, other: Dataset) -> None:
    for half in ("train", "test"):
        assert torch.equal(getattr(one, half).inputs, getattr(other, half).inputs)
        assert torch.equal(getattr(one, half).labels, getattr(other, half).labels)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_is_read_from_its_official_files(tmp_path: Path, suffix: str) -> None:
    dataset = load("mnist", write_idx(tmp_path, suffix=suffix))
    assert (dataset.name, dataset.classes, dataset.owners, dataset.test_owners) == ("mnist", 10, None, None)
    assert dataset.train.inputs.dtype == torch.float32
    torch.testing.assert_close(dataset.train.inputs, as_images(pixels(6, 1, 28, 28), [0.1307], [0.3081]))
    torch.testing.assert_close(dataset.test.inputs, as_images(pixels(2, 1, 28, 28, seed=1), [0.1307], [0.3081]))
    assert dataset.train.labels.dtype == torch.int64
    assert dataset.train.labels.tolist() == MNIST_LABELS.tolist()
    assert dataset.test.labels.tolist() == [7, 2]


def test_the_extended_labels_of_qmnist_tell_the_writers(tmp_path: Path) -> None:
    write_idx(tmp_path)
    rows = np.zeros((6, 8), np.int64)
    rows[:, 0], rows[:, 2] = MNIST_LABELS, [610, 610, 2599, 0, 0, 1]
    (tmp_path / "qmnist-train-labels-idx2-int").write_bytes(idx(rows, 0x0C))
    dataset = load("mnist", tmp_path)
    assert dataset.owners is not None
    assert dataset.owners.tolist() == [610, 610, 2599, 0, 0, 1]
    assert dataset.test_owners is None

    test_rows = np.zeros((5, 8), np.int64)
    test_rows[:2, 0], test_rows[:, 2] = TEST_LABELS, [9, 8, 7, 6, 5]
    (tmp_path / "qmnist-test-labels-idx2-int.gz").write_bytes(gzip.compress(idx(test_rows, 0x0C)))
    dataset = load("mnist", tmp_path)
    assert dataset.test_owners is not None
    assert dataset.test_owners.tolist() == [9, 8]

    rows[3, 0] = 8
    (tmp_path / "qmnist-train-labels-idx2-int").write_bytes(idx(rows, 0x0C))
    with pytest.raises(InputError, match="qmnist-train-labels-idx2-int holds other labels"):
        load("mnist", tmp_path)


def test_mnist_is_read_from_an_archive_with_its_writers(tmp_path: Path) -> None:
    dataset = load("mnist", write_archive(tmp_path / "mnist_writers.npz"))
    train, test = [0, 1, 3, 4, 5, 7], [2, 6]
    torch.testing.assert_close(dataset.train.inputs, as_images(pixels(8, 1, 28, 28)[train], [0.1307], [0.3081]))
    assert dataset.train.labels.tolist() == [5, 0, 1, 9, 2, 2]
    assert dataset.test.labels.tolist() == np.array([*MNIST_LABELS, *TEST_LABELS])[test].tolist()
    assert dataset.owners is not None
    assert dataset.test_owners is not None
    assert dataset.owners.tolist() == [3, 3, 4, 4, 4, 3]
    assert dataset.test_owners.tolist() == [2100, 2200]


def test_two_data_sets_with_files_of_one_name_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    write_idx(tmp_path / "mnist")
    write_idx(tmp_path / "fashion-mnist", FASHION_LABELS)
    assert load("mnist", tmp_path).train.labels.tolist() == MNIST_LABELS.tolist()
    fashion = load("fashion-mnist", tmp_path)
    assert fashion.train.labels.tolist() == FASHION_LABELS.tolist()
    torch.testing.assert_close(fashion.train.inputs, as_images(pixels(6, 1, 28, 28), [0.286], [0.353]))


@pytest.mark.parametrize(("name", "labels"), [("mnist", FASHION_LABELS), ("fashion-mnist", MNIST_LABELS)])
def test_one_of_them_is_not_taken_for_the_other(tmp_path: Path, name: str, labels: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match=f"holds another data set than {name}"):
        load(name, write_idx(tmp_path, labels))


@pytest.mark.parametrize("missing", COMPANIONS)
def test_a_missing_companion_is_named(tmp_path: Path, missing: str) -> None:
    write_idx(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=f"{missing} is missing"):
        load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no IDX file"),
        (b"\x00\x00\x08\x03\x00\x00", "is no IDX file"),
        (idx(pixels(6, 28, 28), 0x0C), "is no IDX file"),
        (idx(pixels(6, 784)), "is no IDX file"),
        (idx(pixels(6, 28, 27)), "items of shape"),
        (idx(pixels(0, 28, 28)), "at least one"),
        (idx(pixels(6, 28, 28))[:-1], "bytes of values"),
        (idx(pixels(6, 28, 28)) + b"\x00", "bytes of values"),
        (idx(pixels(5, 28, 28)), "5 images and 6 labels"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    write_idx(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(InputError, match=f"train-images-idx3-ubyte.* {message}|train-images-idx3-ubyte: {message}"):
        load("mnist", tmp_path)


@pytest.mark.parametrize("cut", [5, 100, -1])
def test_a_damaged_gzip_file_is_named(tmp_path: Path, cut: int) -> None:
    path = write_idx(tmp_path, suffix=".gz") / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz cannot be read"):
        load("mnist", tmp_path)


def test_a_gzip_file_with_a_flipped_bit_is_named(tmp_path: Path) -> None:
    path = write_idx(tmp_path, suffix=".gz") / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for place in range(60, len(whole), 501):
        path.write_bytes(whole[:place] + bytes((whole[place] ^ 4,)) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz"):
            load("mnist", tmp_path)


def test_a_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte: every label must be in \[0, 10\)"):
        load("mnist", write_idx(tmp_path, np.array([5, 0, 4, 1, 9, 10], np.uint8)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"writer": None}, "cannot be read: 'writer is not a file"),
        ({"X": pixels(8, 784)}, "X must be"),
        ({"X": pixels(8, 28, 28).astype(np.int32)}, "pixels must be bytes"),
        ({"X": pixels(8, 28, 28) / 255}, "X must be"),
        ({"y": np.zeros((8, 1), np.uint8)}, "y must be"),
        ({"y": np.zeros(7, np.uint8)}, "X, y, split, writer must be equally long"),
        ({"y": np.full(8, -1)}, "every label"),
        ({"writer": np.array(["a"] * 8)}, "writer must be"),
        ({"writer": np.array(None)}, "cannot be read: Object arrays"),
        ({"split": np.full(8, 2, np.uint8)}, "split must be 0"),
        ({"split": np.zeros(8, np.uint8)}, "split must be 0"),
    ],
)
def test_an_archive_of_another_form_is_refused(
    tmp_path: Path, changes: dict[str, NDArray[Any] | None], message: str
) -> None:
    with pytest.raises(InputError, match=f"mnist_writers.npz:? {message}"):
        load("mnist", write_archive(tmp_path / "mnist_writers.npz", **changes))


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "mnist_writers.npz") / "mnist_writers.npz"
    whole = path.read_bytes()
    middle = len(whole) // 2
    for content in (b"", b"PK", whole[:middle], whole[:middle] + b"\x00\x01\x02\x03" + whole[middle + 4 :]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"mnist_writers.npz cannot be read"):
            load("mnist", tmp_path)


def batches() -> dict[str, tuple[NDArray[np.uint8], list[int]]]:
    """Two images a batch, other labels in each."""
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return {name: (pixels(2, 3072, seed=seed), [seed, 9 - seed]) for seed, name in enumerate(names)}


def write_binary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (values, labels) in batches().items():
        records = np.concatenate([np.array(labels, np.uint8)[:, np.newaxis], values], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def older(pickled: bytes) -> bytes:
    """A pickle of protocol 3 as Python 2 and its numpy wrote it: bytes are strings, modules have their old names."""
    opcodes = {"PROTO": b"\x80\x02", "SHORT_BINBYTES": b"U", "BINBYTES": b"T"}
    steps = [(opcode.name, place) for opcode, _, place in pickletools.genops(pickled) if place is not None]
    ends = [place for _, place in steps[1:]] + [len(pickled)]
    parts = []
    for (name, place), end in zip(steps, ends, strict=True):
        start = opcodes.get(name, pickled[place : place + 1])
        parts.append(start + pickled[place + len(start) : end])
    return b"".join(parts).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def write_pickled(folder: Path, *, python: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (values, labels) in batches().items():
        if python == 2:
            content = older(pickle.dumps({b"batch_label": b"a batch", b"labels": labels, b"data": values}, 3))
        else:
            content = pickle.dumps({"data": values, "labels": labels}, 4)
        (folder / name).write_bytes(content)
    return folder


def assert_holds_the_batches(dataset: Dataset) -> None:
    values = np.concatenate([pixels(2, 3072, seed=seed) for seed in range(5)]).reshape(10, 3, 32, 32)
    scale = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
    torch.testing.assert_close(dataset.train.inputs, as_images(values, *scale))
    torch.testing.assert_close(dataset.test.inputs, as_images(pixels(2, 3, 32, 32, seed=5), *scale))
    assert dataset.train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert dataset.test.labels.tolist() == [5, 4]
    assert (dataset.name, dataset.classes, dataset.owners) == ("cifar10", 10, None)


@pytest.mark.parametrize("within", [".", "cifar-10-batches-bin", "cifar10", "cifar10/cifar-10-batches-bin"])
def test_cifar10_is_read_from_its_binary_version(tmp_path: Path, within: str) -> None:
    write_binary(tmp_path / within)
    assert_holds_the_batches(load("cifar10", tmp_path))


@pytest.mark.parametrize("python", [2, 3])
@pytest.mark.parametrize("within", [".", "cifar-10-batches-py"])
def test_cifar10_is_read_from_its_python_version(tmp_path: Path, within: str, python: int) -> None:
    write_pickled(tmp_path / within, python=python)
    assert_holds_the_batches(load("cifar10", tmp_path))


def test_cifar10_is_read_from_an_archive_unless_a_whole_distribution_is_there(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "cifar10_18k.npz",
        X=pixels(3, 3, 32, 32),
        y=np.array([3, 1, 2], np.uint8),
        split=np.array([0, 1, 0], np.uint8),
    )
    dataset = load("cifar10", tmp_path)
    assert (dataset.train.labels.tolist(), dataset.test.labels.tolist()) == ([3, 2], [1])
    write_binary(tmp_path / "cifar-10-batches-bin")
    assert_holds_the_batches(load("cifar10", tmp_path))


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
def test_a_missing_batch_is_named(tmp_path: Path, name: str) -> None:
    write_binary(tmp_path / "binary")
    (tmp_path / "binary" / f"{name}.bin").unlink()
    with pytest.raises(InputError, match=f"{name}.bin is missing"):
        load("cifar10", tmp_path / "binary")
    write_pickled(tmp_path / "python")
    (tmp_path / "python" / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        load("cifar10", tmp_path / "python")


@pytest.mark.parametrize("content", [b"", bytes(3072), bytes(3073 * 2 + 1)])
def test_a_damaged_binary_batch_is_named(tmp_path: Path, content: bytes) -> None:
    (write_binary(tmp_path) / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"data_batch_2.bin must hold records of 3073 bytes"):
        load("cifar10", tmp_path)


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_runs_nothing(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"
    for call in (Calls(os.mkdir, str(made)), Calls(eval, f"open({str(made)!r}, 'w')"), Calls(np.save, made, [1])):
        (write_pickled(tmp_path) / "data_batch_1").write_bytes(pickle.dumps({"data": call, "labels": [1]}, protocol))
        with pytest.raises(InputError, match=r"data_batch_1 is no batch of CIFAR-10: it names \S+, and only arrays"):
            load("cifar10", tmp_path)
    assert not made.exists()


@pytest.mark.parametrize(
    "batch",
    [
        [],
        {},
        {"labels": [1, 2]},
        {"data": pixels(2, 3072), "labels": [1]},
        {"data": pixels(2, 3072), "labels": [1, 256]},
        {"data": pixels(2, 3072), "labels": [1, "2"]},
        {"data": pixels(2, 3072), "labels": (1, 2)},
        {"data": pixels(2, 3072).astype(np.int8), "labels": [1, 2]},
        {"data": np.asfortranarray(pixels(2, 3072)), "labels": [1, 2]},
        {"data": pixels(2, 3, 32, 32), "labels": [1, 2]},
        {"data": np.array([None, None]), "labels": [1, 2]},
        {"data": pixels(2, 3072).tobytes(), "labels": [1, 2]},
    ],
)
def test_a_pickle_that_is_no_batch_is_named(tmp_path: Path, batch: object) -> None:
    (write_pickled(tmp_path) / "data_batch_1").write_bytes(pickle.dumps(batch, 4))
    with pytest.raises(InputError, match=r"data_batch_1 must hold"):
        load("cifar10", tmp_path)


def test_every_damage_to_a_pickle_is_refused_by_the_name_of_the_file_or_of_no_account(tmp_path: Path) -> None:
    path = tmp_path / "test_batch"
    refused = 0
    for whole in (older(pickle.dumps({b"labels": [3, 4], b"data": pixels(2, 4)}, 3)), pickle.dumps({"labels": [3]}, 0)):
        for place in range(len(whole)):
            for changed in (whole[place] ^ 1, ord("."), ord("R"), 0x80):
                path.write_bytes(whole[:place] + bytes((changed,)) + whole[place + 1 :])
                error = None
                try:
                    images, labels = read_batch(path, 4)
                except InputError as refusal:
                    error = str(refusal)
                if error is None:
                    assert (images.shape, labels.shape) == ((2, 4), (2,))
                else:
                    assert str(path) in error
                    refused += 1
    assert refused > 600


@pytest.mark.parametrize("name", HOMES)
def test_where_files_are_missing_the_error_says_what_was_looked_for_and_where_it_is_to_be_had(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError) as caught:
        load(name, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"no {name} in {tmp_path}")
    assert message.endswith(HOMES[name])
    assert all(file in message for file in LOOKED_FOR[name])
    with pytest.raises(InputError, match=f"no {name} in .*absent"):
        load(name, tmp_path / "absent")


@pytest.mark.parametrize("name", HOMES)
def test_without_a_folder_the_error_names_the_setting(name: str) -> None:
    with pytest.raises(
        ParameterError, match=f"{name} is read from files: say where they are .*{re.escape(HOMES[name])}"
    ):
        load(name, None)
