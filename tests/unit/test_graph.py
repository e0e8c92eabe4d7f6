"""The masking graph, and the probabilities that its degree and threshold are chosen for."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import graph
from secagg.graph import Demands, Graph, majority, smallest_degree, threshold_for

SEED = bytes(range(32))


def connected(joined: Graph, among: set[int]) -> bool:
    """Whether the clients in ``among`` can all reach each other through one another."""
    reached, frontier = set(), [min(among)]
    while frontier:
        client = frontier.pop()
        reached.add(client)
        frontier += (joined.neighbours(client) & among) - reached
    return reached == among


@st.composite
def harary_graphs(draw: st.DrawFn) -> Graph:
    clients = draw(st.lists(st.integers(0, 2**63 - 1), min_size=4, max_size=25, unique=True))
    degree = 2 * draw(st.integers(1, (len(clients) - 2) // 2))
    return Graph.build(clients, degree, draw(st.binary(min_size=32, max_size=32)))


@given(harary_graphs())
def test_a_harary_graph_is_regular_symmetric_without_loops_and_connected(joined: Graph) -> None:
    for client in joined.order:
        neighbours = joined.neighbours(client)
        assert len(neighbours) == joined.degree
        assert client not in neighbours
        assert all(client in joined.neighbours(other) for other in neighbours)
    assert connected(joined, set(joined.order))


def test_neighbours_are_the_nearest_on_either_side_of_the_ring() -> None:
    joined = Graph((5, 1, 9, 2, 7, 4, 8), 4)
    assert joined.neighbours(5) == {1, 9, 4, 8}
    assert joined.neighbours(2) == {1, 9, 7, 4}


@pytest.mark.parametrize("degree", [4, 5, 100])
def test_a_degree_that_reaches_everybody_gives_the_complete_graph(degree: int) -> None:
    joined = Graph.build([8, 3, 5, 1, 9], degree, SEED)
    assert joined == Graph((1, 3, 5, 8, 9), 4)
    assert all(joined.neighbours(client) == {1, 3, 5, 8, 9} - {client} for client in joined.order)


def test_the_ring_depends_on_the_seed_and_on_nothing_else() -> None:
    clients = list(range(30))
    ring = Graph.build(clients, 4, SEED)
    assert Graph.build(clients[::-1], 4, SEED) == ring
    assert Graph.build(clients, 4, bytes(32)).order != ring.order
    assert sorted(ring.order) == clients


def test_every_client_is_equally_likely_to_follow_a_given_one() -> None:
    """2000 rings of 5: each of the 4 others follows client 0 in 500 of them, within 6 standard deviations."""
    followers = [0] * 5
    for number in range(2000):
        order = Graph.build(range(5), 2, number.to_bytes(32, "big")).order
        followers[order[(order.index(0) + 1) % 5]] += 1
    assert max(abs(count - 500) for count in followers[1:]) < 6 * math.sqrt(2000 * 0.25 * 0.75)


@pytest.mark.parametrize(("holders", "expected"), [(1, 1), (2, 2), (3, 2), (4, 3), (101, 51)])
def test_a_majority_is_the_smallest_number_above_half(holders: int, expected: int) -> None:
    assert majority(holders) == expected


def sparsest(clients: int, demands: Demands) -> tuple[int, int]:
    """The smallest degree, where there is one, and its threshold."""
    found = smallest_degree(clients, demands)
    assert found is not None
    return found


def test_the_check_value_for_a_thousand_clients_is_degree_36() -> None:
    degree, threshold = sparsest(1000, Demands(lost=100, corrupt=50))
    assert degree == 36
    assert 2 <= threshold <= majority(37)


def test_the_degree_grows_with_the_number_of_lost_and_of_corrupt_clients() -> None:
    by_lost = [sparsest(400, Demands(lost=lost, corrupt=10))[0] for lost in (0, 20, 60, 100, 130)]
    by_corrupt = [sparsest(400, Demands(lost=60, corrupt=corrupt))[0] for corrupt in (0, 10, 40, 80)]
    for degrees in (by_lost, by_corrupt):
        assert all(less <= more for less, more in pairwise(degrees))
        assert degrees[0] < degrees[-1]


def tail(population: int, marked: int, drawn: int, least: int) -> float:
    """P[at least ``least`` of ``drawn`` out of ``population`` are marked], summed term by term in floats."""
    return sum(
        math.exp(
            log_choose(marked, hits) + log_choose(population - marked, drawn - hits) - log_choose(population, drawn)
        )
        for hits in range(least, min(drawn, marked) + 1)
        if drawn - hits <= population - marked
    )


def log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)


@pytest.mark.parametrize(
    ("clients", "lost", "corrupt"), [(1000, 100, 50), (300, 60, 15), (250, 80, 0), (2000, 600, 20)]
)
def test_the_chosen_degree_meets_the_union_bounds_recomputed_in_floats(clients: int, lost: int, corrupt: int) -> None:
    degree, threshold = sparsest(clients, Demands(lost=lost, corrupt=corrupt))
    gone = lost + corrupt
    run = math.prod((gone - j) / (clients - 1 - j) for j in range(degree // 2))
    assert clients * run <= 2**-graph.SECURITY_BITS * (1 + 1e-6)
    opened = clients * tail(clients - 1, corrupt, degree, threshold)
    assert opened <= 2**-graph.SECURITY_BITS * (1 + 1e-6)
    of_survivors = (clients - lost) * tail(clients - 1, lost, degree, degree - threshold + 2)
    of_dropouts = lost * tail(clients - 1, lost - 1, degree, degree - threshold + 1)  # its own share is gone as well
    starved = of_survivors + of_dropouts
    assert starved <= 2**-graph.LIVENESS_BITS * (1 + 1e-6)


def test_degree_and_threshold_keep_their_promise_on_random_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    """With bounds lowered to 2^-4 the failures are frequent enough to count: 3000 rings of 40 clients."""
    monkeypatch.setattr(graph, "LIVENESS_BITS", 4)
    clients, lost, corrupt, rings = 40, 10, 5, 3000
    degree, threshold = sparsest(clients, Demands(lost=lost, corrupt=corrupt, security_bits=4))
    chance = random.Random(20170101)
    split = opened = starved = 0
    for number in range(rings):
        joined = Graph.build(range(clients), degree, number.to_bytes(32, "big"))
        bad = chance.sample(range(clients), lost + corrupt)
        gone, colluding = set(bad[:lost]), set(bad[lost:])
        split += not connected(joined, set(range(clients)) - gone - colluding)
        holders = {client: joined.neighbours(client) for client in range(clients)}
        opened += any(len(holders[client] & colluding) >= threshold for client in range(clients))
        starved += any(len((holders[client] | {client}) - gone) < threshold for client in range(clients))
    allowed = rings * 2**-4
    slack = 5 * math.sqrt(allowed)
    assert split <= allowed + slack
    assert opened <= allowed + slack
    assert starved <= allowed + slack
    assert connected(Graph((0, 1, 2, 3), 2), {0, 1, 2})  # the check itself tells connected from split
    assert not connected(Graph((0, 1, 2, 3), 2), {0, 2})


def test_the_thinnest_window_is_found_across_the_seam_of_the_ring() -> None:
    ring = Graph((5, 1, 9, 2, 7, 4, 8), 4)
    assert ring.fewest_in_window({5, 1, 9, 2, 7, 4, 8}) == 2
    assert ring.fewest_in_window([1, 9, 2, 4]) == 0  # nobody at 8 and 5
    assert ring.fewest_in_window((5, 9, 7, 8)) == 1
    assert ring.fewest_in_window(()) == 0
    assert Graph((1, 2), 1).fewest_in_window({1, 2}) == 1


@given(harary_graphs(), st.data())
def test_clients_in_every_window_are_connected(joined: Graph, data: st.DataObject) -> None:
    left = set(data.draw(st.lists(st.sampled_from(joined.order), min_size=1, unique=True)))
    window = joined.degree // 2
    circle = joined.order * 2
    counted = min(len(left.intersection(circle[start : start + window])) for start in range(len(joined.order)))
    assert joined.fewest_in_window(left) == counted
    if counted:
        assert connected(joined, left)


@given(harary_graphs(), st.data())
def test_survivors_beyond_the_floor_stay_connected_whoever_of_them_is_corrupt(
    joined: Graph, data: st.DataObject
) -> None:
    corrupt = set(data.draw(st.lists(st.sampled_from(joined.order), unique=True)))
    survivors = corrupt | set(data.draw(st.lists(st.sampled_from(joined.order), min_size=1, unique=True)))
    circle, window = joined.order * 2, joined.degree // 2
    most = max(len(corrupt.intersection(circle[start : start + window])) for start in range(len(joined.order)))
    if joined.fewest_in_window(survivors) > most:
        assert connected(joined, survivors - corrupt)


def test_a_degree_has_a_threshold_from_the_smallest_degree_on() -> None:
    demands = Demands(lost=60, corrupt=15)
    degree, threshold = sparsest(300, demands)
    assert threshold_for(degree, 300, demands) == threshold
    assert threshold_for(degree - 2, 300, demands) is None
    assert threshold_for(degree + 2, 300, demands) is not None


def test_without_losses_a_majority_of_the_holders_is_the_threshold() -> None:
    assert threshold_for(6, 20, Demands(lost=0, corrupt=0)) == majority(7)


def test_a_degree_one_step_lower_breaks_the_bound() -> None:
    degree, _ = sparsest(1000, Demands(lost=100, corrupt=50))
    run = math.prod((150 - j) / (999 - j) for j in range(degree // 2 - 1))
    assert 1000 * run > 2**-graph.SECURITY_BITS


def test_a_cohort_may_have_no_sparse_graph() -> None:
    assert smallest_degree(10, Demands(lost=5, corrupt=3)) is None


@pytest.mark.parametrize(("clients", "lost", "corrupt"), [(1000, 100, 50), (300, 30, 15), (400, 20, 0)])
def test_against_an_active_server_the_bounds_hold_whoever_it_drops(clients: int, lost: int, corrupt: int) -> None:
    """Recomputed in floats: 40 bits, and 60 more for a server that tries rings until one suits it."""
    demands = Demands(lost=lost, corrupt=corrupt, active=True)
    degree, threshold = sparsest(clients, demands)
    window, floor = degree // 2, demands.window_floor(clients, degree)
    assert clients * tail(clients - 1, corrupt, window, floor) <= 2**-100 * (1 + 1e-6)
    assert floor == 1 or clients * tail(clients - 1, corrupt, window, floor - 1) > 2**-100
    # Both secrets of a client open if holders that are told two stories, and corrupt ones twice, have 2t shares of it.
    assert clients * tail(clients - 1, corrupt, degree, 2 * threshold - (degree + 1)) <= 2**-100 * (1 + 1e-6)
    assert clients * tail(clients - 1, lost, window, window - floor + 1) <= 2**-20
    assert clients * tail(clients - 1, lost, degree, degree - threshold + 1) <= 2**-20


def test_a_floor_that_no_window_can_keep_is_one_above_its_size() -> None:
    assert Demands(lost=0, corrupt=90, active=True).window_floor(100, 10) == 6


@pytest.mark.parametrize("threshold", [0, 60])
def test_a_threshold_outside_its_domain_fails_for_certain(threshold: int) -> None:
    failures = Demands(lost=100, corrupt=50).failures(1000, 36, threshold)
    assert max(failures.opened, failures.starved) >= 0
