"""secagg reproduces the vectors, and refuses the negative ones."""

from __future__ import annotations

import ast
import enum
import json
import runpy
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from secagg import field, masking, transcript
from secagg.declaration import FULL, Declaration, expand
from secagg.errors import DecodingError
from secagg.keys import KeyPair
from secagg.layout import Layout, Tensor
from secagg.messages import Member, Participant, Roster, decode, encode
from secagg.params import Params
from secagg.prg import Stream, check_masks, derive
from secagg.ring import Ring
from secagg.session import Session

HERE = Path(__file__).parent


def load(topic: str) -> Any:
    return json.loads((HERE / f"{topic}.json").read_text())


PRG, DECLARATIONS, MESSAGES, COMMITMENTS, SESSION = map(
    load, ("prg", "declarations", "messages", "commitments", "session")
)


def cases(vectors: list[Any], *names: str) -> pytest.MarkDecorator:
    def label(case: Any) -> str:
        return "-".join(str(case[name])[:32] for name in names) if names else str(case)[:16]

    return pytest.mark.parametrize("case", vectors, ids=label)


def test_the_files_are_what_the_generator_writes() -> None:
    written = runpy.run_path(str(HERE / "generate.py"))["everything"]()
    assert {path.name: path.read_text() for path in HERE.glob("*.json")} == written


