"""One experiment as plain settings: everything that decides what a run computes, and how it is built from them."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping  # noqa: TC003 - msgspec reads the annotations of these records
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import msgspec

from protocols import datasets
from protocols.aggregators import Aggregator, FixedPoint, FloatMean, MaskIndexed, Secure, Uniform
from protocols.aggregators.central_noise import CentralNoise
from protocols.datasets.division import Partition, divide
from protocols.experiments.catalogue import system_kind
from protocols.experiments.tasks import task
from protocols.federation import Federation
from protocols.randomness import generator
from protocols.sample_level.clipping import check_suited
from protocols.sample_level.cost import noise_for
from protocols.sample_level.training import SampleLevel
from protocols.simulation.profiles import profile, table
from pruning.units import find_units
from secagg.errors import ParameterError
from secagg.params import Mode, Params
from secagg.privacy.budget import PrivacyBudget

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from _typeshed import DataclassInstance
    from torch import nn

    from protocols.simulation.calibration import Calibration
    from protocols.simulation.devices import Fleet
    from protocols.system import System
    from protocols.training import Examples, Training
    from secagg.layout import Layout

Aggregation = Literal["float", "plain", "uniform", "mask-indexed"]
Judge = Literal["test", "validation"]
Unit = Literal["client", "sample"]

Settings = TypeVar("Settings", bound="DataclassInstance")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The settings of a run, where they differ from what its task and its system bring: ``resolved`` tells them all.

    Where it runs and where its data lie are no part of it.

    Args:
        system: What runs, by its name in ``protocols.experiments.catalogue``.
        settings: The settings of that system that differ from its defaults.
        dataset: What is learned, by its name in ``protocols.experiments.tasks``.
        aggregation: ``"uniform"`` or ``"mask-indexed"`` encrypted, ``"plain"`` the same fixed-point sums in the clear,
            ``"float"`` the mean in floating point, where the server adds what noise there is.
        mode: Which of the two modes ``"plain"`` and ``"float"`` stand for; None for the system's own.
        check: Compare every encrypted sum with its twin in the clear.
        judge: On what every round is judged: the test set, or what clients set aside to choose settings by. The other
            one is not looked at.
        profile: The devices, by their name in ``protocols.simulation.profiles``.
        fleet_seed: Draws the devices of a profile that draws them. No part of ``seed``: a comparison over seeds has one
            fleet.
        clients: How many there are.
        participants: How many of them take part in a round; None for all.
        deadline: Seconds after which a round goes on without those that are late; None to wait.
        rounds: Of the system, after the warm-up.
        until: Simulated seconds after which no further round begins; None for all rounds.
        warm_up: Rounds of FedAvg before.
        partition: How examples are divided over clients; None for the task's own.
        alpha: Of the label-skewed partition: smaller is more skewed.
        labels_per_client: Of the partition by few labels: how many different labels each client has.
        training: Fields of ``Training`` that differ from the task's.
        params: Fields of ``Params`` that differ from the task's and the defaults.
        privacy: Fields of ``PrivacyBudget`` for all rounds together, ``epsilon`` among them; none for no differential
            privacy.
        unit: Whose privacy it is: ``"client"``, by noise on the sums, or ``"sample"``, by DP-SGD on the clients, where
            ``clip`` is that of one example's gradient.
        fine_tuning: Steps for which every client trains its model on when the run has ended, to be judged on its own
            test examples; 0 for no such judgement.
        seed: Decides everything else that is random.

    Raises:
        ParameterError: A setting outside its domain.
    """

    system: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = "digits"
    aggregation: Aggregation = "mask-indexed"
    mode: Mode | None = None
    check: bool = False
    judge: Judge = "test"
    profile: str = "half-speed"
    fleet_seed: int = 0
    clients: int = 20
    participants: int | None = None
    deadline: float | None = None
    rounds: int = 20
    until: float | None = None
    warm_up: int = 0
    partition: Partition | None = None
    alpha: float = 0.5
    labels_per_client: int = 2
    training: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    privacy: Mapping[str, Any] = field(default_factory=dict)
    unit: Unit = "client"
    fine_tuning: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.aggregation not in get_args(Aggregation):
            raise ParameterError(f"aggregation must be one of {get_args(Aggregation)}, not {self.aggregation!r}")
        if self.judge not in get_args(Judge):
            raise ParameterError(f"judge must be one of {get_args(Judge)}, not {self.judge!r}")
        if self.unit not in get_args(Unit):
            raise ParameterError(f"unit must be one of {get_args(Unit)}, not {self.unit!r}")
        if self.rounds < 1 or self.warm_up < 0:
            raise ParameterError("rounds must be at least 1, and warm_up at least 0")
        if self.fine_tuning < 0 or not (self.until is None or 0 < self.until < math.inf):
            raise ParameterError("fine_tuning must not be negative, and until positive and finite, or None")
        if self.clients < 2:
            raise ParameterError(f"clients must be at least 2, not {self.clients}")
        if self.participants is not None and not 1 <= self.participants <= self.clients:
            raise ParameterError(f"participants must be from 1 to the {self.clients} clients, not {self.participants}")
        if self.privacy and self.warm_up:
            raise ParameterError("a warm-up would spend of the budget too: set warm_up to 0 with epsilon (--warm-up 0)")
        if min(self.seed, self.fleet_seed) < 0:
            raise ParameterError(f"seed and fleet_seed must not be negative, but are {self.seed} and {self.fleet_seed}")

    def to_json(self) -> dict[str, Any]:
        """The settings as plain data, with the device table that the profile makes."""
        return asdict(self) | {"devices": table(self.fleet())}

    def fleet(self) -> Fleet:
        """The devices."""
        return profile(self.profile).fleet(self.clients, generator(self.fleet_seed, "fleet"))


