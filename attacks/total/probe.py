"""Runs the attacks on the sum against a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attacks.total.candidates import CandidateTest
from attacks.total.differencing import Differencing
from attacks.total.disaggregation import Disaggregation
from attacks.total.imprint import Imprint
from attacks.total.inconsistency import Inconsistency
from attacks.total.kernels import SeparateRows
from attacks.total.on_crafted import imprinted, inconsistent, separated
from attacks.total.on_rounds import known_participation, unknown_participation
from attacks.total.on_sums import one_fewer, two_candidates
from attacks.total.participation import LeastSquares
from attacks.total.report import finding_of
from secagg.errors import AbortError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from attacks.deployment import Deployment
    from attacks.finding import Effort, Finding

PROBES = (
    (CandidateTest, two_candidates),
    (LeastSquares, known_participation),
    (Disaggregation, unknown_participation),
    (Differencing, one_fewer),
    (Imprint, imprinted),
    (SeparateRows, separated),
    (Inconsistency, inconsistent),
)
"""Attacks, and what runs each."""


def probe(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> Iterator[Finding]:
    """Runs every attack of this group, and says what came of it; a deployment that refuses its rounds is not attacked.

    Args:
        deployment: What to attack.
        effort: How much to try.
        rng: Of clients, batches and cohorts.
    """
    for attack, run in PROBES:
        try:
            found = run(deployment, effort, rng)
        except AbortError as error:
            found = finding_of(deployment, attack(), f"Sessions refuse the rounds that it takes: {error}")
        yield found
