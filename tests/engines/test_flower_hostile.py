"""Nodes that send what no mod sends, and servers that send stages twice: each costs a dropout, and no more."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, Context, Error, Message
from flwr.serverapp.strategy import FedAdam

from protocols.engines.flower import Fault, LocalGrid
from protocols.engines.flower import secure_aggregation_mod as mod
from protocols.engines.flower.records import WIRE
from protocols.engines.flower.training import Trained
from protocols.engines.reasons import LONGEST_REASON
from secagg.declaration import FULL
from tests.engines.federation import (
    EVERYBODY,
    NODES,
    PARAMS,
    app_of,
    arrays_of,
    assert_same,
    expected,
    model,
    run,
    secure,
    stage_of,
)
from tests.engines.test_flower_rounds import LAYOUT, declarations

if TYPE_CHECKING:
    from flwr.clientapp.typing import Mod


def hostile(stage: str, wire: Array) -> Mod:
    """A mod whose node 1 answers a stage with an array of its own."""

    def answer(message: Message, context: Context, call_next: Any) -> Message:
        reply = mod(message, context, call_next)
        if stage_of(message) == stage and context.node_id == 1:
            reply.content[WIRE] = ArrayRecord({"message": wire})
        return reply

    return answer


def npy(shape: str, kind: str = "'|u1'") -> bytes:
    """A file of numpy's with a header of one's own."""
    header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, message=np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"junk", b"PK\x03\x04xxxx", npz(), npy("(1000000000000000,)"), npy(f"({'-' * 9000}1,)"), npy("(1,)", "'|O'")],
    ids=["empty", "junk", "zip", "npz", "huge", "deep", "pickle"],
)
@pytest.mark.parametrize("serialized", ["numpy.ndarray", "bytes"])
def test_an_array_is_never_parsed(data: bytes, serialized: str) -> None:
    strategy = secure()
    array = Array("uint8", (3,), serialized, data)
    found = run(strategy, LocalGrid(app_of([hostile("MaskedInput", array)]), NODES))
    assert strategy.history[0].stages[2].failures[1].startswith("DecodingError")
    assert_same(found, expected(model(), dropouts={1: "ShareKeys"}))


def test_a_node_advertises_keys_under_the_number_of_its_own() -> None:
    """Else whoever is first takes the place of another, who is left out as its double."""

    class Posing:
        def __init__(self, context: Context) -> None:
            self._context = context
            self.node_id = 2

        def __getattr__(self, name: str) -> Any:
            return getattr(self._context, name)

    def pose(message: Message, context: Any, call_next: Any) -> Message:
        return mod(message, Posing(context) if context.node_id == 1 else context, call_next)

    strategy = secure()
    run(strategy, LocalGrid(app_of([pose]), NODES))
    first = strategy.history[0]
    assert list(first.stages[0].failures) == [1]
    assert "another client's name" in first.stages[0].failures[1]
    assert first.survivors == NODES - 1


def test_a_reason_fits_into_a_line_of_the_log() -> None:
    def complain(message: Message, context: Context, call_next: Any) -> Message:
        if context.node_id == 1:
            return Message(Error(6, "it\nFAKE\x1b[2K" + "x" * 10**6), reply_to=message)
        return mod(message, context, call_next)

    strategy = secure()
    run(strategy, LocalGrid(app_of([complain]), NODES))
    reason = strategy.history[0].stages[0].failures[1]
    assert reason.startswith("it FAKE [2Kxxx")
    assert len(reason) == LONGEST_REASON


def test_a_node_trains_once_in_a_session() -> None:
    trains: list[int] = []
    sent: dict[int, Message] = {}

    def fault(node: int, message: Message) -> Fault | None:
        if stage_of(message) == "ShareKeys":
            sent.setdefault(node, message)
        return Fault.SILENT if stage_of(message) in {"Unmask", "Abandon"} else None

    app = app_of(train=lambda _, context: trains.append(context.node_id))
    grid = LocalGrid(app, NODES, fault=fault)
    run(secure(), grid)
    (reply,) = grid.send_and_receive([sent[1]])
    assert "has trained for that session" in reply.error.reason
    assert trains == list(EVERYBODY)


def test_what_a_client_brings_is_not_shown() -> None:
    brought = Trained({"fc": np.array([1.5])}, FULL, 37.0)
    assert repr(brought) == "Trained()"


def test_momentum_moves_no_coordinate_that_is_withheld() -> None:
    masks: dict[int, Any] = {}
    starts: list[dict[str, Any]] = []

    class Adam(FedAdam):  # type: ignore[misc]  # Flower's types are not read
        def configure_train(self, server_round: int, arrays: Any, *args: Any) -> Any:
            starts.append(arrays_of(arrays))
            if server_round == 2:
                masks.update(declarations())
            return super().configure_train(server_round, arrays, *args)

    strategy = secure(replace(PARAMS, weighting="average"), Adam(), mode="mask-indexed", layout=LAYOUT)
    found = run(strategy, LocalGrid(app_of(masks=masks), NODES), rounds=2)
    assert strategy.history[1].withheld_share > 0
    for name in ("fc.weight", "fc.bias"):
        moved = found[name] != starts[1][name]
        assert moved[:3].all()
        assert not moved[3].any()  # the unit that half of the clients hold
