"""What a client brings to a session besides its update: the mask that it declares, and its weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from secagg import declaration, encoding
from secagg.declaration import Declaration
from secagg.errors import LayoutMismatchError, ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from secagg.session import Session


def declare(session: Session, mask: Declaration | NDArray[np.bool_] | None) -> tuple[Declaration, NDArray[np.bool_]]:
    """The declaration to publish, and the coordinates that are really held, (layout.size,) bool.

    Raises:
        InputError: The mask does not fit the layout, or prunes in a uniform session without counts.
    """
    layout = session.layout
    if mask is None:
        declared = declaration.FULL
    elif isinstance(mask, Declaration):
        declared = mask
    else:
        declared = declaration.of_coordinates(layout, np.asarray(mask), declaration.Provenance.DATA)
    own = declaration.expand(layout, declared)
    if session.mode == "mask-indexed":
        return declared, own
    if session.counted is None and not own.all():
        raise LayoutMismatchError("a uniform session of pruned updates needs counts: run a counting session first")
    return declaration.FULL, own


def weigh(session: Session, weight: float | None) -> tuple[int | None, int | None]:
    """The encoded weight, and the bucket to publish.

    Raises:
        ParameterError: A weight where there are none, or none where there are.
        WeightError: It is out of range.
    """
    if (weight is not None) != session.weighted:
        raise ParameterError("this session is weighted: bring a weight" if session.weighted else "no weights here")
    if weight is None:
        return None, None
    if session.params.weighting != "public":
        return encoding.encode_weight(session.params, weight), None
    bucket = encoding.weight_bucket(session.params, weight)
    return encoding.bucket_weight(session.params, bucket), bucket
