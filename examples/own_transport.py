"""The protocol over a transport of one's own: here a thread a client and queues in place of a network.

The state machines never send, sleep or look at a clock. What a deployment brings is exactly what stands below: moving
bytes, and deciding how long to wait before a round is closed. Run it with `python examples/own_transport.py`.
"""

import queue
import secrets
import threading
import time

import numpy as np

import secagg
from secagg.errors import SecAggError

CLIENTS = 8
DEADLINE_SECONDS = 60.0
layout = secagg.Layout((secagg.Tensor("weight", (4, 3)), secagg.Tensor("bias", (4,))))
session = secagg.Session(
    id=secrets.token_bytes(16), params=secagg.Params(min_cohort=3), layout=layout, mode="uniform", weighted=False
)
to_server: queue.Queue[tuple[int, bytes | None]] = queue.Queue()  # None: the connection is lost
to_client: dict[int, queue.Queue[bytes | None]] = {number: queue.Queue() for number in range(CLIENTS)}


def run_client(number: int) -> None:
    """One client: four messages out, three in. Client 5 loses its connection after it has shared its keys."""
    update = {"weight": np.full((4, 3), number / 10), "bias": np.full(4, 0.5)}
    client = secagg.Client(number, session)
    to_server.put((number, client.advertise_keys()))
    for answer in (client.share_keys, lambda relayed: client.masked_input(relayed, update), client.unmask):
        received = to_client[number].get()
        if received is None:
            return
        to_server.put((number, answer(received)))
        if number == 5 and answer == client.share_keys:
            to_server.put((number, None))
            return


def run_server() -> secagg.Aggregate:
    """Takes messages until nobody is left to wait for, or the deadline has passed; then closes the round."""
    server = secagg.Server(session, invited=range(CLIENTS))
    lost: set[int] = set()
    while server.round is not secagg.Round.DONE:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while set(server.awaited).difference(lost) and (left := deadline - time.monotonic()) > 0:
            try:
                sender, message = to_server.get(timeout=left)
            except queue.Empty:
                break
            if message is None:
                lost.add(sender)
                continue
            try:
                server.receive(message, sender)
            except SecAggError as error:
                print(f"refused a message of client {sender}: {error}")
        for number, outgoing in server.close_round().items():
            to_client[number].put(outgoing)
    return server.outcome


threads = [threading.Thread(target=run_client, args=(number,), daemon=True) for number in range(CLIENTS)]
for thread in threads:
    thread.start()
aggregate = run_server()
for inbox in to_client.values():
    inbox.put(None)
means = layout.by_tensor(aggregate.mean)
print(f"survivors {aggregate.survivors}: mean weight {means['weight'][0, 0]:.4f}, mean bias {means['bias'][0]:.4f}")
