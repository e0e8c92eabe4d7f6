"""Asynchronous systems by hand: who arrives when and how stale, what is joined, and that a run may stop and go on."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest
import torch

from protocols.aggregators import FixedPoint, FloatMean, MaskIndexed
from protocols.asynchronous import AsynchronousSettings, StaleSettings
from protocols.baselines.asynchronous import FedAsync, FedAsyncSettings, FedFix, FedFixSettings
from protocols.experiments.folder import RunFolder
from protocols.pr_fl import PrFl, PrFlSettings
from protocols.randomness import number
from protocols.results import RoundResult
from protocols.simulation.clock import TrainingCosts
from protocols.simulation.devices import Device, Fleet, ServerLinks
from protocols.training import Examples, accuracy
from protocols.vectors import vector_of
from secagg.errors import ParameterError
from secagg.ledger import Ledger
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from protocols.aggregators import Aggregator, Client, Dropouts
    from protocols.arrivals.flight import Arrival
    from protocols.asynchronous import AsynchronousSystem, Joined
    from protocols.federation import Checkpoint, Federation
    from protocols.results import Outcome
    from protocols.simulation.calibration import Calibration

PARAMS = Params(min_cohort=3, max_dropouts=2, value_range=4.0)
PAIRS = Params(min_cohort=2, max_dropouts=0, value_range=4.0)
"""Sessions of two clients."""

WHOLE = PrFlSettings(interval=1, prune=False, recover=False)

Event: TypeAlias = tuple[float, list[tuple["Client", int]]]
"""When something was joined, and who came with what staleness."""


def timed(
    federation: Federation,
    trips: dict[str, tuple[float, float, float]],
    *,
    model_bytes: int,
    vector_bytes: int,
    server: tuple[float, float] = (0, 0),
) -> Federation:
    """Devices that take so many seconds to download a model, to train, and to upload a vector.

    ``server``: seconds in which the server sends a model, and receives a vector.
    """
    flops = federation.training.steps * TrainingCosts(federation.batch).of(federation.model).step_flops
    devices = tuple(
        Device(
            name=name,
            flops_per_second=flops / train,
            upload_bytes_per_second=vector_bytes / up,
            download_bytes_per_second=model_bytes / down,
        )
        for name, (down, train, up) in trips.items()
    )
    sends, receives = (1 / seconds if seconds else math.inf for seconds in server)
    links = ServerLinks(upload_bytes_per_second=model_bytes * sends, download_bytes_per_second=vector_bytes * receives)
    own = list(federation.examples.values())
    return replace(federation, fleet=Fleet(devices, links), examples=dict(zip(trips, own, strict=False)))


def judged(federation: Federation) -> Federation:
    """With examples of the server's own."""
    half = len(federation.test) // 2
    return replace(federation, validation=federation.test.subset(range(half)))


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """All that was joined."""
    seen: list[Event] = []
    for kind in (FedAsync, FedFix, PrFl):

        def watched(
            self: AsynchronousSystem, arrivals: Sequence[Arrival], dropouts: Dropouts, join: Any = kind.join
        ) -> Joined:
            seen.append((self.now, [(one.flight.client, self.version - one.flight.version) for one in arrivals]))
            joined: Joined = join(self, arrivals, dropouts)
            return joined

        monkeypatch.setattr(kind, "join", watched)
    return seen


def play(system: AsynchronousSystem, intervals: int) -> list[Outcome]:
    return [outcome for outcome, _ in system.play(intervals)]


def told(events: Sequence[Event]) -> list[Event]:
    """Times without what rounding left of them."""
    return [(round(at, 9), who) for at, who in events]


# ---------------------------------------------------------------------------------- the clock


def floats(federation: Federation) -> FloatMean:
    return FloatMean(federation.units.layout, "mask-indexed")


def clocked(
    federation: Federation,
    trips: dict[str, tuple[float, float, float]],
    server: tuple[float, float] = (0, 0),
) -> Federation:
    """``timed``, for vectors of floats."""
    whole = 4 * federation.units.layout.size
    return timed(federation, trips, model_bytes=whole, vector_bytes=whole, server=server)


