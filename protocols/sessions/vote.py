"""A secure vote on invariant units: FLuID's rule on a sum of bits, so that nobody sees a single client's units.

In FLuID (``pruning.fluid``) a server that sees every update finds the units that hardly change. Here each voter, a
client that is no straggler and trained the whole model, sets a bit for each unit that is invariant in its own update
(``invariant_units`` of its ``relative_change``, or of another score), and a secure count adds the bits up. From the
public counts everybody makes the same mask for stragglers: it is public, tells nothing of the straggler that trains
under it, and stragglers with equal keep ratios form one group.

What the counts still say: how many voters called each unit invariant. Where all did, or none, each one's bit is known.

Ours, and reconstructed where it follows FLuID: the vote by unit, the order of the mask and the moves of the threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocols.sessions.tally import tally
from pruning.fluid import QUORUM, agreed, check_groups, count_by_group, dropped_by_group, votes_needed
from pruning.masks import keep_units
from secagg.declaration import Provenance
from secagg.errors import LayoutMismatchError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from protocols.aggregators import Client, Dropouts
    from protocols.sessions.tally import Tally
    from pruning.fluid import Thresholds
    from pruning.masks import Mask
    from secagg.layout import Layout
    from secagg.params import Params


@dataclass(frozen=True, eq=False)
class Vote:
    """A vote that ended; all of it is public.

    Args:
        layout: Whose units were voted on.
        tally: The votes for each unit, (unit_count,), who voted, and what it cost.
    """

    layout: Layout
    tally: Tally

    @property
    def voters(self) -> int:
        """How many clients are in the counts."""
        return len(self.tally.clients)

    def invariant(self, quorum: float = QUORUM) -> NDArray[np.bool_]:
        """The units that a quorum of the voters called invariant, (unit_count,) bool.

        Raises:
            ParameterError: ``quorum`` is not in (0, 1].
        """
        return agreed(self.tally.counts, self.voters, quorum)


def voted_mask(
    layout: Layout, counts: NDArray[np.int64], keep: float, provenance: Provenance = Provenance.PUBLIC
) -> Mask:
    """The public mask of all stragglers with a keep ratio: in each group the units with the most votes are dropped.

    Of equally many votes the last units are dropped, so everybody computes the same mask, and masks are nested: a unit
    held at one keep ratio is held at every larger one.

    Args:
        layout: Whose units were voted on.
        counts: The votes for each unit, (unit_count,) whole numbers.
        keep: Share of each group that is kept, as ``kept_units``, in (0, 1].
        provenance: That of the keep ratio, where it says something about the device.

    Raises:
        LayoutMismatchError: Another number of counts than of units.
        ParameterError: ``keep`` is not in (0, 1].
    """
    return keep_units(layout, -counts, keep, provenance=provenance)


def vote(
    layout: Layout,
    bits: Mapping[Client, NDArray[np.bool_]],
    *,
    params: Params | None = None,
    dropouts: Dropouts | None = None,
    seed: bytes | None = None,
    encrypted: bool = True,
) -> Vote:
    """Plays a vote.

    Args:
        layout: Says which units there are.
        bits: Voter to the units that it calls invariant, (unit_count,) bool.
        params: The thresholds, as in any session.
        dropouts: Client to the last stage of the session that it completes. Who leaves before its input arrived has
            not voted.
        seed: Makes the secrets of the session repeatable: for simulations, and a new one each session.
        encrypted: False counts the same votes in the clear, under the same thresholds.

    Raises:
        InputError: No voter, or nothing to vote on.
        LayoutMismatchError: Bits that are not a bool for each unit; ``culprits`` names the voter.
        TooFewClientsError: Fewer voters than a threshold demands.
    """
    for voter, own in bits.items():
        if own.shape != (layout.unit_count,):
            message = f"voter {voter}: {layout.unit_count} units need as many bits, not an array of {own.shape}"
            raise LayoutMismatchError(message, culprits=[voter])
    return Vote(layout, tally(bits, params=params, dropouts=dropouts, seed=seed, encrypted=encrypted))


@dataclass(frozen=True, kw_only=True)
class VoteThresholds:
    """Where the public thresholds of the units' changes start, and how they move from vote to vote.

    FLuID starts from changes that only a server that sees updates can know, and adds steps that suit one data set.
    Reconstructed for public counts: a threshold starts anywhere and is multiplied until as many units reach the quorum
    as are to be dropped. It rises fast, and falls slowly so as not to leave the range where it can rest.

    Args:
        quorum: Share of the voters that has to agree, in (0, 1].
        start: Of every group, positive.
        rise: Factor where too few units reach the quorum, above 1.
        fall: Divisor where far too many do, above 1.

    Raises:
        ParameterError: A setting outside its domain.
    """

    quorum: float = QUORUM
    start: float = 1.0
    rise: float = 1.5
    fall: float = 1.1

    def __post_init__(self) -> None:
        votes_needed(1, self.quorum)
        if not 0 < self.start < math.inf:
            raise ParameterError("start must be positive and finite")
        if not (1 < self.rise < math.inf and 1 < self.fall < math.inf):
            raise ParameterError("rise and fall must be larger than 1 and finite")

    def initial(self, layout: Layout) -> dict[str, float]:
        """Unit group to threshold before the first vote."""
        return dict.fromkeys(layout.unit_groups, self.start)

    def moved(self, thresholds: Thresholds, vote: Vote, keep: float) -> dict[str, float]:
        """Unit group to threshold after a vote, from public values only.

        Far too many is more than twice as many as are to be dropped, or the whole group: then votes are so many that
        their order says little.

        Args:
            thresholds: Those of the vote.
            vote: The vote.
            keep: The smallest keep ratio of the stragglers, in (0, 1].

        Raises:
            ParameterError: ``keep`` is outside its domain, or ``thresholds`` names other groups than the layout.
        """
        layout = vote.layout
        check_groups(layout, thresholds)
        found, wanted = count_by_group(layout, vote.invariant(self.quorum)), dropped_by_group(layout, keep)
        return {
            group: threshold * self._factor(found[group], wanted[group], layout.unit_groups[group])
            for group, threshold in thresholds.items()
        }

    def _factor(self, found: int, wanted: int, size: int) -> float:
        """What moves the threshold of a group of ``size`` units of which ``wanted`` are to be dropped."""
        if found < wanted:
            return self.rise
        return 1 / self.fall if wanted and found > min(2 * wanted, size - 1) else 1.0
