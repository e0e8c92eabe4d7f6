"""Which part of the model a node trains: `method` in the run's config names who decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from secagg.errors import ParameterError

from .clip import Clip
from .ma_clamp import MaClamp

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Context

    from pruning.masks import Mask
    from secagg import Params

    from .task import Task


class Method(Protocol):
    """What a way to prune has to say."""

    params: Params

    def mask(self, partition: int, context: Context, received: ArrayRecord) -> Mask:
        """What a node trains of the global model that it received; what it has to remember is in its context."""

    def about(self, partition: int) -> str:
        """What it trains, for the log."""


METHODS: dict[str, type[Clip | MaClamp]] = {"clip": Clip, "ma-clamp": MaClamp}


def method_of(task: Task) -> Method:
    """The method of a run.

    Raises:
        ParameterError: There is none of that name.
    """
    if task.method not in METHODS:
        raise ParameterError(f"method must be one of {', '.join(METHODS)}, not {task.method!r}")
    return METHODS[task.method](task)
