"""A federation small enough for a test: eight clients, two of them stragglers, on noisy points of four classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import BoundArguments, signature
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import torch

from protocols.aggregators import Client, FixedPoint, MaskIndexed, Uniform, secure
from protocols.federation import Checkpoint, Federation
from protocols.fetch import Served
from protocols.models import mlp
from protocols.round import RoundContext, Work, work_of
from protocols.simulation.calibration import Calibration, SecureTime
from protocols.simulation.devices import Device, Fleet
from protocols.synchronous import SynchronousSystem
from protocols.training import Examples, Training, one_thread
from pruning.units import find_units
from secagg.params import Mode, Params
from secagg.simulate import Result, simulate

if TYPE_CHECKING:
    from collections.abc import Iterator

CLASSES, WIDTH = 4, 16
PARAMS = Params(min_cohort=3, max_dropouts=2, value_range=4.0)

WorkAt: TypeAlias = Callable[[SynchronousSystem, Checkpoint], Mapping[Client, Work]]


class Instant(Calibration):
    """Secure aggregation that takes no time, so that simulated times are the same on every machine."""

    def time(self, mode: Mode, clients: int, params: Params) -> SecureTime:
        return SecureTime(
            mode=mode,
            clients=clients,
            settings=params.digest.hex(),
            client=0.0,
            client_per_coordinate=0.0,
            server=0.0,
            server_per_coordinate=0.0,
        )


def blobs(count: int, seed: int) -> Examples:
    """Noisy points around one corner for each class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    corners = torch.eye(CLASSES, WIDTH)
    return Examples(corners[labels] + 0.3 * torch.randn(count, WIDTH, generator=generator), labels)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[BoundArguments]:
    """What every session is played with that an aggregator starts during the test, as arguments of ``simulate``."""
    played: list[BoundArguments] = []

    def noted(*given: Any, **settings: Any) -> Result:
        played.append(signature(simulate).bind(*given, **settings))
        return simulate(*given, **settings)

    monkeypatch.setattr(secure, "simulate", noted)
    return played


@pytest.fixture(scope="session", autouse=True)
def _single_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def federation() -> Federation:
    # So slow that training and both links take a similar time on so small a model.
    like = Device(
        name="like", flops_per_second=1e5, upload_bytes_per_second=4e3, download_bytes_per_second=16e3, straggler=False
    )
    fleet = Fleet.with_stragglers(6, 2, speed=0.5, links=0.5, reference=like)
    model = mlp(WIDTH, (32, 16), CLASSES, seed=1)
    return Federation(
        model=model,
        units=find_units(model, torch.zeros(2, WIDTH)),
        fleet=fleet,
        examples={name: blobs(20, seed) for seed, name in enumerate(fleet.names)},
        test=blobs(100, 99),
        training=Training(steps=3, batch_size=8, learning_rate=0.1),
        seed=3,
    )


@pytest.fixture(scope="session")
def plain(federation: Federation) -> FixedPoint:
    return FixedPoint(federation.units.layout, PARAMS)


@pytest.fixture(scope="session")
def uniform(federation: Federation) -> Uniform:
    return Uniform(federation.units.layout, PARAMS)


@pytest.fixture(scope="session")
def indexed(federation: Federation) -> MaskIndexed:
    return MaskIndexed(federation.units.layout, PARAMS)


@pytest.fixture(scope="session")
def instant() -> Calibration:
    return Instant()


@pytest.fixture(scope="session")
def work_at() -> WorkAt:
    """What a system's clients would make of the round that starts at a checkpoint."""

    def played(system: SynchronousSystem, start: Checkpoint) -> Mapping[Client, Work]:
        setup, layout = system.federation, system.federation.units.layout
        system.recall(start.memory)
        served = Served(layout, start.state)
        context = RoundContext(start.number, setup.model_at(start), start.state, served, start.previous)
        return work_of(system.stages(), context, system.cohort(start.number), layout)

    return played
