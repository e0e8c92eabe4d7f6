"""secagg reproduces the vectors, and refuses the negative ones."""

from __future__ import annotations

import ast
import enum
from typing import Any

import msgspec
import numpy as np
import pytest

from secagg import dealing, encoding, field, masking, merkle, messages, prg, shamir, transcript
from secagg.declaration import FULL, Declaration, expand
from secagg.errors import DecodingError, InputError, ParameterError, ShareError, SignatureError, WeightError
from secagg.graph import Graph
from secagg.identity import Directory, Identity
from secagg.keys import KeyPair
from secagg.layout import Layout, Tensor
from secagg.messages import Participant
from secagg.params import Params
from secagg.release import Plan
from secagg.ring import Ring
from secagg.session import Session
from secagg.topology import topology
from tests.vectors import generate
from tests.vectors.replay import HERE, Tape, cases, layout_of, load, member_of, participant_of, sealed_of, session_of

PRG, SHAMIR, COMMITMENTS, SEALING = map(load, ("prg", "shamir", "commitments", "sealing"))
DECLARATIONS, MESSAGES, RING, MASKS = map(load, ("declarations", "messages", "ring", "masks"))
ENCODING, DIGESTS, SIGNATURES = map(load, ("encoding", "digests", "signatures"))
GRAPHS, WIRINGS, MODELS = map(load, ("graphs", "wirings", "models"))

Json = dict[str, Any]

unhex = bytes.fromhex


def test_the_files_are_what_the_generator_writes() -> None:
    written = generate.everything()
    found = {path.name: path.read_text(encoding="utf-8") for path in HERE.glob("*.json") if path.stem != "published"}
    assert found == written


def test_the_generator_uses_nothing_of_secagg() -> None:
    """Nor of numpy and msgspec, on which secagg rests; the ciphers and curves of ``cryptography`` both share."""
    files = [HERE / "generate.py", *HERE.glob("reference/*.py"), *HERE.glob("topics/*.py")]
    imported = set()
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    ours = ("tests.vectors.reference", "tests.vectors.topics")
    assert len(files) > 10
    assert {name.split(".")[0] for name in imported if not name.startswith(ours)} == {
        *(
            "__future__",
            "collections",
            "dataclasses",
            "fractions",
            "functools",
            "hashlib",
            "hmac",
            "itertools",
            "struct",
        ),
        *("json", "math", "pathlib", "typing", "cryptography"),
    }


@cases(PRG["derive"], "purpose")
def test_keys_are_derived(case: Json) -> None:
    key = unhex(case["key"])
    assert prg.derive(unhex(case["secret"]), case["purpose"], *map(unhex, case["binders"]), length=len(key)) == key


