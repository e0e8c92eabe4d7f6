"""Several rounds of one deployment held against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from attacks.attack import Trial
from attacks.finding import Cure, Finding
from attacks.masks.clients import prunes, training_round, what_is_held
from attacks.masks.intersections import CrossRound, Rounds, singled_out
from attacks.measurement import Exposure, measure_reconstruction
from attacks.rules import units_at_random
from secagg.errors import CoverageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from attacks.deployment import Deployment
    from pruning import Mask

ROUNDS = 8
"""That are held against each other."""

LOOKED_AT = 2_000
"""Coordinates that are solved, drawn at random where there are more."""

KEEP = 0.5
"""Share of the units that those masks keep which are drawn anew each round."""

_SINGLED_OUT = "clients of whom some coordinate follows from the sums, if their updates stay as they are"


@dataclass(frozen=True, eq=False)
class _Played:
    """Some rounds: what the server has of them, and what each client brought on average where it held, (clients, d)."""

    seen: Rounds
    brought: NDArray[np.float64]

    def singled_out(self, rounds: int = ROUNDS) -> Exposure:
        """How many clients the first of the rounds single out."""
        alone = singled_out(self.seen.holders[:rounds])
        return Exposure(_SINGLED_OUT, int((alone > 0).sum()), len(alone))


def round_findings(deployment: Deployment, rng: np.random.Generator) -> Iterator[Finding]:
    """What several rounds say together, by the deployment's rule and, where it has one, with masks drawn anew.

    Args:
        deployment: What is attacked.
        rng: Of all draws.
    """
    yield from _findings(deployment, rng, "")
    if prunes(deployment) and deployment.units is not None:
        redrawn = deployment.variant(deployment.name, mask=units_at_random(KEEP))
        yield from _findings(redrawn, rng, f"units_at_random({KEEP:g})")


def _findings(deployment: Deployment, rng: np.random.Generator, rule: str) -> Iterator[Finding]:
    attack, played = CrossRound(), _play(deployment, rng)
    by = f" with masks by {rule}, drawn anew in each round" if rule else ""
    note = (
        f"The server hands out the same model {ROUNDS} times, and looks at "
        f"{played.seen.sums.shape[1]:,} coordinates{by}. Each sum keeps to the smallest cohort."
    )
    if deployment.mode == "plain":
        note += " It needs none of this where every upload is in the clear."
    elif deployment.mode == "uniform":
        note += " It does not know who holds what, so to it the rounds are sums over everybody."
    common = Finding.of(
        attack,
        deployment,
        question=f"Do {ROUNDS} rounds together single a client out{by}?",
        measurement=played.singled_out(),
        note=note,
        cures=tuple(_cures(deployment, rng)),
        curves={
            "clients singled out, by rounds": (
                np.arange(1.0, ROUNDS + 1),
                np.array([played.singled_out(rounds).value for rounds in range(1, ROUNDS + 1)]),
            )
        },
    )
    yield common
    alone = np.flatnonzero(singled_out(played.seen.holders)).tolist()
    asked = alone if len(alone) > 1 else range(len(deployment.clients))
    trials = [Trial(replace(played.seen, client=client), played.brought[client]) for client in asked]
    says = f"clients whose update is found where they are singled out (cosine >= {attack.success:g})"
    yield replace(
        common,
        question=f"How near to its update does the server come where a client is singled out{by}?",
        measurement=measure_reconstruction(attack, trials, rng, says),
        note=f"{note} Asked of {len(trials)} clients. They draw other batches each time, so that their updates differ "
        "from round to round.",
        cures=(),
        curves={},
    )


def _cures(deployment: Deployment, rng: np.random.Generator) -> Iterator[Cure]:
    if not prunes(deployment) or deployment.mode == "uniform":
        return
    kept = _play(deployment, rng, redrawn=False)
    yield Cure(
        "masks that stay the same from round to round",
        "no bytes; masks cannot follow what clients learn",
        kept.singled_out(),
    )
    if not deployment.params.active:
        secret = _play(deployment.variant("uniform", mode="uniform"), rng)
        yield Cure("mode='uniform': masks stay secret", "whole uploads for clients that prune", secret.singled_out())


def _play(deployment: Deployment, rng: np.random.Generator, *, redrawn: bool = True) -> _Played:
    """Several rounds on one model; unless ``redrawn`` the masks of the first one stay."""
    places = np.sort(rng.permutation(deployment.layout.size)[:LOOKED_AT])
    sums, holders = [], []
    total, times = np.zeros((2, len(deployment.clients), len(places)))
    kept: dict[int, Mask] | None = None
    for number in range(ROUNDS):
        updates, masks = training_round(deployment, rng)
        kept = masks if redrawn or kept is None else kept
        held = what_is_held(deployment, kept)[:, places]
        try:
            seen = deployment.exchange(updates, kept, seed=number, encrypted=False)
        except CoverageError:  # nothing has holders enough
            released, known, mean = np.zeros(len(places), bool), held, np.zeros(len(places))
        else:
            released = seen.holders[places] > 0
            known = held if seen.declared else np.ones_like(held)
            mean = deployment.vector(seen.mean)[places]
        sums.append(mean * (known & released).sum(axis=0))
        holders.append(known & released)
        total += held * np.array([deployment.vector(update)[places] for update in updates.values()])
        times += held
    return _Played(Rounds(np.array(sums), np.array(holders), 0), total / np.maximum(times, 1))
