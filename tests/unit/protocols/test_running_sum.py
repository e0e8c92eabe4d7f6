"""The running sum against a slow buffer that holds every client's latest update, through losses of every kind."""

from __future__ import annotations

import copy
import io
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pytest
import torch

from protocols.aggregators import FixedPoint, FloatMean
from protocols.arrivals.contributor import Agreement, Contributor, Notice
from protocols.arrivals.running_sum import RunningSum, flush, released_by
from pruning.masks import Mask
from secagg.driver import Stage
from secagg.errors import (
    AbortError,
    CoverageError,
    InputError,
    OutOfRangeError,
    ParameterError,
    SecAggError,
    TooFewClientsError,
    UnknownClientError,
)
from secagg.layout import Layout, Tensor
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from protocols.aggregators import Client
    from protocols.arrivals.contributor import Indexed, Offer

    Vector = NDArray[np.float64]

T = TypeVar("T")

LAYOUT = Layout((Tensor("fc.weight", (3, 4)), Tensor("fc.bias", (3,))))
LIMIT = np.array([1.0] * 12 + [0.25] * 3)
PARAMS = Params(
    min_cohort=2, max_dropouts=1, value_range={"fc.bias": 0.25, "*": 1.0}, levels=2**10, out_of_range="saturate"
)
UNIT = LIMIT / PARAMS.magnitude
CLIENTS, BATCH = 9, 5
ROUNDING = CLIENTS / 2 + 1e-6
"""Half a unit for each client."""


def each(clients: Iterable[Client], value: T) -> dict[Client, T]:
    return dict.fromkeys(clients, value)


def contributors(agreed: Agreement, clients: Iterable[Client]) -> dict[Client, Contributor]:
    return {client: Contributor(agreed) for client in clients}


