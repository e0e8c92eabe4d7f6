"""An attack on the protocol: what somebody hostile does, what stops it, and what it gains where that is left out.

Each is run against the code as it is, where it has to fail, and against a build without the check that stops it, where
it has to reach its goal: a check that cannot fail proves nothing. Where several checks stand in the way, each of them
has to stop the attack by itself.
"""

from __future__ import annotations

import enum
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from secagg import session as sessions
from secagg.driver import Contribution
from secagg.errors import SecAggError
from secagg.layout import Layout, Tensor
from secagg.params import Params
from secagg.session import Session
from secagg.topology import topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from secagg.params import Mode
    from secagg.topology import Topology

VICTIM = 3
SIZE = 6
LAYOUT = Layout((Tensor("w", (SIZE,)),))
UPDATES = {id_: np.linspace(-1, 1, SIZE) * (1 + id_) / 10 for id_ in range(16)}


class Goal(enum.Enum):
    """What an attack is after."""

    OPEN = "the victim's encoded update, bit for bit"
    FALSIFY = "sums that are released although they are not those of what the clients brought"


@dataclass(frozen=True)
class Weakness:
    """A check left out: an attribute of a class or module of this project, and what stands there instead."""

    owner: Any
    name: str
    instead: Any


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attack.

    Args:
        name: Of the attack.
        threat: What the server does, or a client.
        stopped_by: The check that stops it, or the several, in words.
        session: The session that it attacks.
        play: Carries it out, and returns what comes of it: what the attacker makes of the victim's vector, or by how
            much each released sum is off the true one.
        weakness: For each of those checks the attribute that holds it, and what replaces it in the weakened build.
        goal: What the attack is after.
    """

    name: str
    threat: str
    stopped_by: str
    session: Session
    play: Callable[[Session], list[int]] = field(repr=False)
    weakness: tuple[Weakness, ...] = field(repr=False)
    goal: Goal = Goal.OPEN

    def reached_by(self, found: list[int]) -> bool:
        """Whether what comes of it is what it is after."""
        if self.goal is Goal.FALSIFY:
            return any(found)
        return found == encoded(self.session.params, UPDATES[VICTIM])


@dataclass(frozen=True)
class Outcome:
    """What became of an attack.

    Args:
        error: What stopped it, or None.
        succeeded: Whether it reached its goal.
    """

    error: SecAggError | None
    succeeded: bool


def attempt(attack: Attack, weakness: tuple[Weakness, ...] = ()) -> Outcome:
    """Carries out an attack, against the code as it is or, given ``attack.weakness``, without what stops it."""
    with _without(weakness):
        try:
            found = attack.play(replace(attack.session))  # a copy: sessions keep their digest, which builds disagree on
        except SecAggError as error:
            return Outcome(error, succeeded=False)
    return Outcome(None, attack.reached_by(found))


@contextmanager
def _without(weakness: tuple[Weakness, ...]) -> Iterator[None]:
    """A build without these checks."""
    kept = [(one, vars(one.owner)[one.name]) for one in weakness]
    try:
        for one in weakness:
            setattr(one.owner, one.name, one.instead)
        yield
    finally:
        for one, original in kept:
            setattr(one.owner, one.name, original)


def session(
    mode: Mode = "uniform",
    *,
    layout: Layout = LAYOUT,
    weighted: bool = False,
    model_root: bytes = b"",
    **settings: Any,
) -> Session:
    """A session over a vector of ``SIZE``, unless another layout is given."""
    return Session(
        id=bytes(range(16)),
        params=Params(**settings),
        layout=layout,
        mode=mode,
        weighted=weighted,
        model_root=model_root,
    )


def contributions(clients: int) -> dict[int, Contribution]:
    """What each of the first clients brings; client ``VICTIM`` is the victim."""
    return {id_: Contribution({"w": UPDATES[id_]}) for id_ in range(clients)}


def encoded(params: Params, update: Any, weight: int | None = None) -> list[int]:
    """An update of tensor ``w`` in exact integers, whatever its size; ``weight`` is an encoded one."""
    scale = (params.magnitude if weight is None else weight) / params.range_of("w")
    return [int(value) for value in np.rint(np.asarray(update) * scale)]


def nothing(*_: object, **__: object) -> None:
    """A check that lets everything pass."""


def wired(**instead: Any) -> Weakness:
    """A cohort wired by other numbers (of ``Topology``) than its settings demand."""

    def rewired(params: Params, mode: Mode, clients: int) -> Topology:
        return replace(topology(params, mode, clients), **instead)

    return Weakness(sessions, "topology", rewired)
