"""PR-FL: encrypted and in the clear, its masks and densities, its way back, and what all of it is charged."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from protocols import pr_fl
from protocols.aggregators import FixedPoint, FloatMean, MaskIndexed
from protocols.arrivals.running_sum import RunningSum
from protocols.pr_fl import PrFl, PrFlSettings, smallest_batch
from protocols.results import RoundResult
from protocols.sessions.averaging import open_averages
from protocols.simulation.calibration import Calibration, SecureTime
from protocols.simulation.devices import ServerLinks
from protocols.simulation.profiles import profile
from protocols.training import Training
from protocols.training import accuracy as judged
from protocols.vectors import vector_of
from pruning.masks import Mask
from secagg.errors import AbortError, ParameterError
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from inspect import BoundArguments

    from numpy.typing import NDArray
    from torch import nn

    from protocols.aggregators import Aggregator, Client, Dropouts
    from protocols.arrivals.flight import Arrival
    from protocols.asynchronous import Joined
    from protocols.federation import Checkpoint, Federation
    from protocols.training import State
    from secagg.params import Mode

PARAMS = Params(min_cohort=3, max_dropouts=2, value_range=4.0)
BATCH = 5
"""The fewest that ``PARAMS`` flushes."""

SOON = PrFlSettings(interval=10, rank_every=1, patience=2)
PRUNED = replace(SOON, interval=20, recover=False)
"""Stragglers have come back by the end of an interval, and so have less from then on."""


@pytest.fixture
def setup(federation: Federation) -> Federation:
    return replace(federation, validation=federation.test.subset(range(50)))


def system(
    setup: Federation, kind: type[Aggregator], calibration: Calibration, settings: PrFlSettings = SOON, **params: Any
) -> PrFl:
    layout, own = setup.units.layout, replace(PARAMS, **params)
    if kind is FloatMean:
        return PrFl(setup, FloatMean(layout, "mask-indexed"), settings, calibration=calibration)
    secure = MaskIndexed(layout, own)
    if kind is FixedPoint:
        return PrFl(setup, secure.twin, settings, calibration=calibration)
    return PrFl(setup, secure, settings, twin=secure.twin, calibration=calibration)


def played(one: PrFl, intervals: int, **options: Any) -> list[tuple[RoundResult, Checkpoint]]:
    found = []
    for outcome, checkpoint in one.play(intervals, **options):
        assert isinstance(outcome, RoundResult)
        found.append((outcome, checkpoint))
    return found


def vector(setup: Federation, checkpoint: Checkpoint) -> NDArray[np.float32]:
    return vector_of(setup.units.layout, checkpoint.state)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


@pytest.fixture
def arrivals(monkeypatch: pytest.MonkeyPatch) -> list[Arrival]:
    """All that was joined."""
    seen: list[Arrival] = []
    original = PrFl.join

    def watched(self: PrFl, own: Sequence[Arrival], dropouts: Dropouts) -> Joined:
        seen.extend(own)
        return original(self, own, dropouts)

    monkeypatch.setattr(PrFl, "join", watched)
    return seen


def evaluations(monkeypatch: pytest.MonkeyPatch, scores: Sequence[float]) -> None:
    """Makes up what the global model scores on the server's examples, interval by interval."""
    made_up: Iterator[float] = iter(scores)
    monkeypatch.setattr(pr_fl, "accuracy", lambda *_: next(made_up))


# ---------------------------------------------------------------------------------- encrypted and in the clear


def test_encrypted_it_is_its_twin_in_the_clear(setup: Federation, instant: Calibration) -> None:
    hidden, clear = (played(system(setup, kind, instant), 4) for kind in (MaskIndexed, FixedPoint))
    for (one, at), (other, there) in zip(hidden, clear, strict=True):
        assert one.difference == 0
        assert other.difference is None
        assert (one.accuracy, one.finished_at, one.details) == (other.accuracy, other.finished_at, other.details)
        assert same(at.state, there.state)
    assert hidden[-1][0].details["mean density"] < 1
    assert "no encryption" in clear[0][0].verdict
    assert "no encryption" not in hidden[0][0].verdict


