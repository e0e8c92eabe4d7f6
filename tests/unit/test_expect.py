"""What is expected of a session is what then happens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from secagg import commands, driver
from secagg.driver import Contribution
from secagg.errors import ParameterError
from secagg.layout import Layout, Tensor
from secagg.params import Params
from secagg.session import Session

if TYPE_CHECKING:
    from secagg.params import Adversary, Mode


@pytest.mark.parametrize("adversary", ["semi-honest", "active"])
@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
@pytest.mark.parametrize(("clients", "coordinates"), [(4, 1), (9, 700)])
def test_a_client_sends_and_receives_as_many_bytes_as_expected(
    clients: int, coordinates: int, mode: Mode, adversary: Adversary
) -> None:
    check_bytes(Params(adversary=adversary), clients, coordinates, mode)


def test_a_quorum_is_as_large_as_a_high_threshold_wants_it() -> None:
    params = Params(adversary="active", share_threshold=9, max_dropouts=0)
    wired = params.topology(10)
    assert (wired.quorum, wired.needed) == (6, 9)
    check_bytes(params, 10, 6, "uniform")


def check_bytes(params: Params, clients: int, coordinates: int, mode: Mode) -> None:
    """Expects a session and plays it."""
    expected = params.expect(clients, coordinates, mode)
    session = Session(id=bytes(16), params=params, layout=Layout((Tensor("w", (coordinates,)),)), mode=mode)
    brought = {id_: Contribution({"w": np.zeros(coordinates)}) for id_ in range(clients)}
    played = driver.run(session, brought)
    assert set(played.traffic.upload_bytes.values()) == {sum(expected.upload_bytes.values())}
    assert set(played.traffic.download_bytes.values()) == {sum(expected.download_bytes.values())}
    assert played.aggregate.plan.ring.bits == expected.ring_bits
    assert played.aggregate.plan.dropouts == expected.max_dropouts


def test_more_neighbours_more_coordinates_and_signatures_cost_more() -> None:
    small = Params().expect(5, 1000)
    assert 0 < small.client_seconds < Params().expect(40, 200_000).client_seconds
    assert 0 < small.server_seconds_per_dropout < Params().expect(40, 200_000).server_seconds_per_dropout
    assert small.client_seconds < Params(adversary="active").expect(150, 1000).client_seconds


def test_printed_it_is_a_table_that_names_what_chance_may_do() -> None:
    params = Params.for_cohort(1000, 0.1, 0.05)
    table = str(params.expect(1000, 10))
    assert "1000 clients, 10 coordinates, uniform, semi-honest server" in table
    assert "36 of them, chosen at random" in table
    assert "with probability 2^-40.6" in table
    assert "probability" not in str(Params().expect(5, 10))


def test_a_vector_needs_a_coordinate() -> None:
    with pytest.raises(ParameterError, match="coordinates must be at least 1"):
        Params().expect(5, 0)


def test_the_command_prints_the_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["params", "--clients", "1000", "--dropout", "0.1", "--corrupt", "0.05", "--coordinates", "10"]
    assert commands.main(arguments) == 0
    assert "shares that rebuild a secret 19 of 37" in capsys.readouterr().out
    assert commands.main([*arguments, "--adversary", "active", "--format", "json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert (written["topology"]["degree"], written["topology"]["threshold"]) == (108, 75)


def test_the_command_refuses_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["params", "--clients", "5", "--dropout", "0.9"]) == commands.FAILED
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("secagg: 5 clients")
    assert err.count("\n") == 1
