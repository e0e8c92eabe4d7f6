"""One masked vector for each model, so that no two sums hold one update.

Two sums over nearly the same clients' updates give those of the few in which they differ. A node trains anew in each
session, but from one model it mostly comes to nearly one update: so it masks one for each model that it receives. Where
a sum may have come out, training goes on from another model, as it does after every round that has a mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flwr.app import ConfigRecord

from protocols.engines.flower.records import digest, without_ours
from secagg.errors import DifferencingError

if TYPE_CHECKING:
    from pathlib import Path

    from flwr.app import RecordDict

NAME = "secagg.starts"


class Starts:
    """The models that a node has masked a vector for, 32 bytes each.

    Args:
        state: Of the node, which Flower keeps for a run, or a series of runs.
        folder: Where they are kept for longer, a file each; None for nowhere.
    """

    def __init__(self, state: RecordDict, folder: Path | None = None) -> None:
        self._state = state
        self._folder = folder

    def check(self, start: bytes) -> None:
        """Refuses a model that a vector was masked for.

        Raises:
            DifferencingError: It was.
        """
        if start in self._known or (self._folder is not None and (self._folder / start.hex()).exists()):
            raise DifferencingError("this node has sent what it has for this model: start from a new model")

    def add(self, start: bytes) -> None:
        """Notes that a vector is masked for a model, before it leaves.

        Raises:
            DifferencingError: One was before, in another session meanwhile.
        """
        self.check(start)
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                (self._folder / start.hex()).touch(exist_ok=False)
            except FileExistsError:
                raise DifferencingError("this node sends what it has for this model in another run") from None
        self._keep([*self._known, start])

    def discard(self, start: bytes) -> None:
        """Takes a model back, if a vector that was masked for it is in no sum."""
        self._keep([known for known in self._known if known != start])
        if self._folder is not None:
            (self._folder / start.hex()).unlink(missing_ok=True)

    @property
    def _known(self) -> list[bytes]:
        return list(self._state.get(NAME, {}).get("starts", []))

    def _keep(self, starts: list[bytes]) -> None:
        self._state.pop(NAME, None)
        if starts:
            self._state[NAME] = ConfigRecord({"starts": starts})


def start_of(message_type: str, records: RecordDict) -> bytes:
    """Digest of all arrays that an app is given to train, or to evaluate."""
    return digest(message_type, without_ours(records).array_records)
