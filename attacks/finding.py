"""What an audit found: an attack on a deployment, what it came to, what the deployment promises, and what helps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from attacks.attack import Attack, Threat
    from attacks.deployment import Deployment
    from attacks.measurement import Measurement

ALPHA = 0.05
"""How often, at most, an audit of a deployment that keeps all its promises may say that one is broken."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much an audit tries.

    Args:
        reconstructions: Examples that each reconstruction is tried on.
        decisions: Trials of each attack that answers yes or no.
        noise_trials: Sums that lower bounds on epsilon rest on.
        shadows: Models trained for membership.
    """

    reconstructions: int = 8
    decisions: int = 200
    noise_trials: int = 1000
    shadows: int = 8

    def times(self, factor: float) -> Effort:
        """So many times as much, and of everything at least what a figure takes.

        Raises:
            ParameterError: ``factor`` is not positive.
        """
        if not 0 < factor < math.inf:
            raise ParameterError(f"effort must be positive and finite, not {factor}")
        return Effort(
            reconstructions=max(2, round(self.reconstructions * factor)),
            decisions=max(20, round(self.decisions * factor)),
            noise_trials=max(50, round(self.noise_trials * factor)),
            shadows=max(4, round(self.shadows * factor)),
        )


@dataclass(frozen=True)
class Cure:
    """What helps against a finding.

    Args:
        setting: What to switch on, as users write it: ``"mode='uniform'"``.
        costs: What it costs, in words with figures.
        after: The same attack with it switched on; None where another column of the report shows it.
    """

    setting: str
    costs: str
    after: Measurement | None = None


@dataclass(frozen=True)
class Picture:
    """What an attack made of one example.

    Args:
        original: The example, (...).
        guess: What came out, of the same shape.
        psnr: In dB.
        ssim: Structural similarity, or None where it is no image.
    """

    original: NDArray[np.float64]
    guess: NDArray[np.float64]
    psnr: float
    ssim: float | None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of a report.

    Args:
        attack: Name of the attack.
        question: What it tries to answer, as a reader would ask: ``"Can the server see a client's examples?"``.
        threat: What the attacker sees.
        deployment: Name of the deployment.
        measurement: What it came to; None where it does not apply.
        claimed: Whether the deployment promises that it comes to no more than chance.
        note: What a reader should know beside the figure, or why the attack does not apply.
        cures: What helps.
        pictures: Examples of what came out.
        curves: Name of a quantity that varies to (its values, the figures there): leak against cohort or rounds.
        source: The paper.
    """

    attack: str
    question: str
    threat: Threat
    deployment: str
    measurement: Measurement | None
    claimed: bool
    note: str = ""
    cures: tuple[Cure, ...] = ()
    pictures: tuple[Picture, ...] = ()
    curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict)
    source: str = ""

    @classmethod
    def of(
        cls,
        attack: Attack[Any, Any, Any],
        deployment: Deployment,
        *,
        question: str,
        measurement: Measurement | None = None,
        note: str = "",
        cures: tuple[Cure, ...] = (),
        pictures: tuple[Picture, ...] = (),
        curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = MappingProxyType({}),
    ) -> Finding:
        """What an attack came to on a deployment, which promises what it does of that threat; the rest as it is."""
        return cls(
            attack=attack.name,
            question=question,
            threat=attack.threat,
            deployment=deployment.name,
            measurement=measurement,
            claimed=deployment.claims(attack.threat),
            note=note,
            cures=cures,
            pictures=pictures,
            curves=curves,
            source=attack.source,
        )

    def leaks(self, alpha: float = ALPHA) -> bool:
        """Whether chance alone would come to this no oftener than ``alpha``."""
        return self.measurement is not None and self.measurement.p_value <= alpha

    def to_json(self) -> dict[str, Any]:
        """The finding as plain data, pictures left out."""
        return {
            "attack": self.attack,
            "question": self.question,
            "sees": self.threat.value,
            "deployment": self.deployment,
            "measurement": None if self.measurement is None else self.measurement.to_json(),
            "leaks": self.leaks(),
            "claimed": self.claimed,
            "note": self.note,
            "cures": [
                {"setting": one.setting, "costs": one.costs, "after": one.after and one.after.to_json()}
                for one in self.cures
            ],
            "curves": {name: [x.tolist(), y.tolist()] for name, (x, y) in self.curves.items()},
            "source": self.source,
        }


def broken(findings: list[Finding], alpha: float = ALPHA) -> list[Finding]:
    """The promises that are broken.

    Of many promises that are kept, some figure is always beyond chance at one in twenty; so that all of them together
    are called broken no oftener than ``alpha``, each has to pass a stricter bar (Holm, Scandinavian Journal of
    Statistics 1979).
    """
    claimed = sorted(
        (one for one in findings if one.claimed and one.measurement is not None),
        key=lambda one: one.measurement.p_value if one.measurement else 1.0,
    )
    found = []
    for rank, one in enumerate(claimed):
        if not one.leaks(alpha / (len(claimed) - rank)):
            break
        found.append(one)
    return found
