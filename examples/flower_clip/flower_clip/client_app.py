"""What a node does: it trains what it holds of the model, and says what that is.

Encryption comes in with the mod alone.
"""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from protocols.engines.flower import declare, secure_aggregation_mod

from .methods import method_of
from .task import Task

app = ClientApp()


@app.train(mods=[secure_aggregation_mod])  # type: ignore[untyped-decorator]  # Flower's types are not read
def train(message: Message, context: Context) -> Message:
    """Trains on the node's examples."""
    task, partition = Task(context.run_config), int(context.node_config["partition-id"])
    received = message.content["arrays"]
    mask = method_of(task).mask(partition, context, received)
    number = int(message.content["config"]["server-round"])
    trained = task.train(partition, number, received.to_torch_state_dict(), mask)
    metrics = MetricRecord({"num-examples": task.example_count(partition)})
    reply = Message(RecordDict({"arrays": ArrayRecord(dict(trained)), "metrics": metrics}), reply_to=message)
    return declare(reply, mask.declaration())
