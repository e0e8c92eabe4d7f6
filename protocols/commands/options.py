"""The options that ``run``, ``compare`` and ``tune`` share, and the settings that they make."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.errors import ParameterError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from protocols.experiments.setup import Place, Setup
    from protocols.results import RunResult


def add_experiment(parser: argparse.ArgumentParser, *, rounds: int, warm_up: int) -> None:
    """Adds what decides an experiment, but for its system and its seed."""
    parser.add_argument("--dataset", default="digits", metavar="NAME", help="what to learn (default: digits, built in)")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where the data sets lie; nothing is downloaded")
    parser.add_argument("--profile", default="half-speed", metavar="NAME", help="the devices (default: half-speed)")
    parser.add_argument(
        "--fleet-seed", type=int, default=0, metavar="S", help="draws the devices of the mixed profiles (default: 0)"
    )
    parser.add_argument("--clients", type=int, default=20, metavar="N", help="how many (default: 20)")
    parser.add_argument("--participants", type=int, metavar="N", help="of them in a round (default: all)")
    parser.add_argument(
        "--deadline", type=float, metavar="S", help="seconds that a round waits (default: for everybody)"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help=f"of each system (default: {rounds}, or as many as its schedule takes)"
    )
    parser.set_defaults(usual_rounds=rounds)
    parser.add_argument("--until", type=float, metavar="S", help="begin no round after so many simulated seconds")
    parser.add_argument(
        "--fine-tuning", type=int, default=0, metavar="STEPS", help="judge clients' own models, trained on so far"
    )
    usual = f"{warm_up}, or 0 with epsilon" if warm_up else "0"
    parser.add_argument("--warm-up", type=int, metavar="N", help=f"rounds of FedAvg before (default: {usual})")
    parser.set_defaults(usual_warm_up=warm_up)
    parser.add_argument(
        "--partition",
        choices=("label-skewed", "even", "natural", "few-labels"),
        help="default: that of the data set",
    )
    parser.add_argument(
        "--alpha", type=float, default=0.5, metavar="A", help="label skew, smaller is more (default: 0.5)"
    )
    parser.add_argument(
        "--labels-per-client", type=int, default=2, metavar="N", help="of the few-labels partition (default: 2)"
    )
    parser.add_argument("--check", action="store_true", help="compare every encrypted sum with the same in the clear")
    parser.add_argument(
        "--training",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change local training: learning_rate=0.01",
    )
    parser.add_argument(
        "--params", action="append", default=[], metavar="NAME=VALUE", help="change the sessions: min_cohort=5"
    )
    _add_privacy(parser)
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="where PyTorch trains: cpu, cuda (default: cpu)"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="what to print (default: table)")


def _add_privacy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epsilon", type=float, metavar="E", help="differential privacy over all rounds; inf: none")
    parser.add_argument(
        "--unit", choices=("client", "sample"), help="with epsilon: of whom, or of what (default: client)"
    )
    parser.add_argument("--delta", type=float, metavar="D", help="of epsilon (default: 1e-05)")
    parser.add_argument(
        "--clip",
        type=float,
        metavar="C",
        help="with epsilon: largest norm of an update, or of an example's gradient (default: 1)",
    )
    parser.add_argument(
        "--mechanism",
        choices=("skellam", "discrete-gaussian"),
        help="with epsilon: the noise (default: skellam)",
    )
    parser.add_argument(
        "--remove-surplus", action="store_true", help="with epsilon: take off what covered for dropouts that were none"
    )
    parser.add_argument("--rotate", action="store_true", help="with epsilon: rotate vectors, for narrow rings")
    parser.add_argument(
        "--ring-bits", type=int, choices=(16, 24, 32, 64), help="with epsilon: of a value (default: 24)"
    )
    parser.set_defaults(**_PRIVACY)


_PRIVACY: dict[str, Any] = {
    "unit": "client",
    "delta": 1e-5,
    "clip": 1.0,
    "mechanism": "skellam",
    "ring_bits": 24,
    "rotate": False,
    "remove_surplus": False,
}
"""The options that mean nothing without ``--epsilon``, with their defaults."""


def setup_of(arguments: argparse.Namespace, **settings: Any) -> Setup:
    """The setup that the options describe, with what a command adds.

    Raises:
        ParameterError: An option outside its domain, or one of differential privacy without ``--epsilon``.
    """
    from protocols.experiments.setup import Setup

    return Setup(
        dataset=arguments.dataset,
        profile=arguments.profile,
        fleet_seed=arguments.fleet_seed,
        clients=arguments.clients,
        participants=arguments.participants,
        deadline=arguments.deadline,
        rounds=arguments.usual_rounds if arguments.rounds is None else arguments.rounds,
        until=arguments.until,
        fine_tuning=arguments.fine_tuning,
        warm_up=_warm_up(arguments),
        partition=arguments.partition,
        alpha=arguments.alpha,
        labels_per_client=arguments.labels_per_client,
        check=arguments.check,
        training=pairs("--training", arguments.training),
        params=pairs("--params", arguments.params),
        privacy=_privacy(arguments),
        unit=arguments.unit,
        **settings,
    )


def _warm_up(arguments: argparse.Namespace) -> int:
    """Its rounds: with a budget none, unless some are asked for, because they would spend of it."""
    given: int | None = arguments.warm_up
    usual: int = arguments.usual_warm_up if arguments.epsilon is None else 0
    return usual if given is None else given


def _privacy(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.epsilon not in (None, math.inf):
        return {name: getattr(arguments, name) for name in ("epsilon", *_PRIVACY) if name != "unit"}
    given = [name for name, usual in _PRIVACY.items() if getattr(arguments, name) != usual]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ParameterError(f"{options} {'needs' if len(given) == 1 else 'need'} --epsilon, and a finite one")
    return {}


def at_length(arguments: argparse.Namespace, setup: Setup, runs: Iterable[Setup]) -> Setup:
    """A setup with the rounds that the schedules of its runs take, unless the options say how many."""
    from protocols.experiments.setup import rounds_needed

    if arguments.rounds is not None:
        return setup
    return replace(setup, rounds=max(setup.rounds, *map(rounds_needed, runs)))


def unfinished(setups: Iterable[Setup]) -> list[str]:
    """What to say of systems whose schedules take more rounds than they have."""
    from protocols.experiments.setup import rounds_needed

    needed = {one.system: rounds for one in setups if (rounds := rounds_needed(one)) > one.rounds}
    return [
        f"\n{system} comes to its end in {rounds} rounds, and these were fewer: raise --rounds, or shorten its schedule"
        for system, rounds in needed.items()
    ]


def length_of(setup: Setup, runs: Iterable[RunResult]) -> str:
    """How far runs of a setup went, in words: so many rounds or, where the time ended one of them, so many seconds."""
    if setup.until is not None and any(run.rounds[-1].finished_at >= setup.until for run in runs):
        return f"the first {setup.until:.10g} s"
    return f"{setup.rounds} {'round' if setup.rounds == 1 else 'rounds'}"


def place_of(arguments: argparse.Namespace) -> Place:
    """Where the options say that runs happen.

    Raises:
        ParameterError: PyTorch has no such device here.
    """
    import torch

    from protocols.experiments.setup import Place

    try:
        torch.empty(1, device=arguments.device)
    except (RuntimeError, AssertionError):  # torch asserts that it was compiled with CUDA
        raise ParameterError(f"--device {arguments.device}: PyTorch cannot use it here") from None
    return Place(arguments.data_dir, arguments.device)


def pairs(option: str, given: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` as a mapping; a number may leave out its leading zero, as in ``.5``.

    Raises:
        ParameterError: One of them has no equals sign.
    """
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise ParameterError(f"{option} takes NAME=VALUE, not {one!r}")
        found[name.strip()] = _BARE_FRACTION.sub(r"\g<1>0.", value.strip())
    return found


_BARE_FRACTION = re.compile(r"^([+-]?)\.(?=\d)")
