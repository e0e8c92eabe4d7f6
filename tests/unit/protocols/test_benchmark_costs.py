"""Formulas of cost: fits recover constants, lengths of messages are exact, predictions follow."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from protocols.benchmark import costs, lengths, prediction
from protocols.benchmark.costs import Cohort, Fit, client_counts, fit, server_counts
from protocols.benchmark.stages import CLIENT_STAGES, DROPOUT, LEVELS, session_over
from secagg import Client, Params, Server, messages
from secagg.errors import InputError

COHORTS = [
    Cohort(clients=n, neighbours=k, threshold=k // 2 + 1, coordinates=d, dropped=dropped)
    for n, k in ((11, 10), (51, 50), (201, 200), (500, 80), (1000, 36))
    for d in (1_000, 100_000, 1_000_000)
    for dropped in (0, n // 10)
]


@pytest.mark.parametrize("stage", CLIENT_STAGES)
@pytest.mark.parametrize("counted", [client_counts, server_counts])
def test_a_fit_recovers_the_constants_that_measurements_were_made_of(stage: str, counted: object) -> None:
    assert callable(counted)
    counts = [counted(stage, cohort) for cohort in COHORTS]
    true = {name: 10.0 ** -(4 + number) for number, name in enumerate(counts[0])}
    found = fit(counts, [sum(true[name] * count for name, count in one.items()) for one in counts])
    assert found.constants == pytest.approx(true, rel=1e-4)
    assert found.residual < 1e-6
    assert found.points == len(COHORTS)


def test_a_fit_says_how_far_measurements_are_from_it() -> None:
    found = fit([{"session": 1.0}, {"session": 1.0}], [1.0, 3.0])
    # c minimises (c - 1)^2 + (c / 3 - 1)^2: c = (1 + 1/3) / (1 + 1/9)
    assert found.constants["session"] == pytest.approx(1.2)
    assert found.residual == pytest.approx(((0.2**2 + 0.6**2) / 2) ** 0.5)


def test_no_constant_is_negative() -> None:
    found = fit([{"one": 1.0, "more": float(n)} for n in (1, 2, 3)], [3.0, 2.0, 1.0])
    assert found.constants["more"] == 0
    assert found.constants["one"] > 0


def test_a_fit_without_measurements_is_refused() -> None:
    with pytest.raises(InputError, match="no measurements"):
        fit([], [])


def test_streams_that_the_server_takes_off_are_those_of_survivors_and_of_lost_pairs() -> None:
    """Counted one by one in a complete graph of 10, of whom 3 are gone: 7 self masks, 3 * 7 pairwise ones."""
    counts = server_counts("Unmask", Cohort(clients=10, neighbours=9, threshold=6, coordinates=5, dropped=3))
    pairs = sum(1 for gone in range(3) for there in range(3, 10) if gone != there)
    assert counts["coordinate of a mask"] == pytest.approx(5 * (7 + pairs * 9 / 10))


@pytest.mark.parametrize(
    ("clients", "settings"),
    [(6, {"max_dropouts": 1}), (20, {}), (130, {}), (260, {"max_dropouts": 10, "neighbours": 32})],
)
def test_lengths_of_messages_are_foreseen_to_the_byte(clients: int, settings: dict[str, int]) -> None:
    session = session_over(500, Params(**settings))  # type: ignore[arg-type]
    server, cohort = Server(session), [Client(number, session) for number in range(clients)]
    advertised = [client.advertise_keys() for client in cohort]
    for message in advertised:
        server.receive(message)
    roster = server.close_round()
    graph, _ = session.topology(range(clients), os.urandom(32))
    everybody, last = range(clients), clients - 1
    shared = [client.share_keys(roster[client.id]) for client in cohort]
    for message in shared:
        server.receive(message)
    relayed = server.close_round()
    vector = cohort[last].masked_input(relayed[last], {"weights": np.zeros(500, np.float32)})
    survivors = messages.write_bitmap(everybody, everybody)
    request = messages.encode(messages.UnmaskRequest(session.id, survivors))
    answer = cohort[last].unmask(request)
    sealed = messages.decode(shared[last])
    assert isinstance(sealed, messages.ShareKeys)
    neighbours = [one.holder for one in sealed.shares]
    assert len(neighbours) == graph.degree
    assert [
        len(advertised[last]),
        len(roster[last]),
        len(shared[last]),
        len(relayed[last]),
        len(vector),
        len(request),
        len(answer),
    ] == [
        lengths.advertise_keys(last),
        lengths.roster(everybody),
        lengths.share_keys(last, neighbours),
        lengths.relayed_shares(last, everybody, neighbours),
        lengths.masked_input(last, session.params.ring(clients).nbytes(500)),
        lengths.unmask_request(clients),
        lengths.unmask(last, [*neighbours, last]),
    ]


@pytest.mark.parametrize("value", [0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1])
def test_lengths_of_heads_are_those_of_messagepack(value: int) -> None:
    import msgspec

    assert lengths.number(value) == len(msgspec.msgpack.encode(value))
    if value < 10**5:
        assert lengths.array(value) == len(msgspec.msgpack.encode([1] * value)) - value
        assert lengths.binary(value) == len(msgspec.msgpack.encode(bytes(value)))


def of_one_each(counted: object, stages: tuple[str, ...]) -> dict[str, Fit]:
    """A second, or a byte, for every operation."""
    assert callable(counted)
    return {stage: Fit(dict.fromkeys(counted(stage, COHORTS[0]), 1.0), 0.0, 1) for stage in stages}


FITS = {
    "client": of_one_each(client_counts, CLIENT_STAGES),
    "server": of_one_each(server_counts, (*CLIENT_STAGES, costs.MEMORY, DROPOUT)),
}


def test_shards_keep_what_a_client_receives_and_its_ring_as_they_are_in_one_of_them() -> None:
    whole, shards = (prediction.predict(FITS, 10_000, count) for count in (1, 10))
    assert (whole.ring_bits, shards.ring_bits) == (64, 32)
    assert whole.download_bytes > 9 * shards.download_bytes
    assert whole.neighbours < shards.neighbours  # more of the dropouts than its part may fall into a shard
    assert shards.server_bytes < whole.server_bytes


def test_shards_are_as_many_servers() -> None:
    one = prediction.predict(FITS, 1_000, 1)
    params = Params(max_dropouts=100, corrupt=50, levels=LEVELS)
    wired = params.topology(1_000)
    of = Cohort(clients=1_000, neighbours=wired.degree, threshold=wired.threshold, coordinates=1_000_000, dropped=100)
    seconds = sum(sum(server_counts(stage, of).values()) for stage in CLIENT_STAGES)
    assert one.server_seconds == pytest.approx(seconds)
    assert one.last_seconds == pytest.approx(sum(server_counts("Unmask", of).values()))
    assert replace(of, dropped=0).survivors == 1_000
