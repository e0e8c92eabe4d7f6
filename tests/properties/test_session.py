"""A session against plain arithmetic: the same sums bit for bit, or the error that the rules call for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from secagg import driver, masking, simulate
from secagg.driver import Contribution, Stage
from secagg.errors import ChecksumError, SecAggError
from secagg.layout import Layout, Tensor
from secagg.messages import decode, encode
from secagg.params import Params
from secagg.release import Plan
from secagg.ring import Ring
from secagg.rounds import Round
from secagg.session import CountedCoverage, Session
from tests.adversarial.play import Play, expected_of_five, five_clients, replay
from tests.properties.plain import Plain, least_coverage
from tests.strategies import LEVELS, Scenario, dropouts_of, masks_of, scenarios, unit_layouts, updates_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from numpy.typing import NDArray

    from secagg.aggregate import Aggregate
    from secagg.params import Mode

EVERY_WEIGHTING = [
    ("uniform", {"weighted": False, "exact_denominators": False}),
    ("uniform", {"weighted": False, "exact_denominators": True}),
    ("uniform", {"weighted": True, "exact_denominators": False}),
    ("uniform", {"weighted": True, "exact_denominators": True}),
    ("mask-indexed", {"weighted": False}),
    ("mask-indexed", {"weighted": True, "weighting": "hidden"}),
    ("mask-indexed", {"weighted": True, "weighting": "public"}),
    ("mask-indexed", {"weighted": True, "weighting": "average"}),
]


def play(scenario: Scenario) -> driver.Played:
    return driver.run(scenario.session, scenario.contributions, scenario.last_stage, entropy_of=scenario.entropy_of)


@given(scenario=scenarios())
def test_a_session_ends_in_the_sum_or_in_the_error_that_its_dropouts_and_coverage_call_for(scenario: Scenario) -> None:
    plain = Plain(scenario)
    if plain.failure is None:
        assert play(scenario).aggregate.integers.tolist() == plain.integers
    else:
        with pytest.raises(SecAggError) as raised:
            play(scenario)
        assert type(raised.value) is plain.failure


@pytest.mark.parametrize(("mode", "settings"), EVERY_WEIGHTING)
@given(data=st.data())
def test_the_ring_sums_equal_the_plain_sums_of_the_survivors_bit_for_bit(
    mode: Mode,
    settings: dict[str, Any],
    data: st.DataObject,
) -> None:
    scenario = data.draw(scenarios(mode, **settings))
    plain = Plain(scenario)
    assume(plain.failure is None)
    aggregate = play(scenario).aggregate
    assert aggregate.survivors == tuple(plain.survivors)
    assert aggregate.integers.tolist() == plain.integers


@given(scenario=scenarios())
def test_the_mean_lies_within_the_documented_bound_of_the_exact_weighted_mean(scenario: Scenario) -> None:
    plain = Plain(scenario)
    assume(plain.failure is None)
    mean = play(scenario).aggregate.mean
    for place in map(int, np.flatnonzero(plain.released)):
        step = plain.limits[place] / plain.magnitude
        if not plain.weight(place):
            assert scenario.session.mode == "uniform", "only there may nobody hold a released coordinate"
            assert np.isnan(mean[place])
            continue
        exact, weight = float(plain.mean(place)), float(plain.weight(place))
        bound = len(plain.survivors) * step / (2 * weight)
        assert abs(mean[place] - exact) <= bound + 1e-12 * plain.limits[place]


@given(scenario=scenarios())
def test_exactly_the_coordinates_below_the_required_coverage_are_withheld(scenario: Scenario) -> None:
    plain = Plain(scenario)
    assume(plain.failure is None)
    aggregate = play(scenario).aggregate
    np.testing.assert_array_equal(aggregate.plan.released, plain.released)
    np.testing.assert_array_equal(np.isnan(aggregate.sum), ~plain.released)
    assert np.isnan(aggregate.mean[~plain.released]).all()
    assert not aggregate.weight[~plain.released].any()
    assert aggregate.smallest_group >= plain.floor


@pytest.mark.parametrize("end", [-1.0, 1.0])
@pytest.mark.parametrize(("width", "levels"), LEVELS.items())
def test_every_ring_width_carries_the_largest_sum(width: int, levels: int, end: float) -> None:
    layout = Layout((Tensor("w", (3,)),))
    session = Session(id=bytes(16), params=Params(value_range=0.1, levels=levels), layout=layout, mode="uniform")
    aggregate = driver.run(session, {i: Contribution({"w": np.full(3, 0.1 * end)}) for i in range(12)}).aggregate
    assert aggregate.plan.ring.bits == width
    assert aggregate.integers.tolist() == [round(end) * 12 * ((levels - 1) // 2)] * 3


# Misaligned masks: one client, or the server, runs a broken build.


def one_element_late(
    integers: masking.Integers, length: int, ring: Ring, masks: Iterable[masking.MaskKey], checks: masking.Checksums
) -> tuple[bytes, bytes]:
    """``masking.hide`` with every stream read from its second element on."""
    return genuine_hide(integers, length, ring, [dataclasses.replace(mask, start=1) for mask in masks], checks)


def flipped_signs(client: int, neighbours: Collection[int]) -> Iterator[masking.Term]:
    """``masking.terms`` with the order of ids the wrong way round."""
    for term in genuine_terms(client, neighbours):
        yield term if term.peer is None else masking.Term(-term.sign, term.peer)


def one_neighbour_short(client: int, neighbours: Collection[int]) -> Iterator[masking.Term]:
    """``masking.terms`` that forgets the last neighbour."""
    return iter(list(genuine_terms(client, neighbours))[:-1])


def another_key(agreed: bytes, transcript: bytes, one: int, other: int) -> bytes:
    """``masking.pairwise_key`` for another pair."""
    return genuine_pairwise_key(agreed, transcript, one + 1, other)


def one_place_further(plan: Plan, client: int, peer: int) -> NDArray[np.bool_]:
    """``Plan.overlap`` of another peer, with as many places."""
    common = genuine_overlap(plan, client, peer)
    return np.roll(np.ones(int(plan.places(client).sum()), bool) if common is None else common, 1)


def one_element_off(ring: Ring, integers: NDArray[np.int64]) -> NDArray[np.unsignedinteger[object]]:  # type: ignore[type-var]
    """``Ring.wrap`` that computes one element wrongly."""
    wrong = integers.copy()
    wrong[0] += 1
    return genuine_wrap(ring, wrong)


genuine_hide = masking.hide
genuine_terms, genuine_pairwise_key = masking.terms, masking.pairwise_key
genuine_overlap, genuine_wrap = Plan.overlap, Ring.wrap

BROKEN_CLIENTS: dict[str, tuple[object, str, Callable[..., object]]] = {
    "reads its streams one element late": (masking, "hide", one_element_late),
    "has the signs the wrong way round": (masking, "terms", flipped_signs),
    "forgets a neighbour": (masking, "terms", one_neighbour_short),
    "derives other keys": (masking, "pairwise_key", another_key),
    "misjudges what its peers hold": (Plan, "overlap", one_place_further),
    "adds one to an element": (Ring, "wrap", one_element_off),
}


@pytest.mark.parametrize("dropouts", [(), (4,)])
@pytest.mark.parametrize("levels", LEVELS.values())
@pytest.mark.parametrize("fault", BROKEN_CLIENTS)
def test_the_checksum_catches_a_client_that(
    fault: str, levels: int, dropouts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    game = five_clients(levels=levels).until(Round.MASKED_INPUT)
    for id_ in [id_ for id_ in game.clients if id_ not in dropouts]:
        with monkeypatch.context() as patch:
            if id_ == 2:
                patch.setattr(*BROKEN_CLIENTS[fault])
            game.deliver([id_])
    game.close()
    game.deliver()
    with pytest.raises(ChecksumError):
        game.close()


@pytest.mark.parametrize("levels", LEVELS.values())
def test_the_same_sessions_without_a_fault_pass_the_checksum(levels: int) -> None:
    assert five_clients(levels=levels).finish().integers.tolist() == expected_of_five(levels=levels)


@pytest.mark.parametrize("levels", LEVELS.values())
def test_the_checksum_catches_a_server_that_puts_a_vector_in_the_wrong_places(
    levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    game = five_clients(levels=levels).until(Round.MASKED_INPUT)
    answers = {id_: game.answer(id_) for id_ in game.clients}
    genuine = Plan.places
    with monkeypatch.context() as patch:
        patch.setattr(Plan, "places", lambda plan, client: np.roll(genuine(plan, client), client == 2))
        for answer in answers.values():
            game.server.receive(answer)
    game.close()
    game.deliver()
    with pytest.raises(ChecksumError):
        game.close()


@pytest.mark.parametrize("part", ["vector", "check"])
@pytest.mark.parametrize(("width", "levels"), LEVELS.items())
def test_the_checksum_catches_every_single_flipped_bit(width: int, levels: int, part: str) -> None:
    layout = Layout((Tensor("w", (2,)),))
    session = Session(id=bytes(16), params=Params(levels=levels), layout=layout, mode="uniform")
    game = Play(session, {id_: Contribution({"w": np.array([id_ / 2, id_ - 1.5])}) for id_ in range(4)})
    assert game.finish().integers[1] == 0  # a sum of zero leaves no trace of where a bit was flipped
    assert replay(session, game.sent).plan.ring.bits == width
    message = decode(game.sent[Round.MASKED_INPUT][1])
    clean: bytes = getattr(message, part)
    for bit in range(8 * len(clean)):
        flipped = (int.from_bytes(clean, "little") ^ (1 << bit)).to_bytes(len(clean), "little")
        altered = encode(msgspec.structs.replace(message, **{part: flipped}))
        with pytest.raises(ChecksumError):
            replay(session, game.sent | {Round.MASKED_INPUT: game.sent[Round.MASKED_INPUT] | {1: altered}})


@pytest.mark.parametrize("dropped", [None, 3, 6])
def test_a_sparse_graph_gives_the_same_sums_as_the_complete_one(dropped: int | None) -> None:
    layout = Layout((Tensor("w", (3,)),))
    contributions = {id_: Contribution({"w": np.array([0.5, -0.25, 0.125]) * id_}) for id_ in range(8)}
    last_stage = {} if dropped is None else {dropped: Stage.SHARE_KEYS}
    sums = []
    for neighbours in (4, None):
        params = Params(neighbours=neighbours, max_dropouts=1)
        session = Session(id=bytes(16), params=params, layout=layout, mode="uniform")
        sums.append(driver.run(session, contributions, last_stage).aggregate.integers.tolist())
    assert sums[0] == sums[1]


# Uniform sessions of pruned updates: counting decides what is withheld.


@st.composite
def pruned(draw: st.DrawFn) -> Scenario:
    """A uniform session with masks, as `simulate` plays it; what was counted is the test's own bound."""
    layout = draw(unit_layouts())
    count = draw(st.integers(3, 10))
    masks = draw(masks_of(layout, list(range(count))))
    params = Params(
        min_cohort=draw(st.integers(2, 3)),
        max_dropouts=draw(st.none() | st.integers(0, 2)),
        corrupt=draw(st.integers(0, 1)),
        levels=2**16,
        value_range=1.0,
    )
    seed = draw(st.integers(0, 2**32 - 1))
    contributions = {
        id_: Contribution(updates_of(layout, params, mask.held, seed + id_), mask.given) for id_, mask in masks.items()
    }
    counted = CountedCoverage(frozenset(masks), least_coverage(layout, masks.values()))
    session = Session(id=seed.to_bytes(16, "big"), params=params, layout=layout, mode="uniform", counted=counted)
    return Scenario(session, contributions, masks, draw(dropouts_of(list(masks))), seed)


