"""Taking masks off: the same on one core and on several, whatever they cover, and all or nothing."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg import lifting
from secagg.errors import ChecksumError
from secagg.lifting import MaskLeft, lift, summed
from secagg.masking import Accumulator, MaskKey, packed
from secagg.ring import Ring
from secagg.rounds import Round
from tests.adversarial.play import five_clients

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from secagg.params import Mode
    from tests.adversarial.play import Play

LENGTH, CLIENTS = 8 * 7 + 3, 4


def key(number: int) -> bytes:
    return number.to_bytes(16, "little")


class Counting(Executor):
    """An executor that does everything at once and remembers what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.asked.append(args)
        future: Future[Any] = Future()
        future.set_result(work(*args, **kwargs))
        return future


@st.composite
def masks_left(draw: st.DrawFn) -> list[MaskLeft]:
    holders = st.lists(st.integers(0, CLIENTS - 1), max_size=2, unique=True).map(tuple)
    drawn = draw(st.lists(st.tuples(st.sampled_from([1, -1]), holders), max_size=9))
    return [MaskLeft(sign, partial(key, number), whose) for number, (sign, whose) in enumerate(drawn)]


def one_by_one(ring: Ring, masks: list[MaskLeft], places: NDArray[np.bool_]) -> Accumulator:
    """Each stream added by itself to the whole vector."""
    total = Accumulator(ring, ring.zeros(places.shape[1]))
    for mask in masks:
        covers = packed(np.logical_and.reduce([places[client] for client in mask.holders])) if mask.holders else ()
        total.apply([MaskKey(mask.sign, mask.key(), covers)])
    return total


@given(
    st.sampled_from((16, 24, 32, 64)), masks_left(), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.5, 0.97, 1.0])
)
@settings(max_examples=60)
def test_a_sum_is_the_same_however_the_work_is_cut(bits: int, masks: list[MaskLeft], seed: int, density: float) -> None:
    ring = Ring(bits)
    places = np.random.default_rng(seed).random((CLIENTS, LENGTH)) < density
    expected = one_by_one(ring, masks, places)
    for width, streams in ((8, 1), (16, 3), (64, 256)):
        for executor in (None, Counting()):
            total = Accumulator(ring, ring.zeros(LENGTH))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(lifting, "RANGE", width)
                patch.setattr(lifting, "STREAMS", streams)
                lift(total, masks, lambda client: np.packbits(places[client]), executor=executor)
            assert ring.pack(total.vector) == ring.pack(expected.vector)
            assert total.checks == expected.checks


def test_threads_give_the_same_sum_in_whatever_order_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifting, "RANGE", 8)
    monkeypatch.setattr(lifting, "STREAMS", 2)
    masks, places = [MaskLeft(1, partial(key, number)) for number in range(7)], np.ones((1, LENGTH), bool)
    total = Accumulator(Ring(32), Ring(32).zeros(LENGTH))
    with ThreadPoolExecutor(3) as pool:
        lift(total, masks, lambda _: np.packbits(places[0]), executor=pool)
    assert np.array_equal(total.vector, one_by_one(Ring(32), masks, places).vector)


def test_a_task_is_given_the_part_of_a_mask_that_lies_in_its_range_once_for_equal_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifting, "RANGE", 16)
    everywhere, executor = np.packbits(np.arange(LENGTH) % 3 > 0), Counting()
    masks = [MaskLeft(1, partial(key, 0), (0,)), MaskLeft(-1, partial(key, 1), (0, 1))]
    lift(Accumulator(Ring(32), Ring(32).zeros(LENGTH)), masks, lambda _: everywhere, executor=executor)
    assert [length for _, length, _ in executor.asked] == [16, 16, 16, 11]
    before = 0
    for number, (_, length, keys) in enumerate(executor.asked):
        part = everywhere[2 * number : 2 * number + 2]
        arrays = [one for mask in keys for one in mask.places]
        assert len({id(one) for one in arrays}) == 1
        assert np.array_equal(arrays[0], part)
        assert {mask.start for mask in keys} == {before}
        before += int(np.unpackbits(part, count=length).sum())


