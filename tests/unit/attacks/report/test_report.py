"""The report as a page, as JSON and as a table: nothing is left out, nothing gets in, and marks say what is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from attacks.attack import Threat
from attacks.finding import Effort
from attacks.measurement import Detection
from attacks.report import table, write
from attacks.report.page import page
from attacks.report.reading import Mark, Reading, after
from attacks.report.text import figure
from tests.unit.attacks.report import made_up

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from attacks.auditing import Audit

VOID = {"br", "img", "meta"}
SHOWN = {"kept": made_up.kept, "broken": made_up.broken, "hostile": made_up.hostile}


class Page(HTMLParser):
    """A page's elements, and the text of each; fails where they are not nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self) -> str:
        """What a reader sees."""
        return "".join(data for tag, data in self.texts if tag not in {"style", "title"})

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


@cache
def html(name: str) -> str:
    return page(SHOWN[name]())


@cache
def parsed(name: str) -> Page:
    return Page(html(name))


@pytest.fixture(params=SHOWN)
def shown(request: pytest.FixtureRequest) -> Page:
    return parsed(request.param)


def one_of(audit: Audit, attack: str, deployment: str) -> Any:
    return next(one for one in audit.findings if (one.attack, one.deployment) == (attack, deployment))


class TestThePage:
    def test_is_written_beside_the_figures(self, tmp_path: Path) -> None:
        path = write(made_up.kept(), tmp_path / "new" / "folder")
        assert path.name == "report.html"
        assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
        assert sorted(one.name for one in path.parent.iterdir()) == ["audit.json", "report.html"]

    def test_is_well_formed_and_loads_nothing(self, shown: Page) -> None:
        assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {
            name for name, _ in shown.elements
        }
        for _, attributes in shown.elements:
            assert not {"style", "srcset", "onerror", "onload", "onclick"} & attributes.keys()
            for name in ("src", "href"):
                assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
        style = "".join(data for tag, data in shown.texts if tag == "style")
        assert "url(" not in style
        assert "@import" not in style

    def test_shows_what_others_say_as_text_only(self) -> None:
        assert "<script" not in html("hostile")
        assert made_up.SCRIPT in parsed("hostile").text
        assert any(made_up.SCRIPT in (one.get("aria-label") or "") for one in parsed("hostile").all("svg"))

    def test_links_lead_somewhere(self, shown: Page) -> None:
        ids = [attributes["id"] for _, attributes in shown.elements if "id" in attributes]
        assert len(set(ids)) == len(ids)
        links = {(one["href"] or "").removeprefix("#") for one in shown.all("a")}
        named = {attributes["aria-labelledby"] for _, attributes in shown.elements if "aria-labelledby" in attributes}
        assert links | named <= set(ids)

    def test_can_be_heard(self, shown: Page) -> None:
        assert shown.all("html")[0]["lang"] == "en"
        assert all(one["alt"] for one in shown.all("img"))
        pictures = [one for one in shown.all("svg") if one.get("aria-hidden") != "true"]
        assert all(one["role"] == "img" and one["aria-label"] for one in pictures)
        assert len(shown.all("caption")) == len(shown.all("table"))
        assert all(one.get("scope") for one in shown.all("th"))
        levels = [int(name[1]) for name, _ in shown.elements if re.fullmatch("h[1-6]", name)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(below - above <= 1 for above, below in pairwise(levels))

    def test_fits_phones_paper_and_dark_rooms(self) -> None:
        assert any(one.get("name") == "viewport" for one in parsed("kept").all("meta"))
        for query in ("max-width", "prefers-color-scheme: dark", "print"):
            assert re.search(rf"@media [^{{]*{query}", html("kept"))

    def test_holds_no_number_that_is_none(self) -> None:
        for svg in re.findall(r"<svg.*?</svg>", html("hostile"), re.DOTALL):
            drawn = re.sub(r"<title>.*?</title>|<text.*?</text>|aria-label=\"[^\"]*\"", "", svg, flags=re.DOTALL)
            assert not re.search(r"\b(nan|inf)\b", drawn)

    def test_says_of_every_finding_what_it_came_to(self) -> None:
        for name in ("kept", "broken"):
            for one in SHOWN[name]().findings:
                assert one.question in parsed(name).text
                assert one.source in parsed(name).text
                assert one.note in parsed(name).text
                assert one.measurement is None or figure(one.measurement) in parsed(name).text
                for cure in one.cures:
                    assert cure.setting in parsed(name).text
                    assert cure.costs in parsed(name).text
                    assert cure.after is None or figure(cure.after) in parsed(name).text

    def test_names_what_was_audited_and_how(self) -> None:
        for said in ("Holm", "5 %", "95 %", "Seed", "1,000", "83.4 s", "noise_trials", "adversary"):
            assert (said in parsed("kept").text) == (said not in {"noise_trials", "adversary"})
        for one in made_up.scenarios():
            assert one.name in parsed("kept").text
            assert one.stopped_by in parsed("kept").text

    def test_an_audit_of_nothing_is_a_page_too(self) -> None:
        empty = replace(made_up.kept(), findings=(), scenarios=())
        assert "Nothing was promised" in Page(page(empty)).text
        assert "Nothing was promised" in table(empty)


class TestMarks:
    def test_each_says_what_it_means(self) -> None:
        audit = made_up.broken()
        reading = Reading(audit)
        expected = {
            ("first-layer inversion", "plain"): Mark.LEAKS,
            ("first-layer inversion", "uniform"): Mark.KEPT,
            ("first-layer inversion", "mask-indexed"): Mark.BROKEN,
            ("two candidates", "private"): Mark.CHANCE,
            ("label inference from indices", "uniform"): Mark.UNTRIED,
        }
        assert {key: reading.mark(one_of(audit, *key)) for key in expected} == expected
        assert len({mark.symbol for mark in Mark}) == len({mark.words for mark in Mark}) == len(Mark)

    def test_bounds_pass_or_are_violated(self) -> None:
        audit = made_up.broken()
        reading = Reading(audit)
        assert reading.words(one_of(audit, "Gaussian", "private")).startswith("VIOLATION")
        assert reading.words(one_of(audit, "one run", "private")).startswith("PASS")
        assert reading.words(one_of(audit, "Gaussian", "uniform")) == "leaks (no ε promised)"

    def test_one_figure_in_many_that_is_beyond_chance_breaks_no_promise(self) -> None:
        audit = made_up.kept()
        place = next(place for place, one in enumerate(audit.findings) if one.claimed)
        odd = replace(audit.findings[place], measurement=made_up.bound(2.3, 2.2, 0.03))
        audit = replace(audit, findings=(*audit.findings[:place], odd, *audit.findings[place + 1 :]))
        reading = Reading(audit)
        assert reading.mark(odd) is Mark.KEPT
        assert "to be expected" in reading.remark(odd)
        assert reading.remark(odd) in Page(page(audit)).text

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("kept", "All promises kept"),
            ("broken", "2 promises broken, 2 attacks on the protocol not shown to be stopped"),
        ],
    )
    def test_the_verdict_comes_first(self, name: str, said: str) -> None:
        assert said in parsed(name).text[:200]
        assert said in table(SHOWN[name]())

    def test_what_is_broken_is_named_at_the_top(self) -> None:
        banner = parsed("broken").text.split("Every attack on every deployment")[0]
        assert "mask-indexed: Can the server see a client's examples?" in banner
        assert "private: Does the noise keep the privacy budget?" in banner
        assert "substituted keys, reached its goal" in banner
        assert "late client, is not shown to work" in banner

    def test_a_counter_measure_says_whether_it_helps(self) -> None:
        cures = {cure.setting: after(cure) for one in made_up.kept().findings for cure in one.cures}
        assert cures == {
            "mode='uniform'": "see the other deployments",
            "min_cohort=50": "still leaks",
            "privacy=PrivacyBudget(epsilon=8.0, ...)": "as chance",
            "min_cohort=5": "as chance",
        }


