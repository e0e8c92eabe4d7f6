"""A sum over clients who add the noise themselves: how large their shares are, and what a round of it was.

Clients clip, scale, round and add integer noise; the server learns the sum modulo the ring. The shares are sized so
that the fewest honest survivors that a round tolerates still add the whole central noise: each has the standard
deviation sigma_central / sqrt(m_min - colluders). A round with more survivors carries more noise and cost less, which
the event of that round says.

Clients who send only what they hold add noise only there, so a coordinate carries the shares of those who hold it.
Noise is then sized per class of equal coverage, and the weakest class counts for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from secagg.errors import InputError, ParameterError
from secagg.privacy import calibrate
from secagg.privacy.events import DiscreteGaussianSum, SkellamSum
from secagg.privacy.scale import ring_scale, rotated_ring_scale
from secagg.privacy.sensitivity import BETA, Sensitivity, rounded_sensitivity

if TYPE_CHECKING:
    from collections.abc import Sequence

Mechanism = Literal["skellam", "discrete-gaussian"]

WIDEST_RING = 64

LARGEST_SHARE = 2.0**16
"""Standard deviation of a share, in integers, beyond which a finer grid is not used: a table to sample from has some 13
thresholds for each integer of it, and rounding is far below the noise by then."""


class Coverage(NamedTuple):
    """Whose noise is in the coordinates of one class.

    Args:
        contributors: Honest survivors that hold them.
        sized_for: Honest survivors for whom the shares there were sized: each has 1 / sized_for of the variance.
    """

    contributors: int
    sized_for: int


def weakest(classes: Sequence[Coverage]) -> float:
    """The smallest share of the central variance that any coordinate carries; above 1 where all carry more.

    Raises:
        InputError: There is no class, or one is impossible.
    """
    if not classes or any(one.contributors < 0 or one.sized_for < 1 for one in classes):
        raise InputError("coverage needs at least one class, contributors of at least 0, sized_for of at least 1")
    return min(one.contributors / one.sized_for for one in classes)


@dataclass(frozen=True, kw_only=True)
class NoisySum:
    """What every round releases.

    Args:
        clients: Most clients in a sum.
        dimension: Coordinates of a vector.
        clip: L2 norm to which vectors are clipped, after weighting.
        ring_bits: Width of the ring, 2 to 64.
        mechanism: ``"skellam"`` or ``"discrete-gaussian"``: which noise.
        min_survivors: Fewest survivors of a round, m_min; below it clients must refuse to unmask. Default: all.
        colluders: Clients who may tell the server their noise.
        smallest_class: Fewest honest survivors for whom shares are sized anywhere. Default: m_min - colluders.
        surplus: How many times the guaranteed variance some coordinate may carry, when nobody drops out; at least 1.
            Default: clients / (m_min - colluders). A class of small coverage may carry more.
        rotated: Whether vectors are rotated at random, so that no coordinate is large.
        beta: Bias of conditional rounding, as ``rounded_sensitivity``.
        wrap_probability: How likely some coordinate of a sum may leave the ring, as ``ring_scale``.
        stds: Rotated, how many standard deviations of a coordinate have room, as ``rotated_ring_scale``; None for as
            many as keep ``wrap_probability`` with sub-Gaussian tails.
        sampler_error: Total variation between all the noise of one round and its distribution.

    Raises:
        ParameterError: A setting outside its domain.
    """

    clients: int
    dimension: int
    clip: float
    ring_bits: int = 32
    mechanism: Mechanism = "skellam"
    min_survivors: int | None = None
    colluders: int = 0
    smallest_class: int | None = None
    surplus: float | None = None
    rotated: bool = False
    beta: float = BETA
    wrap_probability: float = 1e-9
    stds: float | None = None
    sampler_error: float = 0.0

    def __post_init__(self) -> None:
        if self.mechanism not in get_args(Mechanism):
            raise ParameterError(f"mechanism must be one of {get_args(Mechanism)}, not {self.mechanism!r}")
        if self.clients < 1 or self.dimension < 1 or not 0 < self.clip < math.inf:
            raise ParameterError("clients and dimension must be at least 1, clip positive and finite")
        if not 2 <= self.ring_bits <= WIDEST_RING:
            raise ParameterError(f"ring_bits must be from 2 to {WIDEST_RING}, not {self.ring_bits}")
        if not 0 <= self.sampler_error <= 1:
            raise ParameterError("sampler_error must be in [0, 1]")
        if self.colluders < 0 or self.honest < 1 or self.honest + self.colluders > self.clients:
            raise ParameterError("min_survivors must exceed colluders, and be at most clients")
        self.sensitivity(0)

    @property
    def honest(self) -> int:
        """Honest survivors that every round has, m_min - colluders."""
        return (self.clients if self.min_survivors is None else self.min_survivors) - self.colluders

    def scale(self, noise_multiplier: float) -> float:
        """By what clients multiply before rounding.

        Raises:
            ParameterError: The ring cannot hold a sum over so many clients.
        """
        scale = self._ring_scale(noise_multiplier)
        if noise_multiplier == 0:
            return scale
        smallest = self.honest if self.smallest_class is None else self.smallest_class
        return min(scale, LARGEST_SHARE * math.sqrt(smallest) / (noise_multiplier * self.clip))

    def _ring_scale(self, noise_multiplier: float) -> float:
        if self.rotated:
            sub_gaussian = math.sqrt(2 * math.log(2 * self.dimension / self.wrap_probability))
            largest = partial(rotated_ring_scale, stds=sub_gaussian if self.stds is None else self.stds)
        else:
            largest = partial(ring_scale, wrap_probability=self.wrap_probability)
        return largest(
            self.ring_bits,
            noise_multiplier,
            clients=self.clients,
            clip=self.clip,
            dimension=self.dimension,
            surplus=self.clients / self.honest if self.surplus is None else self.surplus,
        )

    def sensitivity(self, noise_multiplier: float) -> Sensitivity:
        """Largest norms of one contribution, in integers."""
        return rounded_sensitivity(self.clip, self.scale(noise_multiplier), self.dimension, self.beta)

    def central_std(self, noise_multiplier: float) -> float:
        """Standard deviation of the guaranteed noise in a coordinate of the sum, in integers."""
        return noise_multiplier * self.clip * self.scale(noise_multiplier)

    def local_std(self, noise_multiplier: float, sized_for: int | None = None) -> float:
        """Standard deviation of one client's share, in integers.

        Args:
            noise_multiplier: Of the central noise.
            sized_for: Honest survivors that are guaranteed in a class of coverage. Default: in the whole sum.
        """
        return self.central_std(noise_multiplier) / math.sqrt(self.honest if sized_for is None else sized_for)

    def event(
        self, noise_multiplier: float, classes: Sequence[Coverage] | None = None
    ) -> SkellamSum | DiscreteGaussianSum:
        """What a round was.

        With Skellam noise, more of it in some coordinates is post-processing, so the smallest variance holds for all.
        With discrete Gaussian noise, so it is up to how far the sum of the shares is from one, where the smallest share
        and the largest number of shares hold for all.

        Args:
            noise_multiplier: Of the central noise.
            classes: Whose noise really is in the sum, per class of coverage. Default: the fewest that are tolerated.

        Raises:
            InputError: There is no class, or one is impossible.
            ParameterError: As ``scale``.
        """
        classes = (Coverage(self.honest, self.honest),) if classes is None else classes
        variance = weakest(classes) * self.central_std(noise_multiplier) ** 2
        l1, l2 = self.sensitivity(noise_multiplier)
        if self.mechanism == "skellam":
            return SkellamSum(
                l1=l1, l2=l2, variance=variance, dimension=self.dimension, sampler_error=self.sampler_error
            )
        return DiscreteGaussianSum(
            l1=l1,
            l2=l2,
            variance=variance,
            local_std=self.local_std(noise_multiplier, max(one.sized_for for one in classes)),
            contributors=max(one.contributors for one in classes),
            dimension=self.dimension,
            sampler_error=self.sampler_error,
        )

    def survived_by(self, survivors: int) -> tuple[Coverage]:
        """The coverage of a round with so many survivors, where all hold everything.

        Args:
            survivors: Colluders among them.

        Raises:
            InputError: Fewer than ``min_survivors``, or more than ``clients``.
        """
        if not self.honest + self.colluders <= survivors <= self.clients:
            raise InputError("survivors must be from min_survivors to clients: clients refuse to unmask fewer")
        return (Coverage(survivors - self.colluders, self.honest),)

    def noise_for(self, epsilon: float, delta: float, rounds: int) -> float:
        """The smallest noise multiplier at which ``rounds`` worst rounds cost at most (epsilon, delta).

        Raises:
            ParameterError: No noise is enough; the message names the setting that stands in the way.
        """
        floor = calibrate.epsilon_after(rounds, self.event(calibrate.MOST), delta)
        if floor > epsilon and (bits := self._enough_bits(epsilon, delta, rounds)) is not None:
            raise ParameterError(
                f"ring_bits {self.ring_bits} leaves too coarse a grid for {self.clients} clients and {self.dimension} "
                f"coordinates at epsilon {epsilon:g} after {rounds} rounds: raise ring_bits to {bits}, raise epsilon, "
                "or lower clients or rounds"
            )
        return calibrate.noise_for(epsilon, delta, rounds, self.event)

    def _enough_bits(self, epsilon: float, delta: float, rounds: int) -> int | None:
        """The narrowest wider ring with which the noise can be had, if there is one."""
        for bits in range(self.ring_bits + 1, WIDEST_RING + 1):
            wider = replace(self, ring_bits=bits)
            if calibrate.epsilon_after(rounds, wider.event(calibrate.MOST), delta) <= epsilon:
                return bits
        return None
