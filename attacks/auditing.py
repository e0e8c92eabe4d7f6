"""An audit: every attack on every deployment, and which promises are broken."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from attacks import finding, wire
from attacks.dp.probe import probe as noise
from attacks.finding import Effort
from attacks.masks.probe import probe as masks
from attacks.membership.probe import probe as membership
from attacks.total.probe import probe as total
from attacks.update.probe import probe as update
from protocols.training import one_thread
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from attacks.deployment import Deployment
    from attacks.finding import Finding

Probe: TypeAlias = "Callable[[Deployment, Effort, np.random.Generator], Iterator[Finding]]"
"""Runs one group of attacks on a deployment."""

PROBES: Mapping[str, Probe] = MappingProxyType(
    {
        "update": update,
        "total": total,
        "masks": masks,
        "membership": membership,
        "noise": noise,
    }
)
"""Group of attacks to what runs them, in the order of a report; ``"wire"`` comes beside them."""

GROUPS = (*PROBES, "wire")


@dataclass(frozen=True)
class Scenario:
    """An attack on the protocol, tried as the code is and with the checks left out that stop it.

    Args:
        name: Of the attack.
        threat: What whoever attacks does.
        stopped_by: What stops it, in words.
        held: Whether it failed against the code as it is.
        proven: Whether it reached its goal without those checks: one that cannot succeed proves nothing.
    """

    name: str
    threat: str
    stopped_by: str
    held: bool
    proven: bool


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit came to.

    Args:
        deployments: What was attacked.
        findings: What came of it, deployment by deployment.
        scenarios: Attacks on the protocol.
        effort: How much was tried.
        seed: Of all that was drawn.
        seconds: That it took.
    """

    deployments: tuple[Deployment, ...]
    findings: tuple[Finding, ...]
    scenarios: tuple[Scenario, ...]
    effort: Effort
    seed: int
    seconds: float

    @property
    def broken(self) -> list[Finding]:
        """The findings that a deployment promises not to happen."""
        return finding.broken(list(self.findings))

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return not self.broken and all(one.held and one.proven for one in self.scenarios)

    def to_json(self) -> dict[str, Any]:
        """The audit as plain data, pictures left out."""
        return {
            "passed": self.passed,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "effort": vars(self.effort),
            "deployments": [one.to_json() for one in self.deployments],
            "broken": [one.to_json() for one in self.broken],
            "findings": [one.to_json() for one in self.findings],
            "scenarios": [vars(one) for one in self.scenarios],
        }


def audit(
    deployments: Sequence[Deployment],
    *,
    effort: Effort | None = None,
    groups: Sequence[str] = GROUPS,
    seed: int = 0,
    tell: Callable[[str, str], None] = lambda *_: None,
) -> Audit:
    """Attacks deployments, each in every way that there is.

    Args:
        deployments: What to attack, at least one, each with its own name.
        effort: How much to try.
        groups: Which attacks, of ``GROUPS``.
        seed: Of all that is drawn.
        tell: Called when a group of attacks is done: with the deployment's name, or ``"protocol"``, and the group.

    Raises:
        ParameterError: No deployment, two of one name, or a group that there is not.
    """
    names = [one.name for one in deployments]
    if not names or len(set(names)) != len(names):
        raise ParameterError(f"deployments must be at least one, each with its own name, not {names}")
    if unknown := sorted(set(groups) - set(GROUPS)):
        raise ParameterError(f"no attacks called {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    effort, began, found = effort or Effort(), time.monotonic(), list[finding.Finding]()
    with one_thread():
        for deployment in deployments:
            for number, (group, probe) in enumerate(PROBES.items()):
                if group in groups:
                    found += probe(deployment, effort, np.random.default_rng([seed, number]))
                    tell(deployment.name, group)
        scenarios = tuple(map(_tried, wire.ATTACKS)) if "wire" in groups else ()
        if scenarios:
            tell("protocol", "wire")
    return Audit(tuple(deployments), tuple(found), scenarios, effort, seed, time.monotonic() - began)


def _tried(attack: wire.Attack) -> Scenario:
    """An attack on the protocol as the code is, and without what stops it."""
    as_it_is, weakened = wire.attempt(attack), wire.attempt(attack, attack.weakness)
    return Scenario(attack.name, attack.threat, attack.stopped_by, not as_it_is.succeeded, weakened.succeeded)
