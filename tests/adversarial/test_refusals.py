"""Every refusal has its name, comes before anything changes, and blames whom it can.

Each case hands one bad message, or one bad call, to a session of five clients. The refusal must be exactly the named
one; then the session is played to its end with the right messages, and its sum must be right to the last bit: so
nothing had changed.
"""

from __future__ import annotations

import gc
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attacks.wire.keys import LOW_ORDER
from secagg import messages, snapshot
from secagg.client import Client
from secagg.declaration import FULL, Declaration
from secagg.driver import Contribution
from secagg.errors import (
    SERVER,
    AgreementError,
    DecodingError,
    DuplicateMessageError,
    InputError,
    KeyAgreementError,
    LayoutMismatchError,
    LocalProtocolError,
    NotFiniteError,
    OutOfRangeError,
    ParameterError,
    SecAggError,
    ShareError,
    TooFewClientsError,
    UnexpectedMessageError,
    UnknownClientError,
    UnmaskRefusedError,
    WeightError,
)
from secagg.keys import KeyPair
from secagg.layout import Layout, Tensor
from secagg.masking import MaskKey
from secagg.messages import (
    AdvertiseKeys,
    MaskedInput,
    Member,
    Participant,
    RelayedShares,
    Roster,
    SealedShares,
    Unmask,
    UnmaskRequest,
)
from secagg.params import Params
from secagg.prg import SeededEntropy, Stream
from secagg.ring import Ring
from secagg.rounds import Round
from secagg.session import Session
from secagg.states import Masked, Shared
from tests.adversarial.play import (
    HELD,
    VALUES,
    Play,
    expected_of_five,
    five_clients,
    refused_by_client,
    refused_by_server,
)
from tests.adversarial.tamper import changed, flip, part, swapped, twice, without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Bad = Callable[[Play, bytes], bytes]

STRANGER = 77


def with_key(data: bytes, **keys: bytes) -> bytes:
    """A roster in which client 8, the fourth, has other keys."""
    return part(data, "members", 3, **keys)


def key_of(data: bytes) -> bytes:
    """The masking key in an advertisement."""
    message = messages.decode(data)
    assert isinstance(message, AdvertiseKeys)
    return message.masking_key


def respelled(data: bytes) -> bytes:
    """The session id, 16 bytes, in MessagePack's two-byte-length form, which no encoder would choose."""
    place = data.index(b"\xc4\x10")
    return data[:place] + b"\xc5\x00\x10" + data[place + 2 :]


def sender_respelled(data: bytes) -> bytes:
    """The sender, one byte after the session id, as a 64-bit integer."""
    place = data.index(b"\xc4\x10") + 18
    assert data[place] < 128
    return data[:place] + b"\xcf" + data[place].to_bytes(8, "big") + data[place + 1 :]


MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "only a version": lambda data: data[:1],
    "of another version": lambda data: b"\x02" + data[1:],
    "truncated": lambda data: data[:-1],
    "with a trailing byte": lambda data: data + b"\x00",
    "with a byte string spelled longer than needed": respelled,
    "of an unknown tag": lambda data: data[:2] + b"\xa3abc" + data[2 + 1 + (data[2] & 31) :],
    "not an array": lambda data: data[:1] + b"\x81" + data[2:],
    "of bytes that are no MessagePack": lambda data: data[:1] + b"\xc1" * 8,
    "with another field": lambda data: data[:1] + bytes([data[1] + 1]) + data[2:] + b"\xc0",
    "nested deeply": lambda data: data[:1] + b"\x91" * 5000,
    "with a tag that is no UTF-8": lambda data: data[:2] + b"\xa2\xff\xfe" + data[2 + 1 + (data[2] & 31) :],
}

