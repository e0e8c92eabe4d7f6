"""The commands ``demo``, ``run``, ``compare`` and ``tune``. Nothing heavy is imported before one of them runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.commands import compare, demo, run, tune

if TYPE_CHECKING:
    import argparse


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the commands of this package to ``secagg``."""
    for command in (demo, run, compare, tune):
        command.register(subparsers)
