"""The noise of one session: how much each client adds where, and how much of it was left in the sum.

A coordinate carries only the noise of those who send it. Who may send it is known before anything is masked, so a
share is sized by the honest survivors that are guaranteed there: whoever drops out, as long as the session goes on,
every released coordinate carries at least the whole noise.

Where fewer drop out than are tolerated, there is more noise than that. A share can be made of parts, of which each
covers for some more dropouts; once it is known who survived, the seeds of the parts that nobody needed are revealed,
and they are taken off (Z. Jiang, W. Wang, R. Chen, "Dordis: Efficient Federated Learning with Dropout-Resilient
Differential Privacy", EuroSys 2024, section 3.2; here with fewer parts).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from secagg.errors import ParameterError
from secagg.prg import KEY_BYTES, derive
from secagg.privacy.events import NonPrivate
from secagg.privacy.noise import DiscreteGaussian, Noise, Skellam
from secagg.privacy.noisy_sum import Coverage, NoisySum
from secagg.privacy.rdp import LEAST_LOCAL_STD
from secagg.privacy.rotation import restore, rotate
from secagg.privacy.rounding import clipped, rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        rotation: Where ``privacy.rotate`` is set, the key of the rotation; ``coverage`` is of rotated coordinates then.

    Raises:
        ParameterError: The ring cannot hold such a sum, or its grid is too fine or too coarse for the noise.
    """

    privacy: Privacy
    clients: int
    coverage: NDArray[np.int32]
    dropouts: int
    corrupt: int
    rotation: bytes = b""

    def __post_init__(self) -> None:
        _ = self.scale
        for sized_for in self.classes:
            self.parts(sized_for)

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
            rotated=privacy.rotate,
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

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Numbers of dropouts for which a part of a share is meant, ascending: 0, 1, 2, 4, ... and D; or D alone.

        Powers of two, because every part takes a table to sample from: at most twice the noise of the dropouts that
        happened stays.
        """
        if not self.privacy.remove_surplus:
            return (self.dropouts,)
        powers = (1 << exponent for exponent in range(self.dropouts.bit_length()))
        return tuple(sorted({0, self.dropouts, *(power for power in powers if power < self.dropouts)}))

    def kept(self, dropped: int) -> int:
        """How many parts of a share stay in the sum after so many dropouts."""
        return 1 + next(place for place, level in enumerate(self.levels) if level >= dropped)

    def parts(self, sized_for: int) -> tuple[Noise, ...]:
        """What a share is the sum of, a part a level: up to any level, enough for so many dropouts."""
        if len(self.levels) == 1:
            noise = self.noise(sized_for)
            return () if noise is None else (noise,)
        whole = [self._variance(sized_for, level) for level in self.levels]
        added = [after - before for before, after in pairwise([0.0, *whole])]
        return tuple(Skellam(variance) for variance in added) if whole[-1] else ()

    def seeds(self, entropy: Callable[[int], bytes]) -> tuple[bytes, ...]:
        """A seed for each part of one client's noise.

        Args:
            entropy: Source of random bytes.
        """
        return tuple(entropy(KEY_BYTES) for _ in self.levels)

    def drawn(self, sent: NDArray[np.bool_], seeds: Sequence[bytes], first: int = 0) -> NDArray[np.int64]:
        """The noise that seeds stand for, (number of coordinates sent,) int64.

        Args:
            sent: Which of the released coordinates the client sends, (count,) bool.
            seeds: Of its parts, from ``first`` on.
            first: The first part.
        """
        own, noise = self.sized_for[sent], np.zeros(int(np.count_nonzero(sent)), np.int64)
        for sized_for in self.classes:
            places = own == sized_for
            count = int(np.count_nonzero(places))
            for part, seed in zip(self.parts(sized_for)[first:], seeds, strict=False):
                if count:
                    noise[places] += part.sample(count, derive(seed, "noise", sized_for.to_bytes(8, "big")))
        return noise

    def encode(
        self,
        values: NDArray[np.float64],
        sent: NDArray[np.bool_],
        entropy: Callable[[int], bytes],
        seeds: Sequence[bytes] | None = None,
    ) -> tuple[NDArray[np.int64], float]:
        """What a client contributes, before masking, and 1 if its update was clipped, else 0.

        Args:
            values: Of the coordinates that it sends, finite, zero where it has nothing to say.
            sent: Which of the released coordinates those are, (count,) bool.
            entropy: Source of random bytes.
            seeds: Of its noise; by default fresh ones.
        """
        short, was_longer = clipped(values, self.privacy.clip)
        if self.privacy.rotate:
            short, sent = rotate(short, self.rotation), np.ones(len(self.coverage), bool)
        integers = rounded(short * self.scale, self.total.sensitivity(self.privacy.noise_multiplier).l2, entropy)
        return integers + self.drawn(sent, self.seeds(entropy) if seeds is None else seeds), float(was_longer)

    def decode(self, integers: NDArray[np.int64], size: int) -> NDArray[np.float64]:
        """Sums of what clients contributed in the units of their updates, (size,) float64.

        Args:
            integers: The sums, (count,).
            size: Released coordinates; fewer than ``count`` where vectors are rotated.
        """
        values = integers / self.scale
        return restore(values, size, self.rotation) if self.privacy.rotate else values

    def event(self, left: NDArray[np.int32], dropped: int | None = None) -> Event:
        """What the session was, after who dropped out.

        Args:
            left: How many survivors send each released coordinate, corrupt ones among them, (count,) integer.
            dropped: How many clients dropped out; None for as many as are tolerated. It decides what was removed.
        """
        level = self.levels[self.kept(self.dropouts if dropped is None else dropped) - 1]
        found, inexact = [], 0.0
        for sized_for in self.classes:
            honest, parts = left[self.sized_for == sized_for] - self.corrupt, self.parts(sized_for)
            if not parts:
                return NonPrivate(reason="updates were clipped, and no noise was added")
            found += [Coverage(int(count), self._for(sized_for, level)) for count in (honest.min(), honest.max())]
            inexact += self.clients * len(honest) * sum(part.total_variation for part in parts)
        total = replace(self.total, sampler_error=min(1.0, inexact))
        return total.event(self.privacy.noise_multiplier, found)

    def _for(self, sized_for: int, level: int) -> int:
        """Honest survivors for whom the parts up to a level are enough."""
        return sized_for + self.dropouts - level

    def _variance(self, sized_for: int, level: int) -> float:
        """Of one client's parts up to a level."""
        return self.total.local_std(self.privacy.noise_multiplier, self._for(sized_for, level)) ** 2


def _different(counts: NDArray[np.int64]) -> tuple[int, ...]:
    """The different ones among small positive integers, ascending."""
    return tuple(np.flatnonzero(np.bincount(counts)).tolist())
