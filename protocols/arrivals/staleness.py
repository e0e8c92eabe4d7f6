"""How much a contribution still counts when the model has moved on since the version that it started from.

Staleness tau is the number of versions in between. ``poly`` and ``hinge`` are those of C. Xie, S. Koyejo, I. Gupta,
"Asynchronous Federated Optimization" (2019), with PR-FL's constants (arXiv 2403.15439). ``geometric`` is ours: together
with ``const`` it is the only kind that a server can apply without holding single contributions, since all that it has
summed loses the same factor at each version.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from secagg.errors import InputError, ParameterError

Kind = Literal["const", "poly", "hinge", "geometric"]


@dataclass(frozen=True)
class Staleness:
    """The weight of a contribution by its staleness, in [0, 1]: 1 when fresh, and never rising.

    Args:
        kind: ``const``: 1. ``poly``: ``(tau + 1) ** -exponent``. ``hinge``: 1 up to ``grace``, then
            ``1 / (exponent * (tau - grace) + 1)``. ``geometric``: ``decay ** tau``.
        exponent: Of ``poly``, and the slope of ``hinge``; finite and not negative.
        grace: The staleness that ``hinge`` forgives; finite and not negative.
        decay: Of ``geometric``, in (0, 1]; at 1 it is ``const``.

    Raises:
        ParameterError: A setting outside its domain.
    """

    kind: Kind
    exponent: float = 0.6
    grace: float = 2
    decay: float = 0.9

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ParameterError(f"staleness kind must be one of {get_args(Kind)}, not {self.kind!r}")
        for name, value in (("exponent", self.exponent), ("grace", self.grace)):
            if not 0 <= value < math.inf:
                raise ParameterError(f"staleness {name} must be finite and not negative, not {value}")
        if not 0 < self.decay <= 1:
            raise ParameterError(f"staleness decay must be in (0, 1], not {self.decay}")

    def __call__(self, tau: int) -> float:
        """The weight at staleness ``tau``.

        Raises:
            InputError: ``tau`` is negative: a contribution cannot start from a version that is still to come.
        """
        if tau < 0:
            raise InputError(f"staleness must not be negative, but is {tau}")
        match self.kind:
            case "const":
                return 1.0
            case "poly":
                return float((tau + 1) ** -self.exponent)
            case "hinge":
                return 1.0 if tau <= self.grace else 1 / (self.exponent * (tau - self.grace) + 1)
            case "geometric":
                return float(self.decay**tau)

    @property
    def recursive(self) -> bool:
        """Whether one running sum is enough: each version multiplies all weights by the same ``factor``."""
        return self.kind in {"const", "geometric"}

    @property
    def factor(self) -> float:
        """By what one more version multiplies every weight, in (0, 1].

        Raises:
            ParameterError: There is no such number, so the server would have to hold every single contribution, which
                under encryption it must not.
        """
        if not self.recursive:
            raise ParameterError(
                f"staleness kind {self.kind!r} cannot be re-weighted from one running sum, and under encryption the "
                "server holds no single contribution: use 'geometric' or 'const'"
            )
        return self.decay if self.kind == "geometric" else 1.0
