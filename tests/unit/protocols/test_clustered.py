"""Clusters are found, play side by side, and are told as one round; a run in parts is the run in one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import torch

import secagg
from protocols import clustered
from protocols.aggregators import FixedPoint, FloatMean, Uniform
from protocols.ca_afp import CaAfp, CaAfpSettings
from protocols.clustered import ClusteredFedAvg, ClusterSettings
from protocols.experiments.folder import RunFolder
from protocols.results import LostRound, RoundResult
from protocols.simulation.calibration import Calibration, SecureTime
from protocols.simulation.devices import ServerLinks
from protocols.training import Examples, accuracy
from secagg.errors import ParameterError, TooFewClientsError
from secagg.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from inspect import BoundArguments
    from pathlib import Path

    from protocols.aggregators import Aggregator
    from protocols.clustered import Clustered
    from protocols.federation import Checkpoint, Federation
    from protocols.results import Outcome
    from protocols.sessions.clustering import Clustering
    from secagg.params import Mode, Params

PARAMS = secagg.Params(min_cohort=2, max_dropouts=1)
"""A sum needs three clients."""

OF_THREE = secagg.Params(min_cohort=3, max_dropouts=0)
"""Likewise, where squares are summed too and two would not do."""

LONGER: dict[str, Any] = {"steps": 6, "batch_size": 20}
"""So long that what is learned outweighs what the noise of batches adds."""

TWO = ClusterSettings(clusters=2, iterations=2)
PRUNED = CaAfpSettings(clusters=2, iterations=2, density=0.5, dense_rounds=1, prune_rounds=2, step_every=1)

SYSTEMS: dict[str, Callable[..., Clustered]] = {
    "clustered": partial(ClusteredFedAvg, settings=TWO),
    "CA-AFP": partial(CaAfp, settings=PRUNED),
}


@pytest.fixture(scope="module")
def opposed(federation: Federation) -> Federation:
    """Five clients know two labels only, the last three the other two; each is tested on its own examples."""
    examples = {
        client: Examples(own.inputs, own.labels % 2 + 2 * (place >= 5))
        for place, (client, own) in enumerate(federation.examples.items())
    }
    tests = {client: own.subset(range(4 + place)) for place, (client, own) in enumerate(examples.items())}
    return replace(federation, examples=examples, tests=tests, training=replace(federation.training, **LONGER))


@pytest.fixture(scope="module")
def clear(federation: Federation) -> FixedPoint:
    return FixedPoint(federation.units.layout, PARAMS)


def groups(setup: Federation) -> dict[Hashable, int]:
    return {client: int(place >= 5) for place, client in enumerate(setup.fleet.names)}


def rounds_of(outcomes: list[tuple[Outcome, Checkpoint]]) -> list[RoundResult]:
    assert all(isinstance(one, RoundResult) for one, _ in outcomes)
    return [one for one, _ in outcomes if isinstance(one, RoundResult)]


def plainly(memory: Any) -> Any:
    """A memory with lists for tensors, so that two can be compared."""
    if isinstance(memory, torch.Tensor):
        return memory.tolist()
    if isinstance(memory, dict):
        return {key: plainly(value) for key, value in memory.items()}
    return [plainly(one) for one in memory] if isinstance(memory, list) else memory


# ---------------------------------------------------------------------------------- finding them


@pytest.mark.parametrize("clustering", [None, "secure", "agglomerative"])
def test_clients_that_learn_opposed_things_are_apart(
    opposed: Federation, clear: FixedPoint, instant: Calibration, clustering: Any
) -> None:
    kind: Aggregator = clear if clustering else FloatMean(clear.layout)
    system = ClusteredFedAvg(opposed, kind, replace(TWO, clustering=clustering), calibration=instant)
    ((found, end),) = system.play(1)
    assert system.membership == groups(opposed)
    assert isinstance(found, RoundResult)
    assert found.details == {"clusters": 2, "smallest cluster": 3}
    assert set(found.clients) == set(found.survivors) == set(opposed.fleet.names)
    start = opposed.start()
    assert all(torch.equal(end.state[name], tensor) for name, tensor in start.state.items())
    assert found.accuracy == accuracy(opposed.model, opposed.test)
    assert (end.number, end.seconds) == (1, found.seconds)


@pytest.mark.parametrize("clustering", ["secure", "agglomerative"])
@pytest.mark.parametrize("clusters", [1, 2, 3, 8])
def test_no_cluster_is_smaller_than_a_sum_may_be(
    opposed: Federation, clear: FixedPoint, instant: Calibration, clustering: Any, clusters: int
) -> None:
    settings = ClusterSettings(clusters=clusters, clustering=clustering, iterations=2)
    system = ClusteredFedAvg(opposed, clear, settings, calibration=instant)
    outcomes = rounds_of(list(system.play(2)))
    sizes = Counter(system.membership.values())
    assert min(sizes.values()) >= 3
    assert len(sizes) <= clusters
    assert outcomes[0].details["smallest cluster"] == min(sizes.values())
    assert outcomes[1].details["clusters"] == len(sizes)


def test_clusters_so_small_that_dropouts_would_lay_them_bare_are_refused(
    opposed: Federation, clear: FixedPoint, instant: Calibration
) -> None:
    for clustering in ("secure", "agglomerative"):
        with pytest.raises(ParameterError, match=r"smallest must be at least 3, not 2.*max_dropouts"):
            ClusteredFedAvg(opposed, clear, ClusterSettings(clustering=clustering, smallest=2))
    alone = ClusteredFedAvg(opposed, FloatMean(clear.layout), ClusterSettings(clusters=8), calibration=instant)
    _ = list(alone.play(1))
    assert sorted(alone.membership.values()) == list(range(8))
    four = ClusteredFedAvg(opposed, clear, ClusterSettings(clusters=8, smallest=4), calibration=instant)
    _ = list(four.play(1))
    assert min(Counter(four.membership.values()).values()) >= 4


def test_what_cannot_be_is_refused(opposed: Federation, clear: FixedPoint) -> None:
    secure = Uniform(clear.layout, PARAMS)
    with pytest.raises(ParameterError, match="agglomerative"):
        ClusteredFedAvg(opposed, secure, ClusterSettings(clustering="agglomerative"))
    system = ClusteredFedAvg(opposed, clear, TWO)
    with pytest.raises(ParameterError, match="ledgers"):
        system.run(1, ledgers={"fast-01": Ledger()})
    with pytest.raises(ParameterError, match="adversary='semi-honest'"):
        ClusteredFedAvg(opposed, Uniform(clear.layout, replace(PARAMS, adversary="active")), TWO)
    with pytest.raises(ParameterError, match="clustering must be agglomerative or secure, not 'bogus'"):
        CaAfpSettings(clustering="bogus")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="clustering 'secure' takes sums"):
        ClusteredFedAvg(opposed, FloatMean(clear.layout), ClusterSettings(clustering="secure"))
    with pytest.raises(TooFewClientsError, match="8 clients are fewer than the smallest cluster, 40: lower smallest"):
        ClusteredFedAvg(opposed, clear, ClusterSettings(smallest=40))
    for wrong in ({"clusters": 0}, {"smallest": 0}, {"iterations": 0}):
        with pytest.raises(ParameterError, match="at least 1"):
            ClusterSettings(**wrong)  # type: ignore[arg-type]
        with pytest.raises(ParameterError, match="at least 1"):
            CaAfpSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="dense_rounds"):
        CaAfpSettings(dense_rounds=0)


class Slow(Calibration):
    """A session takes a second whatever its length."""

    def time(self, mode: Mode, clients: int, params: Params) -> SecureTime:
        return SecureTime(
            mode=mode,
            clients=clients,
            settings=params.digest.hex(),
            client=1.0,
            client_per_coordinate=0.0,
            server=0.0,
            server_per_coordinate=0.0,
        )


@pytest.fixture
def clusterings(monkeypatch: pytest.MonkeyPatch) -> list[Clustering]:
    """What secure clusterings found."""
    found: list[Clustering] = []

    def noted(*given: Any, **settings: Any) -> Clustering:
        found.append(secure_clusters(*given, **settings))
        return found[-1]

    secure_clusters = vars(clustered)["secure_clusters"]
    monkeypatch.setattr(clustered, "secure_clusters", noted)
    return found


@pytest.mark.parametrize("kind", [FixedPoint, Uniform])
def test_secure_clustering_costs_its_trainings_and_what_is_said_and_no_update(
    opposed: Federation, clear: FixedPoint, clusterings: list[Clustering], kind: type[FixedPoint | Uniform]
) -> None:
    system = ClusteredFedAvg(opposed, kind(clear.layout, PARAMS), replace(TWO, iterations=3), calibration=Slow())
    first, second = rounds_of(list(system.play(2)))
    ((found,),) = (clusterings,)
    assert len(found.sessions) >= 1 + 2 * 3 + 1
    for client, one in first.clients.items():
        device, after = opposed.fleet.device(client), second.clients[client]
        assert one.upload_bytes == sum(session.upload_bytes[client] for session in found.sessions)
        assert one.seconds.upload == one.upload_bytes / device.upload_bytes_per_second
        assert one.flops == 5 * after.flops  # for the start, in three iterations, and for the last choice
        assert one.seconds.compute == pytest.approx(5 * after.seconds.compute)
        assert one.joules == pytest.approx(5 * after.joules)
        assert one.seconds.secure == len(found.sessions)
        assert after.seconds.secure == 1
    heard = sum(session.download_bytes["fast-01"] for session in found.sessions)
    proof_and_model = first.clients["fast-01"].download_bytes - heard
    assert proof_and_model >= 4 * clear.layout.size
    assert first.seconds == max(one.seconds.total for one in first.clients.values())


def test_clustering_by_updates_costs_one_update(opposed: Federation, clear: FixedPoint, instant: Calibration) -> None:
    system = ClusteredFedAvg(opposed, FloatMean(clear.layout), TWO, calibration=instant)
    first, second = rounds_of(list(system.play(2)))
    for client, one in first.clients.items():
        assert one == second.clients[client]
        assert one.upload_bytes == 4 * clear.layout.size
    assert "sees every client's update" in first.verdict


def test_the_verdicts_say_what_the_server_learns_of_the_clusters(
    opposed: Federation, clear: FixedPoint, instant: Calibration, clusterings: list[Clustering]
) -> None:
    system = ClusteredFedAvg(opposed, Uniform(clear.layout, PARAMS), TWO, calibration=instant)
    first, second = rounds_of(list(system.play(2)))
    sessions = clusterings[0].sessions
    assert "the server learns who is in which cluster" in first.verdict
    assert f"in {len(sessions)} sessions, how many chose each centroid" in first.verdict
    assert "sums of sketches over at least 3 clients" in first.verdict
    assert all(session.verdict in first.verdict for session in sessions)
    assert "the server knows who is in which of 2 clusters" in second.verdict
    assert "over 5 survivors" in second.verdict
    assert "over 3 survivors" in second.verdict


# ---------------------------------------------------------------------------------- rounds of clusters


def played_apart(system: Clustered, start: Checkpoint) -> list[tuple[Outcome, Checkpoint]]:
    """The next round of every cluster by itself, from a checkpoint of all."""
    system.recall(start.memory)
    return [one.step(own, {}, None) for one, own in zip(system.inner, system._checkpoints, strict=True)]


def test_the_rounds_of_all_clusters_are_told_as_one(
    opposed: Federation, clear: FixedPoint, instant: Calibration
) -> None:
    system = CaAfp(opposed, clear, PRUNED, calibration=instant)
    (_, found), (told, end) = system.play(2)
    assert isinstance(told, RoundResult)
    apart = played_apart(CaAfp(opposed, clear, PRUNED, calibration=instant), found)
    one, other = rounds_of(apart)
    assert told.seconds == max(one.seconds, other.seconds) > min(one.seconds, other.seconds)
    assert (told.finished_at, end.seconds) == (found.seconds + told.seconds, found.seconds + told.seconds)
    assert told.clients == {**one.clients, **other.clients}
    assert told.survivors == one.survivors + other.survivors
    # By test examples: 4 + 5 + 6 + 7 + 8 of the first five clients, 9 + 10 + 11 of the others.
    assert told.accuracy == pytest.approx((30 * one.accuracy + 30 * other.accuracy) / 60)
    assert told.details == {"clusters": 2, "clusters lost": 0, "density": 0.75}
    assert told.withheld_share == 0
    assert end.number == 2
    for cluster, (_, after) in enumerate(apart):
        client = opposed.fleet.names[7 * cluster]
        state, mask = system.model_of(client, end)
        assert all(torch.equal(state[name], tensor) for name, tensor in after.state.items())
        assert mask.density < 1


def test_accuracies_are_weighted_by_test_examples_and_else_by_clients(
    opposed: Federation, clear: FixedPoint, instant: Calibration
) -> None:
    """However many of them took part in the round."""
    uneven = {client: own.subset(range(4)) for client, own in opposed.tests.items()}
    uneven["straggler-02"] = opposed.test
    for tests, weights in ((uneven, (20, 108)), ({}, (5, 3))):
        setup = replace(opposed, tests=tests, participants=6)
        system = ClusteredFedAvg(setup, clear, TWO, calibration=instant)
        (_, found), (told, _) = system.play(2)
        apart = rounds_of(played_apart(ClusteredFedAvg(setup, clear, TWO, calibration=instant), found))
        assert isinstance(told, RoundResult)
        assert len(told.clients) == 4 + 3
        expected = sum(weight * one.accuracy for weight, one in zip(weights, apart, strict=True)) / sum(weights)
        assert apart[0].accuracy != apart[1].accuracy
        assert told.accuracy == pytest.approx(expected)


def test_clusters_learn_what_one_model_cannot(opposed: Federation, clear: FixedPoint, instant: Calibration) -> None:
    tests = {
        client: Examples(opposed.test.inputs, opposed.test.labels % 2 + 2 * cluster)
        for client, cluster in groups(opposed).items()
    }
    system = ClusteredFedAvg(replace(opposed, tests=tests), clear, TWO, calibration=instant)
    result, end = system.run(9)
    assert result.rounds[-1].accuracy > 0.7
    for client, own in tests.items():
        state, _ = system.model_of(client, end)
        mine = accuracy(opposed.model_at(replace(end, state=state)), own)
        theirs = accuracy(opposed.model_at(replace(end, state=state)), _otherwise(own))
        assert mine > theirs + 0.4


def _otherwise(own: Examples) -> Examples:
    return Examples(own.inputs, (own.labels + 2) % 4)


def test_participants_are_shared_out_and_never_fewer_than_a_session_needs(
    opposed: Federation, clear: FixedPoint, instant: Calibration
) -> None:
    for participants, cohorts in ((8, [5, 3]), (6, [4, 3]), (2, [3, 3]), (None, [5, 3])):
        setup = replace(opposed, participants=participants)
        system = ClusteredFedAvg(setup, clear, replace(TWO, smallest=3), calibration=instant)
        outcomes = rounds_of(list(system.play(3)))
        assert [one.federation.cohort_size for one in system.inner] == cohorts
        assert [len(one.clients) for one in outcomes] == [8, sum(cohorts), sum(cohorts)]


def test_a_wish_for_large_clusters_does_not_make_cohorts_larger(
    opposed: Federation, clear: FixedPoint, instant: Calibration
) -> None:
    setup = replace(opposed, participants=3)
    system = ClusteredFedAvg(setup, clear, ClusterSettings(clusters=1, smallest=8), calibration=instant)
    _ = list(system.play(1))
    assert [one.federation.cohort_size for one in system.inner] == [3]


GONE: dict[Hashable, str] = {"straggler-01": "ShareKeys", "straggler-02": "ShareKeys"}
"""Two of the second cluster, one more than it bears."""


def test_a_cluster_whose_round_is_lost_keeps_its_model_and_its_accuracy(
    opposed: Federation, clear: FixedPoint, instant: Calibration
) -> None:
    setup = replace(opposed, participants=8)
    system = CaAfp(setup, clear, PRUNED, calibration=instant)
    (_, _), (before, one), (after, other) = system.play(3, dropouts={2: GONE})
    assert isinstance(before, RoundResult)
    assert isinstance(after, RoundResult)
    apart = rounds_of(played_apart(CaAfp(setup, clear, PRUNED, calibration=instant), one)[:1])
    system.recall(one.memory)
    kept, kept_mask = system.model_of("straggler-01", one)
    moved, _ = system.model_of("fast-01", one)
    system.recall(other.memory)
    now, mask = system.model_of("straggler-01", other)
    assert all(torch.equal(kept[name], tensor) for name, tensor in now.items())
    assert mask == kept_mask
    assert not all(torch.equal(moved[name], tensor) for name, tensor in system.model_of("fast-01", other)[0].items())
    joined = Examples.joined([opposed.tests[client] for client in opposed.fleet.names[5:]])
    of_lost = accuracy(opposed.model_at(replace(other, state=now)), joined)
    assert after.accuracy == pytest.approx((apart[0].accuracy + of_lost) / 2)
    assert after.details["clusters lost"] == 1
    assert set(after.clients) == set(opposed.fleet.names[:5])
    assert "Cluster 1: lost: " in after.verdict
    assert after.seconds > apart[0].seconds  # two of the others are slow, and are waited for


def test_a_cluster_that_loses_its_round_takes_back_no_other_clusters(
    opposed: Federation, clear: FixedPoint, instant: Calibration
) -> None:
    system = ClusteredFedAvg(opposed, Uniform(clear.layout, PARAMS), TWO, calibration=instant)
    _, (told, end) = system.play(2, dropouts={1: GONE})
    assert isinstance(told, RoundResult)
    assert set(told.clients) == set(opposed.fleet.names[:5])
    assert [one.number for one in system._checkpoints] == [2, 2]
    assert end.number == 2


def test_all_clusters_share_the_servers_links(opposed: Federation, clear: FixedPoint, instant: Calibration) -> None:
    links = ServerLinks(upload_bytes_per_second=2e3, download_bytes_per_second=1e3)
    slow = replace(opposed, fleet=replace(opposed.fleet, server=links))
    (_, start), (told, end) = ClusteredFedAvg(slow, clear, TWO, calibration=instant).play(2)
    assert isinstance(told, RoundResult)
    downloads, uploads = (
        sum(getattr(one, name) for one in told.clients.values()) for name in ("download_bytes", "upload_bytes")
    )
    assert {one.seconds.download for one in told.clients.values()} == {downloads / 2e3}
    assert {one.seconds.upload for one in told.clients.values()} == {uploads / 1e3}
    assert told.seconds == max(one.seconds.total for one in told.clients.values())
    assert end.seconds == told.finished_at == start.seconds + told.seconds


def test_a_round_that_every_cluster_loses_is_lost(opposed: Federation, clear: FixedPoint, instant: Calibration) -> None:
    setup = replace(opposed, participants=8)
    gone = {**GONE, "fast-01": "ShareKeys", "fast-02": "ShareKeys"}
    system = ClusteredFedAvg(setup, clear, TWO, calibration=instant)
    (_, start), (whole, _) = system.play(2)
    (_, _), (lost, end) = system.play(2, dropouts={1: gone})
    assert isinstance(lost, LostRound)
    assert (lost.number, lost.seconds, end.number) == (1, whole.seconds, 2)
    assert lost.reason.count("clients sent their input") == 2
    assert end.seconds == start.seconds + lost.seconds
    state, _ = system.model_of("fast-01", end)
    assert all(torch.equal(start.state[name], tensor) for name, tensor in state.items())


def test_before_clusters_are_found_all_have_the_global_model(opposed: Federation, clear: FixedPoint) -> None:
    system, start = ClusteredFedAvg(opposed, clear, TWO), opposed.start()
    state, mask = system.model_of("fast-01", start)
    assert state is start.state
    assert mask.kind == "full"


# ---------------------------------------------------------------------------------- encrypted, and in parts


@pytest.mark.parametrize("name", SYSTEMS)
def test_an_encrypted_run_ends_at_the_same_clusters_and_models_as_its_twin(
    opposed: Federation, clear: FixedPoint, instant: Calibration, name: str
) -> None:
    secure = Uniform(clear.layout, PARAMS if name == "clustered" else OF_THREE)
    dropouts: dict[int, dict[Hashable, str]] = {1: {"fast-01": "ShareKeys"}, 2: {"straggler-01": "MaskedInput"}}
    if name == "CA-AFP":
        dropouts = {}
    system = SYSTEMS[name](opposed, secure, twin=secure.twin, calibration=instant)
    result, end = system.run(3, dropouts=dropouts)
    _, other = SYSTEMS[name](opposed, secure.twin, calibration=instant).run(3, dropouts=dropouts)
    assert result.difference == 0
    mine, twins = plainly(end.memory), plainly(other.memory)
    assert mine["membership"] == twins["membership"] == groups(opposed)
    for one, its_twin in zip(mine["clusters"], twins["clusters"], strict=True):
        assert one["state"] == its_twin["state"]
        assert one["memory"] == its_twin["memory"]


def test_no_two_sessions_of_a_run_share_their_secrets(
    opposed: Federation, clear: FixedPoint, instant: Calibration, sessions: list[BoundArguments]
) -> None:
    secure = Uniform(clear.layout, OF_THREE)
    CaAfp(opposed, secure, PRUNED, calibration=instant).run(3)
    seeds = [session.arguments["seed"] for session in sessions]
    assert len(seeds) == 6 + 2 * 2  # of the clustering; then of two clusters in two rounds
    assert None not in seeds
    assert len(set(seeds)) == len(seeds)


def test_clusters_draw_batches_and_cohorts_of_their_own(
    opposed: Federation, clear: FixedPoint, instant: Calibration
) -> None:
    system = ClusteredFedAvg(opposed, clear, TWO, calibration=instant)
    _ = list(system.play(1))
    assert len({opposed.seed, *(one.federation.seed for one in system.inner)}) == 3


PLAN = {"system": "clustered", "rounds": 4}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_run_that_goes_on_from_a_folder_is_the_run_in_one_bit_for_bit(
    opposed: Federation, clear: FixedPoint, instant: Calibration, tmp_path: Path, name: str
) -> None:
    setup = replace(opposed, participants=6)
    whole = list(SYSTEMS[name](setup, clear, calibration=instant).play(4, dropouts={2: GONE}))
    for stop in (1, 3):
        folder = RunFolder(tmp_path / str(stop), PLAN)
        for outcome, checkpoint in whole[:stop]:
            folder.add(outcome, checkpoint)
        again = RunFolder(tmp_path / str(stop), PLAN)
        assert again.outcomes == tuple(outcome for outcome, _ in whole[:stop])
        other = SYSTEMS[name](setup, clear, calibration=instant)
        rest = list(other.play(4 - stop, again.checkpoint, dropouts={2: GONE}))
        assert [one for one, _ in rest] == [one for one, _ in whole[stop:]]
        for (_, one), (_, wanted) in zip(rest, whole[stop:], strict=True):
            assert plainly(one.memory) == plainly(wanted.memory)
            assert (one.number, one.seconds) == (wanted.number, wanted.seconds)


def test_a_run_begun_anew_finds_its_clusters_anew(opposed: Federation, clear: FixedPoint, instant: Calibration) -> None:
    system = ClusteredFedAvg(opposed, clear, TWO, calibration=instant)
    first, second = (rounds_of(list(system.play(2))) for _ in range(2))
    assert first == second


def test_time_goes_on_through_all_rounds(opposed: Federation, clear: FixedPoint, instant: Calibration) -> None:
    outcomes = rounds_of(list(ClusteredFedAvg(opposed, clear, TWO, calibration=instant).play(4)))
    assert all(after.finished_at == before.finished_at + after.seconds for before, after in pairwise(outcomes))


def test_names_say_the_aggregator(opposed: Federation, clear: FixedPoint) -> None:
    assert ClusteredFedAvg(opposed, clear).name == "clustered FedAvg plain"
    assert CaAfp(opposed, clear).name == "CA-AFP plain"