@dataclass(frozen=True)
class Place:
    """Where runs happen; no part of what they compute, but for the last bits that another device rounds otherwise.

    Args:
        data: Folder of the data sets; None for those that need none.
        device: Where PyTorch trains, for instance ``"cpu"`` or ``"cuda"``.
    """

    data: Path | None = None
    device: str = "cpu"


def federation_of(setup: Setup, place: Place | None = None) -> Federation:
    """Data, their division, model and fleet.

    Args:
        setup: What to build.
        place: Where.

    Raises:
        ParameterError: A setting that does not fit.
        InputError: The data set is not there.
    """
    place, learned = place or Place(), task(setup.dataset)
    data = datasets.load(learned.dataset, place.data)
    if setup.clients > len(data.train):
        raise ParameterError(
            f"{len(data.train)} examples do not make {setup.clients} parts: choose fewer clients (--clients)"
        )
    division = divide(
        data,
        setup.clients,
        partition=partition_of(setup),
        alpha=setup.alpha,
        labels_per_client=setup.labels_per_client,
        owners_per_client=learned.owners_per_client,
        most_examples=learned.most_examples,
        generator=generator(setup.seed, "division"),
    )
    fleet, model = setup.fleet(), learned.model(setup.seed)
    pooled, own = (
        (division.test, division.tests) if setup.judge == "test" else (division.validation, division.validations)
    )

    @cache
    def moved(examples: Examples) -> Examples:
        """On the device, once for all who share them."""
        return examples.to(place.device)

    return Federation(
        model=model,
        units=find_units(model, division.test.inputs[:2]),
        fleet=fleet,
        examples={name: moved(part) for name, part in zip(fleet.names, division.parts, strict=True)},
        test=moved(pooled),
        tests={name: moved(part) for name, part in zip(fleet.names, own, strict=True) if part is not None},
        validation=moved(division.validation),
        training=_training_of(setup, model, [len(part) for part in division.parts]),
        participants=setup.participants,
        deadline=setup.deadline,
        watts=learned.watts,
        seed=setup.seed,
    )