def test_whoever_is_back_first_is_joined_first_and_stale_by_the_versions_in_between(
    federation: Federation, instant: Calibration, events: list[Event]
) -> None:
    setup = clocked(federation, {"a": (0.5, 1.5, 1), "b": (2, 1, 2)})
    play(FedAsync(setup, floats(setup), FedAsyncSettings(interval=6), calibration=instant), 1)
    # a takes 3 seconds, b 5: b at 10 had left at 5 with version 2, and by then there is version 4.
    assert told(events) == [
        (3, [("a", 0)]),
        (5, [("b", 1)]),
        (6, [("a", 1)]),
        (9, [("a", 0)]),
        (10, [("b", 2)]),
        (12, [("a", 1)]),
    ]


def test_of_two_that_are_back_at_once_the_first_of_the_fleet_is_first(
    federation: Federation, instant: Calibration, events: list[Event]
) -> None:
    setup = clocked(federation, {"a": (2, 1, 1), "b": (1, 1, 2), "c": (1, 1, 1)})
    play(FedAsync(setup, floats(setup), FedAsyncSettings(interval=3), calibration=instant), 1)
    assert told(events) == [(3, [("c", 0)]), (4, [("a", 1)]), (4, [("b", 2)])]


def test_downloads_share_the_servers_uplink_and_wait_for_those_before(
    federation: Federation, instant: Calibration, events: list[Event]
) -> None:
    # The server sends a model a second. Both leave at 0: two seconds. a is back at 4 and has the uplink to itself
    # until 5, so b, back at 4.5, waits for half a second.
    setup = clocked(federation, {"a": (0.25, 1, 1), "b": (0.25, 1.5, 1)}, (1, 0))
    system = FedAsync(setup, floats(setup), FedAsyncSettings(interval=2), calibration=instant)
    play(system, 2)
    assert told(events) == [(4, [("a", 0)]), (4.5, [("b", 1)]), (7, [("a", 1)]), (8.5, [("b", 1)])]
    assert events[3][0] - 4.5 == pytest.approx(0.5 + 1 + 1.5 + 1)


def test_a_run_that_goes_on_still_waits_for_the_servers_uplink(
    federation: Federation, instant: Calibration, events: list[Event]
) -> None:
    setup = clocked(federation, {"a": (0.25, 1, 1), "b": (0.25, 1.5, 1)}, (1, 0))
    make = partial(FedAsync, setup, floats(setup), FedAsyncSettings(interval=1), calibration=instant)
    play(make(), 5)
    whole, start = list(events), None
    events.clear()
    for _ in range(5):
        ((_, start),) = make().play(1, start)
    assert events == whole


def test_an_upload_is_no_faster_than_the_servers_downlink(
    federation: Federation, instant: Calibration, events: list[Event]
) -> None:
    setup = clocked(federation, {"a": (0.5, 0.5, 1), "b": (1, 1, 1)}, (0, 2))
    play(FedAsync(setup, floats(setup), FedAsyncSettings(interval=2), calibration=instant), 1)
    assert told(events) == [(3, [("a", 0)]), (4, [("b", 1)])]


def flushing(federation: Federation, trips: dict[str, tuple[float, float, float]], receives: float = 0) -> Federation:
    """``timed``, for the sessions of two that PR-FL flushes."""
    layout = federation.units.layout
    system = PrFl(judged(federation), FixedPoint(layout, PAIRS, "mask-indexed"), replace(WHOLE, batch=2))
    vector = system.upload_of("fast-01", system.mask_of("fast-01"))
    whole = 4 * layout.size
    return judged(timed(federation, trips, model_bytes=whole, vector_bytes=vector, server=(0, receives)))


def test_a_flush_takes_who_was_trained_first_and_begins_when_the_last_one_has_ended(
    federation: Federation, instant: Calibration, events: list[Event]
) -> None:
    setup = flushing(federation, {"a": (1, 1, 4), "b": (1, 2, 1), "c": (1, 3, 1), "d": (1, 3.5, 1)})
    aggregator = FixedPoint(setup.units.layout, PAIRS, "mask-indexed")
    outcomes = play(PrFl(setup, aggregator, replace(WHOLE, interval=8, batch=2), calibration=instant), 1)
    # a and b are trained at 3, and a sends until 7; c and d, trained by 4.5, wait for that.
    assert told(events) == [
        (7, [("a", 0), ("b", 0)]),
        (8, [("c", 1), ("d", 1)]),
        (14, [("a", 1), ("b", 1)]),
        (15, [("c", 1), ("d", 1)]),
    ]
    assert isinstance(outcomes[0], RoundResult)
    assert outcomes[0].finished_at == pytest.approx(15)
    assert outcomes[0].details["staleness"] == pytest.approx(6 / 8)
    assert outcomes[0].details["versions"] == 4


