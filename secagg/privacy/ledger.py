"""What has been spent: every event of every round, and the epsilon of all of them together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final, get_args

import msgspec
import numpy as np

from secagg.errors import InputError, ParameterError
from secagg.privacy import pld
from secagg.privacy.events import Event
from secagg.privacy.rdp import ORDERS, epsilon_of, rdp, sampler_error

if TYPE_CHECKING:
    from collections.abc import Mapping

Accountant: TypeAlias = Literal["rdp", "pld"]
"""Who tells epsilon: Renyi divergences, for all events, or distributions of the privacy loss, for Gaussian noise."""


@final
class PrivacyLedger:
    """The events that the same data went through, in order.

    Curves of whatever mechanisms add up. One event without a guarantee makes epsilon infinite for good. Events that
    protect different units, clients and samples, belong into different ledgers.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._curve = np.zeros(len(ORDERS))
        self._error = 0.0

    def __repr__(self) -> str:
        return f"PrivacyLedger({len(self._events)} events)"

    @property
    def events(self) -> tuple[Event, ...]:
        """All events, the oldest first."""
        return tuple(self._events)

    def record(self, event: Event) -> None:
        """Adds what happened.

        Raises:
            InputError: No accountant knows such events; nothing is added.
        """
        curve, error = rdp(event), sampler_error(event)
        self._events.append(event)
        self._curve = self._curve + curve
        self._error += error

    def epsilon(self, delta: float, accountant: Accountant = "rdp") -> float:
        """What all events cost together at ``delta``; 0 before the first.

        Args:
            delta: In (0, 1).
            accountant: ``"pld"`` is for ``Gaussian`` and ``SampledGaussian`` alone, never tells more than ``"rdp"``,
                and needs the extra ``secagg[pld]``; see ``secagg.privacy.pld``.

        Raises:
            ParameterError: A setting outside its domain, an event that the accountant cannot count, or its package is
                not installed.
        """
        if accountant not in get_args(Accountant):
            raise ParameterError(f"accountant must be one of {get_args(Accountant)}, not {accountant!r}")
        spent = epsilon_of(self._curve, delta, self._error)
        if not self._events:
            return 0.0
        return spent if accountant == "rdp" else pld.epsilon(self._events, delta, spent)

    @property
    def private(self) -> bool:
        """Whether anything at all is guaranteed."""
        return math.isfinite(self._curve.min())

    def remember(self) -> dict[str, Any]:
        """Everything, as plain data that JSON can hold."""
        return {"events": [msgspec.to_builtins(event) for event in self._events]}

    @classmethod
    def recall(cls, memory: Mapping[str, Any]) -> PrivacyLedger:
        """The ledger that ``remember`` wrote down.

        Raises:
            InputError: No such data, or events that no accountant knows.
        """
        try:
            events = msgspec.convert(dict(memory), dict[str, list[Event]])["events"]
        except (msgspec.ValidationError, KeyError) as error:
            raise InputError(f"this is no privacy ledger: {error}") from None
        ledger = cls()
        for event in events:
            ledger.record(event)
        return ledger
