"""PyTorch on one thread: on networks this small more of them only wait for each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from protocols.training import one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package", autouse=True)
def _single_thread() -> Iterator[None]:
    with one_thread():
        yield
