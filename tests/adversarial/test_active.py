"""An active server, and clients that sign: every lie about what others said is named, and changes nothing.

Each case hands one false message to a session of five clients with pinned identities. The refusal must be the named
one; then the session is played to its end with the right messages, and its sum must be right to the last bit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import pytest
from msgspec import structs

from secagg import dealing, messages, transcript
from secagg.client import Client
from secagg.declaration import FULL
from secagg.errors import (
    SERVER,
    DecodingError,
    DifferencingError,
    LocalProtocolError,
    ParameterError,
    SecAggError,
    ShareError,
    SignatureError,
    TooFewClientsError,
    UnexpectedMessageError,
    UnknownClientError,
    UnmaskRefusedError,
)
from secagg.identity import Identity
from secagg.keys import KeyPair
from secagg.ledger import Ledger
from secagg.messages import (
    ConsistencyRequest,
    Endorsement,
    MaskedInput,
    Member,
    RelayedShares,
    Roster,
    ShareKeys,
    UnmaskRequest,
)
from secagg.params import Adversary
from secagg.rounds import ROUNDS, Round
from secagg.server import Server
from secagg.states import Agreed, HeldShares, Masked
from tests.adversarial.play import (
    HELD,
    Play,
    expected_of_five,
    five_clients,
    refused_by_client,
    refused_by_server,
)
from tests.adversarial.tamper import changed, flip, part, swapped, without

if TYPE_CHECKING:
    from collections.abc import Callable

    Bad = Callable[[Play, bytes], bytes]


def active(**settings: Any) -> Play:
    """Five clients that trust each other's identities and not the server."""
    return five_clients(adversary="active", **settings)


def signed_by(game: Play, id_: int, statement: bytes) -> bytes:
    return game.identities[id_].sign(statement)


def signatures(data: bytes) -> tuple[bytes, ...]:
    message = messages.decode(data)
    assert isinstance(message, Roster | RelayedShares | ConsistencyRequest)
    return message.signatures


def with_signature(data: bytes, place: int, signature: bytes) -> bytes:
    """A relayed list of signatures with one of them replaced."""
    given = list(signatures(data))
    given[place] = signature
    return changed(data, signatures=tuple(given))


def members(data: bytes) -> tuple[Member, ...]:
    message = messages.decode(data)
    assert isinstance(message, Roster)
    return message.members


STRANGER = Member(77, KeyPair(bytes(32)).public, KeyPair(b"2" * 32).public)


def quorum(data: bytes) -> tuple[Endorsement, ...]:
    message = messages.decode(data)
    assert isinstance(message, UnmaskRequest)
    return message.quorum


TO_SERVER: dict[str, tuple[Round, Bad, type[SecAggError]]] = {
    # name: round, what client 1 sends instead of its answer, error
    "keys without a signature": (Round.ADVERTISE_KEYS, lambda _, m: changed(m, signature=None), SignatureError),
    "keys that it did not sign": (
        Round.ADVERTISE_KEYS, lambda _, m: changed(m, masking_key=KeyPair(bytes(32)).public), SignatureError,
    ),
    "shares without a signature": (Round.SHARE_KEYS, lambda _, m: changed(m, signature=None), SignatureError),
    "a signature of another client": (
        Round.SHARE_KEYS, lambda game, m: changed(m, signature=signature_of(game.answer(2))), SignatureError,
    ),
    "a declaration that it did not sign": (Round.SHARE_KEYS, lambda _, m: changed(m, declaration=FULL), SignatureError),
    "a sealed share that it did not sign": (
        Round.SHARE_KEYS, lambda _, m: part(m, "shares", 2, box=bytes(114)), SignatureError,
    ),
    "a sealed share without a signature": (
        Round.SHARE_KEYS, lambda _, m: part(m, "shares", 2, signature=None), SignatureError,
    ),
    "a vector without a signature": (Round.MASKED_INPUT, lambda _, m: changed(m, signature=None), SignatureError),
    "a vector under another transcript": (
        Round.MASKED_INPUT,
        lambda game, m: changed(m, signature=signed_by(game, 1, transcript.says_second(bytes(32), 1))),
        SignatureError,
    ),
    "agreement to other survivors": (
        Round.CONSISTENCY_CHECK,
        lambda game, m: changed(m, signature=signed_by(game, 1, transcript.says_survivors(h2(game), b"\xf0", 1))),
        SignatureError,
    ),
    "an unmask answer before the check": (
        Round.CONSISTENCY_CHECK, lambda _, m: messages.encode(messages.Unmask(session_of(m), 1, ())),
        UnexpectedMessageError,
    ),
}  # fmt: skip


