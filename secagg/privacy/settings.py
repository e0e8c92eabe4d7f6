"""What a session adds to its sums so that they say little about any single client."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

from secagg.errors import ParameterError
from secagg.privacy.noisy_sum import Mechanism
from secagg.ring import Ring

SMALLEST_CLIP, LARGEST_CLIP = 1e-30, 1e30  # scales and sums stay finite in float64


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """Client-level differential privacy, by noise that the clients add themselves before they mask.

    Each update is clipped, rounded at random to integers and given its share of the noise; the shares are so large that
    those of the fewest honest survivors, at every released coordinate, add up to the whole. Neighbours are two runs
    that differ in whether one client's update is zero, under the same declarations.

    It takes the place of ``value_range``, ``levels`` and ``out_of_range`` of the ``Params``; all clients weigh the
    same.

    Args:
        clip: Largest L2 norm of what a client contributes, over all coordinates that it sends; longer ones are scaled
            down. Public: never choose it from private data.
        noise_multiplier: Standard deviation of the noise in every coordinate of a sum, over ``clip``. At 0 updates are
            clipped, and nothing is guaranteed.
        delta: At which epsilon is told, in (0, 1): well below one over the number of clients that there are. It changes
            no noise.
        mechanism: ``"skellam"``, whose shares sum to exactly such noise again, or ``"discrete-gaussian"``.
        rotate: Whether vectors are rotated at random before they are rounded, so that 16 bits hold what otherwise takes
            20. In uniform sessions only; a vector is padded to a power of two.
        remove_surplus: Whether survivors reveal, in the last round, the seeds of the noise that would have covered for
            dropouts that did not happen, so that the sum ends with little more than the whole. For Skellam noise only;
            it takes some times as long to draw. An honest survivor that does not answer leaves its surplus in.
        ring_bits: Bits of a coordinate on its way, 16, 24, 32 or 64. The more, the finer the grid on which noise and
            updates are rounded.

    Raises:
        ParameterError: A setting outside its domain; the message names it.
    """

    clip: float
    noise_multiplier: float
    delta: float = 1e-5
    mechanism: Mechanism = "skellam"
    ring_bits: int = 24
    rotate: bool = False
    remove_surplus: bool = False

    def __post_init__(self) -> None:
        for name in ("clip", "noise_multiplier", "delta"):
            object.__setattr__(self, name, _float(name, getattr(self, name)))
        if not SMALLEST_CLIP <= self.clip <= LARGEST_CLIP:
            raise ParameterError(f"clip must lie in [{SMALLEST_CLIP:g}, {LARGEST_CLIP:g}], not {self.clip}")
        if not 0 <= self.noise_multiplier < math.inf:
            raise ParameterError(f"noise_multiplier must be 0 or more, and finite, not {self.noise_multiplier}")
        if not 0 < self.delta < 1:
            raise ParameterError(f"delta must be in (0, 1), not {self.delta}")
        if self.mechanism not in get_args(Mechanism):
            raise ParameterError(f"mechanism must be one of {get_args(Mechanism)}, not {self.mechanism!r}")
        if not isinstance(self.ring_bits, int):
            raise ParameterError(f"ring_bits must be an integer, not {self.ring_bits!r}")
        if self.remove_surplus and self.mechanism != "skellam":
            raise ParameterError("remove_surplus takes shares that come apart exactly: set mechanism='skellam'")
        _ = self.ring

    @property
    def ring(self) -> Ring:
        """In which sums are taken."""
        return Ring(self.ring_bits)


def _float(name: str, value: Any) -> float:
    """A number as a float: equal settings have equal digests however they were spelled."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ParameterError(f"{name} must be a number") from None
