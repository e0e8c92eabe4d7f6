"""Attacks on the sums of one model: two candidates, and n versus n - 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attacks.attack import Trial
from attacks.finding import Cure
from attacks.measurement import Exposure, measure_distinguisher, measure_reconstruction
from attacks.total.candidates import CandidateTest, TwoCandidates
from attacks.total.differencing import Differencing, TwoSums
from attacks.total.report import curve, fewest, finding_of, too_few
from attacks.total.rounds import Rounds, noise_of, skewed
from protocols.training import Examples
from secagg import Ledger, simulate
from secagg.errors import DifferencingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from attacks.deployment import Deployment
    from attacks.finding import Effort, Finding
    from attacks.total.rounds import Sent

BACKGROUND = 32
"""Updates that the server trains on examples of its own."""
REPEATS = 4
"""Updates of each client that rounds are drawn from."""
MADE_UP = 60
"""Clients that the larger cohorts are drawn from."""
COHORTS = (5, 10, 20)
"""Clients in the sum, where the leak is shown against them."""


def two_candidates(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> Finding:
    """Which of two known updates is in the sum?"""
    attack, model = CandidateTest(), deployment.model()
    if len(deployment.clients) < max(4, fewest(deployment) + 2):
        return finding_of(deployment, attack, too_few(deployment, max(4, fewest(deployment) + 2)))
    size = int(np.median([len(one) for one in deployment.clients]))
    own = Rounds(deployment, model, skewed(deployment.test, BACKGROUND, size, rng))
    background = np.array([own.vector(own.sent(client, rng)) for client in range(BACKGROUND)])
    says = "how often the right one of two updates scores above the wrong one (area under the ROC curve)"
    real = Rounds(deployment, model, deployment.clients, REPEATS)
    trials = candidate_trials(real, len(deployment.clients) - 2, effort.decisions, background, rng)
    cohorts, rates = [cohort for cohort in COHORTS if cohort >= fewest(deployment)], []
    made_up = Rounds(deployment, model, skewed(Examples.joined(deployment.clients), MADE_UP, size, rng), REPEATS)
    for cohort in cohorts:
        of_cohort = candidate_trials(made_up, cohort, effort.decisions, background, rng)
        rates.append(measure_distinguisher(attack, of_cohort, rng, says).tpr(0.01).value)
    return finding_of(
        deployment,
        attack,
        "The server knows both updates to the last bit. It sees the sum over "
        f"{len(deployment.clients) - 2} clients, one of the two updates in it, and {BACKGROUND} updates trained on "
        "examples of its own tell it how updates spread. For the curve, clients are made up of everybody's examples.",
        measure_distinguisher(attack, trials, rng, says),
        cures=(Cure("larger cohorts", "more clients in every round: the curve shows what they bring"),),
        curves={"true positives at 1 % false ones, against clients in the sum": curve(cohorts, rates)},
    )


def candidate_trials(
    rounds: Rounds, cohort: int, count: int, background: NDArray[np.float64], rng: np.random.Generator
) -> list[Trial[TwoCandidates, bool]]:
    """Sums with one of two candidates in them; each serves two pairs, the first of one pair and the second of another.

    Candidates are clients that do not prune, where there are four: declared masks would give away who takes part.

    Args:
        rounds: What to draw rounds from, of at least two clients more than take part, and of four.
        cohort: Clients in each sum.
        count: Trials; made even.
        background: As ``TwoCandidates``.
        rng: Of the draws.
    """
    clients = len(rounds.clients)
    eligible = np.arange(min(rounds.pruned, clients - 4), clients)
    trials = []
    for _ in range(-(-count // 2)):
        pairs = rng.choice(eligible, (2, 2), replace=False).tolist()
        here = {pairs[0][0], pairs[1][1]}
        others = np.setdiff1d(np.arange(clients), pairs)
        here |= set(rng.choice(others, cohort - 2, replace=False).tolist())
        sent = {client: rounds.sent(client, rng) for client in sorted(here.union(*pairs))}
        total = rounds.sum({client: one for client, one in sent.items() if client in here})
        for pair in pairs:
            candidates = np.array([rounds.vector(sent[client]) for client in pair])
            view = TwoCandidates(total.values, total.holders, candidates, background, noise_of(rounds.deployment))
            trials.append(Trial(view, pair[0] in here))
    return trials


def one_fewer(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> Finding:
    """Is a round that is repeated without one client safe?"""
    attack, clients = Differencing(), len(deployment.clients)
    if clients <= fewest(deployment):
        return finding_of(deployment, attack, too_few(deployment, fewest(deployment) + 1))
    rounds = Rounds(deployment, deployment.model(), deployment.clients)
    trials = []
    for number in range(max(2, effort.reconstructions)):
        sent, victim = {client: rounds.sent(client, rng) for client in range(clients)}, number % clients
        view = TwoSums(rounds.sum(sent), rounds.sum(_without(victim, sent)))
        trials.append(Trial(view, rounds.vector(sent[victim])))
    return finding_of(
        deployment,
        attack,
        f"A round of {clients} clients, and the same round without one of them: nobody trains anew for the same model.",
        measure_reconstruction(attack, trials, rng, f"updates recovered (cosine >= {attack.success})"),
        cures=(
            Cure(
                "a Ledger for each client" + (", with mode='uniform'" if deployment.mode == "plain" else ""),
                "the second session is lost; other rounds go on",
                Exposure("second sessions that clients agree to", int(both_agreed(deployment, sent)), 1),
            ),
        ),
    )


def both_agreed(deployment: Deployment, sent: Mapping[int, Sent]) -> bool:
    """Whether clients with ledgers agree to a session, and then to the same one without the last of them."""
    ledgers = {client: Ledger() for client in sent}
    whole = deployment.mode if deployment.mode != "plain" else "uniform"

    def session(among: Mapping[int, Sent]) -> None:
        simulate(
            {client: one.update for client, one in among.items()},
            {client: one.mask.declaration() for client, one in among.items() if one.mask is not None} or None,
            mode=whole,
            params=deployment.params,
            layout=deployment.layout,
            ledgers={client: ledgers[client] for client in among},
        )

    session(sent)
    try:
        session(_without(max(sent), sent))
    except DifferencingError:
        return False
    return True


def _without(client: int, sent: Mapping[int, Sent]) -> dict[int, Sent]:
    return {other: one for other, one in sent.items() if other != client}
