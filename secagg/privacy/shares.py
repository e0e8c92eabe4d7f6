"""The noise of one session: how much each client adds where, and how much of it was left in the sum.

A coordinate carries only the noise of those who send it. Who may send it is known before anything is masked, so a
share is sized by the honest survivors that are guaranteed there: whoever drops out, as long as the session goes on,
every released coordinate carries at least the whole noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from secagg.errors import ParameterError
from secagg.prg import KEY_BYTES
from secagg.privacy.events import NonPrivate
from secagg.privacy.noise import DiscreteGaussian, Noise, Skellam
from secagg.privacy.noisy_sum import Coverage, NoisySum
from secagg.privacy.rdp import LEAST_LOCAL_STD
from secagg.privacy.rounding import clipped, rounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from secagg.privacy.events import Event
    from secagg.privacy.settings import Privacy

MOST_CLASSES = 16
"""So many sizes of shares at most are told apart one by one: each takes a table to sample from."""

CLASS_BITS = 3
"""Where there are more, the number of clients that a share is sized for keeps so many significant bits: up to 7 it is
exact, and beyond a share has at most 1/4 more variance than it needs."""


@dataclass(frozen=True, eq=False)
class Shares:
    """What clients add in one session.

    Args:
        privacy: The settings.
        clients: Clients in the session, n.
        coverage: Of them, how many send each released coordinate, (count,) integer.
        dropouts: Most of them that may yet drop out, D.
        corrupt: Most of them that may tell the server their noise.

    Raises:
        ParameterError: The ring cannot hold such a sum, or its grid is too fine or too coarse for the noise.
    """

    privacy: Privacy
    clients: int
    coverage: NDArray[np.int32]
    dropouts: int
    corrupt: int

    def __post_init__(self) -> None:
        _ = self.scale
        for sized_for in self.classes:
            self.noise(sized_for)

    @cached_property
    def sized_for(self) -> NDArray[np.int64]:
        """Honest survivors for whom the shares of each coordinate are sized, (count,) int64."""
        guaranteed: NDArray[np.int64] = self.coverage.astype(np.int64) - self.dropouts - self.corrupt
        if len(_different(guaranteed)) <= MOST_CLASSES:
            return guaranteed
        _, exponent = np.frexp(guaranteed)
        unit = np.left_shift(np.int64(1), np.maximum(0, exponent - CLASS_BITS).astype(np.int64))
        coarse: NDArray[np.int64] = guaranteed // unit * unit
        return coarse

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """The different numbers in ``sized_for``, ascending."""
        return _different(self.sized_for)

    @cached_property
    def total(self) -> NoisySum:
        """The sum as accountants see it."""
        privacy, dimension = self.privacy, len(self.coverage)
        return NoisySum(
            clients=self.clients,
            dimension=dimension,
            clip=privacy.clip,
            ring_bits=privacy.ring_bits,
            mechanism=privacy.mechanism,
            min_survivors=self.clients - self.dropouts,
            colluders=self.corrupt,
            smallest_class=self.classes[0],
            surplus=float((self.coverage / self.sized_for).max()),
        )

    @cached_property
    def scale(self) -> float:
        """By what clients multiply before they round: integers are in units of its inverse."""
        return self.total.scale(self.privacy.noise_multiplier)

    def noise(self, sized_for: int) -> Noise | None:
        """What one client adds where shares are sized for so many; None for nothing."""
        if self.privacy.noise_multiplier == 0:
            return None
        std = self.total.local_std(self.privacy.noise_multiplier, sized_for)
        if self.privacy.mechanism == "skellam":
            return Skellam(std**2)
        if std < LEAST_LOCAL_STD:
            raise ParameterError(
                f"shares of discrete Gaussian noise need a standard deviation of {LEAST_LOCAL_STD:g} steps, not "
                f"{std:g}, to add up to a guarantee: raise ring_bits, or set mechanism='skellam'"
            )
        return DiscreteGaussian(std)

    def encode(
        self, values: NDArray[np.float64], sent: NDArray[np.bool_], entropy: Callable[[int], bytes]
    ) -> tuple[NDArray[np.int64], float]:
        """What a client contributes, before masking, and 1 if its update was clipped, else 0.

        Args:
            values: Of the coordinates that it sends, finite, zero where it has nothing to say.
            sent: Which of the released coordinates those are, (count,) bool.
            entropy: Source of random bytes.
        """
        short, was_longer = clipped(values, self.privacy.clip)
        integers = rounded(short * self.scale, self.total.sensitivity(self.privacy.noise_multiplier).l2, entropy)
        own = self.sized_for[sent]
        for sized_for in self.classes:
            noise, places = self.noise(sized_for), own == sized_for
            count = int(np.count_nonzero(places))
            if noise is not None and count:
                integers[places] += noise.sample(count, entropy(KEY_BYTES))
        return integers, float(was_longer)

    def event(self, left: NDArray[np.int32]) -> Event:
        """What the session was, after who dropped out.

        Args:
            left: How many survivors send each released coordinate, corrupt ones among them, (count,) integer.
        """
        found, inexact = [], 0.0
        for sized_for in self.classes:
            honest, noise = left[self.sized_for == sized_for] - self.corrupt, self.noise(sized_for)
            if noise is None:
                return NonPrivate(reason="updates were clipped, and no noise was added")
            found += [Coverage(int(count), sized_for) for count in (honest.min(), honest.max())]
            inexact += self.clients * len(honest) * noise.total_variation
        total = replace(self.total, sampler_error=min(1.0, inexact))
        return total.event(self.privacy.noise_multiplier, found)


def _different(counts: NDArray[np.int64]) -> tuple[int, ...]:
    """The different ones among small positive integers, ascending."""
    return tuple(np.flatnonzero(np.bincount(counts)).tolist())
