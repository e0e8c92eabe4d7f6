"""The server's side of a session: a state machine that does no I/O.

``receive`` takes one message and checks it whole before it changes anything; ``close_round`` ends the round with
whoever has answered and returns what to send to whom. When to close (everybody answered, a deadline passed) is the
caller's decision. A refusal of either leaves the server as it was: closing too early can be repeated.
"""

from __future__ import annotations

import enum
import hmac
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from secagg import field, masking, messages, shamir, transcript
from secagg.aggregate import Aggregate, decode
from secagg.declaration import FULL, expand
from secagg.errors import (
    AgreementError,
    ChecksumError,
    DuplicateMessageError,
    KeyAgreementError,
    LocalProtocolError,
    RemoteProtocolError,
    ShareError,
    TooFewClientsError,
    UnexpectedMessageError,
    UnknownClientError,
)
from secagg.identity import directory
from secagg.keys import KeyPair, check_public
from secagg.masking import Accumulator, MaskKey
from secagg.messages import AdvertiseKeys, ConsistencyCheck, MaskedInput, Message, ShareKeys, Unmask
from secagg.release import Plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from secagg.graph import Graph
    from secagg.params import Adversary
    from secagg.session import Session


class Round(enum.Enum):
    """What the server is waiting for."""

    ADVERTISE_KEYS = "AdvertiseKeys"
    SHARE_KEYS = "ShareKeys"
    MASKED_INPUT = "MaskedInput"
    CONSISTENCY_CHECK = "ConsistencyCheck"
    UNMASK = "Unmask"
    DONE = "Done"


ACCEPTS: dict[Round, type[Message] | None] = {
    Round.ADVERTISE_KEYS: AdvertiseKeys,
    Round.SHARE_KEYS: ShareKeys,
    Round.MASKED_INPUT: MaskedInput,
    Round.CONSISTENCY_CHECK: ConsistencyCheck,
    Round.UNMASK: Unmask,
    Round.DONE: None,
}
"""The one message that each round accepts."""

ROUNDS: dict[Adversary, tuple[Round, ...]] = {
    "semi-honest": tuple(round_ for round_ in Round if round_ is not Round.CONSISTENCY_CHECK),
    "active": tuple(Round),
}
"""The rounds of a session, in order."""