TO_SERVER: dict[str, tuple[Round, Bad, type[SecAggError], tuple[int, ...]]] = {
    # name: round, what client 1 sends instead of its answer, error, culprits
    "a message of another session": (
        Round.ADVERTISE_KEYS, lambda _, m: changed(m, session=b"?" * 16), AgreementError, (1,),
    ),
    "a client that was not invited": (
        Round.ADVERTISE_KEYS, lambda _, m: changed(m, sender=STRANGER), UnknownClientError, (STRANGER,),
    ),
    "a message of a later round": (
        Round.ADVERTISE_KEYS, lambda _, m: messages.encode(MaskedInput(m[4:20], 1, bytes(16), b"")),
        UnexpectedMessageError, (),
    ),
    "a message that only servers send": (
        Round.ADVERTISE_KEYS, lambda _, m: messages.encode(Roster(m[4:20], ())), UnexpectedMessageError, (),
    ),
    "one key for both purposes": (
        Round.ADVERTISE_KEYS, lambda _, m: changed(m, transport_key=key_of(m)), KeyAgreementError, (1,),
    ),
    "the key of another client": (
        Round.ADVERTISE_KEYS, lambda game, m: changed(m, masking_key=key_of(delivered(game, 2))),
        KeyAgreementError, (1,),
    ),
    "the key of another client, spelled otherwise": (
        Round.ADVERTISE_KEYS, lambda game, m: changed(m, masking_key=top_bit_set(key_of(delivered(game, 2)))),
        KeyAgreementError, (1,),
    ),
    "other parameters": (Round.SHARE_KEYS, lambda _, m: changed(m, params=bytes(32)), AgreementError, (1,)),
    "another layout": (Round.SHARE_KEYS, lambda _, m: changed(m, layout=bytes(32)), AgreementError, (1,)),
    "another transcript": (Round.SHARE_KEYS, lambda _, m: changed(m, transcript=bytes(32)), AgreementError, (1,)),
    "a sender that is not on the roster": (
        Round.SHARE_KEYS, lambda _, m: changed(m, sender=STRANGER), UnknownClientError, (STRANGER,),
    ),
    "no share for one neighbour": (Round.SHARE_KEYS, lambda _, m: without(m, "shares", 0), ShareError, (1,)),
    "two shares for one neighbour": (Round.SHARE_KEYS, lambda _, m: twice(m, "shares"), ShareError, (1,)),
    "shares out of order": (Round.SHARE_KEYS, lambda _, m: swapped(m, "shares"), ShareError, (1,)),
    "a share for a stranger": (
        Round.SHARE_KEYS, lambda _, m: part(m, "shares", 0, holder=STRANGER), ShareError, (1,),
    ),
    "a share in the name of another dealer": (
        Round.SHARE_KEYS, lambda _, m: part(m, "shares", 0, dealer=4), ShareError, (1,),
    ),
    "a public weight where none belongs": (
        Round.SHARE_KEYS, lambda _, m: changed(m, weight_bucket=3), UnexpectedMessageError, (1,),
    ),
    "a declaration of too many bytes": (
        Round.SHARE_KEYS, lambda _, m: changed(m, declaration=Declaration("bitmap", bytes(2))), DecodingError, (1,),
    ),
    "a declaration with a padding bit": (
        Round.SHARE_KEYS, lambda _, m: changed(m, declaration=Declaration("layers", b"\xff")), DecodingError, (1,),
    ),
    "a full declaration that carries data": (
        Round.SHARE_KEYS, lambda _, m: changed(m, declaration=Declaration("full", b"\0")), DecodingError, (1,),
    ),
    "a sparse declaration without a head": (
        Round.SHARE_KEYS, lambda _, m: changed(m, declaration=Declaration("sparse", b"\0")), DecodingError, (1,),
    ),
    "a sparse declaration where a bitmap is shorter": (
        Round.SHARE_KEYS, lambda _, m: changed(m, declaration=Declaration("sparse", b"\x80" + bytes(7))),
        DecodingError, (1,),
    ),
    "a vector that is too short": (
        Round.MASKED_INPUT, lambda _, m: changed(m, vector=bytes(18)), DecodingError, (1,),
    ),
    "a vector that is too long": (
        Round.MASKED_INPUT, lambda _, m: changed(m, vector=bytes(24)), DecodingError, (1,),
    ),
    "a vector of no bytes": (Round.MASKED_INPUT, lambda _, m: changed(m, vector=b""), DecodingError, (1,)),
    "an answer that lacks a share": (Round.UNMASK, lambda _, m: without(m, "shares", 1), ShareError, (1,)),
    "an answer that lacks its own share": (Round.UNMASK, lambda _, m: without(m, "shares", 0), ShareError, (1,)),
    "an answer with a share twice": (Round.UNMASK, lambda _, m: twice(m, "shares"), DecodingError, ()),
    "an answer with shares out of order": (Round.UNMASK, lambda _, m: swapped(m, "shares"), DecodingError, ()),
    "an answer with a share of a stranger": (
        Round.UNMASK, lambda _, m: part(m, "shares", 4, dealer=STRANGER), ShareError, (1,),
    ),
    "an altered share": (
        Round.UNMASK, lambda _, m: part(m, "shares", 1, share=bytes(33)), ShareError, (1,),
    ),
    "a share that is no field element": (
        Round.UNMASK, lambda _, m: part(m, "shares", 1, share=b"\xff" * 33), DecodingError, (1,),
    ),
    "an altered salt": (Round.UNMASK, lambda _, m: part(m, "shares", 1, salt=bytes(16)), ShareError, (1,)),
}  # fmt: skip


def delivered(game: Play, id_: int) -> bytes:
    """The answer of a client, after the server has taken it."""
    game.deliver([id_])
    return game.sent[game.server.round][id_]


def top_bit_set(key: bytes) -> bytes:
    return key[:-1] + bytes([key[-1] | 0x80])


@pytest.mark.parametrize("name", TO_SERVER)
def test_the_server_refuses(name: str) -> None:
    round_, bad, error, culprits = TO_SERVER[name]
    game = five_clients().until(round_)
    refused_by_server(game, bad(game, game.answer(1)), error, culprits)
    assert game.finish().integers.tolist() == expected_of_five()


