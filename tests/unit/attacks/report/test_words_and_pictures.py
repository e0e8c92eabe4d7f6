"""What a report writes and draws, piece by piece."""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from attacks.attack import Threat
from attacks.finding import Picture
from attacks.measurement import Bound, Detection, Exposure, Measurement, Recovery
from attacks.report import markup, plots, svg, text
from attacks.report.images import pictures
from attacks.report.page import page
from attacks.report.reading import Reading
from attacks.rules import units_at_random
from tests.unit.attacks.report import made_up


class Count(Measurement):
    """A kind of figure that reports do not know."""

    value, interval, chance, p_value, says, trials = 3.25, (3.0, 4.5), 1.0, 1.0, "counted", 5


BOUND = Bound("epsilon", 1.25, 2.0, 5.0, 1e-5, 1000, 1.0)


class TestWords:
    @pytest.mark.parametrize(
        ("share", "said"),
        [
            (0, "0 %"),
            (1, "100 %"),
            (0.5, "50 %"),
            (0.016, "1.6 %"),
            (0.05, "5 %"),
            (0.0003, "0.03 %"),
            (0.9996, "99.96 %"),
            (0.998, "99.8 %"),
        ],
    )
    def test_shares_are_never_rounded_to_none_or_all(self, share: float, said: str) -> None:
        assert text.percent(share) == said

    @pytest.mark.parametrize(
        ("value", "said"),
        [(6570, "6,570"), (0.12345, "0.123"), (4.0, "4"), (math.inf, "∞"), (-math.inf, "-∞"), (math.nan, "-")],
    )
    def test_numbers_have_three_digits(self, value: float, said: str) -> None:
        assert text.number(value) == said

    @pytest.mark.parametrize(
        ("measurement", "said"),
        [
            (Recovery("", 20, "dB", np.full(8, 30.0), np.zeros(8)), ("8 of 8", "63 to 100 %", "chance 0 %")),
            (Detection("", np.array([1.0, 2]), np.array([0.0])), ("AUC 1.00", "0.03 to 1.00", "chance 0.50")),
            (Exposure("", 1051, 6570), ("1,051 of 6,570", "16 %, counted", "safe: none")),
            (BOUND, ("ε ≥ 1.25", "at most 5 in 1,000 trials", "claim ε ≤ 2")),
            (
                replace(BOUND, claimed=math.inf, ceiling=math.inf),
                ("ε ≥ 1.25", "no ceiling in 1,000 trials", "no claim"),
            ),
            (replace(BOUND, trials=0), ("ε ≥ 1.25", "computed, not sampled", "claim ε ≤ 2")),
            (Count(), ("3.25", "3 to 4.5", "chance 1")),
        ],
    )
    def test_figures_say_what_they_are(self, measurement: Measurement, said: tuple[str, str, str]) -> None:
        assert (text.figure(measurement), text.interval(measurement), text.chance(measurement)) == said

    def test_what_is_seen_depends_on_the_settings(self) -> None:
        plain, uniform, indexed, private = made_up.deployments()
        whole = indexed.variant("whole", pruned=0.0)
        noisy = indexed.variant("noisy", params=private.params)
        pruned = plain.variant("pruned", mask=units_at_random(0.5), pruned=0.5)
        hidden = pruned.variant("hidden", mode="uniform")
        masks = {one.name: text.sees(Threat.THE_MASKS, one) for one in (plain, indexed, whole, pruned, hidden)}
        assert masks == {
            "plain": "nothing: every client sends whole updates",
            "whole": "nothing: every client sends whole updates",
            "mask-indexed": "each client's mask, which it declares",
            "pruned": "each client's mask, read off its update",
            "hidden": "nothing: masks stay on the devices",
        }
        sums = {one.name: text.sees(Threat.THE_SUM, one) for one in (plain, uniform, indexed, noisy, private)}
        assert len(set(sums.values())) == 5
        assert [name for name, said in sums.items() if "noise" in said] == ["noisy", "private"]

    def test_some_promises_are_of_a_part(self) -> None:
        assert text.promise(Threat.THE_MASKS, made_up.deployments()[2], in_part=True).startswith("✓ promised in part")
        assert text.promise(Threat.THE_MASKS, made_up.deployments()[3]) == "no promise"

    def test_sentences_begin_large_and_names_stay(self) -> None:
        assert [text.sentence(one) for one in ("two candidates", "iDLG", "DLG", "")] == [
            "Two candidates",
            "iDLG",
            "DLG",
            "",
        ]

    def test_settings_are_words(self) -> None:
        assert text.setting("pruned", 1 / 3) == "33 %"
        assert text.setting("mode", "another") == "another"
        assert text.setting("clip", None) == "none"
        assert text.setting("rotate", True) == "True"