def test_recovery_included(setup: Federation, instant: Calibration, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for kind in (MaskIndexed, FixedPoint):
        evaluations(monkeypatch, [0.5, 0.4, 0.3, 0.2, 0.1])
        outcomes = played(system(setup, kind, instant), 5)
        assert [one.details["recoveries"] for one, _ in outcomes] == [0, 0, 1, 1, 2]
        ends.append(outcomes[-1])
    assert ends[0][0].difference == 0
    assert same(ends[0][1].state, ends[1][1].state)


@pytest.mark.parametrize("scores", [[0.1, 0.2, 0.3, 0.4], [0.5, 0.4, 0.3, 0.2]])
def test_a_buffer_of_updates_is_the_running_sum_up_to_rounding(
    setup: Federation, instant: Calibration, monkeypatch: pytest.MonkeyPatch, scores: list[float]
) -> None:
    settings = replace(SOON, prune=False, contribution="update", batch=BATCH, decay=0.7, server_rate=0.5)
    ends = []
    for kind in (FloatMean, FixedPoint):
        evaluations(monkeypatch, scores)
        # As many levels as make a coordinate four bytes, so that both have the same clock.
        ends.append(played(system(setup, kind, instant, settings, levels=2**26), 4))
    for (one, at), (other, there) in zip(*ends, strict=True):
        assert one.finished_at == other.finished_at
        assert one.details == other.details
        np.testing.assert_allclose(vector(setup, at), vector(setup, there), atol=2e-6)
    assert ends[0][-1][0].details["recoveries"] == (scores[0] > scores[1])
    assert not np.allclose(vector(setup, ends[0][-1][1]), vector(setup, ends[0][0][1]), atol=1e-3)


def test_every_session_has_secrets_of_its_own(
    setup: Federation, instant: Calibration, sessions: list[BoundArguments], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a restoring, after lost sessions, and where the importance is summed."""
    evaluations(monkeypatch, [0.5, 0.4, 0.3, 0.2, 0.1])
    lost = dict.fromkeys(setup.fleet.names, "AdvertiseKeys")
    outcomes = played(system(setup, MaskIndexed, instant), 5, dropouts={1: lost})
    assert outcomes[1][0].details["lost joins"] == 2
    assert outcomes[-1][0].details["recoveries"] == 2
    seeds = [session.arguments["seed"] for session in sessions]
    assert len(seeds) > 10 + 3
    assert None not in seeds
    assert len(set(seeds)) == len(seeds)


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("kind", [MaskIndexed, FixedPoint])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (PrFlSettings(staleness="poly"), "'poly' cannot be re-weighted from one running sum"),
        (PrFlSettings(staleness="hinge"), "'hinge' cannot be re-weighted from one running sum"),
        (PrFlSettings(contribution="model"), "two flushes of models differ by one; use 'update' or 'float'"),
        (PrFlSettings(buffer=False), "buffer cannot be turned off under encryption"),
        (PrFlSettings(batch=4), r"a flush of 4 clients is smaller than 5 \(min_cohort 3"),
        (PrFlSettings(batch=1), "a flush of 1 clients"),
    ],
)
def test_what_encryption_does_not_allow_is_refused_by_the_setting_to_change(
    setup: Federation, kind: type[Aggregator], settings: PrFlSettings, message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        system(setup, kind, Calibration(), settings)


def test_an_active_server_is_refused_since_nothing_binds_where_trips_start(setup: Federation) -> None:
    with pytest.raises(ParameterError, match=r"adversary 'active'.*use 'semi-honest'"):
        system(setup, MaskIndexed, Calibration(), adversary="active")


def test_too_few_clients_for_any_flush_are_refused(setup: Federation) -> None:
    with pytest.raises(ParameterError, match=r"8 clients are too few for min_cohort 6 \+ corrupt 1 \+ max_dropouts 2"):
        system(setup, MaskIndexed, Calibration(), min_cohort=6, corrupt=1)
    with pytest.raises(ParameterError, match=r"min_cohort 8 \+ corrupt 0 \+ a third that may drop out: lower one"):
        system(setup, MaskIndexed, Calibration(), min_cohort=8, max_dropouts=None)


@pytest.mark.parametrize("kind", [FloatMean, FixedPoint])
def test_a_batch_of_more_than_all_clients_is_refused(setup: Federation, kind: type[Aggregator]) -> None:
    assert system(setup, kind, Calibration(), PrFlSettings(batch=8))._batch == 8
    with pytest.raises(ParameterError, match="batch 9 is more than the 8 clients"):
        system(setup, kind, Calibration(), PrFlSettings(batch=9))


def test_the_server_needs_examples_of_its_own(federation: Federation) -> None:
    with pytest.raises(ParameterError, match="validation"):
        PrFl(federation, FloatMean(federation.units.layout, "mask-indexed"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank_every": 0}, "rank_every"),
        ({"batch": 0}, "batch"),
        ({"server_rate": 0.0}, "server_rate"),
        ({"server_rate": 1.1}, "server_rate"),
        ({"least_density": 0.0}, "^least_density must be"),
        ({"least_density": 1.5}, "^least_density must be"),
        ({"patience": 0}, "^patience must be at least 1, not 0"),
        ({"increment": 1.5}, "^increment must be"),
        ({"contribution": "modl"}, "contribution must be one of 'model', 'update' or None, not 'modl'"),
        ({"decay": 1.5}, "decay"),
        ({"interval": 0}, "interval"),
    ],
)
def test_settings_outside_their_domain_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        PrFlSettings(**wrong)


@pytest.mark.parametrize(
    ("params", "batch"),
    [
        (Params(min_cohort=3, max_dropouts=2), 5),
        (Params(min_cohort=2, max_dropouts=0), 2),
        (Params(min_cohort=3), 4),  # a third of four is one
        (Params(min_cohort=3, corrupt=1), 5),
    ],
)
def test_the_smallest_batch_is_the_first_that_a_running_sum_takes(
    setup: Federation, instant: Calibration, params: Params, batch: int
) -> None:
    assert smallest_batch(params, 8) == batch
    aggregator = FixedPoint(setup.units.layout, params, "mask-indexed")
    PrFl(setup, aggregator, replace(SOON, batch=batch), calibration=instant)
    with pytest.raises(ParameterError, match="flush"):
        PrFl(setup, aggregator, replace(SOON, batch=batch - 1), calibration=instant)


# ---------------------------------------------------------------------------------- masks and densities


@pytest.mark.parametrize("kind", [FloatMean, FixedPoint])
def test_masks_are_nested_somebody_holds_everything_and_slow_links_hold_less(
    setup: Federation, instant: Calibration, kind: type[Aggregator]
) -> None:
    one = system(setup, kind, instant, PRUNED)
    for outcome, _ in played(one, 3):
        masks = sorted((one.mask_of(client) for client in setup.fleet.names), key=lambda mask: mask.density)
        assert all(not (small.coordinates & ~large.coordinates).any() for small, large in pairwise(masks))
        assert masks[-1].kind == "full"
        assert 0.1 <= outcome.details["least density"] <= outcome.details["mean density"] <= 1
    assert all(one.mask_of(device.name).density < 0.7 for device in setup.fleet.stragglers)
    assert max(one.densities.values(), key=lambda state: state.density).density == 1


@pytest.mark.parametrize("kind", [FloatMean, FixedPoint])
def test_what_a_mask_leaves_out_is_zero_from_start_to_end_and_nothing_is_contributed_there(
    setup: Federation,
    instant: Calibration,
    kind: type[Aggregator],
    arrivals: list[Arrival],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained: list[NDArray[np.float32]] = []
    original = Training.train

    def watched(self: Training, model: nn.Module, *rest: Any) -> None:
        original(self, model, *rest)
        trained.append(vector_of(setup.units.layout, model.state_dict()))

    monkeypatch.setattr(Training, "train", watched)
    played(system(setup, kind, instant, PRUNED), 3)
    sparse = [pair for pair in zip(arrivals, trained, strict=True) if pair[0].flight.mask.kind != "full"]
    assert len(sparse) > 3
    for one, end in sparse:
        outside = ~one.flight.mask.coordinates
        assert outside.any()
        assert not end[outside].any()
        assert not one.flight.start[outside].any()
        assert not one.update[outside].any()
        assert one.update[~outside].any()


@pytest.mark.parametrize(("kind", "dense"), [(FloatMean, 1), (FixedPoint, BATCH)])
def test_as_many_hold_everything_as_release_what_nobody_else_holds(
    setup: Federation, instant: Calibration, kind: type[Aggregator], dense: int
) -> None:
    # Links that all differ, so that everybody but the fastest lags behind somebody.
    devices = [
        replace(device, upload_bytes_per_second=4e3 / number, download_bytes_per_second=16e3 / number)
        for number, device in enumerate(setup.fleet.devices, 1)
    ]
    own = replace(setup, fleet=replace(setup.fleet, devices=tuple(devices)))
    one = system(own, kind, instant, replace(PRUNED, interval=40))
    played(one, 3)
    assert sum(one.mask_of(client).kind == "full" for client in setup.fleet.names) == dense


@pytest.mark.parametrize("kind", [FloatMean, FixedPoint])
def test_the_ranking_is_by_the_mean_of_what_clients_have_none_of_which_is_clipped(
    setup: Federation, instant: Calibration, kind: type[Aggregator]
) -> None:
    one = system(setup, kind, instant, replace(PRUNED, interval=40))
    played(one, 1)
    model = one.module_of(one.model)
    squares = open_averages({client: one._squares(model, client) for client in setup.fleet.names})
    importance = one._importance
    assert importance is not None
    np.testing.assert_allclose(importance, vector_of(setup.units.layout, squares.mean), rtol=1e-5, atol=1e-6)
    assert importance.max() > 1e-4


def test_every_client_the_server_and_every_interval_has_a_batch_of_its_own_for_the_ranking(
    setup: Federation, instant: Calibration
) -> None:
    alike = setup.examples["fast-01"]
    own = replace(setup, examples=dict.fromkeys(setup.examples, alike), validation=alike)
    one = system(own, FloatMean, instant)
    found: set[bytes] = set()
    for one._intervals in (1, 2):
        found.update(
            vector_of(own.units.layout, one._squares(own.model, client)).tobytes()
            for client in (*own.fleet.names, None)
        )
    assert len(found) == 2 * 9


def test_coordinates_are_ranked_when_something_is_pruned_and_then_at_intervals(
    setup: Federation, instant: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked: list[int] = []
    original = PrFl._charge

    def watched(self: PrFl, averaged: Any) -> None:
        ranked.append(self._intervals)
        original(self, averaged)

    monkeypatch.setattr(PrFl, "_charge", watched)
    played(system(setup, FloatMean, instant, replace(PRUNED, rank_every=3)), 7)
    assert ranked == [1, 3, 6]


def test_a_mask_changes_on_the_ground_and_not_in_flight(
    setup: Federation, instant: Calibration, arrivals: list[Arrival]
) -> None:
    one = system(setup, FloatMean, instant, PRUNED)
    ((_, checkpoint),) = played(one, 1)
    before = dict(one.flights)
    assert one.mask_of("straggler-01").kind != "full"
    assert before["straggler-01"].mask.kind == "full"
    arrivals.clear()
    played(one, 1, start=checkpoint)
    back = next(arrival for arrival in arrivals if arrival.flight.client == "straggler-01")
    assert back.flight.mask.kind == "full"
    assert back.flight.trip == before["straggler-01"].trip


def test_a_trip_under_another_density_says_nothing_of_this_one(setup: Federation, instant: Calibration) -> None:
    one = system(setup, FloatMean, instant, PRUNED)
    played(one, 1)
    name = "straggler-01"
    assert one.densities[name].times == ()
    one._observe(one.flights[name])
    assert one.densities[name].times == ()
    one._depart([name])
    one._observe(one.flights[name])
    assert one.densities[name].times == (one.flights[name].time.network,)


def test_without_pruning_everything_is_held_and_nobody_tells_its_gradients(
    setup: Federation, instant: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pr_fl, "squared_gradients", None)
    for outcome, _ in played(system(setup, FixedPoint, instant, replace(SOON, prune=False)), 3):
        assert outcome.details["least density"] == 1
        assert outcome.withheld_share == outcome.details["missing share"] == 0


def test_a_client_whose_mask_shrank_declares_and_sends_what_it_holds_now(
    setup: Federation, instant: Calibration
) -> None:
    one, whole = system(setup, FixedPoint, instant), Mask.full(setup.units.layout)
    played(one, 1)
    name = next(name for name in setup.fleet.names if one.mask_of(name).kind != "full")
    mask = one.mask_of(name)
    assert one.upload_of(name, mask) == one.joining.upload_of(mask) < one.joining.upload_of(whole)
    assert system(setup, FloatMean, instant).upload_of(name, mask) == 4 * mask.coordinates.sum()


def test_a_coordinate_with_too_few_holders_is_withheld_and_its_loss_is_told(
    setup: Federation, instant: Calibration
) -> None:
    settings = replace(SOON, least_density=0.05, batch=BATCH, recover=False)
    outcomes = played(system(setup, FixedPoint, instant, settings), 12)
    assert outcomes[0][0].withheld_share == 0
    assert max(outcome.withheld_share for outcome, _ in outcomes) > 0


# ---------------------------------------------------------------------------------- the way back


@pytest.mark.parametrize("kind", [FloatMean, FixedPoint])
def test_when_evaluations_stop_improving_the_best_model_comes_back_with_all_that_was_joined(
    setup: Federation, instant: Calibration, monkeypatch: pytest.MonkeyPatch, kind: type[Aggregator]
) -> None:
    evaluations(monkeypatch, [0.4, 0.5, 0.45, 0.5, 0.1])
    one = system(setup, kind, instant, replace(SOON, least_density=0.25, increment=0.5))
    states = []
    for outcome, checkpoint in one.play(5):
        assert isinstance(outcome, RoundResult)
        states.append((outcome, checkpoint, copy.deepcopy(one.joining.remember())))
    details = [outcome.details for outcome, _, _ in states]
    assert [one["recoveries"] for one in details] == [0, 0, 0, 1, 1]
    assert [one["density floor"] for one in details] == [0.25, 0.25, 0.25, 0.75, 0.75]
    assert details[2]["least density"] < 0.75 <= details[3]["least density"]
    assert same(states[3][1].state, states[1][1].state)
    assert same(states[3][2], states[1][2])
    assert not same(states[2][1].state, states[1][1].state)
    assert not same(states[4][1].state, states[1][1].state)
    # Time and versions go on.
    assert states[3][0].finished_at > states[2][0].finished_at
    assert details[3]["versions"] > details[2]["versions"]


def test_with_the_floor_times_under_smaller_densities_are_forgotten(
    setup: Federation, instant: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluations(monkeypatch, [0.5, 0.6, 0.4, 0.3])
    one = system(setup, FloatMean, instant, replace(PRUNED, recover=True, increment=0.8))
    *_, (last, _) = played(one, 4)
    assert last.details["density floor"] == last.details["least density"] == 0.9
    assert [one.densities[device.name].times for device in setup.fleet.stragglers] == [(), ()]


def test_trips_under_way_begin_anew_from_the_best_model(
    setup: Federation, instant: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluations(monkeypatch, [0.5, 0.4, 0.3, 0.6])
    one = system(setup, FloatMean, instant)
    outcomes = []
    trips: dict[Any, int] = {}
    for outcome, checkpoint in one.play(3):
        outcomes.append((outcome, checkpoint))
        trips = trips if len(outcomes) == 3 else {client: flight.trip for client, flight in one.flights.items()}
    best = vector(setup, outcomes[0][1])
    arrived: dict[Any, int] = dict.fromkeys(trips, 0)
    for flight in one.flights.values():
        assert flight.version == one.version
        assert flight.left_at == one.now
        assert np.array_equal(flight.start, np.where(flight.mask.coordinates, best, 0))
        assert flight.mask == one.mask_of(flight.client)
        arrived[flight.client] = flight.trip - trips[flight.client]
    assert sum(arrived.values()) == 10  # the arrivals of the interval: what was given up is no trip


def test_in_a_buffer_that_comes_back_contributions_are_as_old_as_they_were(
    setup: Federation, instant: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the first arrival afterwards would outweigh them all."""
    evaluations(monkeypatch, [0.5, 0.4, 0.3, 0.2])
    one = system(setup, FloatMean, instant, replace(SOON, decay=0.5, prune=False, interval=8))
    outcomes = played(one, 3)
    memory = one.joining.remember()
    assert memory["number"] == 8 < outcomes[-1][0].details["versions"]
    flights = list(one.due()[0])
    joined = one.join([one._fly(flight) for flight in flights], {})
    rest = [own for client, own in memory["buffer"].items() if client != flights[0].client]
    weights = [0.5 ** (8 - own["version"]) for own in rest]
    after = one.joining.remember()["buffer"][flights[0].client]["values"].double()
    expected = sum((weight * own["values"].double() for weight, own in zip(weights, rest, strict=True)), after)
    np.testing.assert_allclose(joined.vector, (expected / (1 + sum(weights))).numpy(), atol=1e-6)


def test_after_a_restoring_the_servers_sum_is_still_that_of_what_its_clients_remember(
    setup: Federation, instant: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluations(monkeypatch, [0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    one, decay = system(setup, FixedPoint, instant), SOON.decay
    for number, (outcome, _) in enumerate(played(one, 6)):
        assert outcome.details["recoveries"] == max(0, number // 2)
    memory = one.joining.remember()
    total, last = memory["sum"]["steps"], memory["sum"]["number"] - 1
    assert last + 1 < one.version
    own = [
        decay ** (last - client["flush"]) * client["steps"]
        for client in memory["contributors"].values()
        if client["flush"] >= 0
    ]
    assert len(own) == len(setup.fleet.names)
    torch.testing.assert_close(total, sum(own, torch.zeros_like(total)), rtol=0, atol=1e-6)
    assert total.any()


def test_without_recovery_nothing_comes_back(
    setup: Federation, instant: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluations(monkeypatch, [0.5, 0.4, 0.3, 0.2])
    outcomes = played(system(setup, FloatMean, instant, replace(SOON, recover=False)), 4)
    assert outcomes[-1][0].details["recoveries"] == 0
    assert outcomes[-1][0].details["density floor"] == 0.1


def test_a_result_judges_the_model_that_goes_on(
    setup: Federation, instant: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluations(monkeypatch, [0.5, 0.4, 0.3])
    outcomes = played(system(setup, FloatMean, instant), 3)
    assert outcomes[2][0].accuracy == outcomes[0][0].accuracy


# ---------------------------------------------------------------------------------- what is lost


@pytest.mark.parametrize("kind", [MaskIndexed, FixedPoint])
def test_a_lost_flush_leaves_the_model_and_what_was_joined(
    setup: Federation, instant: Calibration, kind: type[Aggregator]
) -> None:
    one = system(setup, kind, instant, replace(SOON, prune=False))
    lost = dict.fromkeys(setup.fleet.names, "AdvertiseKeys")
    ((first, before),) = played(one, 1)
    joined = copy.deepcopy(one.joining.remember())
    ((outcome, after),) = played(one, 1, start=before, dropouts={1: lost})
    assert same(before.state, after.state)
    assert same(joined, one.joining.remember())
    assert outcome.details["versions"] == first.details["versions"]
    assert outcome.details["lost joins"] == 2
    assert outcome.survivors == ()
    assert "nothing was learned" in outcome.verdict
    assert outcome.finished_at > first.finished_at
    assert all(client.upload_bytes > 0 for client in outcome.clients.values())


@pytest.mark.parametrize("kind", [MaskIndexed, FixedPoint])
def test_an_interval_tells_of_its_lost_flushes_and_of_every_ranking(
    setup: Federation, instant: Calibration, monkeypatch: pytest.MonkeyPatch, kind: type[Aggregator]
) -> None:
    flushes: list[int] = []

    def breaking(self: PrFl, arrivals: Any, dropouts: Any) -> Joined:
        flushes.append(len(arrivals))
        if len(flushes) == 1:
            raise AbortError("the first one broke off")
        return join(self, arrivals, dropouts)

    join = PrFl.join
    monkeypatch.setattr(PrFl, "join", breaking)
    outcomes = played(system(setup, kind, instant, replace(SOON, rank_every=2, recover=False)), 4)
    verdicts = [outcome.verdict for outcome, _ in outcomes]
    assert [one.count("nothing was learned: the first one broke off") for one in verdicts] == [1, 0, 0, 0]
    assert outcomes[0][0].details["mean density"] < 1
    # There is none before the first, and then there is a new one in every second interval.
    assert [one.count("Besides: of squared gradients, ") for one in verdicts] == [1, 1, 0, 1]


def test_who_drops_out_of_a_flush_does_not_count_in_it_and_comes_back(setup: Federation, instant: Calibration) -> None:
    one = system(setup, MaskIndexed, instant, replace(SOON, interval=BATCH, batch=BATCH))
    outcomes = played(one, 3, dropouts={0: {"fast-02": "ShareKeys", "fast-03": "MaskedInput"}})
    assert outcomes[0][0].survivors == ("fast-01", "fast-03", "fast-04", "fast-05")
    assert set(outcomes[0][0].clients) == {"fast-01", "fast-02", "fast-03", "fast-04", "fast-05"}
    assert any("fast-02" in outcome.survivors for outcome, _ in outcomes[1:])
    assert {outcome.difference for outcome, _ in outcomes} == {0}


# ---------------------------------------------------------------------------------- what it is charged


def test_a_batch_that_leaves_together_costs_the_server_less_than_a_model_each(
    setup: Federation, instant: Calibration
) -> None:
    one, whole = system(setup, FixedPoint, instant), 4 * setup.units.layout.size
    (first, _), (second, _) = played(one, 2)
    # All leave at the start, seven after each of two flushes, and all fetch what is ranked: of everything once each.
    assert first.details["server uploads MB"] == pytest.approx(4 * whole / 1e6)
    masks: dict[Client, Mask] = {client: one.mask_of(client) for client in setup.fleet.names}
    assert any(mask.kind != "full" for mask in masks.values())
    fetched, served = one.serve(masks)
    assert served < sum(fetched.values())
    assert served <= whole + len(masks) * whole / 32
    assert fetched["straggler-01"] < whole
    assert second.details["server uploads MB"] < 3 * 1.1 * whole / 1e6


@pytest.mark.parametrize("kind", [FloatMean, FixedPoint, MaskIndexed])
def test_what_clients_tell_of_their_gradients_is_charged_to_the_trip_that_they_are_on(
    setup: Federation, instant: Calibration, kind: type[Aggregator], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, whole = system(setup, kind, instant, replace(SOON, interval=BATCH, recover=False)), 4 * setup.units.layout.size
    before: dict[Any, Any] = {}
    original = PrFl._charge

    def watched(self: PrFl, averaged: Any) -> None:
        before.update(self.flights)
        original(self, averaged)

    monkeypatch.setattr(PrFl, "_charge", watched)
    rounds = played(one, 1)
    while not before:
        rounds += played(one, 1, start=rounds[-1][1])
    for client, flight in one.flights.items():
        device, own = setup.fleet.device(client), before[client]
        links = whole / device.upload_bytes_per_second + whole / device.download_bytes_per_second
        assert flight.side_seconds == pytest.approx(links)
        assert flight.time.compute == pytest.approx(own.time.compute * (1 + 1 / setup.training.steps))
        assert flight.time.network == own.time.network
        assert flight.back_at > own.back_at
        assert flight.side_bytes >= whole
        assert (flight.side_bytes > whole) == (kind is MaskIndexed)
        assert (flight.fetched_bytes > own.fetched_bytes + whole) == (kind is MaskIndexed)
        assert flight.fetched_bytes >= own.fetched_bytes + whole
        assert flight.side_flops == one.measuring.costs.of(setup.model).step_flops
    charged = dict(one.flights)
    ((outcome, _),) = played(one, 1, start=rounds[-1][1])
    for name, client in outcome.clients.items():
        first = charged[name]
        assert client.upload_bytes >= first.sent_bytes + first.side_bytes
        assert client.seconds.upload > first.time.upload
        steps = setup.training.steps * (one.flights[name].trip - first.trip) + 1
        assert client.flops == steps * first.side_flops
        assert client.joules == pytest.approx(client.flops / setup.fleet.device(name).flops_per_second * setup.watts)


def test_what_is_ranked_is_fetched_over_the_servers_uplink_when_that_is_free(
    setup: Federation, instant: Calibration
) -> None:
    whole = 4 * setup.units.layout.size
    links = ServerLinks(upload_bytes_per_second=whole / 2, download_bytes_per_second=math.inf)
    own = replace(setup, fleet=replace(setup.fleet, server=links))
    one = system(own, FloatMean, instant, replace(SOON, prune=False))
    played(one, 1)
    one._uplink_free_at, sent, before = one.now + 3, one._served_bytes, dict(one.flights)
    vectors: dict[Client, State] = {client: {"one": torch.ones(whole // 4)} for client in setup.fleet.names}
    one._charge(open_averages(vectors))
    assert one._uplink_free_at == one.now + 3 + 2
    assert one._served_bytes == sent + whole
    for client, flight in one.flights.items():
        device = setup.fleet.device(client)
        # The devices fetch everything in a tenth of a second or so; the server takes two.
        assert whole / device.download_bytes_per_second < 2
        assert flight.side_seconds == pytest.approx(3 + 2 + whole / device.upload_bytes_per_second)
        assert flight.time.network == before[client].time.network


def test_keys_and_shares_are_counted_on_both_links(setup: Federation, instant: Calibration) -> None:
    settings = replace(SOON, prune=False)
    hidden, clear = (played(system(setup, kind, instant, settings), 1)[0][0] for kind in (MaskIndexed, FixedPoint))
    for name, client in hidden.clients.items():
        assert client.upload_bytes > clear.clients[name].upload_bytes
        assert client.download_bytes > clear.clients[name].download_bytes
    assert hidden.finished_at == clear.finished_at


class Seconds(Calibration):
    """A second for a session, and a millisecond for a coordinate of a client."""

    def time(self, mode: Mode, clients: int, params: Params) -> SecureTime:
        return SecureTime(
            mode=mode,
            clients=clients,
            settings=params.digest.hex(),
            client=1.0,
            client_per_coordinate=1e-3,
            server=0.0,
            server_per_coordinate=0.0,
        )


def test_secure_aggregation_takes_its_calibrated_time_and_decides_nothing(
    setup: Federation, instant: Calibration
) -> None:
    slow, quick = (played(system(setup, FixedPoint, one), 3) for one in (Seconds(), instant))
    session = 1 + setup.units.layout.size * 1e-3
    assert same(slow[-1][1].state, quick[-1][1].state)
    # Two flushes, in which everybody holds everything, and the first sum of gradients.
    assert slow[0][0].finished_at - quick[0][0].finished_at == pytest.approx(3 * session)
    assert slow[0][0].seconds == slow[0][0].finished_at


# ---------------------------------------------------------------------------------- what it is made of


def test_models_replace_in_a_buffer_and_all_else_is_applied_by_the_share_of_a_batch(setup: Federation) -> None:
    rates = {
        PrFlSettings(): 1,
        PrFlSettings(buffer=False): 1 / 8,
        PrFlSettings(contribution="update"): 1 / 8,
        PrFlSettings(contribution="update", batch=4): 4 / 8,
        PrFlSettings(server_rate=0.3): 0.3,
    }
    for settings, rate in rates.items():
        assert system(setup, FloatMean, Calibration(), settings)._server_rate == rate


def test_notes_say_how_arrivals_are_joined(setup: Federation, instant: Calibration) -> None:
    assert system(setup, FloatMean, instant).notes == (
        "the server buffers every client's model, weighted by geometric",
    )
    assert system(setup, MaskIndexed, instant).notes == (
        "the server keeps one sum of updates, into which 7 arrivals are flushed together",
    )


def test_it_learns(setup: Federation, instant: Calibration) -> None:
    for kind in (FloatMean, FixedPoint):
        result, _ = system(setup, kind, instant, replace(PRUNED, interval=40)).run(3)
        assert result.rounds[-1].accuracy > judged(setup.model, setup.test) + 0.2
        assert result.rounds[-1].details["least density"] < 0.6


def test_on_the_published_links_slow_clients_come_as_often_as_fast_ones_sooner_or_later(
    setup: Federation, instant: Calibration
) -> None:
    fleet = profile("published-links").fleet(8, np.random.default_rng(0))
    # A model of some kilobytes on links a thousand times slower.
    slower = [
        replace(
            device,
            upload_bytes_per_second=device.upload_bytes_per_second / 1000,
            download_bytes_per_second=device.download_bytes_per_second / 1000,
            flops_per_second=1e7,
        )
        for device in fleet.devices
    ]
    own = replace(
        setup,
        fleet=replace(fleet, devices=tuple(slower)),
        examples=dict(zip(fleet.names, setup.examples.values(), strict=True)),
        training=replace(setup.training, steps=1),
    )
    shares = []
    for prune in (True, False):
        one = system(own, FloatMean, instant, replace(PRUNED, interval=40, rank_every=9, prune=prune))
        counts = [[flight.trip for flight in one.flights.values()] for _ in one.play(8)]
        recent = [after - before for before, after in zip(counts[-3], counts[-1], strict=True)]
        shares.append(min(recent) / max(recent))
    assert shares[0] > 2 * shares[1]


def test_a_system_knows_its_running_sum_by_the_agreement_of_its_settings(
    setup: Federation, instant: Calibration
) -> None:
    one = system(setup, FixedPoint, instant, replace(SOON, decay=0.5))
    own = one.joining._sum  # type: ignore[attr-defined]
    assert isinstance(own, RunningSum)
    assert own.agreement.decay == 0.5
    constant = system(setup, FixedPoint, instant, replace(SOON, staleness="const"))
    assert constant.joining._sum.agreement.decay == 1  # type: ignore[attr-defined]