@cases(PRG["stream"], "bits", "start")
def test_streams_are_expanded(case: Json) -> None:
    ring, words = Ring(case["bits"]), unhex(case["words"])
    stream = prg.Stream(unhex(case["key"]), ring, case["start"])
    assert stream.take(len(words) // ring.dtype.itemsize).tobytes() == words


@cases(PRG["check_masks"])
def test_checksum_masks_are_expanded(case: Json) -> None:
    assert list(map(str, prg.check_masks(unhex(case["key"])))) == case["masks"]


@cases(PRG["seeded_entropy"], "seed")
def test_seeded_entropy_is_repeatable(case: Json) -> None:
    source, expected = prg.SeededEntropy(unhex(case["seed"])), unhex(case["bytes"])
    assert source(1) + source(len(expected) - 1) == expected


def shares_of(case: Json) -> dict[int, int]:
    return {one["point"]: field.decode(unhex(one["share"])) for one in case["shares"]}


@cases(SHAMIR["split"], "secret")
def test_secrets_are_split(case: Json) -> None:
    tape, expected = Tape(unhex(case["entropy"])), shares_of(case)
    assert shamir.split(unhex(case["secret"]), case["threshold"], list(expected), tape) == expected
    assert not tape.left


@cases(SHAMIR["rebuild"], "name")
def test_secrets_are_rebuilt_or_refused(case: Json) -> None:
    if case["secret"] is None:
        with pytest.raises(ShareError, match="rebuild no secret"):
            shamir.rebuild(shares_of(case))
    else:
        assert shamir.rebuild(shares_of(case)).hex() == case["secret"]


@cases(SHAMIR["refused_split"], "name")
def test_what_cannot_be_split_is_refused(case: Json) -> None:
    with pytest.raises(ParameterError):
        shamir.split(unhex(case["secret"]), case["threshold"], case["points"], bytes)


@cases(COMMITMENTS["share"], "dealer", "holder")
def test_shares_are_committed_to(case: Json) -> None:
    share = unhex(case["share"])
    dealer, holder = int(case["dealer"]), case["holder"]
    assert transcript.share_commitment(unhex(case["salt"]), dealer, holder, share).hex() == case["commitment"]
    assert field.encode(field.decode(share)) == share


@cases(COMMITMENTS["seed"], "owner")
def test_self_seeds_are_committed_to(case: Json) -> None:
    commitment = transcript.seed_commitment(unhex(case["h1"]), case["owner"], unhex(case["seed"]))
    assert commitment.hex() == case["commitment"]


@cases(COMMITMENTS["not_a_field_element"])
def test_what_is_no_field_element_is_refused(case: str) -> None:
    with pytest.raises(DecodingError):
        field.decode(unhex(case))


def test_shares_are_sealed_and_opened() -> None:
    dealer, holder = KeyPair(unhex(SEALING["dealer_seed"])), KeyPair(unhex(SEALING["holder_seed"]))
    assert (dealer.public.hex(), holder.public.hex()) == (SEALING["dealer_public"], SEALING["holder_public"])
    agreed, h1, sealed = dealer.agree(holder.public), unhex(SEALING["h1"]), sealed_of(SEALING["sealed"])
    assert agreed == holder.agree(dealer.public) == unhex(SEALING["agreed"])
    opened = dealing.open_shares(sealed, agreed, h1)
    assert [
        {"share": one.share.hex(), "salt": one.salt.hex()} for one in (opened.self_seed, opened.masking_key)
    ] == SEALING["opened"]
    assert dealing.seal_shares(opened, sealed.holder, agreed, h1) == sealed


@cases(SEALING["refused"], "name")
def test_what_was_not_sealed_so_does_not_open(case: Json) -> None:
    with pytest.raises(ShareError):
        dealing.open_shares(sealed_of(case["sealed"]), unhex(SEALING["agreed"]), unhex(case["h1"]))


@cases(DECLARATIONS["valid"], "layout", "kind", "data")
def test_declarations_are_read(case: Json) -> None:
    layout = layout_of(DECLARATIONS["layouts"][case["layout"]])
    held = expand(layout, Declaration(case["kind"], unhex(case["data"])))
    assert "".join("01"[bit] for bit in held.astype(int)) == case["held"]


@cases(DECLARATIONS["invalid"], "layout", "kind", "data")
def test_malformed_declarations_are_refused(case: Json) -> None:
    with pytest.raises(DecodingError, match=case["why"]):
        expand(layout_of(DECLARATIONS["layouts"][case["layout"]]), Declaration(case["kind"], unhex(case["data"])))


def plain(value: Any) -> Any:
    """A message as the files hold it."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, enum.Enum):
        return value.value
    return [plain(one) for one in value] if isinstance(value, tuple) else generate.plain(value)


@cases(MESSAGES["valid"], "type")
def test_messages_are_read_and_written_back(case: Json) -> None:
    data = unhex(case["bytes"])
    message = messages.decode(data)
    assert type(message).__name__ == case["type"]
    assert plain(message) == case["fields"]
    assert messages.encode(message) == data


def test_a_message_may_be_long() -> None:
    case = MESSAGES["long"]
    data = unhex(case["head"]) + bytes(case["zeros"]) + unhex(case["tail"])
    message = messages.decode(data)
    assert isinstance(message, messages.MaskedInput)
    assert message.vector == bytes(case["zeros"])
    assert messages.encode(message) == data


@cases(MESSAGES["invalid"], "name")
def test_malformed_messages_are_refused(case: Json) -> None:
    with pytest.raises(DecodingError):
        messages.decode(unhex(case["bytes"]))


@cases(MESSAGES["bitmaps"]["valid"], "data")
def test_bitmaps_are_read_and_written_back(case: Json) -> None:
    clients, data = MESSAGES["bitmaps"]["clients"], unhex(case["data"])
    assert list(messages.read_bitmap(data, clients)) == case["chosen"]
    assert messages.write_bitmap(set(case["chosen"]), clients) == data


@cases(MESSAGES["bitmaps"]["invalid"])
def test_malformed_bitmaps_are_refused(case: str) -> None:
    with pytest.raises(DecodingError):
        messages.read_bitmap(unhex(case), MESSAGES["bitmaps"]["clients"])


def integers_of(case: Json) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(list(map(int, case["integers"])), np.int64)


@cases(RING["packed"], "bits")
def test_ring_elements_are_packed_and_unpacked(case: Json) -> None:
    ring, integers = Ring(case["bits"]), integers_of(case)
    assert ring.pack(ring.wrap(integers)).hex() == case["bytes"]
    assert ring.centred(ring.unpack(unhex(case["bytes"]), len(integers))).tolist() == integers.tolist()


@cases(RING["holding"], "bits", "largest")
def test_the_narrowest_ring_that_holds_the_sums_is_taken(case: Json) -> None:
    assert Ring.holding(int(case["largest"])).bits == case["bits"]


def test_sums_that_no_ring_holds_are_refused() -> None:
    for largest in RING["overflow"]:
        with pytest.raises(ParameterError):
            Ring.holding(int(largest))


def encode(case: Json, weight: float | None = None, **settings: Any) -> list[int]:
    """The integers of one tensor in a session of three clients."""
    params, values = Params(min_cohort=2, **settings), np.array(list(map(float, case["values"])))
    layout = Layout((Tensor("w", (len(values),)),))
    session = Session(id=bytes(16), params=params, layout=layout, mode="uniform", weighted=weight is not None)
    plan = Plan(session, 2, [Participant(client, FULL, None) for client in range(3)])
    own, encoded = np.ones(len(values), bool), None if weight is None else encoding.encode_weight(params, weight)
    encoding.check_update(layout, params, {"w": values}, own)
    integers = encoding.encode_update(plan, 0, {"w": values}, own, encoded).take(int(plan.places(0).sum()))
    assert integers[len(values) :].tolist() == ([] if encoded is None else [encoded])
    return integers[: len(values)].tolist()


@cases(ENCODING["values"], "name")
def test_values_are_encoded(case: Json) -> None:
    settings = {name: case[name] for name in ("levels", "value_range", "out_of_range", "weight")}
    assert encode(case, **settings) == integers_of(case).tolist()


@cases(ENCODING["refused"], "name")
def test_values_that_cannot_be_encoded_are_refused(case: Json) -> None:
    with pytest.raises(InputError):
        encode(case, out_of_range=case["out_of_range"])


@cases(ENCODING["weights"], "weight")
def test_weights_are_encoded(case: Json) -> None:
    params = Params(max_weight=10.0)
    assert encoding.encode_weight(params, case["weight"]) == case["encoded"]
    assert encoding.weight_bucket(params, case["weight"]) == case["bucket"]
    assert encoding.bucket_weight(params, case["bucket"]) == case["bucket_weight"]


@cases(ENCODING["refused_weights"])
def test_weights_that_cannot_be_encoded_are_refused(case: float | str) -> None:
    with pytest.raises(WeightError):
        encoding.encode_weight(Params(max_weight=10.0), float(case))


PLACES = {int(client): np.array(list(map(int, of)), bool) for client, of in MASKS["places"].items()}


@cases(MASKS["masked"], "bits")
def test_vectors_are_masked(case: Json) -> None:
    ring, h2, client, integers = Ring(case["bits"]), unhex(MASKS["h2"]), MASKS["client"], integers_of(case)
    keys = {int(peer): KeyPair(unhex(seed)) for peer, seed in MASKS["masking_seeds"].items()}
    own = PLACES[client]
    hidden = masking.Accumulator(ring, ring.wrap(integers), masking.checksums(integers, h2, own))
    for term in masking.terms(client, set(keys) - {client}):
        if term.peer is None:
            key = masking.self_key(unhex(MASKS["self_seed"]), h2)
            assert key.hex() == MASKS["self_key"]
            hidden.apply([masking.MaskKey(term.sign, key)])
        else:
            agreed = keys[client].agree(keys[term.peer].public)
            key = masking.pairwise_key(agreed, h2, client, term.peer)
            assert key.hex() == MASKS["pairwise_keys"][str(term.peer)]
            hidden.apply([masking.MaskKey(term.sign, key, masking.packed(PLACES[term.peer][own]))])
    assert ring.pack(hidden.vector).hex() == case["vector"]
    assert b"".join(check.to_bytes(8, "little") for check in hidden.checks).hex() == case["check"]


@cases(MASKS["checksums"], "sums")
def test_checksums_are_computed(case: Json) -> None:
    sums = masking.checksums(integers_of(case), unhex(MASKS["h2"]), PLACES[MASKS["client"]])
    assert list(map(str, sums)) == case["sums"]


@cases(DIGESTS, "mode")
def test_the_digests_of_a_session_are_pinned(case: Json) -> None:
    session, expected = session_of(case), case["digests"]
    assert session.params.digest.hex() == expected["params"]
    assert session.layout.digest.hex() == expected["layout"]
    assert (session.counted.digest.hex() if session.counted else "") == expected["counted"]
    assert session.digest.hex() == expected["session"]


def test_transcripts_and_statements_are_pinned() -> None:
    session, members = session_of(SIGNATURES["session"]), list(map(member_of, SIGNATURES["members"]))
    [participant], sealed = map(participant_of, SIGNATURES["participants"]), sealed_of(SIGNATURES["sealed"])
    h1 = transcript.h1(session, members, SIGNATURES["degree"], SIGNATURES["threshold"])
    h2 = transcript.h2(h1, [participant])
    assert transcript.graph_seed(session, members).hex() == SIGNATURES["graph_seed"]
    assert (h1.hex(), h2.hex()) == (SIGNATURES["h1"], SIGNATURES["h2"])
    assert {one["says"]: one["statement"] for one in SIGNATURES["signed"]} == {
        "keys": transcript.says_keys(session, members[0]).hex(),
        "h1": transcript.says_first(h1, participant).hex(),
        "shares": transcript.says_dealt(h1, sealed).hex(),
        "h2": transcript.says_second(h2, 5).hex(),
        "survivors": transcript.says_survivors(h2, unhex(SIGNATURES["survivors"]), 5).hex(),
    }


IDENTITIES = {one["client"]: Identity(unhex(one["seed"])) for one in SIGNATURES["identities"]}
PINNED = {client: identity.public for client, identity in IDENTITIES.items()}


@cases(SIGNATURES["signed"], "says")
def test_statements_are_signed(case: Json) -> None:
    assert [one["public"] for one in SIGNATURES["identities"]] == [public.hex() for public in PINNED.values()]
    assert IDENTITIES[5].sign(unhex(case["statement"])).hex() == case["signature"]
    Directory(PINNED).check(5, unhex(case["signature"]), unhex(case["statement"]))


@cases(SIGNATURES["refused"], "name")
def test_other_signatures_are_refused(case: Json) -> None:
    with pytest.raises(SignatureError):
        Directory(PINNED).check(5, unhex(case["signature"]), unhex(case["statement"]))


@cases(GRAPHS, "degree", "seed")
def test_masking_graphs_are_drawn(case: Json) -> None:
    clients, order = ([int(client) for client in case[name]] for name in ("clients", "order"))
    graph = Graph.build(clients, case["degree"], unhex(case["seed"]))
    assert list(graph.order) == order
    for one in case["neighbours"]:
        assert sorted(graph.neighbours(int(one["client"]))) == sorted(map(int, one["neighbours"]))
    assert graph.fewest_in_window(case["survivors"]) == case["fewest_in_window"]


@cases(MODELS, "root")
def test_model_roots_are_pinned(case: Json) -> None:
    layout = layout_of(case["layout"])
    model = {tensor.name: np.reshape(case["model"][tensor.name], tensor.shape) for tensor in layout.tensors}
    leaves = merkle.model_leaves(layout, model)
    assert [leaf.hex() for leaf in leaves] == case["leaves"]
    assert merkle.root(leaves).hex() == case["root"]


@cases(WIRINGS, "clients", "settings")
def test_degree_and_threshold_follow_from_the_settings(case: Json) -> None:
    wired = topology(Params(**case["settings"]), "uniform", case["clients"])
    assert {name: getattr(wired, name) for name in case["wiring"]} == case["wiring"]