class TestMarkup:
    def test_what_is_no_markup_is_escaped(self) -> None:
        made = markup.element("p", "<b>", markup.Markup("<br>"), None, ["a", 1], title='"&')
        assert made == '<p title="&quot;&amp;">&lt;b&gt;<br>a1</p>'

    def test_attributes_are_named_as_in_html(self) -> None:
        made = markup.element("line", class_="a", stroke_width=1.50, x=2.0, href=None)
        assert made == '<line class="a" stroke-width="1.5" x="2"></line>'


class TestAxes:
    @pytest.mark.parametrize(
        ("scale", "ticks"),
        [
            (svg.Scale(0, 1, 0, 100), [0, 0.25, 0.5, 0.75, 1]),
            (svg.Scale(0, 5.3, 0, 100), [0, 2, 4]),
            (svg.Scale(0.001, 1, 0, 100, log=True), [0.001, 0.01, 0.1, 1]),
        ],
    )
    def test_ticks_are_round(self, scale: svg.Scale, ticks: list[float]) -> None:
        assert scale.ticks() == pytest.approx(ticks)

    def test_places_are_proportional_and_stay_inside(self) -> None:
        assert [svg.Scale(0, 4, 10, 90)(value) for value in (-1, 0, 1, 4, 9)] == [10, 10, 30, 90, 90]
        assert svg.Scale(0.01, 1, 0, 100, log=True)(0.1) == pytest.approx(50)
        assert svg.Scale(2, 2, 10, 90)(2) == 10

    def test_series_are_told_apart_without_colour(self) -> None:
        shapes = {re.sub(r"s\d", "", svg.symbol(0, 0, style)) for style in range(svg.STYLES)}
        assert len(shapes) == svg.STYLES


class TestPlots:
    def test_a_roc_curve_says_its_rates_and_climbs(self) -> None:
        found = Detection("", np.arange(50.0) + 20, np.arange(50.0))
        drawn = plots.roc(found, "name", 0)
        assert f"TPR {text.rate(found.tpr(0.01))} at FPR 1 %" in drawn
        line = re.findall(r'd="M([^"]*)" class="line', drawn)[0]
        points = np.array([[float(value) for value in point.split()] for point in line.split("L")])
        assert (np.diff(points[:, 0]) >= 0).all()
        assert (np.diff(points[:, 1]) <= 0).all()
        assert points[-1].tolist() == [svg.RIGHT, 0]

    def test_bars_lie_below_lines_of_the_claim_and_the_ceiling(self) -> None:
        first = made_up.kept().findings[0]
        row = replace(first, attack="bound", measurement=BOUND)
        drawn = plots.bounds("name", [(row, "PASS", "kept")])
        bar = re.findall(r'<rect x="12" y="[^"]*" width="([^"]*)"', drawn)[0]
        claim = re.findall(r'x1="([^"]*)"[^>]*class="claim"', drawn)[0]
        ceiling = re.findall(r'd="M([0-9.]*) [^"]*" class="ceiling solid"', drawn)[0]
        assert 12 + float(bar) < float(claim) < float(ceiling)
        unclaimed = replace(row, measurement=replace(BOUND, claimed=math.inf, ceiling=math.inf))
        bare = plots.bounds("name", [(unclaimed, "no", "chance")])
        assert 'claim"' not in bare
        assert 'class="ceiling' not in bare

    def test_a_ceiling_far_above_everything_does_not_press_the_rest_flat(self) -> None:
        row = replace(made_up.kept().findings[0], attack="bound", measurement=replace(BOUND, ceiling=400.0))
        drawn = plots.bounds("name", [(row, "PASS", "kept")])
        claim = re.findall(r'x1="([^"]*)"[^>]*class="claim"', drawn)[0]
        assert float(claim) > svg.RIGHT / 3
        assert drawn.count("L", drawn.index('d="M')) >= 2
        assert "at most 400" in drawn

    def test_a_leak_may_grow_over_decades_and_beyond_one(self) -> None:
        xs = np.array([1.0, 10, 100])
        drawn = plots.lines("rounds", "bits", {"a": (xs, np.array([1.0, 2, 30]), 0)}, None)
        assert "a: 1 at 1, 30 at 100" in drawn
        places = [float(x) for x in re.findall(r'cx="([^"]*)"', drawn)]
        assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.02)

    def test_shares_of_a_distribution_are_bars(self) -> None:
        drawn = plots.histogram("name", "holders", (np.array([4.0, 5]), np.array([0.25, 0.75])), 3, 0)
        heights = [float(one) for one in re.findall(r'height="([^"]*)" class="bar', drawn)]
        assert heights[1] == pytest.approx(3 * heights[0], abs=0.05)
        assert "4: 25 %, 5: 75 %" in drawn

    def curve(self, name: str, values: list[float], figures: list[float]) -> str:
        """A page about one counted quantity."""
        counted = replace(made_up.kept().findings[0], measurement=Exposure("alone", 1, 9), pictures=(), note="")
        curves = {name: (np.array(values), np.array(figures))}
        return page(replace(made_up.kept(), findings=(replace(counted, curves=curves),)))

    def test_where_all_values_are_one_it_is_said_not_drawn(self) -> None:
        drawn = self.curve("holders", [11.0, 12], [0.0, 1])
        assert "plain: always 12 (holders)." in drawn
        assert "plain: share" not in drawn

    def test_what_adds_up_to_all_is_drawn_as_bars_and_the_rest_as_lines(self) -> None:
        assert "plain: share" in self.curve("holders", [11.0, 12], [0.4, 0.6])
        assert "plain: share" not in self.curve("clients", [11.0, 12], [0.4, 0.5])

    @pytest.mark.parametrize("name", ["singled out, by rounds", "singled out, against rounds"])
    def test_a_curve_may_name_both_axes(self, name: str) -> None:
        assert "singled out, over rounds. plain: 40 % at 1, 50 % at 2." in self.curve(name, [1.0, 2], [0.4, 0.5])
        assert "alone, over rounds. plain: 40 % at 1, 50 % at 2." in self.curve("rounds", [1.0, 2], [0.4, 0.5])

    def test_texts_of_an_axis_keep_apart(self) -> None:
        drawn = plots.lines("n", "", {"a": (np.arange(1.0, 51), np.arange(50.0), 0)}, None)
        below = sorted(float(x) for x in re.findall(r'<text x="([^"]*)" y="217"', drawn))
        assert len(below) > 5
        assert min(np.diff(below)) >= 29.9

    def test_an_attack_that_applies_nowhere_says_why(self) -> None:
        untried = replace(made_up.kept().findings[0], measurement=None, note="why", pictures=(), cures=())
        drawn = page(replace(made_up.kept(), findings=(untried,)))
        assert "<strong>Does not apply</strong>: Why" in drawn
        assert "The figure" not in drawn

    def test_there_may_be_more_deployments_than_styles(self) -> None:
        audit = made_up.kept()
        many = tuple(replace(one, deployment=f"{one.deployment} {copy}") for one in audit.findings for copy in range(2))
        drawn = page(replace(audit, findings=many))
        assert Reading(replace(audit, findings=many)).names[-1] == "private 1"
        assert "private 1: ROC curve" in drawn


