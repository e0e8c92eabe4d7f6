"""False sums: what hostile clients do to a server that plays by the rules.

Threat: a client sends what it likes. What it cannot be kept from is sending another update than its own; these attacks
try to shift the sums by more than that without being noticed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from attacks.wire.attack import SIZE, UPDATES, VICTIM, Attack, Goal, Weakness, contributions, encoded, nothing, session
from attacks.wire.hostile import as_kind
from attacks.wire.play import Play
from secagg import declaration, encoding, field, masking, messages, server, transcript, unmasking
from secagg.client import Client
from secagg.declaration import Provenance
from secagg.masking import Accumulator
from secagg.messages import MaskedInput, RelayedShares, ShareKeys, Unmask
from secagg.ring import Ring
from secagg.rounds import ACCEPTS, Round
from secagg.server import Server

if TYPE_CHECKING:
    from secagg.messages import RevealedShare, SealedShares
    from secagg.params import Params
    from secagg.session import Session
    from secagg.states import HeldShares

CLIENTS = 5
HOSTILE = 4
LEVELS = 2 * ((2**15 - 1) // CLIENTS) + 1
"""So many that the sums of five updates fill a ring of 16 bits: none is out of bounds, only the checksum tells."""


def deviation(game: Play) -> list[int]:
    """Plays on to the end; by how much each sum is off that of what the survivors brought, in exact integers."""
    outcome = game.finish()
    params, total = game.server.session.params, [0] * len(outcome.integers)
    for client in outcome.survivors:
        brought = game.contributions[client]
        weight = None if brought.weight is None else _encoded_weight(params, brought.weight)
        true = encoded(params, brought.update["w"], weight) + ([] if weight is None else [weight])
        total = [one + other for one, other in zip(total, true, strict=True)]
    return [int(found) - true for found, true in zip(outcome.integers, total, strict=True)]


def _encoded_weight(params: Params, weight: float) -> int:
    """A weight in exact integers, whatever its size."""
    return round(weight / params.max_weight * params.magnitude)


def _in_the_open(game: Play) -> bytes:
    """The hostile client's update once more, without masks, with the checksum that goes with it."""
    params = game.server.session.params
    first = as_kind(ShareKeys, game.sent[Round.SHARE_KEYS][HOSTILE]).transcript
    participants = as_kind(RelayedShares, game.inbox[HOSTILE]).participants
    integers = np.array(encoded(params, UPDATES[HOSTILE]))
    ring = Ring.holding(len(participants) * params.magnitude)
    checks = masking.checksums(integers, transcript.h2(first, participants))
    check = b"".join(number.to_bytes(8, "little") for number in checks)
    return messages.encode(MaskedInput(game.server.session.id, HOSTILE, check, ring.pack(ring.wrap(integers))))


def _counted_twice(attacked: Session) -> list[int]:
    game = Play(attacked, contributions(CLIENTS)).until(Round.MASKED_INPUT)
    game.deliver()
    game.server.receive(_in_the_open(game))
    return deviation(game)


COUNTED_TWICE = Attack(
    name="a vector counted twice",
    threat="a client sends a second vector, in the open and with a good checksum",
    stopped_by="the server takes one message of each client in each round",
    session=session(),
    play=_counted_twice,
    weakness=(Weakness(Server, "_admit", nothing),),
    goal=Goal.FALSIFY,
)


def _after_the_round(attacked: Session) -> list[int]:
    game = Play(attacked, contributions(CLIENTS)).until(Round.MASKED_INPUT)
    late = _in_the_open(game)
    game.deliver([client for client in game.clients if client != HOSTILE])
    game.close()
    game.server.receive(late)
    return deviation(game)


def _whoever_shared_keys(server: Server) -> frozenset[int] | None:
    """Dropouts are admitted to the last round, too."""
    late = frozenset(server._shared) if server.round is Round.UNMASK else None  # noqa: SLF001 - the weakened build
    return late or _ADMITTED(server)


_ADMITTED = Server._admitted  # noqa: SLF001

AFTER_THE_ROUND = Attack(
    name="a vector after the round",
    threat="a client that counts as dropped out sends its vector once the survivors are settled",
    stopped_by="each round accepts one kind of message; and the last one only those of survivors",
    session=session(),
    play=_after_the_round,
    weakness=(
        Weakness(server, "ACCEPTS", ACCEPTS | {Round.UNMASK: messages.Message}),
        Weakness(Server, "_admitted", _whoever_shared_keys),
    ),
    goal=Goal.FALSIFY,
)


class _Anything(tuple[int, int]):
    """A checksum that equals every other."""

    __slots__ = ()

    def __ne__(self, _other: object) -> bool:
        return False


class _Unchecked(Accumulator):
    """Sums that any checksum fits."""

    def add_checks(self, sign: int, checks: tuple[int, int]) -> None:  # noqa: ARG002 - there is nothing to add up
        """Leaves it as it is."""
        self.checks = _Anything()


NO_CHECKSUM = Weakness(server, "Accumulator", _Unchecked)


