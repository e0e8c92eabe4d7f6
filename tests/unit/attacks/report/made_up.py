"""Audits that nobody ran: findings of every kind, with figures as real ones have them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from attacks.attack import Threat
from attacks.auditing import Audit, Scenario
from attacks.deployment import Deployment
from attacks.finding import Cure, Effort, Finding, Picture
from attacks.measurement import Bound, Detection, Exposure, Measurement, Recovery
from attacks.rules import units_at_random
from protocols.training import Examples, Training
from secagg import Params, Privacy

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = '<script>alert("&")</script>'


def deployments() -> tuple[Deployment, ...]:
    """Four of them, of a model that nobody trains."""
    examples = Examples(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
    plain = Deployment(
        name="plain",
        model=lambda: nn.Linear(3, 2),
        clients=[examples] * 12,
        test=examples,
        training=Training(steps=5, batch_size=16, learning_rate=0.1, momentum=0.0),
        mode="plain",
        params=Params(min_cohort=3, max_dropouts=1),
    )
    privacy = Privacy(clip=0.25, noise_multiplier=2.0)
    return (
        plain,
        plain.variant("uniform", mode="uniform"),
        plain.variant("mask-indexed", mode="mask-indexed", mask=units_at_random(0.5), pruned=1 / 3),
        plain.variant("private", mode="uniform", params=replace(plain.params, privacy=privacy)),
    )


def detection(shift: float, rng: np.random.Generator, says: str = "pairs told apart", trials: int = 200) -> Detection:
    return Detection(says, rng.normal(shift, 1, trials // 2), rng.normal(0, 1, trials // 2))


def recovery(level: float, rng: np.random.Generator, trials: int = 8) -> Recovery:
    return Recovery(
        "examples recovered (PSNR of 20 dB or more)",
        20.0,
        "dB",
        level + rng.normal(0, 2, trials),
        6 + rng.normal(0, 1, trials),
    )


def picture(clearness: float, rng: np.random.Generator, side: int = 8) -> Picture:
    ring = np.hypot(*np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j])
    original = np.exp(-(((ring - rng.uniform(0.4, 0.7)) / 0.2) ** 2))
    guess = clearness * original + (1 - clearness) * rng.normal(0.5, 0.6, original.shape)
    psnr = math.inf if clearness == 1 else float(-10 * np.log10(np.mean((guess - original) ** 2)))
    return Picture(original, guess, psnr, float(clearness**2))


def bound(epsilon: float, claimed: float, p_value: float = 1.0) -> Bound:
    return Bound("largest epsilon that the trials rule out", epsilon, claimed, 5.3, 1e-5, 1000, p_value)


def update() -> Iterator[Finding]:
    """What can be made of one upload."""
    for name, level, clear in (
        ("plain", 60.0, 1.0),
        ("uniform", 6.0, 0.0),
        ("mask-indexed", 6.0, 0.0),
        ("private", 5.0, 0.0),
    ):
        rng, unsecured = np.random.default_rng(7), name == "plain"
        rng_of_guess = np.random.default_rng(8)
        yield Finding(
            attack="first-layer inversion",
            question="Can the server see a client's examples?",
            threat=Threat.ONE_UPLOAD,
            deployment=name,
            measurement=recovery(level, rng_of_guess),
            claimed=not unsecured,
            note="One example a client, one step of training.",
            source="Geiping et al., Inverting Gradients, NeurIPS 2020 (https://arxiv.org/abs/2003.14053)",
            cures=(Cure("mode='uniform'", "1.1 times the bytes of an update"),) if unsecured else (),
            pictures=tuple(picture(clear, rng) for _ in range(4)),
        )
        yield Finding(
            attack="label inference",
            question="Can the server tell which labels a client has?",
            threat=Threat.ONE_UPLOAD,
            deployment=name,
            measurement=replace(recovery(level, rng, 200), says="labels named rightly", unit="share of labels"),
            claimed=not unsecured,
        )


def total() -> Iterator[Finding]:
    """What can be made of sums."""
    grows = np.array([5.0, 10.0, 20.0, 50.0, 100.0])
    for name, shift in (("plain", 4.0), ("uniform", 2.0), ("mask-indexed", 2.2), ("private", 0.05)):
        rng = np.random.default_rng(5)
        private = name == "private"
        yield Finding(
            attack="two candidates",
            question="Was this client's update in the sum?",
            threat=Threat.THE_SUM,
            deployment=name,
            measurement=detection(shift, rng),
            claimed=False,
            note="12 clients; the attacker knows the update that it looks for.",
            source="Ngo et al., 2024",
            cures=()
            if private
            else (
                Cure("min_cohort=50", "rounds wait for more clients", detection(0.9, rng)),
                Cure(
                    "privacy=PrivacyBudget(epsilon=8.0, ...)",
                    "3 points of accuracy",
                    detection(0.02, np.random.default_rng(6)),
                ),
            ),
            curves={"clients in the sum": (grows, np.clip(0.5 + shift / grows, 0.5, 1))},
        )
        yield Finding(
            attack="known participation",
            question="Can the server take the sums of several rounds apart, given who took part in each?",
            threat=Threat.SEVERAL_ROUNDS,
            deployment=name,
            measurement=Recovery(
                "updates recovered (cosine of 0.9 or more)",
                0.9,
                "cosine",
                np.full(40, 0.95 - 0.4 * private),
                np.zeros(40),
            ),
            claimed=False,
            curves={"rounds": (np.arange(1.0, 13), np.clip((np.arange(1, 13) - 8) / 4 * (not private), 0, 1))},
        )


def masks() -> Iterator[Finding]:
    """What can be made of masks."""
    for name in ("plain", "uniform", "mask-indexed", "private"):
        indexed = name == "mask-indexed"
        yield Finding(
            attack="coverage report",
            question="Are there coordinates that a single client trained?",
            threat=Threat.THE_MASKS,
            deployment=name,
            measurement=Exposure("coordinates with a single holder", 1051 if indexed else 0, 6570),
            claimed=False,
            curves={"clients that hold a coordinate": (np.arange(8.0, 13), np.array([0.16, 0.2, 0.1, 0.04, 0.5]))}
            if indexed
            else {},
            cures=(Cure("min_cohort=5", "4 % of the coordinates stay as they are", Exposure("the same", 0, 6570)),),
        )
        yield Finding(
            attack="label inference from indices",
            question="Does a mask say which labels a client has?",
            threat=Threat.THE_MASKS,
            deployment=name,
            measurement=detection(1.4, np.random.default_rng(3), trials=400) if indexed else None,
            claimed=False,
            note="" if indexed else "Nobody declares a mask here.",
        )


def budget() -> Iterator[Finding]:
    """What noise holds back."""
    for attack, epsilon in (("exact intervals (Clopper and Pearson)", 0.9), ("Gaussian", 1.3), ("one run", 0.2)):
        yield Finding(
            attack=attack,
            question="Does the noise keep the privacy budget?",
            threat=Threat.THE_SUM,
            deployment="private",
            measurement=bound(epsilon, 2.2),
            claimed=True,
        )
    for attack, epsilon in (("exact intervals (Clopper and Pearson)", 3.9), ("Gaussian", 4.6)):
        yield Finding(
            attack=attack,
            question="Does the noise keep the privacy budget?",
            threat=Threat.THE_SUM,
            deployment="uniform",
            measurement=bound(epsilon, math.inf),
            claimed=False,
        )


def scenarios() -> tuple[Scenario, ...]:
    return (
        Scenario("second unmask", "The server asks twice, for other shares.", "Clients answer once.", True, True),
        Scenario(
            "substituted keys", "The server hands out keys of its own.", "Keys are signed by their owners.", True, True
        ),
        Scenario(
            "late client", "The server calls a client lost whose upload it has.", "A threshold of shares.", True, True
        ),
    )


def kept() -> Audit:
    """An audit in which every promise is kept."""
    found = (*update(), *total(), *masks(), *budget())
    return Audit(deployments(), found, scenarios(), Effort(), 0, 83.4)


def broken() -> Audit:
    """The same with an upload that can be read, half of the noise missing, and a check that is gone."""
    whole = kept()
    found = [*whole.findings]
    for place, one in enumerate(found):
        if one.attack == "first-layer inversion" and one.deployment == "mask-indexed":
            rng = np.random.default_rng(7)
            clear = tuple(picture(0.9, rng) for _ in range(4))
            found[place] = replace(one, measurement=recovery(31, rng, 24), pictures=clear)
        if one.attack == "Gaussian" and one.deployment == "private":
            found[place] = replace(one, measurement=bound(3.4, 2.2, 1e-6))
    stopped, reached, idle = whole.scenarios
    return replace(
        whole, findings=tuple(found), scenarios=(stopped, replace(reached, held=False), replace(idle, proven=False))
    )


def hostile() -> Audit:
    """Markup wherever a user, an attack or a paper may say something, and figures that JSON has no number for."""
    whole = broken()

    def spiked(one: Finding) -> Finding:
        measurement: Measurement | None = one.measurement
        if isinstance(measurement, Recovery | Detection | Exposure | Bound):
            measurement = replace(measurement, says=SCRIPT)
        if isinstance(measurement, Recovery):
            measurement = replace(measurement, qualities=np.full(8, np.inf), unit=SCRIPT)
        return replace(
            one,
            attack=one.attack + SCRIPT,
            question=one.question + SCRIPT,
            deployment=one.deployment + SCRIPT,
            measurement=measurement,
            note=SCRIPT,
            source=SCRIPT,
            cures=(Cure(SCRIPT, SCRIPT), Cure(SCRIPT, SCRIPT, measurement)),
            curves={name + SCRIPT: curve for name, curve in one.curves.items()},
        )

    return replace(
        whole,
        deployments=tuple(one.variant(one.name + SCRIPT) for one in whole.deployments),
        findings=tuple(map(spiked, whole.findings)),
        scenarios=(Scenario(SCRIPT, SCRIPT, SCRIPT, False, False),),
    )
