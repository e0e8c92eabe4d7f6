"""What every party agrees on before a session starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secagg import graph
from secagg.errors import ParameterError, TooFewClientsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from secagg.layout import Layout
    from secagg.params import Mode, Params

ID_BYTES = 16


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
        model_root: Digest of the model that the updates start from, or empty.

    Raises:
        ParameterError: Settings that contradict the mode.
    """

    id: bytes
    params: Params
    layout: Layout
    mode: Mode
    weighted: bool = False
    counted: CountedCoverage | None = None
    model_root: bytes = b""

    def __post_init__(self) -> None:
        if len(self.id) != ID_BYTES:
            raise ParameterError(f"a session id has {ID_BYTES} bytes")
        if self.mode not in ("uniform", "mask-indexed"):
            raise ParameterError(f"mode must be 'uniform' or 'mask-indexed', not {self.mode!r}")
        if self.mode == "mask-indexed" and self.counted is not None:
            raise ParameterError("a mask-indexed session takes its coverage from the declarations, not from counts")
        if self.mode == "mask-indexed" and self.params.exact_denominators:
            raise ParameterError("exact_denominators belongs to uniform sessions; mask-indexed ones are always exact")
        if self.mode == "uniform" and self.weighted and self.params.weighting == "public":
            raise ParameterError("a uniform session hides weights: drop weighting='public' or use mask-indexed")
        for tensor in self.layout.tensors:
            self.params.range_of(tensor.name)

    @property
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
        )
        return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()

    def topology(self, clients: Sequence[int], seed: bytes) -> tuple[graph.Graph, int]:
        """The masking graph and the share threshold for the clients that advertised keys.

        Raises:
            ParameterError: ``neighbours`` or ``share_threshold`` do not fit this cohort.
            TooFewClientsError: Fewer clients than ``min_cohort + corrupt``.
        """
        params, count = self.params, len(clients)
        if count < params.privacy_floor:
            reason = f"(min_cohort {params.min_cohort} + corrupt {params.corrupt})"
            raise TooFewClientsError(
                f"{count} clients < {params.privacy_floor} {reason}: wait for more clients or lower min_cohort"
            )
        tolerated = params.dropouts_tolerated(count, threshold=0)
        degree, threshold = count - 1, max(2, params.corrupt + 1, min(graph.majority(count), count - tolerated))
        if params.neighbours is not None:
            degree = min(params.neighbours, count - 1)
        elif count > graph.COMPLETE_UP_TO and self.mode == "uniform":
            degree, threshold = graph.smallest_degree(count, tolerated, params.corrupt)
        if degree < count - 1:
            threshold = self._sparse_threshold(degree, count, tolerated)
        threshold = params.share_threshold or threshold
        if threshold > degree + 1:
            raise ParameterError(f"share_threshold {threshold} exceeds the {degree + 1} share holders of a client")
        return graph.Graph.build(clients, degree, seed), threshold

    def _sparse_threshold(self, degree: int, count: int, tolerated: int) -> int:
        if self.mode == "mask-indexed":
            raise ParameterError(
                "a mask-indexed session needs the complete graph: leave neighbours unset, or shard the cohort"
            )
        threshold = graph.threshold_for(degree, count, tolerated, self.params.corrupt)
        if threshold is None:
            raise ParameterError(
                f"neighbours {degree} of {count} clients is too few for {tolerated} dropouts and "
                f"{self.params.corrupt} corrupt clients: raise it or leave it unset"
            )
        return threshold
