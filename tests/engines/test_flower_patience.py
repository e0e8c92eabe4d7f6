"""How long a server waits, for masked vectors too: who comes too late has dropped out, and gives nothing away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, Context, Message
from flwr.serverapp.strategy import FedAvg

from protocols.engines.flower import Fault, LocalGrid
from protocols.engines.flower import secure_aggregation_mod as mod
from protocols.engines.flower.records import WIRE, as_array, wire, write
from secagg import Params, messages, unmasking
from secagg.keys import KeyPair
from tests.engines.federation import (
    EVERYBODY,
    NODES,
    PARAMS,
    STAGES,
    app_of,
    assert_same,
    at,
    expected,
    model,
    run,
    secure,
    stage_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flwr.clientapp.typing import Mod

SLOW = 3
HOUR = 3600.0


class SlowGrid(LocalGrid):
    """A grid on which answers to one stage are late.

    Args:
        stage: Whose.
        looks: Node to how often the server looks for its answer before there is one.
        mods: Of the app.
        settings: As ``LocalGrid``.
    """

    def __init__(self, stage: str, looks: Mapping[int, float], mods: Iterable[Mod] = (mod,), **settings: Any) -> None:
        super().__init__(app_of(list(mods)), NODES, **settings)
        self._stage, self.looks = stage, dict(looks)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers that are there."""
        there = [name for name in message_ids if not self._late(name)]
        return super().pull_messages(there)

    def late(self) -> list[Message]:
        """Answers that nobody has fetched."""
        return list(self._replies.values())

    def _late(self, name: str) -> bool:
        reply = self._replies.get(name)
        if reply is None or stage_of(reply) != self._stage:
            return False
        left = self.looks.get(reply.metadata.src_node_id, 0)
        self.looks[reply.metadata.src_node_id] = left - 1
        return left > 0


def test_a_masked_vector_that_comes_after_quorum_and_grace_is_a_dropouts() -> None:
    grid = SlowGrid("MaskedInput", {SLOW: float("inf")})
    strategy = secure(timeout=HOUR, quorum=0.8, poll=1e-3)
    found = run(strategy, grid)
    assert_same(found, expected(model(), dropouts={SLOW: "ShareKeys"}))
    assert strategy.history[0].survivors == NODES - 1
    assert SLOW in {message.metadata.src_node_id for message in grid.late() if stage_of(message) == "MaskedInput"}


def test_it_is_in_the_next_round_again_and_its_late_vector_in_none() -> None:
    def observe(message: Message) -> None:
        if message.metadata.group_id == "2":
            grid.looks.clear()

    grid = SlowGrid("MaskedInput", {SLOW: float("inf")}, observe=observe)
    strategy = secure(timeout=HOUR, quorum=0.8, poll=1e-3)
    found = run(strategy, grid, rounds=2)
    assert_same(found, expected(expected(model(), dropouts={SLOW: "ShareKeys"})))
    assert [row.survivors for row in strategy.history] == [NODES - 1, NODES]


@pytest.mark.parametrize("patience", [{"quorum": 0.8, "grace": HOUR}, {"quorum": 1.0}])
def test_within_the_grace_period_it_counts(patience: dict[str, Any]) -> None:
    strategy = secure(timeout=2 * HOUR, poll=1e-3, **patience)
    assert_same(run(strategy, SlowGrid("MaskedInput", {SLOW: 5})), expected(model()))
    assert strategy.history[0].survivors == NODES


@pytest.mark.parametrize("stage", STAGES)
def test_a_quorum_that_is_too_small_to_go_on_with_waits_for_as_many_as_it_takes(stage: str) -> None:
    """One answer is there from the start, and one more with each look; nobody answers twice."""
    strategy = secure(timeout=HOUR, quorum=0.1, poll=1e-3)
    run(strategy, SlowGrid(stage, dict.fromkeys(range(2, NODES + 1), 1) | {6: 2, 5: 3, 4: 4, 3: 5}))
    (row,) = strategy.history
    answered = {one.stage: one.answered for one in row.stages}
    assert row.outcome == "aggregated"
    assert 2 <= answered.pop(stage) < NODES
    assert row.survivors >= PARAMS.min_cohort


def test_masked_vectors_are_waited_for_until_all_but_the_dropouts_that_may_be_are_there() -> None:
    strategy = secure(timeout=HOUR, quorum=0.1, poll=1e-3)
    found = run(strategy, SlowGrid("MaskedInput", {2: 1, 3: 2, 4: 3, 5: 4, 6: 5}))
    assert strategy.history[0].survivors == NODES - 2  # max_dropouts
    assert_same(found, expected(model(), dropouts={5: "ShareKeys", 6: "ShareKeys"}))