@pytest.mark.parametrize("round_", [Round.ADVERTISE_KEYS, Round.SHARE_KEYS, Round.MASKED_INPUT, Round.UNMASK])
def test_the_server_refuses_a_message_in_anothers_name_and_blames_whose_connection_it_is(round_: Round) -> None:
    game = five_clients().until(round_)
    own = game.answer(1)
    refused_by_server(game, own, UnknownClientError, (2,), sender=2)
    assert game.server.receive(own, 1) == 1
    assert game.finish().integers.tolist() == expected_of_five()


@pytest.mark.parametrize("key", LOW_ORDER.values(), ids=LOW_ORDER)
def test_the_server_refuses_the_low_order_key(key: str) -> None:
    game = five_clients()
    answer = game.answer(1)
    refused_by_server(game, changed(answer, masking_key=bytes.fromhex(key)), KeyAgreementError, (1,))
    refused_by_server(game, changed(answer, transport_key=bytes.fromhex(key)), KeyAgreementError, (1,))
    assert game.finish().integers.tolist() == expected_of_five()


def test_the_server_refuses_every_malformed_message_in_every_round() -> None:
    game = five_clients()
    for round_ in (Round.ADVERTISE_KEYS, Round.SHARE_KEYS, Round.MASKED_INPUT, Round.UNMASK):
        answer = game.until(round_).answer(1)
        for malform in [*MALFORMED.values(), sender_respelled]:
            refused_by_server(game, malform(answer), DecodingError)
    assert game.finish().integers.tolist() == expected_of_five()


def test_the_server_refuses_a_second_message_of_a_client_in_every_round() -> None:
    game = five_clients()
    for round_ in (Round.ADVERTISE_KEYS, Round.SHARE_KEYS, Round.MASKED_INPUT, Round.UNMASK):
        refused_by_server(game, delivered(game.until(round_), 1), DuplicateMessageError, (1,))
    assert game.finish().integers.tolist() == expected_of_five()


def test_the_server_refuses_a_message_of_a_round_that_is_closed() -> None:
    game = five_clients()
    late = []
    for round_ in (Round.ADVERTISE_KEYS, Round.SHARE_KEYS, Round.MASKED_INPUT, Round.UNMASK):
        late.append(game.until(round_).answer(1))
        for message in late[:-1]:
            refused_by_server(game, message, UnexpectedMessageError)
    assert game.finish().integers.tolist() == expected_of_five()
    for message in late:
        refused_by_server(game, message, UnexpectedMessageError)
    with pytest.raises(LocalProtocolError):
        game.server.close_round()
    assert game.server.outcome.integers.tolist() == expected_of_five()


@pytest.mark.parametrize("last", [Round.ADVERTISE_KEYS, Round.SHARE_KEYS, Round.MASKED_INPUT])
def test_the_server_refuses_clients_that_missed_a_round(last: Round) -> None:
    game = five_clients().until(last)
    if last is Round.MASKED_INPUT:  # client 2 has shared its keys, and then its vector comes too late
        vector = game.answer(2)
        game.deliver([1, 4, 8, 9])
        game.close()
        refused_by_server(game, vector, UnexpectedMessageError)
        refused_by_server(game, changed(game.answer(1), sender=2), UnknownClientError, (2,))
    else:
        game.deliver([1, 4, 8, 9])
        game.close()
        refused_by_server(game, changed(game.answer(1), sender=2), UnknownClientError, (2,))
    assert game.finish().integers.tolist() == expected_of_five([1, 4, 8, 9])


def test_a_round_that_is_closed_too_early_can_be_closed_again() -> None:
    game = five_clients()
    for round_, few in ((Round.ADVERTISE_KEYS, [1]), (Round.SHARE_KEYS, [1]), (Round.MASKED_INPUT, [1, 2, 4])):
        game.until(round_).deliver(few)
        for _ in range(2):
            with pytest.raises(TooFewClientsError):
                game.close()
            assert game.server.round is round_
            assert game.server.answered == tuple(few)
    game.until(Round.UNMASK).deliver([1, 2])
    for _ in range(2):
        with pytest.raises(TooFewClientsError):
            game.close()
        with pytest.raises(LocalProtocolError):
            _ = game.server.outcome
    assert game.finish().integers.tolist() == expected_of_five()


def test_a_share_that_rebuilds_another_secret_names_its_dealer() -> None:
    """A dealer's own share carries no commitment, so that a wrong one is noticed only when it is used."""
    game = five_clients().until(Round.UNMASK)
    own = part(game.answer(1), "shares", 0, share=bytes(33))
    game.server.receive(own)
    game.deliver([2, 4])
    with pytest.raises(ShareError) as raised:
        game.close()
    assert raised.value.culprits == (1,)
    with pytest.raises(LocalProtocolError):
        _ = game.server.outcome
    game.deliver([8])  # with another holder's share nobody needs the dealer's own
    assert game.finish().integers.tolist() == expected_of_five()


