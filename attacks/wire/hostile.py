"""A hostile server's tools: it sees every message, tells every client what it likes, and opens what it has the keys to.

Threat: the server runs the session and controls everything between the clients; the clients run this project's code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from secagg import field, masking, messages, shamir, transcript, unmasking
from secagg.client import Client
from secagg.graph import Graph
from secagg.identity import Identity
from secagg.keys import KeyPair
from secagg.messages import (
    AdvertiseKeys,
    ConsistencyCheck,
    ConsistencyRequest,
    Endorsement,
    MaskedInput,
    Member,
    Message,
    Participant,
    RelayedShares,
    Roster,
    ShareKeys,
    Unmask,
    UnmaskRequest,
)
from secagg.prg import SeededEntropy
from secagg.release import Plan

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from secagg.driver import Contribution
    from secagg.ledger import Ledger
    from secagg.session import Session

Kind = TypeVar("Kind", bound=Message)


class HostileServer:
    """What the server holds of a session, and what it can say to each client.

    Args:
        session: As the clients know it, unless ``sessions`` says otherwise.
        contributions: What each honest client brings.
        sessions: A session of its own for some clients.
        ledgers: What some clients remember.
        seed: Of the clients' randomness.
    """

    def __init__(
        self,
        session: Session,
        contributions: Mapping[int, Contribution],
        *,
        sessions: Mapping[int, Session] | None = None,
        ledgers: Mapping[int, Ledger] | None = None,
        seed: bytes = b"attack",
    ) -> None:
        self.session = session
        self.contributions = contributions
        entropy = {id_: SeededEntropy(seed + id_.to_bytes(8, "big")) for id_ in contributions}
        active = session.params.active
        identities = {id_: Identity.generate(source) for id_, source in entropy.items() if active}
        pinned = {id_: identity.public for id_, identity in identities.items()} if active else None
        self.clients = {
            id_: Client(
                id_,
                (sessions or {}).get(id_, session),
                identities.get(id_),
                pinned,
                ledger=(ledgers or {}).get(id_),
                entropy=source,
            )
            for id_, source in entropy.items()
        }
        self.members: dict[int, Member] = {}
        self.shared: dict[int, ShareKeys] = {}
        self.inputs: dict[int, MaskedInput] = {}
        self.told: dict[int, tuple[Participant, ...]] = {}
        self.revealed: dict[tuple[int, bool], dict[int, int]] = {}

    def advertise(self) -> None:
        """Collects everybody's keys."""
        for id_, client in sorted(self.clients.items()):
            message = _as(AdvertiseKeys, client.advertise_keys())
            self.members[id_] = Member(id_, message.masking_key, message.transport_key)

    def share_keys(self, victim: int | None = None, instead: Sequence[Member] = ()) -> None:
        """Shows everybody the roster, and the victim another one."""
        for id_, client in self.clients.items():
            members = instead if id_ == victim else self.members.values()
            roster = Roster(self.session.id, tuple(sorted(members, key=lambda member: member.id)))
            self.shared[id_] = _as(ShareKeys, client.share_keys(messages.encode(roster), self.contributions[id_].mask))

    def participants(self, clients: Collection[int]) -> tuple[Participant, ...]:
        """What these clients declared."""
        shared = {id_: self.shared[id_] for id_ in sorted(clients)}
        return tuple(Participant(id_, one.declaration, one.weight_bucket) for id_, one in shared.items())

    def relay(self, client: int, participants: Sequence[Participant]) -> RelayedShares:
        """What an honest server would relay to a client among these participants."""
        others = [one.id for one in participants]
        return RelayedShares(
            self.session.id,
            tuple(participants),
            tuple(sealed for dealer in others for sealed in self.shared[dealer].shares if sealed.holder == client),
            tuple(signature for id_ in others if (signature := self.shared[id_].signature) is not None),
        )

    def mask(self, client: int, relayed: RelayedShares) -> None:
        """Has a client mask its update under what it is told."""
        answer = self.clients[client].masked_input(messages.encode(relayed), self.contributions[client].update)
        self.inputs[client] = _as(MaskedInput, answer)
        self.told[client] = relayed.participants

    def collect(self) -> list[int]:
        """Plays by the rules until everybody has sent its vector; returns everybody."""
        everybody = sorted(self.clients)
        self.advertise()
        self.share_keys()
        for client in everybody:
            self.mask(client, self.relay(client, self.participants(everybody)))
        return everybody

    def agree(self, clients: Collection[int], survivors: Collection[int]) -> list[Endorsement]:
        """Has clients sign a list of survivors; nobody does where the server is trusted."""
        if not self.session.params.active:
            return []
        signatures = tuple(self.inputs[id_].signature or b"" for id_ in sorted(survivors))
        request = messages.encode(ConsistencyRequest(self.session.id, self._bitmap(survivors), signatures))
        answers = {id_: self.clients[id_].check_consistency(request) for id_ in sorted(clients)}
        return [Endorsement(id_, _as(ConsistencyCheck, answer).signature) for id_, answer in answers.items()]

    def unmask(self, clients: Collection[int], survivors: Collection[int], quorum: Sequence[Endorsement] = ()) -> None:
        """Asks clients for the shares that go with a list of survivors, and keeps them."""
        request = messages.encode(UnmaskRequest(self.session.id, self._bitmap(survivors), tuple(quorum)))
        points = {id_: 1 + place for place, id_ in enumerate(sorted(self.members))}
        for holder in sorted(clients):
            for share in _as(Unmask, self.clients[holder].unmask(request)).shares:
                of_self = share.dealer in survivors
                self.revealed.setdefault((share.dealer, of_self), {})[points[holder]] = field.decode(share.share)

    def self_seed(self, client: int, threshold: int) -> bytes:
        """The self seed of a client, from the shares that were given of it."""
        return self._rebuilt(client, threshold, of_self=True)

    def masking_key(self, client: int, threshold: int) -> KeyPair:
        """The masking key of a client, from the shares that were given of it."""
        return KeyPair(self._rebuilt(client, threshold, of_self=False))

    def agreed_with(self, client: int, key: KeyPair) -> dict[int, bytes]:
        """What a client agreed on with everybody else, from its masking key."""
        return {id_: key.agree(member.masking_key) for id_, member in self.members.items() if id_ != client}

    def strip(self, client: int, self_seed: bytes, agreed: Mapping[int, bytes]) -> list[int]:
        """A client's encoded update, from its vector and the secrets behind its masks.

        Args:
            client: Whose.
            self_seed: Of its self mask.
            agreed: Neighbour to the secret that both agreed on.
        """
        plan, second = self._plan(client), self._second(client)
        words = plan.ring.unpack(self.inputs[client].vector, int(plan.places(client).sum())).copy()
        left = masking.Accumulator(plan.ring, words)
        for term in masking.terms(client, sorted(agreed)):
            if term.peer is None:
                left.apply(masking.MaskKey(-term.sign, masking.self_key(self_seed, second)))
            else:
                key = masking.pairwise_key(agreed[term.peer], second, client, term.peer)
                left.apply(masking.MaskKey(-term.sign, key, plan.overlap(client, term.peer)))
        return _integers(plan, left)

    def sums(self, survivors: Collection[int], threshold: int) -> list[int]:
        """The sums over the survivors, from the shares that were given."""
        first = min(survivors)
        plan, second = self._plan(first), self._second(first)
        total = masking.Accumulator(plan.ring, plan.ring.zeros(plan.length))
        for client in survivors:
            places = plan.places(client)
            total.vector[places] += plan.ring.unpack(self.inputs[client].vector, int(places.sum()))
        seeds = {client: self._rebuilt(client, threshold, of_self=client in survivors) for client in plan.clients}
        keys = {id_: member.masking_key for id_, member in self.members.items()}
        graph = Graph.build(sorted(self.members), len(self.members), b"")
        for mask in unmasking.masks_left(plan, graph, second, survivors=survivors, keys=keys, seeds=seeds):
            total.apply(mask)
        return _integers(plan, total)

    def _plan(self, client: int) -> Plan:
        return Plan(self.clients[client].session, 2, self.told[client])

    def _second(self, client: int) -> bytes:
        return transcript.h2(self.shared[client].transcript, self.told[client])

    def _bitmap(self, survivors: Collection[int]) -> bytes:
        return messages.write_bitmap(survivors, sorted(self.clients))

    def _rebuilt(self, client: int, threshold: int, *, of_self: bool) -> bytes:
        return shamir.rebuild(dict(sorted(self.revealed[client, of_self].items())[:threshold]))


def _integers(plan: Plan, left: masking.Accumulator) -> list[int]:
    return [int(value) for value in plan.ring.centred(left.vector)]


def _as(kind: type[Kind], data: bytes) -> Kind:
    message = messages.decode(data)
    if not isinstance(message, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(message).__name__}")
    return message
