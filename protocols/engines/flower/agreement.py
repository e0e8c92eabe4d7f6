"""What the server proposes to every node before a session starts: all that a ``Session`` is made of, as bytes.

Metrics travel in the session of the updates: each is one more coordinate, which everybody holds, under the same weight.
So its mean over the clients comes out as theirs does, and the same rules say when it is released.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from secagg import Layout, Params, Session, Tensor
from secagg.errors import DecodingError, ParameterError
from secagg.messages import SessionId
from secagg.params import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping

METRIC = "secagg.metric."
"""Begins the names of the tensors that are metrics."""


class _Tensor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: str
    shape: tuple[int, ...]
    dtype: str
    unit_axes: dict[int, tuple[int, ...]]
    layer: str


class Agreement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="secagg flower 1"):
    """One session of one round of one run.

    Args:
        run: Id of the run.
        round: The round, from 1.
        session: Id of the session.
        params: Its settings, without the ranges of the metrics.
        mode: Its mode.
        weighted_by: Name of the metric that is a client's weight; empty where all weigh the same.
        metrics: Names of the metrics that are averaged, and their largest magnitudes.
        tensors: Of the model; none in a session that only averages metrics.
        unit_groups: Of the layout.
        request: ``records.digest`` of all that is asked of the app, which is the same for everybody then; empty where
            the server may ask each node for something else.
    """

    run: str
    round: int
    session: SessionId
    params: Params
    mode: Mode
    weighted_by: str
    metrics: tuple[tuple[str, float], ...]
    tensors: tuple[_Tensor, ...]
    unit_groups: tuple[tuple[str, int], ...]
    request: bytes = b""

    @property
    def model(self) -> Layout | None:
        """The layout of the model alone; None where there is none."""
        if not self.tensors:
            return None
        return Layout(tuple(map(_layout_tensor, self.tensors)), dict(self.unit_groups))

    def as_session(self) -> Session:
        """The session that everybody agrees on; its context is all of the agreement.

        Raises:
            ParameterError: The parts contradict each other.
        """
        metrics = tuple(Tensor(METRIC + name, (), "float64", layer=METRIC + name) for name, _ in self.metrics)
        return Session(
            id=self.session,
            params=_with_metrics(self.params, dict(self.metrics)),
            layout=Layout((*map(_layout_tensor, self.tensors), *metrics), dict(self.unit_groups)),
            mode=self.mode,
            weighted=bool(self.weighted_by),
            context=hashlib.sha256(Agreement.decode(self.encode()).encode()).digest(),  # as a node reads it
        )

    def encode(self) -> bytes:
        """The agreement as bytes."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Agreement:
        """Inverse of ``encode``.

        Raises:
            DecodingError: Anything else.
        """
        try:
            return msgspec.msgpack.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise DecodingError("not an agreement of this version") from None

    def next(self, session: bytes) -> Agreement:
        """The same for the next round, in a session of its own."""
        return msgspec.structs.replace(self, round=self.round + 1, session=session)


def tensors_of(layout: Layout | None) -> tuple[_Tensor, ...]:
    """The tensors of a layout as an agreement lists them."""
    if layout is None:
        return ()
    return tuple(_Tensor(one.name, one.shape, one.dtype, dict(one.unit_axes), one.layer) for one in layout.tensors)


def _with_metrics(params: Params, metrics: Mapping[str, float]) -> Params:
    """Settings of a session in which metrics are summed too."""
    if not metrics:
        return params
    if params.privacy is not None:
        raise ParameterError("metrics would share the clip of Params.privacy with the update: leave out metrics")
    ranges = {"*": params.value_range} if isinstance(params.value_range, float) else dict(params.value_range)
    return replace(params, value_range=ranges | {METRIC + name: limit for name, limit in metrics.items()})


def _layout_tensor(tensor: _Tensor) -> Tensor:
    return Tensor(tensor.name, tensor.shape, tensor.dtype, tensor.unit_axes, layer=tensor.layer)