@pytest.mark.parametrize(
    "other",
    [
        {"params": Params(min_cohort=2)},
        {"layout": Layout((Tensor("v", (8,)),))},
        {"model_root": b"another model".zfill(32)},
    ],
    ids=["params", "layout", "model root"],
)
def test_the_server_refuses_a_client_that_holds_another_session(other: dict[str, Any]) -> None:
    game = five_clients()
    genuine = game.clients[1]
    settings = {name: getattr(genuine.session, name) for name in genuine.session.__dataclass_fields__}
    game.clients[1] = Client(1, Session(**(settings | other)), entropy=SeededEntropy(b"other"))
    refused_by_server(game.until(Round.SHARE_KEYS), game.answer(1), AgreementError, (1,))
    game.deliver([2, 4, 8, 9])
    game.close()
    assert game.finish().integers.tolist() == expected_of_five([2, 4, 8, 9])


@pytest.mark.parametrize("fields", [{"declaration": Declaration("layers", b"\x00")}, {"weight_bucket": 1}])
def test_the_server_of_a_uniform_session_refuses_declarations_and_weights(fields: dict[str, Any]) -> None:
    game = five_clients("uniform").until(Round.SHARE_KEYS)
    refused_by_server(game, changed(game.answer(1), **fields), UnexpectedMessageError, (1,))
    assert game.finish().integers.tolist() == expected_of_five(mode="uniform")


def test_the_server_does_not_ask_survivors_who_may_fall_apart_in_the_masking_graph() -> None:
    """Twelve clients on a ring, of whom four are lost, two on either side of a part: few enough for all other rules."""
    params = Params(adversary="active", min_cohort=4, corrupt=2, max_dropouts=4, neighbours=6, share_threshold=5)
    session = Session(id=bytes(16), params=params, layout=Layout((Tensor("w", (1,)),)), mode="uniform")
    game = Play(session, {id_: Contribution({"w": np.ones(1)}) for id_ in range(12)}).until(Round.MASKED_INPUT)
    ring = game.server._graph.order
    gone = {ring[place] for place in (-4, -3, 3, 4)}
    game.deliver(id_ for id_ in game.clients if id_ not in gone)
    assert len(game.server.answered) == game.server._plan.fewest_survivors
    for _ in range(2):
        with pytest.raises(TooFewClientsError, match="may fall apart in the masking graph: wait"):
            game.close()
    game.deliver(gone)
    assert len(game.finish().survivors) == 12


def test_the_server_refuses_a_missing_public_weight() -> None:
    game = five_clients(weights=dict.fromkeys(HELD, 0.5), weighting="public").until(Round.SHARE_KEYS)
    refused_by_server(game, changed(game.answer(1), weight_bucket=None), UnexpectedMessageError, (1,))
    assert game.finish().weight.max() > 0


# What a client refuses.