class SlowBuffer:
    """Every client's latest update, coordinate by coordinate."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.last = -1
        self.latest: dict[tuple[Client, int], tuple[float, int]] = {}

    def flush(self, arrivals: Mapping[Client, Arrival]) -> set[int]:
        """Takes in a batch; returns what was released."""
        self.last += 1
        shared = {client: one for client, one in arrivals.items() if one.stage >= Stage.SHARE_KEYS}
        # A majority of those whose secrets are shared has to stay.
        stay = sum(one.stage >= Stage.ADVERTISE_KEYS for one in arrivals.values()) // 2 + 1
        required = PARAMS.min_cohort + min(1, len(shared) - max(PARAMS.min_cohort, stay))
        coverage = Counter(
            place for client, one in shared.items() for place in range(LAYOUT.size) if one.mask.coordinates[place]
        )
        released = {place for place, count in coverage.items() if count >= required}
        for client, one in shared.items():
            for place in released if one.stage >= Stage.MASKED_INPUT else ():
                if one.mask.coordinates[place]:
                    value = min(max(one.update[place], -LIMIT[place]), LIMIT[place])
                    self.latest[client, place] = (value, one.start)
        return released

    def sum(self) -> Vector:
        total = np.zeros(LAYOUT.size)
        for (_, place), (value, start) in self.latest.items():
            total[place] += self.decay ** (self.last - start) * value
        return total

    def weights(self) -> Vector:
        total = np.zeros(LAYOUT.size)
        for (_, place), (_, start) in self.latest.items():
            total[place] += self.decay ** (self.last - start)
        return total


@dataclass(frozen=True)
class Arrival:
    """One client of a batch, and the last stage that it completes."""

    update: Vector
    mask: Mask
    start: int
    stage: Stage


class Honest(Contributor):
    """A client that ``missed`` a flush when it was not among the survivors; it thinks nothing of it."""

    def missed(self, released: NDArray[np.bool_]) -> None:
        pass


class BelievesItWasCounted(Honest):
    made: Offer

    def offer(self, update: Vector, mask: Mask, flush: int, start: int | None = None) -> Offer:
        self.made = super().offer(update, mask, flush, start)
        return self.made

    def missed(self, released: NDArray[np.bool_]) -> None:
        self.settle(self.made, released)


class BelievesAllWasReleased(Honest):
    def settle(self, offer: Offer, released: NDArray[np.bool_]) -> None:
        super().settle(offer, np.ones_like(released))


class ClipsTheDifference(Honest):
    def _clipped(self, update: Vector, mask: Mask) -> Vector:
        return np.where(mask.coordinates, update / self.agreement.unit, 0)


@dataclass
class Story:
    """What came of many flushes: the two sides, what happened, and how far they ever were from the slow buffer."""

    server: RunningSum
    clients: dict[Client, Honest]
    errors: list[float] = field(default_factory=list)
    weight_errors: list[float] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)

    @classmethod
    def begin(cls, decay: float, kind: type[Honest] = Honest, params: Params = PARAMS) -> Story:
        agreed = Agreement(layout=LAYOUT, params=params, decay=decay)
        return cls(RunningSum(agreed), {client: kind(agreed) for client in range(CLIENTS)})

    @property
    def state(self) -> list[Any]:
        return copy.deepcopy([self.server.remember(), *(client.remember() for client in self.clients.values())])

    def go_on(self, batch: Mapping[Client, Arrival], aggregator: Indexed, reference: SlowBuffer | None = None) -> None:
        """Plays a flush here and in the slow buffer; one that is refused must leave everything as it was."""
        before = self.state
        try:
            flushed = flush(
                self.server,
                self.clients,
                {client: one.update for client, one in batch.items()},
                {client: one.mask for client, one in batch.items()},
                aggregator,
                starts={client: one.start for client, one in batch.items()},
                dropouts={client: one.stage for client, one in batch.items()},
                seed=b"of this test",
            )
        except AbortError:
            self.events["lost"] += 1
            assert same(self.state, before)
            return
        released = released_by(flushed.aggregated)
        fresh = np.sum([batch[client].mask.coordinates for client in flushed.aggregated.survivors], axis=0)
        assert fresh[released].min() >= PARAMS.min_cohort
        for client in set(batch).difference(flushed.aggregated.survivors):
            self.clients[client].missed(released)
        self.events.update(f"left after {one.stage.name}" for one in batch.values())
        self.events["withheld"] += not released.all()
        if reference is not None:
            self.events["other coordinates"] += reference.flush(batch) != set(np.flatnonzero(released))
            self.errors.append(float((np.abs(self.server.sum - reference.sum()) / UNIT).max()))
            self.weight_errors.append(float(np.abs(self.server.weights() - reference.weights()).max()))


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def arrivals(generator: np.random.Generator, number: int) -> dict[Client, Arrival]:
    """A random batch for the flush ``number``: some values beyond the range, some clients that leave."""
    stages = [*Stage, *[Stage.UNMASK] * 24]
    return {
        int(client): Arrival(
            generator.normal(0, 0.7 * LIMIT),
            Mask.of_coordinates(LAYOUT, generator.random(LAYOUT.size) < generator.choice([0.3, 0.6, 0.9])),
            max(0, number - int(generator.integers(4))),
            stages[generator.integers(len(stages))],
        )
        for client in generator.choice(CLIENTS, BATCH, replace=False)
    }


def played(flushes: int, decay: float, kind: type[Honest] = Honest, *, encrypted: bool = False, **own: Any) -> Story:
    story, reference = Story.begin(decay, kind, replace(PARAMS, **own)), SlowBuffer(decay)
    aggregator, generator = story.server.agreement.aggregator(encrypted=encrypted), np.random.default_rng(5)
    for _ in range(flushes):
        story.go_on(arrivals(generator, story.server.number), aggregator, reference)
    return story


@pytest.mark.parametrize("decay", [0.5, 0.9, 1.0])
def test_the_running_sum_is_the_sum_over_a_buffer_up_to_rounding(decay: float) -> None:
    story = played(250, decay)
    assert max(story.errors) <= ROUNDING
    assert max(story.weight_errors) < 1e-9
    assert story.events["other coordinates"] == 0
    assert min(story.events[f"left after {stage.name}"] for stage in Stage) > 3
    assert min(story.events["lost"], story.events["withheld"]) > 3


@pytest.mark.parametrize("adversary", ["semi-honest", "active"])
def test_encrypted_it_is_the_same_bit_for_bit(adversary: str) -> None:
    secure, plain = (played(12, 0.9, encrypted=encrypted, adversary=adversary) for encrypted in (True, False))
    assert max(secure.errors) <= ROUNDING
    assert secure.events == plain.events
    assert secure.events["lost"] < 6
    assert same(secure.state, plain.state)


@pytest.mark.parametrize("broken", [BelievesItWasCounted, BelievesAllWasReleased, ClipsTheDifference])
def test_a_client_that_breaks_a_rule_is_far_off(broken: type[Honest]) -> None:
    assert max(played(60, 0.9, broken).errors) > 20 * ROUNDING


def test_a_sum_computed_by_hand() -> None:
    """Decay one half: of 8 and 4 units, client 0 leaves 4 after a flush, and takes 4 out to put 6 in."""
    agreed = Agreement(layout=LAYOUT, params=replace(PARAMS, max_dropouts=0), decay=0.5)
    server, clients = RunningSum(agreed), contributors(agreed, "abc")
    masks, plain = each("abc", Mask.full(LAYOUT)), agreed.aggregator(encrypted=False)
    assert np.isnan(server.mean()).all()
    flush(server, clients, {"a": 8 * UNIT, "b": 4 * UNIT}, masks, plain)
    assert np.allclose(server.sum, 12 * UNIT)
    assert np.allclose(server.mean(), 6 * UNIT)
    flush(server, clients, {"a": 6 * UNIT, "c": 10 * UNIT}, masks, plain)
    assert np.allclose(server.sum, (6 + 10 + 2) * UNIT)
    assert np.allclose(server.weights(), 2.5)
    assert np.allclose(server.mean(), 18 / 2.5 * UNIT)
    assert server.number == 2


def test_whoever_holds_alone_what_others_held_before_is_not_left_alone_in_the_sum() -> None:
    """Did b and c take out what they no longer hold, the sum there would be the update of a."""
    agreed = Agreement(layout=LAYOUT, params=replace(PARAMS, max_dropouts=0), decay=0.5)
    server, clients = RunningSum(agreed), contributors(agreed, "abc")
    few, plain = Mask.of_coordinates(LAYOUT, np.arange(LAYOUT.size) < 5), agreed.aggregator(encrypted=False)
    flush(server, clients, {"a": 8 * UNIT, "b": 4 * UNIT, "c": 2 * UNIT}, each("abc", Mask.full(LAYOUT)), plain)
    masks: dict[Client, Mask] = {"a": Mask.full(LAYOUT), "b": few, "c": few}
    flushed = flush(server, clients, {"a": 20 * UNIT, "b": UNIT, "c": UNIT}, masks, plain)
    assert np.array_equal(released_by(flushed.aggregated), few.coordinates)
    assert np.allclose(server.sum / UNIT, np.where(few.coordinates, 20 + 1 + 1, 0.5 * (8 + 4 + 2)))


def test_a_flush_tells_what_was_withheld_and_what_has_no_mean() -> None:
    """All four hold the first five coordinates, and two of them the rest, where three would be needed."""
    agreed = Agreement(layout=LAYOUT, params=PARAMS, decay=0.5)
    server, clients = RunningSum(agreed), contributors(agreed, range(4))
    few = Mask.of_coordinates(LAYOUT, np.arange(LAYOUT.size) < 5)
    masks = each(range(2), few) | each(range(2, 4), Mask.full(LAYOUT))
    flushed = flush(server, clients, each(clients, UNIT), masks, agreed.aggregator(encrypted=False))
    assert flushed.number == 0
    assert flushed.withheld_share == pytest.approx(2 * 10 / (2 * 5 + 2 * 15))
    assert flushed.missing_share == pytest.approx(10 / 15)
    assert np.array_equal(np.isnan(server.mean()), ~few.coordinates)


def test_what_has_aged_away_loses_its_mean() -> None:
    agreed = Agreement(layout=LAYOUT, params=replace(PARAMS, max_dropouts=0), decay=0.25)
    server, clients = RunningSum(agreed), contributors(agreed, range(4))
    plain = agreed.aggregator(encrypted=False)
    front, back = (Mask.of_coordinates(LAYOUT, held) for held in (np.arange(15) < 6, np.arange(15) >= 6))

    def flushed(pair: tuple[int, int], mask: Mask) -> NDArray[np.bool_]:
        flush(server, clients, each(pair, 50 * UNIT), each(pair, mask), plain)
        return ~np.isnan(server.mean())

    assert np.array_equal(flushed((0, 1), front), front.coordinates)
    assert flushed((0, 1), back).all()
    for _ in range(5):
        assert flushed((2, 3), front).all()
    assert np.array_equal(flushed((2, 3), front), front.coordinates)


def test_it_takes_up_where_it_left_off() -> None:
    first, generator = played(20, 0.9), np.random.default_rng(8)
    saved = io.BytesIO()
    torch.save(first.state, saved)
    saved.seek(0)
    memories = torch.load(saved, weights_only=True)
    second = Story.begin(0.9)
    assert not same(second.state, first.state)
    second.server.recall(memories[0])
    for client, memory in zip(second.clients.values(), memories[1:], strict=True):
        client.recall(memory)
    assert same(second.state, first.state)
    for _ in range(10):
        batch = arrivals(generator, first.server.number)
        for story in (first, second):
            story.go_on(batch, story.server.agreement.aggregator(encrypted=False))
    assert same(second.state, first.state)
    second.server.recall({})
    assert same(second.server.remember(), Story.begin(0.9).server.remember())


BATCH_OF_FOUR = each(range(4), 3 * UNIT)
ALL_FULL = each(range(4), Mask.full(LAYOUT))
APART = {client: Mask.of_coordinates(LAYOUT, np.arange(15) % 4 == client) for client in range(4)}


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (ParameterError, "a flush of 2 clients", {"updates": {0: UNIT, 1: UNIT}}),
        (UnknownClientError, "stranger", {"updates": {**BATCH_OF_FOUR, "stranger": UNIT}}),
        (UnknownClientError, "without a mask", {"masks": {}}),
        (OutOfRangeError, "client 3: ", {"updates": {**BATCH_OF_FOUR, 3: 2 * LIMIT}}),
        (InputError, "client 1: start", {"starts": {1: 9}}),
        (UnknownClientError, "stranger", {"dropouts": {"stranger": Stage.NONE}}),
        (
            TooFewClientsError,
            "2 clients sent their input < 3",
            {"dropouts": {0: Stage.SHARE_KEYS, 1: Stage.SHARE_KEYS}},
        ),
        (
            TooFewClientsError,
            r"fewer than 3 clients|< 3 \(share_threshold\)",
            {"dropouts": each(range(4), Stage.MASKED_INPUT)},
        ),
        (CoverageError, "min_cohort", {"masks": APART}),
    ],
)
@pytest.mark.parametrize("encrypted", [False, True])
def test_a_refused_flush_changes_nobody(
    error: type[SecAggError], message: str, change: dict[str, Any], *, encrypted: bool
) -> None:
    story = Story.begin(0.9, params=replace(PARAMS, out_of_range="refuse"))
    aggregator = story.server.agreement.aggregator(encrypted=encrypted)
    flush(story.server, story.clients, BATCH_OF_FOUR, ALL_FULL, aggregator)
    before = story.state
    with pytest.raises(error, match=message):
        flush(
            story.server,
            story.clients,
            **{"updates": BATCH_OF_FOUR, "masks": ALL_FULL, "aggregator": aggregator, **change},
        )
    assert same(story.state, before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (FixedPoint(LAYOUT, Agreement(layout=LAYOUT, params=PARAMS, decay=0.9).session), "declared masks"),
        (FixedPoint(LAYOUT, PARAMS, "mask-indexed"), r"Agreement\.session"),
        (FixedPoint(Layout((Tensor("fc", (15,)),)), PARAMS, "mask-indexed"), "another layout"),
    ],
)
def test_an_aggregator_with_other_settings_is_refused(wrong: FixedPoint, message: str) -> None:
    story = Story.begin(0.9)
    with pytest.raises(ParameterError, match=message):
        flush(story.server, story.clients, BATCH_OF_FOUR, ALL_FULL, wrong)


def test_the_server_adds_up_integers_of_clients_that_it_was_told_of() -> None:
    agreed = Agreement(layout=LAYOUT, params=PARAMS, decay=0.9)
    server, notice = RunningSum(agreed), Notice(Mask.full(LAYOUT), 0)
    updates = each(range(4), Contributor(agreed).offer(UNIT, Mask.full(LAYOUT), 0).update)
    before = server.remember()
    with pytest.raises(InputError, match="integers"):
        server.add(each(range(4), notice), FloatMean(LAYOUT).aggregate(updates))
    with pytest.raises(UnknownClientError, match=r"without a notice: \[3\]"):
        server.add(each(range(3), notice), agreed.aggregator(encrypted=False).aggregate(updates))
    assert same(server.remember(), before)


@pytest.mark.parametrize(
    ("contributed", "least", "most"), [("models", 0.99, 1.0), ("updates", 0.0, 0.5), ("repeated updates", 0.99, 1.0)]
)
def test_two_flushes_subtracted_show_who_joined_only_if_contributions_persist(
    contributed: str, least: float, most: float
) -> None:
    """Flushes of clients 0 to 3, then 1 to 4, of 10, at decay .9: how well does the difference show client 4?

    Each client's model starts somewhere and takes a random step before each flush. Of fresh steps the difference holds
    seven: those of three clients twice, and one of client 4. So the cosine is about 1 / sqrt(7).
    """
    layout = Layout((Tensor("w", (2000,)),))
    agreed = Agreement(layout=layout, params=Params(max_dropouts=1, value_range=8.0), decay=0.9)
    server, clients = RunningSum(agreed), contributors(agreed, range(10))
    generator = np.random.default_rng(2)
    models = generator.normal(size=(10, layout.size))
    steps = 0.02 * generator.normal(size=(2, 10, layout.size))
    shown = {
        "models": models + np.cumsum(steps, axis=0),
        "updates": steps,
        "repeated updates": np.stack([steps[0], steps[0]]),
    }[contributed]
    sums = []
    for number in range(2):
        updates: dict[Client, Vector] = {client: shown[number, client] for client in range(number, number + 4)}
        flush(server, clients, updates, each(updates, Mask.full(layout)), agreed.aggregator(encrypted=False))
        sums.append(server.sum)
    difference, target = sums[1] - sums[0], shown[1, 4]
    cosine = difference @ target / np.linalg.norm(difference) / np.linalg.norm(target)
    assert least <= cosine <= most
