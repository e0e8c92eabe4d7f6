"""Partitions and divisions, on sets small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from protocols.datasets import DATASETS, Dataset, Division, Partition, digits, divide, load
from protocols.datasets.partition import by_owner, dirichlet, evenly
from protocols.training import Examples
from secagg.errors import InputError, ParameterError

LABELS = np.repeat(np.arange(5), 40)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def shares(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.array([np.bincount(LABELS[part], minlength=5) / len(part) for part in parts])


def numbered(count: int, first: int = 0, *, classes: int = 2) -> Examples:
    """Examples whose input says which they are."""
    numbers = torch.arange(first, first + count)
    return Examples(numbers.float().unsqueeze(1), numbers % classes)


def written(owners: list[int], test_owners: list[int] | None = None) -> Dataset:
    return Dataset(
        "letters",
        numbered(len(owners)),
        numbered(len(test_owners or [0]), 1000),
        2,
        np.array(owners),
        None if test_owners is None else np.array(test_owners),
    )


def spoken(sizes: list[int]) -> Dataset:
    """Sequences of roles of these sizes; sequence t of role r holds 100 r + t everywhere."""
    tokens = torch.tensor([100 * role + time for role, size in enumerate(sizes) for time in range(size)])
    sequences = Examples(tokens.unsqueeze(1).expand(-1, 3), tokens.unsqueeze(1).expand(-1, 3))
    owners = np.repeat(np.arange(len(sizes)), sizes)
    return Dataset("lines", sequences, sequences, 100 * len(sizes), owners, owners)


def numbers(*examples: Examples) -> list[int]:
    return torch.cat([each.inputs[:, 0] for each in examples]).long().tolist()


@pytest.mark.parametrize("alpha", [0.01, 0.5, 100.0])
def test_label_skewed_parts_are_disjoint_and_of_one_size(alpha: float) -> None:
    parts = dirichlet(LABELS, 7, alpha, generator())
    assert [len(part) for part in parts] == [28] * 7
    assert len(np.unique(np.concatenate(parts))) == 7 * 28


def test_a_small_alpha_skews_labels_and_a_large_one_does_not() -> None:
    skewed, even = (
        np.array([shares(dirichlet(LABELS, 4, alpha, generator(seed))).max(axis=1) for seed in range(10)])
        for alpha in (0.05, 1000.0)
    )
    assert skewed.mean() > 0.6
    assert even.mean() < 0.35
    assert even[1].max() < 0.4


def test_what_is_left_over_goes_to_no_place_in_particular() -> None:
    """Parts that are filled last see few labels: at every place of the list as often as at any other."""
    labels = np.repeat(np.arange(10), 20)
    kinds = np.array(
        [[len(np.unique(labels[part])) for part in dirichlet(labels, 10, 0.3, generator(s))] for s in range(200)]
    )
    by_place, spread = kinds.mean(axis=0), kinds.std() / len(kinds) ** 0.5
    assert np.abs(by_place - by_place.mean()).max() < 4 * spread
    assert kinds.min(axis=1).mean() < by_place.mean() - 1  # there are such parts


def test_a_partition_repeats_with_its_seed() -> None:
    one, same, other = (dirichlet(LABELS, 4, 0.5, generator(seed)) for seed in (2, 2, 3))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("clients", "alpha", "message"),
    [(4, 0.0, "alpha"), (4, np.nan, "alpha"), (4, np.inf, "alpha"), (0, 1.0, "parts"), (500, 1.0, "parts")],
)
def test_a_partition_that_cannot_be_is_refused(clients: int, alpha: float, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        dirichlet(LABELS, clients, alpha, generator())


def test_even_parts_are_disjoint_of_one_size_and_in_no_order_of_the_set() -> None:
    parts = evenly(23, 4, generator())
    assert [len(part) for part in parts] == [5] * 4
    assert len(np.unique(np.concatenate(parts))) == 20
    assert all(part.tolist() != list(range(part[0], part[0] + 5)) for part in parts)
    with pytest.raises(ParameterError, match="3 examples do not make 4 parts"):
        evenly(3, 4, generator())


def test_no_natural_client_is_split_and_every_example_is_dealt_out() -> None:
    owners = generator(1).integers(50, 80, 2000)
    parts = by_owner(owners, 6, generator())
    assert sorted(np.concatenate(parts).tolist()) == list(range(2000))
    owned = [set(owners[part].tolist()) for part in parts]
    assert [len(each) for each in owned] == [5] * 6
    assert len(set.union(*owned)) == 30
    assert max(map(len, parts)) - min(map(len, parts)) < 10


def test_natural_clients_are_dealt_from_large_to_small_to_who_has_least() -> None:
    owners = np.repeat([7, 8, 9, 10, 11], [10, 9, 5, 3, 1])
    parts = by_owner(owners, 2, generator())
    # First 10 | 9, then 5 to the 9 and 3 to the 10, then 1 to the 13.
    assert {frozenset(owners[part].tolist()) for part in parts} == {frozenset({7, 10, 11}), frozenset({8, 9})}


def test_which_client_has_the_largest_part_depends_on_the_seed() -> None:
    owners = np.repeat(np.arange(4), [1, 2, 3, 4])
    assert len({int(np.argmax([len(part) for part in by_owner(owners, 4, generator(s))])) for s in range(30)}) == 4


def test_only_the_largest_natural_clients_are_taken_where_asked_for() -> None:
    owners = np.repeat(np.arange(6), [1, 6, 2, 5, 3, 4])
    parts = by_owner(owners, 2, generator(), owners_per_client=2)
    assert {frozenset(owners[part].tolist()) for part in parts} == {frozenset({1, 4}), frozenset({3, 5})}


@pytest.mark.parametrize(
    ("clients", "per_client", "message"),
    [(4, None, "takes 4 natural clients or more, not 3"), (2, 2, "takes 4 natural"), (2, 0, "owners_per_client")],
)
def test_too_few_natural_clients_are_an_error(clients: int, per_client: int | None, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        by_owner(np.array([0, 0, 1, 2]), clients, generator(), per_client)


@pytest.mark.parametrize("partition", ["label-skewed", "even", "natural"])
def test_parts_and_validation_are_disjoint_and_test_examples_are_in_neither(partition: Partition) -> None:
    dataset = written([place % 8 for place in range(80)], [100] * 20)
    division = divide(dataset, 4, partition=partition, generator=generator())
    assert [len(part) for part in division.parts] == [18] * 4
    assert len(division.validation) == 8
    assert sorted(numbers(*division.parts, division.validation)) == list(range(80))
    assert numbers(division.test) == list(range(1000, 1020))


def test_a_division_repeats_with_its_seed() -> None:
    def drawn(seed: int) -> tuple[list[int], list[int]]:
        division = divide(written([0] * 60), 3, partition="even", generator=generator(seed))
        return numbers(*division.parts), numbers(division.validation)

    assert drawn(2) == drawn(2) != drawn(3)


def test_of_a_role_the_last_sequences_are_set_aside() -> None:
    division = divide(spoken([10, 20, 30, 10]), 2, partition="natural", generator=generator(), validation_share=0.2)
    assert len(division.validation) == 14
    for role, size in enumerate([10, 20, 30, 10]):
        kept = [number for number in numbers(*division.parts) if number // 100 == role]
        aside = [number for number in numbers(division.validation) if number // 100 == role]
        assert sorted(kept + aside) == [100 * role + time for time in range(size)]
        assert not aside or max(kept) < min(aside)
        assert len(aside) == pytest.approx(0.2 * size, abs=1)


def test_with_even_parts_sequences_of_every_client_are_set_aside_from_the_end() -> None:
    division = divide(spoken([100]), 4, partition="even", generator=generator(), validation_share=0.2)
    everything = sorted(numbers(*division.parts, division.validation))
    assert everything == list(range(100))
    for part in division.parts:
        assert len(part) == 20
        assert numbers(part) == sorted(numbers(part))
    assert np.mean(numbers(division.validation)) > 80


def test_a_cap_counts_what_is_set_aside_too() -> None:
    division = divide(written([0] * 100), 2, partition="even", generator=generator(), most_examples=20)
    assert [len(part) for part in division.parts] == [18, 18]
    assert len(division.validation) == 4
    loose = divide(written([0] * 100), 2, partition="even", generator=generator(), most_examples=1000)
    assert [len(part) for part in loose.parts] == [45, 45]


def test_the_test_set_is_that_of_the_natural_clients_taken() -> None:
    dataset = written([0] * 10 + [1] * 20 + [2] * 30, [0, 1, 2, 2, 1])
    division = divide(dataset, 2, partition="natural", generator=generator(), owners_per_client=1)
    assert numbers(division.test) == [1001, 1002, 1003, 1004]
    assert len(divide(dataset, 2, partition="natural", generator=generator()).test) == 5
    assert len(divide(dataset, 2, partition="even", generator=generator(), owners_per_client=1).test) == 5


@pytest.mark.parametrize("test_owners", [[8], None])
def test_the_test_set_stays_whole_where_its_natural_clients_are_others_or_not_known(
    test_owners: list[int] | None,
) -> None:
    dataset = written([0] * 10 + [1] * 20 + [2] * 30, test_owners)
    assert len(divide(dataset, 2, partition="natural", generator=generator(), owners_per_client=1).test) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_share": 0.0}, "validation_share must be in"),
        ({"validation_share": 1.0}, "validation_share must be in"),
        ({"validation_share": 0.01}, "validation_share 0.01"),
        ({"validation_share": 0.99}, "validation_share 0.99"),
        ({"most_examples": 1}, "most_examples"),
        ({"partition": "natural"}, "partition: no natural clients of letters"),
        ({"partition": "by-name"}, "partition must be one of"),
        ({"alpha": -1.0}, "alpha"),
        ({"clients": 0}, "parts"),
    ],
)
def test_a_division_that_cannot_be_is_refused(settings: dict[str, object], message: str) -> None:
    dataset = Dataset("letters", numbered(40), numbered(4), 2)
    chosen = {"clients": 4, "partition": "label-skewed", "generator": generator()} | settings
    with pytest.raises(ParameterError, match=message):
        divide(dataset, **chosen)  # type: ignore[arg-type]


def test_sequences_are_not_skewed_by_label() -> None:
    with pytest.raises(ParameterError, match="partition: sequences as in lines"):
        divide(spoken([10]), 2, partition="label-skewed", generator=generator())


def test_a_data_set_whose_labels_or_owners_do_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"letters: every label must be in \[0, 2\)"):
        Dataset("letters", numbered(6), numbered(6, classes=3), 2)
    with pytest.raises(InputError, match="one owner for each of 6"):
        Dataset("letters", numbered(6), numbered(6), 2, np.zeros(5, np.intp))


def test_digits_are_split_without_overlap_and_scaled() -> None:
    dataset = digits.load()
    assert (len(dataset.train), len(dataset.test)) == (1438, 359)
    assert dataset.train.inputs.shape[1:] == (1, 8, 8)
    assert float(dataset.train.inputs.min()) == 0
    assert float(dataset.train.inputs.max()) == 1
    rows = torch.cat([dataset.train.inputs, dataset.test.inputs]).reshape(1797, 64)
    assert len(torch.unique(rows, dim=0)) == 1797
    assert torch.equal(dataset.test.labels, load("digits", None).test.labels)


def test_every_client_gets_digits_of_its_own() -> None:
    division: Division = divide(load("digits", None), 20, partition="label-skewed", generator=generator())
    assert [len(part) for part in division.parts] == [64] * 20
    assert (len(division.validation), len(division.test)) == (140, 359)


def test_an_unknown_data_set_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(ParameterError, match=f"'moons'; there are {', '.join(DATASETS)}"):
        load("moons", None)
