"""The demonstration: FedAvg and CLIP under encryption on a simulated fleet, every number measured.

Twenty clients, four of them stragglers, learn scikit-learn's digits from label-skewed parts. After a common warm-up
each system goes on alone from the same model, with the same batches, so that what differs is the system.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from protocols.aggregators import MaskIndexed, Uniform
from protocols.clip import Clip, ClipSettings
from protocols.datasets.digits import partition, split_digits
from protocols.fedavg import FedAvg
from protocols.models import digits_cnn
from protocols.plots import accuracy_over_time
from protocols.results import Comparison
from protocols.simulation.calibration import Calibration
from protocols.simulation.devices import Fleet
from protocols.system import Federation
from protocols.training import LocalSgd, one_thread
from pruning.clip import relative_norm
from pruning.units import find_units
from secagg import dryrun
from secagg.errors import ParameterError
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from protocols.results import RoundResult, RunResult
    from protocols.simulation.calibration import SecureTime
    from protocols.system import System
    from secagg.dryrun import DryRun

JSON_NAME, PICTURE_NAME = "demo.json", "demo.png"


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What the demonstration runs.

    Args:
        rounds: Rounds of each system after the warm-up.
        warm_up: Rounds of FedAvg before, at least two: CLIP compares two consecutive models.
        seed: Decides everything random.
        alpha: Label skew of the Dirichlet partition; smaller is more skewed.
        training: Local training.
        fleet: The devices.
        params: The settings of the sessions. The range is public and wide enough for any update here.
        clip: The settings of CLIP.

    Raises:
        ParameterError: Too few rounds, or a negative seed.
    """

    rounds: int = 10
    warm_up: int = 3
    seed: int = 0
    alpha: float = 0.5
    training: LocalSgd = field(default_factory=lambda: LocalSgd(steps=10, learning_rate=0.1))
    fleet: Fleet = field(default_factory=Fleet.with_stragglers)
    params: Params = field(default_factory=lambda: Params(value_range=2.0, levels=2**18))
    clip: ClipSettings = field(default_factory=lambda: ClipSettings(score=relative_norm))

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ParameterError(f"rounds must be at least 1, not {self.rounds}")
        if self.warm_up < 2:
            raise ParameterError(f"warm_up must be at least 2, not {self.warm_up}")
        if self.seed < 0:
            raise ParameterError(f"seed must not be negative, but is {self.seed}")


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demonstration measured.

    Args:
        settings: What it ran.
        warm_up: The common beginning.
        runs: FedAvg, CLIP uniform, CLIP mask-indexed.
        rows: The same, each beside FedAvg.
        secure_times: The calibrated times of secure aggregation.
    """

    settings: DemoSettings
    warm_up: RunResult
    runs: tuple[RunResult, ...]
    rows: tuple[Comparison, ...]
    secure_times: tuple[SecureTime, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        settings = asdict(self.settings)
        settings["clip"]["score"] = getattr(self.settings.clip.score, "__name__", repr(self.settings.clip.score))
        return {
            "settings": settings,
            "systems": [asdict(row) for row in self.rows],
            "verdicts": {run.system: run.verdict for run in self.runs},
            "secure_times": [asdict(time) for time in self.secure_times],
            "warm_up": self.warm_up.to_json(),
            "runs": [run.to_json() for run in self.runs],
        }

    def write(self, folder: Path) -> None:
        """Writes ``demo.json`` and ``demo.png`` into an existing folder."""
        (folder / JSON_NAME).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        last = self.warm_up.rounds[-1]
        fleet = self.settings.fleet
        accuracy_over_time(
            self.runs,
            folder / PICTURE_NAME,
            title=f"Digits, {len(fleet.devices)} clients of which {len(fleet.stragglers)} stragglers, "
            f"encrypted, after {self.settings.warm_up} warm-up rounds",
            begins=(last.finished_at, last.accuracy),
        )


def run(
    settings: DemoSettings, on_round: Callable[[str, RoundResult], None] = lambda _name, _result: None
) -> DemoResult:
    """Runs the demonstration on one thread: bits differ between one and two.

    Args:
        settings: What to run.
        on_round: Called with the name of a system and every round that it finished.

    Raises:
        SecAggError: A round that cannot be aggregated.
    """
    with one_thread():
        federation = make_federation(settings)
        systems = make_systems(federation, settings, calibration := Calibration())
        warm_up, checkpoint = systems[0].run(settings.warm_up, on_round=partial(on_round, WARM_UP))
        runs = []
        for system in systems:
            result, _ = system.run(settings.rounds, checkpoint, on_round=partial(on_round, system.name))
            runs.append(result)
    return DemoResult(
        settings=settings,
        warm_up=warm_up,
        runs=tuple(runs),
        rows=tuple(Comparison.of(result, runs[0]) for result in runs),
        secure_times=calibration.times,
    )


def dry_run(settings: DemoSettings) -> dict[str, DryRun]:
    """What a round of each system would take, by its name; nothing is trained.

    Args:
        settings: What would run.
    """
    with one_thread():
        federation = make_federation(settings)
        systems = make_systems(federation, settings, Calibration())
    masks = {
        system: {client: mask.declaration() for client, mask in system.foreseen_masks().items()} for system in systems
    }
    return {
        system.name: dryrun.dry_run(settings.params, declared, system.aggregator.mode, federation.units.layout)
        for system, declared in masks.items()
    }


WARM_UP = "warm-up"
"""What ``run`` calls the rounds before the systems part."""


def make_federation(settings: DemoSettings) -> Federation:
    """The data, their partition, the model and the fleet."""
    generator = np.random.default_rng(settings.seed)
    split = split_digits(generator)
    parts = partition(split.train, len(settings.fleet.devices), settings.alpha, generator)
    model = digits_cnn(seed=settings.seed)
    return Federation(
        model=model,
        units=find_units(model, split.test.inputs[:2]),
        fleet=settings.fleet,
        examples=dict(zip(settings.fleet.names, parts, strict=True)),
        test=split.test,
        training=settings.training,
        seed=settings.seed,
    )


def make_systems(federation: Federation, settings: DemoSettings, calibration: Calibration) -> tuple[System, ...]:
    """The systems to compare, the baseline first, each encrypted and checked against its twin in the clear."""
    layout = federation.units.layout
    uniform, indexed = Uniform(layout, settings.params), MaskIndexed(layout, settings.params)
    return (
        FedAvg(federation, uniform, twin=uniform.twin, calibration=calibration),
        Clip(federation, uniform, settings.clip, twin=uniform.twin, calibration=calibration),
        Clip(federation, indexed, settings.clip, twin=indexed.twin, calibration=calibration),
    )
