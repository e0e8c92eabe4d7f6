"""What every party agrees on before a session starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from secagg import graph
from secagg.errors import ParameterError
from secagg.topology import topology

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from secagg.layout import Layout
    from secagg.params import Mode, Params
    from secagg.topology import Topology

ID_BYTES = 16
ROOT_BYTES = 32


@dataclass(frozen=True, eq=False)
class CountedCoverage:
    """What a counting session found out: for each coordinate, how many of its clients surely hold it.

    Args:
        clients: The clients that were counted.
        least: Lower bound of the coverage among them, (layout.size,) int32.
    """

    clients: frozenset[int]
    least: NDArray[np.int32]

    @property
    def digest(self) -> bytes:
        """SHA-256 over clients and counts."""
        return hashlib.sha256(repr(sorted(self.clients)).encode() + self.least.astype("<i4").tobytes()).digest()


@dataclass(frozen=True, kw_only=True)
class Session:
    """One use of the protocol: fresh keys, one sum.

    Args:
        id: 16 bytes, never used twice.
        params: The settings.
        layout: The public order of coordinates.
        mode: ``"uniform"``: masks stay secret, everybody sends the same coordinates; ``"mask-indexed"``: masks are
            declared, and each client sends the coordinates that it holds.
        weighted: Whether each client brings a weight; otherwise all weigh the same.
        counted: In a uniform session of pruned updates, the counts that decide what is released.
        model_root: Root of the model that the updates start from (``merkle``), 32 bytes, or empty.
        context: Whatever else all parties agree on, as bytes: an application's own words for what the session is about.

    Raises:
        ParameterError: Settings that contradict the mode or the adversary, or an id or a root of another length.
    """

    id: bytes
    params: Params
    layout: Layout
    mode: Mode
    weighted: bool = False
    counted: CountedCoverage | None = None
    model_root: bytes = b""
    context: bytes = b""

    def __post_init__(self) -> None:
        if len(self.id) != ID_BYTES:
            raise ParameterError(f"a session id has {ID_BYTES} bytes")
        if len(self.model_root) not in (0, ROOT_BYTES):
            raise ParameterError(f"model_root must be empty or have {ROOT_BYTES} bytes: take merkle.root")
        if self.mode not in ("uniform", "mask-indexed"):
            raise ParameterError(f"mode must be 'uniform' or 'mask-indexed', not {self.mode!r}")
        if self.mode == "mask-indexed" and self.counted is not None:
            raise ParameterError("a mask-indexed session takes its coverage from the declarations, not from counts")
        if self.mode == "mask-indexed" and self.params.exact_denominators:
            raise ParameterError("exact_denominators belongs to uniform sessions; mask-indexed ones are always exact")
        if self.mode == "uniform" and self.weighted and self.params.weighting == "public":
            raise ParameterError("a uniform session hides weights: drop weighting='public' or use mask-indexed")
        self._check_privacy()
        if self.counted is not None:
            refuse_forgeable_counts(self.params)
        for tensor in self.layout.tensors:
            self.params.range_of(tensor.name)

    def _check_privacy(self) -> None:
        privacy = self.params.privacy
        if privacy is None:
            return
        if self.weighted or self.params.exact_denominators:
            raise ParameterError(
                "weights and exact_denominators would need noise of their own: leave them out with privacy"
            )
        if privacy.rotate and self.mode == "mask-indexed":
            raise ParameterError("rotate leaves no coordinates to declare: leave it out, or use mode='uniform'")

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over everything above."""
        parts = (
            self.id,
            self.params.digest,
            self.layout.digest,
            self.mode.encode(),
            bytes([self.weighted]),
            self.counted.digest if self.counted else b"",
            self.model_root,
            *((self.context,) if self.context else ()),
        )
        return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()

    def topology(self, clients: Sequence[int], seed: bytes) -> tuple[graph.Graph, Topology]:
        """The masking graph of the clients that advertised keys, and what goes with it.

        Raises:
            ParameterError: ``neighbours`` or ``share_threshold`` do not fit this cohort.
            TooFewClientsError: Fewer clients than ``min_cohort + corrupt``.
        """
        wired = topology(self.params, self.mode, len(clients))
        return graph.Graph.build(clients, wired.degree, seed), wired


def refuse_forgeable_counts(params: Params) -> None:
    """Refuses a uniform session of pruned updates whose server may lie.

    Raises:
        ParameterError: It may.
    """
    if params.active:
        raise ParameterError(
            "counts come from the server, and an active one could forge them: use mode='mask-indexed', where clients "
            "count for themselves, or adversary='semi-honest'"
        )