TO_CLIENT: dict[str, tuple[Round, Bad, type[SecAggError], tuple[object, ...]]] = {
    # name: round, what client 2 receives instead of the server's message, error, culprits
    "a roster of another session": (
        Round.SHARE_KEYS, lambda _, m: changed(m, session=b"?" * 16), AgreementError, (SERVER,),
    ),
    "another message than a roster": (
        Round.SHARE_KEYS, lambda _, m: messages.encode(UnmaskRequest(m[9:25], b"\xf8")),
        UnexpectedMessageError, (SERVER,),
    ),
    "a roster without itself": (Round.SHARE_KEYS, lambda _, m: without(m, "members", 1), UnknownClientError, (SERVER,)),
    "a roster with another masking key for it": (
        Round.SHARE_KEYS, lambda _, m: part(m, "members", 1, masking_key=KeyPair(b"?" * 32).public),
        UnknownClientError, (SERVER,),
    ),
    "a roster with another transport key for it": (
        Round.SHARE_KEYS, lambda _, m: part(m, "members", 1, transport_key=KeyPair(b"?" * 32).public),
        UnknownClientError, (SERVER,),
    ),
    "a roster out of order": (Round.SHARE_KEYS, lambda _, m: swapped(m, "members"), UnexpectedMessageError, (SERVER,)),
    "a roster with a client twice": (
        Round.SHARE_KEYS, lambda _, m: twice(m, "members"), UnexpectedMessageError, (SERVER,),
    ),
    "a roster that reflects its own key": (
        Round.SHARE_KEYS, lambda game, m: with_key(m, masking_key=key_of(game.sent[Round.ADVERTISE_KEYS][2])),
        KeyAgreementError, (SERVER,),
    ),
    "a roster that reflects its own key, spelled otherwise": (
        Round.SHARE_KEYS,
        lambda game, m: with_key(m, masking_key=top_bit_set(key_of(game.sent[Round.ADVERTISE_KEYS][2]))),
        KeyAgreementError, (SERVER,),
    ),
    "a roster with a transport key spelled otherwise": (
        Round.SHARE_KEYS,
        lambda _, m: with_key(m, transport_key=top_bit_set(members(m)[3].transport_key)),
        KeyAgreementError, (SERVER,),
    ),
    "a roster in which two clients share a key": (
        Round.SHARE_KEYS, lambda game, m: with_key(m, transport_key=key_of(game.sent[Round.ADVERTISE_KEYS][4])),
        KeyAgreementError, (SERVER,),
    ),
    "a roster of fewer clients than min_cohort": (
        Round.SHARE_KEYS, lambda _, m: changed(m, members=members(m)[1:2]), TooFewClientsError, (),
    ),
    "its declaration altered": (
        Round.MASKED_INPUT, lambda _, m: part(m, "participants", 1, declaration=FULL), AgreementError, (SERVER,),
    ),
    "itself left out of the participants": (
        Round.MASKED_INPUT, lambda _, m: without(m, "participants", 1), AgreementError, (SERVER,),
    ),
    "participants out of order": (
        Round.MASKED_INPUT, lambda _, m: swapped(m, "participants"), UnexpectedMessageError, (SERVER,),
    ),
    "a participant twice": (
        Round.MASKED_INPUT, lambda _, m: twice(m, "participants"), UnexpectedMessageError, (SERVER,),
    ),
    "a participant that advertised no keys": (
        Round.MASKED_INPUT,
        lambda _, m: changed(m, participants=(*participants(m), Participant(STRANGER, FULL, None))),
        UnknownClientError, (SERVER,),
    ),
    "a participant whose declaration is malformed": (
        Round.MASKED_INPUT, lambda _, m: part(m, "participants", 0, declaration=Declaration("bitmap", b"")),
        DecodingError, (SERVER,),
    ),
    "too few participants": (
        Round.MASKED_INPUT,
        lambda _, m: changed(m, participants=participants(m)[:2], shares=boxes(m)[:1]),
        TooFewClientsError, (),
    ),
    "a share that does not open": (
        Round.MASKED_INPUT, lambda _, m: part(m, "shares", 2, box=flip(boxes(m)[2].box)), ShareError, (8,),
    ),
    "a share that was sealed for somebody else": (
        Round.MASKED_INPUT, lambda game, m: part(m, "shares", 2, box=boxes(game.inbox[1])[2].box), ShareError, (8,),
    ),
    "a share that contradicts its commitment": (
        Round.MASKED_INPUT, lambda _, m: part(m, "shares", 0, self_seed_commitment=bytes(32)), ShareError, (1,),
    ),
    "a share of a key that contradicts its commitment": (
        Round.MASKED_INPUT, lambda _, m: part(m, "shares", 3, masking_key_commitment=bytes(32)), ShareError, (9,),
    ),
    "no share of one neighbour": (Round.MASKED_INPUT, lambda _, m: without(m, "shares", 0), ShareError, (SERVER,)),
    "a share twice": (Round.MASKED_INPUT, lambda _, m: twice(m, "shares"), ShareError, (SERVER,)),
    "shares out of order": (Round.MASKED_INPUT, lambda _, m: swapped(m, "shares"), ShareError, (SERVER,)),
    "shares of another session": (
        Round.MASKED_INPUT, lambda _, m: changed(m, session=b"?" * 16), AgreementError, (SERVER,),
    ),
    "a survivor list that is too long": (
        Round.UNMASK, lambda _, m: changed(m, survivors=b"\xf8\x00"), DecodingError, (SERVER,),
    ),
    "an empty survivor list": (Round.UNMASK, lambda _, m: changed(m, survivors=b""), DecodingError, (SERVER,)),
    "a survivor list with a padding bit": (
        Round.UNMASK, lambda _, m: changed(m, survivors=b"\xf9"), DecodingError, (SERVER,),
    ),
    "a survivor list without itself": (
        Round.UNMASK, lambda _, m: changed(m, survivors=b"\xb8"), UnmaskRefusedError, (SERVER,),
    ),
    "more dropouts than it agreed to": (
        Round.UNMASK, lambda _, m: changed(m, survivors=b"\xe0"), UnmaskRefusedError, (SERVER,),
    ),
    "nobody else as survivor": (
        Round.UNMASK, lambda _, m: changed(m, survivors=b"\x40"), UnmaskRefusedError, (SERVER,),
    ),
    "a request of another session": (
        Round.UNMASK, lambda _, m: changed(m, session=b"?" * 16), AgreementError, (SERVER,),
    ),
}  # fmt: skip


def members(roster: bytes) -> tuple[Member, ...]:
    message = messages.decode(roster)
    assert isinstance(message, Roster)
    return message.members


def participants(relayed: bytes) -> tuple[Participant, ...]:
    message = messages.decode(relayed)
    assert isinstance(message, RelayedShares)
    return message.participants


def boxes(relayed: bytes) -> tuple[SealedShares, ...]:
    message = messages.decode(relayed)
    assert isinstance(message, RelayedShares)
    return message.shares


@pytest.mark.parametrize("name", TO_CLIENT)
def test_a_client_refuses(name: str) -> None:
    round_, bad, error, culprits = TO_CLIENT[name]
    game = five_clients().until(round_)
    refused_by_client(game, bad(game, game.inbox[2]), error, culprits)
    assert game.finish().integers.tolist() == expected_of_five()


