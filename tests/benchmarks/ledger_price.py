"""What the ledger costs: how many sessions a client refuses, so that they and those before isolate nobody.

    python tests/benchmarks/ledger_price.py [--clients 20 100] [--dropouts 0 0.02 0.05 0.1] [--rounds 100] [--repeats 3]
        [--min-cohort 3] [--format json]

Every client takes part in every session and drops out of it after ShareKeys with the given probability; the ledger is
that of a client that never does, so it sees all of them. Three ways to live with it:

    new model   scope "model", each round starts from a new model
    retried     scope "model", and a session that somebody dropped out of is played again from the same model, up to
                three times in all, in the hope of hearing from everybody
    all         scope "all", each round starts from a new model

A session that the ledger refused has the client's vector all the same. It is abandoned here, as by somebody who knows
that it was not released; without that, "retried" would end with a round's first refusal, and "all" with the first of
all. So it is with a client that loses its connection after its vector is out, and with rounds that break off then: they
cost what a new model costs, or somebody's word.

A session with more dropouts than the settings tolerate is nobody's refusal and is not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from secagg.declaration import FULL
from secagg.errors import DifferencingError, UnmaskRefusedError
from secagg.layout import Layout, Tensor
from secagg.ledger import Ledger, Scope
from secagg.messages import Participant
from secagg.params import Params
from secagg.release import Plan
from secagg.session import ROOT_BYTES, Session

if TYPE_CHECKING:
    from collections.abc import Sequence

WAYS: dict[str, tuple[Scope, int]] = {"new model": ("model", 1), "retried": ("model", 3), "all": ("all", 1)}
"""Name to the scope of the ledger, and how often a round is played at most."""


@dataclass(frozen=True)
class Price:
    """Sessions of all repeats that came to the ledger, and those that it refused."""

    way: str
    clients: int
    dropout: float
    sessions: int
    refused: int

    @property
    def share(self) -> float:
        """Share of sessions refused."""
        return self.refused / self.sessions if self.sessions else 0.0


class Cohort:
    """Clients that play rounds, and the ledger of client 0.

    Args:
        clients: How many.
        dropout: Probability that any but client 0 drops out of a session.
        params: The settings.
        scope: Of the ledger.
        seed: Of the dropouts.
    """

    def __init__(self, clients: int, dropout: float, params: Params, scope: Scope, seed: int) -> None:
        self.sessions = 0
        self.ledger = Ledger(scope)
        self._dropout = dropout
        self._random = np.random.default_rng(seed)
        self._session = Session(id=bytes(16), params=params, layout=Layout((Tensor("w", (1,)),)), mode="uniform")
        self._threshold = params.topology(clients).threshold
        self._participants = [Participant(client, FULL, None) for client in range(clients)]

    def play(self, model: bytes) -> bool:
        """One session from this model; whether everybody survived it."""
        session = replace(self._session, id=self._random.bytes(16), model_root=model)
        plan = Plan(session, self._threshold, self._participants)
        alive = self._random.random(len(plan.clients)) >= self._dropout
        alive[0] = True
        survivors = np.flatnonzero(alive).tolist()
        try:
            plan.check_survivors(survivors)
        except UnmaskRefusedError:
            return False
        self.sessions += 1
        self.ledger.send(session)
        try:
            self.ledger.agree(plan, survivors)
        except DifferencingError:
            self.ledger.abandon(session.id)
            return False
        self.ledger.settle(session.id)
        return bool(alive.all())


def price(way: str, clients: int, dropout: float, params: Params, *, rounds: int, repeats: int) -> Price:
    """What so many rounds cost, the given number of times from scratch."""
    scope, tries = WAYS[way]
    sessions = refused = 0
    for seed in range(repeats):
        cohort = Cohort(clients, dropout, params, scope, seed)
        for number in range(rounds):
            for _ in range(tries):
                if cohort.play(number.to_bytes(ROOT_BYTES, "big")):
                    break
        sessions += cohort.sessions
        refused += cohort.ledger.refused
    return Price(way, clients, dropout, sessions, refused)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each size, dropout rate and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--dropouts", type=float, nargs="+", default=[0.0, 0.02, 0.05, 0.1])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--min-cohort", type=int, default=3)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    chosen = parser.parse_args(arguments)
    params = Params(min_cohort=chosen.min_cohort)
    cases = [(way, clients, dropout) for clients in chosen.clients for dropout in chosen.dropouts for way in WAYS]
    if chosen.format == "table":
        say(f"{chosen.repeats} x {chosen.rounds} rounds, min_cohort {chosen.min_cohort}; sessions refused")
        say(f"{'clients':>7} {'dropout':>7}  {'way':<10} {'sessions':>8} {'refused':>7} {'share':>7}")
    found = []
    for case in cases:
        found.append(price(*case, params, rounds=chosen.rounds, repeats=chosen.repeats))
        if chosen.format == "table":
            last = found[-1]
            say(
                f"{last.clients:7} {last.dropout:7.0%}  {last.way:<10} {last.sessions:8} {last.refused:7} "
                f"{last.share:7.1%}"
            )
    if chosen.format == "json":
        say(json.dumps([asdict(one) | {"share": one.share} for one in found], indent=2))
    return 0


def say(line: str) -> None:
    """Writes a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
