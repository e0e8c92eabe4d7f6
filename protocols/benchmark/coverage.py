"""The release rule over a large cohort whose clients all hold different units."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

import secagg
from protocols.benchmark.density import layout_of
from protocols.benchmark.timing import alternating
from secagg import declaration
from secagg.messages import Participant
from secagg.release import Plan

_SEED = 0
_LEAST, _MOST = 0.25, 1.0


def measure(coordinates: int, clients: int, repeats: int) -> dict[str, Any]:
    """Seconds in which anybody computes what a mask-indexed session releases.

    Args:
        coordinates: Length of the vector, about.
        clients: How many, each with units of its own, a quarter of them to all.
        repeats: Times that it is measured.
    """
    layout, generator = layout_of(coordinates), np.random.default_rng(_SEED)
    held = generator.random((clients, layout.unit_count)) < generator.uniform(_LEAST, _MOST, (clients, 1))
    held[:, 0] = True  # nobody holds nothing
    participants = [
        Participant(number, declaration.of_units(layout, units, secagg.Provenance.DEVICE), None)
        for number, units in enumerate(held)
    ]
    params = secagg.Params(max_dropouts=clients // 10)
    session = secagg.Session(id=os.urandom(16), params=params, layout=layout, mode="mask-indexed")
    plan = Plan(session, 2, participants)
    return {
        "coordinates": layout.size,
        "clients": clients,
        "released": plan.released_count / layout.size,
        **alternating({"seconds": lambda: Plan(session, 2, participants)}, repeats),
    }
