"""The client's side of a session: a state machine that does no I/O.

Each method takes what the server sent and returns what to send back, as bytes. A refusal raises and leaves the client
as it was; nothing has been sent then. Secrets live in the state of the round that needs them (``states``) and go with
it.

    Start --advertise_keys--> Advertised --share_keys--> Shared --masked_input--> Masked --unmask--> Done

With an active server, Masked --check_consistency--> Agreed --unmask--> Done. Between two, ``save`` makes bytes of it.
"""

from __future__ import annotations

import os
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import numpy as np
from msgspec import structs

from secagg import client_snapshot, dealing, encoding, masking, messages, transcript
from secagg.brought import declare, weigh
from secagg.errors import (
    SERVER,
    AgreementError,
    LocalProtocolError,
    ParameterError,
    RemoteProtocolError,
    SignatureError,
    UnexpectedMessageError,
    UnknownClientError,
    UnmaskRefusedError,
)
from secagg.identity import Identity, NoIdentity, directory
from secagg.keys import SEED_BYTES, KeyPair
from secagg.prg import SeededEntropy, derive, hedged
from secagg.relayed import members_of, open_relayed, refuse_declarations
from secagg.release import Plan
from secagg.states import Advertised, Agreed, Done, HeldShares, Masked, Saved, Shared, Start

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from secagg.declaration import Declaration
    from secagg.ledger import Ledger
    from secagg.privacy.events import Event
    from secagg.session import Session
    from secagg.states import State


StateType = TypeVar("StateType", Start, Advertised, Shared, Masked, Agreed)
MessageType = TypeVar("MessageType", bound=messages.Message)
Arguments = ParamSpec("Arguments")