@pytest.mark.parametrize("key", LOW_ORDER.values(), ids=LOW_ORDER)
def test_a_client_refuses_the_low_order_key_of_a_peer(key: str) -> None:
    game = five_clients().until(Round.SHARE_KEYS)
    for name in ("masking_key", "transport_key"):
        refused_by_client(game, with_key(game.inbox[2], **{name: bytes.fromhex(key)}), KeyAgreementError)
    assert game.finish().integers.tolist() == expected_of_five()


def test_a_client_refuses_every_malformed_message_in_every_round() -> None:
    game = five_clients()
    for round_ in (Round.SHARE_KEYS, Round.MASKED_INPUT, Round.UNMASK):
        received = game.until(round_).inbox[2]
        for malform in MALFORMED.values():
            refused_by_client(game, malform(received) or b"\x00", DecodingError)
    assert game.finish().integers.tolist() == expected_of_five()


@pytest.mark.parametrize("fields", [{"declaration": Declaration("layers", b"\x80")}, {"weight_bucket": 1}])
def test_a_client_of_a_uniform_session_refuses_declarations_and_weights(fields: dict[str, Any]) -> None:
    game = five_clients("uniform").until(Round.MASKED_INPUT)
    bad = part(game.inbox[2], "participants", 3, **fields)
    refused_by_client(game, bad, UnexpectedMessageError)
    assert game.finish().integers.tolist() == expected_of_five(mode="uniform")


def test_a_client_refuses_survivors_who_leave_a_coordinate_to_too_few_even_where_their_number_would_do() -> None:
    """The second guard alone: the count of survivors is made to pass."""
    game = five_clients().until(Round.UNMASK)
    state = game.clients[2]._state
    assert isinstance(state, Masked)
    honest, state.plan.fewest_survivors = state.plan.fewest_survivors, 0
    refused_by_client(game, changed(game.inbox[2], survivors=b"\x40"), UnmaskRefusedError)
    state.plan.fewest_survivors = honest
    assert game.finish().integers.tolist() == expected_of_five()


def test_a_client_refuses_survivors_who_leave_a_weight_slot_to_too_few() -> None:
    shared = {id_: np.array(HELD[1 if id_ < 8 else 4], bool) for id_ in HELD}  # groups {1, 2, 4} and {8, 9}
    params = Params(min_cohort=2, max_dropouts=0)
    session = Session(
        id=bytes(16), params=params, layout=Layout((Tensor("w", (8,)),)), mode="mask-indexed", weighted=True
    )
    brought = {id_: Contribution({"w": VALUES / id_}, shared[id_], 0.5) for id_ in HELD}
    game = Play(session, brought).until(Round.UNMASK)
    state = game.clients[2]._state
    assert isinstance(state, Masked)
    state.plan.fewest_survivors = 0
    refused_by_client(game, changed(game.inbox[2], survivors=b"\xf0"), UnmaskRefusedError)  # 9 is missing
    assert game.finish().integers[-2:].tolist() == [3 * round(params.magnitude / 2), 2 * round(params.magnitude / 2)]


def test_a_client_refuses_survivors_who_fall_apart_in_the_masking_graph() -> None:
    params = Params(min_cohort=2, neighbours=4, max_dropouts=1)
    session = Session(id=bytes(16), params=params, layout=Layout((Tensor("w", (1,)),)), mode="uniform")
    game = Play(session, {id_: Contribution({"w": np.ones(1)}) for id_ in range(8)}).until(Round.UNMASK)
    state = game.clients[2]._state
    assert isinstance(state, Masked)
    order = state.graph.order
    place = order.index(2)
    gone = {order[(place + step) % 8] for step in (2, 3, 6, 7)}  # two gaps, each as wide as the ring reaches
    alive = set(range(8)) - gone
    honest, state.plan.fewest_survivors = state.plan.fewest_survivors, 0
    bad = changed(game.inbox[2], survivors=messages.write_bitmap(alive, range(8)))
    refused_by_client(game, bad, UnmaskRefusedError)
    state.plan.fewest_survivors = honest
    assert game.finish().integers.tolist() == [8 * round(params.magnitude / 4)]


# What a client refuses to send.

UPDATES: dict[str, tuple[dict[str, Any], type[InputError]]] = {
    "NaN": ({"w": [np.nan] + [0.0] * 7}, NotFiniteError),
    "infinity": ({"w": [0.0, -np.inf] + [0.0] * 6}, NotFiniteError),
    "a value above the range": ({"w": [4.0625123] + [0.0] * 7}, OutOfRangeError),
    "a value below the range": ({"w": [0.0, -4.0625123] + [0.0] * 6}, OutOfRangeError),
    "another shape": ({"w": [[0.0] * 8]}, LayoutMismatchError),
    "too few values": ({"w": [0.0] * 7}, LayoutMismatchError),
    "another name": ({"v": [0.0] * 8}, LayoutMismatchError),
    "one tensor too many": ({"w": [0.0] * 8, "v": [0.0]}, LayoutMismatchError),
    "nothing": ({}, LayoutMismatchError),
}