def test_the_generator_uses_nothing_of_secagg() -> None:
    tree = ast.parse((HERE / "generate.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} == {
        "__future__",
        "hashlib",
        "hmac",
        "json",
        "pathlib",
        "typing",
        "cryptography",
    }


@cases(PRG["derive"], "purpose")
def test_keys_are_derived(case: dict[str, Any]) -> None:
    key = bytes.fromhex(case["key"])
    binders = map(bytes.fromhex, case["binders"])
    assert derive(bytes.fromhex(case["secret"]), case["purpose"], *binders, length=len(key)) == key


@cases(PRG["stream"], "bits", "start")
def test_streams_are_expanded(case: dict[str, Any]) -> None:
    stream = Stream(bytes.fromhex(case["key"]), Ring(case["bits"]), case["start"])
    assert stream.take(len(case["elements"])).tolist() == case["elements"]


@cases(PRG["check_masks"])
def test_checksum_masks_are_expanded(case: dict[str, Any]) -> None:
    assert list(check_masks(bytes.fromhex(case["key"]))) == case["masks"]


def layout_of(case: dict[str, Any]) -> Layout:
    described = DECLARATIONS["layouts"][case["layout"]]
    tensors = [
        Tensor(
            one["name"],
            tuple(one["shape"]),
            unit_axes={int(axis): tuple(units) for axis, units in one["unit_axes"].items()},
        )
        for one in described["tensors"]
    ]
    return Layout(tuple(tensors), described["unit_groups"])


@cases(DECLARATIONS["valid"], "layout", "kind", "data")
def test_declarations_are_read(case: dict[str, Any]) -> None:
    held = expand(layout_of(case), Declaration(case["kind"], bytes.fromhex(case["data"])))
    assert "".join("01"[bit] for bit in held.astype(int)) == case["held"]


@cases(DECLARATIONS["invalid"], "layout", "kind", "data")
def test_malformed_declarations_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(DecodingError, match=case["why"]):
        expand(layout_of(case), Declaration(case["kind"], bytes.fromhex(case["data"])))


def plain(value: Any) -> Any:
    """A message as JSON holds it."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [plain(entry) for entry in value]
    return value.hex() if isinstance(value, bytes) else value


@cases(MESSAGES["valid"], "type")
def test_messages_are_read_and_written_back(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["bytes"])
    message = decode(data)
    assert type(message).__name__ == case["type"]
    assert plain(message) == case["fields"]
    assert encode(message) == data


@cases(MESSAGES["invalid"], "name")
def test_malformed_messages_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(DecodingError):
        decode(bytes.fromhex(case["bytes"]))


@cases(COMMITMENTS["share"], "dealer", "holder")
def test_shares_are_committed_to(case: dict[str, Any]) -> None:
    salt, share = bytes.fromhex(case["salt"]), bytes.fromhex(case["share"])
    commitment = transcript.share_commitment(salt, case["dealer"], case["holder"], share)
    assert commitment.hex() == case["commitment"]
    assert field.encode(field.decode(share)) == share


@cases(COMMITMENTS["seed"], "owner")
def test_self_seeds_are_committed_to(case: dict[str, Any]) -> None:
    commitment = transcript.seed_commitment(bytes.fromhex(case["h1"]), case["owner"], bytes.fromhex(case["seed"]))
    assert commitment.hex() == case["commitment"]


@cases(COMMITMENTS["not_a_field_element"])
def test_what_is_no_field_element_is_refused(case: str) -> None:
    with pytest.raises(DecodingError):
        field.decode(bytes.fromhex(case))


def fixed_session() -> Session:
    layout = Layout((Tensor("w", (4,)),))
    return Session(id=bytes.fromhex(SESSION["id"]), params=Params(), layout=layout, mode="uniform")


def seed_of(client: int, name: str) -> bytes:
    return bytes.fromhex(next(seeds[name] for seeds in SESSION["seeds"] if seeds["client"] == client))


CLIENTS = [seeds["client"] for seeds in SESSION["seeds"]]


def test_the_digests_of_a_session_are_pinned() -> None:
    session = fixed_session()
    assert session.params.digest.hex() == SESSION["params_digest"]
    assert session.layout.digest.hex() == SESSION["layout_digest"]
    assert session.digest.hex() == SESSION["session_digest"]


def test_both_transcript_hashes_are_pinned() -> None:
    keys = {client: [KeyPair(seed_of(client, name)).public for name in ("masking", "transport")] for client in CLIENTS}
    members = tuple(Member(client, *pair) for client, pair in keys.items())
    session = fixed_session()
    roster = Roster(session.id, members)
    seed = transcript.graph_seed(session, roster)
    assert seed.hex() == SESSION["graph_seed"]
    graph, threshold = session.topology(CLIENTS, seed)
    h1 = transcript.h1(session, roster, graph.degree, threshold)
    assert h1.hex() == SESSION["h1"]
    h2 = transcript.h2(h1, [Participant(client, FULL, None) for client in CLIENTS])
    assert h2.hex() == SESSION["h2"]


def test_what_each_client_sends_is_pinned_and_its_sum_unmasks() -> None:
    ring, h2 = Ring(24), bytes.fromhex(SESSION["h2"])
    inputs = {case["client"]: np.array(case["integers"], np.int64) for case in SESSION["inputs"]}
    total = masking.Accumulator(ring, ring.zeros(4))
    for case in SESSION["masked"]:
        client, integers = case["client"], inputs[case["client"]]
        hidden = masking.Accumulator(ring, ring.wrap(integers), masking.checksums(integers, h2))
        for term in masking.terms(client, set(CLIENTS) - {client}):
            key = masking.self_key(seed_of(client, "self"), h2)
            if term.peer is not None:
                peer_public = KeyPair(seed_of(term.peer, "masking")).public
                agreed = KeyPair(seed_of(client, "masking")).agree(peer_public)
                key = masking.pairwise_key(agreed, h2, client, term.peer)
            hidden.apply(masking.MaskKey(term.sign, key))
        assert ring.pack(hidden.vector).hex() == case["vector"]
        assert b"".join(value.to_bytes(8, "little") for value in hidden.checks).hex() == case["check"]
        total.vector += ring.unpack(bytes.fromhex(case["vector"]), 4)
        total.add_checks(1, hidden.checks)
    for client in CLIENTS:
        total.apply(masking.MaskKey(-1, masking.self_key(seed_of(client, "self"), h2)))
    integers = ring.centred(total.vector)
    assert integers.tolist() == SESSION["sum"]
    assert masking.checksums(integers, h2) == total.checks