def session_of(data: bytes) -> bytes:
    return messages.decode(data).session


def signature_of(data: bytes) -> bytes:
    message = messages.decode(data)
    assert isinstance(message, ShareKeys | MaskedInput)
    assert message.signature is not None
    return message.signature


def h2(game: Play) -> bytes:
    return game.server._h2


@pytest.mark.parametrize("name", TO_SERVER)
def test_the_server_refuses(name: str) -> None:
    round_, bad, error = TO_SERVER[name]
    game = active().until(round_)
    culprits = (1,) if error is SignatureError else ()
    refused_by_server(game, bad(game, game.answer(1)), error, culprits)
    assert game.finish().integers.tolist() == expected_of_five()


TO_CLIENT: dict[str, tuple[Round, Bad, type[SecAggError]]] = {
    # name: round, what client 2 receives instead of the server's message, error; the culprit is the server
    "a roster with the server's key for another client": (
        Round.SHARE_KEYS, lambda _, m: part(m, "members", 0, masking_key=KeyPair(bytes(32)).public), SignatureError,
    ),
    "a roster without signatures": (Round.SHARE_KEYS, lambda _, m: changed(m, signatures=()), SignatureError),
    "a roster with signatures swapped": (Round.SHARE_KEYS, lambda _, m: swapped(m, "signatures"), SignatureError),
    "a roster with somebody whom nobody pinned": (
        Round.SHARE_KEYS,
        lambda _, m: changed(m, members=(*members(m), STRANGER), signatures=(*signatures(m), bytes(64))),
        UnknownClientError,
    ),
    "a forged declaration of another client": (
        Round.MASKED_INPUT, lambda _, m: part(m, "participants", 0, declaration=FULL), SignatureError,
    ),
    "a participant less": (
        Round.MASKED_INPUT, lambda _, m: without(m, "participants", 4), SignatureError,
    ),
    "a participant less, and its signature and shares with it": (
        Round.MASKED_INPUT,
        lambda _, m: without(without(m, "participants", 4), "signatures", 4),
        ShareError,
    ),
    "signatures in another order": (Round.MASKED_INPUT, lambda _, m: swapped(m, "signatures"), SignatureError),
    "no signatures": (Round.MASKED_INPUT, lambda _, m: changed(m, signatures=()), SignatureError),
    "a signature on another transcript": (
        Round.MASKED_INPUT,
        lambda game, m: with_signature(m, 0, signed_by(game, 1, transcript.says_second(bytes(32), 1))),
        SignatureError,
    ),
    "a sealed share that its dealer did not sign": (
        Round.MASKED_INPUT, lambda _, m: part(m, "shares", 0, box=flip(shares(m)[0].box)), SignatureError,
    ),
    "survivors of whom one masked under another transcript": (
        Round.CONSISTENCY_CHECK,
        lambda game, m: with_signature(m, 2, signed_by(game, 4, transcript.says_second(bytes(32), 4))),
        SignatureError,
    ),
    "a survivor with the signature of another": (
        Round.CONSISTENCY_CHECK, lambda _, m: with_signature(m, 2, signatures(m)[3]), SignatureError,
    ),
    "a survivor without a signature": (
        Round.CONSISTENCY_CHECK, lambda _, m: without(m, "signatures", 2), SignatureError,
    ),
    "survivors without itself": (
        Round.CONSISTENCY_CHECK, lambda _, m: changed(m, survivors=b"\xb8"), UnmaskRefusedError,
    ),
    "too few survivors": (Round.CONSISTENCY_CHECK, lambda _, m: changed(m, survivors=b"\xe0"), UnmaskRefusedError),
    "a survivor bitmap with padding": (
        Round.CONSISTENCY_CHECK, lambda _, m: changed(m, survivors=b"\xf9"), DecodingError,
    ),
    "an unmask request before the check": (
        Round.CONSISTENCY_CHECK, lambda _, m: messages.encode(UnmaskRequest(session_of(m), b"\xf8", ())),
        UnexpectedMessageError,
    ),
    "other survivors than it agreed to": (
        Round.UNMASK, lambda _, m: changed(m, survivors=b"\xf0"), UnmaskRefusedError,
    ),
    "one signature short of a quorum": (Round.UNMASK, lambda _, m: without(m, "quorum", 0), UnmaskRefusedError),
    "no quorum": (Round.UNMASK, lambda _, m: changed(m, quorum=()), UnmaskRefusedError),
    "a quorum that counts one client twice": (
        Round.UNMASK, lambda _, m: changed(m, quorum=(quorum(m)[0], *quorum(m)[:-1])), UnexpectedMessageError,
    ),
    "a quorum with a client that shared no keys": (
        Round.UNMASK,
        lambda _, m: changed(m, quorum=(*quorum(m)[:-1], Endorsement(77, quorum(m)[0].signature))),
        UnknownClientError,
    ),
    "a quorum for other survivors": (
        Round.UNMASK,
        lambda game, m: part(
            m, "quorum", 0, signature=signed_by(game, 1, transcript.says_survivors(h2(game), b"\xf0", 1))
        ),
        SignatureError,
    ),
    "a quorum of another session": (
        Round.UNMASK,
        lambda game, m: part(
            m, "quorum", 0, signature=signed_by(game, 1, transcript.says_survivors(bytes(32), b"\xf8", 1))
        ),
        SignatureError,
    ),
}  # fmt: skip


