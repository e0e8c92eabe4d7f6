"""What a client holds between two rounds: one frozen value a state, with no more secrets than the next round needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from secagg.graph import Graph
    from secagg.keys import KeyPair
    from secagg.messages import Member, Participant, RevealedShare
    from secagg.release import Plan
    from secagg.topology import Topology


@dataclass(frozen=True)
class Start:
    """Nothing has been sent."""


@dataclass(frozen=True)
class Advertised:
    """Keys are out."""

    masking: KeyPair = field(repr=False)
    transport: KeyPair = field(repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Shared:
    """Shares are out; mask and weight are fixed.

    Both private keys are gone: what they agree on with each neighbour is enough, to mask and to open its box.
    """

    agreed: Mapping[int, bytes] = field(repr=False)
    sealing: Mapping[int, bytes] = field(repr=False)
    self_seed: bytes = field(repr=False)
    noise_seed: bytes = field(repr=False)
    own_share: RevealedShare = field(repr=False)
    roster: Mapping[int, Member]
    graph: Graph
    topology: Topology
    h1: bytes
    declared: Participant
    own: NDArray[np.bool_] = field(repr=False)
    weight: int | None = field(repr=False)


@dataclass(frozen=True)
class HeldShares:
    """The two shares that a neighbour dealt to this client. One of them, never both, will be revealed."""

    self_seed: RevealedShare = field(repr=False)
    masking_key: RevealedShare = field(repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Masked:
    """The masked vector is out; only shares of others are still needed."""

    plan: Plan = field(repr=False)
    graph: Graph = field(repr=False)
    topology: Topology
    h2: bytes
    own_share: RevealedShare = field(repr=False)
    noise_seeds: tuple[bytes, ...] = field(repr=False)
    held: Mapping[int, HeldShares] = field(repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreed:
    """This client has signed who survived, and will unmask nobody else."""

    masked: Masked
    survivors: bytes


@dataclass(frozen=True)
class Done:
    """The unmask answer is out."""


@dataclass(frozen=True)
class Saved:
    """It lives on in what was saved, and only there."""


State = Start | Advertised | Shared | Masked | Agreed | Done | Saved
