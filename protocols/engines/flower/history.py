"""What every round came to: frozen rows, and the same as JSON and CSV."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from secagg.privacy.events import Event

Outcome = Literal["aggregated", "aborted"]


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """One exchange with the nodes.

    Args:
        stage: Its name; ``"AdvertiseKeys"`` is missing where keys came with the round before.
        asked: Nodes that were sent a message.
        answered: Nodes whose answer was accepted.
        failures: Node to why it was not, for those that answered something else. The others said nothing in time.
        download_bytes: Payload sent to all nodes together, as ``records.payload_bytes`` counts it.
        upload_bytes: Payload that came back.
        seconds: From the first message out to the last one in.
    """

    stage: str
    asked: int
    answered: int
    failures: dict[int, str]
    download_bytes: int
    upload_bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One round.

    Args:
        round: Its number, from 1.
        kind: ``train`` or ``evaluate``.
        outcome: Whether there is a mean.
        reason: Why not.
        stages: The exchanges, in order.
        survivors: Clients in the mean.
        total_weight: Their weight.
        smallest_group: Fewest clients behind any released coordinate.
        withheld_share: Share of the coordinates that were withheld.
        verdict: Who learned what.
        event: What the round was to whoever accounts for privacy: one that was aborted when it was unmasked, too. None
            without ``Params.privacy``.
        used_up: Whether it was aborted when nodes had sent what they have for this model: they send nothing more for
            it, and training goes on from another one only.
    """

    round: int
    kind: str
    outcome: Outcome
    reason: str = ""
    stages: tuple[StageRecord, ...] = ()
    survivors: int = 0
    total_weight: float = 0.0
    smallest_group: int = 0
    withheld_share: float = 0.0
    verdict: str = ""
    event: Event | None = None
    used_up: bool = False

    @property
    def download_bytes(self) -> int:
        """Payload that went to the nodes."""
        return sum(stage.download_bytes for stage in self.stages)

    @property
    def upload_bytes(self) -> int:
        """Payload that came from them."""
        return sum(stage.upload_bytes for stage in self.stages)

    @property
    def seconds(self) -> float:
        """All exchanges together."""
        return sum(stage.seconds for stage in self.stages)

    def line(self) -> str:
        """The round in one line, for the log."""
        alive = " ".join(f"{stage.stage} {stage.answered}/{stage.asked}" for stage in self.stages)
        cost = f"{self.upload_bytes / 1e6:.2f} MB up, {self.download_bytes / 1e6:.2f} MB down, {self.seconds:.1f} s"
        if self.outcome == "aborted":
            come_to = "start from a new model" if self.used_up else "nothing was released"
            return f"aborted, {come_to} ({self.reason}): {alive}, {cost}"
        return f"mean over {self.survivors} clients, at least {self.smallest_group} everywhere: {alive}, {cost}"


def write_json(rows: Iterable[RoundRecord], path: Path) -> None:
    """Writes rounds as a JSON array, with their stages."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(list(rows))) + b"\n")


def write_csv(rows: Iterable[RoundRecord], path: Path) -> None:
    """Writes a line for each exchange of each round."""
    lines = [_flat(row, stage) for row in rows for stage in row.stages]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(_COLUMNS))
        writer.writeheader()
        writer.writerows(lines)


_OF_ROUND = ("round", "kind", "outcome", "reason", "survivors", "total_weight", "smallest_group", "withheld_share")
_OF_STAGE = ("stage", "asked", "answered", "download_bytes", "upload_bytes", "seconds")
_COLUMNS = (*_OF_ROUND, *_OF_STAGE, "failures")


def _flat(row: RoundRecord, stage: StageRecord) -> dict[str, object]:
    of_round = {name: getattr(row, name) for name in _OF_ROUND}
    of_stage = asdict(stage)
    failures = "; ".join(f"{node}: {reason}" for node, reason in stage.failures.items())
    return of_round | {name: of_stage[name] for name in _OF_STAGE} | {"failures": failures}
