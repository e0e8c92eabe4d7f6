"""Axes and shapes for plots inside a page: colours, letters and dark mode are the page's own."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attacks.report.markup import Child, Markup, element
from attacks.report.text import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

WIDTH = 360
LEFT, RIGHT = 48, 340
LINE = 14
"""Height of a line of text."""
LETTERS = 56
"""That fit on a line."""
STYLES = 6
"""How many series can be told apart; then styles begin anew."""


@dataclass(frozen=True)
class Scale:
    """Numbers to places.

    Args:
        low: Smallest number.
        high: Largest number.
        start: Where the smallest is.
        end: Where the largest is.
        log: By their logarithms; ``low`` is positive.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a number; those beyond the scale are at its ends."""
        low, high, here = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, here = math.log(low), math.log(high), math.log(here)
        return self.start + (here - low) / ((high - low) or 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """A few round numbers, from end to end."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**power for power in powers]
        rough = (self.high - self.low) / 4 or 1.0
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [step * place for place in range(first, last + 1)]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Two axes.

    Args:
        x: Across.
        y: Up.
        x_ticks: Numbers on the axis; None for round ones.
        shares: Whether the axes show shares, to be written as percent.
        x_shares: The same of ``x``.
    """

    x: Scale
    y: Scale
    x_ticks: Sequence[float] | None = None
    shares: bool = False
    x_shares: bool = False

    def draw(self, title: str, x_label: str, y_label: str, *shapes: Child) -> Markup:
        """The picture.

        Args:
            title: What it shows, for readers who do not see it.
            x_label: Below.
            y_label: Above.
            shapes: In front of the grid.
        """
        below, above = wrapped(x_label), wrapped(y_label)
        top, bottom = min(self.y.start, self.y.end), max(self.y.start, self.y.end)
        rise = LINE * len(above) + 6
        labels = [
            *(label(4, top - rise + LINE * (place + 0.6), line) for place, line in enumerate(above)),
            *(
                label((LEFT + RIGHT) / 2, bottom + 34 + LINE * place, line, "middle")
                for place, line in enumerate(below)
            ),
        ]
        box = (0.0, top - rise - 2, float(WIDTH), bottom - top + rise + 32 + LINE * len(below))
        return picture(title, box, self._axes(top, bottom), shapes, labels)

    def _axes(self, top: float, bottom: float) -> list[Markup]:
        drawn = []
        for tick in self.y.ticks():
            at = self.y(tick)
            drawn += [line(LEFT, at, RIGHT, at, "rule")]
            drawn += [label(LEFT - 6, at + 4, percent_or_number(tick, shares=self.shares), "end")]
        for tick in self.x.ticks() if self.x_ticks is None else self.x_ticks:
            at = self.x(tick)
            drawn += [line(at, bottom, at, bottom + 4, "axis"), line(at, top, at, bottom, "rule")]
            drawn += [label(at, bottom + 17, percent_or_number(tick, shares=self.x_shares), "middle")]
        return [*drawn, line(LEFT, bottom, RIGHT, bottom, "axis")]


def wrapped(words: str) -> list[str]:
    """Lines that fit a picture's width."""
    return textwrap.wrap(words, LETTERS)


def percent_or_number(value: float, *, shares: bool) -> str:
    """A tick's text."""
    return f"{number(round(100 * value, 6))} %" if shares else number(round(value, 9))


def picture(title: str, box: tuple[float, float, float, float], *children: Child) -> Markup:
    """An SVG.

    Args:
        title: What it shows, for readers who do not see it.
        box: Left, top, width and height.
        children: Shapes.
    """
    view = " ".join(f"{one:g}" for one in box)
    return element("svg", element("title", title), children, viewBox=view, role="img", aria_label=title, class_="plot")


def label(x: float, y: float, words: str, anchor: str = "start", class_: str | None = None) -> Markup:
    """Text."""
    return element("text", words, x=float(x), y=float(y), text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def rectangle(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    """A bar, or an area."""
    return element("rect", x=float(x), y=float(y), width=float(width), height=float(height), class_=class_)


def path(points: Iterable[tuple[float, float]], class_: str, *, closed: bool = False) -> Markup:
    """A line through points, or the area inside."""
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return element("path", d=f"M{steps}{'Z' * closed}", class_=class_)


def stairs(xs: NDArray[Any], ys: NDArray[Any], end: float) -> list[tuple[float, float]]:
    """Points of a line that stays at each value until the next one begins, and the last until ``end``."""
    points = [(float(xs[0]), float(ys[0]))]
    for x, y in zip(xs[1:], ys[1:], strict=True):
        points += [(float(x), points[-1][1]), (float(x), float(y))]
    return [*points, (end, points[-1][1])]


def symbol(x: float, y: float, style: int) -> Markup:
    """A point of a series: shapes tell them apart as well as colours do."""
    class_, size = f"dot s{style % STYLES}", 4.5
    match style % STYLES:
        case 0:
            return element("circle", cx=x, cy=y, r=4.0, class_=class_)
        case 1:
            return rectangle(x - 3.8, y - 3.8, 7.6, 7.6, class_)
        case 2:
            corners = [(0.0, -size), (size, size * 0.8), (-size, size * 0.8)]
        case 3:
            corners = [(0.0, -5.2), (5.2, 0.0), (0.0, 5.2), (-5.2, 0.0)]
        case 4:
            corners = [(0.0, size), (size, -size * 0.8), (-size, -size * 0.8)]
        case _:
            corners = [(-size, -1.5), (-size, 1.5), (size, 1.5), (size, -1.5)]
    return path(((x + dx, y + dy) for dx, dy in corners), class_, closed=True)


def legend(names: Sequence[tuple[str, int]], *, chance: bool) -> Markup:
    """Which series is which.

    Args:
        names: Name and style of each.
        chance: Whether there is a line at chance, too.
    """
    keys = [(name, [line(0, 8, 30, 8, f"line s{style % STYLES}"), symbol(15, 8, style)]) for name, style in names]
    keys += [("chance", [line(0, 8, 30, 8, "chance")])] if chance else []
    return element("ul", (element("li", _key(shapes), name) for name, shapes in keys), class_="legend")


def _key(shapes: Child) -> Markup:
    return element("svg", shapes, viewBox="0 0 30 16", aria_hidden="true", class_="key")