def test_a_batch_shares_the_servers_downlink(federation: Federation, instant: Calibration, events: list[Event]) -> None:
    setup = flushing(federation, {"a": (1, 1, 1), "b": (1, 1, 2)}, receives=1.5)
    aggregator = FixedPoint(setup.units.layout, PAIRS, "mask-indexed")
    play(PrFl(setup, aggregator, replace(WHOLE, batch=2), calibration=instant), 1)
    assert told(events) == [(5, [("a", 0), ("b", 0)])]


@pytest.mark.parametrize("batch", [2, 3])
def test_time_never_goes_back_and_everybody_gets_his_turn(
    federation: Federation, instant: Calibration, events: list[Event], batch: int
) -> None:
    generator = np.random.default_rng(batch)
    drawn = generator.uniform(0.5, 4, (7, 3)).tolist()
    trips = {f"{place}": (down, train, up) for place, (down, train, up) in enumerate(drawn)}
    setup = flushing(federation, trips)
    aggregator = FixedPoint(setup.units.layout, PAIRS, "mask-indexed")
    play(PrFl(setup, aggregator, replace(WHOLE, interval=42, batch=batch), calibration=instant), 1)
    assert all(one < other for (one, _), (other, _) in pairwise(events))
    counts = [sum(name == client for _, who in events for client, _ in who) for name in trips]
    assert min(counts) >= 3


# ---------------------------------------------------------------------------------- FedAsync and FedFix


