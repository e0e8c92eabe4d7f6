"""Attacks on the sums of several rounds: participation that is known, and participation that is not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from attacks.attack import Trial
from attacks.finding import Cure
from attacks.measurement import measure_reconstruction
from attacks.total.disaggregation import Disaggregation, KnownCounts
from attacks.total.participation import KnownCohorts, LeastSquares
from attacks.total.report import curve, fewest, finding_of, too_few
from attacks.total.rounds import Rounds
from secagg import Layout, Ledger, Session, Tensor
from secagg.declaration import FULL
from secagg.errors import DifferencingError
from secagg.messages import Participant
from secagg.release import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from attacks.deployment import Deployment
    from attacks.finding import Effort, Finding
    from secagg import Params

    Followed = Trial[KnownCohorts, NDArray[np.float64]]

REPEATS = 8
"""Updates of each client that rounds are drawn from."""
FOLLOWED = 12
"""Most clients whose participation is known."""
UNKNOWN = 5
"""Most clients whose participation is not: what has to be searched grows fast with them."""
STRETCHES, STRETCH = 5, 4
"""Stretches that participation is counted over, and rounds in each."""


def known_participation(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> Finding:
    """Do many sums say what no single one does?"""
    attack, clients, least = LeastSquares(), min(FOLLOWED, len(deployment.clients)), fewest(deployment)
    cohort = max(least, 2 * clients // 3)
    if cohort >= clients:
        return finding_of(deployment, attack, too_few(deployment, least + 1))
    rounds = Rounds(deployment, deployment.model(), deployment.clients[:clients], REPEATS)
    cohorts = [
        [_drawn(clients, cohort, rng) for _ in range(2 * clients)] for _ in range(max(2, effort.reconstructions))
    ]
    trials = [followed(rounds, one, number % clients, rng) for number, one in enumerate(cohorts)]
    agreed = [agreed_rounds(deployment.params, one) for one in cohorts]
    after = [_only(one, places) for one, places in zip(trials, agreed, strict=True)]
    says = f"updates recovered (cosine >= {attack.success})"
    counts = [max(1, quarter * clients // 4) for quarter in (1, 2, 3, 4, 6, 8)]
    cosines = [
        [attack.quality(attack.guess(_only(one, range(count)).view, rng), one.secret) for one in trials]
        for count in counts
    ]
    return finding_of(
        deployment,
        attack,
        f"{2 * clients} rounds, each of {cohort} of {clients} clients, from the same model: whoever takes part again "
        "trains on other batches.",
        measure_reconstruction(attack, trials, rng, says),
        cures=(
            Cure(
                "Ledger(scope='all') for each client",
                f"rounds: of {2 * clients}, clients agree to {min(map(len, agreed))} to {max(map(len, agreed))}. Each "
                "compares only the sums that it is in, and what follows from them may still be mostly one client's.",
                measure_reconstruction(attack, after, rng, says),
            ),
        ),
        curves={"median cosine with the update, against rounds": curve(counts, [float(np.median(c)) for c in cosines])},
    )


def unknown_participation(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> Finding:
    """Do they to somebody who was not told who took part?"""
    attack, clients, least = Disaggregation(), min(UNKNOWN, len(deployment.clients)), fewest(deployment)
    if least >= clients:
        return finding_of(deployment, attack, too_few(deployment, least + 1))
    rounds = Rounds(deployment, deployment.model(), deployment.clients[:clients], REPEATS)
    trials = []
    for number in range(max(2, effort.reconstructions)):
        sizes = rng.integers(least, clients, STRETCHES * STRETCH)
        cohorts = [_drawn(clients, int(size), rng) for size in sizes]
        known = followed(rounds, cohorts, number % clients, rng)
        trials.append(Trial(KnownCounts(known.view.sums, _counts(cohorts, clients), known.view.victim), known.secret))
    return finding_of(
        deployment,
        attack,
        f"{STRETCHES * STRETCH} rounds, each of {least} to {clients - 1} of {clients} clients; known is how often each "
        f"took part in every {STRETCH} rounds. Besides, all is as for known participation.",
        measure_reconstruction(attack, trials, rng, f"updates recovered (cosine >= {attack.success})"),
        cures=(
            Cure("Ledger(scope='all') for each client", "as for known participation, from which this attack follows"),
        ),
    )


def followed(rounds: Rounds, cohorts: Sequence[Sequence[int]], victim: int, rng: np.random.Generator) -> Followed:
    """Rounds of these cohorts, and the mean of what the victim sent in them, or would have.

    Args:
        rounds: What to draw updates from.
        cohorts: Who takes part in each round.
        victim: Whom the attack is after.
        rng: Of the updates.
    """
    clients, size = len(rounds.clients), rounds.deployment.layout.size
    sums, held, victims = np.zeros((len(cohorts), size)), np.zeros((len(cohorts), clients, size), bool), []
    for number, cohort in enumerate(cohorts):
        sent = {client: rounds.sent(client, rng) for client in cohort}
        total = rounds.sum(sent)
        sums[number] = total.values
        for client, one in sent.items():
            held[number, client] = (total.holders > 0) & (one.mask.coordinates if one.mask is not None else True)
        victims.append(rounds.vector(sent[victim] if victim in sent else rounds.sent(victim, rng)))
    return Trial(KnownCohorts(sums, held, victim), np.mean(victims, axis=0))


def agreed_rounds(params: Params, cohorts: Sequence[Sequence[int]]) -> list[int]:
    """The rounds that clients agree to whose ledgers compare everything, by their place.

    Args:
        params: Of the sessions.
        cohorts: Who takes part in each round.
    """
    ledgers = {client: Ledger("all") for cohort in cohorts for client in cohort}
    layout, agreed = Layout((Tensor("w", (1,)),)), list[int]()
    params = replace(params, privacy=None)  # which ledgers do not look at
    for number, cohort in enumerate(cohorts):
        session = Session(id=number.to_bytes(16, "big"), params=params, layout=layout, mode="uniform")
        plan = Plan(
            session, params.topology(len(cohort)).needed, [Participant(client, FULL, None) for client in cohort]
        )
        try:
            for client in cohort:
                ledgers[client].agree(plan, cohort)
        except DifferencingError:
            continue
        agreed.append(number)
    return agreed


def _only(trial: Followed, places: Sequence[int]) -> Followed:
    view, kept = trial.view, list(places)
    return Trial(KnownCohorts(view.sums[kept], view.held[kept], view.victim), trial.secret)


def _drawn(clients: int, cohort: int, rng: np.random.Generator) -> list[int]:
    return sorted(rng.choice(clients, cohort, replace=False).tolist())


def _counts(cohorts: Sequence[Sequence[int]], clients: int) -> NDArray[np.int64]:
    """How often each took part in each stretch, (stretches, clients)."""
    took_part = np.array([[client in cohort for client in range(clients)] for cohort in cohorts], np.int64)
    return np.asarray(took_part.reshape(STRETCHES, STRETCH, clients).sum(axis=1))
