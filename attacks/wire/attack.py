"""An attack on the protocol: what the server does, what stops it, and what it gains where that is left out.

Each is run against the clients as they are, where it has to fail, and against a build without the check that stops it,
where it has to open the victim's update bit for bit: a check that cannot fail proves nothing. Where several checks
stand in the way, each of them has to stop the attack by itself.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from secagg.driver import Contribution
from secagg.errors import SecAggError
from secagg.layout import Layout, Tensor
from secagg.params import Params
from secagg.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from secagg.params import Mode

VICTIM = 3
SIZE = 6
LAYOUT = Layout((Tensor("w", (SIZE,)),))
UPDATES = {id_: np.linspace(-1, 1, SIZE) * (1 + id_) / 10 for id_ in range(16)}


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
        threat: What the server does.
        stopped_by: The check that stops it, or the several, in words.
        session: The session that it attacks.
        play: Carries it out, and returns what the server makes of it: the victim's encoded update, if it succeeds.
        weakness: For each of those checks the attribute that holds it, and what replaces it in the weakened build.
    """

    name: str
    threat: str
    stopped_by: str
    session: Session
    play: Callable[[Session], list[int]] = field(repr=False)
    weakness: tuple[Weakness, ...] = field(repr=False)

    @property
    def target(self) -> list[int]:
        """What the server is after."""
        params = self.session.params
        return [int(value) for value in np.rint(UPDATES[VICTIM] * (params.magnitude / params.range_of("w")))]


@dataclass(frozen=True)
class Outcome:
    """What became of an attack.

    Args:
        error: What stopped it, or None.
        opened: Whether the server ended up with the victim's update, bit for bit.
    """

    error: SecAggError | None
    opened: bool


def attempt(attack: Attack, weakness: tuple[Weakness, ...] = ()) -> Outcome:
    """Carries out an attack, against the clients as they are or, given ``attack.weakness``, without what stops it."""
    with _without(weakness):
        try:
            found = attack.play(attack.session)
        except SecAggError as error:
            return Outcome(error, opened=False)
    return Outcome(None, opened=found == attack.target)


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


def session(mode: Mode = "uniform", *, model_root: bytes = b"", **settings: Any) -> Session:
    """A session over a vector of ``SIZE``."""
    return Session(id=bytes(range(16)), params=Params(**settings), layout=LAYOUT, mode=mode, model_root=model_root)


def contributions(clients: int) -> dict[int, Contribution]:
    """What each of the first clients brings; client ``VICTIM`` is the victim."""
    return {id_: Contribution({"w": UPDATES[id_]}) for id_ in range(clients)}


def nothing(*_: object) -> None:
    """A check that lets everything pass."""
