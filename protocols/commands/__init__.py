"""The commands ``demo``, ``run``, ``compare``, ``tune`` and ``bench``. Nothing heavy is imported before one runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.commands import bench, compare, demo, run, tune

if TYPE_CHECKING:
    import argparse


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the commands of this package to ``secagg``."""
    for command in (demo, run, compare, tune, bench):
        command.register(subparsers)
