"""One pruned client among whole ones: its seconds and bytes by density, as shares of what it would take whole."""

from __future__ import annotations

import copy
import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import secagg
from protocols.benchmark.timing import KINDS, alternating
from secagg import declaration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from secagg import Layout
    from secagg.declaration import Declaration

DENSITIES = (1.0, 0.75, 0.5, 0.25)

_LOST = 3
"""Dropouts that the sessions tolerate; what one client leaves out is still released."""


def layout_of(coordinates: int) -> Layout:
    """Two square layers, about ``coordinates`` long together; units of the second read all of the first."""
    width = max(2, math.isqrt(coordinates // 2))
    first, second = tuple(range(width)), tuple(range(width, 2 * width))
    return secagg.Layout(
        (
            secagg.Tensor("one.weight", (width, width), unit_axes={0: first}),
            secagg.Tensor("two.weight", (width, width), unit_axes={0: second, 1: first}),
        ),
        {"one": width, "two": width},
    )


def mask_of(layout: Layout, density: float) -> Declaration:
    """The units that make up about this share of the coordinates: c of each layer, with (c + c^2) / 2 = density."""
    if density == 1:
        return declaration.FULL
    kept = (math.sqrt(1 + 8 * density) - 1) / 2
    held = [np.arange(count) < round(kept * count) for count in layout.unit_groups.values()]
    return declaration.of_units(layout, np.concatenate(held), secagg.Provenance.DEVICE)


def measure(coordinates: int, neighbours: int, repeats: int) -> list[dict[str, Any]]:
    """A row for each density: what the client computes and sends, and what share that is of the whole client's.

    Args:
        coordinates: Length of the vector, about.
        neighbours: Of the client, all whole.
        repeats: Times that each density is measured, in turn.
    """
    layout = layout_of(coordinates)
    clients = [_Straggler(layout, density, neighbours) for density in DENSITIES]
    taken = {
        stage: alternating({str(i): partial(step, client) for i, client in enumerate(clients)}, repeats)
        for stage, step in _STEPS.items()
    }
    rows = [
        {
            "coordinates": layout.size,
            "neighbours": neighbours,
            "density": client.density,
            "seconds": {stage: taken[stage][str(i)] for stage in _STEPS},
            "upload_bytes": {stage: len(step(client)) for stage, step in _STEPS.items()},
        }
        for i, client in enumerate(clients)
    ]
    return [row | {"of whole": _shares(row, rows[0])} for row in rows]


def _shares(row: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes and seconds as shares of the whole client's: of the vector's stage, and of the session."""

    def seconds(of: Mapping[str, Any], stages: Iterable[str], kind: str) -> float:
        return float(sum(of["seconds"][stage][kind] for stage in stages))

    def sent(of: Mapping[str, Any], stages: Iterable[str]) -> int:
        return int(sum(of["upload_bytes"][stage] for stage in stages))

    return {
        name: {
            "bytes": sent(row, stages) / sent(whole, stages),
            **{kind: seconds(row, stages, kind) / seconds(whole, stages, kind) for kind in KINDS},
        }
        for name, stages in {"vector": ["MaskedInput"], "session": list(_STEPS)}.items()
    }


class _Straggler:
    """Client 0 of a mask-indexed session, at the point where it sends its vector, as often as one likes."""

    def __init__(self, layout: Layout, density: float, neighbours: int) -> None:
        mask = mask_of(layout, density)
        self.density = float(declaration.expand(layout, mask).mean())
        self._update = {tensor.name: np.full(tensor.shape, 0.1, np.float32) for tensor in layout.tensors}
        params = secagg.Params(max_dropouts=max(0, min(_LOST, neighbours - 4)))
        session = secagg.Session(id=os.urandom(16), params=params, layout=layout, mode="mask-indexed")
        server = secagg.Server(session)
        clients = [secagg.Client(number, session) for number in range(neighbours + 1)]
        for client in clients:
            server.receive(client.advertise_keys())
        roster = server.close_round()[0]
        self._fresh, self._roster, self._mask = copy.copy(clients[0]), roster, mask
        for client in clients:
            server.receive(client.share_keys(roster, mask if client.id == 0 else None))
        self._shared, self._relayed = clients[0], server.close_round()[0]

    def share_keys(self) -> bytes:
        """Shares and declaration."""
        return copy.copy(self._fresh).share_keys(self._roster, self._mask)

    def masked_input(self) -> bytes:
        """The vector."""
        return copy.copy(self._shared).masked_input(self._relayed, self._update)


_STEPS: dict[str, Callable[[_Straggler], bytes]] = {
    "ShareKeys": _Straggler.share_keys,
    "MaskedInput": _Straggler.masked_input,
}
