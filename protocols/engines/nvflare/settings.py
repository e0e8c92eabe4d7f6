"""What both sides agree on before a job starts, and the session that follows from it and a model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from secagg import Layout, Params, Session, merkle
from secagg.errors import AgreementError, ParameterError
from secagg.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from secagg.params import Mode

    Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The same object in the code of the server and of every site; where they differ, no session comes about.

    A Collab job brings the code of its sites along, these settings included. So a site trusts those whose jobs it runs,
    whatever the adversary is; no message of a running job changes what stands here.

    Args:
        params: The settings of the sessions.
        mode: ``"uniform"``, or ``"mask-indexed"`` where clients declare what they hold.
        weighted: Whether each client brings a weight; otherwise all weigh the same.
        layout: The layout of the model with its units, for compact declarations of unit masks; None for one without.
        pinned: With an active server, the public identity of every site by its name.

    Raises:
        ParameterError: Pinned identities without an active server, or the other way round.
    """

    params: Params = field(default_factory=Params)
    mode: Mode = "uniform"
    weighted: bool = False
    layout: Layout | None = None
    pinned: Mapping[str, bytes] | None = None

    def __post_init__(self) -> None:
        if (self.pinned is not None) != self.params.active:
            raise ParameterError("pinned identities and adversary='active' belong together: set both, or neither")

    def session(self, id_: bytes, round_number: int, model: Arrays) -> Session:
        """The session of a round, bound to the model that it starts from.

        Args:
            id_: 16 bytes, never used twice.
            round_number: The round, from 0.
            model: Name to values. What is not floating point is not aggregated.

        Raises:
            InputError: Nothing in the model is floating point, or it is not the model of ``layout``.
        """
        structure = Structure(model)
        layout = self.layout or structure.layout
        buffers = [
            (name, str(model[name].dtype), model[name].shape, np.ascontiguousarray(model[name]).tobytes())
            for name in structure.unchanged
        ]
        return Session(
            id=id_,
            params=self.params,
            layout=layout,
            mode=self.mode,
            weighted=self.weighted,
            model_root=merkle.root(merkle.model_leaves(layout, structure.arrays(model, "server"))),
            context=hashlib.sha256(msgspec.msgpack.encode((round_number, buffers))).digest(),
        )

    def numbers(self, sites: Collection[str]) -> dict[str, int]:
        """The number of every site as a client: its place among those that are pinned, or all of a job, by name.

        Args:
            sites: The names of all sites of the job.
        """
        return {name: number for number, name in enumerate(sorted(self.pinned or sites))}

    def by_number(self) -> dict[int, bytes] | None:
        """The pinned identities by number."""
        pinned = self.pinned
        return None if pinned is None else {number: pinned[name] for name, number in self.numbers(pinned).items()}


def number_of(site: str, numbers: Mapping[str, int]) -> int:
    """The number of a site.

    Raises:
        AgreementError: It has none.
    """
    if site not in numbers:
        raise AgreementError(f"{site} is not among the sites whose identities are pinned")
    return numbers[site]
