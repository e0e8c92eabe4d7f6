"""What the clients of a run have spent of their privacy, each in the rounds that it took part in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secagg.privacy.ledger import PrivacyLedger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from protocols.aggregators import Client
    from secagg.privacy.events import Event


class Spending:
    """A privacy ledger for every client.

    Args:
        delta: At which epsilon is told.
    """

    def __init__(self, delta: float) -> None:
        self.delta = delta
        self.ledgers: dict[str, PrivacyLedger] = {}

    def record(self, clients: Iterable[Client], event: Event) -> None:
        """Charges a round to the clients whose updates are in its sum.

        Raises:
            InputError: No accountant knows such events.
        """
        for client in clients:
            self.ledgers.setdefault(str(client), PrivacyLedger()).record(event)

    @property
    def epsilon(self) -> float:
        """The most that any client has spent; 0 before the first round."""
        return max((ledger.epsilon(self.delta) for ledger in self.ledgers.values()), default=0.0)

    def remember(self) -> dict[str, Any]:
        """All ledgers as plain data."""
        return {client: ledger.remember() for client, ledger in self.ledgers.items()}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Takes up where ``remember`` left off.

        Raises:
            InputError: No such data.
        """
        self.ledgers = {client: PrivacyLedger.recall(one) for client, one in memory.items()}