def shares(data: bytes) -> tuple[messages.SealedShares, ...]:
    message = messages.decode(data)
    assert isinstance(message, RelayedShares)
    return message.shares


@pytest.mark.parametrize("name", TO_CLIENT)
def test_a_client_refuses(name: str) -> None:
    round_, bad, error = TO_CLIENT[name]
    game = active().until(round_)
    refused_by_client(game, bad(game, game.inbox[2]), error)
    assert game.finish().integers.tolist() == expected_of_five()


def test_a_client_that_is_shown_fewer_clients_is_not_among_those_that_the_others_take_part_with() -> None:
    """The server shows client 2 a roster without client 9, signatures and all, and everybody else the truth."""
    game = active().until(Round.SHARE_KEYS)
    game.inbox = {**game.inbox, 2: without(without(game.inbox[2], "members", 4), "signatures", 4)}
    answer = game.answer(2)
    with pytest.raises(SecAggError) as raised:
        game.server.receive(answer)  # an honest server notices at once that client 2 saw something else
    assert raised.value.culprits == (2,)
    game.deliver([1, 4, 8])
    game.close()
    state = game.clients[2]._state
    relayed = messages.decode(game.inbox[1])
    assert isinstance(relayed, RelayedShares)
    own = messages.decode(answer)
    assert isinstance(own, ShareKeys)
    participant = messages.Participant(2, own.declaration, own.weight_bucket)
    lie = messages.encode(
        structs.replace(
            relayed,
            participants=(relayed.participants[0], participant, *relayed.participants[1:]),
            signatures=(relayed.signatures[0], own.signature, *relayed.signatures[1:]),
        )
    )
    with pytest.raises(SignatureError) as refused:
        game.clients[2].masked_input(lie, game.contributions[2].update)
    assert refused.value.culprits == (SERVER,)
    assert game.clients[2]._state is state


