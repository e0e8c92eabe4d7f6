"""The command ``secagg``: ``params``, and whatever the installed packages plug in.

An entry point of the group ``secagg.commands`` names a module with ``register(subparsers)``, which adds parsers and
sets ``run`` on each: a function from the parsed arguments to an exit code. So this package imports none of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import TYPE_CHECKING, get_args

from secagg.errors import SecAggError
from secagg.params import Adversary, Mode, Params

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GROUP = "secagg.commands"
FAILED = 2
"""Exit code for a wrong setting, a missing extra, or a session that cannot finish."""

INTERRUPTED = 130
"""Exit code where the user stopped a command, as shells have it."""

_NO_OPTIONS = "\0"
"""Prefix of options that no argument can have, so that all of them are taken as they come."""

_OURS = ("secagg", "pruning", "protocols", "attacks")


class InterruptedRunError(SecAggError):
    """The user stopped a command; the message says what is kept."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: What follows ``secagg`` on the command line; by default that of the process.

    Returns:
        The exit code: 0, or 2 with one line on standard error; without a command, 2 with the help.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return FAILED
    try:
        code: int = options.run(options)
    except InterruptedRunError as error:
        _fail(str(error))
        return INTERRUPTED
    except SecAggError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        return _fail(_missing(options.command, error))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="secagg", description="Secure aggregation for federated learning.")
    parser.add_argument("--version", action="version", version=f"secagg {_version()}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_params(subparsers)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        _plug_in(point, subparsers)
    return parser


def _add_params(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "params",
        help="what a cohort of a given size takes: neighbours, shares, bytes, seconds",
        description="Finds the smallest masking graph and a share threshold for a cohort, with the probabilities of "
        "failure that they promise, and tells bytes and seconds of a session, the latter as measured on this machine.",
    )
    parser.add_argument("--clients", type=int, required=True, metavar="N", help="clients that take part")
    parser.add_argument("--dropout", type=float, default=0.1, metavar="R", help="share that drops out (default: 0.1)")
    parser.add_argument("--corrupt", type=float, default=0.0, metavar="R", help="share that colludes (default: 0)")
    parser.add_argument(
        "--coordinates", type=int, default=1_000_000, metavar="D", help="length of the vector (default: 1,000,000)"
    )
    parser.add_argument("--min-cohort", type=int, default=3, metavar="M", help="smallest sum (default: 3)")
    parser.add_argument("--mode", choices=get_args(Mode), default="uniform", help="default: uniform")
    parser.add_argument("--adversary", choices=get_args(Adversary), default="semi-honest", help="default: semi-honest")
    parser.add_argument("--security-bits", type=int, default=40, metavar="B", help="default: 40")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="what to print (default: table)")
    parser.set_defaults(run=_params)


def _params(arguments: argparse.Namespace) -> int:
    params = Params.for_cohort(
        arguments.clients,
        arguments.dropout,
        arguments.corrupt,
        min_cohort=arguments.min_cohort,
        adversary=arguments.adversary,
        security_bits=arguments.security_bits,
    )
    expected = params.expect(arguments.clients, arguments.coordinates, arguments.mode)
    print(json.dumps(expected.to_json(), indent=1) if arguments.format == "json" else expected)
    return 0


def _plug_in(point: EntryPoint, subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers a command; one that cannot be imported says so only when it is called for."""
    try:
        register = point.load().register
    except ImportError as error:
        message = _missing(point.name, error)
        parser = subparsers.add_parser(
            point.name, help="not available: an extra is missing", add_help=False, prefix_chars=_NO_OPTIONS
        )
        parser.add_argument("ignored", nargs="*")
        parser.set_defaults(run=_failing(message))
        return
    register(subparsers)


def _failing(message: str) -> Callable[[argparse.Namespace], int]:
    return lambda _: _fail(message)


def _missing(command: str, error: ImportError) -> str:
    """What to install for a command; an import of ours that fails is nothing that an extra would mend.

    Raises:
        ImportError: That one.
    """
    missing = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError):
        return str(error)
    if missing in _OURS:
        raise error
    return f"`secagg {command}` needs {missing}: pip install 'secagg[experiments]'"


def _fail(message: str) -> int:
    print(f"secagg: {message}", file=sys.stderr)
    return FAILED


def _version() -> str:
    try:
        return version("secagg")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
