"""The example's ClientApp with faults in it; the tests copy this file into a copy of the app.

A file named ``PARTITION-ROUND-STAGE`` in the folder of faults says what happens to a node there. ``raise``: its
training raises. ``wait``: it does not go on while the file exists, so that the test can do to its processes what it
likes. That a node has come there says a file of the same name with the ending ``.reached``.
"""

from __future__ import annotations

import importlib
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from flwr.clientapp import ClientApp

if TYPE_CHECKING:
    from flwr.app import Context, Message

example = importlib.import_module("flower_clip.client_app")


class FaultyApp(ClientApp):  # type: ignore[misc]  # Flower's types are not read
    """The example's app, to which something happens."""

    def __call__(self, message: Message, context: Context) -> Any:
        """Answers a message, if nothing happens."""
        said = message.content.config_records.get("secagg", {})
        name = f"{context.node_config['partition-id']}-{message.metadata.group_id}-{said.get('stage')}"
        fault = Path(str(context.run_config["faults"])) / name
        planned: Any = nullcontext()
        if fault.exists():
            if fault.read_text() == "raise":
                planned = mock.patch.object(example.Task, "train", side_effect=RuntimeError("a private value"))
            fault.with_name(name + ".reached").touch()
            while fault.exists() and fault.read_text() == "wait":
                time.sleep(0.1)
        with planned:
            return example.app(message, context)


app = FaultyApp()
