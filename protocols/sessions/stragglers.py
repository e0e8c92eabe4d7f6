"""Stragglers name themselves, by a histogram of times that only the sum of all clients shows.

CLIP's first step (arXiv 2510.16694): a client learns how its time compares with the others' and calls itself a
straggler if it is among the slowest fifth. There every client's time reaches every other client, encrypted on the way
past the server. Here, stronger, nobody learns the time of anybody: each client sets the bit of the bin that its own
time falls into, a secure count adds the bits up, and from the counts every client decides for itself.

What the counts still say: how many clients have a time in each bin. One that is alone in a bin shows that somebody has
that time, not who; but whoever then trains a smaller submodel in a mask-indexed session shows that it is one of the
slow ones. A server that announces counts of its own making (see ``protocols.sessions.tally``) decides who calls itself
a straggler, and learns from their masks what it asked.

Reconstructed: the rule of ``decide``, of which the paper says the share only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from protocols.sessions.tally import tally
from secagg.declaration import Provenance
from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from protocols.aggregators import Client, Dropouts
    from protocols.sessions.tally import Tally
    from secagg.params import Params

_LEAST_RATIO = 1.001
"""Finer bins would cost more bytes than times are worth."""


@dataclass(frozen=True, kw_only=True)
class TimeBins:
    """Bins of times on a logarithmic scale, public: bin i starts at ``fastest * ratio**i`` seconds.

    The first bin also takes faster times, and the last one slower times.

    Args:
        fastest: Seconds at which the first bin starts.
        slowest: Seconds that the last bin reaches, or just exceeds.
        ratio: Of the ends of a bin, at least 1.001; 1.02 tells times apart that differ by 2 %.

    Raises:
        ParameterError: ``fastest`` is not positive, ``slowest`` not above it, or ``ratio`` too small.
    """

    fastest: float = 1e-3
    slowest: float = 1e6
    ratio: float = 1.02

    def __post_init__(self) -> None:
        if not 0 < self.fastest < self.slowest < math.inf:
            raise ParameterError("fastest must be positive, and slowest larger and finite")
        if not _LEAST_RATIO <= self.ratio < math.inf:
            raise ParameterError(f"ratio must be at least {_LEAST_RATIO} and finite")

    @cached_property
    def edges(self) -> NDArray[np.float64]:
        """The lower edge of each bin in seconds, (bins,) float64, ascending, read-only."""
        count = math.ceil((math.log(self.slowest) - math.log(self.fastest)) / math.log(self.ratio))
        edges = self.fastest * np.power(self.ratio, np.arange(count), dtype=np.float64)
        edges.setflags(write=False)
        return edges

    def bin_of(self, seconds: float) -> int:
        """The bin that a time falls into."""
        return max(0, int(np.searchsorted(self.edges, seconds, side="right")) - 1)

    def one_hot(self, seconds: float) -> NDArray[np.bool_]:
        """A bit for each bin, set in that of a time, (bins,) bool."""
        bits = np.zeros(len(self.edges), bool)
        bits[self.bin_of(seconds)] = True
        return bits


@dataclass(frozen=True, eq=False)
class Identified:
    """Who called itself a straggler, and the time that it should reach.

    Args:
        stragglers: In the order of the times given.
        deadline: Seconds that everybody reads off the counts: the lower edge of the slowest bin that holds a client
            that is no straggler. So a straggler that meets it is never slower than the slowest of the rest, unless all
            the rest is faster than the first bin starts; at the cost of at most a bin's width.
        share: The share of the clients that were to be stragglers.
        tally: The histogram, whom it counts, and what it cost.
    """

    stragglers: tuple[Client, ...]
    deadline: float
    share: float
    tally: Tally


def identify(
    seconds: Mapping[Client, float],
    *,
    share: float = 0.2,
    params: Params | None = None,
    bins: TimeBins | None = None,
    dropouts: Dropouts | None = None,
    seed: bytes | None = None,
    encrypted: bool = True,
) -> Identified:
    """Plays the identification of stragglers, each client with its own time and the public counts.

    Args:
        seconds: Client to the seconds that a round takes it.
        share: See ``decide``.
        params: The thresholds, as in any session.
        bins: The bins of the histogram; by default from a millisecond to ten days, each 2 % wide.
        dropouts: Client to the last stage of the session that it completes. Who leaves before its input arrived is
            not counted and decides nothing.
        seed: Makes the secrets of the session repeatable: for simulations, and a new one each session.
        encrypted: False computes the same counts in the clear, under the same thresholds.

    Raises:
        InputError: No client, or a time that is not positive and finite; ``culprits`` names its client.
        ParameterError: ``share`` is outside its domain.
        TooFewClientsError: Fewer clients than a threshold demands.
    """
    _check_share(share)
    bins = bins or TimeBins()
    for client, time in seconds.items():
        if not (math.isfinite(time) and time > 0):
            raise InputError(f"client {client}: a time must be positive and finite", culprits=[client])
    bits = {client: bins.one_hot(time) for client, time in seconds.items()}
    counted = tally(
        bits, params=params, dropouts=dropouts, seed=seed, encrypted=encrypted, provenance=Provenance.DEVICE
    )
    return Identified(
        stragglers=tuple(one for one in counted.clients if decide(bins.bin_of(seconds[one]), counted.counts, share)),
        deadline=float(bins.edges[slowest_of_the_rest(counted.counts, share)]),
        share=share,
        tally=counted,
    )


def decide(own_bin: int, counts: NDArray[np.int64], share: float = 0.2) -> bool:
    """Whether a client calls itself a straggler, from its own bin and the public counts.

    It does if fewer than ``share`` of the clients are in slower bins, and more than half of them are in faster ones:
    its bin is slower than that of the median, for an even number the slower of the two in the middle. Clients in one
    bin decide alike, so of 20 clients five that are equally slow are all stragglers, and nobody is where all are
    equal. Stragglers are always a minority. Only whole numbers are compared, with ``share`` taken as the decimal number
    that it is written as.

    Args:
        own_bin: The client's bin.
        counts: Clients in each bin, fastest first, (bins,) whole numbers.
        share: Share of the clients that are to be stragglers, in (0, 0.5].

    Raises:
        ParameterError: ``share`` is outside its domain.
    """
    _check_share(share)
    clients, faster, slower = (int(part.sum()) for part in (counts, counts[:own_bin], counts[own_bin + 1 :]))
    exact = Fraction(str(share))
    return slower * exact.denominator < exact.numerator * clients and 2 * faster > clients


def slowest_of_the_rest(counts: NDArray[np.int64], share: float = 0.2) -> int:
    """The slowest bin that holds a client that is no straggler.

    Args:
        counts: Clients in each bin, fastest first, (bins,) whole numbers, not all zero.
        share: See ``decide``.

    Raises:
        InputError: ``counts`` holds no client.
        ParameterError: ``share`` is outside its domain.
    """
    rest = [number for number in np.flatnonzero(counts).tolist() if not decide(number, counts, share)]
    if not rest:
        raise InputError("the histogram holds no client")
    return max(rest)


def _check_share(share: float) -> None:
    if not 0 < share <= 0.5:
        raise ParameterError(f"share must be in (0, 0.5], not {share}")
