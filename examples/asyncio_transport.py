"""The protocol over TCP with asyncio: a server, and clients that may lose their connection, die, and come back.

    python examples/asyncio_transport.py              all in this process, with much of what may go wrong
    python examples/certificates.py DIR 8             each in a process of its own: certificates for 8 clients, then
    python examples/asyncio_transport.py server DIR   the server, and
    python examples/asyncio_transport.py client 3 DIR every client, which keeps its state in DIR

A frame is its length in 4 bytes, and a message; an empty one is the end. A client says its number, is told the session,
and sends its last answer, which the server may have missed; the server sends what it last sent to that client, which
the client may have missed. Between two messages a client is a file: it may be killed at any time, and started again.
"""

import asyncio
import secrets
import socket
import ssl
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from certificates import make_certificates, tls_context  # type: ignore[import-not-found]  # beside this file

import secagg
from secagg import messages
from secagg.errors import DecodingError, LocalProtocolError, SecAggError, UnknownClientError

HOST, PORT, CLIENTS = "127.0.0.1", 8765, 8
DEADLINE, GRACE = 60.0, 2.0  # seconds that a round waits for a client; for one whose connection is lost
LAYOUT = secagg.Layout((secagg.Tensor("weight", (4, 3)), secagg.Tensor("bias", (4,))))
# No message is longer: a vector of at most 8 bytes a place, or for everybody a declaration, a signature and shares.
LIMIT = 1024 + max(8 * (2 * LAYOUT.size + CLIENTS), CLIENTS * (1024 + LAYOUT.size // 8))
# What both sides have agreed on before, but for the id, which the server draws.
session_of = partial(secagg.Session, params=secagg.Params(min_cohort=3), layout=LAYOUT, mode="uniform")


def send(writer: asyncio.StreamWriter, message: bytes) -> None:
    """Writes a frame."""
    writer.write(len(message).to_bytes(4) + message)


async def receive(reader: asyncio.StreamReader, limit: int = LIMIT) -> bytes:
    """Reads a frame; one that is too long is refused before it takes any memory."""
    if (length := int.from_bytes(await reader.readexactly(4))) > limit:
        raise DecodingError(f"a frame of {length} bytes, and {limit} is the most")
    return await reader.readexactly(length)


async def close(writer: asyncio.StreamWriter) -> None:
    """Ends a connection, if it has not ended."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


class Hub:
    """The server's end of all connections; what arrives on any waits in one queue, and when that is full, outside."""

    def __init__(self, server: secagg.Server) -> None:
        self.server = server
        self.inbox: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(CLIENTS)
        self.writers: dict[int, asyncio.StreamWriter] = {}
        self.lost: dict[int, float] = {}

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from beginning to end."""
        number = -1
        try:
            number = int.from_bytes(await asyncio.wait_for(receive(reader, 8), GRACE))
            peer = writer.get_extra_info("peercert")  # None without TLS, where anybody may say any number
            if peer and peer["subject"] != ((("commonName", f"client-{number}"),),):
                raise UnknownClientError("its certificate names somebody else")
            self.writers[number] = writer
            self.lost.pop(number, None)
            send(writer, self.server.session.id)
            if number in self.server.outgoing:
                send(writer, self.server.outgoing[number])
            while True:
                await self.inbox.put((number, await receive(reader)))
        except SecAggError as error:
            print(f"cut off client {number}: {error}")
        except (OSError, EOFError):  # the connection is lost, or was silent
            pass
        finally:
            writer.close()
            if self.writers.get(number) is writer:  # else the client has come back already
                del self.writers[number]
                self.lost[number] = asyncio.get_running_loop().time()

    async def collect(self) -> None:
        """Takes messages until everybody has answered, or nobody is left for whom a round waits any longer."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + DEADLINE
        while waiting := self.server.awaited:
            until = min(deadline, max(self.lost.get(number, deadline) + GRACE for number in waiting))
            if until <= clock():
                break
            with suppress(TimeoutError):
                number, message = await asyncio.wait_for(self.inbox.get(), min(GRACE, until - clock()))
                try:  # whatever is wrong with one message ends no round
                    self.server.receive(message, number)
                except SecAggError as error:
                    print(f"refused a message of client {number}: {error}")


async def run_server(listening: socket.socket, tls: ssl.SSLContext | None = None) -> secagg.Aggregate:
    """One session; an AbortError where too few clients are left."""
    hub = Hub(secagg.Server(session_of(id=secrets.token_bytes(16)), invited=range(CLIENTS)))
    tcp = await asyncio.start_server(hub.connected, sock=listening, ssl=tls)
    try:
        while hub.server.round is not secagg.Round.DONE:
            await hub.collect()
            # In a thread: to take masks off a large sum takes seconds, in which connections go on.
            for number, message in (await asyncio.to_thread(hub.server.close_round)).items():
                if number in hub.writers:
                    send(hub.writers[number], message)
    finally:
        tcp.close()
        for writer in hub.writers.values():
            send(writer, b"")
        await asyncio.gather(*map(close, hub.writers.values()))
    mean = hub.server.outcome.mean
    print(f"survivors {hub.server.outcome.survivors}: mean weight {mean[0]:.4f}, mean bias {mean[-1]:.4f}")
    return hub.server.outcome


def advance(session: secagg.Session, number: int, file: Path, received: bytes = b"") -> bytes:
    """One step of a client, from its file to its file: its answer to a message, or without one its last answer."""
    if not file.exists():
        client = secagg.Client(number, session)
        answer = client.advertise_keys()
    else:
        saved, answer = msgspec.msgpack.decode(file.read_bytes(), type=tuple[bytes, bytes])
        if not received or not saved:
            return answer
        client = secagg.Client.restore(session, saved)
        match messages.decode(received):
            case messages.Roster():
                answer = client.share_keys(received)
            case messages.RelayedShares():  # an update that was trained belongs into the file, with the state
                answer = client.masked_input(
                    received, {"weight": np.full((4, 3), number / 10), "bias": np.full(4, 0.5)}
                )
            case _:
                answer = client.unmask(received)
    saved = b"" if received and isinstance(messages.decode(received), messages.UnmaskRequest) else client.save()
    file.with_suffix(".new").touch(0o600)
    file.with_suffix(".new").write_bytes(msgspec.msgpack.encode((saved, answer)))
    file.with_suffix(".new").replace(file)  # whole or not at all; it holds secrets, and no copy may ever be used
    return answer


async def run_client(number: int, folder: Path, port: int, tls: ssl.SSLContext | None, breaks: int = 0) -> None:
    """One client, anew or from its file. It ``breaks`` at that message: the answer is kept, and not sent."""
    reader, writer = await asyncio.open_connection(HOST, port, ssl=tls)
    try:
        send(writer, number.to_bytes(8))
        session = session_of(id=await receive(reader))
        file = folder / f"client-{number}-{session.id.hex()}"
        send(writer, advance(session, number, file))
        while received := await asyncio.wait_for(receive(reader), 2 * DEADLINE):
            with suppress(LocalProtocolError):  # it has answered this, and the answer was sent on connecting
                answer = await asyncio.to_thread(advance, session, number, file, received)
                if (breaks := breaks - 1) == 0:
                    return
                send(writer, answer)
                await writer.drain()
        file.unlink()
    finally:
        await close(writer)


async def demo(folder: Path) -> None:
    """Clients 2 and 5 lose their connection when their vector is masked; 2 comes back."""
    make_certificates(folder, CLIENTS)
    listening = socket.create_server((HOST, 0))
    port = listening.getsockname()[1]

    async def client(number: int) -> None:
        tls = tls_context(folder, f"client-{number}")
        for breaks in {2: (2, 0), 5: (2,)}.get(number, (0,)):
            await run_client(number, folder, port, tls, breaks)

    await asyncio.gather(run_server(listening, tls_context(folder, "server")), *map(client, range(CLIENTS)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["client", number, folder]:
            asyncio.run(run_client(int(number), Path(folder), PORT, tls_context(Path(folder), f"client-{number}")))
        case ["server", folder]:
            asyncio.run(run_server(socket.create_server((HOST, PORT)), tls_context(Path(folder), "server")))
        case _:
            with tempfile.TemporaryDirectory() as temporary:
                asyncio.run(demo(Path(temporary)))