def system_of(setup: Setup, federation: Federation, calibration: Calibration | None = None) -> System:
    """The system of a setup on its federation.

    Raises:
        ParameterError: A setting that the system does not have, or an aggregation that it cannot use.
    """
    kind = system_kind(setup.system)
    aggregator = aggregator_of(setup, federation.units.layout)
    twin = aggregator.twin if setup.check and isinstance(aggregator, Secure) else None
    return kind.make(federation, aggregator, settings_of(setup), twin=twin, calibration=calibration)


def resolved(setup: Setup, federation: Federation) -> dict[str, Any]:
    """All that decides a run, as plain data: two runs of which it is the same compute the same.

    Args:
        setup: The run.
        federation: The setup's own.

    Returns:
        The setup with every setting of its task, its system and its sessions, the shapes of the model's tensors, the
        device table, and the data: how many examples, and a digest of them as they are divided.

    Raises:
        ParameterError: A setting that does not fit.
    """
    settings, parts, test = settings_of(setup), federation.examples.values(), federation.test
    return setup.to_json() | {
        "settings": {} if settings is None else asdict(settings),
        "mode": mode_of(setup),
        "partition": partition_of(setup),
        "training": asdict(federation.training),
        "params": asdict(private_params_of(setup, federation.units.layout)),
        "watts": federation.watts,
        "model": {tensor.name: tensor.shape for tensor in federation.units.layout.tensors},
        "data": {"train": sum(map(len, parts)), setup.judge: len(test), "sha256": _digest([*parts, test])},
    }


def partition_of(setup: Setup) -> Partition:
    """How the examples of a setup are divided."""
    return setup.partition or task(setup.dataset).partition


def settings_of(setup: Setup) -> Any:
    """The settings of a setup's system; None where it has none.

    Raises:
        ParameterError: A setting that the system does not have, or that is outside its domain.
    """
    kind = system_kind(setup.system)
    if kind.settings is not None:
        return settings_from(kind.settings(), setup.settings)
    if setup.settings:
        raise ParameterError(f"{setup.system} has no settings, so not {', '.join(setup.settings)}")
    return None


def rounds_needed(setup: Setup) -> int:
    """Rounds without which a setup's system does not come to its end.

    Raises:
        ParameterError: A setting that the system does not have, or that is outside its domain.
    """
    kind = system_kind(setup.system)
    return 1 if kind.rounds is None else kind.rounds(settings_of(setup))


def params_of(setup: Setup) -> Params:
    """The parameters of a setup's sessions, or of those that it stands for.

    Raises:
        ParameterError: There is no such parameter, it cannot have that value, or the system would be another with it.
    """
    own = system_kind(setup.system).params
    if fixed := set(own).intersection(setup.params):
        raise ParameterError(f"{', '.join(fixed)} is part of what {setup.system} is: leave it out of params")
    return settings_from(Params(value_range=task(setup.dataset).value_range, levels=2**18, **own), setup.params)


def private_params_of(setup: Setup, layout: Layout) -> Params:
    """The same with the noise that the budget of a setup takes, if it has one.

    Args:
        setup: Whose.
        layout: Of the updates.

    Raises:
        ParameterError: As ``params_of``, or the budget is too small.
    """
    params, budget = params_of(setup), _budget_of(setup)
    if budget is None or setup.unit == "sample":
        return params
    if setup.aggregation == "float":
        return replace(params, privacy=budget.central(setup.rounds))
    privacy = budget.privacy(
        params,
        rounds=setup.rounds,
        clients=setup.participants or setup.clients,
        coordinates=layout.size,
        mode=mode_of(setup),
    )
    return replace(params, privacy=privacy)


def _budget_of(setup: Setup) -> PrivacyBudget | None:
    if not setup.privacy:
        return None
    try:
        return msgspec.convert(dict(setup.privacy), PrivacyBudget, strict=False)
    except msgspec.ValidationError as error:
        raise ParameterError(f"privacy: {_reason(error, PrivacyBudget, setup.privacy)}") from None


