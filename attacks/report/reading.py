"""An audit as a report reads it: findings by what they ask, each with its mark."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from attacks.attack import Threat
from attacks.finding import ALPHA
from attacks.measurement import Bound, Exposure

if TYPE_CHECKING:
    from attacks.auditing import Audit
    from attacks.finding import Cure, Finding


class Mark(enum.Enum):
    """What a finding means: symbol, words, and how it looks."""

    BROKEN = ("✖", "BROKEN PROMISE", "broken")
    LEAKS = ("▲", "leaks (not promised)", "leaks")
    KEPT = ("✓", "as chance (promised)", "kept")
    CHANCE = ("○", "as chance", "chance")
    UNTRIED = ("-", "does not apply", "untried")

    @property
    def symbol(self) -> str:
        """Tells the marks apart without colour."""
        return self.value[0]

    @property
    def words(self) -> str:
        """Says it."""
        return self.value[1]

    @property
    def look(self) -> str:
        """Name of its style."""
        return self.value[2]


@dataclass(frozen=True, eq=False)
class Topic:
    """One attack and what it asks, on every deployment.

    Args:
        anchor: Where a page has it.
        findings: One or more; the first speaks for the others where they say the same.
    """

    anchor: str
    findings: tuple[Finding, ...]

    @property
    def attack(self) -> str:
        """Name of the attack."""
        return self.findings[0].attack

    @property
    def question(self) -> str:
        """What it asks."""
        return self.findings[0].question

    @property
    def threat(self) -> Threat:
        """What the attacker sees."""
        return self.findings[0].threat

    @property
    def sources(self) -> list[str]:
        """The papers."""
        return list(dict.fromkeys(one.source for one in self.findings if one.source))

    def of(self, deployment: str) -> list[Finding]:
        """What it found on one deployment."""
        return [one for one in self.findings if one.deployment == deployment]


@dataclass(frozen=True, eq=False)
class Reading:
    """An audit, ordered for a reader.

    Args:
        audit: What was done.
    """

    audit: Audit

    @cached_property
    def names(self) -> list[str]:
        """Of the deployments, and of those that only findings name."""
        known = [one.name for one in self.audit.deployments]
        return list(dict.fromkeys([*known, *(one.deployment for one in self.audit.findings)]))

    @cached_property
    def topics(self) -> list[Topic]:
        """By threat, then by question as the audit came to them."""
        grouped: dict[tuple[Threat, str, str], list[Finding]] = {}
        for one in self.audit.findings:
            grouped.setdefault((one.threat, one.question, one.attack), []).append(one)
        threats, questions = list(Threat), list(dict.fromkeys(one.question for one in self.audit.findings))
        order = sorted(grouped, key=lambda key: (threats.index(key[0]), questions.index(key[1])))
        return [Topic(f"attack-{place}", tuple(grouped[key])) for place, key in enumerate(order, 1)]

    @cached_property
    def questions(self) -> list[list[Topic]]:
        """Topics that ask the same of the same threat, together."""
        grouped: dict[tuple[Threat, str], list[Topic]] = {}
        for topic in self.topics:
            grouped.setdefault((topic.threat, topic.question), []).append(topic)
        return list(grouped.values())

    @cached_property
    def _broken(self) -> set[int]:
        return {id(one) for one in self.audit.broken}

    def mark(self, finding: Finding) -> Mark:
        """What a finding means."""
        if finding.measurement is None:
            return Mark.UNTRIED
        if id(finding) in self._broken:
            return Mark.BROKEN
        if isinstance(finding.measurement, Bound) and math.isinf(finding.measurement.claimed):
            return Mark.LEAKS if finding.measurement.epsilon > 0 else Mark.CHANCE
        if finding.claimed:
            return Mark.KEPT
        return Mark.LEAKS if finding.leaks() else Mark.CHANCE

    def words(self, finding: Finding) -> str:
        """The same in words, as auditors of epsilon put it where that is what was measured."""
        mark, found = self.mark(finding), finding.measurement
        if isinstance(found, Exposure) and not found.exposed:
            return "none found (promised)" if mark is Mark.KEPT else "none found"
        if not isinstance(found, Bound):
            return mark.words
        if math.isinf(found.claimed):
            return "leaks (no ε promised)" if mark is Mark.LEAKS else mark.words
        return {
            Mark.BROKEN: "VIOLATION (BROKEN PROMISE)",
            Mark.LEAKS: "above the line (not promised)",
            Mark.KEPT: "PASS (promised)",
        }.get(mark, "PASS")

    def remark(self, finding: Finding) -> str:
        """Why a figure beyond chance is called chance, where one is."""
        if self.mark(finding) is not Mark.KEPT or not finding.leaks() or finding.measurement is None:
            return ""
        return (
            f"p = {finding.measurement.p_value:.2g}: with {len(self.tested)} promises tested at once, one so far off "
            "is to be expected"
        )

    def least_cohort(self, deployment: str) -> int | None:
        """Fewest clients in a sum that a deployment releases; None if nobody knows it, or sums are not all there is."""
        known = {one.name: one.params.min_cohort for one in self.audit.deployments if one.mode != "plain"}
        return known.get(deployment)

    @cached_property
    def tested(self) -> list[Finding]:
        """Promises that an attack was tried on."""
        return [one for one in self.audit.findings if one.claimed and one.measurement is not None]

    @cached_property
    def leaking(self) -> list[Finding]:
        """What leaks without a promise that it does not."""
        return [one for one in self.audit.findings if self.mark(one) is Mark.LEAKS]

    @property
    def stopped(self) -> int:
        """Attacks on the protocol that failed, and would not have without the checks that stop them."""
        return sum(one.held and one.proven for one in self.audit.scenarios)

    @property
    def verdict(self) -> str:
        """The audit in a line."""
        broken, scenarios = len(self.audit.broken), len(self.audit.scenarios)
        if broken or self.stopped < scenarios:
            parts = [f"{broken} promise{'s' * (broken > 1)} broken"] if broken else []
            open_ = scenarios - self.stopped
            parts += [f"{open_} attack{'s' * (open_ > 1)} on the protocol not shown to be stopped"] if open_ else []
            return ", ".join(parts)
        if not self.tested and not scenarios:
            return "Nothing was promised, so no promise was broken"
        return "All promises kept"


def after(cure: Cure) -> str:
    """What is left once a counter-measure is on, in a word."""
    if cure.after is None:
        return "see the other deployments"
    return "still leaks" if cure.after.p_value <= ALPHA else "as chance"
