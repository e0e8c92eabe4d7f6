"""What the wrapped app is asked to do, and what of its reply goes into the session.

The app trains when shares are dealt, before anything is masked: mask and weight, which may depend on the training, are
declared there; whoever fails to train has promised nothing yet, and counts for no dropout; and the update is settled
before there is a mask for it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from protocols.engines.flower.agreement import METRIC
from protocols.engines.flower.declared import declared, over_session
from protocols.engines.flower.records import digest, without_ours
from secagg import delta, encoding
from secagg.declaration import FULL, expand
from secagg.errors import SERVER, AgreementError, InputError, LayoutMismatchError, WeightError
from secagg.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flwr.app import Context, Message, RecordDict
    from flwr.clientapp.typing import ClientAppCallable
    from numpy.typing import NDArray

    from protocols.engines.flower.agreement import Agreement
    from secagg import Declaration, Layout

    Arrays = dict[str, NDArray[Any]]


class AppError(Exception):
    """The app replied with an error of its own.

    Args:
        reply: That reply.
    """

    def __init__(self, reply: Message) -> None:
        super().__init__("the app replied with an error")
        self.reply = reply


@dataclass(frozen=True, eq=False)
class Trained:
    """What a client brings.

    Args:
        update: Tensor name to values, over the layout of the session.
        mask: What it holds of them.
        weight: Its weight; None where all weigh the same.
    """

    update: Mapping[str, NDArray[Any]] = field(repr=False)
    mask: Declaration = field(repr=False)
    weight: float | None = field(repr=False)


def train(message: Message, context: Context, call_next: ClientAppCallable, agreement: Agreement) -> Trained:
    """Has the app train, and takes from its reply what the session sums.

    Args:
        message: What the server sent; the app sees it without anything of ours.
        context: Of the node.
        call_next: The app.
        agreement: What the session is.

    Raises:
        AppError: It replied with an error.
        AgreementError: The server asks for something else than was agreed on.
        InputError: The reply lacks something, or cannot be aggregated.
    """
    asked = copy.copy(message)
    asked.content = without_ours(message.content)
    if agreement.request and digest(message.metadata.message_type, asked.content) != agreement.request:
        raise AgreementError("the server asks this node for something else than was agreed on", culprits=[SERVER])
    session, model = agreement.as_session(), agreement.model
    start = {} if model is None else _start(asked.content, model)
    reply = call_next(asked, context)
    if reply.has_error():
        raise AppError(reply)
    update, mask = _metrics(reply.content, agreement), FULL
    if model is not None:
        update |= _difference(reply.content, start, model)
        mask = over_session(declared(reply.content, model), model, session.layout)
    if session.mode == "uniform" and not expand(session.layout, mask).all():
        raise LayoutMismatchError("a client holds a part of the model only: set mode='mask-indexed'")
    encoding.check_update(session.layout, session.params, update, expand(session.layout, mask))
    return Trained(update, mask, _weight(reply.content, agreement.weighted_by))


def arrays_in(records: RecordDict) -> Arrays:
    """The arrays of a message by name.

    Raises:
        InputError: Not exactly one ArrayRecord.
    """
    found = list(records.array_records.values())
    if len(found) != 1:
        raise InputError(f"a message with the model has one ArrayRecord, not {len(found)}")
    return {name: array.numpy() for name, array in found[0].items()}


def shapes_of(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Name to shape of every tensor."""
    return {tensor.name: tensor.shape for tensor in layout.tensors}


def _start(records: RecordDict, model: Layout) -> Arrays:
    start = arrays_in(records)
    if shapes_of(Structure(start).layout) != shapes_of(model):
        raise AgreementError("the server sent another model than was agreed on", culprits=[SERVER])
    return start


def _difference(records: RecordDict, start: Arrays, model: Layout) -> Arrays:
    trained = arrays_in(records)
    if set(trained) != set(start):
        raise LayoutMismatchError("the app replied with other arrays than it received")
    for name, values in start.items():
        if trained[name].shape != values.shape:
            raise LayoutMismatchError(f"the app replied with another shape of {name} than it received")
    changed = delta({name: trained[name].astype(values.dtype) for name, values in start.items()}, start)
    return {tensor.name: changed[tensor.name] for tensor in model.tensors}


def _numbers(records: RecordDict) -> Mapping[str, Any]:
    return {name: value for record in records.metric_records.values() for name, value in record.items()}


def _metrics(records: RecordDict, agreement: Agreement) -> Arrays:
    found = _numbers(records)
    for name, _ in agreement.metrics:
        if not isinstance(found.get(name), int | float):
            raise InputError(f"the app's reply has no metric {name} that is a number")
    return {METRIC + name: np.asarray(found[name], np.float64) for name, _ in agreement.metrics}


def _weight(records: RecordDict, name: str) -> float | None:
    if not name:
        return None
    weight = _numbers(records).get(name)
    if not isinstance(weight, int | float):
        raise WeightError(f"the app's reply has no metric {name} that is a number, which is its weight")
    return float(weight)