def test_progress_counts_up_to_all_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifting, "RANGE", 32)
    monkeypatch.setattr(lifting, "STREAMS", 2)
    seen: list[tuple[int, int]] = []
    masks = [MaskLeft(1, partial(key, number)) for number in range(5)]
    lift(
        Accumulator(Ring(32), Ring(32).zeros(LENGTH)),
        masks,
        lambda _: np.zeros(8, np.uint8),
        progress=lambda done, of: seen.append((done, of)),
    )
    assert seen == [(done, 6) for done in range(1, 7)]


class _StoppedError(Exception):
    """What a user's progress callback raises."""


def test_work_that_is_stopped_leaves_no_task_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifting, "RANGE", 8)

    def stop(_done: int, _of: int) -> None:
        raise _StoppedError

    waiting: list[Future[Any]] = []

    class Idle(Counting):
        """Does the first task, and never gets to the others."""

        def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = super().submit(work, *args, **kwargs) if not waiting else Future()
            waiting.append(future)
            return future

    with pytest.raises(_StoppedError):
        lift(
            Accumulator(Ring(32), Ring(32).zeros(LENGTH)),
            [MaskLeft(1, partial(key, 0))],
            lambda _: np.zeros(8, np.uint8),
            executor=Idle(),
            progress=stop,
        )
    assert len(waiting) == 8
    assert all(future.cancelled() for future in waiting[1:])


@pytest.mark.parametrize("returned", [None, [1] * LENGTH, np.zeros(LENGTH), np.zeros(3, np.uint32)])
def test_an_executor_that_returns_something_else_is_refused(returned: object) -> None:
    class Wrong(Executor):
        def submit(self, _work: Callable[..., Any], /, *_args: Any, **_kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(returned)
            return future

    total = Accumulator(Ring(32), Ring(32).zeros(LENGTH))
    with pytest.raises(ChecksumError, match="no sum of masks"):
        lift(total, [MaskLeft(1, partial(key, 0))], lambda _: np.zeros(8, np.uint8), executor=Wrong())


def test_a_mask_left_prints_no_key() -> None:
    assert repr(MaskLeft(1, partial(key, 9), (3,))) == "MaskLeft(sign=1, holders=(3,))"


def test_a_task_by_itself_is_a_plain_sum() -> None:
    words = summed(32, 5, [MaskKey(1, key(1)), MaskKey(-1, key(1))])
    assert words.tolist() == [0] * 5
    assert summed(32, 5, [MaskKey(1, key(1))]).any()


def ready_to_unmask(mode: Mode) -> Play:
    """Five clients of whom one has dropped out; all answers of the last round are in."""
    game = five_clients(mode=mode).until(Round.MASKED_INPUT)
    game.deliver(sorted(game.clients)[:-1])
    game.close()
    game.deliver()
    return game


@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
def test_a_server_gives_the_same_aggregate_on_other_cores(mode: Mode) -> None:
    here, there = ready_to_unmask(mode), ready_to_unmask(mode)
    here.server.close_round()
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        there.server.close_round(pool)
    assert len(there.server.outcome.survivors) == 4
    assert there.server.outcome.integers.tolist() == here.server.outcome.integers.tolist()
    assert there.server.outcome.integers.any()


def test_a_server_that_is_stopped_while_it_takes_masks_off_is_as_it_was() -> None:
    game, again = ready_to_unmask("uniform"), ready_to_unmask("uniform")

    def stop(_done: int, _of: int) -> None:
        raise _StoppedError

    before = game.server.save()
    with pytest.raises(_StoppedError):
        game.server.close_round(progress=stop)
    assert game.server.save() == before
    game.server.close_round()
    again.server.close_round()
    assert game.server.outcome.integers.tolist() == again.server.outcome.integers.tolist()
