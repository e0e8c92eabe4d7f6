"""A federation small enough for a test: eight clients, two of them stragglers, on noisy points of four classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from protocols.models import mlp
from protocols.simulation.devices import Device, Fleet
from protocols.system import Federation
from protocols.training import Examples, LocalSgd, one_thread
from pruning.units import find_units

if TYPE_CHECKING:
    from collections.abc import Iterator

CLASSES, WIDTH = 4, 16


def blobs(count: int, seed: int) -> Examples:
    """Noisy points around one corner for each class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    corners = torch.eye(CLASSES, WIDTH)
    return Examples(corners[labels] + 0.3 * torch.randn(count, WIDTH, generator=generator), labels)


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
        training=LocalSgd(steps=3, batch_size=8, learning_rate=0.1),
        seed=3,
    )