class TestPictures:
    def finding(self, *shown: Picture, deployment: str = "plain") -> Any:
        return replace(made_up.kept().findings[0], pictures=shown, deployment=deployment)

    def decoded(self, html: str) -> list[Any]:
        return [imread(io.BytesIO(base64.b64decode(one))) for one in re.findall(r"base64,([^\"]*)", html)]

    @pytest.mark.parametrize(
        ("shape", "size"),
        [
            ((8, 8), (8, 8)),
            ((1, 5, 4), (5, 4)),
            ((3, 4, 5), (4, 5)),
            ((4, 5, 3), (4, 5)),
            ((64,), (8, 8)),
            ((7,), (1, 7)),
        ],
    )
    def test_of_any_shape_become_images(self, shape: tuple[int, ...], size: tuple[int, int]) -> None:
        original = np.linspace(0, 1, math.prod(shape)).reshape(shape)
        one, other = self.decoded(pictures([self.finding(Picture(original, original * 2, 30.0, None))]))
        assert one.shape[:2] == other.shape[:2] == size
        assert other.max() == 1

    def test_are_on_the_scale_of_the_original(self) -> None:
        original = np.array([[-1.0, 0.0], [1.0, 3.0]])
        guess = np.array([[-9.0, np.nan], [1.0, np.inf]])
        one, other = self.decoded(pictures([self.finding(Picture(original, guess, math.inf, 1.0))]))
        assert one[..., 0] == pytest.approx(np.array([[0, 0.25], [0.5, 1]]), abs=0.003)
        assert other[..., 0] == pytest.approx(np.array([[0, 0.25], [0.5, 1]]), abs=0.003)

    def test_share_the_originals_where_they_are_the_same(self) -> None:
        rng = np.random.default_rng(2)
        first, second = made_up.picture(0.5, rng), made_up.picture(0.5, rng)
        shared = pictures([self.finding(first, second), self.finding(first, deployment="uniform")])
        assert len(self.decoded(shared)) == 2 + 3
        apart = pictures([self.finding(first), self.finding(second, deployment="uniform")])
        assert len(self.decoded(apart)) == 4
        assert "did not come to the same examples" in apart

    def test_stand_beside_the_guess_baseline(self) -> None:
        shown = self.finding(made_up.picture(0.5, np.random.default_rng(2)))
        median = text.number(float(np.median(shown.measurement.elsewhere)))
        assert re.search(rf"Guess baseline.*{median} dB", pictures([shown]))
        counted = replace(shown, measurement=Exposure("", 1, 2))
        assert "<tfoot" not in pictures([counted])
