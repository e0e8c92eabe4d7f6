"""A user's own model and data, found by name: ``module:factory`` and ``module:loaders``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate

from protocols.training import Examples
from secagg.errors import InputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable


def named(option: str, name: str) -> Callable[[], Any]:
    """The function of a module, looked for in the working directory first.

    Args:
        option: That names it, for messages.
        name: ``module:function``.

    Raises:
        ParameterError: Not of that form, or there is no such module or function.
    """
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise ParameterError(f"{option} takes module:function, not {name!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Callable[[], Any] | None = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ParameterError(f"{option} {name}: there is no module {module} here") from None
    if not callable(found):
        raise ParameterError(f"{option} {name}: {module} has no function {function}")
    return found


def model_of(factory: Callable[[], Any], option: str = "--model") -> Callable[[], nn.Module]:
    """A factory that always makes the same first weights, whatever it draws them from.

    Args:
        factory: Returns a module.
        option: That names it, for messages.

    Raises:
        InputError: It returns something else.
    """

    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = factory()
        if not isinstance(model, nn.Module):
            raise InputError(f"{option} must return a torch.nn.Module, not {type(model).__name__}")
        return model

    make()
    return make


def data_of(loaders: Callable[[], Any], option: str = "--data") -> tuple[tuple[Examples, ...], Examples]:
    """The examples of each client and the test set.

    Args:
        loaders: Returns ``clients, test``: of each client, and for the test, a pair of inputs and labels, a Dataset,
            or a DataLoader.
        option: That names it, for messages.

    Raises:
        InputError: It returns something else.
    """
    returned = loaders()
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise InputError(f"{option} must return (clients, test), not {type(returned).__name__}")
    clients, test = returned
    try:
        return tuple(_examples(one) for one in clients), _examples(test)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{option}: every client, and the test set, must be a pair of inputs and labels, a Dataset or a "
            f"DataLoader of such pairs ({error})"
        ) from None


def _examples(source: Any) -> Examples:
    if isinstance(source, DataLoader):
        source = source.dataset
    inputs, labels = default_collate(list(_items(source))) if isinstance(source, Dataset) else source
    return Examples(torch.as_tensor(inputs, dtype=torch.float32), torch.as_tensor(labels, dtype=torch.int64))


def _items(dataset: Dataset[Any]) -> list[Any]:
    return [dataset[place] for place in range(len(dataset))]  # type: ignore[arg-type]  # those without length fail