def _blames_server(
    method: Callable[Concatenate[Client, Arguments], bytes],
) -> Callable[Concatenate[Client, Arguments], bytes]:
    """Where nobody else is to blame for what arrived, the server is: an honest one relays nothing of the kind."""

    @wraps(method)
    def guarded(client: Client, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> bytes:
        try:
            return method(client, *args, **kwargs)
        except RemoteProtocolError as error:
            error.culprits = error.culprits or (SERVER,)
            raise

    return guarded


class Client:
    """One client in one session.

    With differential privacy, ``event`` is what a ``PrivacyLedger`` of its own records in the end: what the session
    costs it once the masked vector is sent, if as many drop out as are tolerated; and once it has answered the last
    round, what it costs with those who survived. Before it is None.

    Args:
        id: Its number: the same for everybody who speaks of it, from 0 to 2^63 - 1.
        session: What all parties agreed on.
        identity: With an active server, this client's signing key.
        pinned: With an active server, the public identity of every client, this one included, by id: those that were
            pinned here, never a list that came with the session.
        ledger: What this client remembers of its sessions; None if it forgets.
        entropy: Source of random bytes, ``os.urandom`` unless a test or a simulation needs repeatable runs. Should it
            repeat itself in another session, the secrets of the two are different all the same.

    Raises:
        ParameterError: An id outside its domain; identities without an active server, or the other way round; this
            client's is not pinned.
    """

    def __init__(
        self,
        id: int,  # noqa: A002 - the field's word
        session: Session,
        identity: Identity | None = None,
        pinned: Mapping[int, bytes] | None = None,
        *,
        ledger: Ledger | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if not isinstance(id, int) or not 0 <= id <= messages.LARGEST_ID:
            raise ParameterError("id must be an integer from 0 to 2^63 - 1")
        self.id = id
        self.session = session
        self.clipped_share = 0.0
        self.event: Event | None = None
        self._entropy = hedged(entropy, session.digest, transcript.id_bytes(id))
        self._tries = 0
        self._ledger = ledger
        self._state: State = Start()
        self._directory = directory(session.params, pinned)
        self._identity = identity or NoIdentity()
        if (identity is not None) != session.params.active:
            raise ParameterError("a client has an identity if, and only if, adversary='active'")
        if identity is not None and identity.public != (pinned or {}).get(id):
            raise ParameterError(f"identity is not the one that is pinned for client {id}")

    def __repr__(self) -> str:
        return f"Client(id={self.id}, state={type(self._state).__name__})"

    def advertise_keys(self) -> bytes:
        """Round 1: fresh public keys for masking and for the transport of shares.

        Raises:
            LocalProtocolError: Called before, or the ledger knows this session's id.
        """
        self._in(Start)
        if self._ledger is not None:
            self._ledger.open(self.session.id)
        keys = Advertised(KeyPair.generate(self._entropy), KeyPair.generate(self._entropy))
        member = messages.Member(self.id, keys.masking.public, keys.transport.public)
        signature = self._identity.sign(transcript.says_keys(self.session, member))
        message = messages.AdvertiseKeys(self.session.id, self.id, member.masking_key, member.transport_key, signature)
        self._state = keys
        return messages.encode(message)

    @_blames_server
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
            SignatureError: Somebody did not sign the keys that the roster lists for it.
            RemoteProtocolError: The roster is malformed, lacks or alters this client, or holds a bad key.
            TooFewClientsError: The roster is smaller than ``min_cohort + corrupt``.
        """
        state = self._in(Advertised)
        message = self._read(roster, messages.Roster)
        members = members_of(message)
        if members.get(self.id) != messages.Member(self.id, state.masking.public, state.transport.public):
            raise UnknownClientError("the roster does not list this client with its keys")
        self._check_signed(members, message.signatures, lambda id_: transcript.says_keys(self.session, members[id_]))
        declared, own = declare(self.session, mask)
        encoded_weight, bucket = weigh(self.session, weight)
        graph, topology = self.session.topology(tuple(members), transcript.graph_seed(self.session, message.members))
        h1 = transcript.h1(self.session, message.members, topology.degree, topology.threshold)

        neighbours = sorted(graph.neighbours(self.id))
        agreed = {peer: state.masking.agree(members[peer].masking_key) for peer in neighbours}
        sealing = {peer: state.transport.agree(members[peer].transport_key) for peer in neighbours}
        points = {
            holder: 1 + index for index, holder in enumerate(members) if holder == self.id or holder in neighbours
        }
        self_seed = self._entropy(SEED_BYTES)
        dealt = dealing.deal(self.id, (self_seed, state.masking.seed), topology.threshold, points, self._entropy)
        sealed = tuple(self._seal(dealt[holder], holder, sealing[holder], h1) for holder in neighbours)
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
            signature=self._identity.sign(transcript.says_first(h1, participant)),
        )
        self._state = Shared(
            agreed=agreed,
            sealing=sealing,
            self_seed=self_seed,
            noise_seed=b"" if self.session.params.privacy is None else self._entropy(SEED_BYTES),
            own_share=dealt[self.id].self_seed,
            roster=members,
            graph=graph,
            topology=topology,
            h1=h1,
            declared=participant,
            own=own,
            weight=encoded_weight,
        )
        return messages.encode(answer)

    @_blames_server
    def masked_input(self, relayed: bytes, update: Mapping[str, ArrayLike]) -> bytes:
        """Round 3: the masked vector. Refused before anything is sent if the update cannot be encoded.

        Args:
            relayed: What the server sent.
            update: Tensor name to values, as in the layout.

        Raises:
            LocalProtocolError: Not the turn for it.
            InputError: NaN, infinity, a value out of range, or another layout.
            ParameterError: The grid of ``privacy.ring_bits`` cannot carry the noise.
            ShareError: A share does not open, or contradicts its commitment; ``culprits`` names the dealer.
            SignatureError: Somebody did not sign the keys that this client saw, its declaration or its shares.
            RemoteProtocolError: The message is malformed, or misrepresents this client.
            AbortError: Too few clients are left, the release rule lets nothing out, or the ledger knows of a session of
                the same model that did not end here.
        """
        state = self._in(Shared)
        message = self._read(relayed, messages.RelayedShares)
        participants = messages.by_id(message.participants)
        if participants.get(self.id) != state.declared:
            raise AgreementError("the server relays another declaration than this client made")
        if strangers := set(participants).difference(state.roster):
            raise UnknownClientError(f"the server relays clients that advertised no keys: {sorted(strangers)}")
        if self.session.mode == "uniform":
            refuse_declarations(message.participants)
        self._check_signed(
            participants, message.signatures, lambda id_: transcript.says_first(state.h1, participants[id_])
        )
        neighbours = sorted(state.graph.neighbours(self.id).intersection(participants))
        held = open_relayed(state, message, self.id, neighbours, self._directory)
        plan = Plan(self.session, state.topology.needed, message.participants)
        arrays = {name: np.asarray(value) for name, value in update.items()}  # read once: checked is what is sent
        encoding.check_update(self.session.layout, self.session.params, arrays, state.own)
        h2 = transcript.h2(state.h1, message.participants)
        # Not drawn now: who masks one update twice, having been restored twice, must send the same bytes. A try that
        # failed here is followed by other noise.
        tries = self._tries.to_bytes(8, "big")
        entropy = SeededEntropy(derive(state.noise_seed, "noise seed", h2, tries, length=SEED_BYTES))
        self._tries += 1
        seeds = () if plan.shares is None else plan.shares.seeds(entropy)
        encoded = encoding.encode_update(plan, self.id, arrays, state.own, state.weight, entropy=entropy, seeds=seeds)
        vector, check = self._hide(encoded, state, plan, h2, neighbours)
        signature = self._identity.sign(transcript.says_second(h2, self.id))
        answer = messages.MaskedInput(self.session.id, self.id, check, vector, signature)
        if self._ledger is not None:
            self._ledger.send(self.session)
        self.clipped_share = encoded.clipped_share
        self.event = plan.event()
        self._state = Masked(
            plan=plan,
            graph=state.graph,
            topology=state.topology,
            h2=h2,
            own_share=state.own_share,
            noise_seeds=seeds,
            held=held,
        )
        return messages.encode(answer)

    @_blames_server
    def check_consistency(self, request: bytes) -> bytes:
        """With an active server, before the last round: this client's signature on who survived.

        Args:
            request: What the server sent.

        Raises:
            LocalProtocolError: Not the turn for it; a client agrees to one list of survivors.
            DifferencingError: With earlier sessions in the ledger, this one would isolate too few clients.
            UnmaskRefusedError: As ``unmask``.
            SignatureError: A survivor did not sign what this client masked under.
            RemoteProtocolError: The request is malformed.
        """
        if not isinstance(self._identity, Identity):
            raise LocalProtocolError("the consistency check is for adversary='active'")
        state = self._in(Masked)
        message = self._read(request, messages.ConsistencyRequest)
        survivors = self._survivors(state, message.survivors)
        self._check_signed(survivors, message.signatures, lambda id_: transcript.says_second(state.h2, id_))
        statement = transcript.says_survivors(state.h2, message.survivors, self.id)
        answer = messages.ConsistencyCheck(self.session.id, self.id, self._identity.sign(statement))
        if self._ledger is not None:
            self._ledger.agree(state.plan, survivors)
        self._state = Agreed(masked=state, survivors=message.survivors)
        return messages.encode(answer)

    @_blames_server
    def unmask(self, request: bytes) -> bytes:
        """The last round: one share for each neighbour, of its self seed if it survived, else of its masking key.

        Args:
            request: What the server sent.

        Raises:
            LocalProtocolError: Not the turn for it; a client answers once.
            DifferencingError: As ``check_consistency``, if there was none.
            UnmaskRefusedError: Too few survivors, in all or at some released coordinate, or this client is not listed;
                with an active server, other survivors than this client agreed to, or no quorum for them.
            SignatureError: A member of the quorum did not sign.
            RemoteProtocolError: The request is malformed.
        """
        agreed = self._in(Agreed) if self.session.params.active else None
        state = agreed.masked if agreed else self._in(Masked)
        message = self._read(request, messages.UnmaskRequest)
        survivors = self._survivors(state, message.survivors)
        if agreed and agreed.survivors != message.survivors:
            raise UnmaskRefusedError("the survivors are not those that this client agreed to")
        self._check_quorum(state, message)
        alive = frozenset(survivors)
        shares = {peer: held.self_seed if peer in alive else held.masking_key for peer, held in state.held.items()}
        shares[self.id] = state.own_share
        if self._ledger is not None:
            if not agreed:
                self._ledger.agree(state.plan, survivors)
            self._ledger.settle(self.session.id)
        self.event = state.plan.event(survivors)
        revealed = tuple(shares[dealer] for dealer in sorted(shares))
        kept = state.plan.parts_kept(survivors)
        seeds = None if kept is None else state.noise_seeds[kept:]
        answer = messages.unmask(self.session.id, self.id, revealed, seeds)
        self._state = Done()
        return messages.encode(answer)

    def save(self) -> bytes:
        """This client between two messages, to go on in another process, and only there: it answers nothing more here.

        The bytes hold every secret that an answer still needs. Whoever reads them before the session is over, and what
        the server receives, can take the masks off this client's vector: keep them like a password, no longer than the
        session, and put what is saved after an answer in the place of what was there before, no later than the answer
        leaves. **Never restore copies of one state.** Two different updates under one mask give away their difference,
        two answers to ``unmask`` both secrets of somebody. After ``masked_input`` nothing that is saved can mask again;
        before it, copies that are given the same update and the same message send the same bytes, noise included. So
        settle the update before saving a client that has shared its keys, and keep both together. A ``Ledger`` kept as
        carefully refuses to mask twice, and to unmask twice for different survivors.

        Raises:
            LocalProtocolError: It has sent nothing yet, or has ended.
        """
        saved = client_snapshot.save(self.session, self.id, self.clipped_share, self._state)
        self._state = Saved()
        return saved

    @classmethod
    def restore(
        cls,
        session: Session,
        saved: bytes,
        identity: Identity | None = None,
        pinned: Mapping[int, bytes] | None = None,
        *,
        ledger: Ledger | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> Client:
        """The client that was saved; everything but ``saved`` as it was given to that one.

        Raises:
            DecodingError: Not what ``save`` returned.
            AgreementError: It was saved in another session.
            ParameterError: As the constructor.
        """
        kept, state = client_snapshot.load(session, saved)
        client = cls(kept.client, session, identity, pinned, ledger=ledger, entropy=entropy)
        client.clipped_share, client._state = kept.clipped_share, state
        if isinstance(state, Masked | Agreed):
            client.event = (state.masked if isinstance(state, Agreed) else state).plan.event()
        return client

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

    def _check_signed(
        self, clients: Collection[int], signatures: Sequence[bytes], statement_of: Callable[[int], bytes]
    ) -> None:
        """Refuses unless exactly these clients, in this order, signed their statements; if active, else nobody."""
        if len(signatures) != (len(clients) if self.session.params.active else 0):
            raise SignatureError("not exactly one signature of each client")
        for client, signature in zip(clients, signatures, strict=False):
            self._directory.check(client, signature, statement_of(client))

    def _survivors(self, state: Masked, bitmap: bytes) -> tuple[int, ...]:
        """The survivors that the server names, ascending, after all checks that this client can make by itself."""
        survivors = messages.read_bitmap(bitmap, state.plan.clients)
        if self.id not in survivors:
            raise UnmaskRefusedError("the survivor list leaves out this client, which sent its vector")
        state.plan.check_survivors(survivors)
        fewest = state.graph.fewest_in_window(survivors)
        if fewest < state.topology.window_floor:
            raise UnmaskRefusedError(
                f"{fewest} survivors in a row of {state.topology.degree // 2} on the ring < "
                f"{state.topology.window_floor}: the honest ones could fall apart, and each part's sum open"
            )
        return survivors

    def _check_quorum(self, state: Masked, message: messages.UnmaskRequest) -> None:
        quorum = messages.by_id(message.quorum)
        if strangers := set(quorum).difference(state.plan.clients):
            raise UnknownClientError(f"clients that shared no keys agree to the survivors: {sorted(strangers)}")
        for id_, endorsement in quorum.items():
            statement = transcript.says_survivors(state.h2, message.survivors, id_)
            self._directory.check(id_, endorsement.signature, statement)
        needed = state.topology.quorum
        if len(quorum) < needed:
            raise UnmaskRefusedError(f"{len(quorum)} clients agree to the survivors < {needed}: not a quorum")

    def _seal(self, shares: HeldShares, holder: int, secret: bytes, h1: bytes) -> messages.SealedShares:
        sealed = dealing.seal_shares(shares, holder, secret, h1)
        return structs.replace(sealed, signature=self._identity.sign(transcript.says_dealt(h1, sealed)))

    def _hide(
        self, encoded: encoding.Encoded, state: Shared, plan: Plan, h2: bytes, neighbours: list[int]
    ) -> tuple[bytes, bytes]:
        """Vector and checksums under the masks of this client."""
        mine = plan.places(self.id)
        length = int(np.count_nonzero(mine))
        checks = masking.Checksums(h2, plan.length, None if length == plan.length else mine)

        def key_of(term: masking.Term) -> masking.MaskKey:
            if term.peer is None:
                return masking.MaskKey(term.sign, masking.self_key(state.self_seed, h2))
            key = masking.pairwise_key(state.agreed[term.peer], h2, self.id, term.peer)
            return masking.MaskKey(term.sign, key, masking.packed(plan.overlap(self.id, term.peer)))

        keys = [key_of(term) for term in masking.terms(self.id, neighbours)]
        return masking.hide(encoded, length, plan.ring, keys, checks)
