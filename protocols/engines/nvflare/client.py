"""The client's side: a client object with three published methods, around training that knows nothing of them.

What is trained stays on the site. The update leaves masked, with the weight in the same sum, and nothing else. One
session is held at a time, in memory: a site that is started again has dropped out of the round.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from nvflare.collab import collab

from protocols.engines.nvflare.settings import Settings, number_of
from secagg import Client, Ledger, messages
from secagg.errors import SecAggError, UnexpectedMessageError
from secagg.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from secagg import Identity
    from secagg.driver import Contribution


class TrainingError(SecAggError):
    """Training failed. What it raised may quote its data, so it is in the site's log, and only its type goes out."""


class SecureClient:
    """Base of a client object that takes part in secure aggregation, and publishes nothing else.

    A subclass says what it agreed to in ``settings``, and trains in ``train``. NVFlare writes the constructor's
    arguments into the job, which the server sees; settings and secrets belong into neither.
    """

    settings: Settings = Settings()

    def __init__(self) -> None:
        self._serial = threading.Lock()
        self._ledger = self.ledger()
        self._client: Client | None = None
        self._brought: Contribution
        self._update: Mapping[str, NDArray[Any]]

    def train(self, model: Mapping[str, NDArray[Any]], round_number: int) -> Contribution:
        """What this site brings to a round.

        Args:
            model: Name to values, as the server sent them.
            round_number: The round.

        Returns:
            The change of the model under the names of the model (``secagg.delta``), what is not floating point may be
            missing; with a weight if the settings are weighted, and in a mask-indexed session with the mask.
        """
        raise NotImplementedError

    def identity(self) -> Identity | None:
        """This site's signing key, from a place that no job writes to; None for a semi-honest server."""
        return None

    def ledger(self) -> Ledger:
        """What this site remembers of its sessions, asked for once. It lasts for the job, unless it is kept."""
        return Ledger()

    @collab.publish  # type: ignore[untyped-decorator]
    def secagg_begin(self, session: bytes, round_number: int, model: Any) -> bytes:
        """Trains, and advertises keys for a session.

        Raises:
            SecAggError: As ``Client``; ``TrainingError`` where ``train`` raised.
        """
        with self._serial:
            self._client = None
            agreed = self.settings.session(session, round_number, model)
            numbers = self.settings.numbers([proxy.name for proxy in collab.clients])
            client = Client(
                number_of(collab.site_name, numbers),
                agreed,
                self.identity(),
                self.settings.by_number(),
                ledger=self._ledger,
            )
            self._brought, self._update = self._trained(model, round_number)
            answer = client.advertise_keys()
            self._client = client
            return answer

    @collab.publish  # type: ignore[untyped-decorator]
    def secagg_answer(self, session: bytes, message: bytes) -> bytes:
        """Answers a message of that session. A site that refuses has dropped out, since nobody asks it again.

        Raises:
            SecAggError: As ``Client``.
        """
        with self._serial:
            client = self._in(session)
            match messages.decode(message):
                case messages.Roster():
                    return client.share_keys(message, self._brought.mask, self._brought.weight)
                case messages.RelayedShares():
                    return client.masked_input(message, self._update)
                case messages.ConsistencyRequest():
                    return client.check_consistency(message)
                case messages.UnmaskRequest():
                    answer = client.unmask(message)
                    self._forget()
                    return answer
                case _:
                    raise UnexpectedMessageError("no message for a client")

    @collab.publish  # type: ignore[untyped-decorator]
    def secagg_abandon(self, session: bytes, used_up: bool) -> None:  # noqa: FBT001 - NVFlare passes values by name
        """Forgets a session. Whether a sum may have come out of it, the word of a semi-honest server decides alone."""
        with self._serial:
            if not used_up and not self.settings.params.active:
                self._ledger.abandon(session)
            if self._client is not None and self._client.session.id == session:
                self._forget()

    def _trained(
        self, model: Mapping[str, NDArray[Any]], round_number: int
    ) -> tuple[Contribution, Mapping[str, NDArray[Any]]]:
        """What was trained, and its update as arrays."""
        structure = Structure(model)
        buffers = {name: model[name] for name in structure.unchanged}
        try:
            brought = self.train(model, round_number)
            return brought, structure.arrays({**buffers, **brought.update}, collab.site_name)
        except SecAggError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is may quote data
            collab.context.app.logger.exception("train raised")
            reason = f"{type(error).__name__} in train: the log of the site says more"
        raise TrainingError(reason)  # outside, so that no traceback of what was raised goes along

    def _in(self, session: bytes) -> Client:
        if self._client is None or self._client.session.id != session:
            raise UnexpectedMessageError("this site keeps nothing of that session: it was restarted, or has left it")
        return self._client

    def _forget(self) -> None:
        self._client = None
        del self._brought, self._update
