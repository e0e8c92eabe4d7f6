"""A cohort in shards: who is in which, what each of them has to bear, and the session that each of them plays.

Where one graph would hold too many clients, the cohort is split at random into shards. Each plays a session of its own,
with its own keys, graph and thresholds, and the server adds the shards' sums (``combining``). It learns every shard's
sum, not only the total; and whatever goes wrong stays in its shard.

Whoever decides where colluders go could surround a client with them. So the division is drawn, from a *public* seed
that was fixed before anybody knew it, and it is drawn anew for every other list of clients: to leave somebody out is to
draw again. With a semi-honest server anything fresh is such a seed, the round's session id among others. With an active
one it must follow from what clients hold without the server, such as the digest of the identities that they pinned
together with the number of the round; every client computes its shard by itself, over all that it pinned, and pins for
its session those of its shard. The server must not choose the seed, nor clients the identities once they can tell it:
the bounds have room for ``graph.GRINDING_BITS`` of tries, no more.

Ledgers (``ledger``) compare the sessions that their own client was in. While the division stays the same, that is all
that matters: sums of other shards are over other clients. Were the shards of one model drawn anew, the two totals would
differ by whoever dropped out of one of them, and nobody would have seen both. So play all sessions of one model with
one division, in which whoever stays away has dropped out, or start each from a new model. ``Ledger(scope="all")``,
which compares the sessions of different models, needs one division for all of them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from secagg import graph
from secagg.errors import InputError, ParameterError
from secagg.prg import SeededEntropy
from secagg.session import ID_BYTES
from secagg.topology import topology

if TYPE_CHECKING:
    from collections.abc import Collection

    from secagg.params import Mode, Params
    from secagg.session import Session

SEED_BYTES = 32
CLIENT_BYTES = 8


@dataclass(frozen=True, eq=False)
class Shard:
    """One shard of a cohort.

    Args:
        number: From 0.
        session: What it plays.
        clients: Who is in it, ascending.
    """

    number: int
    session: Session
    clients: tuple[int, ...]


def split(session: Session, clients: Collection[int], shards: int, seed: bytes) -> tuple[Shard, ...]:
    """The sessions that take the place of one session over a whole cohort.

    Args:
        session: What the whole cohort would play; its ``params`` count the cohort (``shard_params``). The shards'
            session ids follow from its id, from who is in which shard, and from the seed.
        clients: The cohort.
        shards: How many.
        seed: As ``assign``.

    Raises:
        ParameterError: As ``shard_params`` and ``assign``; or the session holds counts, which each shard has to take
            for itself.
        InputError: As ``assign``.
    """
    if session.counted is not None:
        raise ParameterError("counts of a cohort say nothing about its shards: split first, and count in each shard")
    params = shard_params(session.params, len(clients), shards)
    for size in {len(clients) // shards, -(-len(clients) // shards)}:
        _check_wiring(params, session.mode, size)
    round_ = session.id + seed + shards.to_bytes(CLIENT_BYTES, "big") + _listed(sorted(clients))

    def id_of(number: int) -> bytes:
        return hashlib.sha256(b"secagg shard" + number.to_bytes(CLIENT_BYTES, "big") + round_).digest()[:ID_BYTES]

    return tuple(
        Shard(number, replace(session, id=id_of(number), params=params), members)
        for number, members in enumerate(assign(clients, shards, seed))
    )


def assign(clients: Collection[int], shards: int, seed: bytes) -> tuple[tuple[int, ...], ...]:
    """Who is in which shard: a uniformly random division into shards whose sizes differ by at most one.

    Args:
        clients: Ids of the cohort, in any order.
        shards: How many.
        seed: 32 bytes, public, that neither the server nor a colluder chose or knew before the cohort was settled; see
            above.

    Returns:
        The clients of each shard, ascending.

    Raises:
        ParameterError: More shards than clients, none, or a seed of another length.
        InputError: A client is listed twice.
    """
    _check_number(len(clients), shards)
    if len(seed) != SEED_BYTES:
        raise ParameterError(f"the seed of a division has {SEED_BYTES} bytes")
    if not all(isinstance(client, int) and 0 <= client < 2 ** (8 * CLIENT_BYTES) for client in clients):
        raise InputError("client ids are integers from 0, of 8 bytes")
    cohort = sorted(clients)
    if len(set(cohort)) < len(cohort):
        raise InputError("a client is listed twice")
    entropy = SeededEntropy(b"shards" + seed + shards.to_bytes(CLIENT_BYTES, "big") + _listed(cohort))
    order = [client for _, client in sorted((entropy(SEED_BYTES), client) for client in cohort)]
    return tuple(tuple(sorted(order[number::shards])) for number in range(shards))


def shard_params(params: Params, clients: int, shards: int) -> Params:
    """The settings of each shard's session.

    Of ``corrupt`` clients of the cohort, more than the shards' ``corrupt`` fall into any shard with a probability of
    at most 2^-security_bits (2^-``graph.GRINDING_BITS`` of that with an active server, which may try many); of
    ``max_dropouts``, more than theirs into any with at most 2^-20, and where that happens one shard aborts. Both are
    union bounds over hypergeometric tails, and suppose that who colludes and who drops out does not depend on the
    division. ``max_dropouts`` that is not set stays so: of each shard a third may drop out.

    All other settings hold in each shard as they stand, ``min_cohort``, ``participation``, ``neighbours`` and
    ``share_threshold`` among them. With ``privacy`` each shard's sum carries all of the noise by itself, because the
    server sees it by itself: size it (``PrivacyBudget.privacy``) for these settings and the clients of one shard.

    Args:
        params: Settings of the whole cohort.
        clients: Its size.
        shards: How many shards, of which the largest is at most one larger than the smallest.

    Raises:
        ParameterError: More shards than clients, none, or shards too small for what they have to bear; the message
            names the largest number that works.
    """
    _check_number(clients, shards)
    found, size = _falling_into_one(params, clients, shards), clients // shards
    if _room(found, size):
        return found
    fewer = range(shards - 1, 0, -1)
    most = next((one for one in fewer if _room(_falling_into_one(params, clients, one), clients // one)), 0)
    quorum = f", nor a quorum of {found.quorum(size)} and so many dropouts" if params.active else ""
    remedy = f"the largest number of shards that works is {most}" if most else "no number of shards works"
    raise ParameterError(
        f"{shards} shards have {size} of {clients} clients each, which hold no min_cohort {params.min_cohort} + "
        f"corrupt {found.corrupt} + max_dropouts {found.max_dropouts or 0} (so many of {params.corrupt} and "
        f"{params.max_dropouts or 0} may fall into one){quorum}: {remedy}; or lower min_cohort, corrupt or max_dropouts"
    )


def _check_number(clients: int, shards: int) -> None:
    if not 1 <= shards <= clients:
        raise ParameterError(f"shards must be from 1 to the {clients} clients, not {shards}")


def _check_wiring(params: Params, mode: Mode, size: int) -> None:
    """Refuses settings with which a shard of this size would bear less than it has to."""
    try:
        borne = params.dropouts_tolerated(size, topology(params, mode, size).needed)
    except ParameterError as error:
        raise ParameterError(f"in a shard of {size} clients: {error}") from None
    if borne < (params.max_dropouts or 0):
        raise ParameterError(
            f"share_threshold {params.share_threshold} lets {borne} of a shard's {size} clients drop out, and "
            f"{params.max_dropouts} may: lower share_threshold, or leave it unset"
        )


def _listed(clients: Collection[int]) -> bytes:
    return b"".join(client.to_bytes(CLIENT_BYTES, "big") for client in clients)


def _falling_into_one(params: Params, clients: int, shards: int) -> Params:
    demands = graph.Demands(
        lost=params.max_dropouts or 0,
        corrupt=params.corrupt,
        security_bits=params.security_bits,
        active=params.active,
    )

    def most(marked: int, bits: int) -> int:
        """Of so many clients, the most that fall into any shard except with probability 2^-bits."""
        tails = graph.log2_tails(clients, min(marked, clients), -(-clients // shards))
        return int(np.argmax(tails + math.log2(shards) <= -bits)) - 1

    return replace(
        params,
        corrupt=most(demands.corrupt, demands.bits),
        security_bits=params.security_bits
        + math.ceil(math.log2(shards)),  # of each shard's sparse graph, if it has one
        max_dropouts=None if params.max_dropouts is None else most(demands.lost, graph.LIVENESS_BITS),
    )


def _room(params: Params, size: int) -> bool:
    """Whether a shard of this size bears what these settings, its own, demand."""
    return size >= max(params.privacy_floor, params.quorum(size)) + (params.max_dropouts or 0)
