"""A client between two messages, as bytes: the secrets of its state, and the public lists that the rest follows from.

What is computed anew when it is restored (graph, plan, hashes) is not kept. A digest at the end finds out damage; it is
no signature, since whoever can write where a client is kept could as well run the client.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Annotated

import msgspec

from secagg import declaration, messages, transcript
from secagg.errors import AgreementError, DecodingError, LocalProtocolError, SecAggError
from secagg.graph import Graph
from secagg.keys import SEED_BYTES, KeyPair
from secagg.messages import ClientId, Digest, Key, Member, Participant, RevealedShare, Salt
from secagg.relayed import members_of
from secagg.release import Plan
from secagg.states import Advertised, Agreed, HeldShares, Masked, Shared
from secagg.topology import topology

if TYPE_CHECKING:
    from secagg.declaration import Declaration
    from secagg.session import Session
    from secagg.states import State

DIGEST_BYTES = 32
Secret = Annotated[bytes, msgspec.Meta(min_length=SEED_BYTES, max_length=SEED_BYTES)]


class _Kept(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Whatever holds secrets, and shows none."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<redacted>)"


class KeptAdvertised(_Kept, frozen=True, tag="Advertised"):
    """``states.Advertised``: both private keys."""

    masking: Secret
    transport: Secret


class KeptShared(_Kept, frozen=True, tag="Shared"):
    """``states.Shared``: agreements of both kinds in ascending order of neighbour, and U1.

    ``own`` is the mask that stays here; in a mask-indexed session it is the one declared.
    """

    agreed: tuple[Key, ...]
    sealing: tuple[Key, ...]
    self_seed: Secret
    noise_seed: Annotated[bytes, msgspec.Meta(max_length=SEED_BYTES)]
    own_share: RevealedShare
    members: tuple[Member, ...]
    declared: Participant
    own: declaration.Declaration
    weight: int | None


class KeptMasked(_Kept, frozen=True, tag="Masked"):
    """``states.Masked``, and ``states.Agreed`` where ``survivors`` is not empty; ``order`` is that of the graph."""

    order: tuple[ClientId, ...]
    participants: tuple[Participant, ...]
    h2: Digest
    own_share: RevealedShare
    noise_seeds: tuple[Salt, ...]
    held: tuple[tuple[RevealedShare, RevealedShare], ...]
    survivors: bytes


class Snapshot(_Kept, frozen=True, tag="secagg client 1"):
    """What ``Client.save`` keeps.

    Args:
        session: Digest of the session.
        client: Whose state it is.
        clipped_share: What the client says of its update.
        state: The state.
    """

    session: Digest
    client: ClientId
    clipped_share: float
    state: KeptAdvertised | KeptShared | KeptMasked


_decoder = msgspec.msgpack.Decoder(Snapshot)


def save(session: Session, client: int, clipped_share: float, state: State) -> bytes:
    """A client as bytes.

    Args:
        session: Its session.
        client: Its id.
        clipped_share: As ``Client.clipped_share``.
        state: Where it is.

    Raises:
        LocalProtocolError: It has sent nothing yet, or has nothing more to send.
    """
    match state:
        case Advertised():
            kept: KeptAdvertised | KeptShared | KeptMasked = KeptAdvertised(state.masking.seed, state.transport.seed)
        case Shared():
            kept = _keep_shared(session, state)
        case Masked():
            kept = _keep_masked(state, b"")
        case Agreed():
            kept = _keep_masked(state.masked, state.survivors)
        case _:
            raise LocalProtocolError(f"client {client} is in state {type(state).__name__}: there is nothing to save")
    body = msgspec.msgpack.encode(Snapshot(session.digest, client, clipped_share, kept))
    return body + _digest(body)


def load(session: Session, saved: bytes) -> tuple[Snapshot, State]:
    """Inverse of ``save``: what was kept, and the state that follows from it.

    Raises:
        DecodingError: Not what ``save`` returned.
        AgreementError: It was saved in another session.
    """
    kept = _decode(saved)
    if not hmac.compare_digest(kept.session, session.digest):
        raise AgreementError("the saved client belongs to another session")
    try:
        match kept.state:
            case KeptAdvertised():
                return kept, Advertised(KeyPair(kept.state.masking), KeyPair(kept.state.transport))
            case KeptShared():
                return kept, _shared(session, kept.client, kept.state)
            case KeptMasked():
                return kept, _masked(session, kept.client, kept.state)
    except SecAggError:
        raise _not_saved() from None


def _decode(saved: bytes) -> Snapshot:
    body, digest = saved[:-DIGEST_BYTES], saved[-DIGEST_BYTES:]
    if not hmac.compare_digest(_digest(body), digest):
        raise _not_saved()
    try:
        kept: Snapshot = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _not_saved() from None
    if msgspec.msgpack.encode(kept) != body:
        raise _not_saved()
    return kept


def _keep_shared(session: Session, state: Shared) -> KeptShared:
    return KeptShared(
        agreed=tuple(state.agreed.values()),
        sealing=tuple(state.sealing.values()),
        self_seed=state.self_seed,
        noise_seed=state.noise_seed,
        own_share=state.own_share,
        members=tuple(state.roster.values()),
        declared=state.declared,
        own=_own(session, state),
        weight=state.weight,
    )


def _own(session: Session, state: Shared) -> Declaration:
    if session.mode == "mask-indexed":
        return state.declared.declaration
    return declaration.of_coordinates(session.layout, state.own, declaration.Provenance.DATA)


def _shared(session: Session, client: int, kept: KeptShared) -> Shared:
    members = members_of(messages.Roster(session.id, kept.members))
    graph, wired = session.topology(tuple(members), transcript.graph_seed(session, kept.members))
    neighbours = sorted(graph.neighbours(client)) if client in members else []
    declared = kept.declared
    fits = (
        len(kept.agreed) == len(kept.sealing) == len(neighbours) > 0
        and {client} == {declared.id, kept.own_share.dealer}
        and len(kept.noise_seed) == (0 if session.params.privacy is None else SEED_BYTES)
        and (kept.weight is not None) == session.weighted
        and (session.mode == "uniform" or kept.own == declared.declaration)
    )
    if not fits:
        raise _not_saved()
    return Shared(
        agreed=dict(zip(neighbours, kept.agreed, strict=True)),
        sealing=dict(zip(neighbours, kept.sealing, strict=True)),
        self_seed=kept.self_seed,
        noise_seed=kept.noise_seed,
        own_share=kept.own_share,
        roster=members,
        graph=graph,
        topology=wired,
        h1=transcript.h1(session, kept.members, wired.degree, wired.threshold),
        declared=declared,
        own=declaration.expand(session.layout, kept.own),
        weight=kept.weight,
    )


def _keep_masked(state: Masked, survivors: bytes) -> KeptMasked:
    return KeptMasked(
        order=state.graph.order,
        participants=tuple(state.plan.participants.values()),
        h2=state.h2,
        own_share=state.own_share,
        noise_seeds=state.noise_seeds,
        held=tuple((held.self_seed, held.masking_key) for held in state.held.values()),
        survivors=survivors,
    )


def _masked(session: Session, client: int, kept: KeptMasked) -> Masked | Agreed:
    wired = topology(session.params, session.mode, len(kept.order))
    graph = Graph(kept.order, wired.degree)
    participants = messages.by_id(kept.participants)
    plan = Plan(session, wired.needed, kept.participants)
    neighbours = sorted(graph.neighbours(client).intersection(participants)) if client in kept.order else []
    held = {of_self.dealer: HeldShares(of_self, of_key) for of_self, of_key in kept.held}
    fits = (
        len(set(kept.order)) == len(kept.order)
        and set(participants) <= set(kept.order)
        and client in participants
        and kept.own_share.dealer == client
        and [of_key.dealer for _, of_key in kept.held] == list(held) == neighbours
        and len(kept.noise_seeds) == (0 if plan.shares is None else len(plan.shares.levels))
        and (session.params.active or not kept.survivors)
    )
    if not fits:
        raise _not_saved()
    masked = Masked(
        plan=plan,
        graph=graph,
        topology=wired,
        h2=kept.h2,
        own_share=kept.own_share,
        noise_seeds=kept.noise_seeds,
        held=held,
    )
    if not kept.survivors:
        return masked
    messages.read_bitmap(kept.survivors, plan.clients)
    return Agreed(masked=masked, survivors=kept.survivors)


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(b"secagg client snapshot" + body).digest()


def _not_saved() -> DecodingError:
    return DecodingError("not a saved client")
