"""The targets of the fuzzer over their seeds and seeded mutations of them; and the fuzzer finds what is broken."""

from __future__ import annotations

import sys
from random import Random
from typing import TYPE_CHECKING

import msgspec
import pytest

from secagg import messages
from secagg.errors import DecodingError, ShareError
from secagg.server import Server
from tests.fuzz import fuzz
from tests.fuzz.fuzz import Limit
from tests.fuzz.mutate import BARE, VERSIONED, Framing, mutant
from tests.fuzz.targets import MESSAGES, SERVERS, TARGETS, Target, decode_message

if TYPE_CHECKING:
    from pathlib import Path

    from secagg.messages import Message

INPUTS = 3000


def sweep(target: Target) -> None:
    """Runs a target over its seeds and over mutations of them."""
    rng = Random(1)
    for seed in target.seeds:
        target.run(seed)
    for _ in range(INPUTS // target.cost):
        data = rng.choice(target.seeds)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = mutant(data, rng, target.seeds, target.framing)
        try:
            target.run(data)
        except BaseException as error:
            error.add_note(f"input: {data.hex()}")
            raise


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_its_named_refusal_comes_out_of_a_decoder(name: str) -> None:
    sweep(TARGETS[name])


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.allowed])
def test_a_decoder_accepts_the_inputs_that_fuzzing_starts_from(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].function(seed)


def reads_too_far(data: bytes) -> None:
    """A decoder that trusts a length which the input names."""
    if not data:
        raise DecodingError("empty")
    data[data[0]]


BROKEN = Target(reads_too_far, (DecodingError,), [b"\x01\x00"])


def test_a_decoder_that_reads_too_far_is_caught() -> None:
    with pytest.raises(IndexError) as raised:
        sweep(BROKEN)
    data = bytes.fromhex(raised.value.__notes__[0].removeprefix("input: "))
    assert data[0] >= len(data)


def test_a_decoder_that_takes_a_second_spelling_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def lenient(data: bytes) -> Message:
        try:
            return messages._decoder.decode(data[1:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise DecodingError("malformed") from None

    monkeypatch.setattr(messages, "decode", lenient)
    with pytest.raises(AssertionError):
        sweep(TARGETS["messages.decode"])


def test_a_server_that_a_refusal_changes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def keeps_first(server: Server, message: Message, sender: int) -> Message:
        server._answers[sender] = message
        raise ShareError("too late")

    monkeypatch.setattr(Server, "_take", keeps_first)
    with pytest.raises(AssertionError, match="a refusal has changed the server"):
        sweep(TARGETS["server.receive semi-honest"])
    for game in SERVERS["semi-honest"].games:
        game.server._answers.pop(1, None)


@pytest.mark.parametrize("framing", [None, BARE, VERSIONED])
def test_a_seed_fixes_the_mutations(framing: Framing | None) -> None:
    first, again = (
        [mutant(seed, Random(place), MESSAGES, framing) for place, seed in enumerate(MESSAGES)] for _ in range(2)
    )
    assert first == again
    assert first != MESSAGES


def test_inputs_are_shared_so_that_slow_targets_get_fewer() -> None:
    shares = Limit(850, 60).shared({"fast": BROKEN, "slow": Target(reads_too_far, (), [], cost=16)})
    assert {name: limit.flag for name, limit in shares.items()} == {"fast": "-runs=800", "slow": "-runs=50"}


def test_time_is_shared_equally() -> None:
    shares = Limit(None, 60).shared({"fast": BROKEN, "slow": Target(reads_too_far, (), [], cost=16)})
    assert {limit.flag for limit in shares.values()} == {"-max_total_time=30"}


def test_without_atheris_the_fuzzer_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    assert fuzz.main([]) == 2
    assert "pip install 'secagg[fuzz]'" in capsys.readouterr().err


def test_the_fuzzer_saves_the_input_that_breaks_a_decoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("atheris", reason="make fuzz installs it")
    sound = Target(decode_message, (DecodingError,), MESSAGES, VERSIONED)
    assert fuzz.fuzz_all({"broken": BROKEN, "sound": sound}, Limit(2000, 1), 1, tmp_path) == 1
    (finding,) = tmp_path.iterdir()
    with pytest.raises(IndexError):
        BROKEN.run(finding.read_bytes())
    lines = capsys.readouterr().out.splitlines()
    assert f"input: {finding}" in lines
    table = {line.split()[0]: line.split()[-1] for line in lines if line.startswith(("broken", "sound", "total"))}
    assert table == {"broken": "1", "sound": "0", "total": "1"}
