"""The data sets by name."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from protocols.datasets import cifar10, digits, har, mnist, shakespeare, wisdm
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from protocols.datasets.dataset import Dataset

DATASETS: Mapping[str, Callable[[Path | None], Dataset]] = MappingProxyType(
    {
        "digits": digits.load,
        "mnist": mnist.load,
        "fashion-mnist": mnist.load_fashion,
        "cifar10": cifar10.load,
        "shakespeare": shakespeare.load,
        "har": har.load,
        "wisdm": wisdm.load,
    }
)
"""Name to what loads it from a folder."""


def load(name: str, folder: Path | None) -> Dataset:
    """A data set by its name. Nothing is ever downloaded.

    Args:
        name: One of ``DATASETS``.
        folder: Where its files are, or what has a folder of that name with them. Digits need none.

    Raises:
        ParameterError: No data set has this name, or it needs a folder and got none.
        InputError: The folder lacks its files, or they are damaged. The message says what was looked for and where it
            is to be had.
    """
    if name not in DATASETS:
        raise ParameterError(f"no data set is called {name!r}; there are {', '.join(DATASETS)}")
    return DATASETS[name](folder)
