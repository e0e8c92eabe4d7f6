from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from protocols.sessions import clustering
from protocols.sessions.averaging import Averages
from protocols.sessions.clustering import Clustering, agglomerative, secure_clusters, sketch
from protocols.sessions.tally import Tally
from secagg.errors import InputError, LayoutMismatchError, ParameterError, TooFewClientsError
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from numpy.typing import NDArray

LENGTH = 400
PARAMS = Params(min_cohort=3, max_dropouts=0)
LABELS = (0, 1, 1, 2, 0, 2, 1, 0, 2, 0, 1, 2, 0)


def updates(labels: Iterable[int], noise: float, number: int = 0) -> dict[Hashable, NDArray[np.float64]]:
    """Updates along one direction for each label, a drift common to all, and noise that is new for each number."""
    directions = np.random.default_rng(0).normal(size=(9, LENGTH))
    draws = np.random.default_rng([1, number])
    return {
        client: directions[8] + directions[label] + noise * draws.normal(size=LENGTH)
        for client, label in enumerate(labels)
    }


def sketches(labels: tuple[int, ...], noise: float = 0.5) -> Callable[[Hashable, int], NDArray[np.float64]]:
    def sketch_of(client: Any, iteration: int) -> NDArray[np.float64]:
        return sketch(updates(labels, noise, iteration)[client])

    return sketch_of


def clustered(labels: tuple[int, ...], **settings: Any) -> Clustering:
    chosen = {"clusters": 3, "smallest": 3, "params": PARAMS, "encrypted": False, **settings}
    return secure_clusters(range(len(labels)), sketches(labels), **chosen)


def named(points: NDArray[np.float64]) -> dict[Hashable, NDArray[np.float64]]:
    return dict(enumerate(points))


def numbered(labels: Iterable[int]) -> list[int]:
    """The labels renumbered in order of first appearance."""
    numbers: dict[int, int] = {}
    return [numbers.setdefault(label, len(numbers)) for label in labels]


def sizes(membership: Mapping[Any, int]) -> list[int]:
    return sorted(Counter(membership.values()).values())


def test_agglomeration_finds_the_clusters_and_numbers_them_by_their_first_clients() -> None:
    labels = (2, 0, 0, 1, 2, 1, 0)
    found = agglomerative(updates(labels, 0.5), 3, 2)
    assert list(found) == list(range(7))
    assert list(found.values()) == numbered(labels)


def test_only_the_direction_of_an_update_counts() -> None:
    scaled = {client: own * 10.0**power for power, (client, own) in enumerate(updates(LABELS, 0.5).items())}
    assert list(agglomerative(scaled, 3, 1).values()) == numbered(LABELS)


