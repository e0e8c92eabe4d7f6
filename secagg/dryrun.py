"""A round that is not played: what its sessions would cost, and what they would release."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from secagg import counts, declaration
from secagg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from secagg.declaration import Declaration
    from secagg.expect import Expectation
    from secagg.explain import Explanation
    from secagg.layout import Layout
    from secagg.params import Mode, Params

WHOLE = "whole update"
PRUNED = "smallest update"
COUNTING = "counting before"


@dataclass(frozen=True)
class DryRun:
    """What a round would take.

    Args:
        sessions: What to expect of the session, as ``"whole update"``: for a client that holds everything. A uniform
            session of pruned updates has the ``"counting before"`` it too; in a mask-indexed one, ``"smallest update"``
            is what the client that holds least can expect.
        explanation: What it would withhold.
    """

    sessions: Mapping[str, Expectation]
    explanation: Explanation

    @property
    def released_share(self) -> float:
        """Share of all coordinates that would be released."""
        return 1 - self.explanation.withheld_share

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "sessions": {name: expected.to_json() for name, expected in self.sessions.items()},
            "released_share": self.released_share,
            "explanation": asdict(self.explanation),
            "remedy": self.explanation.remedy,
        }

    def __str__(self) -> str:
        parts = [f"{name}: {expected}" for name, expected in self.sessions.items()]
        return "\n".join([*parts, f"releases {self.released_share:.1%} of the coordinates", str(self.explanation)])


def dry_run(params: Params, masks: Mapping[Any, Declaration], mode: Mode, layout: Layout) -> DryRun:
    """What a round with these masks would take, before anybody trains.

    Args:
        params: The settings.
        masks: Client to what it would declare, ``declaration.FULL`` for those that are not pruned.
        mode: Of the session.
        layout: Of the updates.

    Raises:
        InputError: No client.
        ParameterError: Settings that contradict the mode, or do not fit a cohort of this size.
        TooFewClientsError: Fewer clients than ``min_cohort + corrupt``.
    """
    if not masks:
        raise InputError("masks holds no client")
    clients, sessions = len(masks), {}
    held = {one: int(declaration.expand(layout, one).sum()) for one in set(masks.values())}
    least = min(held.values())
    if mode == "uniform" and least < layout.size:
        size = counts.counting_layout(layout).size
        sessions[COUNTING] = counts.counting_params(params).expect(clients, size, mode)
    sessions[WHOLE] = params.expect(clients, layout.size, mode)
    if mode == "mask-indexed" and 0 < least < layout.size:
        sessions[PRUNED] = params.expect(clients, least, mode)
    return DryRun(sessions, params.explain(masks, mode, layout))
