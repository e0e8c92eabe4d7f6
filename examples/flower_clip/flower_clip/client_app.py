"""What a node does: it trains what it holds of the model, and says what that is.

Encryption comes in with the mod alone. The straggler chooses its units by how the global model has changed, so its
mask says nothing about its data.
"""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from protocols.engines.flower import declare, secure_aggregation_mod

from .task import Task

SEEN, BEFORE, RUN = "clip.seen", "clip.before", "clip.run"

app = ClientApp()


@app.train(mods=[secure_aggregation_mod])  # type: ignore[untyped-decorator]  # Flower's types are not read
def train(message: Message, context: Context) -> Message:
    """Trains on the node's examples."""
    task, partition = Task(context.run_config), int(context.node_config["partition-id"])
    received = message.content["arrays"]
    before, start = previous(context, received), received.to_torch_state_dict()
    mask = task.mask(partition, before and before.to_torch_state_dict(), start)
    trained = task.train(partition, int(message.content["config"]["server-round"]), start, mask)
    metrics = MetricRecord({"num-examples": task.example_count(partition)})
    reply = Message(RecordDict({"arrays": ArrayRecord(dict(trained)), "metrics": metrics}), reply_to=message)
    return declare(reply, mask.declaration())


def previous(context: Context, received: ArrayRecord) -> ArrayRecord | None:
    """The global model that this node has seen before this one, in this run; None if there was none.

    The state of a node outlives a run, and a round that was aborted sends the same model again.
    """
    state, run = context.state, ConfigRecord({"id": str(context.run_id)})
    if state.get(RUN) != run:
        for name in (SEEN, BEFORE):
            state.pop(name, None)
    seen = state.get(SEEN)
    if seen is not None and seen != received:
        state[BEFORE] = seen
    state[RUN], state[SEEN] = run, received
    return state.get(BEFORE)
