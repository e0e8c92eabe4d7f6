"""The wire: every message round trips, and nothing but what encoding produces is accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import messages
from secagg.declaration import FULL, Declaration, Provenance
from secagg.errors import DecodingError
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
    RevealedShare,
    Roster,
    SealedShares,
    ShareKeys,
    Unmask,
    UnmaskRequest,
    decode,
    encode,
    read_bitmap,
    write_bitmap,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SESSION = bytes(range(16))
SIGNATURE = b"\x08" * 64
KEY, OTHER_KEY, DIGEST = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
SEALED = SealedShares(7, 8, b"\x04" * 114, DIGEST, KEY)
MASK = Declaration("bitmap", b"\xf0\x80", Provenance.DATA)

EXAMPLES: tuple[Message, ...] = (
    AdvertiseKeys(SESSION, 7, KEY, OTHER_KEY),
    Roster(SESSION, (Member(7, KEY, OTHER_KEY), Member(2**63 - 1, OTHER_KEY, KEY))),
    ShareKeys(SESSION, 7, DIGEST, DIGEST, DIGEST, MASK, 3, DIGEST, (SEALED, SEALED)),
    ShareKeys(SESSION, 7, DIGEST, DIGEST, DIGEST, FULL, None, DIGEST, (), SIGNATURE),
    RelayedShares(SESSION, (Participant(7, FULL, None), Participant(8, MASK, 127)), (SEALED,)),
    MaskedInput(SESSION, 7, b"\x05" * 16, bytes(100)),
    UnmaskRequest(SESSION, b"\xc0"),
    Unmask(SESSION, 7, (RevealedShare(8, b"\x06" * 33, b"\x07" * 16),)),
    RelayedShares(SESSION, (Participant(7, FULL, None),), (SEALED,), (SIGNATURE,)),
    MaskedInput(SESSION, 7, b"\x05" * 16, bytes(100), SIGNATURE),
    ConsistencyRequest(SESSION, b"\xc0", (SIGNATURE, SIGNATURE)),
    ConsistencyCheck(SESSION, 7, SIGNATURE),
    UnmaskRequest(SESSION, b"\xc0", (Endorsement(7, SIGNATURE),)),
)
by_kind = pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)

ids = st.integers(0, 2**63 - 1)
declarations = st.builds(
    Declaration,
    st.sampled_from(["full", "layers", "units", "bitmap", "sparse"]),
    st.binary(max_size=9),
    st.sampled_from(Provenance),
)
signatures = st.none() | st.binary(min_size=64, max_size=64)
buckets = st.none() | st.integers(0, 127)


def exactly(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


def tuples(of: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=3).map(tuple)


def each_of_its_dealer(shares: dict[int, RevealedShare]) -> tuple[RevealedShare, ...]:
    return tuple(msgspec.structs.replace(share, dealer=dealer) for dealer, share in sorted(shares.items()))


revealed = st.builds(RevealedShare, ids, exactly(33), exactly(16))
sealed = st.builds(SealedShares, ids, ids, exactly(114), exactly(32), exactly(32), signatures)
everything = st.one_of(
    st.builds(AdvertiseKeys, exactly(16), ids, exactly(32), exactly(32)),
    st.builds(Roster, exactly(16), tuples(st.builds(Member, ids, exactly(32), exactly(32)))),
    st.builds(
        ShareKeys,
        exactly(16),
        ids,
        exactly(32),
        exactly(32),
        exactly(32),
        declarations,
        buckets,
        exactly(32),
        tuples(sealed),
        signatures,
    ),
    st.builds(
        RelayedShares,
        exactly(16),
        tuples(st.builds(Participant, ids, declarations, buckets)),
        tuples(sealed),
        tuples(exactly(64)),
    ),
    st.builds(MaskedInput, exactly(16), ids, exactly(16), st.binary(max_size=99), signatures),
    st.builds(ConsistencyRequest, exactly(16), st.binary(max_size=9), tuples(exactly(64))),
    st.builds(ConsistencyCheck, exactly(16), ids, exactly(64)),
    st.builds(UnmaskRequest, exactly(16), st.binary(max_size=9), tuples(st.builds(Endorsement, ids, exactly(64)))),
    st.builds(Unmask, exactly(16), ids, st.dictionaries(ids, revealed, max_size=3).map(each_of_its_dealer)),
)


def on_wire(*fields: object) -> bytes:
    return bytes([messages.VERSION]) + msgspec.msgpack.encode(fields)


def with_field(message: Message, index: int, value: object) -> bytes:
    fields = list(cast("list[object]", msgspec.msgpack.decode(encode(message)[1:])))
    fields[index] = value
    return on_wire(*fields)


def test_the_examples_cover_every_message() -> None:
    assert {type(message) for message in EXAMPLES} == set(Message.__subclasses__())


@given(everything)
def test_every_message_round_trips(message: Message) -> None:
    again = decode(encode(message))
    assert again == message
    assert type(again) is type(message)


@by_kind
def test_a_message_opens_with_the_version_and_is_an_array_that_opens_with_its_tag(message: Message) -> None:
    data = encode(message)
    assert data[0] == 1
    fields = msgspec.msgpack.decode(data[1:])
    assert isinstance(fields, list)
    assert fields[:2] == [type(message).__name__, SESSION]


@by_kind
def test_messages_are_frozen(message: Message) -> None:
    with pytest.raises(AttributeError):
        message.session = bytes(16)  # type: ignore[misc]


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused(version: int) -> None:
    with pytest.raises(DecodingError, match="not a message of wire version 1"):
        decode(bytes([version]) + encode(EXAMPLES[0])[1:])


def test_nothing_is_refused() -> None:
    with pytest.raises(DecodingError, match="not a message of wire version 1"):
        decode(b"")


@pytest.mark.parametrize("tag", ["Advertise", "", "advertisekeys", 3, None])
def test_an_unknown_tag_is_refused(tag: object) -> None:
    with pytest.raises(DecodingError, match="malformed message"):
        decode(with_field(EXAMPLES[0], 0, tag))


@by_kind
def test_a_message_cut_short_anywhere_is_refused(message: Message) -> None:
    data = encode(message)
    for length in range(len(data)):
        with pytest.raises(DecodingError):
            decode(data[:length])


@by_kind
@pytest.mark.parametrize("surplus", [b"\0", b"\xc0", b"\x01"])
def test_trailing_bytes_are_refused(message: Message, surplus: bytes) -> None:
    with pytest.raises(DecodingError):
        decode(encode(message) + surplus)


@by_kind
def test_a_field_too_many_or_too_few_is_refused(message: Message) -> None:
    fields = cast("list[object]", msgspec.msgpack.decode(encode(message)[1:]))
    for other in ([*fields, None], fields[:-1]):
        with pytest.raises(DecodingError):
            decode(on_wire(*other))


@by_kind
def test_every_changed_byte_gives_another_message_or_none(message: Message) -> None:
    data = encode(message)
    for place in range(len(data)):
        altered = bytearray(data)
        altered[place] ^= 0x81
        try:
            other = decode(bytes(altered))
        except DecodingError:
            continue
        assert other != message
        assert encode(other) == bytes(altered)


@pytest.mark.parametrize(
    ("message", "index", "value"),
    [
        (EXAMPLES[0], 1, bytes(15)),
        (EXAMPLES[0], 2, -1),
        (EXAMPLES[0], 2, 2**63),
        (EXAMPLES[0], 2, "7"),
        (EXAMPLES[0], 2, True),
        (EXAMPLES[0], 2, 7.0),
        (EXAMPLES[0], 3, bytes(31)),
        (EXAMPLES[0], 4, bytes(33)),
        (EXAMPLES[0], 4, "\x01" * 32),
        (EXAMPLES[1], 2, None),
        (EXAMPLES[2], 6, ["unknown", b"", "public"]),
        (EXAMPLES[2], 6, ["full", b"", "secret"]),
        (EXAMPLES[2], 6, ["full"]),
        (EXAMPLES[2], 7, 128),
        (EXAMPLES[2], 7, -1),
        (EXAMPLES[2], 9, [[7, 8, bytes(113), bytes(32), bytes(32)]]),
        (EXAMPLES[5], 3, bytes(15)),
        (EXAMPLES[5], 5, bytes(63)),
        (EXAMPLES[8], 4, [bytes(65)]),
        (EXAMPLES[11], 3, None),
        (EXAMPLES[12], 3, [[7, None]]),
        (EXAMPLES[7], 3, [[8, bytes(32), bytes(16)]]),
        (EXAMPLES[7], 3, [[8, bytes(33), bytes(17)]]),
        (EXAMPLES[7], 3, [[8, bytes(33), bytes(16), bytes(33)]]),
    ],
)
def test_a_field_of_the_wrong_type_length_or_range_is_refused(message: Message, index: int, value: object) -> None:
    with pytest.raises(DecodingError):
        decode(with_field(message, index, value))


def longer_integer(data: bytes) -> bytes:
    """7, which takes one byte, written with two."""
    return data.replace(SESSION + b"\x07", SESSION + b"\xcc\x07", 1)


def longer_string(data: bytes) -> bytes:
    """The session id with a 16-bit length instead of one of 8 bits."""
    return data.replace(b"\xc4\x10" + SESSION, b"\xc5\x00\x10" + SESSION, 1)


def longer_array(data: bytes) -> bytes:
    """The outermost array with a 16-bit length."""
    return data[:1] + b"\xdc\x00" + bytes([data[1] & 0x0F]) + data[2:]


@pytest.mark.parametrize("respell", [longer_integer, longer_string, longer_array])
def test_a_second_spelling_of_the_same_message_is_refused(respell: Callable[[bytes], bytes]) -> None:
    data = encode(EXAMPLES[0])
    respelt = respell(data)
    assert msgspec.msgpack.decode(respelt[1:]) == msgspec.msgpack.decode(data[1:])
    assert respelt != data
    with pytest.raises(DecodingError, match="not in canonical form"):
        decode(respelt)


@pytest.mark.parametrize("dealers", [(8, 8), (9, 8), (7, 8, 9, 8)])
def test_an_answer_lists_each_dealer_once(dealers: tuple[int, ...]) -> None:
    """So that none that is read holds both shares of one."""
    answer = Unmask(SESSION, 7, tuple(RevealedShare(dealer, bytes(33), bytes(16)) for dealer in dealers))
    with pytest.raises(DecodingError, match="dealers are not listed once each in ascending order"):
        decode(encode(answer))


def test_a_revealed_share_shows_nothing_but_its_dealer() -> None:
    assert repr(RevealedShare(8, b"\x06" * 33, b"\x07" * 16)) == "RevealedShare(dealer=8)"
    assert repr(EXAMPLES[7]).endswith("shares=(RevealedShare(dealer=8),))")


def test_deep_nesting_is_malformed_and_not_a_crash() -> None:
    with pytest.raises(DecodingError, match="malformed message"):
        decode(b"\x01" + b"\x91" * 100_000)


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_refused_or_are_exactly_what_their_message_encodes_to(data: bytes) -> None:
    for candidate in (data, b"\x01" + data):
        try:
            message = decode(candidate)
        except DecodingError:
            continue
        assert encode(message) == candidate


def test_a_part_is_encoded_as_within_its_message() -> None:
    assert messages.encode_part(SEALED) in encode(EXAMPLES[4])


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=40, unique=True), st.data())
def test_a_bitmap_lists_the_chosen_clients_in_order(clients: list[int], data: st.DataObject) -> None:
    chosen = {client for client in clients if data.draw(st.booleans())}
    bitmap = write_bitmap(chosen, clients)
    assert len(bitmap) == -(-len(clients) // 8)
    assert read_bitmap(bitmap, clients) == tuple(client for client in clients if client in chosen)


def test_the_first_client_is_the_highest_bit() -> None:
    assert write_bitmap({10, 13}, [10, 11, 12, 13]) == b"\x90"


def test_an_empty_bitmap_lists_nobody() -> None:
    assert write_bitmap(set(), ()) == b""
    assert read_bitmap(b"", ()) == ()


@pytest.mark.parametrize("data", [b"", b"\x80\x00", b"\x01", b"\xff"])
def test_a_bitmap_that_does_not_fit_its_clients_is_refused(data: bytes) -> None:
    with pytest.raises(DecodingError, match="a bitmap does not fit its clients"):
        read_bitmap(data, [10, 11, 12, 13])