def simulated(scenario: Scenario) -> Aggregate:
    layout = scenario.session.layout
    return simulate(
        {
            id_: {name: np.asarray(value, np.float64) for name, value in brought.update.items()}
            for id_, brought in scenario.contributions.items()
        },
        {
            id_: layout.by_tensor(mask.given) if isinstance(mask.given, np.ndarray) else mask.given
            for id_, mask in scenario.masks.items()
        },
        mode="uniform",
        params=scenario.session.params,
        dropouts=scenario.last_stage,
        seed=scenario.seed,
        layout=layout,
    ).aggregate


@given(scenario=pruned())
def test_counting_never_claims_more_coverage_than_there_is(scenario: Scenario) -> None:
    plain = Plain(scenario)
    assume(plain.failure is None)
    aggregate = simulated(scenario)
    counted = aggregate.plan.session.counted
    assert counted is not None
    true = np.sum([mask.held for mask in scenario.masks.values()], axis=0)
    assert (counted.least <= true).all()
    surviving = np.sum([scenario.masks[client].held for client in aggregate.survivors], axis=0)
    assert (surviving[aggregate.plan.released] >= plain.floor).all()


@given(scenario=pruned())
def test_a_session_with_counting_ends_in_the_plain_sum_or_in_the_error_that_the_counts_call_for(
    scenario: Scenario,
) -> None:
    plain = Plain(scenario)
    if plain.failure is None:
        aggregate = simulated(scenario)
        np.testing.assert_array_equal(aggregate.plan.released, plain.released)
        assert aggregate.integers.tolist() == plain.integers
    else:
        with pytest.raises(SecAggError) as raised:
            simulated(scenario)
        assert type(raised.value) is plain.failure