@pytest.mark.parametrize("name", UPDATES)
def test_a_client_does_not_send_an_update_of(name: str) -> None:
    update, error = UPDATES[name]
    game = five_clients().until(Round.MASKED_INPUT)
    client, before = game.clients[2], game.clients[2]._state
    with pytest.raises(SecAggError) as raised:
        client.masked_input(game.inbox[2], {key: np.array(value) for key, value in update.items()})
    assert type(raised.value) is error
    assert "0625" not in str(raised.value)
    assert client._state is before
    assert game.finish().integers.tolist() == expected_of_five()


@pytest.mark.parametrize(
    ("weight", "error"),
    [
        (1.0000123, WeightError),
        (0.0, WeightError),
        (-0.1000123, WeightError),
        (np.nan, WeightError),
        (np.inf, WeightError),
        (1.000123e-9, WeightError),
        (None, ParameterError),
    ],
)
@pytest.mark.parametrize("weighting", ["hidden", "public", "average"])
def test_a_client_does_not_bring_a_weight_of(weight: float | None, error: type[SecAggError], weighting: str) -> None:
    game = five_clients(weights=dict.fromkeys(HELD, 0.5), weighting=weighting, max_dropouts=0)
    game.until(Round.SHARE_KEYS)
    client, before = game.clients[2], game.clients[2]._state
    with pytest.raises(SecAggError) as raised:
        client.share_keys(game.inbox[2], None, weight)
    assert type(raised.value) is error
    assert "000123" not in str(raised.value)
    assert client._state is before
    assert messages.decode(game.answer(2))


def test_a_client_brings_no_weight_into_a_session_without_weights() -> None:
    game = five_clients().until(Round.SHARE_KEYS)
    with pytest.raises(ParameterError):
        game.clients[2].share_keys(game.inbox[2], None, 0.5)
    assert game.finish().integers.tolist() == expected_of_five()


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        (np.ones(7, bool), LayoutMismatchError),
        (np.ones((1, 8), bool), LayoutMismatchError),
        (np.ones(8, np.int64), LayoutMismatchError),
        (Declaration("bitmap", bytes(2)), DecodingError),
        (Declaration("full", bytes(1)), DecodingError),
    ],
)
def test_a_client_does_not_declare_a_mask_that_does_not_fit(mask: Any, error: type[SecAggError]) -> None:
    game = five_clients().until(Round.SHARE_KEYS)
    with pytest.raises(SecAggError) as raised:
        game.clients[2].share_keys(game.inbox[2], mask)
    assert type(raised.value) is error
    assert game.finish().integers.tolist() == expected_of_five()


def test_a_client_does_not_bring_a_mask_into_a_uniform_session_that_was_not_counted() -> None:
    game = five_clients("uniform").until(Round.SHARE_KEYS)
    with pytest.raises(LayoutMismatchError):
        game.clients[2].share_keys(game.inbox[2], np.array(HELD[2], bool))
    assert game.finish().integers.tolist() == expected_of_five(mode="uniform")


@pytest.mark.parametrize("id_", [-1, 2**63, 2**64, "7", 7.0, None])
def test_a_client_has_an_id_that_can_travel(id_: Any) -> None:
    session = five_clients().server.session
    with pytest.raises(ParameterError, match="id must be an integer from 0 to 2"):
        Client(id_, session)
    assert messages.decode(Client(2**63 - 1, session).advertise_keys())


# Methods out of turn.

STEPS = ("advertise_keys", "share_keys", "masked_input", "unmask")


def test_a_client_refuses_every_step_that_is_out_of_turn_and_answers_each_round_once() -> None:
    game = five_clients()

    def call(step: str) -> bytes:
        client, received = game.clients[2], game.inbox[2]
        arguments: dict[str, tuple[Any, ...]] = {
            "advertise_keys": (),
            "share_keys": (received, game.contributions[2].mask),
            "masked_input": (received, game.contributions[2].update),
            "unmask": (received,),
        }
        answer: bytes = getattr(client, step)(*arguments[step])
        return answer

    for turn, round_ in enumerate((Round.ADVERTISE_KEYS, Round.SHARE_KEYS, Round.MASKED_INPUT, Round.UNMASK)):
        game.until(round_)
        for step in STEPS[:turn] + STEPS[turn + 1 :]:
            with pytest.raises(LocalProtocolError):
                call(step)
        game.deliver([2])
        for step in STEPS:  # the turn has passed, the next has not come
            if step != STEPS[min(turn + 1, 3)] or turn == 3:
                with pytest.raises(LocalProtocolError):
                    call(step)
    assert game.finish().integers.tolist() == expected_of_five()


def test_there_is_no_outcome_before_the_end() -> None:
    game = five_clients()
    for round_ in (Round.ADVERTISE_KEYS, Round.SHARE_KEYS, Round.MASKED_INPUT, Round.UNMASK):
        with pytest.raises(LocalProtocolError):
            _ = game.until(round_).server.outcome
    assert game.finish() is game.server.outcome