class TestFigures:
    @pytest.mark.parametrize("make", SHOWN.values())
    def test_json_round_trips_without_numbers_that_it_has_not(self, make: Callable[[], Audit], tmp_path: Path) -> None:
        def refuse(constant: str) -> None:
            raise AssertionError(constant)

        audit = make()
        text = (write(audit, tmp_path).parent / "audit.json").read_text(encoding="utf-8")
        read = json.loads(text, parse_constant=refuse)
        assert json.loads(json.dumps(read)) == read
        assert [one["attack"] for one in read["findings"]] == [one.attack for one in audit.findings]
        assert read["passed"] is audit.passed

    def test_infinities_and_numpy_numbers_become_plain(self, tmp_path: Path) -> None:
        drawn: Any = np.int64(3)
        audit = replace(made_up.hostile(), seconds=np.float64(1.5), seed=drawn, effort=Effort(decisions=drawn))
        read = json.loads((write(audit, tmp_path).parent / "audit.json").read_text(encoding="utf-8"))
        assert (read["seconds"], read["seed"], read["effort"]["decisions"]) == (1.5, 3, 3)
        assert read["findings"][0]["measurement"]["median_quality"] is None


class TestTheTable:
    def test_holds_every_attack_and_every_figure(self) -> None:
        shown = table(made_up.broken())
        for one in made_up.broken().findings:
            assert one.measurement is None or figure(one.measurement) in shown
        for mark in Mark:
            assert mark.symbol in shown
        assert "VIOLATION" in shown

    def test_lines_up(self) -> None:
        lines = [line for line in table(made_up.hostile()).splitlines() if line.startswith(("┃", "│"))]
        assert len({len(line) for line in lines}) == 1

    def test_reads_no_markup_of_its_own(self) -> None:
        audit = made_up.kept()
        odd = replace(audit.findings[0], attack="[red]attack[/red]")
        assert "[red]attack[/red]" in table(replace(audit, findings=(odd,)))


def test_every_threat_is_explained_on_every_deployment() -> None:
    plain = made_up.detection(0, np.random.default_rng(1))
    first = made_up.kept().findings[0]
    findings = tuple(
        replace(first, threat=threat, question=threat.value, measurement=plain, pictures=(), claimed=False)
        for threat in Threat
    )
    text = Page(page(replace(made_up.kept(), findings=findings))).text
    for threat in Threat:
        assert text.count(f"Attacker: {threat.value}") == 2
    assert "promised: nothing of a single client" in text
    assert "bounded: by the privacy budget" in text


def test_rates_at_few_false_alarms_stand_beside_the_curves() -> None:
    found = Detection("told apart", np.arange(2000.0), np.arange(-1990.0, 10.0))
    first = made_up.kept().findings[0]
    text = Page(page(replace(made_up.kept(), findings=(replace(first, measurement=found, pictures=()),)))).text
    assert "TPR at 1 % FPR" in text
    assert "TPR at 0.1 % FPR" in text
    assert "Shaded" not in text
    assert "99.6 % (99.2 to 99.8 %)" in text
