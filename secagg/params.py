"""The settings of a session: one frozen value that every party holds and that every key is bound to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from secagg.errors import ParameterError

if TYPE_CHECKING:
    from secagg.explain import Explanation
    from secagg.layout import Layout

Mode = Literal["uniform", "mask-indexed"]
Weighting = Literal["hidden", "public", "average"]
OutOfRange = Literal["refuse", "saturate"]

Pairs = tuple[tuple[str, float], ...]

SMALLEST_COHORT = 2
MOST_LEVELS = 2**48
SMALLEST_RANGE, LARGEST_RANGE = 1e-30, 1e30  # sums and scales stay finite in float64


@dataclass(frozen=True, kw_only=True)
class Params:
    """What a session promises and what it tolerates.

    Args:
        min_cohort: Fewest honest surviving clients in any sum that leaves the protocol; at least 2.
        max_dropouts: Most clients that may drop out after ShareKeys, D. Default: a third. Never more than leaves
            ``min_cohort + corrupt`` survivors and enough share holders.
        corrupt: Most clients that may collude with the server.
        participation: Participation threshold of the learning rule: a coordinate held by fewer than this share of
            the clients is withheld even where privacy would allow it. In [0, 1].
        value_range: Largest magnitude of a value, for all tensors, or per tensor name (``"*"`` for the rest).
            Public: never choose it from private data. A mapping is kept as sorted pairs.
        levels: Number of steps that [-value_range, value_range] is divided into. More levels, more precision, and
            a wider ring: n * levels decides between 16, 24, 32 and 64 bits a coordinate.
        out_of_range: ``"refuse"`` raises ``OutOfRangeError``; ``"saturate"`` clips and reports the share clipped.
        max_weight: Largest weight that a client may have. Public. Weights must lie in (0, max_weight].
        weighting: How a mask-indexed session divides by weights. ``"hidden"``: one sum per group of equal masks,
            refused where a group is too small; ``"public"``: everybody sees each weight, rounded to a power of
            the square root of 2; ``"average"``: hidden, and every coordinate is divided by its coverage times the
            mean weight. A uniform session always hides them.
        exact_denominators: In a uniform session, divide each coordinate by the weight that really covers it. Opt
            in knowingly: those sums reveal the masks.
        share_threshold: Shares that rebuild a secret, t. Default: what ``max_dropouts`` leaves, at most a majority.
        neighbours: Degree k of the masking graph. Default: everybody up to 200 clients and in mask-indexed
            sessions, beyond that the smallest even degree that fails with probability below 2^-40.
        adversary: ``"semi-honest"``: the server follows the protocol and remembers what it sees.

    Raises:
        ParameterError: A setting outside its domain; the message names it.
    """

    min_cohort: int = 3
    max_dropouts: int | None = None
    corrupt: int = 0
    participation: float = 0.0
    value_range: float | Mapping[str, float] | Pairs = 4.0
    levels: int = 2**20
    out_of_range: OutOfRange = "refuse"
    max_weight: float = 1.0
    weighting: Weighting = "hidden"
    exact_denominators: bool = False
    share_threshold: int | None = None
    neighbours: int | None = None
    adversary: Literal["semi-honest"] = "semi-honest"

    def __post_init__(self) -> None:
        for name in ("participation", "max_weight", "value_range"):
            object.__setattr__(self, name, _floats(name, getattr(self, name)))
        ranges = [self.value_range] if isinstance(self.value_range, float) else [r for _, r in self._pairs]
        checks = {
            "min_cohort must be an integer of at least 2": _whole(self.min_cohort, SMALLEST_COHORT),
            "max_dropouts must be an integer of at least 0, or None": _whole_or_none(self.max_dropouts, 0),
            "corrupt must be an integer of at least 0": _whole(self.corrupt, 0),
            "participation must be in [0, 1]": 0 <= self.participation <= 1,
            f"value_range must lie in [{SMALLEST_RANGE:g}, {LARGEST_RANGE:g}]": bool(ranges)
            and all(SMALLEST_RANGE <= r <= LARGEST_RANGE for r in ranges),
            f"levels must be an integer from 4 to {MOST_LEVELS}": _whole(self.levels, 4) and self.levels <= MOST_LEVELS,
            f"max_weight must lie in [{SMALLEST_RANGE:g}, {LARGEST_RANGE:g}]": SMALLEST_RANGE
            <= self.max_weight
            <= LARGEST_RANGE,
            "share_threshold must exceed corrupt and be at least 2, or be None": _whole_or_none(
                self.share_threshold, max(2, self.corrupt + 1) if _whole(self.corrupt, 0) else 2
            ),
            "neighbours must be an even number of at least 2, or None": _whole_or_none(self.neighbours, 2)
            and (self.neighbours or 0) % 2 == 0,
            f"out_of_range must be one of {get_args(OutOfRange)}": self.out_of_range in get_args(OutOfRange),
            f"weighting must be one of {get_args(Weighting)}": self.weighting in get_args(Weighting),
            "adversary must be 'semi-honest'": self.adversary == "semi-honest",
        }
        for message, holds in checks.items():
            if not holds:
                raise ParameterError(message)

    @property
    def privacy_floor(self) -> int:
        """Fewest survivors in any sum that is released: ``min_cohort + corrupt``."""
        return self.min_cohort + self.corrupt

    @property
    def magnitude(self) -> int:
        """Largest integer that a value encodes to: zero and as many levels on either side of it."""
        return (self.levels - 1) // 2

    @property
    def digest(self) -> bytes:
        """SHA-256 over every setting."""
        text = repr(sorted(asdict(self).items()))
        return hashlib.sha256(b"secagg params" + text.encode()).digest()

    def range_of(self, tensor: str) -> float:
        """Largest magnitude of a value in the named tensor.

        Raises:
            ParameterError: ``value_range`` is a mapping without that name and without ``"*"``.
        """
        if isinstance(self.value_range, float):
            return self.value_range
        ranges = dict(self._pairs)
        for name in (tensor, "*"):
            if name in ranges:
                return ranges[name]
        raise ParameterError(f"value_range has no entry for {tensor}: add it, or '*' for all others")

    @property
    def _pairs(self) -> Pairs:
        return self.value_range if isinstance(self.value_range, tuple) else ()

    def dropouts_tolerated(self, clients: int, threshold: int) -> int:
        """D for ``clients`` that completed ShareKeys: at most ``max_dropouts``, never below the thresholds."""
        wanted = clients // 3 if self.max_dropouts is None else self.max_dropouts
        return max(0, min(wanted, clients - self.privacy_floor, clients - threshold))

    def coverage_required(self, clients: int, dropouts: int) -> int:
        """Clients that must hold a coordinate for it to be released, of ``clients`` that completed ShareKeys."""
        return max(self.privacy_floor + dropouts, math.ceil(self.participation * clients - 1e-9))

    def explain_requirement(self, clients: int, dropouts: int) -> str:
        """``coverage_required`` with its reason, for error messages: ``6 (min_cohort 3 + max_dropouts 3)``."""
        required = self.coverage_required(clients, dropouts)
        if required > self.privacy_floor + dropouts:
            return f"{required} (participation {self.participation:g} of {clients} clients)"
        corrupt = f" + corrupt {self.corrupt}" if self.corrupt else ""
        return f"{required} (min_cohort {self.min_cohort}{corrupt} + max_dropouts {dropouts})"

    def explain(
        self, masks: Mapping[Any, Any], mode: Mode = "mask-indexed", layout: Layout | None = None
    ) -> Explanation:
        """What a round with these masks would withhold, and which setting frees it.

        Args:
            masks: Client to mask, in the forms that ``secagg.simulate`` takes.
            mode: The mode to explain.
            layout: The layout with its units, if the masks are made of units; otherwise read off the first mask.

        Returns:
            An ``Explanation``; printed, it is a table with a line per tensor.
        """
        from secagg.explain import explain

        return explain(self, masks, mode, layout)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _whole_or_none(value: object, least: int) -> bool:
    return value is None or _whole(value, least)


def _floats(name: str, value: Any) -> float | Pairs:
    """A number as a float, a mapping as sorted pairs: equal settings have equal digests however they were spelled."""
    try:
        if isinstance(value, (Mapping, tuple)):
            return tuple(sorted((str(key), float(number)) for key, number in dict(value).items()))
        return float(value)
    except (TypeError, ValueError):
        raise ParameterError(
            f"{name} must be a number" + (", or a mapping to numbers" * (name == "value_range"))
        ) from None
