"""How a ClientApp says which coordinates it trained: on the reply that it returns anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from flwr.app import ConfigRecord

from protocols.engines.flower.records import MASK
from secagg import Declaration, Provenance, declaration
from secagg.declaration import FULL
from secagg.errors import DecodingError, ParameterError
from secagg.structure import mask_vector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flwr.app import Message, RecordDict
    from numpy.typing import NDArray

    from secagg import Layout


def declare(
    reply: Message,
    mask: Declaration | Mapping[str, NDArray[np.bool_]],
    provenance: Provenance = Provenance.DATA,
) -> Message:
    """Says which coordinates the arrays of a reply are about; they keep their full shapes, the rest is ignored.

    Args:
        reply: What a train function is about to return.
        mask: A declaration over the layout that the strategy was given (``pruning.Mask.declaration``), or name of
            every array to bools in its shape.
        provenance: What bools were computed from; a declaration says so itself.

    Returns:
        The reply.

    Raises:
        ParameterError: Neither of the two.
    """
    if isinstance(mask, Declaration):
        record: dict[str, Any] = {"kind": mask.kind, "data": mask.data, "provenance": mask.provenance.value}
    elif all(isinstance(held, np.ndarray) and held.dtype == np.bool_ for held in mask.values()):
        shapes = {f"shape {name}": list(held.shape) for name, held in mask.items()}
        bits = {f"bits {name}": np.packbits(held).tobytes() for name, held in mask.items()}
        record = {"kind": "arrays", "provenance": provenance.value, **shapes, **bits}
    else:
        raise ParameterError("declare takes a Declaration, or a mapping from array names to arrays of bools")
    reply.content[MASK] = ConfigRecord(record)
    return reply


def declared(records: RecordDict, layout: Layout) -> Declaration:
    """What the app declared, over the layout of the model; everything if it declared nothing.

    Raises:
        LayoutMismatchError: Bools that do not fit the layout.
        DecodingError: No declaration.
    """
    record = records.config_records.get(MASK)
    if record is None:
        return FULL
    try:
        provenance = Provenance(record["provenance"])
        if record["kind"] != "arrays":
            return msgspec.convert([record["kind"], record["data"], provenance], Declaration)
        held = {name.removeprefix("bits "): _bools(record, name) for name in record if name.startswith("bits ")}
    except (KeyError, ValueError, TypeError):
        raise DecodingError("no declaration of a mask: use declare") from None
    return declaration.of_coordinates(layout, mask_vector(layout, held, "here"), provenance)


def over_session(declared_: Declaration, model: Layout, layout: Layout) -> Declaration:
    """A declaration over the model as one over the session, where everybody holds the metrics.

    Raises:
        DecodingError: It does not fit the model.
    """
    held = declaration.expand(model, declared_)
    everything = np.concatenate([held, np.ones(layout.size - model.size, bool)])
    return declaration.of_coordinates(layout, everything, declared_.provenance)


def _bools(record: Mapping[str, Any], name: str) -> NDArray[np.bool_]:
    shape = record[f"shape {name.removeprefix('bits ')}"]
    bits = np.unpackbits(np.frombuffer(record[name], np.uint8), count=int(np.prod(shape)))
    return bits.view(bool).reshape(shape)