# Any bytes at all.


def genuine_messages() -> list[bytes]:
    game = five_clients()
    game.finish()
    sent = [message for round_ in game.sent.values() for message in list(round_.values())[:1]]
    game = five_clients()
    return sent + [game.until(r).inbox[2] for r in (Round.SHARE_KEYS, Round.MASKED_INPUT, Round.UNMASK)]


GENUINE = genuine_messages()


@given(
    message=st.sampled_from(GENUINE),
    edits=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=4),
)
def test_altered_bytes_are_malformed_or_the_one_spelling_of_what_they_say(
    message: bytes, edits: list[tuple[int, bytes, int]]
) -> None:
    for place, inserted, removed in edits:
        message = message[:place] + inserted + message[place + removed :]
    try:
        decoded = messages.decode(message)
    except DecodingError:
        return
    assert messages.encode(decoded) == message


# Secrets.


def bytes_within(root: object) -> set[bytes]:
    """Every byte string that can be reached from an object, not counting code and modules."""
    found, seen, left = set(), {id(root)}, [root]
    while left:
        value = left.pop()
        if isinstance(value, bytes):
            found.add(value)
        for inner in gc.get_referents(value):
            if id(inner) not in seen and not isinstance(inner, (type, types.ModuleType, types.FunctionType)):
                seen.add(id(inner))
                left.append(inner)
    return found


def secrets_of(client: Client) -> dict[str, bytes]:
    """The secrets of a client that has shared its keys."""
    state = client._state
    assert isinstance(state, Shared)
    agreed = {f"agreed with {peer}": secret for peer, secret in state.agreed.items()}
    sealing = {f"sealing for {peer}": secret for peer, secret in state.sealing.items()}
    return agreed | sealing | {"self seed": state.self_seed}


def test_secrets_leave_a_client_with_the_round_that_needed_them() -> None:
    game = five_clients().until(Round.SHARE_KEYS)
    client = game.clients[2]
    private = {client._state.masking.seed, client._state.transport.seed}  # type: ignore[union-attr]
    assert private <= bytes_within(client)
    game.until(Round.MASKED_INPUT)
    assert not private & bytes_within(client)
    secrets = set(secrets_of(client).values())
    assert len(secrets) == 9
    assert secrets <= bytes_within(client)
    game.until(Round.UNMASK)
    assert not secrets & bytes_within(client)
    state = client._state
    assert isinstance(state, Masked)
    shares = {state.own_share.share} | {
        share for held in state.held.values() for share in (held.self_seed.share, held.masking_key.share)
    }
    assert len(shares) == 9
    assert shares <= bytes_within(client)
    game.finish()
    assert not (secrets | shares) & bytes_within(client)


def spellings(secret: bytes) -> Iterator[str]:
    """How a secret might read in a text; eight bytes of it are enough to give it away."""
    for start in range(0, len(secret) - 8, 4):
        piece = secret[start : start + 8]
        yield from (piece.hex(), repr(piece)[2:-1], str(int.from_bytes(piece, "big")))


def test_nothing_that_holds_a_secret_shows_it() -> None:
    game = five_clients()
    shown: list[str] = []
    secrets: set[bytes] = set()
    for round_ in (Round.SHARE_KEYS, Round.MASKED_INPUT, Round.UNMASK, Round.DONE):
        game.until(round_)
        client = game.clients[2]
        state = client._state
        shown += [repr(client), repr(state), str(state), repr(game.server), repr(vars(client)["_entropy"])]
        if isinstance(state, Shared):
            secrets |= set(secrets_of(client).values()) | {state.own_share.share, state.own_share.salt}
            shown += [repr(state.own_share)]
        if isinstance(state, Masked):
            revealed = [share for held in state.held.values() for share in (held.self_seed, held.masking_key)]
            secrets |= {secret for share in revealed for secret in (share.share, share.salt)}
            shown += [repr(held) for held in state.held.values()] + [repr(share) for share in revealed]
            shown += [repr(messages.decode(game.answer(2))), repr(snapshot.decode(game.server.save()))]
    key = bytes(range(100, 116))
    secrets.add(key)
    shown += [repr(MaskKey(1, key)), repr(Stream(key, Ring(32))), repr(KeyPair(key * 2))]
    text = "\n".join(shown)
    assert len(secrets) == 9 + 2 + 16 + 1
    assert "Shared" in text
    assert "Masked" in text
    for secret in secrets:
        for spelled in spellings(secret):
            assert spelled not in text


def test_a_server_shows_no_answers() -> None:
    game = five_clients().until(Round.UNMASK)
    game.deliver()
    answer = messages.decode(game.sent[Round.UNMASK][1])
    assert isinstance(answer, Unmask)
    text = repr(game.server)
    for revealed in answer.shares:
        assert revealed.share.hex() not in text
        assert repr(revealed.share) not in text