class Server:
    """The server in one session.

    Args:
        session: What all parties agreed on.
        invited: Ids of the clients that may take part; None admits whoever advertises keys, and with an active server
            whoever is pinned.
        pinned: With an active server, the public identity of every client, by id: the server names the culprit of a
            bad signature before it spoils the round for all.

    Raises:
        ParameterError: Identities without an active server, or the other way round.
    """

    def __init__(
        self,
        session: Session,
        invited: Iterable[int] | None = None,
        pinned: Mapping[int, bytes] | None = None,
    ) -> None:
        self.session = session
        self.round = Round.ADVERTISE_KEYS
        self._directory = directory(session.params, pinned)
        admitted = pinned if invited is None else invited
        self._invited = None if admitted is None else frozenset(admitted)
        self._answers: dict[int, Message] = {}
        self._members: dict[int, messages.Member] = {}
        self._shared: dict[int, ShareKeys] = {}
        self._survivors: tuple[int, ...] = ()
        self._endorsed: dict[int, ConsistencyCheck] = {}
        self._outcome: Aggregate | None = None
        self._graph: Graph
        self._threshold: int
        self._h1: bytes
        self._h2: bytes
        self._plan: Plan
        self._sum: Accumulator
        self._bitmap: bytes

    def __repr__(self) -> str:
        return f"Server(round={self.round.value}, answered={len(self._answers)})"

    @property
    def answered(self) -> tuple[int, ...]:
        """Clients whose message of this round has been accepted, ascending."""
        return tuple(sorted(self._answers))

    @property
    def awaited(self) -> tuple[int, ...]:
        """Clients that may still answer in this round, ascending."""
        return tuple(sorted((self._admitted() or frozenset()).difference(self._answers)))

    @property
    def outcome(self) -> Aggregate:
        """The result.

        Raises:
            LocalProtocolError: The session has not ended.
        """
        if self._outcome is None:
            raise LocalProtocolError(f"no outcome yet: the session is in round {self.round.value}")
        return self._outcome

    def receive(self, data: bytes) -> int:
        """Takes one message.

        Returns:
            The id of its sender.

        Raises:
            DecodingError: Not a canonical message, or one of the wrong length.
            RemoteProtocolError: A message that this round does not accept; ``culprits`` names its sender.
        """
        message = messages.decode(data)
        expected = ACCEPTS[self.round]
        if expected is None or not isinstance(message, expected):
            raise UnexpectedMessageError(f"round {self.round.value} accepts no {type(message).__name__}")
        sender: int = message.sender  # type: ignore[attr-defined]
        try:
            self._admit(message, sender)
            self._answers[sender] = self._take(message, sender)
        except RemoteProtocolError as error:
            error.culprits = error.culprits or (sender,)
            raise
        return sender

    def close_round(self) -> dict[int, bytes]:
        """Ends the round.

        Returns:
            What to send to each client that goes on; nothing after the last round.

        Raises:
            TooFewClientsError: Fewer answers than a threshold demands; more may still come in.
            CoverageError: The release rule lets nothing out.
            ShareError: Shares rebuild something other than what their dealer committed to.
            ChecksumError: The sums contradict their checksum.
            LocalProtocolError: The session has ended.
        """
        match self.round:
            case Round.ADVERTISE_KEYS:
                outgoing = self._close_advertise_keys(_only(self._answers, AdvertiseKeys))
            case Round.SHARE_KEYS:
                outgoing = self._close_share_keys(_only(self._answers, ShareKeys))
            case Round.MASKED_INPUT:
                outgoing = self._close_masked_input(_only(self._answers, MaskedInput))
            case Round.CONSISTENCY_CHECK:
                outgoing = self._close_consistency_check(_only(self._answers, ConsistencyCheck))
            case Round.UNMASK:
                outgoing = self._close_unmask(_only(self._answers, Unmask))
            case Round.DONE:
                raise LocalProtocolError("the session has ended")
        rounds = ROUNDS[self.session.params.adversary]
        self.round = rounds[rounds.index(self.round) + 1]
        self._answers = {}
        return outgoing

    def _admit(self, message: Message, sender: int) -> None:
        if message.session != self.session.id:
            raise AgreementError("a message of another session")
        admitted = self._admitted()
        if admitted is not None and sender not in admitted:
            raise UnknownClientError("a message of a client that is not in this round")
        if sender in self._answers:
            raise DuplicateMessageError("a second message of one client in one round")

    def _take(self, message: Message, sender: int) -> Message:
        """Checks what this round has to check, and returns what to keep."""
        match message:
            case AdvertiseKeys():
                self._check_keys(message)
            case ShareKeys():
                self._check_shares(message)
            case MaskedInput():
                self._directory.check(sender, message.signature, transcript.says_second(self._h2, sender))
                self._add(message)
                return structs.replace(message, vector=b"")
            case ConsistencyCheck():
                statement = transcript.says_survivors(self._h2, self._bitmap, sender)
                self._directory.check(sender, message.signature, statement)
            case Unmask():
                self._check_revealed(message)
        return message

    def _admitted(self) -> frozenset[int] | None:
        match self.round:
            case Round.ADVERTISE_KEYS:
                return self._invited
            case Round.SHARE_KEYS:
                return frozenset(self._members)
            case Round.MASKED_INPUT:
                return frozenset(self._shared)
            case Round.CONSISTENCY_CHECK:
                return frozenset(self._survivors)
            case Round.UNMASK:
                return frozenset(self._endorsed or self._survivors)
            case Round.DONE:
                return frozenset()

    def _check_keys(self, message: AdvertiseKeys) -> None:
        known = {key for m in _only(self._answers, AdvertiseKeys).values() for key in (m.masking_key, m.transport_key)}
        mine = {message.masking_key, message.transport_key}
        if len(mine) < 2 or mine & known:
            raise KeyAgreementError("a public key is used twice")
        for key in mine:
            check_public(key)

    def _close_advertise_keys(self, answers: dict[int, AdvertiseKeys]) -> dict[int, bytes]:
        members = {
            client: messages.Member(client, answers[client].masking_key, answers[client].transport_key)
            for client in sorted(answers)
        }
        roster = messages.Roster(self.session.id, tuple(members.values()))
        seed = transcript.graph_seed(self.session, roster)
        self._graph, self._threshold = self.session.topology(tuple(members), seed)
        self._h1 = transcript.h1(self.session, roster, self._graph.degree, self._threshold)
        self._members = members
        return dict.fromkeys(members, messages.encode(roster))

    def _check_shares(self, message: ShareKeys) -> None:
        for name, theirs, ours in (
            ("parameters", message.params, self.session.params.digest),
            ("a layout", message.layout, self.session.layout.digest),
            ("a transcript", message.transcript, self._h1),
        ):
            if not hmac.compare_digest(theirs, ours):
                raise AgreementError(f"client {message.sender} holds {name} other than the server's")
        expected = sorted(self._graph.neighbours(message.sender))
        if [(s.dealer, s.holder) for s in message.shares] != [(message.sender, holder) for holder in expected]:
            raise ShareError("shares are not for exactly the neighbours of their dealer")
        public = self.session.weighted and self.session.params.weighting == "public"
        if (message.weight_bucket is not None) != public:
            raise UnexpectedMessageError("a public weight where none belongs, or none where one does")
        if self.session.mode == "uniform" and message.declaration != FULL:
            raise UnexpectedMessageError("a uniform session declares no masks")
        expand(self.session.layout, message.declaration)
        declared = messages.Participant(message.sender, message.declaration, message.weight_bucket)
        self._directory.check(message.sender, message.signature, transcript.says_first(self._h1, declared))
        for sealed in message.shares:
            self._directory.check(message.sender, sealed.signature, transcript.says_dealt(self._h1, sealed))

    def _close_share_keys(self, answers: dict[int, ShareKeys]) -> dict[int, bytes]:
        participants = tuple(
            messages.Participant(client, answers[client].declaration, answers[client].weight_bucket)
            for client in sorted(answers)
        )
        plan = Plan(self.session, self._threshold, participants)
        signatures = _signatures(answers, plan.clients)
        inboxes: dict[int, list[messages.SealedShares]] = {client: [] for client in plan.clients}
        for client in plan.clients:
            for sealed in answers[client].shares:
                if sealed.holder in inboxes:
                    inboxes[sealed.holder].append(sealed)
        self._plan = plan
        self._h2 = transcript.h2(self._h1, participants)
        self._sum = Accumulator(plan.ring, plan.ring.zeros(plan.length))
        self._shared = dict(answers)
        return {
            client: messages.encode(
                messages.RelayedShares(self.session.id, participants, tuple(inboxes[client]), signatures)
            )
            for client in plan.clients
        }

    def _add(self, message: MaskedInput) -> None:
        """Checks a masked vector whole, then adds it: what is in the sum cannot be taken out again."""
        places = self._plan.places(message.sender)
        words = self._plan.ring.unpack(message.vector, int(places.sum()))
        if places.all():
            self._sum.vector += words
        else:
            self._sum.vector[places] += words
        first, second = message.check[:8], message.check[8:]
        self._sum.add_checks(1, (int.from_bytes(first, "little"), int.from_bytes(second, "little")))

    def _close_masked_input(self, answers: dict[int, MaskedInput]) -> dict[int, bytes]:
        survivors = tuple(sorted(answers))
        if len(survivors) < self._plan.fewest_survivors:
            raise TooFewClientsError(
                f"{len(survivors)} clients sent their input < {self._plan.fewest_survivors} "
                f"({len(self._plan.clients)} clients - max_dropouts {self._plan.dropouts}): raise max_dropouts, or wait"
            )
        self._survivors = survivors
        self._bitmap = messages.write_bitmap(set(survivors), self._plan.clients)
        request: Message
        if self.session.params.active:
            request = messages.ConsistencyRequest(self.session.id, self._bitmap, _signatures(answers, survivors))
        else:
            request = messages.UnmaskRequest(self.session.id, self._bitmap)
        return dict.fromkeys(survivors, messages.encode(request))

    def _close_consistency_check(self, answers: dict[int, ConsistencyCheck]) -> dict[int, bytes]:
        needed = self.session.params.quorum(len(self._plan.clients))
        if len(answers) < needed:
            raise TooFewClientsError(
                f"{len(answers)} clients agree to the survivors < {needed} (half of {len(self._plan.clients)} clients "
                "and of corrupt): wait for more clients"
            )
        self._endorsed = dict(answers)
        quorum = tuple(messages.Endorsement(client, answers[client].signature) for client in sorted(answers)[:needed])
        request = messages.UnmaskRequest(self.session.id, self._bitmap, quorum)
        return dict.fromkeys(sorted(answers), messages.encode(request))

    def _check_revealed(self, message: Unmask) -> None:
        holder, alive = message.sender, set(self._survivors)
        dealers = sorted({holder, *self._graph.neighbours(holder).intersection(self._shared)})
        if [share.dealer for share in message.shares] != dealers:
            raise ShareError("not exactly one share for each neighbour")
        for revealed in message.shares:
            field.decode(revealed.share)
            if revealed.dealer == holder:
                continue  # a dealer's own share carries no commitment; what it rebuilds does
            sealed = next(s for s in self._shared[revealed.dealer].shares if s.holder == holder)
            survived = revealed.dealer in alive
            expected = sealed.self_seed_commitment if survived else sealed.masking_key_commitment
            actual = transcript.share_commitment(revealed.salt, revealed.dealer, holder, revealed.share)
            if not hmac.compare_digest(actual, expected):
                raise ShareError("a revealed share contradicts its dealer's commitment")

    def _close_unmask(self, answers: dict[int, Unmask]) -> dict[int, bytes]:
        seeds = self._rebuild(answers)
        for client, seed in seeds.items():
            self._check_rebuilt(client, seed)
        total = Accumulator(self._sum.ring, self._sum.vector.copy(), self._sum.checks)
        for mask in self._masks_left(seeds):
            total.apply(mask)
        integers = total.ring.centred(total.vector)
        bound = len(self._survivors) * self.session.params.magnitude
        if masking.checksums(integers, self._h2) != total.checks or integers.max() > bound or integers.min() < -bound:
            raise ChecksumError("the sums contradict their checksum: a client computed wrongly, nothing is released")
        self._outcome = decode(self._plan, self._survivors, integers)
        return {}

    def _rebuild(self, answers: dict[int, Unmask]) -> dict[int, bytes]:
        """The self seed of each survivor, the masking key seed of each dropout."""
        points = {client: 1 + index for index, client in enumerate(self._members)}
        shares: dict[int, dict[int, int]] = {client: {} for client in self._shared}
        for holder in sorted(answers):
            for revealed in answers[holder].shares:
                shares[revealed.dealer][points[holder]] = field.decode(revealed.share)
        secrets = {}
        for client, known in shares.items():
            if len(known) < self._threshold:
                raise TooFewClientsError(
                    f"{len(known)} shares of a client's secret < {self._threshold} (share_threshold): "
                    "wait for more clients, or lower share_threshold"
                )
            try:
                secrets[client] = shamir.rebuild(dict(list(known.items())[: self._threshold]))
            except ShareError as error:
                raise ShareError(str(error), culprits=[client]) from None
        return secrets

    def _check_rebuilt(self, client: int, seed: bytes) -> None:
        if client in self._survivors:
            expected = self._shared[client].seed_commitment
            actual = transcript.seed_commitment(self._h1, client, seed)
        else:
            expected, actual = self._members[client].masking_key, KeyPair(seed).public
        if not hmac.compare_digest(actual, expected):
            raise ShareError("shares rebuild another secret than their dealer advertised", culprits=[client])

    def _masks_left(self, seeds: dict[int, bytes]) -> Iterable[MaskKey]:
        """Every stream that is still in the sum, with the sign that takes it off."""
        for client in self._survivors:
            places = self._plan.places(client)
            neighbours = self._graph.neighbours(client).intersection(self._shared)
            for term in masking.terms(client, neighbours):
                if term.peer is None:
                    yield MaskKey(-term.sign, masking.self_key(seeds[client], self._h2), places)
                elif term.peer not in self._survivors:
                    agreed = KeyPair(seeds[term.peer]).agree(self._members[client].masking_key)
                    key = masking.pairwise_key(agreed, self._h2, client, term.peer)
                    yield MaskKey(-term.sign, key, places & self._plan.places(term.peer))


Signed = TypeVar("Signed", ShareKeys, MaskedInput)
Answer = TypeVar("Answer", AdvertiseKeys, ShareKeys, MaskedInput, ConsistencyCheck, Unmask)


def _only(answers: dict[int, Message], kind: type[Answer]) -> dict[int, Answer]:
    """The answers of a round with their type; ``receive`` let in no other."""
    return {client: message for client, message in answers.items() if isinstance(message, kind)}


def _signatures(answers: Mapping[int, Signed], clients: Iterable[int]) -> tuple[bytes, ...]:
    """What these clients signed in a round, in this order; nothing where nobody signs."""
    signed = (answers[client].signature for client in clients)
    return tuple(signature for signature in signed if signature is not None)
