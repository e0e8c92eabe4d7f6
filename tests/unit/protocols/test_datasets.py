"""Partitions and divisions, on sets small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from protocols.datasets import DATASETS, Dataset, Division, Partition, digits, divide, load
from protocols.datasets.partition import by_owner, dirichlet, evenly, label_shards, of_few_labels
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


@pytest.mark.parametrize(("clients", "labels_per_client"), [(10, 2), (5, 1), (7, 3), (2, 5), (2, 2)])
def test_shards_give_every_client_so_many_labels_and_every_label_to_as_many_clients(
    clients: int, labels_per_client: int
) -> None:
    parts = label_shards(LABELS, clients, labels_per_client, generator())
    held = [np.unique(LABELS[part]) for part in parts]
    assert [len(own) for own in held] == [labels_per_client] * clients
    holders = np.bincount(np.concatenate(held), minlength=5)
    assert holders.max() - holders.min() <= 1
    # No example is left over of a label that anybody has, and those who share it have as many.
    assert sorted(np.concatenate(parts).tolist()) == np.flatnonzero(holders[LABELS]).tolist()
    for part, own in zip(parts, held, strict=True):
        sizes = np.bincount(LABELS[part], minlength=5)[own]
        assert np.all(np.abs(sizes - 40 / holders[own]) < 1)


def test_which_labels_a_client_has_depends_on_the_seed() -> None:
    drawn = [
        tuple(tuple(np.unique(LABELS[part])) for part in label_shards(LABELS, 5, 2, generator(seed)))
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("clients", "labels_per_client", "message"),
    [(4, 0, "labels_per_client"), (4, 6, "labels_per_client"), (0, 1, "parts"), (150, 2, "clients: .* share 40 ex")],
)
def test_shards_that_cannot_be_are_refused(clients: int, labels_per_client: int, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        label_shards(LABELS, clients, labels_per_client, generator())


def test_parts_are_restricted_to_labels_that_they_have() -> None:
    parts = [np.array([0, 1, 41, 81]), np.array([2, 82, 121, 122]), np.array([3, 4])]
    restricted = of_few_labels(parts, LABELS, 2, generator())
    assert [len(np.unique(LABELS[part])) for part in restricted] == [2, 2, 1]
    assert all(set(own.tolist()) <= set(part.tolist()) for own, part in zip(restricted, parts, strict=True))
    for part, whole in zip(restricted, parts, strict=True):
        assert part.tolist() == whole[np.isin(LABELS[whole], LABELS[part])].tolist()


def test_over_parts_with_all_labels_each_label_comes_to_as_many() -> None:
    parts = [np.arange(client, 200, 20) for client in range(20)]
    for seed in range(5):
        restricted = of_few_labels(parts, LABELS, 2, generator(seed))
        held = np.concatenate([np.unique(LABELS[part]) for part in restricted])
        assert np.bincount(held).tolist() == [8] * 5


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


def test_natural_clients_have_their_own_test_examples() -> None:
    dataset = written([0] * 10 + [1] * 20 + [2] * 30, [0, 1, 2, 2, 1])
    division = divide(dataset, 3, partition="natural", generator=generator())
    assert dataset.owners is not None
    own = {
        int(dataset.owners[numbers(part)[0]]): numbers(test)
        for part, test in zip(division.parts, division.tests, strict=True)
    }
    assert own == {0: [1000], 1: [1001, 1004], 2: [1002, 1003]}


def test_a_natural_client_without_test_examples_draws_some() -> None:
    division = divide(written([0] * 10 + [1] * 20, [1, 1, 1, 1]), 2, partition="natural", generator=generator())
    assert sorted(len(test) for test in division.tests) == [2, 4]
    assert numbers(division.test) == [1000, 1001, 1002, 1003]


def test_drawn_test_examples_have_the_label_shares_of_the_part() -> None:
    labels = torch.arange(5).repeat_interleave(200)
    dataset = Dataset("letters", Examples(torch.arange(1000.0).unsqueeze(1), labels), numbered(500, 1000, classes=5), 5)
    division = divide(dataset, 5, partition="label-skewed", alpha=0.5, generator=generator())
    for part, test in zip(division.parts, division.tests, strict=True):
        assert len(set(numbers(test))) == 100
        shares, drawn = (each.labels.bincount(minlength=5) / len(each) for each in (part, test))
        # Of the 100 of a label in the test set, all may be drawn.
        assert (shares - drawn).abs().max() < 0.02


def test_a_label_that_has_run_out_leaves_its_places_to_the_others() -> None:
    train = Examples(torch.arange(20.0).unsqueeze(1), torch.tensor([0] * 16 + [1] * 4))
    test = Examples(torch.arange(8.0).unsqueeze(1), torch.tensor([0, 1, 1, 1, 1, 2, 2, 2]))
    division = divide(Dataset("letters", train, test, 3), 1, partition="even", generator=generator())
    assert division.tests[0] is division.test
    division = divide(Dataset("letters", train, test, 3), 2, partition="even", generator=generator())
    assert [own.labels.tolist() for own in division.tests] == [[0, 1, 1, 1]] * 2


def test_there_is_a_test_example_for_every_client_even_where_clients_are_more() -> None:
    division = divide(written([0] * 60), 3, partition="even", generator=generator())
    assert [numbers(test) for test in division.tests] == [[1000]] * 3


def test_drawing_own_test_examples_comes_last_and_changes_nothing_before() -> None:
    few, many = (
        divide(Dataset("letters", numbered(60), numbered(count, 1000), 2), 3, partition="even", generator=generator())
        for count in (2, 50)
    )
    assert [numbers(part) for part in few.parts] == [numbers(part) for part in many.parts]
    assert numbers(few.validation) == numbers(many.validation)


def test_clients_that_read_lines_are_judged_on_those_of_their_roles_or_on_all() -> None:
    division = divide(spoken([10, 20]), 2, partition="natural", generator=generator())
    assert sorted(map(len, division.tests)) == [10, 20]
    for part, test in zip(division.parts, division.tests, strict=True):
        assert numbers(part)[0] // 100 == numbers(test)[0] // 100
    division = divide(spoken([40]), 2, partition="even", generator=generator())
    assert all(test is division.test for test in division.tests)


@pytest.mark.parametrize("partition", ["label-skewed", "even", "natural", "few-labels"])
def test_what_clients_set_aside_is_the_validation_part(partition: Partition) -> None:
    dataset = written([place % 5 for place in range(80)], [100] * 20)
    division = divide(dataset, 4, partition=partition, generator=generator())
    own = [part for part in division.validations if part is not None]
    assert len(own) == 4
    assert numbers(*own) == numbers(division.validation)


def test_a_client_too_small_to_set_something_aside_has_no_validation_part() -> None:
    division = divide(written([0] * 3 + [1] * 40), 2, partition="natural", generator=generator())
    assert sorted(0 if part is None else len(part) for part in division.validations) == [0, 4]


def test_a_natural_client_of_few_labels_is_judged_on_its_own_examples_of_these_labels() -> None:
    owners, labels = np.repeat(np.arange(6), 30), torch.arange(180) % 3
    train = Examples(torch.arange(180.0).unsqueeze(1), labels)
    test = Examples(torch.arange(1000.0, 1180.0).unsqueeze(1), labels)
    dataset = Dataset("letters", train, test, 3, owners, owners)
    division = divide(dataset, 6, partition="few-labels", labels_per_client=2, generator=generator())
    for part, own in zip(division.parts, division.tests, strict=True):
        held = part.labels.unique().tolist()
        assert len(held) == 2
        owner = numbers(part)[0] // 30
        assert {number // 30 for number in numbers(part)} == {owner}
        assert numbers(own) == [n for n in range(1000, 1180) if (n - 1000) // 30 == owner and (n - 1000) % 3 in held]
    assert numbers(division.test) == sorted(numbers(*division.tests))
    assert len(division.test) == 120
    label_holders = torch.cat([part.labels.unique() for part in division.parts]).bincount()
    assert label_holders.tolist() == [4, 4, 4]


@pytest.mark.parametrize("owners", [None, np.arange(60) % 2])
def test_without_enough_natural_clients_few_labels_are_shards_judged_on_all_of_their_labels(
    owners: np.ndarray | None,
) -> None:
    dataset = Dataset("letters", numbered(60, classes=3), numbered(30, 1000, classes=3), 3, owners)
    division = divide(dataset, 3, partition="few-labels", labels_per_client=1, generator=generator())
    assert [len(part) for part in division.parts] == [18] * 3
    for part, own in zip(division.parts, division.tests, strict=True):
        (label,) = part.labels.unique().tolist()
        assert own.labels.tolist() == [label] * 10
    assert len(division.test) == 30


def test_few_labels_that_the_test_set_has_not_are_an_error() -> None:
    dataset = Dataset("letters", numbered(60), numbered(1, 1000), 2)
    with pytest.raises(InputError, match="letters: no test example has a label"):
        divide(dataset, 2, partition="few-labels", labels_per_client=1, generator=generator())


def test_windows_that_overlap_what_is_set_aside_are_left_out_whoever_has_them() -> None:
    """Two recordings of ten windows dealt out to three clients: neighbours come to different ones."""
    recordings = np.repeat([0, 1], 10)
    dataset = Dataset(
        "steps", numbered(20, classes=1), numbered(4, 1000, classes=1), 1, recordings, recordings=recordings
    )
    for seed in range(5):
        division = divide(dataset, 3, partition="even", generator=generator(seed), validation_share=0.2)
        aside, kept = numbers(division.validation), numbers(*division.parts)
        beside = {near for number in aside for near in (number - 1, number + 1) if near // 10 == number // 10}
        assert len(aside) == 3
        assert not beside & set(kept)
        assert not set(aside) & set(kept)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_share": 0.0}, "validation_share must be in"),
        ({"validation_share": 1.0}, "validation_share must be in"),
        ({"validation_share": 0.01}, "validation_share 0.01 of at most .* fewer clients than 4"),
        ({"validation_share": 0.99}, "validation_share 0.99 leaves a client nothing"),
        ({"validation_share": 0.1, "most_examples": 4, "clients": 1}, "raise it, or raise most_examples"),
        ({"clients": 40, "partition": "even"}, "clients: 40 have one example each"),
        ({"most_examples": 1}, "most_examples"),
        ({"partition": "natural"}, "partition: no natural clients of letters"),
        ({"partition": "by-name"}, "partition must be one of"),
        ({"alpha": -1.0}, "alpha"),
        ({"clients": 0}, "parts"),
        ({"partition": "few-labels", "labels_per_client": 3}, "labels_per_client must be from 1 to 2, not 3"),
    ],
)
def test_a_division_that_cannot_be_is_refused(settings: dict[str, object], message: str) -> None:
    dataset = Dataset("letters", numbered(40), numbered(4), 2)
    chosen = {"clients": 4, "partition": "label-skewed", "generator": generator()} | settings
    with pytest.raises(ParameterError, match=message):
        divide(dataset, **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize("partition", ["label-skewed", "few-labels"])
def test_sequences_are_not_skewed_by_label(partition: Partition) -> None:
    with pytest.raises(ParameterError, match="partition: sequences as in lines"):
        divide(spoken([10]), 2, partition=partition, generator=generator())


def test_a_data_set_whose_labels_or_owners_do_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"letters: every label must be in \[0, 2\)"):
        Dataset("letters", numbered(6), numbered(6, classes=3), 2)
    with pytest.raises(InputError, match="one owner for each of 6"):
        Dataset("letters", numbered(6), numbered(6), 2, np.zeros(5, np.intp))
    for owners, recordings in ((None, 6), (6, 5)):
        with pytest.raises(InputError, match="must have a recording and an owner"):
            Dataset(
                "letters",
                numbered(6),
                numbered(6),
                2,
                None if owners is None else np.zeros(owners, np.intp),
                recordings=np.zeros(recordings, np.intp),
            )


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
