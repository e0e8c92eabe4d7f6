"""One plain sentence about a session: who learned what, and how small the smallest group was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secagg.declaration import FULL, Provenance
from secagg.privacy.calibrate import epsilon_after
from secagg.privacy.events import NonPrivate

if TYPE_CHECKING:
    from secagg.aggregate import Aggregate
    from secagg.privacy.events import Event
    from secagg.privacy.settings import Privacy


def verdict(aggregate: Aggregate) -> str:
    """What a deployment of this session reveals, and to whom."""
    plan = aggregate.plan
    session, params = plan.session, plan.session.params
    withheld = 1 - plan.released_count / len(plan.released)
    against = "an active server that signatures hold to one story" if params.active else "a semi-honest server"
    if params.corrupt:
        against += f" colluding with up to {params.corrupt} clients"
    parts = [
        (
            f"deployed, {against} would learn the {session.mode} sum over {len(aggregate.survivors)} survivors, "
            f"at every released coordinate over at least {aggregate.smallest_group} of them"
        )
    ]
    if withheld:
        share = f"{withheld:.1%}" if withheld >= 0.001 else "less than 0.1%"
        parts.append(f"{share} of the coordinates are withheld")
    parts.append(_masks(aggregate))
    if params.privacy is not None and aggregate.event is not None:
        parts.append(_privacy(params.privacy, aggregate.event))
    if session.weighted:
        parts.append(_weights(aggregate))
    return ", ".join(parts) + ", and nothing else about any client; a client that lies inside the range is not noticed."


def _masks(aggregate: Aggregate) -> str:
    session = aggregate.plan.session
    if session.mode == "uniform":
        if session.params.exact_denominators:
            return "denominators of every coordinate, which reveal the masks"
        return "sums of mask bits by unit and layer, no single mask" if session.counted else "no mask"
    declared = [participant.declaration for participant in aggregate.plan.participants.values()]
    if all(one == FULL for one in declared):
        return "no mask"
    from_data = sum(one.provenance is Provenance.DATA for one in declared)
    return "every client's mask" + (f" ({from_data} of them computed from data)" if from_data else "")


def _privacy(privacy: Privacy, event: Event) -> str:
    """What the noise promises in this session alone; the neighbours are those of ``Privacy``."""
    if isinstance(event, NonPrivate):
        return f"with {privacy.mechanism} noise but no guarantee ({event.reason})"
    return (
        f"with {privacy.mechanism} noise: client-level differential privacy (one update or zero in its place) of "
        f"epsilon {epsilon_after(1, event, privacy.delta):.3g} at delta {privacy.delta:g} for this session"
    )


def _weights(aggregate: Aggregate) -> str:
    match aggregate.plan.slots:
        case "none":
            return "every client's rounded weight"
        case "groups":
            return "the total weight of each group of equal masks"
        case "coordinates":
            return "the total weight behind each coordinate"
        case _:
            return "the total weight"
