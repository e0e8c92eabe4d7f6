"""Masks: uniform on the whole ring as the server sees them, never the same twice, readable from anywhere.

All randomness is seeded, so that a statistic that passes today passes tomorrow; broken builds show that it could fail.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from hypothesis import given
from hypothesis import strategies as st

from secagg import driver, keys, masking, messages
from secagg.driver import Contribution, Stage
from secagg.layout import Layout, Tensor
from secagg.messages import MaskedInput
from secagg.params import Params
from secagg.prg import PIECE, SeededEntropy, Stream, check_masks, derive
from secagg.ring import Ring
from secagg.session import Session
from tests.strategies import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from secagg.ring import Words

FAR = 5.0
"""Standard deviations from the mean that a sound chi-square statistic stays within: p = 3e-7 a test."""


def deviation(counts: NDArray[np.int64]) -> float:
    """How far the chi-square statistic of uniform counts lies from its mean, in standard deviations."""
    expected = counts.sum() / len(counts)
    freedom = len(counts) - 1
    return abs(float(((counts - expected) ** 2 / expected).sum()) - freedom) / float(np.sqrt(2 * freedom))


def byte_deviations(rows: NDArray[np.uint8]) -> list[float]:
    """The deviation of each byte of an element, over all elements. (elements, bytes) to one number a byte."""
    return [deviation(np.bincount(column, minlength=256)) for column in rows.T]


def seeded(seed: str) -> Callable[[int | None], Callable[[int], bytes]]:
    sources: dict[int | None, SeededEntropy] = {}
    return lambda id_: sources.setdefault(id_, SeededEntropy(f"{seed}/{id_}".encode()))


def one_session(levels: int, coordinates: int, number: int = 0) -> Session:
    layout = Layout((Tensor("w", (coordinates,)),))
    return Session(id=number.to_bytes(16, "big"), params=Params(levels=levels), layout=layout, mode="uniform")


def masked_elements(levels: int, coordinates: int, clients: int = 4, number: int = 0) -> NDArray[np.uint8]:
    """The bytes of every masked element on the wire, (elements, bytes of an element); all inputs are zero."""
    session = one_session(levels, coordinates, number)
    seen: list[bytes] = []
    contributions = {id_: Contribution({"w": np.zeros(coordinates)}) for id_ in range(clients)}
    driver.run(session, contributions, entropy_of=seeded(f"uniform {number}"), observe=seen.append)
    vectors = [m.vector for m in map(messages.decode, seen) if isinstance(m, MaskedInput)]
    assert len(vectors) == clients
    return np.frombuffer(b"".join(vectors), np.uint8).reshape(clients * coordinates, -1)


@pytest.mark.parametrize(("width", "levels"), LEVELS.items())
def test_masked_vectors_are_uniform_on_the_whole_ring(width: int, levels: int) -> None:
    elements = masked_elements(levels, 5000)
    assert elements.shape == (20000, width // 8)
    assert max(byte_deviations(elements)) < FAR


def test_the_first_elements_of_many_sessions_are_uniform() -> None:
    elements = np.concatenate([masked_elements(LEVELS[16], 8, 3, number) for number in range(150)])
    assert elements.shape == (3600, 2)
    assert max(byte_deviations(elements)) < FAR


@pytest.mark.parametrize(("width", "levels"), LEVELS.items())
@pytest.mark.parametrize("fault", ["half of the ring", "few elements over and over", "an even ring"])
def test_the_statistic_catches_streams_of(fault: str, width: int, levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Stream.take

    def poor(stream: Stream, count: int) -> Words:
        drawn = genuine(stream, count)
        if drawn.dtype != Ring(width).dtype:  # coefficients of a checksum
            return drawn
        word = drawn.dtype.type
        match fault:
            case "half of the ring":
                return drawn & word((1 << (width - 1)) - 1)
            case "few elements over and over":
                return np.resize(drawn[:256].copy(), count)
            case _:
                return drawn & ~word(1)

    monkeypatch.setattr(Stream, "take", poor)
    monkeypatch.setattr(masking, "checksums", lambda *_: (0, 0))  # which would be broken too, and end the session
    monkeypatch.setattr(masking, "check_masks", lambda _: (0, 0))
    monkeypatch.setattr(masking, "terms", lambda *_: [masking.Term(1, None)])  # one stream: a sum of several is better
    assert max(byte_deviations(masked_elements(levels, 5000))) > 10 * FAR


rings = st.sampled_from([Ring(bits) for bits in LEVELS])
stream_keys = st.binary(min_size=16, max_size=16)


@given(ring=rings, key=stream_keys)
def test_a_stream_is_aes_in_counter_mode_after_one_block_for_the_checksum(ring: Ring, key: bytes) -> None:
    raw = Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(16 + 100 * ring.dtype.itemsize))
    assert b"".join(mask.to_bytes(8, "little") for mask in check_masks(key)) == raw[:16]
    assert Stream(key, ring).take(100).tobytes() == raw[16:]


@given(ring=rings, key=stream_keys, start=st.integers(0, 3 * PIECE), count=st.integers(0, 200))
def test_a_stream_read_from_anywhere_is_the_stream_read_in_order(
    ring: Ring, key: bytes, start: int, count: int
) -> None:
    stream = Stream(key, ring)
    for _ in range(start // PIECE):
        stream.take(PIECE)
    stream.take(start % PIECE)
    np.testing.assert_array_equal(Stream(key, ring, start).take(count), stream.take(count).copy())


@given(ring=rings, one=stream_keys, other=stream_keys)
def test_streams_of_different_keys_differ(ring: Ring, one: bytes, other: bytes) -> None:
    same = Stream(one, ring).take(64).tobytes() == Stream(other, ring).take(64).tobytes()
    assert same == (one == other)
    assert (check_masks(one) == check_masks(other)) == (one == other)


@given(
    secret=st.binary(min_size=32, max_size=32),
    contexts=st.lists(st.lists(st.binary(max_size=4), max_size=3), min_size=2, max_size=6, unique_by=str),
)
def test_different_contexts_give_different_keys_however_they_are_cut(
    secret: bytes, contexts: list[list[bytes]]
) -> None:
    derived = [derive(secret, purpose, *context) for context in contexts for purpose in ("self mask", "pairwise mask")]
    assert len(set(derived)) == 2 * len(contexts)


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, bytes]]:
    """Every key that a session derives, with its purpose and how often it was derived."""
    found: Counter[tuple[str, bytes]] = Counter()

    def recorded(secret: bytes, purpose: str, *binders: bytes, length: int = 16) -> bytes:
        key = derive(secret, purpose, *binders, length=length)
        found[purpose, key] += 1
        return key

    monkeypatch.setattr(masking, "derive", recorded)
    monkeypatch.setattr(keys, "derive", recorded)
    return found


EACH = {"self mask": 5, "pairwise mask": 10, "seal": 20, "checksum": 2}
"""Keys of a session of five clients: a self mask each, a pairwise mask a pair, a seal each way, two checksums."""


def by_purpose(derived: Counter[tuple[str, bytes]]) -> dict[str, int]:
    return dict(Counter(purpose for purpose, _ in derived))


def test_no_key_serves_twice_within_a_session(derived: Counter[tuple[str, bytes]]) -> None:
    contributions = {id_: Contribution({"w": np.zeros(3)}) for id_ in range(5)}
    driver.run(one_session(2**16, 3), contributions, {4: Stage.SHARE_KEYS}, entropy_of=seeded("once"))
    expected = EACH | {"self mask": 4}  # client 4 is gone before it needs its own
    assert by_purpose(derived) == expected
    assert len({key for _, key in derived}) == sum(expected.values())
    seals = Counter(times for (purpose, _), times in derived.items() if purpose == "seal")
    assert seals == {2: 16, 1: 4}  # to seal and to open; client 4 opens none


def test_no_key_of_one_session_returns_in_another_even_with_the_same_secrets(
    derived: Counter[tuple[str, bytes]],
) -> None:
    """The session id alone tells them apart: seeds, key pairs and inputs are equal on purpose."""
    for number in range(3):
        contributions = {id_: Contribution({"w": np.zeros(3)}) for id_ in range(5)}
        driver.run(one_session(2**16, 3, number), contributions, entropy_of=seeded("again"))
    assert by_purpose(derived) == {purpose: 3 * count for purpose, count in EACH.items()}
    assert len({key for _, key in derived}) == 3 * sum(EACH.values())


@pytest.mark.parametrize(
    "change",
    [
        {"params": Params(levels=2**16, max_weight=2.0)},
        {"layout": Layout((Tensor("v", (3,)),))},
        {"model_root": b"another model".zfill(32)},
        {"weighted": True},
    ],
    ids=["params", "layout", "model root", "weights"],
)
def test_whatever_the_parties_agree_on_is_in_every_key(
    change: dict[str, object], derived: Counter[tuple[str, bytes]]
) -> None:
    first = one_session(2**16, 3)
    for session in (first, dataclasses.replace(first, **change)):  # type: ignore[arg-type]
        name = session.layout.tensors[0].name
        weight = 1.0 if session.weighted else None
        contributions = {id_: Contribution({name: np.zeros(3)}, None, weight) for id_ in range(5)}
        driver.run(session, contributions, entropy_of=seeded("bound"))
    assert by_purpose(derived) == {purpose: 2 * count for purpose, count in EACH.items()}


def test_whoever_completes_share_keys_is_in_every_mask_key(derived: Counter[tuple[str, bytes]]) -> None:
    """The same five clients advertise the same keys; in the second session the fifth goes no further."""
    contributions = {id_: Contribution({"w": np.zeros(3)}) for id_ in range(5)}
    driver.run(one_session(2**16, 3), contributions, entropy_of=seeded("who"))
    masks = {key for purpose, key in derived if purpose.endswith("mask")}
    derived.clear()
    driver.run(one_session(2**16, 3), contributions, {4: Stage.ADVERTISE_KEYS}, entropy_of=seeded("who"))
    others = {key for purpose, key in derived if purpose.endswith("mask")}
    assert len(masks) == 15
    assert len(others) == 4 + 6
    assert not masks & others


def test_fresh_entropy_makes_every_session_fresh() -> None:
    seen: list[bytes] = []
    for _ in range(2):
        contributions = {id_: Contribution({"w": np.zeros(3)}) for id_ in range(3)}
        driver.run(one_session(2**16, 3), contributions, observe=seen.append)
    vectors = [m.vector for m in map(messages.decode, seen) if isinstance(m, MaskedInput)]
    public = [m.masking_key for m in map(messages.decode, seen) if isinstance(m, messages.AdvertiseKeys)]
    assert len(set(vectors)) == len(set(public)) == 6
