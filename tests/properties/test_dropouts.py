"""Small cohorts, exhaustively: whoever drops out, and whenever, the sum is right or the error is the named one."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from secagg import driver
from secagg.driver import Contribution, Stage
from secagg.errors import SecAggError
from secagg.layout import Layout, Tensor
from secagg.params import Mode, Params
from secagg.session import Session
from tests.properties.plain import Plain
from tests.strategies import Mask, Scenario

HELD = ((1, 1, 0), (1, 1, 1), (1, 0, 1), (1, 1, 1))


def scenario(mode: Mode, stages: tuple[Stage, ...]) -> Scenario:
    session = Session(
        id=bytes(16),
        params=Params(min_cohort=2, levels=2**12),
        layout=Layout((Tensor("w", (3,)),)),
        mode=mode,
    )
    masks = {}
    for id_ in range(len(stages)):
        held = np.array(HELD[id_], bool)
        masks[id_] = Mask(held, held) if mode == "mask-indexed" else Mask(None, np.ones(3, bool))
    update = np.array([1.0, -0.5, 0.25])
    contributions = {id_: Contribution({"w": update * (id_ + 1)}, masks[id_].given) for id_ in masks}
    return Scenario(session, contributions, masks, dict(enumerate(stages)), 0)


@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
@pytest.mark.parametrize("clients", [3, 4])
def test_every_way_of_dropping_out_ends_in_the_right_sum_or_the_right_error(mode: Mode, clients: int) -> None:
    endings: Counter[str] = Counter()
    for stages in itertools.product(Stage, repeat=clients):
        if clients == 4 and len(set(stages) - {Stage.UNMASK}) > 1:
            continue  # with four clients, those that drop out do so at one stage
        played = scenario(mode, stages)
        plain = Plain(played)
        if plain.failure is None:
            aggregate = driver.run(
                played.session, played.contributions, played.last_stage, entropy_of=played.entropy_of
            ).aggregate
            assert aggregate.integers.tolist() == plain.integers
            assert aggregate.survivors == tuple(plain.survivors)
            endings["sum"] += 1
        else:
            with pytest.raises(SecAggError) as raised:
                driver.run(played.session, played.contributions, played.last_stage, entropy_of=played.entropy_of)
            assert type(raised.value) is plain.failure
            endings[plain.failure.__name__] += 1
    assert endings == ENDINGS[clients]


ENDINGS = {3: {"sum": 13, "TooFewClientsError": 112}, 4: {"sum": 23, "TooFewClientsError": 38}}
"""Clients to how many of the ways end how, in either mode.

Three clients, two shares rebuild a secret: all share and at most one drops out later (1 + 2 * 3), or one is gone before
it shares and the others stay to the end (2 * 3). Four: nobody drops out, one does (4 stages * 4), or two never come
(6); once all have advertised, three shares rebuild a secret, and two who are gone are too many.
"""
