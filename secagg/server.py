"""The server's side of a session: a state machine that does no I/O.

``receive`` takes one message and checks it whole before it changes anything; ``close_round`` ends the round with
whoever has answered and returns what to send to whom. When to close (everybody answered, a deadline passed) is the
caller's decision. A refusal of either leaves the server as it was: closing too early can be repeated. To survive a
restart: close, ``save``, then send.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from secagg import intake, masking, messages, snapshot, transcript, unmasking
from secagg.aggregate import Aggregate, decode
from secagg.errors import (
    AgreementError,
    ChecksumError,
    DecodingError,
    DuplicateMessageError,
    LocalProtocolError,
    RemoteProtocolError,
    SecAggError,
    TooFewClientsError,
    UnexpectedMessageError,
    UnknownClientError,
)
from secagg.identity import directory
from secagg.lifting import lift
from secagg.masking import Accumulator
from secagg.messages import AdvertiseKeys, ConsistencyCheck, MaskedInput, Message, ShareKeys, Unmask
from secagg.release import Plan
from secagg.rounds import ACCEPTS, ROUNDS, Round
from secagg.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Executor

    from secagg.graph import Graph
    from secagg.privacy.events import Event
    from secagg.session import Session
    from secagg.topology import Topology


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
        self._outgoing: dict[int, bytes] = {}
        self._restored = self._outdated = False
        self._outcome: Aggregate | None = None
        self._graph: Graph
        self._topology: Topology
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
    def outgoing(self) -> dict[int, bytes]:
        """What ``close_round`` returned last, to send it again after a restart; nothing before the first round ends."""
        return dict(self._outgoing)

    @property
    def outcome(self) -> Aggregate:
        """The result.

        Raises:
            LocalProtocolError: The session has not ended.
        """
        if self._outcome is None:
            raise LocalProtocolError(f"no outcome yet: the session is in round {self.round.value}")
        return self._outcome

    @property
    def event(self) -> Event | None:
        """What the session costs if it breaks off in its last round, when shares may be out; None in any other."""
        return self._plan.event(self._survivors) if self.round is Round.UNMASK else None

    def receive(self, data: bytes, sender: int | None = None) -> int:
        """Takes one message.

        Args:
            data: The message.
            sender: Whose it is, where the transport knows: a message in another's name is refused. None believes it.

        Returns:
            The id of its sender.

        Raises:
            DecodingError: Not a canonical message, or one of the wrong length.
            UnknownClientError: A message in another client's name.
            RemoteProtocolError: A message that this round does not accept; ``culprits`` names its sender.
        """
        message = messages.decode(data)
        if sender not in {None, getattr(message, "sender", None)}:
            raise UnknownClientError("a message in another client's name", culprits=[sender])
        expected = ACCEPTS[self.round]
        if expected is None or not isinstance(message, expected):
            self._outdated = self._outdated or (self._restored and self._answers_a_later_round(message))
            raise UnexpectedMessageError(f"round {self.round.value} accepts no {type(message).__name__}")
        speaker: int = message.sender  # type: ignore[attr-defined]
        try:
            self._admit(message, speaker)
            self._answers[speaker] = self._take(message, speaker)
        except RemoteProtocolError as error:
            error.culprits = error.culprits or (speaker,)
            raise
        return speaker

    def close_round(
        self,
        executor: Executor | None = None,
        progress: Callable[[int, int], None] = lambda _done, _of: None,
    ) -> dict[int, bytes]:
        """Ends the round.

        Args:
            executor: In round Unmask, where the masks are taken off: a ``ProcessPoolExecutor`` does it on several
                cores. It is given the keys of masks, never a sum. Default: here.
            progress: In round Unmask, called with the parts of that work that are done and all of them. An exception
                that it raises ends the work and leaves the server as it was.

        Returns:
            What to send to each client that goes on; nothing after the last round.

        Raises:
            TooFewClientsError: Fewer answers than a threshold demands; more may still come in.
            CoverageError: The release rule lets nothing out.
            ShareError: Shares rebuild something other than what their dealer committed to.
            ChecksumError: The sums contradict their checksum.
            LocalProtocolError: The session has ended; or this server was restored from before it closed this round, as
                it learns from a client that has answered in a later one.
        """
        if self._outdated:
            raise LocalProtocolError(
                f"round {self.round.value} was closed before this server was restored: restore what was saved last"
            )
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
                outgoing = self._close_unmask(_only(self._answers, Unmask), executor, progress)
            case Round.DONE:
                raise LocalProtocolError("the session has ended")
        rounds = ROUNDS[self.session.params.adversary]
        self.round = rounds[rounds.index(self.round) + 1]
        self._answers = {}
        self._outgoing = outgoing
        return dict(outgoing)

    def save(self) -> bytes:
        """This server between two messages, to go on after a restart: as secret as what it has received.

        Save after closing a round and before sending what that returned (a restored server has it in ``outgoing``), and
        restore nothing but what was saved last. A server from before it closed MaskedInput could close it with other
        survivors; clients that hear of different ones give both secrets of the client in which they differ.

        Raises:
            LocalProtocolError: The session has ended; keep its outcome.
        """
        if self.round is Round.DONE:
            raise LocalProtocolError("the session has ended: keep its outcome")
        summed = self.round.follows(Round.SHARE_KEYS)
        return snapshot.encode(
            Snapshot(
                session=self.session.digest,
                round=self.round.value,
                answers=tuple(map(messages.encode, self._answers.values())),
                members=tuple(self._members.values()),
                shared=tuple(map(messages.encode, self._shared.values())),
                survivors=self._survivors,
                endorsed=tuple(map(messages.encode, self._endorsed.values())),
                outgoing=snapshot.by_message(self._outgoing),
                vector=self._sum.vector.tobytes() if summed else b"",
                checks=tuple(check.to_bytes(8, "little") for check in self._sum.checks) if summed else (),
            )
        )

    @classmethod
    def restore(
        cls,
        session: Session,
        saved: bytes,
        invited: Iterable[int] | None = None,
        pinned: Mapping[int, bytes] | None = None,
    ) -> Server:
        """The server that was saved; everything but ``saved`` as it was given to that one.

        Send what is ``outgoing`` again: the server may have stopped before it had. A client answers it once.

        Raises:
            DecodingError: Not what ``save`` returned.
            AgreementError: It was saved in another session.
        """
        kept = snapshot.decode(saved)
        if not hmac.compare_digest(kept.session, session.digest):
            raise AgreementError("the saved server belongs to another session")
        snapshot.check_round(kept, ROUNDS[session.params.adversary])
        server = cls(session, invited, pinned)
        try:
            server._replay(kept)
        except SecAggError:
            raise DecodingError("not a saved server") from None
        return server

    def _replay(self, kept: Snapshot) -> None:
        """Takes what an earlier server has taken: checked again, but for the signatures."""
        self._restored = True
        if kept.members:
            self._admit_members(messages.by_id(kept.members))
        if kept.shared:
            self._admit_participants(self._replayed(Round.SHARE_KEYS, kept.shared, ShareKeys))
            self._sum = snapshot.summed(kept, self._plan)
        if kept.survivors:
            snapshot.check_survivors(kept.survivors, self._plan.clients)
            self._admit_survivors(kept.survivors)
        if kept.endorsed:
            self._admit_endorsed(self._replayed(Round.CONSISTENCY_CHECK, kept.endorsed, ConsistencyCheck))
        round_ = Round(kept.round)
        self._replayed(round_, kept.answers, ACCEPTS[round_] or Message)
        readers = self._admitted() if round_.follows(Round.ADVERTISE_KEYS) else None
        self._outgoing = snapshot.by_reader(kept.outgoing, readers or ())

    def _replayed(self, round_: Round, kept: tuple[bytes, ...], kind: type[Kept]) -> dict[int, Kept]:
        """The answers of a round, by sender; the server is in that round afterwards."""
        self.round, self._answers = round_, {}
        answers = snapshot.by_sender(kept, kind)
        for sender, message in answers.items():
            self._admit(message, sender)
            self._check(message)
            self._answers[sender] = message
        return answers

    def _answers_a_later_round(self, message: Message) -> bool:
        """Whether one of those who may answer in this round has answered in a later one already."""
        later = any(isinstance(message, ACCEPTS[one] or ()) for one in Round if one.follows(self.round))
        sender = getattr(message, "sender", None)
        return later and message.session == self.session.id and sender in (self._admitted() or ())

    def _admit(self, message: Message, sender: int) -> None:
        if message.session != self.session.id:
            raise AgreementError("a message of another session")
        admitted = self._admitted()
        if admitted is not None and sender not in admitted:
            raise UnknownClientError("a message of a client that is not in this round")
        if sender in self._answers:
            raise DuplicateMessageError("a second message of one client in one round")

    def _take(self, message: Message, sender: int) -> Message:
        """Checks a message whole, and returns what to keep."""
        self._check(message)
        self._check_signed(message, sender)
        if isinstance(message, MaskedInput):
            self._sum.add_packed(message.vector, message.check, self._plan.places(sender))
            return structs.replace(message, vector=b"")
        return message

    def _check(self, message: Message) -> None:
        match message:
            case AdvertiseKeys():
                intake.check_keys(message, _only(self._answers, AdvertiseKeys).values())
            case ShareKeys():
                intake.check_shares(message, self.session, self._h1, self._graph.neighbours(message.sender))
            case Unmask():
                dealers = {message.sender, *self._graph.neighbours(message.sender).intersection(self._shared)}
                unmasking.check_revealed(message, sorted(dealers), self._shared, self._survivors)
                unmasking.check_seeds(message, self._plan, self._survivors)

    def _check_signed(self, message: Message, sender: int) -> None:
        check = self._directory.check
        match message:
            case AdvertiseKeys():
                check(sender, message.signature, transcript.says_keys(self.session, messages.member(message)))
            case ShareKeys():
                intake.check_signed_shares(message, self._directory, self._h1)
            case MaskedInput():
                check(sender, message.signature, transcript.says_second(self._h2, sender))
            case ConsistencyCheck():
                check(sender, message.signature, transcript.says_survivors(self._h2, self._bitmap, sender))

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

    def _close_advertise_keys(self, answers: dict[int, AdvertiseKeys]) -> dict[int, bytes]:
        members = {client: messages.member(answers[client]) for client in sorted(answers)}
        self._admit_members(members)
        roster = messages.Roster(self.session.id, tuple(members.values()), intake.signatures(answers, members))
        return dict.fromkeys(members, messages.encode(roster))

    def _admit_members(self, members: dict[int, messages.Member]) -> None:
        """U1, and what follows from it."""
        seed = transcript.graph_seed(self.session, members.values())
        self._graph, self._topology = self.session.topology(tuple(members), seed)
        self._h1 = transcript.h1(self.session, members.values(), self._topology.degree, self._topology.threshold)
        self._members = members

    def _close_share_keys(self, answers: dict[int, ShareKeys]) -> dict[int, bytes]:
        participants = self._admit_participants(answers)
        plan = self._plan
        signatures = intake.signatures(answers, plan.clients)
        inboxes = intake.by_holder(answers[client] for client in plan.clients)
        return {
            client: messages.encode(
                messages.RelayedShares(self.session.id, participants, tuple(inboxes.get(client, ())), signatures)
            )
            for client in plan.clients
        }

    def _admit_participants(self, shared: dict[int, ShareKeys]) -> tuple[messages.Participant, ...]:
        """U2, and what follows from it."""
        participants = tuple(
            messages.Participant(client, shared[client].declaration, shared[client].weight_bucket)
            for client in sorted(shared)
        )
        plan = Plan(self.session, self._topology.needed, participants)
        self._plan = plan
        self._h2 = transcript.h2(self._h1, participants)
        self._sum = Accumulator(plan.ring, plan.ring.zeros(plan.length))
        self._shared = dict(shared)
        return participants

    def _close_masked_input(self, answers: dict[int, MaskedInput]) -> dict[int, bytes]:
        survivors = tuple(sorted(answers))
        self._admit_survivors(survivors)
        request: Message
        if self.session.params.active:
            request = messages.ConsistencyRequest(self.session.id, self._bitmap, intake.signatures(answers, survivors))
        else:
            request = messages.UnmaskRequest(self.session.id, self._bitmap)
        return dict.fromkeys(survivors, messages.encode(request))

    def _admit_survivors(self, survivors: tuple[int, ...]) -> None:
        """U3."""
        if len(survivors) < self._plan.fewest_survivors:
            raise TooFewClientsError(
                f"{len(survivors)} clients sent their input < {self._plan.explain_fewest()}: "
                f"{self._plan.dropout_remedy}"
            )
        if self._graph.fewest_in_window(survivors) < self._topology.window_floor:
            raise TooFewClientsError("the survivors may fall apart in the masking graph: wait, or raise neighbours")
        self._survivors = survivors
        self._bitmap = messages.write_bitmap(set(survivors), self._plan.clients)

    def _close_consistency_check(self, answers: dict[int, ConsistencyCheck]) -> dict[int, bytes]:
        self._admit_endorsed(answers)
        first = sorted(answers)[: self._topology.needed]
        quorum = tuple(messages.Endorsement(client, answers[client].signature) for client in first)
        request = messages.UnmaskRequest(self.session.id, self._bitmap, quorum)
        return dict.fromkeys(sorted(answers), messages.encode(request))

    def _admit_endorsed(self, answers: dict[int, ConsistencyCheck]) -> None:
        """Those of U3 who agree on U3."""
        needed = self._topology.needed
        if len(answers) < needed:
            raise TooFewClientsError(
                f"{len(answers)} clients agree to the survivors < {needed} (a quorum, and share_threshold "
                f"{self._topology.threshold}): wait for more clients"
            )
        self._endorsed = dict(answers)

    def _close_unmask(
        self, answers: dict[int, Unmask], executor: Executor | None, progress: Callable[[int, int], None]
    ) -> dict[int, bytes]:
        points, alive = {client: 1 + index for index, client in enumerate(self._members)}, self._survivors
        seeds = unmasking.rebuild(answers, points, self._topology.threshold, list(self._shared))
        for id_, seed in seeds.items():
            unmasking.check_rebuilt(seed, self._members[id_], self._shared[id_], self._h1, survived=id_ in alive)
        keys = {client: member.masking_key for client, member in self._members.items()}
        total = Accumulator(self._sum.ring, self._sum.vector.copy(), self._sum.checks)
        left = unmasking.masks_left(self._plan, self._graph, self._h2, survivors=alive, keys=keys, seeds=seeds)
        lift(total, left, self._plan.packed_places, executor=executor, progress=progress)
        integers = total.ring.centred(total.vector)
        bound = self._plan.largest_sum(len(self._survivors))
        if masking.checksums(integers, self._h2) != total.checks or integers.max() > bound or integers.min() < -bound:
            raise ChecksumError("the sums contradict their checksum: a client computed wrongly, nothing is released")
        surplus = unmasking.surplus(self._plan, self._survivors, answers)
        self._outcome = decode(self._plan, self._survivors, integers - surplus)
        return {}


Kept = TypeVar("Kept", bound=Message)
Answer = TypeVar("Answer", AdvertiseKeys, ShareKeys, MaskedInput, ConsistencyCheck, Unmask)


def _only(answers: dict[int, Message], kind: type[Answer]) -> dict[int, Answer]:
    """The answers of a round with their type; ``receive`` let in no other."""
    return {client: message for client, message in answers.items() if isinstance(message, kind)}
