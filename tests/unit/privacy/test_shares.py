"""Shares of noise: how large they are, and whether the sum of them keeps what the ledger says, by exact convolution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.errors import ParameterError
from secagg.prg import SeededEntropy
from secagg.privacy.events import DiscreteGaussianSum, NonPrivate, SkellamSum
from secagg.privacy.ledger import PrivacyLedger
from secagg.privacy.noise import DiscreteGaussian, Skellam
from secagg.privacy.noisy_sum import LARGEST_SHARE, Mechanism
from secagg.privacy.settings import Privacy
from secagg.privacy.shares import MOST_CLASSES, Shares
from tests.properties.noise_laws import delta_of, room_for, share_law, shifted, sum_law

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import DrawFn

    from secagg.privacy.events import Event

MECHANISMS: tuple[Mechanism, ...] = get_args(Mechanism)


def shares_of(coverage: Sequence[int], clients: int = 8, dropouts: int = 2, corrupt: int = 0, **changed: Any) -> Shares:
    privacy = Privacy(**{"clip": 1.0, "noise_multiplier": 1.0} | changed)
    return Shares(privacy, clients, np.array(coverage, np.int32), dropouts, corrupt)


def epsilon(event: Event, delta: float = 1e-5) -> float:
    ledger = PrivacyLedger()
    ledger.record(event)
    return ledger.epsilon(delta)


# ---------------------------------------------------------------------------------- sizes


def test_shares_are_sized_for_the_honest_survivors_of_each_coordinate() -> None:
    shares = shares_of([8, 5, 6, 5], corrupt=1)
    assert shares.sized_for.tolist() == [5, 2, 3, 2]
    assert shares.classes == (2, 3, 5)
    central = 1.0 * shares.scale
    for sized_for in shares.classes:
        assert shares.noise(sized_for) == Skellam((central / math.sqrt(sized_for)) ** 2)
        discrete = shares_of([8, 5, 6, 5], corrupt=1, mechanism="discrete-gaussian")
        assert discrete.noise(sized_for) == DiscreteGaussian(central / math.sqrt(sized_for))


@given(
    guaranteed=st.lists(st.integers(1, 5000), min_size=1, max_size=200),
    dropouts=st.integers(0, 50),
    corrupt=st.integers(0, 50),
)
def test_many_classes_become_few_and_no_share_too_small_or_a_quarter_too_large(
    guaranteed: list[int], dropouts: int, corrupt: int
) -> None:
    coverage = [count + dropouts + corrupt for count in guaranteed]
    shares = shares_of(coverage, max(coverage), dropouts, corrupt, noise_multiplier=0.0)
    exact, sized_for = np.array(guaranteed), shares.sized_for
    assert (sized_for >= 1).all()
    assert (sized_for <= exact).all()
    assert (exact < 1.25 * sized_for).all()
    assert (sized_for[exact <= 7] == exact[exact <= 7]).all()
    if len(set(guaranteed)) <= MOST_CLASSES:
        assert sized_for.tolist() == guaranteed
    assert shares.classes == tuple(sorted(set(sized_for.tolist())))
    assert len(shares.classes) <= max(MOST_CLASSES, 7 + 4 * 11)


def test_the_surplus_of_the_ring_is_that_of_the_noisiest_coordinate() -> None:
    assert shares_of([8, 5, 6]).total.surplus == pytest.approx(5 / 3)
    assert shares_of([8, 5], corrupt=1).total.surplus == pytest.approx(5 / 2)


# ---------------------------------------------------------------------------------- what a client sends


def test_noise_goes_only_where_something_is_sent_but_there_even_where_there_is_nothing_to_say() -> None:
    shares = shares_of([8] * 300 + [6] * 300)
    sent = np.arange(600) % 3 != 0
    integers, was_clipped = shares.encode(np.zeros(400), sent, SeededEntropy(b""))
    assert integers.shape == (400,)
    assert was_clipped == 0
    assert np.count_nonzero(integers) > 390
    nothing, _ = shares.encode(np.zeros(0), np.zeros(600, bool), SeededEntropy(b""))
    assert nothing.shape == (0,)


@pytest.mark.parametrize("remove_surplus", [False, True])
def test_every_class_part_and_update_has_a_key_of_its_own(
    monkeypatch: pytest.MonkeyPatch, *, remove_surplus: bool
) -> None:
    keys: list[bytes] = []
    sample = Skellam.sample

    def recording(noise: Skellam, count: int, key: bytes) -> Any:
        keys.append(key)
        return sample(noise, count, key)

    monkeypatch.setattr(Skellam, "sample", recording)
    shares, source = shares_of([8, 7, 6, 5], remove_surplus=remove_surplus), SeededEntropy(b"")
    for _ in range(3):
        shares.encode(np.zeros(4), np.ones(4, bool), source)
    assert len(keys) == len(set(keys)) == 3 * 4 * len(shares.levels)
    assert {len(key) for key in keys} == {16}


def test_equal_entropy_means_equal_integers() -> None:
    shares, values = shares_of([8, 7, 6, 5]), np.array([0.1, 0.2, 0.3, 0.4])
    one, other = (shares.encode(values, np.ones(4, bool), SeededEntropy(b"same"))[0] for _ in range(2))
    assert one.tolist() == other.tolist()


def test_an_update_that_was_scaled_down_is_told_to_its_client() -> None:
    shares = shares_of([8] * 4, noise_multiplier=0.0)
    integers, was_clipped = shares.encode(np.full(4, 1e300), np.ones(4, bool), SeededEntropy(b""))
    assert was_clipped == 1
    assert np.abs(integers - shares.scale / 2).max() <= 1


@given(
    values=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20),
    ring_bits=st.sampled_from([16, 24, 32, 64]),
    clip=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]),
)
def test_the_integers_of_an_update_are_never_longer_than_the_sensitivity(
    values: list[float], ring_bits: int, clip: float
) -> None:
    shares = shares_of([8] * len(values), noise_multiplier=0.0, ring_bits=ring_bits, clip=clip)
    integers, _ = shares.encode(np.array(values), np.ones(len(values), bool), SeededEntropy(b""))
    bound = shares.total.sensitivity(0.0)
    assert sum(value**2 for value in integers.tolist()) <= bound.l2**2 * (1 + 1e-15)
    assert sum(map(abs, integers.tolist())) <= bound.l1 * (1 + 1e-15)


# ---------------------------------------------------------------------------------- events


@st.composite
def sessions(draw: DrawFn) -> tuple[Shares, list[list[bool]], list[bool], list[bool]]:
    """Shares, who holds what, who survives and who is corrupt."""
    clients, dropouts, corrupt = draw(st.integers(4, 40)), draw(st.integers(0, 10)), draw(st.integers(0, 6))
    required = 2 + dropouts + corrupt
    clients = max(clients, required)
    order = draw(st.randoms(use_true_random=False))
    held = []
    for _ in range(draw(st.integers(1, 30))):
        holders = set(order.sample(range(clients), order.randint(required, clients)))
        held.append([client in holders for client in range(clients)])
    lost = set(order.sample(range(clients), order.randint(0, dropouts)))
    bad = set(order.sample(range(clients), order.randint(0, corrupt)))
    shares = shares_of(
        [sum(row) for row in held],
        clients,
        dropouts,
        corrupt,
        mechanism=draw(st.sampled_from(MECHANISMS)),
        ring_bits=draw(st.sampled_from([24, 32])),
        noise_multiplier=draw(st.sampled_from([0.5, 1.0, 4.0])),
    )
    everybody = range(clients)
    return shares, held, [client not in lost for client in everybody], [client in bad for client in everybody]


@given(session=sessions())
def test_an_event_never_claims_more_noise_than_honest_survivors_added(
    session: tuple[Shares, list[list[bool]], list[bool], list[bool]],
) -> None:
    shares, held, alive, bad = session
    here = np.array(alive)
    left, honest = (np.array(held) @ who for who in (here.astype(int), (here & ~np.array(bad)).astype(int)))
    event = shares.event(left.astype(np.int32))
    assert isinstance(event, SkellamSum | DiscreteGaussianSum)
    variances = np.array([_variance(shares, sized_for) for sized_for in shares.sized_for.tolist()])
    assert event.variance <= (honest * variances).min() * (1 + 1e-12)
    central = (shares.privacy.noise_multiplier * shares.privacy.clip * shares.scale) ** 2
    assert event.variance >= central * (1 - 1e-12), "whoever drops out, the whole central noise is left"
    if isinstance(event, DiscreteGaussianSum):
        assert event.local_std <= math.sqrt(variances.min()) * (1 + 1e-12)
        assert event.contributors >= (left - shares.corrupt).max()
    assert event.dimension == len(held)
    assert 0 < event.sampler_error < 1e-25


def _variance(shares: Shares, sized_for: int) -> float:
    noise = shares.noise(sized_for)
    assert noise is not None
    return noise.variance


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_an_event_costs_less_the_more_survive_and_the_weakest_coordinate_counts(mechanism: Mechanism) -> None:
    shares = shares_of([8, 6], mechanism=mechanism)
    spent = [epsilon(shares.event(np.array(left, np.int32))) for left in ([6, 4], [7, 5], [8, 6])]
    assert spent[0] > spent[1] > spent[2]
    weakest_alone = epsilon(shares.event(np.array([6, 6], np.int32)))
    assert weakest_alone == pytest.approx(spent[0], rel=1e-9)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_without_noise_nothing_is_guaranteed(mechanism: Mechanism) -> None:
    shares = shares_of([8, 6], mechanism=mechanism, noise_multiplier=0.0)
    assert shares.noise(4) is None
    event = shares.event(np.array([8, 6], np.int32))
    assert isinstance(event, NonPrivate)
    assert epsilon(event) == math.inf


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_multiplier": 1e-6}, r"from 0\.125 to 262144 steps, not .*: raise ring_bits if it is smaller"),
        (
            {"noise_multiplier": 1e-4, "mechanism": "discrete-gaussian"},
            r"standard deviation of 2 steps, not .*: raise ring_bits, or set mechanism='skellam'",
        ),
        ({"ring_bits": 16, "noise_multiplier": 0.0}, "ring_bits 16 cannot hold a sum of 40000 clients: raise it"),
    ],
)
def test_a_grid_that_cannot_carry_the_noise_is_refused_at_once(settings: dict[str, Any], message: str) -> None:
    clients = 40_000 if "ring_bits" in settings else 8
    with pytest.raises(ParameterError, match=message):
        shares_of([clients] * 3, clients, **settings)


@pytest.mark.parametrize("noise_multiplier", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("coverage", [[8] * 3, [8, 5, 4]])
def test_much_noise_makes_the_grid_coarser_so_that_no_table_grows_large(
    noise_multiplier: float, coverage: list[int]
) -> None:
    shares = shares_of(coverage, 8, noise_multiplier=noise_multiplier, ring_bits=32)
    stds = [shares.total.local_std(noise_multiplier, sized_for) for sized_for in shares.classes]
    assert max(stds) <= LARGEST_SHARE * (1 + 1e-9)
    if noise_multiplier > 7:
        assert max(stds) == pytest.approx(LARGEST_SHARE)


# ---------------------------------------------------------------------------------- parts that come off


@given(dropouts=st.integers(0, 40), guaranteed=st.integers(2, 60))
def test_parts_up_to_each_level_are_enough_for_its_dropouts_and_all_of_them_are_a_share(
    dropouts: int, guaranteed: int
) -> None:
    clients = guaranteed + dropouts
    shares = shares_of([clients], clients, dropouts, remove_surplus=True)
    parts, whole = shares.parts(guaranteed), shares.noise(guaranteed)
    assert isinstance(whole, Skellam)
    central = whole.variance * guaranteed
    assert sum(part.variance for part in parts) == pytest.approx(whole.variance)
    for dropped in range(dropouts + 1):
        kept = shares.kept(dropped)
        left = (clients - dropped) * sum(part.variance for part in parts[:kept])
        assert left >= central * (1 - 1e-9), "the survivors carry the whole noise"
        if kept > 1:
            with_one_less = (clients - dropped) * sum(part.variance for part in parts[: kept - 1])
            assert with_one_less < central, "and would not without the last part"


def test_where_nothing_comes_off_a_share_is_one_piece() -> None:
    shares = shares_of([8, 5])
    assert shares.levels == (2,)
    assert shares.parts(6) == (shares.noise(6),)
    assert shares.kept(0) == shares.kept(2) == 1


def test_what_comes_off_is_what_was_drawn() -> None:
    shares = shares_of([8, 8, 5], remove_surplus=True)
    sent = np.array([True, False, True])
    seeds = shares.seeds(SeededEntropy(b""))
    whole = shares.drawn(sent, seeds)
    for kept in range(len(seeds) + 1):
        assert (shares.drawn(sent, seeds[:kept]) + shares.drawn(sent, seeds[kept:], kept) == whole).all()
    assert not (shares.drawn(sent, seeds[:1]) == whole).all()


def test_the_event_counts_only_what_stays() -> None:
    shares = shares_of([8, 8, 8], remove_surplus=True)
    for dropped in (0, 1, 2):
        event = shares.event(np.full(3, 8 - dropped, np.int32), dropped)
        assert isinstance(event, SkellamSum)
        assert event.variance == pytest.approx(shares.total.central_std(1.0) ** 2)


# ---------------------------------------------------------------------------------- the exact oracle

RING = 16
DELTAS = (1e-2, 1e-4, 1e-6)
COHORTS: dict[str, dict[str, Any]] = {
    "a small cohort": {"clients": 6, "dropouts": 2, "corrupt": 0, "z": 1.0},
    "one of them corrupt": {"clients": 6, "dropouts": 2, "corrupt": 1, "z": 1.0},
    "much noise": {"clients": 9, "dropouts": 4, "corrupt": 0, "z": 4.0},
    "a coarse grid": {"clients": 500, "dropouts": 60, "corrupt": 40, "z": 1.0},
}


def one_coordinate(mechanism: Mechanism, *, clients: int, dropouts: int, corrupt: int, z: float) -> Shares:
    changed = {"mechanism": mechanism, "noise_multiplier": z, "clip": 1.5, "ring_bits": RING}
    return shares_of([clients], clients, dropouts, corrupt, **changed)


def exact_deltas(shares: Shares, survivors: int, spent: float) -> list[float]:
    """The delta at an epsilon, of one client's update against zero, for the longest updates there are.

    Clipped and rounded at random, as honest clients do, and as the largest integer that the sensitivity allows.
    Whatever the others sent only shifts both laws.
    """
    guaranteed = shares.clients - shares.dropouts - shares.corrupt
    central = shares.privacy.noise_multiplier * shares.privacy.clip * shares.scale
    share = share_law(shares.privacy.mechanism, central**2 / guaranteed, 2**RING)
    noise = sum_law(share, survivors - shares.corrupt)
    most = math.floor(shares.total.sensitivity(shares.privacy.noise_multiplier).l2)
    return [delta_of(shifted(noise, by), noise, spent) for by in (shares.privacy.clip * shares.scale, most)]


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("cohort", COHORTS.values(), ids=COHORTS)
def test_the_exact_delta_is_at_most_what_the_ledger_says(cohort: dict[str, Any], mechanism: Mechanism) -> None:
    shares = one_coordinate(mechanism, **cohort)
    least = shares.clients - shares.dropouts
    for survivors in {least, least + 1, shares.clients}:
        event = shares.event(np.array([survivors], np.int32))
        for delta in DELTAS:
            spent = epsilon(event, delta)
            assert max(exact_deltas(shares, survivors, spent)) <= delta
            assert min(exact_deltas(shares, survivors, 0.7 * spent)) > delta, "the ledger is not far above the truth"


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_oracle_finds_out_an_event_that_forgets_who_dropped_out(mechanism: Mechanism) -> None:
    shares = one_coordinate(mechanism, **COHORTS["much noise"])
    event = shares.event(np.array([shares.clients], np.int32))
    for delta in DELTAS:
        assert max(exact_deltas(shares, shares.clients - shares.dropouts, epsilon(event, delta))) > delta


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_oracle_finds_out_an_event_that_counts_on_the_noise_of_the_corrupt(mechanism: Mechanism) -> None:
    honest = one_coordinate(mechanism, clients=9, dropouts=2, corrupt=3, z=1.0)
    event = honest.event(np.array([7 + 3], np.int32))
    assert max(exact_deltas(honest, 7, epsilon(event))) > 1e-5


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("spread", [(1, 0), (0, 1), (1, 1), (3, 1)])
def test_two_coordinates_of_different_coverage_keep_what_the_ledger_says(
    mechanism: Mechanism, spread: tuple[int, int]
) -> None:
    """The joint law exactly, at the fewest survivors, of the longest update in several directions against zero."""
    clients, dropouts, corrupt, coverage = 500, 60, 40, np.array([500, 200])
    shares = shares_of(
        coverage.tolist(), clients, dropouts, corrupt, mechanism=mechanism, noise_multiplier=1.0, ring_bits=RING
    )
    central = shares.privacy.clip * shares.scale
    size = room_for(central)
    longest = shares.total.sensitivity(1.0).l2
    steps = np.floor(np.array(spread) * longest / math.hypot(*spread)).astype(int)
    update, nothing = [], []
    for honest, step in zip((coverage - dropouts - corrupt).tolist(), steps.tolist(), strict=True):
        noise = sum_law(share_law(mechanism, central**2 / honest, size), honest)
        nothing.append(noise)
        update.append(np.roll(noise, step))
    joint, other = (np.multiply.outer(*laws) for laws in (update, nothing))
    spent = epsilon(shares.event((coverage - dropouts).astype(np.int32)))
    assert delta_of(joint, other, spent) <= 1e-5 < delta_of(joint, other, 0.7 * spent)
