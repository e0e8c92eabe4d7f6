"""The settings of a session: one frozen value that every party holds and that every key is bound to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from secagg.errors import ParameterError
from secagg.privacy.settings import Privacy
from secagg.ring import Ring

if TYPE_CHECKING:
    from secagg.expect import Expectation
    from secagg.explain import Explanation
    from secagg.layout import Layout
    from secagg.topology import Topology

Mode = Literal["uniform", "mask-indexed"]
Weighting = Literal["hidden", "public", "average"]
OutOfRange = Literal["refuse", "saturate"]
Adversary = Literal["semi-honest", "active"]

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
            ``min_cohort + corrupt`` survivors and enough share holders. In a sparse graph with a semi-honest server,
            those that leave between AdvertiseKeys and ShareKeys count as well.
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
        share_threshold: Shares that rebuild a secret, t. Default: what ``max_dropouts`` leaves, at most a majority;
            with an active server more than half of the share holders and the corrupt ones together.
        neighbours: Degree k of the masking graph. Default: everybody up to 200 clients and in mask-indexed
            sessions, beyond that the smallest even degree that keeps ``security_bits``. Where this and
            ``share_threshold`` are both set, rounds may abort by chance more often than once in a million.
        security_bits: In a sparse graph, a client's secrets are at risk with probability below 2^-security_bits over
            the random choice of neighbours.
        privacy: Differential privacy of the sums; None for none.
        adversary: ``"semi-honest"``: the server follows the protocol and remembers what it sees. ``"active"``: it may
            do anything; clients sign what they saw with identities that they pinned to each other.

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
    security_bits: int = 40
    privacy: Privacy | None = None
    adversary: Adversary = "semi-honest"

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
            "share_threshold must be an integer of at least 2, or None": _whole_or_none(self.share_threshold, 2),
            "neighbours must be an even number of at least 2, or None": _whole_or_none(self.neighbours, 2)
            and (self.neighbours or 0) % 2 == 0,
            "security_bits must be an integer from 20 to 128": _whole(self.security_bits, 20)
            and self.security_bits <= 128,
            "privacy must be a Privacy, or None": self.privacy is None or isinstance(self.privacy, Privacy),
            f"out_of_range must be one of {get_args(OutOfRange)}": self.out_of_range in get_args(OutOfRange),
            f"weighting must be one of {get_args(Weighting)}": self.weighting in get_args(Weighting),
            f"adversary must be one of {get_args(Adversary)}": self.adversary in get_args(Adversary),
        }
        for message, holds in checks.items():
            if not holds:
                raise ParameterError(message)

    @classmethod
    def for_cohort(cls, clients: int, dropout_rate: float, corrupt_rate: float = 0.0, **settings: Any) -> Params:
        """Settings for a cohort of a given size.

        Neighbours and share threshold stay unset, so that they suit whoever really shows up: the smallest degree, and
        a threshold for it, that keep the promises of ``security_bits``. ``expect`` shows them.

        Args:
            clients: Clients that are expected to advertise keys.
            dropout_rate: Largest share of them that may drop out later, in [0, 1).
            corrupt_rate: Largest share of them that may collude with the server, in [0, 1).
            settings: All other settings, ``security_bits`` and ``adversary`` among them.

        Raises:
            ParameterError: A rate outside its domain, or no graph of so many clients bears them.
            TooFewClientsError: The cohort is smaller than ``min_cohort`` and the corrupt clients.
        """
        for name, rate in (("dropout_rate", dropout_rate), ("corrupt_rate", corrupt_rate)):
            if not 0 <= rate < 1:
                raise ParameterError(f"{name} must be in [0, 1), not {rate}")
        lost, corrupt = (math.ceil(rate * clients - 1e-9) for rate in (dropout_rate, corrupt_rate))
        params = cls(max_dropouts=lost, corrupt=corrupt, **settings)
        tolerated = params.dropouts_tolerated(clients, params.topology(clients).needed)
        if tolerated < lost:
            raise ParameterError(
                f"{clients} clients with {corrupt} corrupt ones survive {tolerated} dropouts, not {lost}: lower "
                "dropout_rate, corrupt_rate or min_cohort"
            )
        return params

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
        """SHA-256 over every setting; ``privacy`` adds nothing where there is none."""
        settings = asdict(self)
        if self.privacy is None:
            del settings["privacy"]
        text = repr(sorted(settings.items()))
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

    @property
    def active(self) -> bool:
        """Whether the server may do anything."""
        return self.adversary == "active"

    def quorum(self, clients: int) -> int:
        """Of ``clients`` that advertised keys, how many must agree on the survivors if the server is active.

        More than half, and half of the corrupt ones on top: two different survivor lists cannot both reach it, even
        if every corrupt client agrees to both.
        """
        return (clients + self.corrupt) // 2 + 1 if self.active else 0

    def ring(self, clients: int) -> Ring:
        """The ring in which ``clients`` vectors are summed.

        Raises:
            ParameterError: Not even 64 bits suffice.
        """
        return Ring.holding(clients * self.magnitude) if self.privacy is None else self.privacy.ring

    def dropouts_tolerated(self, clients: int, needed: int) -> int:
        """D for ``clients`` that completed ShareKeys: at most ``max_dropouts``, and ``needed`` clients are left."""
        wanted = clients // 3 if self.max_dropouts is None else self.max_dropouts
        return max(0, min(wanted, clients - max(self.privacy_floor, needed)))

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

    def topology(self, clients: int, mode: Mode = "uniform") -> Topology:
        """Neighbours and share threshold in a cohort of this size, and how likely chance defeats them.

        Raises:
            ParameterError: ``neighbours`` or ``share_threshold`` do not fit this cohort.
            TooFewClientsError: Fewer clients than ``min_cohort + corrupt``.
        """
        from secagg.topology import topology

        return topology(self, mode, clients)

    def expect(self, clients: int, coordinates: int, mode: Mode = "uniform") -> Expectation:
        """What a session of this size will be like: wiring, bytes, and seconds measured on this machine.

        Args:
            clients: Clients that advertise keys.
            coordinates: Length of the vector.
            mode: Of the session; in a mask-indexed one everybody is taken to hold everything.

        Returns:
            An ``Expectation``; printed, it is a table.

        Raises:
            ParameterError: As ``topology``, or no coordinate.
            TooFewClientsError: As ``topology``.
        """
        from secagg.expect import expect

        return expect(self, clients, coordinates, mode)

    def explain(
        self, masks: Mapping[Any, Any], mode: Mode = "mask-indexed", layout: Layout | None = None
    ) -> Explanation:
        """What a round with these masks would withhold, and which setting frees it.

        Args:
            masks: Client to mask, in the forms that ``secagg.simulate`` takes.
            mode: The mode to explain.
            layout: The layout with its units, if the masks are made of units; otherwise read off the first mask that
                is a structure of bools.

        Returns:
            An ``Explanation``; printed, it is a table with a line per tensor.

        Raises:
            InputError: No client, or no layout where no mask shows one.
            LayoutMismatchError: A mask of bools that does not fit the layout.
            DecodingError: A declaration that does not.
            ParameterError: An unknown mode, or counts that an active server could forge.
            TooFewClientsError: Fewer clients than ``min_cohort + corrupt``.
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
