"""All attacks on masks, on one deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attacks.attack import Threat
from attacks.finding import Cure, Finding
from attacks.masks.clients import prunes, training_round, what_is_held
from attacks.masks.coverage import coverage
from attacks.masks.probe_counts import masks_from_counts, weights_from_denominators
from attacks.masks.probe_labels import DENSITY, label_findings
from attacks.masks.probe_rounds import round_findings
from attacks.measurement import Exposure
from attacks.rules import largest_coordinates
from secagg.errors import CoverageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from attacks.deployment import Deployment
    from attacks.finding import Effort
    from protocols.training import State
    from pruning import Mask

_TOP = f"largest_coordinates({DENSITY:g})"


def probe(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> Iterator[Finding]:
    """Everything that masks may give away, by the deployment's own rule, and by top-k where masks are declared.

    Args:
        deployment: What is attacked.
        effort: A quarter of ``decisions`` clients are made up for each number of labels; ``reconstructions`` sessions
            are tried for masks.
        rng: Of all draws.
    """
    yield from label_findings(deployment, effort, rng)
    yield _coverage(deployment, rng)
    if deployment.mode != "uniform" and prunes(deployment):
        top = deployment.variant(deployment.name, mask=largest_coordinates(DENSITY))
        yield from label_findings(top, effort, rng, _TOP)
        yield _independent_top_k(top, rng)
    yield from round_findings(deployment, rng)
    yield weights_from_denominators(deployment, rng)
    yield masks_from_counts(deployment, effort, rng)


def _released(deployment: Deployment, updates: Mapping[int, State], masks: Mapping[int, Mask]) -> NDArray[np.bool_]:
    try:
        return np.greater(deployment.exchange(updates, masks, encrypted=False).holders, 0)
    except CoverageError:  # nothing has holders enough
        return np.zeros(deployment.layout.size, bool)


def _coverage(deployment: Deployment, rng: np.random.Generator) -> Finding:
    """Whether the release rule does what it promises."""
    updates, masks = training_round(deployment, rng)
    held, smallest = what_is_held(deployment, masks), deployment.params.min_cohort
    released = _released(deployment, updates, masks)
    found = coverage(deployment.layout, held, released)
    total = found["all layers"]
    worst = min(
        (name for name in deployment.layout.layers if found[name].holders.size),
        key=lambda name: found[name].smallest,
        default="none",
    )
    return Finding(
        attack="coverage report",
        question=f"Is any released coordinate the sum of fewer than {smallest} clients?",
        threat=Threat.THE_MASKS,
        deployment=deployment.name,
        measurement=Exposure(
            f"released coordinates with fewer than {smallest} holders", total.below(smallest), len(total.holders)
        ),
        claimed=deployment.mode != "plain",
        note=f"The smallest cohort is {total.smallest} clients, in layer {worst}; {total.singletons:.0%} of the "
        f"coordinates have a single holder; different sets of holders: {total.contributor_sets}. "
        f"{(~released).mean():.0%} of the coordinates are withheld.",
        curves={f"holders of a coordinate, {name}": one.histogram() for name, one in found.items()},
        source="the release rule of this project",
    )


def _independent_top_k(top: Deployment, rng: np.random.Generator) -> Finding:
    """What would happen if every client sent its own largest coordinates, and all sums were released."""
    everybody = top.variant(top.name, pruned=1.0)
    updates, masks = training_round(everybody, rng)
    held, smallest = what_is_held(everybody, masks), top.params.min_cohort
    touched = np.asarray(held.any(axis=0), bool)
    total = coverage(top.layout, held, touched)["all layers"]
    sizes = sorted({many for many in (2, 3, 5, 8, 12, 20, 50, 100, len(held)) if many <= len(held)})
    cohorts = [coverage(top.layout, held[:many], touched)["all layers"].singletons for many in sizes]
    released = _released(everybody, updates, masks)
    after = coverage(top.layout, held, released)["all layers"]
    says = "coordinates that somebody sends and a single client holds"
    return Finding(
        attack="coverage report",
        question=f"If all clients send their own {_TOP} and every sum is released, whose coordinates stand alone?",
        threat=Threat.THE_MASKS,
        deployment=top.name,
        measurement=Exposure(says, int((total.holders == 1).sum()), len(total.holders)),
        claimed=False,
        note=f"Not what this deployment does: all {len(held)} clients prune, and nothing is withheld. "
        f"The {len(total.holders)} coordinates have {total.contributor_sets} different sets of holders.",
        cures=(
            Cure(
                f"min_cohort={smallest} in a session, which withholds what too few hold",
                f"{(touched & ~released).sum() / touched.sum():.0%} of the coordinates that somebody sends are lost",
                Exposure(says, int((after.holders == 1).sum()), len(after.holders)),
            ),
        ),
        curves={"singletons among touched coordinates, by clients": (np.array(sizes, float), np.array(cohorts))},
        source="the release rule of this project",
    )