def test_answers_that_are_refused_are_no_part_of_the_quorum() -> None:
    """Else those who send junk at once have the honest ones dropped."""

    def junk(message: Message, context: Context, call_next: Any) -> Message:
        reply = mod(message, context, call_next)
        if stage_of(message) == "MaskedInput" and context.node_id in {1, 2}:
            reply.content[WIRE] = ArrayRecord({"message": as_array(b"junk")})
        return reply

    strategy = secure(
        Params(min_cohort=2, max_dropouts=4, max_weight=100, share_threshold=2), timeout=HOUR, quorum=0.5, poll=1e-3
    )
    run(strategy, SlowGrid("MaskedInput", {5: 3, 6: float("inf")}, [junk]))
    (row,) = strategy.history
    assert row.survivors == NODES / 2  # 3 and 4 at once, and 5
    assert set(row.stages[2].failures) == {1, 2}


class Draws(FedAvg):  # type: ignore[misc]  # Flower's types are not read
    """Asks these nodes in each round."""

    def __init__(self, *drawn: Iterable[int]) -> None:
        super().__init__()
        self._drawn = drawn

    def configure_train(self, server_round: int, *args: Any) -> Any:
        asked = super().configure_train(server_round, *args)
        return [message for message in asked if message.metadata.dst_node_id in self._drawn[server_round - 1]]


@pytest.mark.parametrize(("grace", "answered"), [(0.0, 0), (HOUR, 1)])
def test_keys_that_came_with_the_round_before_are_part_of_the_quorum(grace: float, answered: int) -> None:
    """Else one node that is away holds up every round until the timeout."""
    strategy = secure(
        strategy=Draws(set(EVERYBODY) - {SLOW}, EVERYBODY), timeout=2 * HOUR, quorum=0.8, grace=grace, poll=1e-3
    )
    run(strategy, SlowGrid("AdvertiseKeys", {SLOW: 5}), rounds=2)
    keys = strategy.history[1].stages[0]
    assert (keys.stage, keys.asked, keys.answered) == ("AdvertiseKeys", 1, answered)
    assert [row.survivors for row in strategy.history] == [NODES - 1, NODES - 1 + answered]


def test_where_they_are_too_few_to_go_on_with_more_are_waited_for() -> None:
    strategy = secure(strategy=Draws({1, 2}, {1, 3, 4}), timeout=HOUR, quorum=0.1, poll=1e-3)
    run(strategy, SlowGrid("AdvertiseKeys", {3: 5, 4: float("inf")}), rounds=2)
    assert [row.survivors for row in strategy.history] == [2, 2]
    assert strategy.history[1].stages[0].answered == 1


# What a late vector gives away.


def said_by(answers: dict[str, dict[int, bytes]]) -> Any:
    """An observer that keeps what nodes answered, by stage and node."""

    def observe(message: Message) -> None:
        if message.metadata.dst_node_id == 0 and not message.has_error() and WIRE in message.content:
            answers.setdefault(stage_of(message), {})[message.metadata.src_node_id] = wire(message.content)

    return observe


def test_of_a_late_node_the_masking_key_is_revealed_and_of_everybody_else_the_self_seed() -> None:
    answers: dict[str, dict[int, bytes]] = {}
    run(
        secure(timeout=HOUR, quorum=0.8, poll=1e-3),
        SlowGrid("MaskedInput", {SLOW: float("inf")}, observe=said_by(answers)),
    )
    assert set(answers["MaskedInput"]) == set(EVERYBODY)
    assert set(answers["Unmask"]) == set(EVERYBODY) - {SLOW}
    revealed = {node: messages.decode(data) for node, data in answers["Unmask"].items()}
    shown = {node: one for node, one in revealed.items() if isinstance(one, messages.Unmask)}
    rebuilt = unmasking.rebuild(shown, {node: node for node in EVERYBODY}, NODES // 2 + 1, list(EVERYBODY))
    for node, data in answers["AdvertiseKeys"].items():
        advertised = messages.decode(data)
        assert isinstance(advertised, messages.AdvertiseKeys)
        assert (KeyPair(rebuilt[node]).public == advertised.masking_key) == (node == SLOW)


def test_nobody_unmasks_for_other_survivors_than_it_has_unmasked_for_nor_a_late_node_for_any() -> None:
    asked: dict[int, Message] = {}

    def observe(message: Message) -> None:
        if stage_of(message) == "Unmask" and message.metadata.src_node_id == 0:
            asked[message.metadata.dst_node_id] = message

    grid = SlowGrid("MaskedInput", {SLOW: float("inf")}, observe=observe, fault=at("Abandon", {SLOW: Fault.SILENT}))
    run(secure(timeout=HOUR, quorum=0.8, poll=1e-3), grid)
    request = messages.decode(wire(asked[1].content))
    assert isinstance(request, messages.UnmaskRequest)
    everybody = messages.write_bitmap(set(EVERYBODY), EVERYBODY)
    assert request.survivors != everybody
    for node, survivors, reason in (
        (SLOW, request.survivors, "UnmaskRefusedError"),
        (1, everybody, "keeps nothing of that session"),
    ):
        again = messages.encode(messages.UnmaskRequest(request.session, survivors))
        content = write("Unmask", request.session, {"message": again})
        (reply,) = grid.send_and_receive([Message(content, node, "train")])
        assert reason in reply.error.reason
