"""Small cohorts, exhaustively: whoever drops out, and whenever, the sum is right or the error is the named one."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from secagg import driver
from secagg.driver import Contribution, Stage
from secagg.errors import SecAggError
from secagg.layout import Layout, Tensor
from secagg.params import Adversary, Mode, Params
from secagg.session import Session
from tests.properties.plain import Plain
from tests.strategies import Mask, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HELD = ((1, 1, 0), (1, 1, 1), (1, 0, 1), (1, 1, 1), (1, 1, 0))


def scenario(mode: Mode, adversary: Adversary, stages: Sequence[Stage]) -> Scenario:
    session = Session(
        id=bytes(16),
        params=Params(min_cohort=2, levels=2**12, adversary=adversary),
        layout=Layout((Tensor("w", (3,)),)),
        mode=mode,
    )
    masks = {}
    for id_ in range(len(stages)):
        held = np.array(HELD[id_], bool)
        masks[id_] = Mask(held, held) if mode == "mask-indexed" else Mask(None, np.ones(3, bool))
    update = np.array([1.0, -0.5, 0.25])
    contributions = {id_: Contribution({"w": update * (id_ + 1) / 2}, masks[id_].given) for id_ in masks}
    return Scenario(session, contributions, masks, dict(enumerate(stages)), 0)


def ways(clients: int) -> Iterator[Sequence[Stage]]:
    """The last stage of each client: of three clients any, of more any set of clients at one stage."""
    if clients == 3:
        yield from itertools.product(Stage, repeat=3)
        return
    yield [Stage.UNMASK] * clients
    for leaving in itertools.product([False, True], repeat=clients):
        for stage in Stage:
            if any(leaving) and stage is not Stage.UNMASK:
                yield [stage if leaves else Stage.UNMASK for leaves in leaving]


@pytest.mark.parametrize("adversary", ["semi-honest", "active"])
@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
@pytest.mark.parametrize("clients", [3, 4, 5])
def test_every_way_of_dropping_out_ends_in_the_right_sum_or_the_right_error(
    clients: int, mode: Mode, adversary: Adversary
) -> None:
    endings: Counter[str] = Counter()
    for stages in ways(clients):
        played = scenario(mode, adversary, stages)
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


ENDINGS = {
    3: {"sum": 16, "TooFewClientsError": 200},
    4: {"sum": 27, "TooFewClientsError": 49},
    5: {"sum": 76, "TooFewClientsError": 80},
}
"""Clients to how many of the ways end how, in either mode and against either adversary.

Three clients, two shares rebuild a secret: all share and at most one drops out later (1 + 3 * 3), or one is gone before
it shares and the others stay to the end (2 * 3). Four: nobody drops out, one does (5 stages * 4), or two never come
(6); once all have advertised, three shares rebuild a secret, and two who are gone are too many. Five, three shares as
well, and four vectors: nobody, one (5 * 5), two except between their shares and their vectors (4 * 10), or three who
never come (10).
"""
