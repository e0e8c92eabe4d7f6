"""Membership in the final model of one deployment."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from attacks.attack import Trial
from attacks.finding import Cure, Finding
from attacks.masks.clients import training_round
from attacks.measurement import measure_distinguisher
from attacks.membership.federated import trained
from attacks.membership.lira import Lira, Shadowed, confidence, spread
from attacks.membership.loss import Asked, LossThreshold
from protocols.training import Examples, accuracy
from secagg import PrivacyLedger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import nn

    from attacks.attack import Distinguisher
    from attacks.deployment import Deployment
    from attacks.finding import Effort
    from attacks.measurement import Detection

ROUNDS = 60
"""Of federated training before the model is attacked."""

_AT_ONCE = 500
"""Examples that a model is asked about together."""

_SAYS = "pairs of a learnt and another example that are told apart (area under the ROC curve)"


@dataclass(frozen=True, eq=False)
class _Attacked:
    """The final model, all examples there are, and the places of those that it is asked about, half of them learnt."""

    model: nn.Module
    pool: Examples
    places: NDArray[np.int64]
    learnt: NDArray[np.bool_]


def probe(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> Iterator[Finding]:
    """Loss threshold and LiRA on the model after some rounds.

    Args:
        deployment: What is attacked.
        effort: ``decisions`` examples are asked about, half of them learnt, with ``shadows`` shadow models.
        rng: Of all draws.
    """
    if deployment.test.labels.ndim != 1:
        for attack in (LossThreshold(), Lira()):
            yield _finding(deployment, attack, None, "Examples are sequences, with a label at every place.", ())
        return
    attacked = _attacked(deployment, effort, rng)
    learnt = accuracy(attacked.model, Examples.joined(deployment.clients))
    note = (
        f"After {ROUNDS} rounds the model is right on {learnt:.0%} of what it learnt, and on "
        f"{accuracy(attacked.model, deployment.test):.0%} of other examples. {_bound(deployment, rng)}"
    )
    cures = () if deployment.params.privacy is not None else (_noise(),)
    asked = _asked(attacked)
    yield _finding(deployment, LossThreshold(), measure_distinguisher(LossThreshold(), asked, rng, _SAYS), note, cures)
    shadowed, models = _shadowed(deployment, attacked, effort, rng)
    note = (
        f"{note} The attacker has all clients' examples among {len(deployment.test):,} others, does not know which are "
        f"which, and trains {models} models on halves of them."
    )
    yield _finding(deployment, Lira(), measure_distinguisher(Lira(), shadowed, rng, _SAYS), note, cures)


def _attacked(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> _Attacked:
    learnt, others = sum(len(one) for one in deployment.clients), len(deployment.test)
    many = max(1, min(effort.decisions // 2, learnt, others))
    places = [rng.choice(learnt, many, replace=False), learnt + rng.choice(others, many, replace=False)]
    return _Attacked(
        trained(deployment, ROUNDS, rng),
        Examples.joined([*deployment.clients, deployment.test]),
        np.concatenate(places),
        np.repeat([True, False], many),
    )


def _asked(attacked: _Attacked) -> list[Trial[Asked, bool]]:
    logits, labels = _logits(attacked.model, attacked.pool), attacked.pool.labels.tolist()
    return [
        Trial(Asked(logits[place], labels[place]), bool(learnt))
        for place, learnt in zip(attacked.places, attacked.learnt, strict=True)
    ]


def _shadowed(
    deployment: Deployment, attacked: _Attacked, effort: Effort, rng: np.random.Generator
) -> tuple[list[Trial[Shadowed, bool]], int]:
    """One trial an example, and the number of shadow models: pairs that learn complementary halves."""
    pool, pairs = attacked.pool, max(2, effort.shadows // 2)
    labels, size = pool.labels.numpy(), len(pool)
    learnt = np.zeros((2 * pairs, size), bool)
    for pair in range(pairs):
        learnt[2 * pair, rng.permutation(size)[: size // 2]] = True
        learnt[2 * pair + 1] = ~learnt[2 * pair]
    shadows = np.array(
        [
            _logits(_shadow(deployment, pool.subset(np.flatnonzero(half).tolist()), int(rng.integers(2**31))), pool)
            for half in learnt
        ]
    )
    widths = spread(confidence(shadows, np.broadcast_to(labels, learnt.shape)), learnt)
    own = _logits(attacked.model, pool)
    trials = [
        Trial(Shadowed(own[place], int(labels[place]), shadows[:, place], learnt[:, place], widths), bool(member))
        for place, member in zip(attacked.places, attacked.learnt, strict=True)
    ]
    return trials, len(learnt)


def _shadow(deployment: Deployment, examples: Examples, seed: int) -> nn.Module:
    """A model trained in one place on as many batches as the rounds have, each as large as a round's of all clients."""
    own, clients = deployment.training, len(deployment.clients)
    central = replace(
        own, steps=ROUNDS * own.steps, batch_size=min(own.batch_size * clients, len(examples)), sample_level=None
    )
    model = deployment.model()
    central.train(model, examples, seed)
    return model


def _logits(model: nn.Module, examples: Examples) -> NDArray[np.float64]:
    """(examples, classes)."""
    judged = copy.deepcopy(model).eval()
    with torch.no_grad():
        return np.concatenate([judged(part).double().numpy() for part in examples.inputs.split(_AT_ONCE)])


def _bound(deployment: Deployment, rng: np.random.Generator) -> str:
    """What differential privacy promises of any such attack."""
    privacy = deployment.params.privacy
    if privacy is None or deployment.mode == "plain":
        return "Nothing bounds what it says of one example: there is no noise."
    updates, masks = training_round(deployment, rng)
    event = deployment.exchange(updates, masks, encrypted=False).event
    ledger = PrivacyLedger()
    for one in [event] * ROUNDS:
        if one is not None:
            ledger.record(one)
    epsilon = ledger.epsilon(privacy.delta) if ledger.events else math.inf
    return (
        f"With epsilon {epsilon:.1f} spent in {ROUNDS} rounds, true positives are at most e^epsilon times the false "
        f"ones plus delta = {privacy.delta:g}, for any attack on all of one client's examples together."
    )


def _noise() -> Cure:
    return Cure(
        "privacy=PrivacyBudget(epsilon=8, clip=1).privacy(...)",
        "accuracy, all the more where clients are few: see the note of a column with noise",
    )


def _finding(
    deployment: Deployment,
    attack: Distinguisher[Asked] | Distinguisher[Shadowed],
    measurement: Detection | None,
    note: str,
    cures: tuple[Cure, ...],
) -> Finding:
    question = "Can anybody who is given the final model tell whether it learnt an example?"
    return Finding.of(attack, deployment, question=question, measurement=measurement, note=note, cures=cures)