def test_a_share_that_its_dealer_signed_and_nobody_can_open_names_the_dealer() -> None:
    game = active().until(Round.SHARE_KEYS)
    answer = messages.decode(game.answer(1))
    assert isinstance(answer, ShareKeys)
    bad = structs.replace(answer.shares[0], box=flip(answer.shares[0].box), signature=None)
    signature = signed_by(game, 1, transcript.says_dealt(answer.transcript, bad))
    lie = structs.replace(answer, shares=(structs.replace(bad, signature=signature), *answer.shares[1:]))
    game.server.receive(messages.encode(lie))
    game.deliver()
    game.close()
    with pytest.raises(ShareError) as raised:
        game.answer(2)
    assert raised.value.culprits == (1,)


@pytest.mark.parametrize("adversary", get_args(Adversary))
def test_a_dealer_that_commits_to_what_is_no_share_is_named_before_anybody_masks(
    adversary: Adversary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it not, its honest holders would reveal it in the end, and be blamed for it."""
    game = five_clients(adversary=adversary).until(Round.SHARE_KEYS)

    def seal_rubbish(shares: HeldShares, holder: int, secret: bytes, h1: bytes) -> messages.SealedShares:
        key = structs.replace(shares.masking_key, share=b"\xff" * 33)
        return SEAL_SHARES(HeldShares(shares.self_seed, key), holder, secret, h1)

    with monkeypatch.context() as patched:
        patched.setattr(dealing, "seal_shares", seal_rubbish)
        game.deliver([1])
    game.deliver()
    game.close()
    with pytest.raises(ShareError, match="a share is no field element") as raised:
        game.answer(2)
    assert raised.value.culprits == (1,)


SEAL_SHARES = dealing.seal_shares


def test_a_pinned_client_that_shared_no_keys_does_not_count_towards_a_quorum() -> None:
    """Client 9 is pinned and advertised keys; whatever it signs, it has no part in the sum."""
    game = active().until(Round.SHARE_KEYS)
    game.deliver([1, 2, 4, 8])
    game.close()
    game.until(Round.UNMASK)
    request = messages.decode(game.inbox[2])
    assert isinstance(request, UnmaskRequest)
    signature = signed_by(game, 9, transcript.says_survivors(h2(game), request.survivors, 9))
    bad = changed(game.inbox[2], quorum=(*request.quorum[:-1], Endorsement(9, signature)))
    refused_by_client(game, bad, UnknownClientError)
    assert game.finish().integers.tolist() == expected_of_five([1, 2, 4, 8])


def test_a_client_agrees_to_one_list_of_survivors() -> None:
    game = active().until(Round.CONSISTENCY_CHECK)
    request = game.inbox[2]
    game.answer(2)
    before = game.clients[2]._state
    assert isinstance(before, Agreed)
    with pytest.raises(LocalProtocolError):
        game.clients[2].check_consistency(request)
    assert game.clients[2]._state is before
    assert game.finish().integers.tolist() == expected_of_five()


def test_without_an_active_server_there_is_no_consistency_check() -> None:
    game = five_clients().until(Round.UNMASK)
    before = game.clients[2]._state
    assert isinstance(before, Masked)
    with pytest.raises(LocalProtocolError, match="adversary='active'"):
        game.clients[2].check_consistency(game.inbox[2])
    assert game.clients[2]._state is before
    assert Round.CONSISTENCY_CHECK not in ROUNDS["semi-honest"]


def test_a_quorum_must_agree_before_anything_is_unmasked() -> None:
    game = active().until(Round.CONSISTENCY_CHECK)
    game.deliver([1, 2])
    for _ in range(2):
        with pytest.raises(TooFewClientsError, match="2 clients agree to the survivors < 3"):
            game.close()
    game.deliver([4])
    game.close()
    assert game.server.awaited == (1, 2, 4)
    assert game.finish().integers.tolist() == expected_of_five()


def test_a_client_needs_the_identity_that_is_pinned_for_it() -> None:
    session = active().clients[2].session
    one, other = Identity(b"1" * 32), Identity(b"2" * 32)
    with pytest.raises(ParameterError, match="identity is not the one that is pinned for client 2"):
        Client(2, session, other, {2: one.public, 3: other.public})
    with pytest.raises(ParameterError, match="if, and only if, adversary='active'"):
        Client(2, session, None, {2: one.public})
    with pytest.raises(ParameterError, match="if, and only if, adversary='active'"):
        Client(2, five_clients().clients[2].session, one)
    with pytest.raises(ParameterError, match="pin the identity of every client"):
        Client(2, session)
    with pytest.raises(ParameterError, match="pin the identity of every client"):
        Server(session)


def test_a_client_that_is_not_pinned_is_not_admitted() -> None:
    game = active()
    stranger = Identity(b"s" * 32)
    intruder = Client(77, game.clients[2].session, stranger, {**(game.pinned or {}), 77: stranger.public})
    refused_by_server(game, intruder.advertise_keys(), UnknownClientError, (77,))
    assert game.finish().integers.tolist() == expected_of_five()


def test_nobody_else_s_view_counts_but_that_of_who_signed() -> None:
    """Different participants for different clients: a survivor that masked under another h2 stops every unmasking."""
    game = active().until(Round.MASKED_INPUT)
    game.deliver([2, 4, 8, 9])
    second = transcript.says_second(transcript.h2(bytes(32), ()), 1)
    answer = changed(game.answer(1), signature=signed_by(game, 1, second))
    refused_by_server(game, answer, SignatureError, (1,))
    game.close()  # client 1 is a dropout: nobody gives a share of its self seed
    assert game.finish().integers.tolist() == expected_of_five(set(HELD) - {1})


@pytest.mark.parametrize("adversary", get_args(Adversary))
def test_a_session_is_pending_in_a_ledger_from_the_vector_until_it_is_unmasked(adversary: Adversary) -> None:
    game = five_clients(adversary=adversary)
    ledger = Ledger()
    game.clients[2]._ledger = ledger
    assert game.until(Round.MASKED_INPUT).server.session.id not in ledger.pending
    session, agreed = game.server.session, []
    while game.server.round is not Round.DONE:
        game.deliver()
        agreed.append(ledger.agreed)
        if game.server.round is not Round.UNMASK:
            assert ledger.pending == (session.id,)
            with pytest.raises(DifferencingError, match="did not end here"):
                ledger.send(replace(session, id=b"?" * 16))
        game.close()
    assert agreed == ([0, 1, 1] if session.params.active else [0, 1])
    assert ledger.pending == ()
    ledger.send(replace(session, id=b"?" * 16))
    assert game.server.outcome.integers.tolist() == expected_of_five()


def test_a_list_without_a_quorum_leaves_a_session_pending() -> None:
    game = active().until(Round.CONSISTENCY_CHECK)
    ledger = Ledger()
    game.clients[2]._ledger = ledger
    ledger.send(game.server.session)
    game.until(Round.UNMASK)
    refused_by_client(game, without(game.inbox[2], "quorum", 0), UnmaskRefusedError)
    assert (ledger.agreed, ledger.pending) == (1, (game.server.session.id,))
    assert game.finish().integers.tolist() == expected_of_five()
    assert ledger.pending == ()


def test_a_client_that_is_refused_by_its_ledger_reports_nothing_of_the_update() -> None:
    game = active(out_of_range="saturate", value_range=0.01, max_dropouts=0).until(Round.MASKED_INPUT)
    ledger = Ledger()
    ledger.send(replace(game.server.session, id=b"?" * 16))
    game.clients[2]._ledger = ledger
    refused_by_client(game, game.inbox[2], DifferencingError, ())
    assert game.clients[2].clipped_share == 0
    ledger.abandon(b"?" * 16)
    game.deliver([2])
    assert game.clients[2].clipped_share > 0


def test_where_a_session_did_not_end_a_client_masks_nothing_else_for_that_model() -> None:
    game = active().until(Round.MASKED_INPUT)
    ledger = Ledger()
    ledger.send(replace(game.server.session, id=b"?" * 16))
    game.clients[2]._ledger = ledger
    refused_by_client(game, game.inbox[2], DifferencingError, ())
    game.clients[2]._ledger = None
    assert game.finish().integers.tolist() == expected_of_five()
