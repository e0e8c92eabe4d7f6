"""A hostile server's tools: it sees every message, tells every client what it likes, and opens what it has the keys to.

Threat: the server runs the session and controls everything between the clients; the clients run this project's code.
Those that it corrupts tell it their keys, and advertise what it wants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from secagg import dealing, field, lifting, masking, messages, shamir, transcript, unmasking
from secagg.client import Client
from secagg.errors import TooFewClientsError
from secagg.identity import introduce
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
from secagg.states import Advertised

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from secagg.driver import Contribution
    from secagg.graph import Graph
    from secagg.ledger import Ledger
    from secagg.session import Session
    from secagg.topology import Topology

Kind = TypeVar("Kind", bound=Message)


class HostileServer:
    """What the server holds of a session, and what it can say to each client.

    Args:
        session: As the clients know it, unless ``sessions`` says otherwise.
        contributions: What each client brings.
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
        self.contributions = dict(contributions)
        entropy = {id_: SeededEntropy(seed + id_.to_bytes(8, "big")) for id_ in contributions}
        self.identities, pinned = introduce(session.params, entropy)
        self.clients = {
            id_: Client(
                id_,
                (sessions or {}).get(id_, session),
                self.identities.get(id_),
                pinned,
                ledger=(ledgers or {}).get(id_),
                entropy=source,
            )
            for id_, source in entropy.items()
        }
        self.members: dict[int, Member] = {}
        self.signed: dict[int, bytes | None] = {}
        self.shared: dict[int, ShareKeys] = {}
        self.inputs: dict[int, MaskedInput] = {}
        self.told: dict[int, tuple[Participant, ...]] = {}
        self.revealed: dict[tuple[int, bool], dict[int, int]] = {}

    # What it says.

    def advertise(self) -> None:
        """Collects everybody's keys."""
        for id_, client in sorted(self.clients.items()):
            message = as_kind(AdvertiseKeys, client.advertise_keys())
            self.members[id_] = messages.member(message)
            self.signed[id_] = message.signature

    def share_keys(self, clients: Collection[int] | None = None) -> None:
        """Shows a roster to these clients, or to everybody: each member with what the client of that id signed."""
        signatures = tuple(signature for id_ in self.members if (signature := self.signed[id_]) is not None)
        roster = messages.encode(Roster(self.session.id, tuple(self.members.values()), signatures))
        for id_ in self.clients if clients is None else clients:
            answer = self.clients[id_].share_keys(roster, self.contributions[id_].mask, self.contributions[id_].weight)
            self.shared[id_] = as_kind(ShareKeys, answer)

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
        self.inputs[client] = as_kind(MaskedInput, answer)
        self.told[client] = relayed.participants

    def mask_all(self, clients: Collection[int], among: Collection[int]) -> None:
        """Has clients mask their updates; they hear that these, among themselves, take part."""
        for client in clients:
            self.mask(client, self.relay(client, self.participants(among)))

    def collect(self) -> list[int]:
        """Plays by the rules until everybody has sent its vector; returns everybody."""
        everybody = sorted(self.clients)
        self.advertise()
        self.share_keys()
        self.mask_all(everybody, everybody)
        return everybody

    def agree(self, clients: Collection[int], survivors: Collection[int]) -> list[Endorsement]:
        """Has clients sign a list of survivors; nobody does where the server is trusted."""
        if not self.session.params.active:
            return []
        signatures = tuple(self.inputs[id_].signature or b"" for id_ in sorted(survivors))
        endorsed = []
        for id_ in sorted(clients):
            request = ConsistencyRequest(self.session.id, self._bitmap(id_, survivors), signatures)
            answer = as_kind(ConsistencyCheck, self.clients[id_].check_consistency(messages.encode(request)))
            endorsed.append(Endorsement(id_, answer.signature))
        return endorsed

    def unmask(self, clients: Collection[int], survivors: Collection[int], quorum: Sequence[Endorsement] = ()) -> None:
        """Asks clients for the shares that go with a list of survivors, and keeps them."""
        for holder in sorted(clients):
            request = UnmaskRequest(self.session.id, self._bitmap(holder, survivors), tuple(quorum))
            for share in as_kind(Unmask, self.clients[holder].unmask(messages.encode(request))).shares:
                self.keep(share.dealer, holder, share.share, of_self=share.dealer in survivors)

    def finish(self, clients: Collection[int], survivors: Collection[int]) -> None:
        """The last rounds, by the rules: these clients agree to the survivors, and then unmask them."""
        self.unmask(clients, survivors, self.agree(clients, survivors))

    # Whom it corrupts, after it has seen the ring or before.

    def masking_pair(self, corrupt: int) -> KeyPair:
        """The masking key of a corrupt client, before it has shared it."""
        return self._advertised(corrupt).masking

    def transport_pair(self, corrupt: int) -> KeyPair:
        """Likewise, the key that opens the shares sealed to it."""
        return self._advertised(corrupt).transport

    def endorse(self, corrupt: int, survivors: Collection[int]) -> Endorsement:
        """A corrupt client's signature on a list of survivors, whatever it has signed before."""
        statement = transcript.says_survivors(self._second(corrupt), self._bitmap(corrupt, survivors), corrupt)
        return Endorsement(corrupt, self.identities[corrupt].sign(statement))

    def readvertise(self, corrupt: int, pair: KeyPair) -> None:
        """Has a corrupt client advertise another masking key, signed like the one before."""
        transport = self._advertised(corrupt).transport
        self.clients[corrupt]._state = Advertised(pair, transport)  # noqa: SLF001 - it does what the server wants
        self.members[corrupt] = Member(corrupt, pair.public, transport.public)
        statement = transcript.says_keys(self.session, self.members[corrupt])
        self.signed[corrupt] = self.identities[corrupt].sign(statement) if self.session.params.active else None

    def _advertised(self, corrupt: int) -> Advertised:
        state = self.clients[corrupt]._state  # noqa: SLF001 - it tells all it knows
        if not isinstance(state, Advertised):
            raise TypeError(f"client {corrupt} is in state {type(state).__name__}")
        return state

    # What it makes of the answers.

    @property
    def points(self) -> dict[int, int]:
        """The point at which each holder's shares are taken."""
        return {id_: 1 + place for place, id_ in enumerate(self.members)}

    def wiring(self) -> tuple[Graph, Topology]:
        """Who masks with whom, as all who see the roster compute it."""
        return self.session.topology(
            tuple(self.members), transcript.graph_seed(self.session, tuple(self.members.values()))
        )

    def keep(self, dealer: int, holder: int, share: bytes, *, of_self: bool) -> None:
        """Notes a share of a dealer's self seed, or of its masking key."""
        self.revealed.setdefault((dealer, of_self), {})[self.points[holder]] = field.decode(share)

    def open_shares(self, dealer: int, transports: Mapping[int, KeyPair]) -> None:
        """Opens both shares that a dealer sealed to each of the holders whose transport keys the server has."""
        for sealed in self.shared[dealer].shares:
            if sealed.holder in transports:
                secret = transports[sealed.holder].agree(self.members[dealer].transport_key)
                held = dealing.open_shares(sealed, secret, self.shared[dealer].transcript)
                self.keep(dealer, sealed.holder, held.self_seed.share, of_self=True)
                self.keep(dealer, sealed.holder, held.masking_key.share, of_self=False)

    def self_seed(self, client: int) -> bytes:
        """The self seed of a client, from the shares that were given of it."""
        return self._rebuilt(client, of_self=True)

    def masking_key(self, client: int) -> KeyPair:
        """The masking key of a client, from the shares that were given of it."""
        return KeyPair(self._rebuilt(client, of_self=False))

    def agreed_with(self, client: int, key: KeyPair) -> dict[int, bytes]:
        """What a client agreed on with everybody whom it masked with, from its masking key."""
        graph, _ = self.wiring()
        peers = graph.neighbours(client).intersection(one.id for one in self.told[client])
        return {id_: key.agree(self.members[id_].masking_key) for id_ in peers}

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
                left.apply([masking.MaskKey(-term.sign, masking.self_key(self_seed, second))])
            else:
                key = masking.pairwise_key(agreed[term.peer], second, client, term.peer)
                left.apply([masking.MaskKey(-term.sign, key, masking.packed(plan.overlap(client, term.peer)))])
        return _integers(plan, left)

    def opened(self, client: int) -> list[int]:
        """A client's encoded update, from the shares that were given of both of its secrets."""
        return self.strip(client, self.self_seed(client), self.agreed_with(client, self.masking_key(client)))

    def opened_through(self, client: int, peers: Collection[int]) -> list[int]:
        """The same, from the shares of its self seed and of the masking keys of all that it masked with."""
        own = self.members[client].masking_key
        return self.strip(client, self.self_seed(client), {id_: self.masking_key(id_).agree(own) for id_ in peers})

    def sums(self, group: Collection[int], known: Mapping[int, KeyPair] | None = None) -> list[int]:
        """The sums over a group of clients, with the masks taken off that they share with others.

        Args:
            group: Clients whose self seeds were given.
            known: Masking keys of corrupt clients outside of it; those of all others were given.
        """
        first = min(group)
        plan, second, (graph, _) = self._plan(first), self._second(first), self.wiring()
        total = masking.Accumulator(plan.ring, plan.ring.zeros(plan.length))
        for client in group:
            places = plan.places(client)
            total.vector[places] += plan.ring.unpack(self.inputs[client].vector, int(places.sum()))
        outside = frozenset().union(*map(graph.neighbours, group)).intersection(plan.clients).difference(group)
        seeds = {id_: pair.seed for id_, pair in (known or {}).items()}
        seeds |= {id_: self.self_seed(id_) for id_ in group}
        seeds |= {id_: self.masking_key(id_).seed for id_ in outside.difference(seeds)}
        keys = {id_: member.masking_key for id_, member in self.members.items()}
        left = unmasking.masks_left(plan, graph, second, survivors=group, keys=keys, seeds=seeds)
        lifting.lift(total, left, plan.packed_places)
        return _integers(plan, total)

    def _plan(self, client: int) -> Plan:
        return Plan(self.clients[client].session, 2, self.told[client])

    def _second(self, client: int) -> bytes:
        return transcript.h2(self.shared[client].transcript, self.told[client])

    def _bitmap(self, reader: int, survivors: Collection[int]) -> bytes:
        return messages.write_bitmap(survivors, [one.id for one in self.told[reader]])

    def _rebuilt(self, client: int, *, of_self: bool) -> bytes:
        given, threshold = self.revealed.get((client, of_self), {}), self.wiring()[1].threshold
        if len(given) < threshold:
            raise TooFewClientsError(f"the server was given {len(given)} shares of a secret that takes {threshold}")
        return shamir.rebuild(dict(sorted(given.items())[:threshold]))


def _integers(plan: Plan, left: masking.Accumulator) -> list[int]:
    return [int(value) for value in plan.ring.centred(left.vector)]


def as_kind(kind: type[Kind], data: bytes) -> Kind:
    """A message of this kind.

    Raises:
        TypeError: It is of another.
    """
    message = messages.decode(data)
    if not isinstance(message, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(message).__name__}")
    return message