def at_angles(*degrees: float) -> dict[Hashable, NDArray[np.float64]]:
    angles = np.radians(degrees)
    return named(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def test_a_small_cluster_joins_the_nearest() -> None:
    points = at_angles(0, 2, 40, 90, 92)
    assert agglomerative(points, 3, 1) == {0: 0, 1: 0, 2: 1, 3: 2, 4: 2}
    assert agglomerative(points, 3, 2) == {0: 0, 1: 0, 2: 0, 3: 1, 4: 1}
    assert agglomerative(points, 3, 3) == dict.fromkeys(range(5), 0)
    assert agglomerative(at_angles(0, 2, 50, 90, 92), 3, 2) == {0: 0, 1: 0, 2: 1, 3: 1, 4: 1}


def test_linkage_is_by_the_average_distance() -> None:
    # By the smallest distance 30 and 61 would be joined before 61 and 93: .143 is less than .152.
    assert agglomerative(at_angles(0, 30, 61, 93), 2, 1) == {0: 0, 1: 0, 2: 1, 3: 1}


@given(st.integers(0, 2**32 - 1), st.integers(1, 15), st.integers(1, 6), st.integers(1, 5))
def test_no_cluster_is_smaller_than_asked_and_no_more_than_asked_are_made(
    seed: int, clients: int, clusters: int, smallest: int
) -> None:
    points = named(np.random.default_rng(seed).normal(size=(clients, 4)))
    if clients < smallest:
        with pytest.raises(TooFewClientsError, match="smallest"):
            agglomerative(points, clusters, smallest)
        return
    found = agglomerative(points, clusters, smallest)
    assert sizes(found)[0] >= smallest
    assert len(sizes(found)) == min(clusters, clients) or smallest > 1
    assert len(sizes(found)) <= clusters
    assert list(found.values()) == numbered(found.values())


def test_a_sketch_has_length_one_and_keeps_angles() -> None:
    draws = np.random.default_rng(5)
    one, other = draws.normal(size=(2, 20_000))
    for mixed in (other, one + other, one + 0.1 * other):
        cosine = one @ mixed / np.linalg.norm(one) / np.linalg.norm(mixed)
        assert np.isclose(np.linalg.norm(sketch(mixed)), 1)
        assert abs(sketch(one, 4096) @ sketch(mixed, 4096) - cosine) < 5 / 64
    assert np.allclose(sketch(-3 * one), -sketch(one))
    assert not np.allclose(sketch(one), sketch(one, public_seed=1))


def test_sums_find_the_same_clusters_as_updates() -> None:
    found = clustered(LABELS)
    assert list(found.membership.values()) == numbered(LABELS)
    assert found.membership == agglomerative(updates(LABELS, 0.5), 3, 3)
    assert found.clusters == 3


def test_clusters_are_the_same_bit_for_bit_under_encryption() -> None:
    secure, plain = (
        clustered(LABELS, encrypted=encrypted, iterations=2, seed=bytes(32)) for encrypted in (True, False)
    )
    assert secure.membership == plain.membership
    for one, other in zip(secure.sessions, plain.sessions, strict=True):
        match one, other:
            case Averages(), Averages():
                assert np.array_equal(one.mean["slots"].numpy(), other.mean["slots"].numpy())
            case Tally(), Tally():
                assert np.array_equal(one.counts, other.counts)
            case _:
                pytest.fail("the sessions differ in kind")
    assert all(session.seconds for session in secure.sessions)


@given(st.integers(0, 2**32 - 1), st.integers(6, 16), st.integers(1, 5), st.integers(3, 5))
def test_no_slot_is_summed_that_fewer_than_smallest_clients_chose(
    seed: int, clients: int, clusters: int, smallest: int
) -> None:
    points = np.random.default_rng(seed).normal(size=(9, clients, 8))
    found = secure_clusters(
        range(clients),
        lambda client, iteration: points[iteration, client],  # type: ignore[index]
        clusters=clusters,
        smallest=smallest,
        params=PARAMS,
        public_seed=seed,
        encrypted=False,
    )
    assert sizes(found.membership)[0] >= smallest
    assert found.clusters <= clusters
    assert isinstance(found.sessions[0], Averages)
    for before, session in zip(found.sessions, found.sessions[1:], strict=False):
        if isinstance(session, Averages):
            assert isinstance(before, Tally)
            assert before.counts.min() >= smallest
            assert len(session.mean["slots"]) == len(before.counts)
    assert isinstance(found.sessions[-1], Tally)
    assert sorted(found.sessions[-1].counts) == sizes(found.membership)


def test_a_cluster_that_is_too_small_is_closed() -> None:
    labels = (0, 0, 0, 0, 1, 1, 1, 1, 1, 2)
    found = clustered(labels)
    assert sizes(found.membership)[0] >= 3
    assert found.membership[0] == found.membership[3] != found.membership[4] == found.membership[8]


@given(st.integers(3, 40), st.integers(1, 9), st.integers(0, 99))
def test_it_starts_from_random_groups_none_of_them_small(clients: int, smallest: int, seed: int) -> None:
    assume(smallest <= clients)
    groups = clustering._groups(clients, smallest, seed)
    counts = np.bincount(groups)
    assert len(groups) == clients
    assert len(counts) == clients // smallest
    assert smallest <= counts.min() <= counts.max() < 2 * smallest


def test_the_groups_follow_from_the_public_seed_and_not_from_the_order_of_clients() -> None:
    groups = [tuple(clustering._groups(24, 3, seed)) for seed in (0, 0, 1, 2)]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3
    assert all(list(one) != sorted(one) for one in groups)


def test_centroids_that_are_far_apart_are_taken_one_by_one_the_outermost_first() -> None:
    angles = np.radians([0, 8, 75, 180, 190])
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = clustering._far_apart(directions, 4)
    # The middle is at 74 degrees: 190 is farthest from it, 8 from that, 75 from both; of 0 and 180 the latter is.
    order = [int(np.flatnonzero((directions == one).all(axis=1))[0]) for one in found]
    assert order == [4, 1, 2, 3]
    assert len(clustering._far_apart(directions, 9)) == 5


def test_there_are_twice_as_many_slots_as_clusters_until_the_second_iteration() -> None:
    labels = tuple(client % 8 for client in range(64))
    found = clustered(labels, clusters=4, iterations=4)
    counted = [len(session.counts) for session in found.sessions if isinstance(session, Tally)]
    assert counted[0] == 8
    summed = [len(session.mean["slots"]) for session in found.sessions if isinstance(session, Averages)]
    assert summed[0] == 64 // 3
    assert [one > 4 for one in summed[1:]] == [True, True, False, False]


def test_every_iteration_takes_a_sketch_of_its_own() -> None:
    asked = []
    fresh = sketches(LABELS)

    def sketch_of(client: Hashable, iteration: int) -> NDArray[np.float64]:
        asked.append((client, iteration))
        return fresh(client, iteration)

    secure_clusters(range(13), sketch_of, clusters=3, smallest=3, params=PARAMS, iterations=4, encrypted=False)
    assert sorted(asked) == sorted((client, iteration) for client in range(13) for iteration in range(6))


def test_no_two_sessions_share_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    for name in ("tally", "averages"):
        session = getattr(clustering, name)

        def noted(*given: Any, session: Any = session, **settings: Any) -> Any:
            seeds.append(settings["seed"])
            return session(*given, **settings)

        monkeypatch.setattr(clustering, name, noted)
    found = clustered(LABELS, seed=bytes(32))
    assert len(set(seeds)) == len(seeds) == len(found.sessions)
    seeds.clear()
    clustered(LABELS)
    assert set(seeds) == {None}


def test_smallest_must_outlast_the_dropouts_that_a_session_tolerates() -> None:
    with pytest.raises(ParameterError, match=r"at least 5 .* lower max_dropouts"):
        clustered(LABELS, params=Params(min_cohort=3, max_dropouts=2))
    with pytest.raises(ParameterError, match="at least 4"):
        clustered(LABELS, params=Params(min_cohort=3, corrupt=1, max_dropouts=0))
    assert clustered(LABELS, params=Params(min_cohort=3, max_dropouts=0), smallest=3).clusters == 3


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_server_that_could_forge_counts_is_refused_before_anything_is_summed(*, encrypted: bool) -> None:
    def never(client: Hashable, iteration: int) -> NDArray[np.float64]:
        raise AssertionError((client, iteration))

    active = Params(min_cohort=3, max_dropouts=0, adversary="active")
    with pytest.raises(ParameterError, match=r"alone in its slot.*adversary='semi-honest'"):
        secure_clusters(range(9), never, clusters=2, smallest=4, params=active, encrypted=encrypted)


def test_what_has_no_direction_or_does_not_fit_names_its_client() -> None:
    points = updates(LABELS, 0.5)
    for wrong in (np.zeros(LENGTH), np.full(LENGTH, np.nan)):
        with pytest.raises(InputError, match="client 4") as caught:
            agglomerative({**points, 4: wrong}, 3, 3)
        assert caught.value.culprits == (4,)
    with pytest.raises(LayoutMismatchError, match="client 4"):
        agglomerative({**points, 4: np.ones(LENGTH + 1)}, 3, 3)
    with pytest.raises(InputError, match="direction"):
        sketch(np.zeros(5))


@pytest.mark.parametrize("name", ["clusters", "smallest", "iterations"])
def test_settings_below_one_are_refused(name: str) -> None:
    with pytest.raises(ParameterError, match=name):
        clustered(LABELS, **{name: 0})
