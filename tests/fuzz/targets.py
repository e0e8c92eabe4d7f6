"""What is fuzzed: every decoder of the package, and both state machines in every round.

Where a decoder accepts, its target asserts what it promises: that encoding gives the same bytes back, that a refusal
changed nothing, that what was accepted can be used.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from secagg import client_snapshot, declaration, field, messages, snapshot
from secagg.client import Client
from secagg.declaration import Declaration, Provenance
from secagg.errors import (
    AgreementError,
    DecodingError,
    DifferencingError,
    KeyAgreementError,
    ParameterError,
    SecAggError,
    ShareError,
    SignatureError,
)
from secagg.identity import Directory, Identity
from secagg.keys import KeyPair, check_public, seal, unseal
from secagg.layout import Layout, Tensor
from secagg.ledger import Entry, Ledger
from secagg.ring import Ring
from secagg.rounds import ROUNDS, Round
from secagg.server import Server
from tests.adversarial.play import HELD, five_clients
from tests.fuzz.mutate import BARE, VERSIONED, Framing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from secagg.params import Adversary
    from secagg.release import Plan
    from tests.adversarial.play import Play


@dataclass(frozen=True)
class Target:
    """A decoder, or a state machine.

    Args:
        function: Hands it one input and asserts what must hold then.
        allowed: The errors by which it may refuse an input.
        seeds: Inputs that it accepts, to start from.
        framing: What is around the MessagePack of an input; None where it is none.
        cost: About how many times as long as a plain decoder's an input takes.
    """

    function: Callable[[bytes], None]
    allowed: tuple[type[SecAggError], ...]
    seeds: Sequence[bytes]
    framing: Framing | None = None
    cost: int = 1

    def run(self, data: bytes) -> None:
        """One input. Whatever comes out is a finding."""
        with contextlib.suppress(*self.allowed):
            self.function(data)


WIDE = Layout((Tensor("w", (600,)),))
UNITS = Layout(
    (
        Tensor("one.weight", (3, 2), unit_axes={0: (0, 1, -1)}),
        Tensor("two.weight", (2, 3), unit_axes={0: (2, 3), 1: (0, 1, -1)}),
        Tensor("two.bias", (2,), unit_axes={0: (2, 3)}),
        Tensor("scale", ()),
    ),
    {"one": 2, "two": 2},
)
LAYOUTS = (five_clients().server.session.layout, WIDE, UNITS)
KINDS: tuple[Literal["full", "layers", "units", "bitmap", "sparse"], ...] = (
    "full",
    "layers",
    "units",
    "bitmap",
    "sparse",
)
DECLARED = tuple(itertools.product(LAYOUTS, KINDS))
"""What the first byte of a declaration's input chooses from; the others are its data."""


def expand_declaration(data: bytes) -> None:
    layout, kind = DECLARED[data[0] % len(DECLARED)] if data else DECLARED[0]
    declared = Declaration(kind, data[1:])
    held = declaration.expand(layout, declared)
    if kind == "units":
        assert declaration.of_units(layout, declaration.read_units(layout, declared), Provenance.PUBLIC) == declared
        return
    compact = declaration.of_coordinates(layout, held, Provenance.PUBLIC)
    assert (declaration.expand(layout, compact) == held).all()
    if compact.kind == kind or {compact.kind, kind} == {"bitmap", "sparse"}:
        assert compact == declared


def declarations() -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    for layout, kind in DECLARED:
        for density in (0.01, 0.5, 0.98):
            held = rng.random(layout.size) < density
            match kind:
                case "full":
                    declared = declaration.FULL
                case "layers":
                    chosen = rng.random(len(layout.layers)) < density
                    declared = declaration.of_layers(layout, chosen, Provenance.PUBLIC)
                case "units":
                    chosen = rng.random(layout.unit_count) < density
                    declared = declaration.of_units(layout, chosen, Provenance.PUBLIC)
                case _:
                    declared = declaration.of_coordinates(layout, held, Provenance.PUBLIC)
            yield bytes([DECLARED.index((layout, declared.kind))]) + declared.data


def decode_message(data: bytes) -> None:
    assert messages.encode(messages.decode(data)) == data


BITMAP_CLIENTS: tuple[Sequence[int], ...] = ((), range(1), range(8), tuple(HELD), range(7, 300, 3))


def read_bitmap(data: bytes) -> None:
    for clients in BITMAP_CLIENTS:
        try:
            chosen = messages.read_bitmap(data, clients)
        except DecodingError:
            continue
        assert messages.write_bitmap(set(chosen), clients) == data


