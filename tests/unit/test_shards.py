"""Who is in which shard, what a shard has to bear, and the sessions that come of it."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import driver
from secagg.driver import Contribution, Stage
from secagg.errors import DifferencingError, InputError, ParameterError
from secagg.graph import GRINDING_BITS, LIVENESS_BITS
from secagg.layout import Layout, Tensor
from secagg.ledger import Ledger
from secagg.params import Params
from secagg.session import CountedCoverage, Session
from secagg.shards import Shard, assign, shard_params, split

SEED = bytes(range(32))
LAYOUT = Layout((Tensor("w", (4,)),))
SESSION = Session(
    id=bytes(16), params=Params(), layout=LAYOUT, mode="uniform", model_root=bytes(32), context=b"round 1"
)

cohorts = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=40, unique=True)


@given(clients=cohorts, data=st.data())
def test_every_client_is_in_one_shard_and_sizes_differ_by_at_most_one(clients: list[int], data: st.DataObject) -> None:
    shards = data.draw(st.integers(1, len(clients)))
    divided = assign(clients, shards, data.draw(st.binary(min_size=32, max_size=32)))
    assert sorted(client for shard in divided for client in shard) == sorted(clients)
    assert len(divided) == shards
    sizes = {len(shard) for shard in divided}
    assert sizes == {len(clients) // shards, -(-len(clients) // shards)}
    assert all(list(shard) == sorted(shard) for shard in divided)


@given(clients=cohorts, data=st.data())
def test_the_order_in_which_clients_are_listed_decides_nothing(clients: list[int], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(clients))
    assert assign(shuffled, len(clients) // 2 + 1, SEED) == assign(clients, len(clients) // 2 + 1, SEED)


def test_another_seed_another_cohort_or_another_number_draws_anew() -> None:
    """Half of the 30 clients beside client 0 stay there by chance; 25 would be 5 standard deviations more."""
    clients = list(range(60))

    def with_client_0(*division: Any) -> set[int]:
        return set(next(shard for shard in assign(*division) if 0 in shard))

    first = with_client_0(clients, 2, SEED)
    for other in (with_client_0(clients, 2, bytes(32)), with_client_0(clients[:-1], 2, SEED)):
        assert len(first & other) < 25
    assert not with_client_0(clients, 4, SEED) <= first


def test_leaving_a_client_out_draws_again() -> None:
    """Whether two clients share a shard with and without a third agrees in half of 600 draws, within 5 deviations."""

    def together(cohort: range, number: int) -> bool:
        return any({0, 1} <= set(shard) for shard in assign(cohort, 2, number.to_bytes(32, "big")))

    agree = sum(together(range(12), number) == together(range(11), number) for number in range(600))
    assert abs(agree - 300) < 5 * math.sqrt(150)


def test_any_two_clients_share_a_shard_as_often_as_chance_has_it() -> None:
    """2000 divisions of 6 clients into shards of 2: each pair is together in a fifth, within 5 standard deviations."""
    together = np.zeros((6, 6), int)
    for number in range(2000):
        for shard in assign(range(6), 3, number.to_bytes(32, "big")):
            together[np.ix_(shard, shard)] += 1
    pairs = together[np.triu_indices(6, 1)]
    assert abs(pairs - 400).max() < 5 * math.sqrt(2000 * 0.2 * 0.8)


@pytest.mark.parametrize("shards", [0, -1, 6])
def test_a_number_of_shards_that_cannot_be_is_refused(shards: int) -> None:
    for refuse in (lambda: assign(range(5), shards, SEED), lambda: shard_params(Params(), 5, shards)):
        with pytest.raises(ParameterError, match=f"shards must be from 1 to the 5 clients, not {shards}"):
            refuse()


def test_a_short_seed_and_a_client_listed_twice_are_refused() -> None:
    with pytest.raises(ParameterError, match="the seed of a division has 32 bytes"):
        assign(range(5), 2, bytes(16))
    with pytest.raises(InputError, match="a client is listed twice"):
        assign([1, 2, 2], 2, SEED)


def exceeds(clients: int, marked: int, drawn: int, most: int) -> Fraction:
    """P[more than ``most`` of ``drawn`` out of ``clients`` are among ``marked``], exactly."""
    ways = sum(
        math.comb(marked, hits) * math.comb(clients - marked, drawn - hits)
        for hits in range(most + 1, min(drawn, marked) + 1)
    )
    return Fraction(ways, math.comb(clients, drawn))


@pytest.mark.parametrize(
    ("clients", "shards", "corrupt", "lost"),
    [(1000, 10, 50, 100), (1000, 3, 50, 100), (101, 3, 3, 12), (400, 7, 1, 0), (600, 1, 30, 100), (2000, 19, 20, 300)],
)
@pytest.mark.parametrize("adversary", ["semi-honest", "active"])
def test_no_more_fall_into_any_shard_but_with_the_promised_probability(
    clients: int, shards: int, corrupt: int, lost: int, adversary: Any
) -> None:
    """And one fewer would break the promise: exact fractions, a union over the shards, the largest of which counts."""
    found = shard_params(Params(corrupt=corrupt, max_dropouts=lost, adversary=adversary), clients, shards)
    size = -(-clients // shards)
    bits = 40 + GRINDING_BITS * (adversary == "active")
    for marked, most, promised in ((corrupt, found.corrupt, bits), (lost, found.max_dropouts or 0, LIVENESS_BITS)):
        assert shards * exceeds(clients, marked, size, most) <= Fraction(1, 2**promised)
        assert most == 0 or shards * exceeds(clients, marked, size, most - 1) > Fraction(1, 2**promised)
        assert most <= marked


def test_security_bits_decide_how_rare_a_crowd_has_to_be() -> None:
    corrupt = [shard_params(Params(corrupt=20, security_bits=bits), 400, 4).corrupt for bits in (20, 40, 80)]
    assert corrupt == sorted(set(corrupt))


def test_dropouts_that_are_not_bounded_stay_a_third_of_each_shard() -> None:
    params = Params(corrupt=1, min_cohort=4, participation=0.5, neighbours=20, value_range=2.0)
    found = shard_params(params, 90, 3)
    assert found == replace(params, security_bits=42)  # of three sparse graphs, no weaker together than one of 40
    assert found.dropouts_tolerated(30, 2) == 10


def test_one_shard_bears_what_the_cohort_does() -> None:
    params = Params(corrupt=5, max_dropouts=10)
    assert shard_params(params, 40, 1) == params


@pytest.mark.parametrize(
    ("settings", "clients"),
    [
        ({"corrupt": 5, "max_dropouts": 10}, 100),
        ({"corrupt": 5, "max_dropouts": 10, "adversary": "active"}, 100),
        ({"min_cohort": 8}, 61),
        ({"max_dropouts": 30}, 200),
    ],
)
def test_shards_too_small_for_what_they_bear_are_refused_with_the_largest_number_that_works(
    settings: dict[str, Any], clients: int
) -> None:
    params = Params(**settings)

    def works(shards: int) -> bool:
        try:
            found = shard_params(params, clients, shards)
        except ParameterError:
            return False
        size = clients // shards
        lost = found.max_dropouts or 0
        assert size >= found.min_cohort + found.corrupt + lost
        return not lost or found.dropouts_tolerated(size, found.topology(size).needed) == lost

    most = max(shards for shards in range(1, clients) if works(shards))
    assert most > 1
    with pytest.raises(ParameterError, match=rf"min_cohort {params.min_cohort} \+ corrupt .*works is {most}; or lower"):
        shard_params(params, clients, clients // 2)


def test_where_not_even_one_shard_bears_it_the_other_settings_are_named() -> None:
    with pytest.raises(ParameterError, match="no number of shards works; or lower min_cohort, corrupt or max_dropouts"):
        shard_params(Params(max_dropouts=8), 10, 2)


def test_more_corrupt_clients_than_there_are_fill_a_shard() -> None:
    with pytest.raises(ParameterError, match=r"corrupt 5 .*no number of shards works"):
        shard_params(Params(corrupt=99), 10, 2)


def test_with_an_active_server_a_quorum_has_to_survive_the_dropouts() -> None:
    """In 8 shards of 25 a quorum is 14 with one corrupt client: 12 dropouts would leave 13."""
    params = Params(corrupt=1, max_dropouts=40, min_cohort=2)
    assert shard_params(params, 200, 8).max_dropouts == 16
    with pytest.raises(ParameterError, match="nor a quorum of 14 and so many dropouts"):
        shard_params(replace(params, adversary="active"), 200, 8)


def test_each_shard_has_a_session_of_its_own_that_is_otherwise_the_cohorts() -> None:
    shards = split(SESSION, range(20), 4, SEED)
    assert [shard.clients for shard in shards] == list(assign(range(20), 4, SEED))
    assert [shard.number for shard in shards] == [0, 1, 2, 3]
    assert len({shard.session.id for shard in shards} | {SESSION.id}) == 5
    for shard in shards:
        assert shard.session.params == shard_params(SESSION.params, 20, 4)
        assert shard.session.digest == replace(SESSION, id=shard.session.id, params=shard.session.params).digest


def test_session_ids_follow_from_the_round_the_seed_and_the_cohort() -> None:
    def ids(session: Session, clients: int, shards: int, seed: bytes) -> set[bytes]:
        return {shard.session.id for shard in split(session, range(clients), shards, seed)}

    again = ids(SESSION, 20, 4, SEED)
    assert again == ids(SESSION, 20, 4, SEED)
    others = [
        ids(replace(SESSION, id=bytes(15) + b"1"), 20, 4, SEED),
        ids(SESSION, 21, 4, SEED),
        ids(SESSION, 20, 3, SEED),
        ids(SESSION, 20, 4, bytes(32)),
    ]
    assert all(again.isdisjoint(other) for other in others)


def play(shard: Shard, ledgers: dict[int, Ledger], gone: int | None = None) -> frozenset[int]:
    """The survivors of a shard whose clients all bring the same in every round, and keep ledgers."""
    brought = {client: Contribution({"w": np.full(4, client / 8)}) for client in shard.clients}
    last_stage = {gone: Stage.SHARE_KEYS} if gone in brought else {}
    return frozenset(driver.run(shard.session, brought, last_stage, ledgers=ledgers).aggregate.survivors)


def test_within_one_division_ledgers_refuse_what_they_would_in_one_session() -> None:
    ledgers = {client: Ledger() for client in range(24)}
    for shard in split(SESSION, ledgers, 2, SEED):
        assert play(shard, ledgers) == set(shard.clients)
    again = split(replace(SESSION, id=bytes(15) + b"1"), ledgers, 2, SEED)
    for shard in again:
        if 5 in shard.clients:
            with pytest.raises(DifferencingError, match="would isolate 1 clients"):
                play(shard, ledgers, gone=5)
        else:
            assert play(shard, ledgers, gone=5) == set(shard.clients)


def test_across_divisions_no_ledger_sees_that_two_totals_differ_by_one_client() -> None:
    """The reason why a model has one division, and why ``simulate``, which draws anew, takes no ledgers."""
    ledgers = {client: Ledger() for client in range(24)}
    first = [play(shard, ledgers) for shard in split(SESSION, ledgers, 2, SEED)]
    again = split(replace(SESSION, id=bytes(15) + b"1"), ledgers, 2, bytes(32))
    second = [play(shard, ledgers, gone=5) for shard in again]
    assert frozenset.union(*first) - frozenset.union(*second) == {5}
    assert sum(ledger.refused for ledger in ledgers.values()) == 0


def test_counts_of_the_whole_cohort_are_refused() -> None:
    counted = CountedCoverage(frozenset(range(20)), np.full(4, 20, np.int32))
    with pytest.raises(ParameterError, match="split first, and count in each shard"):
        split(replace(SESSION, counted=counted), range(20), 4, SEED)


def test_a_shard_that_could_not_bear_what_it_has_to_is_refused_before_it_plays() -> None:
    layout = Layout((Tensor("w", (1,)),))
    for threshold, told in ((18, "lower share_threshold"), (40, "in a shard")):
        params = Params(max_dropouts=20, share_threshold=threshold)
        session = Session(id=bytes(16), params=params, layout=layout, mode="uniform")
        with pytest.raises(ParameterError, match=told):
            split(session, range(60), 3, bytes(32))
    unset = Session(id=bytes(16), params=Params(max_dropouts=20), layout=layout, mode="uniform")
    assert len(split(unset, range(60), 3, bytes(32))) == 3


@pytest.mark.parametrize("odd", [-1, 2**64, "seven"])
def test_ids_that_are_no_ids_are_refused(odd: object) -> None:
    with pytest.raises(InputError, match="client ids"):
        assign([0, 1, odd], 1, bytes(32))  # type: ignore[list-item]