def _shifted(share: RevealedShare) -> RevealedShare:
    return structs.replace(share, share=field.encode((field.decode(share.share) + 1) % field.PRIME))


class _BadDealer(Client):
    """Deals shares of another self seed than it masks with."""

    def _seal(self, shares: HeldShares, holder: int, secret: bytes, h1: bytes) -> SealedShares:
        return super()._seal(replace(shares, self_seed=_shifted(shares.self_seed)), holder, secret, h1)


class _BadLeaver(Client):
    """Deals shares of another masking key than it masks with."""

    def _seal(self, shares: HeldShares, holder: int, secret: bytes, h1: bytes) -> SealedShares:
        return super()._seal(replace(shares, masking_key=_shifted(shares.masking_key)), holder, secret, h1)


class _BadHolder(Client):
    """Reveals another share of the victim than the one that it holds."""

    def unmask(self, request: bytes) -> bytes:
        answer = as_kind(Unmask, super().unmask(request))
        shares = tuple(_shifted(share) if share.dealer == VICTIM else share for share in answer.shares)
        return messages.encode(structs.replace(answer, shares=shares))


def _bad_dealer(attacked: Session) -> list[int]:
    return deviation(Play(attacked, contributions(CLIENTS), kinds={HOSTILE: _BadDealer}))


BAD_DEALER = Attack(
    name="corrupted shares of a dealer",
    threat="a client deals shares of another self seed than it masks with, so that a wrong mask is taken off",
    stopped_by="the dealer's commitment to its seed; and the checksum",
    session=session(levels=LEVELS),
    play=_bad_dealer,
    weakness=(Weakness(unmasking, "check_rebuilt", nothing), NO_CHECKSUM),
    goal=Goal.FALSIFY,
)


def _bad_leaver(attacked: Session) -> list[int]:
    """It holds one coordinate: wrong masks on all of them would leave the bounds of what four clients can bring."""
    brings = contributions(CLIENTS)
    mask = declaration.of_coordinates(attacked.layout, np.arange(SIZE) == 0, Provenance.DEVICE)
    brings |= {HOSTILE: replace(brings[HOSTILE], mask=mask)}
    game = Play(attacked, brings, kinds={HOSTILE: _BadLeaver}).until(Round.MASKED_INPUT)
    game.deliver([client for client in game.clients if client != HOSTILE])
    game.close()
    return deviation(game)


BAD_LEAVER = Attack(
    name="corrupted shares of a dealer that drops out",
    threat="a client deals shares of another masking key than it masks with, and drops out, so that wrong masks are "
    "taken off",
    stopped_by="the masking key that the dealer advertised; and the checksum",
    session=session("mask-indexed", max_dropouts=1, levels=LEVELS),
    play=_bad_leaver,
    weakness=(Weakness(unmasking, "check_rebuilt", nothing), NO_CHECKSUM),
    goal=Goal.FALSIFY,
)


def _bad_holder(attacked: Session) -> list[int]:
    return deviation(Play(attacked, contributions(CLIENTS), kinds={0: _BadHolder}))


BAD_HOLDER = Attack(
    name="a corrupted share of a holder",
    threat="a client reveals another share of the victim's self seed than it holds, so that a wrong mask is taken off",
    stopped_by="the commitment to every share; the commitment to the seed; and the checksum",
    session=session(levels=LEVELS),
    play=_bad_holder,
    weakness=(
        Weakness(unmasking, "check_revealed", nothing),
        Weakness(unmasking, "check_rebuilt", nothing),
        NO_CHECKSUM,
    ),
    goal=Goal.FALSIFY,
)


def _ring_overflow(attacked: Session) -> list[int]:
    brings = contributions(CLIENTS)
    large = np.full(SIZE, 10 * attacked.params.range_of("w"))
    return deviation(Play(attacked, brings | {HOSTILE: replace(brings[HOSTILE], update={"w": large})}))


RING_OVERFLOW = Attack(
    name="ring overflow",
    threat="a client brings values so large that the sums wrap around the ring",
    stopped_by="the client's own check of what it encodes; and the checksum, which is over integers",
    session=session(levels=LEVELS),
    play=_ring_overflow,
    weakness=(
        Weakness(encoding, "check_update", nothing),
        Weakness(encoding, "check_encoded", nothing),
        NO_CHECKSUM,
    ),
    goal=Goal.FALSIFY,
)


def _weight_overflow(attacked: Session) -> list[int]:
    brings = {client: replace(one, weight=1.0) for client, one in contributions(CLIENTS).items()}
    return deviation(Play(attacked, brings | {HOSTILE: replace(brings[HOSTILE], weight=12.0)}))


WEIGHT_OVERFLOW = Attack(
    name="weight overflow",
    threat="a client brings a weight so large that the sum of the weights wraps around the ring",
    stopped_by="the client's own check of its weight; and the checksum, which covers the weights",
    session=session(weighted=True, levels=LEVELS),
    play=_weight_overflow,
    weakness=(Weakness(encoding, "encode_weight", _encoded_weight), NO_CHECKSUM),
    goal=Goal.FALSIFY,
)