def decode_snapshot(data: bytes) -> None:
    kept = snapshot.decode(data)
    assert snapshot.decode(snapshot.encode(kept)) == kept


def decode_element(data: bytes) -> None:
    assert field.encode(field.decode(data)) == data


def unpack_vector(data: bytes) -> None:
    for bits, count in itertools.product((16, 24, 32, 64), {0, 5, 8, len(data) // 3, len(data) // 4}):
        ring = Ring(bits)
        try:
            words = ring.unpack(data, count)
        except DecodingError:
            continue
        assert ring.pack(words) == data


SECRET, CONTEXT = bytes(32), (b"h1", b"dealer", b"holder")
SEALED = seal(SECRET, bytes(98), *CONTEXT)


def open_box(data: bytes) -> None:
    unseal(SECRET, data, *CONTEXT)
    assert data == SEALED, "a forged box opens"


def take_public_key(data: bytes) -> None:
    check_public(data)
    KeyPair(SECRET).agree(data)


SIGNER = Identity(bytes(32))
DIRECTORY = Directory({1: SIGNER.public})
SIGNATURE = SIGNER.sign(b"statement")


def check_signature(data: bytes) -> None:
    DIRECTORY.check(1, data, b"statement")
    assert data == SIGNATURE, "a forged signature passes"


def plan_of(game: Play) -> Plan:
    game.until(Round.MASKED_INPUT)
    return game.server._plan


PLANS = tuple(plan_of(five_clients(mode)) for mode in ("mask-indexed", "uniform"))


def ledgers() -> Iterator[bytes]:
    for scope in ("model", "all"):
        ledger = Ledger(scope)
        yield ledger.to_bytes()
        for plan in PLANS:
            ledger.open(plan.session.id[:-1] + bytes([len(ledger._ids)]))
            for survivors in (plan.clients, plan.clients[1:]):
                ledger._entries[Entry.of(plan, survivors)] = None
            ledger._pending[plan.session.id] = (plan.session.model_root, plan.session.layout.digest)
            yield ledger.to_bytes()


def read_ledger(data: bytes) -> None:
    ledger = Ledger.from_bytes(data)
    assert ledger.to_bytes() == data
    for plan in PLANS:
        try:
            ledger.agree(plan, plan.clients)
        except DifferencingError:
            continue


def received(server: Server) -> tuple[object, ...]:
    """All that a message changes in a server: as ``save``, but fast."""
    summed = getattr(server, "_sum", None)
    return server.round, dict(server._answers), summed and (summed.vector.tobytes(), summed.checks)


class ServerTarget:
    """A server in each round, where only client 1's answer is missing; what is accepted closes the round.

    Args:
        adversary: Of the session.
    """

    def __init__(self, adversary: Adversary) -> None:
        self.games = []
        self.seeds = []
        for round_ in ROUNDS[adversary]:
            if round_ is Round.DONE:
                break
            game = five_clients(adversary=adversary).until(round_)
            game.deliver([id_ for id_ in HELD if id_ != 1])
            self.games.append(game)
            self.seeds.append(game.answer(1))
        self.saved = [game.server.save() for game in self.games]
        self.before = [received(game.server) for game in self.games]

    def __call__(self, data: bytes) -> None:
        """Hands it to the server of every round."""
        for game, saved, before in zip(self.games, self.saved, self.before, strict=True):
            try:
                game.server.receive(data)
            except SecAggError:
                assert received(game.server) == before, "a refusal has changed the server"
            else:
                self.close(game.server)
                game.server = Server.restore(game.server.session, saved, game.clients, game.pinned)

    @staticmethod
    def close(server: Server) -> None:
        before = server.save()
        try:
            server.close_round()
        except SecAggError:
            assert server.save() == before, "a refusal to close has changed the server"


class ClientTarget:
    """Client 2 in each round.

    Args:
        adversary: Of the session.
    """

    def __init__(self, adversary: Adversary) -> None:
        rounds = [round_ for round_ in ROUNDS[adversary] if round_ not in (Round.ADVERTISE_KEYS, Round.DONE)]
        self.games = [five_clients(adversary=adversary).until(round_) for round_ in rounds]
        self.seeds = [game.inbox[2] for game in self.games]

    def __call__(self, data: bytes) -> None:
        """Hands it to the client of every round."""
        for game in self.games:
            client = game.clients[2]
            before = client._state
            try:
                answer = game.answer(2, data)
            except SecAggError:
                assert client._state is before, "a refusal has changed the client"
            else:
                messages.decode(answer)
                client._state = before


class RestoreTarget:
    """A server restored from anything; what is accepted can be saved again.

    Args:
        servers: Servers of one session.
    """

    def __init__(self, servers: ServerTarget) -> None:
        self.game, self.seeds = servers.games[0], servers.saved

    def __call__(self, data: bytes) -> None:
        """Restores it, saves it and restores it again."""
        saved = self.restored(data).save()
        assert self.restored(saved).save() == saved

    def restored(self, data: bytes) -> Server:
        return Server.restore(self.game.server.session, data, self.game.clients, self.game.pinned)


class ClientRestoreTarget:
    """A client restored from anything; what is accepted can be saved again, and answers or refuses by name.

    Args:
        adversary: Of the session.
    """

    def __init__(self, adversary: Adversary) -> None:
        self.game = five_clients(adversary=adversary)
        self.seeds = []
        for round_ in ROUNDS[adversary][1:]:
            self.game.until(round_)
            if round_ is not Round.DONE:
                client = self.game.clients[2]
                state = client._state
                self.seeds.append(client.save())
                client._state = state

    def __call__(self, data: bytes) -> None:
        """Restores it, saves it and restores it again."""
        saved = self.restored(data).save()
        assert self.restored(saved).save() == saved

    def restored(self, data: bytes) -> Client:
        return Client.restore(self.game.server.session, data, self.game.identities.get(2), self.game.pinned)


SERVERS = {adversary: ServerTarget(adversary) for adversary in ROUNDS}
CLIENTS = {adversary: ClientTarget(adversary) for adversary in ROUNDS}
RESTORED_CLIENTS = {adversary: ClientRestoreTarget(adversary) for adversary in ROUNDS}
RESTORED = {adversary: RestoreTarget(servers) for adversary, servers in SERVERS.items()}
MESSAGES = [seed for servers in SERVERS.values() for seed in servers.seeds]
MESSAGES += [seed for clients in CLIENTS.values() for seed in clients.seeds]
SNAPSHOTS = [seed for restored in RESTORED.values() for seed in restored.seeds]
BITMAPS = [messages.write_bitmap(set(range(0, 300, 2)), clients) for clients in BITMAP_CLIENTS]
NOT_SAVED = (DecodingError, AgreementError)
NOT_THIS_CLIENT = (*NOT_SAVED, ParameterError)  # whose identity is not the one that it is restored with
SEALED_OFF = Framing(
    lambda data: data[: -client_snapshot.DIGEST_BYTES], lambda body: body + client_snapshot._digest(body)
)
"""A digest at the end."""

TARGETS = {
    "messages.decode": Target(decode_message, (DecodingError,), MESSAGES, VERSIONED),
    "messages.read_bitmap": Target(read_bitmap, (DecodingError,), BITMAPS),
    "declaration.expand": Target(expand_declaration, (DecodingError,), list(declarations())),
    "field.decode": Target(decode_element, (DecodingError,), [field.encode(0), field.encode(field.PRIME - 1)]),
    "ring.unpack": Target(unpack_vector, (DecodingError,), [b"", bytes(10), bytes(range(15)), b"\xff" * 40]),
    "keys.unseal": Target(open_box, (ShareError,), [SEALED]),
    "keys.check_public": Target(take_public_key, (KeyAgreementError,), [KeyPair(SECRET).public]),
    "identity.check": Target(check_signature, (SignatureError,), [SIGNATURE]),
    "snapshot.decode": Target(decode_snapshot, (DecodingError,), SNAPSHOTS, BARE),
    "ledger.from_bytes": Target(read_ledger, (DecodingError,), list(ledgers()), VERSIONED, cost=16),
    **{f"server.restore {name}": Target(one, NOT_SAVED, one.seeds, BARE, cost=16) for name, one in RESTORED.items()},
    **{
        f"client.restore {name}": Target(one, NOT_THIS_CLIENT, one.seeds, SEALED_OFF, cost=16)
        for name, one in RESTORED_CLIENTS.items()
    },
    **{f"server.receive {name}": Target(one, (), one.seeds, VERSIONED, cost=16) for name, one in SERVERS.items()},
    **{f"client {name}": Target(one, (), one.seeds, VERSIONED, cost=16) for name, one in CLIENTS.items()},
}
"""Decoder to its target."""
