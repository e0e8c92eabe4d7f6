"""One plain sentence about a round: who learned what, and how small the smallest group was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secagg.aggregate import Aggregate
from secagg.privacy.calibrate import epsilon_after
from secagg.privacy.events import NonPrivate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from secagg.aggregate import Revealed
    from secagg.combining import Combined, Outcome
    from secagg.privacy.events import Event
    from secagg.privacy.settings import Privacy


def verdict(outcome: Outcome) -> str:
    """What a deployment of this round reveals, and to whom."""
    params, event = outcome.params, outcome.event
    against = "an active server that signatures hold to one story" if params.active else "a semi-honest server"
    if params.corrupt:
        against += f" colluding with up to {params.corrupt} clients"
    if isinstance(outcome, Aggregate):
        parts = [f"deployed, {against} would learn {_sum(outcome)}"]
    else:
        parts = [f"deployed, {against}{' of each shard' * bool(params.corrupt)} would learn {_sums(outcome)}"]
    parts += _withheld(outcome)
    parts.append(_masks(outcome.revealed))
    if params.privacy is not None and event is not None:
        parts.append(_privacy(params.privacy, event, "session" if isinstance(outcome, Aggregate) else "round"))
    if outcome.revealed.weights is not None:
        parts.append(_weights(outcome.revealed))
    return ", ".join(parts) + ", and nothing else about any client; a client that lies inside the range is not noticed."


def _sum(aggregate: Aggregate) -> str:
    return (
        f"the {aggregate.mode} sum over {len(aggregate.survivors)} survivors, at every released coordinate over at "
        f"least {aggregate.smallest_group} of them"
    )


def _sums(combined: Combined) -> str:
    """All that follows is of each shard too."""
    opened = sum(one.opened for one in combined.lost)
    late = f", {opened} of them when the server may have seen the sum" if opened else ""
    aborted = f" ({len(combined.lost)} more aborted{late})" if combined.lost else ""
    return (
        f"of each of {len(combined.shards)} random shards{aborted} the {combined.mode} sum over its survivors, "
        f"{combined.smallest_shard} in the smallest shard and {len(combined.survivors)} in all, at every coordinate "
        f"that it releases over at least {combined.smallest_group} of them"
    )


def _withheld(outcome: Outcome) -> list[str]:
    parts = [f"{_share(~outcome.released)} of the coordinates are withheld"] if not outcome.released.all() else []
    if not isinstance(outcome, Aggregate):
        partly = outcome.released & (outcome.released_by < len(outcome.shards))
        if partly.any():
            parts.append(f"{_share(partly)} of the coordinates are released by some of the shards only")
    return parts


def _share(places: NDArray[np.bool_]) -> str:
    share = float(np.mean(places))
    return f"{share:.1%}" if share >= 0.001 else "less than 0.1%"


def _masks(revealed: Revealed) -> str:
    match revealed.masks:
        case "nothing":
            return "no mask"
        case "counts":
            return "sums of mask bits by unit and layer, no single mask"
        case "denominators":
            return "denominators of every coordinate, which reveal the masks"
        case "each":
            from_data = revealed.from_data
            return "every client's mask" + (f" ({from_data} of them computed from data)" if from_data else "")


def _privacy(privacy: Privacy, event: Event, what: str) -> str:
    """What the noise promises in this session or round alone; the neighbours are those of ``Privacy``."""
    if isinstance(event, NonPrivate):
        return f"with {privacy.mechanism} noise but no guarantee ({event.reason})"
    return (
        f"with {privacy.mechanism} noise: client-level differential privacy (one update or zero in its place) of "
        f"epsilon {epsilon_after(1, event, privacy.delta):.3g} at delta {privacy.delta:g} for this {what}"
    )


def _weights(revealed: Revealed) -> str:
    match revealed.weights:
        case "none":
            return "every client's rounded weight"
        case "groups":
            return "the total weight of each group of equal masks"
        case "coordinates":
            return "the total weight behind each coordinate"
        case _:
            return "the total weight"
