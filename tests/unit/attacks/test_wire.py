from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from attacks.wire.attack import SIZE, UPDATES, VICTIM, contributions, encoded, session
from attacks.wire.hostile import HostileServer
from attacks.wire.play import Play
from attacks.wire.sums import deviation
from secagg.driver import run
from secagg.errors import TooFewClientsError


def test_a_session_without_an_attack_deviates_nowhere() -> None:
    assert deviation(Play(session(), contributions(5))) == [0] * SIZE


def test_weighted_sums_and_their_weights_deviate_nowhere_either() -> None:
    brings = {client: replace(one, weight=(1 + client) / 8) for client, one in contributions(5).items()}
    assert deviation(Play(session(weighted=True), brings)) == [0] * (SIZE + 1)


def test_a_deviation_is_measured_against_what_was_brought() -> None:
    game = Play(session(), contributions(5))
    game.finish()
    game.contributions = contributions(5) | {4: replace(game.contributions[4], update={"w": np.zeros(SIZE)})}
    assert deviation(game) == encoded(session().params, UPDATES[4])


@pytest.mark.parametrize("adversary", ["semi-honest", "active"])
def test_a_hostile_server_that_plays_by_the_rules_gets_the_sums_of_an_honest_one(adversary: str) -> None:
    agreed = session(adversary=adversary, max_dropouts=2, neighbours=6, share_threshold=4)
    brings = contributions(10)
    server = HostileServer(agreed, brings)
    everybody = server.collect()
    server.finish(everybody, everybody)
    assert server.sums(everybody) == run(agreed, brings).aggregate.integers.tolist()


def test_a_hostile_server_takes_off_the_masks_of_dropouts() -> None:
    agreed, brings = session(max_dropouts=1), contributions(5)
    survivors = [0, 1, 2, 4]
    server = HostileServer(agreed, brings)
    server.collect()
    server.finish(survivors, survivors)
    without = {client: one for client, one in brings.items() if client != VICTIM}
    assert server.sums(survivors) == run(agreed, without).aggregate.integers.tolist()


def test_a_hostile_server_cannot_do_without_shares() -> None:
    server = HostileServer(session(), contributions(5))
    everybody = server.collect()
    server.unmask([0, 1], everybody)
    with pytest.raises(TooFewClientsError, match="2 shares of a secret that takes 3"):
        server.self_seed(VICTIM)