def _training_of(setup: Setup, model: nn.Module, counts: Sequence[int]) -> Training:
    """How clients train: with noise for the one that has the fewest examples, if these are to be private."""
    training = settings_from(task(setup.dataset).training, setup.training)
    budget = _budget_of(setup)
    if budget is None or setup.unit == "client":
        return training
    check_suited(model)
    noise_multiplier = noise_for(
        budget.epsilon,
        budget.delta,
        setup.rounds,
        sample_rate=min(1.0, training.batch_size / min(counts)),
        steps=training.steps,
    )
    own = SampleLevel(clip=budget.clip, noise_multiplier=noise_multiplier, delta=budget.delta)
    return replace(training, sample_level=own)


def mode_of(setup: Setup) -> Mode:
    """The mode of a setup's sessions, or of those that it stands for.

    Raises:
        ParameterError: The system cannot use it.
    """
    modes = system_kind(setup.system).modes
    clear = setup.aggregation in ("float", "plain")
    mode = setup.mode or (modes[0] if clear else setup.aggregation)
    if mode not in modes or not (clear or setup.aggregation == mode):
        raise ParameterError(f"{setup.system} aggregates {' or '.join(modes)}: change aggregation or mode")
    return mode


def aggregator_of(setup: Setup, layout: Layout) -> Aggregator:
    """What joins the updates of a setup.

    Args:
        setup: Says which.
        layout: Of the updates.

    Raises:
        ParameterError: The system cannot use it.
    """
    kind, mode = system_kind(setup.system), mode_of(setup)
    if not kind.encrypts and setup.aggregation not in ("float", "plain"):
        raise ParameterError(f"{setup.system} reads every update: set aggregation to float or plain")
    params = private_params_of(setup, layout)
    match setup.aggregation:
        case "float":
            if params.privacy is None:
                return FloatMean(layout, mode, params.participation)
            return CentralNoise(layout, params.privacy, mode, params.participation)
        case "plain":
            return FixedPoint(layout, params, mode)
        case "uniform":
            return Uniform(layout, params)
        case "mask-indexed":
            return MaskIndexed(layout, params)


def settings_from(defaults: Settings, changes: Mapping[str, Any]) -> Settings:
    """Frozen settings with some fields changed; values may be text, as a command line brings them.

    Raises:
        ParameterError: There is no such field, or it cannot have that value.
    """
    known = {field.name: field.type for field in fields(defaults)}
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise ParameterError(f"no setting {', '.join(unknown)}; there are {', '.join(known)}")
    try:
        return msgspec.convert(asdict(defaults) | dict(changes), type(defaults), strict=False)
    except msgspec.ValidationError as error:
        raise ParameterError(_reason(error, type(defaults), changes)) from None


def _reason(error: msgspec.ValidationError, kind: type, given: Mapping[str, Any]) -> str:
    """What is wrong with a field of ``given``, in the words of a command line where it speaks of the whole field."""
    said, _, place = str(error).partition(" - at `$.")
    name = place.rstrip("`")
    expected = re.match(r"Expected `(.+?)`|Invalid enum value", said)
    if name not in given or expected is None:
        return str(error)
    types = {field.name: field.type for field in msgspec.inspect.type_info(kind).fields}  # type: ignore[attr-defined]
    members = getattr(types[name], "types", (types[name],))
    if words := [word for one in members for word in getattr(one, "values", ())]:
        return f"{name} must be one of {', '.join(map(str, words))}, not {given[name]!r}"
    return f"{name} must be {expected[1].replace(' | ', ' or ')}, not {given[name]!r}"


def _digest(parts: Iterable[Examples]) -> str:
    digest = hashlib.sha256()
    for tensor in (one for part in parts for one in (part.inputs, part.labels)):
        digest.update(f"{tensor.dtype}, {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).numpy().data)
    return digest.hexdigest()
