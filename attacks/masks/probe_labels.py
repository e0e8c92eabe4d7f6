"""Label inference on one deployment: made-up clients, its own clients, and every cure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from attacks.finding import Cure, Finding
from attacks.masks.clients import EXAMPLES, REPEATS, Cohort, prunes
from attacks.masks.cures import EPSILON, Way, flipped, price, ways
from attacks.masks.labels import LabelInference
from attacks.measurement import measure_reconstruction
from attacks.rules import largest_coordinates

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from attacks.deployment import Deployment
    from attacks.finding import Effort
    from attacks.masks.clients import Templates, Victim
    from attacks.measurement import Recovery

DENSITY = 0.1
"""Of the masks of users who send the coordinates that changed most."""

EPSILONS = (0.25, 0.5, EPSILON, 2.0, 4.0)
"""Of each bit, for the curve of randomised response."""

_ASKED = {
    1: ("the one label of a client that has one", "clients with one label of whom it is named"),
    2: ("both labels of a client that has two", "clients with two labels of whom both are named"),
}
_ASSUMED = largest_coordinates(DENSITY)
"""The rule that an attacker assumes where there is none."""

_EVERY = 4
"""Trials are this many times rarer than decisions: each is a client that trains."""


@dataclass(frozen=True, eq=False)
class _Inference:
    """Clients under label inference, and what the attacker expects of clients with each set of labels."""

    cohort: Cohort
    templates: Templates
    victims: Sequence[Victim]
    says: str
    rng: np.random.Generator

    def measure(self, way: Way) -> Recovery:
        trials = self.cohort.trials(way, self.victims, self.templates, self.rng)
        return measure_reconstruction(LabelInference(), trials, self.rng, self.says)


def label_findings(
    deployment: Deployment, effort: Effort, rng: np.random.Generator, rule: str = ""
) -> Iterator[Finding]:
    """What masks say of labels.

    Args:
        deployment: What is attacked.
        effort: A quarter of ``decisions`` clients are made up for each number of labels.
        rng: Of all draws.
        rule: Name of the rule for masks where it is another than the deployment's own, which are then left out.
    """
    cohort = Cohort.of(deployment, rng) if deployment.test.labels.ndim == 1 else None
    if cohort is None or len(cohort.labels) < 3:
        yield _finding(deployment)
        return
    templates = {size: cohort.templates(deployment.mask or _ASSUMED, size, rng) for size in _ASKED}
    cured, costs = _cures(cohort, rng)
    for size, (asked, says) in _ASKED.items():
        victims = cohort.victims(size, max(2, effort.decisions // _EVERY), rng)
        inference = _Inference(cohort, templates[size], victims, says, rng)
        yield replace(
            _finding(deployment),
            question=f"Can the server tell {asked}, from what it declares to hold{f' by {rule}' * bool(rule)}?",
            measurement=inference.measure(Way("", deployment)),
            note=_note(cohort, len(victims), rule),
            cures=tuple(
                Cure(way.setting, cost, inference.measure(way)) for way, cost in zip(cured, costs, strict=True)
            ),
            curves=_against_epsilon(inference) if cured else {},
        )
    if not rule:
        yield _own_clients(cohort, templates[1], rng)


def _cures(cohort: Cohort, rng: np.random.Generator) -> tuple[list[Way], list[str]]:
    deployment = cohort.deployment
    masks = list(deployment.masks(cohort.model, cohort.updates, rng).values())
    if not masks or deployment.mode == "uniform":
        return [], []
    cured, seed = list(ways(deployment, masks)), int(rng.integers(2**31))
    before = price(Way("", deployment), seed)
    return cured, [price(way, seed).beside(before) for way in cured]


def _against_epsilon(inference: _Inference) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    deployment = inference.cohort.deployment
    found = [inference.measure(Way("", deployment, flipped(one))).value for one in EPSILONS]
    return {"epsilon of each bit under randomised response": (np.array(EPSILONS), np.array(found))}


def _own_clients(cohort: Cohort, templates: Templates, rng: np.random.Generator) -> Finding:
    deployment, says = cohort.deployment, "clients whose commonest label is named"
    inference = _Inference(cohort, templates, cohort.own_clients(), says, rng)
    return replace(
        _finding(deployment),
        question="Can the server tell which label each of these clients has most of?",
        measurement=inference.measure(Way("", deployment)),
        note=f"The {len(deployment.clients)} clients of the deployment with the examples that they have; each in turn "
        f"is {'one of those that prune' if prunes(deployment) else 'asked about, though nobody prunes'}.",
    )


def _note(cohort: Cohort, victims: int, rule: str) -> str:
    deployment = cohort.deployment
    how = (
        f"{victims} clients are made up, each in the place of one of {len(deployment.clients)}, with training examples "
        f"of labels drawn at random from {len(cohort.labels)}. The attacker knows how many labels each has, and plays "
        f"{REPEATS} clients for each of the sets that it may be, with {EXAMPLES} examples a label of its own."
    )
    if not prunes(deployment):
        return f"{how} Nobody prunes here, so that there is no mask to look at."
    if deployment.mode == "uniform":
        return f"{how} Masks are secret: all that it sees is how many clients hold each unit."
    if rule:
        return f"{how} This is not the deployment's own rule but what users of top-k sparsification do."
    return how


def _finding(deployment: Deployment) -> Finding:
    return Finding.of(
        LabelInference(),
        deployment,
        question="Can the server tell which labels a client has?",
        note="There are fewer than three classes to tell apart, or a label at every place of a sequence.",
    )
