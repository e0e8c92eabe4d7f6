"""The server's side: one round as a function over Collab's proxies.

Every stage is a call to each site, all at once; a site that raises, or does not answer in time, has dropped out. With a
semi-honest server a round is four calls a site, with an active one five.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from nvflare.collab import CollabCallError, collab

from protocols.engines.nvflare.settings import number_of
from protocols.engines.reasons import printable
from secagg import Round, Server
from secagg.errors import DecodingError, RemoteProtocolError
from secagg.session import ID_BYTES
from secagg.structure import Structure
from secagg.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from protocols.engines.nvflare.settings import Settings
    from secagg import Aggregate


@dataclass(frozen=True, eq=False)
class Outcome:
    """A round that ended.

    Args:
        aggregate: Its result.
        model: The model after the mean, in the types of the one before; what is withheld or not aggregated as it was.
        failures: Stage to site to why its answer is missing.
    """

    aggregate: Aggregate = field(repr=False)
    model: dict[str, NDArray[Any]] = field(repr=False)
    failures: Mapping[str, Mapping[str, str]]

    @property
    def verdict(self) -> str:
        """Who learned what."""
        return verdict(self.aggregate)


def secure_round(
    clients: Iterable[Any],
    model: Mapping[str, NDArray[Any]],
    settings: Settings,
    *,
    round_number: int = 0,
    training_timeout: float = 3600.0,
    timeout: float = 600.0,
) -> Outcome:
    """Has clients train, and moves the model by the mean of their updates. To be called in ``@collab.main``.

    Args:
        clients: Proxies of those that take part, whose client objects are ``SecureClient``.
        model: Name to values.
        settings: What the clients have agreed to.
        round_number: What clients are told.
        training_timeout: Seconds for training, with which a round begins.
        timeout: Seconds for each later answer.

    Raises:
        AbortError: Too few clients, the release rule lets nothing out, or the sums contradict their checksum. The model
            stays as it is. Once sites were asked to unmask the sum may be known: they send nothing more for this model
            then, and training goes on from another one only.
        RemoteProtocolError: What clients shared or revealed contradicts itself.
        ParameterError: Settings that do not fit the cohort.

    A note on each of them says which sites failed, and why.
    """
    playing = _Playing(list(clients), model, settings, round_number)
    try:
        playing.stage("secagg_begin", playing.proposals(model, round_number), training_timeout)
        while playing.server.round is not Round.DONE:
            playing.stage("secagg_answer", playing.outgoing, timeout)
    except BaseException as error:
        playing.abandon(playing.sites, used_up=playing.used_up)
        error.add_note(f"why answers are missing, by stage and site: {playing.failures}")
        raise
    playing.abandon(set(playing.sites).difference(playing.answered), used_up=True)
    aggregate = playing.server.outcome
    steps = aggregate.plan.session.layout.by_tensor(np.nan_to_num(aggregate.mean, nan=0.0))
    return Outcome(aggregate, Structure(model).moved(model, steps), playing.failures)


class _Playing:
    """One session with sites."""

    def __init__(
        self, clients: list[Any], model: Mapping[str, NDArray[Any]], settings: Settings, round_number: int
    ) -> None:
        session = settings.session(os.urandom(ID_BYTES), round_number, model)
        self.sites = {proxy.name: proxy for proxy in clients}
        self._numbers = settings.numbers([proxy.name for proxy in collab.clients])
        self._names = {number_of(name, self._numbers): name for name in self.sites}
        self.server = Server(session, list(self._names), settings.by_number())
        self.outgoing: dict[str, dict[str, Any]] = {}
        self.answered: set[str] = set()
        self.failures: dict[str, dict[str, str]] = {}

    @property
    def used_up(self) -> bool:
        """Whether a sum may come out, if the session breaks off here: sites were asked for shares."""
        return self.server.round is Round.UNMASK or self.server.round is Round.DONE

    def proposals(self, model: Mapping[str, NDArray[Any]], round_number: int) -> dict[str, dict[str, Any]]:
        """What a session begins with."""
        said = {"session": self.server.session.id, "round_number": round_number, "model": dict(model)}
        return dict.fromkeys(self.sites, said)

    def stage(self, method: str, calls: Mapping[str, Mapping[str, Any]], timeout: float) -> None:
        """Calls sites, each with what is for it, hands over what they answer, and closes the round of the protocol."""
        self.answered = set()
        failures = self.failures[self.server.round.value] = {}
        with ThreadPoolExecutor(max(1, len(calls))) as pool:
            running = {
                pool.submit(getattr(self.sites[name](timeout=timeout), method), **said): name
                for name, said in calls.items()
            }
            for call in as_completed(running):
                try:
                    self._receive(running[call], call.result())
                except (CollabCallError, RemoteProtocolError) as error:
                    failures[running[call]] = printable(f"{type(error).__name__}: {error}")
        outgoing = self.server.close_round()
        session = self.server.session.id
        self.outgoing = {self._names[n]: {"session": session, "message": data} for n, data in outgoing.items()}

    def abandon(self, names: Iterable[str], *, used_up: bool) -> None:
        """Tells sites to forget the session, and waits for no answer."""
        for name in sorted(names):
            self.sites[name](expect_result=False, optional=True).secagg_abandon(self.server.session.id, used_up)

    def _receive(self, name: str, data: Any) -> None:
        if not isinstance(data, bytes):
            raise DecodingError("a site answers something other than bytes")
        self.server.receive(data, self._numbers[name])
        self.answered.add(name)
