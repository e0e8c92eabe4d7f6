"""What a page ends with: attacks on the protocol, how the audit was done, what it does not cover, and terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attacks.finding import ALPHA
from attacks.report import text
from attacks.report.markup import Markup, element, grid, paragraphs
from attacks.report.overview import chip, section
from attacks.report.reading import Mark

if TYPE_CHECKING:
    from attacks.auditing import Scenario
    from attacks.report.reading import Reading

_EFFORT = {
    "reconstructions": "Examples for each reconstruction",
    "decisions": "Trials of each yes-or-no attack",
    "noise_trials": "Sums behind each bound on ε",
    "shadows": "Models trained for membership attacks",
}


def checklist(reading: Reading) -> Markup:
    """Attacks on the protocol: what stops them, whether it did, and whether it had to."""
    scenarios = reading.audit.scenarios
    if not scenarios:
        return Markup()
    return section(
        "protocol",
        "Attacks on the protocol",
        paragraphs(
            "A server or clients that break the rules. Each attack is carried out twice: against the protocol as it "
            "is, where it has to fail, and against a build from which the checks that stop it were taken out, where "
            "it has to reach its goal: a check against something that cannot happen proves nothing.",
            [element("strong", f"{reading.stopped} of {len(scenarios)}"), " attacks are shown to be stopped."],
        ),
        grid(
            "Protocol checklist",
            ["Attack", "What the attacker does", "What stops it", "As the protocol is", "Without the checks"],
            [(one.name, [one.threat, one.stopped_by, *_outcome(one)]) for one in scenarios],
            class_="stack checklist",
        ),
    )


def _outcome(one: Scenario) -> list[Markup]:
    return [
        chip(Mark.KEPT, "stopped") if one.held else chip(Mark.BROKEN, "NOT STOPPED"),
        element("span", "✓ succeeds") if one.proven else chip(Mark.BROKEN, "fails: proves nothing"),
    ]


def method(reading: Reading) -> Markup:
    """How much was tried, and by which statistics."""
    audit, tested = reading.audit, len(reading.tested)
    trials = sum(one.measurement.trials for one in audit.findings if one.measurement)
    rows = [(_EFFORT.get(name, name.replace("_", " ")), [f"{value:,}"]) for name, value in vars(audit.effort).items()]
    rows += [
        ("Trials in all, over all findings", [f"{trials:,}"]),
        ("Promises put to the test", [f"{tested:,}"]),
        ("Confidence of intervals and bounds", [text.SURE]),
        (
            "Alpha: chance that kept promises are called broken",
            [f"{text.percent(ALPHA)} for all of them together (Holm)"],
        ),
        ("Seed", [f"{audit.seed}"]),
        ("Time", [f"{text.number(round(audit.seconds, 1))} s"]),
    ]
    return section(
        "method",
        "How it was done",
        grid("Trials, statistics and seeds", ["", "In this audit"], rows),
        paragraphs(
            "A figure counts as a leak if chance alone would come to it, or to more, at most once in "
            f"{round(1 / ALPHA)} audits. Of many promises that are kept, some figure is always that far off, so a "
            "promise only counts as broken if it passes a stricter bar, which keeps the chance of any false alarm "
            f"about promises below {text.percent(ALPHA)} (Holm, 1979). Shares carry exact intervals (Clopper and "
            "Pearson, 1934), areas under ROC curves those of DeLong et al. (1988). Reconstructions are held against "
            "chance by Fisher's exact test, yes-or-no attacks by that of Mann and Whitney.",
            "Tests are one-sided: does the attack do better than chance? Intervals are two-sided, so that of a leak "
            "that is just beyond chance may still reach to it.",
            "The seed decides all that was drawn, keys and noise too: the same audit on the same machine comes to the "
            "same figures. In use, keys and noise come from the system.",
        ),
    )


def limits() -> Markup:
    """What nobody should conclude."""
    return section(
        "limits", "What this audit does not cover", element("ul", (element("li", one) for one in text.NOT_COVERED))
    )


def glossary() -> Markup:
    """The terms."""
    terms = [element("div", element("dt", term), element("dd", meaning)) for term, meaning in text.GLOSSARY.items()]
    return section("terms", "Terms", element("dl", terms, class_="terms"))
