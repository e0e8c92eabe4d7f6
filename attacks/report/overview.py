"""What a page begins with: the verdict, what was audited, who sees what, and every attack on every deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attacks.attack import Threat
from attacks.measurement import Bound
from attacks.report import plots, text
from attacks.report.markup import Child, Markup, element, grid, join, paragraphs
from attacks.report.reading import Mark

if TYPE_CHECKING:
    from attacks.finding import Finding
    from attacks.report.reading import Reading, Topic


def chip(mark: Mark, words: str) -> Markup:
    """A mark that reads without colour."""
    return element("span", element("span", mark.symbol, aria_hidden="true"), " ", words, class_=f"mark {mark.look}")


def section(anchor: str, title: str, *children: Markup) -> Markup:
    """A part of the page under its heading."""
    return element(
        "section", element("h2", title, id=f"{anchor}-title"), children, id=anchor, aria_labelledby=f"{anchor}-title"
    )


def verdict(reading: Reading) -> Markup:
    """Whether every promise was kept, and which were not."""
    audit, passed = reading.audit, reading.audit.passed
    anchors = {id(one): topic.anchor for topic in reading.topics for one in topic.findings}
    lines = [
        element(
            "li",
            element("strong", one.deployment),
            ": ",
            element("a", one.question, href=f"#{anchors[id(one)]}"),
            f" {one.measurement.says}: {_against(one)}." if one.measurement else "",
        )
        for one in audit.broken
    ]
    lines += [
        element(
            "li", element("strong", "protocol"), ": ", element("a", one.name, href="#protocol"), f", {_failing(one)}."
        )
        for one in audit.scenarios
        if not (one.held and one.proven)
    ]
    tested = len(reading.tested)
    about = (
        f"{len(reading.topics)} attacks on {len(reading.names)} deployments. Of {tested} promises put to the test, "
        f"{tested - len(audit.broken)} held."
    )
    if audit.scenarios:
        about += f" {reading.stopped} of {len(audit.scenarios)} attacks on the protocol are stopped."
    leaks, on = len(reading.leaking), _listed(list(dict.fromkeys(one.deployment for one in reading.leaking)))
    also: Child = [chip(Mark.LEAKS, Mark.LEAKS.words), f" {leaks} figures on {on} are beyond chance."] if leaks else ""
    return element(
        "div",
        element(
            "p", element("span", "✓" if passed else "✖", aria_hidden="true"), " ", reading.verdict, class_="verdict"
        ),
        element("ul", lines) if lines else None,
        paragraphs(about, also),
        class_="banner " + ("held" if passed else "failed"),
    )


def _against(one: Finding) -> str:
    return f"{text.figure(one.measurement)}, {text.chance(one.measurement)}" if one.measurement else ""


def _failing(scenario: object) -> str:
    return "is not shown to work even without its checks" if getattr(scenario, "held", False) else "reached its goal"


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def marks() -> Markup:
    """How to read the marks and figures."""
    meanings = {
        Mark.BROKEN: "The settings promise that this cannot happen, and it happened.",
        Mark.LEAKS: "The attack learns more than chance. No setting says that it should not.",
        Mark.KEPT: "The settings promise it, and the attack found nothing.",
        Mark.CHANCE: "The attack found nothing, though nothing is promised.",
        Mark.UNTRIED: "There is nothing here for this attack to work on.",
    }
    rows = [
        element("div", element("dt", chip(mark, mark.words)), element("dd", said)) for mark, said in meanings.items()
    ]
    return element("dl", rows, class_="marks")


def deployments(reading: Reading) -> Markup:
    """What was audited, setting by setting: first what the deployments differ in, then what they have in common."""
    said = [one.to_json() for one in reading.audit.deployments]
    rows = {
        text.SETTINGS.get(name, name.replace("_", " ")): [text.setting(name, one.get(name)) for one in said]
        for name in dict.fromkeys(name for one in said for name in one if name != "name")
    }
    alike = {name: values for name, values in rows.items() if len(said) > 1 and len(set(values)) == 1}
    different = [(name, values) for name, values in rows.items() if name not in alike]
    facts = [element("div", element("dt", name), element("dd", values[0])) for name, values in alike.items()]
    return section(
        "deployments",
        "What was audited",
        paragraphs(
            "A federation: clients that train a model together, each on its own data, and a server that puts their "
            "updates together. A deployment is that federation under one choice of settings."
        ),
        grid(
            "Settings of each deployment",
            ["Setting", *(str(one["name"]) for one in said)],
            different,
            class_="stack even",
        ),
        join([element("h3", "Alike in all of them"), element("dl", facts, class_="facts")]) if facts else Markup(),
    )


def threats(reading: Reading) -> Markup:
    """Who sees what, in each deployment."""
    met = {topic.threat for topic in reading.topics} | ({Threat.THE_TRANSCRIPT} if reading.audit.scenarios else set())
    audited = reading.audit.deployments
    partly = {(one.threat, one.deployment) for one in reading.tested if not isinstance(one.measurement, Bound)}
    rows = [
        (
            [element("span", text.TITLES[threat], class_="title"), element("small", f"Attacker: {threat.value}")],
            [
                [
                    f"{text.sentence(text.sees(threat, one))}.",
                    element("small", text.promise(threat, one, in_part=(threat, one.name) in partly)),
                ]
                for one in audited
            ],
        )
        for threat in Threat
        if threat in met
    ]
    return section(
        "threats",
        "Who sees what",
        paragraphs(
            "What each attacker gets to see in each deployment, and what the settings promise about it. An attack "
            "below is given this and nothing else."
        ),
        grid("Threat model", ["What is looked at", *(one.name for one in audited)], rows, class_="stack even"),
    )


def matrix(reading: Reading) -> Markup:
    """Every attack on every deployment."""
    rows = [
        row
        for topics in reading.questions
        for row in (
            ([topics[0].question, element("small", f"Attacker: {topics[0].threat.value}")], None),
            *(
                (element("a", text.sentence(topic.attack), href=f"#{topic.anchor}"), _cells(reading, topic))
                for topic in topics
            ),
        )
    ]
    return section(
        "overview",
        "Every attack on every deployment",
        paragraphs(
            "In each cell: what it means, the figure, the interval in which it lies "
            f"({text.SURE} confidence), and what chance alone comes to. The small ruler shows the same: a dot for the "
            "figure, a bar for its interval, a notch for chance (or, for ε, what is claimed)."
        ),
        marks(),
        grid("Attacks by deployments", ["Question and attack", *reading.names], rows, class_="stack even"),
    )


def _cells(reading: Reading, topic: Topic) -> list[Child]:
    untried = element("small", "not tried here")
    return [[_cell(reading, one) for one in topic.of(name)] or untried for name in reading.names]


def _cell(reading: Reading, one: Finding) -> Markup:
    mark = reading.mark(one)
    if one.measurement is None:
        return element("div", chip(mark, mark.words), class_="cell")
    return element(
        "div",
        chip(mark, reading.words(one)),
        element("div", element("strong", text.figure(one.measurement)), class_="figure"),
        plots.gauge(one.measurement, mark.look),
        element("small", f"{text.interval(one.measurement)}; {text.chance(one.measurement)}"),
        class_="cell",
    )


def budgets(reading: Reading) -> Markup:
    """Lower bounds on epsilon under what is claimed."""
    pictures = []
    for name in reading.names:
        rows = [
            (one, f"{reading.mark(one).symbol} {reading.words(one)}", reading.mark(one).look)
            for topic in reading.topics
            for one in topic.of(name)
            if isinstance(one.measurement, Bound)
        ]
        if rows:
            pictures.append(element("div", element("h3", name), plots.bounds(name, rows)))
    if not pictures:
        return Markup()
    return section(
        "budgets",
        "The privacy budget: claimed, and put to the test",
        paragraphs(
            "Noise bounds how much a result may depend on one client, by a number ε. The heavy upright line is what "
            "the accountant claims; a bar is the largest ε that the trials rule out. A bar that stays left of the "
            "line does not contradict the claim: PASS. One that crosses it does: VIOLATION. The dotted line ends at "
            "the ceiling, the most that so many trials could have shown: where it ends short of the claim, the trials "
            "could not have found a violation of any size."
        ),
        element("figure", element("div", join(pictures), class_="plots"), element("figcaption", _deltas(reading))),
    )


def _deltas(reading: Reading) -> str:
    found = [one.measurement for one in reading.audit.findings if isinstance(one.measurement, Bound)]
    deltas = ", ".join(f"{one:g}" for one in sorted({one.delta for one in found}))
    return f"Lower bounds on ε at {text.SURE} confidence, δ = {deltas}."


def contents(parts: list[tuple[str, str]]) -> Markup:
    """Links to the parts of the page."""
    links = [element("li", element("a", title, href=f"#{anchor}")) for anchor, title in parts]
    return element("nav", element("ul", links), aria_label="Contents")
