"""The demonstration: FedAvg and CLIP under encryption on a simulated fleet, every number measured.

Twenty clients, four of them stragglers, learn scikit-learn's digits from label-skewed parts. After a common warm-up
each system goes on alone from the same model, with the same batches, so that what differs is the system.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from protocols.experiments import campaign
from protocols.experiments import setup as setups
from protocols.experiments.campaign import Campaign
from protocols.experiments.comparison import compare
from protocols.experiments.plots import accuracy_over_time
from protocols.experiments.setup import Place, Setup
from protocols.experiments.suites import suite
from protocols.simulation.calibration import CALIBRATION, Calibration
from protocols.training import one_thread
from secagg import dryrun
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.experiments.campaign import Tell
    from protocols.experiments.comparison import Row, Runs
    from protocols.results import Begin
    from protocols.simulation.calibration import SecureTime
    from secagg.dryrun import DryRun

JSON_NAME, PICTURE_NAME = "demo.json", "demo.png"
SHOWN = ("clip-uniform", "clip")
"""What is compared with FedAvg."""


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What the demonstration runs.

    Args:
        rounds: Rounds of each system after the warm-up.
        seed: Decides everything random.

    Raises:
        ParameterError: Too few rounds, or a negative seed.
    """

    rounds: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        _ = self.campaign

    @property
    def campaign(self) -> Campaign:
        """Both modes, each encrypted and checked against its twin in the clear."""
        base = Setup(
            system="fedavg",
            aggregation="uniform",
            check=True,
            profile="half-everything",
            rounds=self.rounds,
            warm_up=3,
            seed=self.seed,
        )
        return Campaign(base=base, variants=suite("clip", SHOWN), seeds=(self.seed,))


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demonstration measured.

    Args:
        settings: What it ran.
        begins: Seed to where its warm-up ended: seconds and accuracy.
        runs: Label to seed to run.
        rows: The same, each beside FedAvg.
        secure_times: The calibrated times of secure aggregation.
    """

    settings: DemoSettings
    begins: Mapping[int, Begin]
    runs: Mapping[str, Runs]
    rows: tuple[Row, ...]
    secure_times: tuple[SecureTime, ...]

    def verdicts(self) -> dict[str, str]:
        """Who learned what, by label."""
        return {label: run.verdict for label, own in self.runs.items() for run in own.values()}

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "setup": self.settings.campaign.base.to_json(),
            "systems": [row.to_json() for row in self.rows],
            "verdicts": self.verdicts(),
            "secure_times": [asdict(time) for time in self.secure_times],
            "runs": {label: run.to_json() for label, own in self.runs.items() for run in own.values()},
        }

    def write(self, folder: Path) -> None:
        """Writes ``demo.json`` and ``demo.png`` into an existing folder."""
        (folder / JSON_NAME).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        base = self.settings.campaign.base
        fleet = base.fleet()
        accuracy_over_time(
            self.runs,
            folder / PICTURE_NAME,
            title=f"Digits, {len(fleet.devices)} clients of which {len(fleet.stragglers)} stragglers, "
            f"encrypted, after {base.warm_up} warm-up rounds",
            begins=self.begins,
        )


def run(settings: DemoSettings, on_round: Tell = lambda *_: None) -> DemoResult:
    """Runs the demonstration on one thread: bits differ between one and two.

    Args:
        settings: What to run.
        on_round: Called with the label of a system, the seed, and every round that it finished.

    Raises:
        SecAggError: A round that cannot be aggregated.
    """
    planned, place = settings.campaign, Place()
    with TemporaryDirectory() as folder:
        runs = campaign.run(planned, Path(folder), place, on_round=on_round)
        begins = campaign.begins(planned, Path(folder))
        times = Calibration.load(Path(folder) / CALIBRATION).times
    return DemoResult(settings=settings, begins=begins, runs=runs, rows=compare(runs, begins), secure_times=times)


def dry_run(settings: DemoSettings) -> dict[str, DryRun]:
    """What a round of each system would take, by its label; nothing is trained.

    Args:
        settings: What would run.
    """
    planned, foreseen = settings.campaign, {}
    with one_thread():
        federation = setups.federation_of(planned.base)
        for variant in planned.variants:
            system = setups.system_of(planned.setup(variant, settings.seed), federation)
            masks = {client: mask.declaration() for client, mask in system.foreseen_masks().items()}
            params = system.aggregator.params or Params()
            foreseen[variant.label] = dryrun.dry_run(params, masks, system.aggregator.mode, federation.units.layout)
    return foreseen
