"""The client's side of a session: a state machine that does no I/O.

Each method takes what the server sent and returns what to send back, as bytes. A refusal raises and leaves the client
as it was; nothing has been sent then. Secrets live in the state of the round that needs them and go with it.

    Start --advertise_keys--> Advertised --share_keys--> Shared --masked_input--> Masked --unmask--> Done
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from secagg import declaration, encoding, masking, messages, shamir, transcript
from secagg import field as prime_field
from secagg.errors import (
    AgreementError,
    KeyAgreementError,
    LayoutMismatchError,
    LocalProtocolError,
    ParameterError,
    ShareError,
    UnexpectedMessageError,
    UnknownClientError,
    UnmaskRefusedError,
)
from secagg.keys import SEED_BYTES, KeyPair, check_public, seal, unseal
from secagg.release import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray

    from secagg.declaration import Declaration
    from secagg.graph import Graph
    from secagg.session import Session

SALT_BYTES = 16


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
    """Shares are out; mask and weight are fixed. The masking key itself is gone: its agreements are enough."""

    agreed: Mapping[int, bytes] = field(repr=False)
    transport: KeyPair = field(repr=False)
    self_seed: bytes = field(repr=False)
    own_share: messages.RevealedShare = field(repr=False)
    roster: Mapping[int, messages.Member]
    graph: Graph
    threshold: int
    h1: bytes
    declared: messages.Participant
    own: NDArray[np.bool_] = field(repr=False)
    weight: int | None = field(repr=False)


@dataclass(frozen=True)
class HeldShares:
    """The two shares that a neighbour dealt to this client. One of them, never both, will be revealed."""

    self_seed: messages.RevealedShare = field(repr=False)
    masking_key: messages.RevealedShare = field(repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Masked:
    """The masked vector is out; only shares of others are still needed."""

    plan: Plan = field(repr=False)
    graph: Graph = field(repr=False)
    own_share: messages.RevealedShare = field(repr=False)
    held: Mapping[int, HeldShares] = field(repr=False)


@dataclass(frozen=True)
class Done:
    """The unmask answer is out."""


State = Start | Advertised | Shared | Masked | Done
StateType = TypeVar("StateType", Start, Advertised, Shared, Masked)
MessageType = TypeVar("MessageType", bound=messages.Message)


class Client:
    """One client in one session.

    Args:
        id: Its number: the same for everybody who speaks of it, from 0 to 2^63 - 1.
        session: What all parties agreed on.
        entropy: Source of random bytes, ``os.urandom`` unless a test or a simulation needs repeatable runs.
    """

    def __init__(self, id: int, session: Session, *, entropy: Callable[[int], bytes] = os.urandom) -> None:  # noqa: A002 - the field's word
        self.id = id
        self.session = session
        self.clipped_share = 0.0
        self._entropy = entropy
        self._state: State = Start()

    def __repr__(self) -> str:
        return f"Client(id={self.id}, state={type(self._state).__name__})"

    def advertise_keys(self) -> bytes:
        """Round 1: fresh public keys for masking and for the transport of shares.

        Raises:
            LocalProtocolError: Called before.
        """
        self._in(Start)
        keys = Advertised(KeyPair.generate(self._entropy), KeyPair.generate(self._entropy))
        message = messages.AdvertiseKeys(self.session.id, self.id, keys.masking.public, keys.transport.public)
        self._state = keys
        return messages.encode(message)

    def share_keys(
        self, roster: bytes, mask: Declaration | NDArray[np.bool_] | None = None, weight: float | None = None
    ) -> bytes:
        """Round 2: shares of both secrets, sealed to each neighbour, and the declaration of the mask.

        Args:
            roster: What the server sent.
            mask: Coordinates that this client holds: a declaration, or (layout.size,) bools; None for all of them. In
                a uniform session it stays here.
            weight: This client's weight in (0, max_weight], if the session is weighted.

        Raises:
            LocalProtocolError: Not the turn for it.
            InputError: The mask does not fit the layout, or the weight is out of range or missing.
            RemoteProtocolError: The roster is malformed, lacks or alters this client, or holds a bad key.
            TooFewClientsError: The roster is smaller than ``min_cohort + corrupt``.
        """
        state = self._in(Advertised)
        message = self._read(roster, messages.Roster)
        members = _members(message)
        mine = members.get(self.id)
        if mine is None or (mine.masking_key, mine.transport_key) != (state.masking.public, state.transport.public):
            raise UnknownClientError("the roster does not list this client with its keys")
        declared, own = self._declare(mask)
        encoded_weight, bucket = self._weigh(weight)
        graph, threshold = self.session.topology(tuple(members), message.graph_seed)
        h1 = transcript.h1(self.session, message, graph.degree, threshold)

        neighbours = sorted(graph.neighbours(self.id))
        agreed = {peer: state.masking.agree(members[peer].masking_key) for peer in neighbours}
        points = {
            holder: 1 + index for index, holder in enumerate(members) if holder == self.id or holder in neighbours
        }
        self_seed = self._entropy(SEED_BYTES)
        dealt = self._deal(self_seed, state.masking.seed, threshold, points)
        sealed = tuple(
            self._seal(dealt[holder], holder, state.transport.agree(members[holder].transport_key), h1)
            for holder in neighbours
        )
        participant = messages.Participant(self.id, declared, bucket)
        answer = messages.ShareKeys(
            session=self.session.id,
            sender=self.id,
            params=self.session.params.digest,
            layout=self.session.layout.digest,
            transcript=h1,
            declaration=declared,
            weight_bucket=bucket,
            seed_commitment=transcript.seed_commitment(h1, self.id, self_seed),
            shares=sealed,
        )
        self._state = Shared(
            agreed=agreed,
            transport=state.transport,
            self_seed=self_seed,
            own_share=dealt[self.id].self_seed,
            roster=members,
            graph=graph,
            threshold=threshold,
            h1=h1,
            declared=participant,
            own=own,
            weight=encoded_weight,
        )
        return messages.encode(answer)

    def masked_input(self, relayed: bytes, update: Mapping[str, ArrayLike]) -> bytes:
        """Round 3: the masked vector. Refused before anything is sent if the update cannot be encoded.

        Args:
            relayed: What the server sent.
            update: Tensor name to values, as in the layout.

        Raises:
            LocalProtocolError: Not the turn for it.
            InputError: NaN, infinity, a value out of range, or another layout.
            ShareError: A share does not open, or contradicts its commitment; ``culprits`` names the dealer.
            RemoteProtocolError: The message is malformed, or misrepresents this client.
            AbortError: Too few clients are left, or the release rule lets nothing out.
        """
        state = self._in(Shared)
        message = self._read(relayed, messages.RelayedShares)
        participants = _ascending(message.participants)
        if participants.get(self.id) != state.declared:
            raise AgreementError("the server relays another declaration than this client made")
        if strangers := set(participants).difference(state.roster):
            raise UnknownClientError("the server relays clients that advertised no keys", culprits=sorted(strangers))
        if self.session.mode == "uniform":
            _refuse_declarations(message.participants)
        neighbours = sorted(state.graph.neighbours(self.id).intersection(participants))
        held = self._open(state, message, neighbours)
        plan = Plan(self.session, state.threshold, message.participants)
        encoding.check_update(self.session.layout, self.session.params, update, state.own)
        integers, self.clipped_share = encoding.encode_update(plan, self.id, update, state.own, state.weight)
        h2 = transcript.h2(state.h1, message.participants)
        hidden = self._mask(state, plan, integers, h2, neighbours)
        check = b"".join(number.to_bytes(8, "little") for number in hidden.checks)
        answer = messages.MaskedInput(self.session.id, self.id, check, plan.ring.pack(hidden.vector))
        self._state = Masked(plan=plan, graph=state.graph, own_share=state.own_share, held=held)
        return messages.encode(answer)

    def unmask(self, request: bytes) -> bytes:
        """Round 4: one share for each neighbour, of the self seed if it survived, of the masking key if it did not.

        Args:
            request: What the server sent.

        Raises:
            LocalProtocolError: Not the turn for it; a client answers once.
            UnmaskRefusedError: Too few survivors, in all or at some released coordinate, or this client is not listed.
            RemoteProtocolError: The request is malformed.
        """
        state = self._in(Masked)
        message = self._read(request, messages.UnmaskRequest)
        survivors = messages.read_bitmap(message.survivors, state.plan.clients)
        if self.id not in survivors:
            raise UnmaskRefusedError("the survivor list leaves out this client, which sent its vector")
        state.plan.check_survivors(survivors)
        if not state.graph.connects(survivors):
            raise UnmaskRefusedError("the survivors fall apart in the masking graph: each part's sum would open")
        alive = set(survivors)
        shares = [
            (dealer, held.self_seed if dealer in alive else held.masking_key) for dealer, held in state.held.items()
        ]
        shares.append((self.id, state.own_share))
        answer = messages.Unmask(self.session.id, self.id, tuple(share for _, share in sorted(shares, key=_first)))
        self._state = Done()
        return messages.encode(answer)

    def _in(self, expected: type[StateType]) -> StateType:
        if not isinstance(self._state, expected):
            raise LocalProtocolError(
                f"client {self.id} is in state {type(self._state).__name__}; this step belongs to {expected.__name__}"
            )
        return self._state

    def _read(self, data: bytes, expected: type[MessageType]) -> MessageType:
        message = messages.decode(data)
        if not isinstance(message, expected):
            raise UnexpectedMessageError(f"expected {expected.__name__}, got {type(message).__name__}")
        if message.session != self.session.id:
            raise AgreementError("a message of another session")
        return message

    def _declare(self, mask: Declaration | NDArray[np.bool_] | None) -> tuple[Declaration, NDArray[np.bool_]]:
        """The declaration to publish, and the coordinates that are really held."""
        layout = self.session.layout
        if mask is None:
            declared = declaration.FULL
        elif isinstance(mask, declaration.Declaration):
            declared = mask
        else:
            declared = declaration.of_coordinates(layout, np.asarray(mask), declaration.Provenance.DATA)
        own = declaration.expand(layout, declared)
        if self.session.mode == "mask-indexed":
            return declared, own
        if self.session.counted is None and not own.all():
            raise LayoutMismatchError("a uniform session of pruned updates needs counts: run a counting session first")
        return declaration.FULL, own

    def _weigh(self, weight: float | None) -> tuple[int | None, int | None]:
        """The encoded weight, and the bucket to publish."""
        if (weight is not None) != self.session.weighted:
            raise ParameterError(
                "this session is weighted: bring a weight" if self.session.weighted else "no weights here"
            )
        if weight is None:
            return None, None
        params = self.session.params
        if params.weighting != "public":
            return encoding.encode_weight(params, weight), None
        bucket = encoding.weight_bucket(params, weight)
        return encoding.bucket_weight(params, bucket), bucket

    def _deal(
        self, self_seed: bytes, masking_seed: bytes, threshold: int, points: Mapping[int, int]
    ) -> dict[int, HeldShares]:
        of_self = shamir.split(self_seed, threshold, list(points.values()), self._entropy)
        of_key = shamir.split(masking_seed, threshold, list(points.values()), self._entropy)
        return {
            holder: HeldShares(self._salted(of_self[point]), self._salted(of_key[point]))
            for holder, point in points.items()
        }

    def _salted(self, share: int) -> messages.RevealedShare:
        return messages.RevealedShare(self.id, prime_field.encode(share), self._entropy(SALT_BYTES))

    def _seal(self, shares: HeldShares, holder: int, secret: bytes, h1: bytes) -> messages.SealedShares:
        of_self, of_key = shares.self_seed, shares.masking_key
        plaintext = of_self.share + of_self.salt + of_key.share + of_key.salt
        return messages.SealedShares(
            dealer=self.id,
            holder=holder,
            box=seal(secret, plaintext, h1, transcript.id_bytes(self.id), transcript.id_bytes(holder)),
            self_seed_commitment=transcript.share_commitment(of_self.salt, self.id, holder, of_self.share),
            masking_key_commitment=transcript.share_commitment(of_key.salt, self.id, holder, of_key.share),
        )

    def _open(self, state: Shared, message: messages.RelayedShares, neighbours: list[int]) -> dict[int, HeldShares]:
        """Opens the shares of every neighbour, all of them before anything is masked."""
        if [share.dealer for share in message.shares] != neighbours:
            raise ShareError("the server does not relay exactly one pair of shares from each neighbour")
        held = {}
        for sealed in message.shares:
            try:
                secret = state.transport.agree(state.roster[sealed.dealer].transport_key)
                context = (state.h1, transcript.id_bytes(sealed.dealer), transcript.id_bytes(self.id))
                held[sealed.dealer] = _split_box(sealed, self.id, unseal(secret, sealed.box, *context))
            except ShareError as error:
                raise ShareError(str(error), culprits=[sealed.dealer]) from None
        return held

    def _mask(
        self, state: Shared, plan: Plan, integers: NDArray[np.int64], h2: bytes, neighbours: list[int]
    ) -> masking.Accumulator:
        mine = plan.places(self.id)
        checks = masking.checksums(integers, h2, None if mine.all() else mine)
        hidden = masking.Accumulator(plan.ring, plan.ring.wrap(integers), checks)
        for term in masking.terms(self.id, neighbours):
            if term.peer is None:
                hidden.apply(masking.MaskKey(term.sign, masking.self_key(state.self_seed, h2)))
                continue
            key = masking.pairwise_key(state.agreed[term.peer], h2, self.id, term.peer)
            hidden.apply(masking.MaskKey(term.sign, key, plan.overlap(self.id, term.peer)))
        return hidden


def _split_box(sealed: messages.SealedShares, holder: int, plaintext: bytes) -> HeldShares:
    """Both shares in an opened box, checked against their commitments."""
    half = prime_field.ELEMENT_BYTES + SALT_BYTES
    revealed = []
    for part, commitment in (
        (plaintext[:half], sealed.self_seed_commitment),
        (plaintext[half:], sealed.masking_key_commitment),
    ):
        share, salt = part[: prime_field.ELEMENT_BYTES], part[prime_field.ELEMENT_BYTES :]
        if not hmac.compare_digest(transcript.share_commitment(salt, sealed.dealer, holder, share), commitment):
            raise ShareError("a share contradicts its commitment")
        revealed.append(messages.RevealedShare(sealed.dealer, share, salt))
    return HeldShares(*revealed)


def _members(roster: messages.Roster) -> dict[int, messages.Member]:
    """The roster by id, after checking its order, its keys, and that no key appears twice."""
    members = _ascending(roster.members)
    for member in roster.members:
        try:
            check_public(member.masking_key)
            check_public(member.transport_key)
        except KeyAgreementError as error:
            raise KeyAgreementError(str(error), culprits=[member.id]) from None
    keys = [key for member in roster.members for key in (member.masking_key, member.transport_key)]
    if len(set(keys)) != len(keys):
        raise KeyAgreementError("the roster holds a public key twice")
    return members


PartType = TypeVar("PartType", messages.Member, messages.Participant)


def _ascending(parts: tuple[PartType, ...]) -> dict[int, PartType]:
    ids = [part.id for part in parts]
    if ids != sorted(set(ids)):
        raise UnexpectedMessageError("clients are not listed once each in ascending order")
    return {part.id: part for part in parts}


def _refuse_declarations(participants: tuple[messages.Participant, ...]) -> None:
    odd = [p.id for p in participants if p.declaration != declaration.FULL or p.weight_bucket is not None]
    if odd:
        raise UnexpectedMessageError("a uniform session declares no masks and no weights", culprits=odd)


def _first(pair: tuple[int, object]) -> int:
    return pair[0]
