"""This project's side of a measurement beside Flower's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protocols.benchmark.stages import DROPOUT
from protocols.benchmark.timing import KINDS, Spread

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMON = ("AdvertiseKeys", "ShareKeys", "MaskedInput")
"""Stages in which a client computes on either side; what is left of Unmask at Flower's is to look up shares."""


def client_seconds(seconds: Mapping[str, Spread]) -> Spread:
    """What a client computes in the stages that both sides have."""
    return {kind: sum(seconds[stage][kind] for stage in COMMON) for kind in KINDS}


def ratios(row: Mapping[str, Any]) -> dict[str, Spread]:
    """How many times as long Flower takes, by stage and for all that a client does.

    Args:
        row: What ``stages.measure`` returned with Flower.
    """
    ours, theirs = (
        {**side, "client": client_seconds(side)} for side in (row["seconds"][s] for s in ("secagg", "flower"))
    )
    return {
        stage: {kind: theirs[stage][kind] / ours[stage][kind] for kind in KINDS}
        for stage in (*COMMON, DROPOUT, "client")
    }
