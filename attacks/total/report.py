"""What the probes of this group have in common."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from attacks.finding import Cure, Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from attacks.attack import Attack
    from attacks.deployment import Deployment
    from attacks.finding import Picture
    from attacks.measurement import Measurement

QUESTIONS: Mapping[str, str] = MappingProxyType(
    {
        "two candidates": "Does the sum tell which of two data sets a client has?",
        "known participation": "Do the sums of many rounds give away a single client?",
        "disaggregation": "Do the sums of many rounds give clients away to who knows only how often each took part?",
        "n versus n - 1": "Does a round that is summed again without one client give that client away?",
        "imprint": "Can a server read examples off the sum if it gives all clients one model, made to leak?",
        "separate kernels": "Can it read them client by client if it gives each client a model of its own?",
        "model inconsistency": "Is the sum one client's update if all others are given models that learn nothing?",
    }
)
"""What each attack tries to answer, by its name."""

Curve = tuple["NDArray[np.float64]", "NDArray[np.float64]"]


def finding_of(
    deployment: Deployment,
    attack: Attack[Any, Any, Any],
    note: str,
    measurement: Measurement | None = None,
    *,
    cures: tuple[Cure, ...] = (),
    pictures: tuple[Picture, ...] = (),
    curves: Mapping[str, Curve] = MappingProxyType({}),
) -> Finding:
    """A finding of this attack, with noise among the cures where there is none yet."""
    if measurement is not None and deployment.params.privacy is None:
        cures += (
            Cure("privacy=Privacy(...)", "noise in every sum, and accuracy with it: the private deployment shows both"),
        )
    return Finding.of(
        attack,
        deployment,
        question=QUESTIONS[attack.name],
        measurement=measurement,
        note=note,
        cures=cures,
        pictures=pictures,
        curves=curves,
    )


def curve(where: Sequence[float], figures: Sequence[float]) -> Curve:
    """Figures against what varies."""
    return np.array(where, np.float64), np.array(figures, np.float64)


def fewest(deployment: Deployment) -> int:
    """Fewest clients that a sum may be over."""
    return max(2, deployment.params.privacy_floor)


def too_few(deployment: Deployment, needed: int) -> str:
    """Why an attack that needs so many clients does not apply."""
    return f"It takes {needed} clients, and there are {len(deployment.clients)}."
