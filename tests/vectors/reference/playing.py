"""A whole session: every message that clients and server put on the wire, from the entropy of each client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.vectors.reference import masking, primitives, sharing, transcripts
from tests.vectors.reference.declaring import bits, bits_to_bytes, declaration
from tests.vectors.reference.messagepack import on_wire
from tests.vectors.reference.releasing import Release, bucket_of, encoded_weight, weight_of_bucket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.vectors.reference.declaring import Json
    from tests.vectors.reference.wiring import Wiring

ROUNDS = ("AdvertiseKeys", "ShareKeys", "MaskedInput", "ConsistencyCheck", "Unmask")

Pair = tuple[tuple[bytes, bytes], tuple[bytes, bytes]]
"""Share and salt of the self seed, then of the masking key."""


@dataclass
class Player:
    """One client: what it brings, and how much of its entropy it has used."""

    id: int
    brings: Json
    identity: bytes | None
    entropy: bytes
    session: bytes
    used: int = 0
    masking: bytes = field(init=False)
    transport: bytes = field(init=False)
    self_seed: bytes = b""
    dealt: dict[int, Pair] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.masking, self.transport = self.draw(32), self.draw(32)

    def draw(self, count: int) -> bytes:
        start = self.used
        self.used += count
        raw = self.entropy[start : self.used]
        return primitives.derive(raw, "fresh", self.session, primitives.id_bytes(self.id), length=count)

    def signed(self, statement: bytes) -> bytes | None:
        return None if self.identity is None else primitives.sign(self.identity, statement)

    @property
    def member(self) -> Json:
        masking, transport = map(primitives.public_key, (self.masking, self.transport))
        return {"id": self.id, "masking_key": masking, "transport_key": transport}

    def deal(self, threshold: int, points: dict[int, int]) -> None:
        self.self_seed = self.draw(32)
        of_self, of_key = (
            sharing.shares(
                secret,
                sharing.coefficients(b"".join(self.draw(48) for _ in range(threshold - 1))),
                list(points.values()),
            )
            for secret in (self.self_seed, self.masking)
        )
        for holder, point in points.items():
            first = (sharing.share_bytes(of_self[point]), self.draw(16))
            self.dealt[holder] = (first, (sharing.share_bytes(of_key[point]), self.draw(16)))


class Play:
    """A session whose clients drop out after the round that each names as its last.

    ``delivered`` has what the server sent at the end of each round, ``sent`` what clients sent in it.
    """

    def __init__(self, session: Json, players: list[Player], wired: Wiring) -> None:
        self.session, self.threshold, self.degree, self.needed = session, wired.threshold, wired.degree, wired.needed
        self.active = session["params"]["adversary"] == "active"
        self.digests = transcripts.digests(session)
        self.everybody = {player.id: player for player in players}
        self.sent: dict[str, dict[int, bytes]] = {}
        self.delivered: dict[str, dict[int, bytes]] = {}
        self._advertise_keys()
        self._share_keys()
        self._masked_input()
        if self.active:
            self._consistency_check()
        self._unmask()

    def _here(self, round_: str, among: Iterable[int]) -> dict[int, Player]:
        place = ROUNDS.index(round_)
        stays = {id_: ROUNDS.index(player.brings["last_round"]) >= place for id_, player in self.everybody.items()}
        return {id_: self.everybody[id_] for id_ in sorted(among) if stays[id_]}

    def _record(self, round_: str, sent: dict[int, list[object]], delivered: dict[int, bytes]) -> None:
        self.sent[round_] = {id_: on_wire(round_, self.session["id"], id_, *fields) for id_, fields in sent.items()}
        self.delivered[round_] = delivered

    def _all(self, signatures: Iterable[bytes | None]) -> list[bytes]:
        return [signature for signature in signatures if signature is not None]

    def _advertise_keys(self) -> None:
        u1 = self._here("AdvertiseKeys", self.everybody)
        members = [player.member for player in u1.values()]
        session = self.digests["session"]
        signed = {id_: one.signed(transcripts.says_keys(session, one.member)) for id_, one in u1.items()}
        self.graph_seed = transcripts.graph_seed(session, members)
        self.h1 = transcripts.h1(session, members, self.degree, self.threshold)
        self.order = transcripts.ring_order(list(u1), self.degree, self.graph_seed)
        self.members = {member["id"]: member for member in members}
        self.points = {id_: 1 + place for place, id_ in enumerate(u1)}
        sent: dict[int, list[object]] = {
            id_: [self.members[id_]["masking_key"], self.members[id_]["transport_key"], signed[id_]] for id_ in u1
        }
        roster = on_wire("Roster", self.session["id"], members, self._all(signed.values()))
        self._record("AdvertiseKeys", sent, dict.fromkeys(u1, roster))

    def _neighbours(self, id_: int, among: Iterable[int]) -> list[int]:
        return [peer for peer in transcripts.neighbours(self.order, self.degree, id_) if peer in among]

    def _share_keys(self) -> None:
        u2 = self._here("ShareKeys", self.members)
        sealed = {id_: self._deal(player) for id_, player in u2.items()}
        self.participants = {id_: self._participant(player) for id_, player in u2.items()}
        signed = {id_: one.signed(transcripts.says_first(self.h1, self.participants[id_])) for id_, one in u2.items()}
        sent: dict[int, list[object]] = {
            id_: [
                *(self.digests["params"], self.digests["layout"], self.h1),
                *(self.participants[id_]["declaration"], self.participants[id_]["weight_bucket"]),
                *(sharing.seed_commitment(self.h1, id_, player.self_seed), sealed[id_], signed[id_]),
            ]
            for id_, player in u2.items()
        }
        participants, signatures = list(self.participants.values()), self._all(signed.values())
        inbox = {id_: [one for of in sealed.values() for one in of if one["holder"] == id_] for id_ in u2}
        delivered = {
            id_: on_wire("RelayedShares", self.session["id"], participants, inbox[id_], signatures) for id_ in u2
        }
        self.h2 = transcripts.h2(self.h1, participants)
        self._record("ShareKeys", sent, delivered)

    def _deal(self, player: Player) -> list[Json]:
        peers = self._neighbours(player.id, self.members)
        player.deal(self.threshold, {holder: self.points[holder] for holder in sorted([*peers, player.id])})
        sealed = []
        for holder in peers:
            agreed = primitives.agree(player.transport, self.members[holder]["transport_key"])
            one = sharing.sealed_shares(player.id, holder, agreed, self.h1, player.dealt[holder])
            sealed.append(one | {"signature": player.signed(transcripts.says_dealt(self.h1, one))})
        return sealed

    def _participant(self, player: Player) -> Json:
        declared = player.brings["mask"] if self.session["mode"] == "mask-indexed" else declaration("full")
        params, weight = self.session["params"], player.brings["weight"]
        public = self.session["weighted"] and params["weighting"] == "public"
        return {
            "id": player.id,
            "declaration": declared,
            "weight_bucket": bucket_of(params, weight) if public else None,
        }

    def _weight(self, player: Player) -> int | None:
        if not self.session["weighted"]:
            return None
        bucket = self.participants[player.id]["weight_bucket"]
        params = self.session["params"]
        return encoded_weight(params, player.brings["weight"]) if bucket is None else weight_of_bucket(params, bucket)

    def _masked_input(self) -> None:
        u3 = self._here("MaskedInput", self.participants)
        uniform = self.session["mode"] == "uniform"
        own = {id_: self.everybody[id_].brings["held"] for id_ in self.participants}
        release = Release(self.session, self.needed, {id_: "1" * len(of) if uniform else of for id_, of in own.items()})
        brought = {
            id_: release.integers(id_, player.brings["update"], own[id_], self._weight(player))
            for id_, player in u3.items()
        }
        sent: dict[int, list[object]] = {}
        for id_, player in u3.items():
            peers = self._neighbours(id_, self.participants)
            agreed = {peer: primitives.agree(player.masking, self.members[peer]["masking_key"]) for peer in peers}
            places = {peer: release.places(peer) for peer in [id_, *peers]}
            check, vector = masking.masked(
                id_, release.bits, self.h2, brought[id_], places, self_seed=player.self_seed, agreed=agreed
            )
            sent[id_] = [check, vector, player.signed(transcripts.says_second(self.h2, id_))]
        self.release, self.brought, self.survivors = release, brought, list(u3)
        self.bitmap = bits_to_bytes(bits(id_ in u3 for id_ in self.participants))
        self.total = release.total(brought, self.survivors)
        signatures = [one.signed(transcripts.says_second(self.h2, id_)) for id_, one in u3.items()]
        request = on_wire("UnmaskRequest", self.session["id"], self.bitmap, [])
        if self.active:
            request = on_wire("ConsistencyRequest", self.session["id"], self.bitmap, signatures)
        self._record("MaskedInput", sent, dict.fromkeys(u3, request))

    def _consistency_check(self) -> None:
        agreeing = self._here("ConsistencyCheck", self.survivors)
        signed = {
            id_: player.signed(transcripts.says_survivors(self.h2, self.bitmap, id_))
            for id_, player in agreeing.items()
        }
        sent: dict[int, list[object]] = {id_: [signature] for id_, signature in signed.items()}
        quorum = [{"id": id_, "signature": signed[id_]} for id_ in list(signed)[: self.needed]]
        request = on_wire("UnmaskRequest", self.session["id"], self.bitmap, quorum)
        self._record("ConsistencyCheck", sent, dict.fromkeys(agreeing, request))

    def _unmask(self) -> None:
        asked = self.delivered["ConsistencyCheck" if self.active else "MaskedInput"]
        sent: dict[int, list[object]] = {}
        for id_ in self._here("Unmask", asked):
            dealers = sorted([*self._neighbours(id_, self.participants), id_])
            kinds = {dealer: 0 if dealer in self.survivors else 1 for dealer in dealers}
            pairs = {dealer: self.everybody[dealer].dealt[id_][kind] for dealer, kind in kinds.items()}
            sent[id_] = [[{"dealer": dealer, "share": share, "salt": salt} for dealer, (share, salt) in pairs.items()]]
        self._record("Unmask", sent, {})
