"""Attack by attack: what it asks and sees, what came of it, what it looked like, and what helps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attacks.measurement import Bound, Detection, Exposure, Recovery
from attacks.report import plots, text
from attacks.report.images import pictures
from attacks.report.markup import Child, Markup, element, grid, join, paragraphs
from attacks.report.overview import chip, section
from attacks.report.reading import after
from attacks.report.svg import legend

if TYPE_CHECKING:
    from attacks.finding import Cure, Finding
    from attacks.measurement import Measurement
    from attacks.report.reading import Reading, Topic


def details(reading: Reading) -> Markup:
    """A card for each attack, under what the attacker sees and what it asks."""
    parts, met = [], None
    for topics in reading.questions:
        threat = topics[0].threat
        if threat is not met:
            parts += [element("h3", text.TITLES[threat]), paragraphs(f"The attacker is {threat.value}.")]
        parts += [element("h4", topics[0].question), *(_card(reading, topic) for topic in topics)]
        met = threat
    return section("attacks", "Attack by attack", *parts)


def _card(reading: Reading, topic: Topic) -> Markup:
    return element(
        "article",
        element("h5", text.sentence(topic.attack), id=f"{topic.anchor}-title"),
        paragraphs(f"Source: {'; '.join(topic.sources)}" if topic.sources else "", class_="about"),
        _results(reading, topic),
        _notes(topic),
        pictures(topic.findings),
        _rocs(topic, reading),
        _curves(topic, reading),
        _cures(topic),
        id=topic.anchor,
        aria_labelledby=f"{topic.anchor}-title",
    )


def _results(reading: Reading, topic: Topic) -> Markup | None:
    rows = [
        (name, _result(reading, one, one.measurement))
        for name in reading.names
        for one in topic.of(name)
        if one.measurement is not None
    ]
    if not rows:
        return None
    says = dict.fromkeys(one.measurement.says for one in topic.findings if one.measurement)
    columns = ["Deployment", "Result", "Figure", f"Interval ({text.SURE})", "Held against", "Trials"]
    return grid(f"The figure: {'; '.join(says)}", columns, rows)


def _result(reading: Reading, one: Finding, found: Measurement) -> list[Child]:
    remark = reading.remark(one)
    return [
        [chip(reading.mark(one), reading.words(one)), element("small", remark) if remark else None],
        [element("strong", text.figure(found)), _more(found)],
        text.interval(found),
        [text.chance(found), _likely(found)],
        f"{found.trials:,}" if found.trials else "-",
    ]


def _more(found: Measurement) -> Markup | None:
    if isinstance(found, Recovery):
        return element("small", f"{text.percent(found.value)}; median {text.number(found.median)} {found.unit}")
    if isinstance(found, Exposure):
        return element("small", text.percent(found.value))
    if isinstance(found, Bound):
        return element("small", f"δ = {found.delta:g}")
    return None


def _likely(found: Measurement) -> Markup | None:
    return element("small", f"p = {found.p_value:.2g}") if isinstance(found, Recovery | Detection) else None


def _notes(topic: Topic) -> Markup:
    """What there is to say beside the figures, once for all deployments of which it is said."""
    said: dict[tuple[str, str], list[str]] = {}
    for one in topic.findings:
        kind = "Note" if one.measurement else "Does not apply"
        if one.note or not one.measurement:
            said.setdefault((kind, one.note), []).append(one.deployment)
    everywhere = {one.deployment for one in topic.findings}
    notes = []
    for (kind, note), names in said.items():
        where = "" if set(names) == everywhere else f" ({', '.join(dict.fromkeys(names))})"
        notes.append([element("strong", kind), where, f": {text.sentence(note)}" if note else "."])
    return paragraphs(*notes, class_="note")


def _rocs(topic: Topic, reading: Reading) -> Markup | None:
    found = [(one.deployment, one.measurement) for one in topic.findings if isinstance(one.measurement, Detection)]
    if not found:
        return None
    rows = [
        (name, [f"{one.value:.2f} ({text.interval(one)})", *(text.rate(one.tpr(few)) for few in plots.FEW)])
        for name, one in found
    ]
    columns = ["Deployment", "AUC", *(f"TPR at {text.percent(few)} FPR" for few in plots.FEW)]
    fewest = min(len(one.no) for _, one in found)
    unseen = (
        f" Shaded: rates below one in {fewest}, which so few no-cases cannot show; there, TPR is that of no false "
        "alarm at all."
        if fewest < 1 / plots.LEAST
        else ""
    )
    return element(
        "figure",
        element("div", [plots.roc(one, name, reading.names.index(name)) for name, one in found], class_="plots"),
        element(
            "figcaption",
            "How many yes-cases the attack finds (true positive rate, TPR) at how many false alarms (false positive "
            "rate, FPR), on logarithmic axes so that rare false alarms can be seen. The band is the exact interval of "
            f"each TPR ({text.SURE}); the dashed line is chance; marks are at 1 % and 0.1 % FPR.{unseen}",
        ),
        grid("True positives at few false alarms, with intervals", columns, rows),
    )


def _curves(topic: Topic, reading: Reading) -> list[Markup]:
    """What a figure does as something grows, and how quantities are distributed."""
    names = dict.fromkeys(name for one in topic.findings for name in one.curves)
    by_name = {name: [one for one in topic.findings if name in one.curves] for name in names}
    spread = {name: found for name, found in by_name.items() if all(_is_distribution(one, name) for one in found)}
    grown = [_grown(name, found, reading) for name, found in by_name.items() if name not in spread]
    return [*grown, _histograms(spread, reading)] if spread else grown


def _grown(name: str, found: list[Finding], reading: Reading) -> Markup:
    """Lines; a name like "clients singled out, by rounds" says of both axes what they are."""
    says = next((one.measurement.says for one in found if one.measurement), "figure")
    before, word, across = name.rpartition(", against ") if ", against " in name else name.rpartition(", by ")
    series = {one.deployment: (*one.curves[name], reading.names.index(one.deployment)) for one in found}
    levels = {one.measurement.chance for one in found if isinstance(one.measurement, Detection | Recovery)}
    level = levels.pop() if len(levels) == 1 and not word else None
    plot = plots.lines(across, before or says, series, level)
    keys = legend([(deployment, style) for deployment, (*_, style) in series.items()], chance=level is not None)
    caption = f"{text.sentence(before or says)}, against {across}."
    return _figure(join([element("div", plot, class_="plots"), keys]), caption)


def _is_distribution(one: Finding, name: str) -> bool:
    """Whether a curve says what share of all that was counted has each value."""
    values, shares = one.curves[name]
    return isinstance(one.measurement, Exposure) and bool(np.isclose(np.sum(shares), 1) and np.all(values % 1 == 0))


def _histograms(spread: dict[str, list[Finding]], reading: Reading) -> Markup:
    """One for each quantity and deployment where values differ; of the others it is said what the one value is."""
    alike: dict[tuple[str, str], list[str]] = {}
    pictures = []
    for name, found in spread.items():
        for one in found:
            values, shares = one.curves[name]
            if np.count_nonzero(shares) == 1:
                always = text.number(float(values[np.argmax(shares)]))
                alike.setdefault((one.deployment, always), []).append(name)
            else:
                least, style = reading.least_cohort(one.deployment), reading.names.index(one.deployment)
                pictures.append(plots.histogram(one.deployment, name, (values, shares), least, style))
    by_names: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (deployment, always), names in alike.items():
        by_names.setdefault((always, tuple(names)), []).append(deployment)
    said = [f"{', '.join(on)}: always {always} ({'; '.join(names)})." for (always, names), on in by_names.items()]
    line = "The upright line is the fewest that the settings release a sum of. " if pictures else ""
    drawn = element("div", pictures, class_="plots") if pictures else Markup()
    return _figure(drawn, f"What share of all that was counted has each value. {line}{' '.join(said)}")


def _figure(picture: Markup, caption: str) -> Markup:
    return element("figure", picture, element("figcaption", caption))


def _cures(topic: Topic) -> Markup | None:
    cures: dict[tuple[str, ...], tuple[Cure, list[str]]] = {}
    for one in topic.findings:
        for cure in one.cures:
            same = cure.setting, cure.costs, *map(join, _afterwards(cure))
            cures.setdefault(same, (cure, []))[1].append(one.deployment)
    if not cures:
        return None
    rows = [
        (element("code", cure.setting), [", ".join(dict.fromkeys(names)), _afterwards(cure), cure.costs])
        for cure, names in cures.values()
    ]
    columns = ["Switch on", "Against the leak on", "Figure after", "What it costs"]
    return grid("What helps", columns, rows, class_="stack cures")


def _afterwards(cure: Cure) -> list[Child]:
    if cure.after is None:
        return [after(cure)]
    said = f"{text.interval(cure.after)}; {text.chance(cure.after)}"
    return [element("strong", text.figure(cure.after)), f": {after(cure)} ", element("small", said)]
