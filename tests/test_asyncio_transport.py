"""The asyncio recipe under losses, returns and hostility, on real sockets: what it prints is what stays."""

from __future__ import annotations

import asyncio
import importlib
import runpy
import socket
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from secagg import driver
from secagg.messages import AdvertiseKeys, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from secagg import Aggregate

EXAMPLES = Path(__file__).parent.parent / "examples"
STEPS = (1, 2, 3)
"""Answers of a client after its keys: shares, masked vector, unmasking."""


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = importlib.import_module("asyncio_transport")
    monkeypatch.setattr(module, "GRACE", 0.3)
    return module


@pytest.fixture
def folder(recipe: Any, tmp_path: Path) -> Path:
    recipe.make_certificates(tmp_path, recipe.CLIENTS)
    return tmp_path


def run(
    recipe: Any, folder: Path, client: Callable[[int, int], Awaitable[None]], *, encrypted: bool = True
) -> Aggregate:
    """One session, in which every client is what ``client`` makes of its number and the port."""

    async def everybody() -> Aggregate:
        listening = socket.create_server((recipe.HOST, 0))
        port = listening.getsockname()[1]
        server = recipe.run_server(listening, recipe.tls_context(folder, "server") if encrypted else None)
        found, *_ = await asyncio.gather(server, *(client(number, port) for number in range(recipe.CLIENTS)))
        return found

    return asyncio.run(everybody())


def context(recipe: Any, folder: Path, number: int) -> ssl.SSLContext:
    return recipe.tls_context(folder, f"client-{number}")


def assert_mean_over(aggregate: Aggregate, clients: list[int]) -> None:
    assert list(aggregate.survivors) == clients
    expected = np.full(16, 0.5)
    expected[:12] = sum(clients) / 10 / len(clients)
    # Half a step of the grid for each client, and the mean of as many is no further off.
    np.testing.assert_allclose(aggregate.mean, expected, rtol=0, atol=4.0 / 2**20)


def test_the_demo_loses_one_client_takes_another_back_and_has_their_mean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", ["asyncio_transport.py"])
    runpy.run_path(str(EXAMPLES / "asyncio_transport.py"), run_name="__main__")
    assert capsys.readouterr().out == "survivors (0, 1, 2, 3, 4, 6, 7): mean weight 0.3286, mean bias 0.5000\n"


def test_it_fits_on_a_few_pages() -> None:
    assert len((EXAMPLES / "asyncio_transport.py").read_text().splitlines()) <= 200


@pytest.mark.parametrize("encrypted", [True, False], ids=["TLS", "clear"])
@pytest.mark.parametrize("step", STEPS)
def test_a_client_whose_answer_is_lost_sends_it_again(recipe: Any, folder: Path, step: int, encrypted: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async def client(number: int, port: int) -> None:
        tls = context(recipe, folder, number) if encrypted else None
        if number == 2:
            await recipe.run_client(number, folder, port, tls, step)
        await recipe.run_client(number, folder, port, tls)

    assert_mean_over(run(recipe, folder, client, encrypted=encrypted), list(range(8)))
    assert not list(folder.glob("client-*-*"))


@pytest.mark.parametrize("step", STEPS)
def test_a_client_that_does_not_come_back_is_left_out_unless_its_vector_has_arrived(
    recipe: Any, folder: Path, step: int
) -> None:
    async def client(number: int, port: int) -> None:
        await recipe.run_client(number, folder, port, context(recipe, folder, number), step if number == 5 else 0)

    left = [0, 1, 2, 3, 4, 6, 7] if step < 3 else list(range(8))
    assert_mean_over(run(recipe, folder, client), left)


def test_a_client_goes_on_in_another_process(recipe: Any, folder: Path) -> None:
    async def client(number: int, port: int) -> None:
        if number != 2:
            return await recipe.run_client(number, folder, port, context(recipe, folder, number))
        for breaks in (2, 0):
            code = (
                f"import asyncio, pathlib, sys; sys.path.insert(0, {str(EXAMPLES)!r}); import asyncio_transport as it\n"
                f"folder = pathlib.Path({str(folder)!r})\n"
                f"asyncio.run(it.run_client(2, folder, {port}, it.tls_context(folder, 'client-2'), {breaks}))"
            )
            process = await asyncio.create_subprocess_exec(sys.executable, "-W", "error", "-c", code)
            assert await process.wait() == 0
        return None

    recipe.GRACE = 20.0  # to start Python takes a while
    assert_mean_over(run(recipe, folder, client), list(range(8)))


def test_no_hostile_frame_ends_the_round(recipe: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def says(port: int, tls: ssl.SSLContext, *frames: bytes) -> None:
        reader, writer = await asyncio.open_connection(recipe.HOST, port, ssl=tls)
        for one in frames:
            writer.write(one)
        assert isinstance(await reader.read(), bytes)  # comes back when the server has ended the connection
        await recipe.close(writer)

    def frame(message: bytes) -> bytes:
        return len(message).to_bytes(4) + message

    async def client(number: int, port: int) -> None:
        tls = context(recipe, folder, number)
        if number == 7:
            seven, endless = frame(bytes([7])), (2**32 - 1).to_bytes(4)
            another = encode(AdvertiseKeys(bytes(16), 3, bytes(32), bytes(32)))
            await says(port, tls, seven[:3])  # and then nothing
            await says(port, tls, endless)
            await says(port, tls, seven, frame(b"nonsense"), frame(another), endless)
            await says(port, tls, frame(bytes([6])))
        await recipe.run_client(number, folder, port, tls)

    assert_mean_over(run(recipe, folder, client), list(range(8)))
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines[:-1]) == [
        "cut off client -1: a frame of 4294967295 bytes, and 8 is the most",
        "cut off client 6: its certificate names somebody else",
        f"cut off client 7: a frame of 4294967295 bytes, and {recipe.LIMIT} is the most",
        "refused a message of client 7: a message in another client's name",
        "refused a message of client 7: not a message of wire version 1",
    ]


def test_who_has_no_certificate_is_not_heard(recipe: Any, folder: Path) -> None:
    async def client(number: int, port: int) -> None:
        if number == 4:
            stranger = ssl.create_default_context(cafile=folder / "authority.pem")
            with pytest.raises((OSError, EOFError)):
                await recipe.run_client(number, folder, port, stranger)
        await recipe.run_client(number, folder, port, context(recipe, folder, number))

    assert_mean_over(run(recipe, folder, client), list(range(8)))


def test_certificates_pass_the_strict_rules_of_later_pythons(recipe: Any, folder: Path) -> None:
    async def client(number: int, port: int) -> None:
        tls = context(recipe, folder, number)
        tls.verify_flags |= ssl.VERIFY_X509_STRICT
        await recipe.run_client(number, folder, port, tls)

    assert_mean_over(run(recipe, folder, client), list(range(8)))


def test_no_message_of_the_session_is_longer_than_the_limit(recipe: Any) -> None:
    lengths: list[int] = []
    update = {"weight": np.ones((4, 3)), "bias": np.ones(4)}
    contributions = dict.fromkeys(range(recipe.CLIENTS), driver.Contribution(update))
    driver.run(recipe.session_of(id=bytes(16)), contributions, observe=lambda message: lengths.append(len(message)))
    assert max(lengths) <= recipe.LIMIT
