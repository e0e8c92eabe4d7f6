"""Clients and server of secagg, played from recorded entropy, put exactly the recorded bytes on the wire."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from secagg import transcript
from secagg.client import Client
from secagg.identity import Identity
from secagg.messages import AdvertiseKeys, Roster, decode
from secagg.server import Server
from tests.vectors.replay import HERE, Tape, declaration_of, load, session_of

NAMES = sorted(path.stem for path in HERE.glob("session-*.json"))

unhex = bytes.fromhex


class Replay:
    """A recorded session, its clients and its server."""

    def __init__(self, name: str) -> None:
        self.recorded = load(name)
        self.session = session_of(self.recorded["session"])
        self.cast = {int(one["client"]): one for one in self.recorded["clients"]}
        self.tapes = {client: Tape(unhex(one["entropy"])) for client, one in self.cast.items()}
        pinned = None
        if self.session.params.active:
            pinned = {client: unhex(one["public_identity"]) for client, one in self.cast.items()}
        self.server = Server(self.session, self.cast, pinned)
        self.clients = {
            client: Client(client, self.session, self._identity(client), pinned, entropy=self.tapes[client])
            for client in self.cast
        }

    def _identity(self, client: int) -> Identity | None:
        return Identity(unhex(self.cast[client]["identity"])) if self.session.params.active else None

    def answer(self, round_: str, client: int, received: bytes) -> bytes:
        brings, machine = self.cast[client], self.clients[client]
        match round_:
            case "AdvertiseKeys":
                return machine.advertise_keys()
            case "ShareKeys":
                return machine.share_keys(received, self._mask(brings), brings["weight"])
            case "MaskedInput":
                tensors = {tensor.name: tensor.shape for tensor in self.session.layout.tensors}
                update = {name: np.reshape(brings["update"][name], shape) for name, shape in tensors.items()}
                return machine.masked_input(received, update)
            case "ConsistencyCheck":
                return machine.check_consistency(received)
        return machine.unmask(received)

    def _mask(self, brings: Any) -> Any:
        return declaration_of(brings["mask"])


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_session_is_pinned_byte_for_byte(name: str) -> None:
    replay = Replay(name)
    inbox = dict.fromkeys(replay.cast, b"")
    for played in replay.recorded["rounds"]:
        for one in played["sent"]:
            client = int(one["client"])
            sent = replay.answer(played["round"], client, inbox[client])
            assert sent.hex() == one["bytes"], (played["round"], client)
            replay.server.receive(sent)
        inbox = replay.server.close_round()
        expected = {int(client): unhex(one["bytes"]) for one in played["delivered"] for client in one["clients"]}
        assert inbox == expected, played["round"]
    assert {client: tape.left for client, tape in replay.tapes.items() if tape.left} == {}
    outcome = replay.server.outcome
    assert list(outcome.survivors) == list(map(int, replay.recorded["survivors"]))
    assert outcome.integers.tolist() == list(map(int, replay.recorded["sum"]))
    assert np.flatnonzero(outcome.plan.released).tolist() == replay.recorded["released"]
    assert outcome.plan.ring.bits == replay.recorded["bits"]


@pytest.mark.parametrize("name", NAMES)
def test_the_transcript_of_a_session_is_pinned(name: str) -> None:
    replay = Replay(name)
    recorded, session = replay.recorded, replay.session
    assert session.digest.hex() == recorded["digests"]["session"]
    [delivered] = recorded["rounds"][0]["delivered"]
    roster = decode(unhex(delivered["bytes"]))
    assert isinstance(roster, Roster)
    assert transcript.graph_seed(session, roster.members).hex() == recorded["graph_seed"]
    graph, wired = session.topology([member.id for member in roster.members], unhex(recorded["graph_seed"]))
    assert {name: getattr(wired, name) for name in recorded["wiring"]} == recorded["wiring"]
    assert list(graph.order) == list(map(int, recorded["ring"]))
    assert transcript.h1(session, roster.members, wired.degree, wired.threshold).hex() == recorded["h1"]


def test_the_sessions_hold_both_modes_both_adversaries_and_dropouts() -> None:
    sessions = [load(name) for name in NAMES]
    kinds = {(one["session"]["mode"], one["session"]["params"]["adversary"]) for one in sessions}
    assert kinds >= {("uniform", "semi-honest"), ("mask-indexed", "semi-honest"), ("mask-indexed", "active")}
    assert {one["bits"] for one in sessions} >= {16, 24, 64}
    for one in sessions[:1]:
        assert {client["last_round"] for client in one["clients"]} >= {"ShareKeys", "MaskedInput", "Unmask"}


def test_keys_are_signed_if_and_only_if_the_server_is_active() -> None:
    for name in NAMES:
        recorded = load(name)
        first = decode(unhex(recorded["rounds"][0]["sent"][0]["bytes"]))
        assert isinstance(first, AdvertiseKeys)
        assert (first.signature is not None) == (recorded["session"]["params"]["adversary"] == "active")