def trained(federation: Federation, client: str, trip: int, start: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a client makes of a model on a trip."""
    model, layout = federation.model_at(federation.start()), federation.units.layout
    own = model.state_dict()
    with torch.no_grad():
        for name, values in layout.by_tensor(start).items():
            own[name].copy_(torch.tensor(values))
    seed = number(federation.seed, "training", trip, federation.fleet.number(client))
    federation.training.train(model, federation.examples[client], seed)
    return vector_of(layout, model.state_dict())


def changes(federation: Federation, clients: str, trip: int, start: NDArray[np.float32]) -> NDArray[np.float32]:
    """What clients change of a model on a trip, all together."""
    total = np.zeros_like(start)
    for client in clients:
        total += trained(federation, client, trip, start) - start
    return total


def vector_at(federation: Federation, checkpoint: Checkpoint) -> NDArray[np.float32]:
    return vector_of(federation.units.layout, checkpoint.state)


def test_fedasync_mixes_each_arrival_in_by_its_staleness(federation: Federation, instant: Calibration) -> None:
    setup = clocked(federation, {"a": (1, 1, 1), "b": (1, 2, 1)})
    system = FedAsync(setup, floats(setup), FedAsyncSettings(interval=1, mixing=0.5, exponent=1), calibration=instant)
    checkpoints = [checkpoint for _, checkpoint in system.play(3)]
    start = vector_at(setup, setup.start())
    first = start + 0.5 * (trained(setup, "a", 0, start) - start)
    second = first + 0.5 / 2 * (trained(setup, "b", 0, start) - first)  # one version stale
    third = second + 0.5 / 2 * (trained(setup, "a", 1, first) - second)
    for found, expected in zip(checkpoints, (first, second, third), strict=True):
        np.testing.assert_allclose(vector_at(setup, found), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "weight"),
    [
        (FedAsyncSettings(staleness="const", mixing=0.4), 0.4),
        (FedAsyncSettings(staleness="geometric", decay=0.5, mixing=0.4), 0.2),
        (FedAsyncSettings(staleness="hinge", grace=0, exponent=3, mixing=0.4), 0.1),
    ],
)
def test_fedasync_knows_all_kinds_of_staleness(
    federation: Federation, instant: Calibration, settings: FedAsyncSettings, weight: float
) -> None:
    setup = clocked(federation, {"a": (1, 1, 1), "b": (1, 2, 1)})
    system = FedAsync(setup, floats(setup), replace(settings, interval=1), calibration=instant)
    first, second = [vector_at(setup, checkpoint) for _, checkpoint in system.play(2)]
    start = vector_at(setup, setup.start())
    np.testing.assert_allclose(second, first + weight * (trained(setup, "b", 0, start) - first), atol=1e-6)


def test_fedfix_adds_at_every_tick_what_has_arrived_weighted_by_the_ticks_that_it_took(
    federation: Federation, instant: Calibration, events: list[Event]
) -> None:
    setup = clocked(federation, {"a": (0.5, 1, 0.5), "b": (0.5, 1, 0.5), "c": (1, 2.5, 1)})
    settings = FedFixSettings(interval=2, every=2.0, server_rate=0.5)
    checkpoints = [checkpoint for _, checkpoint in FedFix(setup, floats(setup), settings, calibration=instant).play(2)]
    # c takes 4.5 seconds, so three ticks; until then a and b come at 2 and 4.
    assert told(events) == [(2, [("a", 0), ("b", 0)]), (4, [("a", 0), ("b", 0)])]
    start = vector_at(setup, setup.start())
    first = start + 0.5 / 3 * changes(setup, "ab", 0, start)
    second = first + 0.5 / 3 * changes(setup, "ab", 1, first)
    np.testing.assert_allclose(vector_at(setup, checkpoints[0]), first, atol=1e-6)
    np.testing.assert_allclose(vector_at(setup, checkpoints[1]), second, atol=1e-6)
    _, end = FedFix(setup, floats(setup), settings, calibration=instant).run(3)
    step = changes(setup, "ab", 2, second) + 3 * changes(setup, "c", 0, start)
    np.testing.assert_allclose(vector_at(setup, end), second + 0.5 / 3 * step, atol=1e-6)


def test_fedfix_ticks_as_often_as_the_median_client_comes_back(federation: Federation, instant: Calibration) -> None:
    setup = clocked(federation, {"a": (1, 1, 1), "b": (2, 1, 2), "c": (2, 7, 1)})
    assert FedFix(setup, floats(setup), calibration=instant).every == pytest.approx(5)


def test_fedfix_passes_ticks_over_at_which_nothing_arrives(
    federation: Federation, instant: Calibration, events: list[Event]
) -> None:
    setup = clocked(federation, {"a": (1, 1, 1), "b": (1, 5, 1)})
    play(FedFix(setup, floats(setup), FedFixSettings(interval=4, every=1.0), calibration=instant), 1)
    assert told(events) == [(3, [("a", 0)]), (6, [("a", 0)]), (7, [("b", 2)]), (9, [("a", 1)])]


@pytest.mark.parametrize("seconds", [(0.1, 0.2, 0.3), (0.7, 0.1, 1.1), (1 / 3, 1 / 7, 1 / 11), (1e-3, 3e-3, 7e-3)])
def test_a_trip_that_lasts_just_a_tick_never_misses_one(
    federation: Federation, instant: Calibration, events: list[Event], seconds: tuple[float, float, float]
) -> None:
    setup = clocked(federation, {"a": seconds, "b": seconds})
    setup = replace(setup, training=replace(setup.training, steps=1))
    system = FedFix(setup, floats(setup), FedFixSettings(interval=120), calibration=instant)
    play(system, 1)
    assert [len(who) for _, who in events] == [2] * 60
    assert events[-1][0] == pytest.approx(60 * system.every)


# ---------------------------------------------------------------------------------- what results say


def test_an_interval_tells_what_every_client_did_in_it(federation: Federation, instant: Calibration) -> None:
    setup = clocked(federation, {"a": (1, 1, 1), "b": (1, 4, 2)})
    system = FedAsync(setup, floats(setup), FedAsyncSettings(interval=3), calibration=instant)
    whole = 4 * setup.units.layout.size
    (first, _), (second, end) = system.play(2)
    assert isinstance(first, RoundResult)
    assert isinstance(second, RoundResult)
    # a comes at 3, 6, 9, 12 and 15, b at 7 and 14.
    assert (first.finished_at, second.finished_at) == pytest.approx((7, 14))
    assert second.seconds == pytest.approx(7)
    assert {name: one.upload_bytes for name, one in first.clients.items()} == {"a": 2 * whole, "b": whole}
    assert {name: one.download_bytes for name, one in first.clients.items()} == {"a": 2 * whole, "b": whole}
    assert first.clients["a"].seconds.total == pytest.approx(3)
    assert first.clients["b"].seconds.total == pytest.approx(7)
    assert first.clients["a"].flops == 2 * first.clients["b"].flops
    assert first.clients["a"].joules == pytest.approx(2 * 1 * setup.watts)
    assert first.survivors == ("a", "b")
    assert first.details["server uploads MB"] == pytest.approx((2 + 3) * whole / 1e6)
    assert second.details["server uploads MB"] == pytest.approx(3 * whole / 1e6)
    assert first.details["trips of the slowest over the fastest's"] == 1 / 2
    assert first.details["lost joins"] == 0
    assert second.accuracy == accuracy(setup.model_at(end), setup.test)
    assert first.difference is None


def test_a_trip_that_is_given_up_counts_its_bytes_and_its_training_if_that_had_ended(
    federation: Federation, instant: Calibration
) -> None:
    setup = clocked(federation, {"a": (1, 1, 1), "b": (1, 1, 9), "c": (1, 2, 9)})
    system = FedAsync(setup, floats(setup), FedAsyncSettings(interval=1), calibration=instant)
    ((first, _),) = system.play(1)
    assert isinstance(first, RoundResult)
    whole, once = 4 * setup.units.layout.size, first.clients["a"].flops
    # b has trained by 2 and c by 3.
    system.now = 2.5
    system.flights = {name: replace(flight, side_bytes=7, side_flops=11) for name, flight in system.flights.items()}
    system._depart(["b", "c"], anew=True)
    assert {name: system.flights[name].side_flops for name in "bc"} == {"b": 11 + once, "c": 11}
    for name in "bc":
        flight = system.flights[name]
        assert (flight.fetched_bytes, flight.side_bytes, flight.trip) == (2 * whole, 7, 0)
    told = system._client([system.flights["b"]])
    assert (told.flops, told.download_bytes) == (11 + 2 * once, 2 * whole)
    assert told.joules == pytest.approx((2 + 11 / once) * setup.watts)  # one training takes a second
    system._depart(["b"])
    assert (system.flights["b"].side_flops, system.flights["b"].fetched_bytes) == (0, whole)


def test_who_did_not_come_back_in_an_interval_is_not_in_it(federation: Federation, instant: Calibration) -> None:
    setup = clocked(federation, {"a": (1, 1, 1), "b": (1, 40, 2)})
    (outcome,) = play(FedAsync(setup, floats(setup), FedAsyncSettings(interval=3), calibration=instant), 1)
    assert isinstance(outcome, RoundResult)
    assert set(outcome.clients) == {"a"}
    assert outcome.survivors == ("a",)


def test_a_run_begins_where_its_warm_up_ended(federation: Federation, instant: Calibration) -> None:
    setup = clocked(federation, {"a": (1, 1, 1), "b": (1, 2, 1)})
    start = replace(setup.start(), number=7, seconds=100.5)
    for system in (
        FedAsync(setup, floats(setup), FedAsyncSettings(interval=1), calibration=instant),
        FedFix(setup, floats(setup), FedFixSettings(interval=1, every=4.0), calibration=instant),
    ):
        ((outcome, after),) = system.play(1, start)
        assert isinstance(outcome, RoundResult)
        assert (outcome.number, after.number) == (7, 8)
        assert outcome.finished_at == pytest.approx(103.5 if isinstance(system, FedAsync) else 104)
        assert outcome.seconds == pytest.approx(outcome.finished_at - 100.5)


def test_fedasync_learns(federation: Federation, instant: Calibration) -> None:
    result, _ = FedAsync(federation, floats(federation), calibration=instant).run(2)
    assert result.rounds[-1].accuracy > accuracy(federation.model, federation.test) + 0.2


# ---------------------------------------------------------------------------------- stopping and going on


SOON = PrFlSettings(interval=8, rank_every=1, patience=1)
"""So that all that PR-FL does happens in a few intervals."""


def fed_async(federation: Federation, calibration: Calibration) -> AsynchronousSystem:
    return FedAsync(federation, floats(federation), FedAsyncSettings(interval=8), calibration=calibration)


def fed_fix(federation: Federation, calibration: Calibration) -> AsynchronousSystem:
    return FedFix(federation, floats(federation), FedFixSettings(interval=8), calibration=calibration)


def pr_fl(
    federation: Federation, calibration: Calibration, kind: type[Aggregator], settings: PrFlSettings = SOON
) -> AsynchronousSystem:
    layout = federation.units.layout
    aggregator: Aggregator = floats(federation)
    if kind is FixedPoint:
        aggregator = FixedPoint(layout, PARAMS, "mask-indexed")
    elif kind is MaskIndexed:
        aggregator = MaskIndexed(layout, PARAMS)
    twin = aggregator.twin if isinstance(aggregator, MaskIndexed) else None
    return PrFl(judged(federation), aggregator, settings, twin=twin, calibration=calibration)


SYSTEMS: dict[str, Callable[[Federation, Calibration], AsynchronousSystem]] = {
    "FedAsync": fed_async,
    "FedFix": fed_fix,
    "PR-FL": partial(pr_fl, kind=FloatMean, settings=replace(SOON, staleness="poly")),
    "PR-FL without a buffer": partial(pr_fl, kind=FloatMean, settings=replace(SOON, buffer=False, patience=2)),
    "PR-FL in the clear": partial(pr_fl, kind=FixedPoint),
    "PR-FL encrypted": partial(pr_fl, kind=MaskIndexed),
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_run_is_the_same_when_it_stops_after_any_interval_and_goes_on_from_its_folder(
    federation: Federation, instant: Calibration, tmp_path: Path, name: str
) -> None:
    make = partial(SYSTEMS[name], federation, instant)
    whole, ended = make().run(4)
    plan = {"system": name, "rounds": 4}
    outcomes: list[Outcome] = []
    for _ in range(4):
        folder = RunFolder(tmp_path, plan)
        ((outcome, checkpoint),) = make().play(1, folder.checkpoint)
        folder.add(outcome, checkpoint)
        outcomes.append(outcome)
    assert tuple(outcomes) == whole.rounds == RunFolder(tmp_path, plan).outcomes
    found = RunFolder(tmp_path, plan).checkpoint
    assert found is not None
    assert same(found.state, ended.state)
    assert same(found.memory, ended.memory)
    assert found.seconds == ended.seconds
    if name.startswith("PR-FL"):
        assert whole.rounds[-1].details["least density"] < 1


def test_a_system_that_ran_before_begins_anew(federation: Federation, instant: Calibration) -> None:
    for make in SYSTEMS.values():
        system = make(federation, instant)
        (first, _), (second, _) = system.run(1), system.run(1)
        assert first == second


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", SYSTEMS)
def test_there_are_no_rounds_to_draw_participants_for_or_to_end_by_a_deadline(
    federation: Federation, instant: Calibration, name: str
) -> None:
    for own in (replace(federation, participants=4), replace(federation, deadline=9.0)):
        with pytest.raises(ParameterError, match="leave participants and deadline unset"):
            SYSTEMS[name](own, instant)


def test_ledgers_are_refused(federation: Federation, instant: Calibration) -> None:
    with pytest.raises(ParameterError, match="ledgers"):
        fed_async(federation, instant).run(1, ledgers={"fast-01": Ledger()})


@pytest.mark.parametrize("kind", [FedAsync, FedFix])
def test_what_looks_at_single_arrivals_is_not_encrypted(federation: Federation, kind: Any) -> None:
    with pytest.raises(ParameterError, match="set aggregation to 'float'"):
        kind(federation, MaskIndexed(federation.units.layout, PARAMS))


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (AsynchronousSettings, {"interval": 0}, "interval"),
        (StaleSettings, {"staleness": "linear"}, "staleness kind"),
        (StaleSettings, {"decay": 0.0}, "decay"),
        (FedAsyncSettings, {"mixing": 0.0}, "mixing"),
        (FedAsyncSettings, {"mixing": 1.5}, "mixing"),
        (FedAsyncSettings, {"exponent": -1.0}, "exponent"),
        (FedFixSettings, {"every": 0.0}, "every"),
        (FedFixSettings, {"every": float("inf")}, "every"),
        (FedFixSettings, {"server_rate": 0.0}, "server_rate"),
        (FedFixSettings, {"interval": 0}, "interval"),
    ],
)
def test_settings_outside_their_domain_are_refused(make: Any, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make(**wrong)


def test_names_say_the_system_and_its_aggregator(federation: Federation, instant: Calibration) -> None:
    assert [make(federation, instant).name for make in SYSTEMS.values()] == [
        "FedAsync float",
        "FedFix float",
        "PR-FL float",
        "PR-FL float",
        "PR-FL plain",
        "PR-FL mask-indexed",
    ]


def test_examples_of_a_client_are_its_own(federation: Federation, instant: Calibration) -> None:
    """A client whose examples differ brings another update; nobody else does."""
    name = federation.fleet.names[1]
    own = federation.examples[name]
    changed = replace(federation, examples={**federation.examples, name: Examples(own.inputs.flip(0), own.labels)})
    first, second = (vector_at(one, fed_async(one, instant).run(1)[1]) for one in (federation, changed))
    assert not np.array_equal(first, second)
