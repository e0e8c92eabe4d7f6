"""The plots of a report, as SVG: rates at few false alarms, bounds on epsilon, counts, and leaks as something grows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from attacks.measurement import Bound, Rate
from attacks.report.markup import Markup, element
from attacks.report.svg import (
    LEFT,
    LINE,
    RIGHT,
    STYLES,
    WIDTH,
    Frame,
    Scale,
    label,
    line,
    path,
    picture,
    rectangle,
    stairs,
    symbol,
    wrapped,
)
from attacks.report.text import chance, figure, interval, number, percent, rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from attacks.finding import Finding
    from attacks.measurement import Detection, Measurement

FEW = (0.01, 0.001)
"""False positive rates at which true ones are reported."""
LEAST = 1e-3
"""Smallest rate on the axes of a ROC curve."""
_TOP, _BOTTOM = 0.0, 200.0


def roc(found: Detection, name: str, style: int) -> Markup:
    """True over false positives, both by their logarithms, with the exact interval of each true positive rate.

    Args:
        found: What to draw.
        name: Of the deployment.
        style: Of the line.
    """
    frame = Frame(
        x=Scale(LEAST, 1, LEFT, RIGHT, log=True),
        y=Scale(LEAST, 1, _BOTTOM, _TOP, log=True),
        shares=True,
        x_shares=True,
    )
    false, true = found.curve()
    rates, places = np.unique(false[::-1], return_index=True)
    best = true[::-1][places]  # the curve climbs straight up where several thresholds cost equally many false positives
    hits = np.rint(best * len(found.yes)).astype(int)
    bounds = {count: Rate(int(count), len(found.yes)).interval for count in np.unique(hits)}
    across = np.array([frame.x(value) for value in rates])
    lines = [
        stairs(across, np.array([frame.y(value) for value in values]), RIGHT)
        for values in (best, [bounds[count][0] for count in hits], [bounds[count][1] for count in hits])
    ]
    shown = f"s{style % STYLES}"
    unseen = frame.x(1 / len(found.no))
    said = "; ".join(f"TPR {rate(found.tpr(few))} at FPR {percent(few)}" for few in FEW)
    return frame.draw(
        f"{name}: ROC curve on logarithmic axes. {figure(found)} ({interval(found)}); {said}.",
        "False positive rate (no-cases taken for yes)",
        f"{name}: true positive rate (yes-cases found)",
        rectangle(LEFT, _TOP, max(0.0, unseen - LEFT), _BOTTOM - _TOP, "unseen"),
        path([(LEFT, _BOTTOM), (RIGHT, _TOP)], "chance"),
        path([*lines[1], *lines[2][::-1]], f"band {shown}", closed=True),
        path(lines[0], f"line solid {shown}"),
        [symbol(frame.x(few), frame.y(found.tpr(few).value), style) for few in FEW],
    )


def bounds(name: str, rows: Sequence[tuple[Finding, str, str]]) -> Markup:
    """Lower bounds on epsilon as bars, each with its ceiling, under the line that the accountant draws.

    Args:
        name: Of the deployment.
        rows: For each bound the finding, its verdict in words, and that one's style.
    """
    found = [
        (one.measurement, one.attack, words, look) for one, words, look in rows if isinstance(one.measurement, Bound)
    ]
    scale = Scale(0, _reach([one for one, *_ in found]), 12, RIGHT)
    shapes, at = [], 0.0
    for one, attack, words, look in found:
        heading = wrapped(f"{attack}: {figure(one)}")
        shapes += [label(12, at + LINE * (place + 1), text) for place, text in enumerate(heading)]
        bar = at + LINE * len(heading) + 8
        shapes += [rectangle(12, bar, scale(one.epsilon) - 12, 16, f"bar {look}")]
        shapes += _ceiling(one, scale, bar + 8)
        if math.isfinite(one.claimed):
            shapes += [line(scale(one.claimed), bar - 5, scale(one.claimed), bar + 21, "claim")]
        shapes += [label(12, bar + 32, words, class_=f"strong {look}")]
        shapes += [label(12, bar + 32 + LINE, f"{chance(one)}; {interval(one)}", class_="faint")]
        at = bar + 56
    for tick in scale.ticks():
        shapes += [
            line(scale(tick), at, scale(tick), at + 4, "axis"),
            label(scale(tick), at + 18, number(tick), "middle"),
        ]
    shapes += [line(12, at, RIGHT, at, "axis"), label(RIGHT, at + 34, "ε", "end")]
    said = "; ".join(
        f"{attack}: {figure(one)}, {chance(one)}, {interval(one)}: {words}" for one, attack, words, _ in found
    )
    return picture(f"{name}: lower bounds on epsilon. {said}.", (0, -2, WIDTH, at + 40), shapes)


def _ceiling(one: Bound, scale: Scale, at: float) -> list[Markup]:
    """A dotted line from a bound to its ceiling, with a stop there, or an arrow where that is beyond the scale."""
    if math.isinf(one.ceiling):
        return []
    start, end = scale(one.epsilon), scale(one.ceiling)
    stop = [(end, at - 7), (end, at + 7)]
    if one.ceiling > scale.high:
        stop = [(end - 6, at - 5), (end, at), (end - 6, at + 5)]
    return [line(start, at, end, at, "ceiling"), path(stop, "ceiling solid")]


def _reach(found: Sequence[Bound]) -> float:
    """How far a scale has to go for bounds and claims to be seen; ceilings may lie beyond."""
    shown = max((value for one in found for value in (one.epsilon, one.claimed) if math.isfinite(value)), default=0.0)
    ceilings = [one.ceiling for one in found if math.isfinite(one.ceiling)]
    return 1.08 * min(max([shown, *ceilings]), 2.5 * shown or max(ceilings, default=1.0)) or 1.0


def histogram(
    name: str, quantity: str, curve: tuple[NDArray[np.float64], NDArray[np.float64]], least: int | None, style: int
) -> Markup:
    """The share of each value, as bars.

    Args:
        name: Of the deployment.
        quantity: What the values are.
        curve: The values, whole numbers, and the share of each.
        least: The value that the settings ask for at least, drawn as a line, if there is one.
        style: Of the bars.
    """
    values, shares = curve
    low, high = float(min(values)), float(max(values))
    if least is not None:
        low = min(low, float(least))
    across = Scale(low - 0.6, high + 0.6, LEFT, RIGHT)
    frame = Frame(
        x=across,
        y=Scale(0, float(max(shares)) * 1.05, _BOTTOM, _TOP),
        x_ticks=_few(np.arange(low, high + 1), across),
        shares=True,
    )
    wide = min(0.8 * (frame.x(low + 1) - frame.x(low)), 60.0)
    bars = [
        rectangle(frame.x(value) - wide / 2, frame.y(share), wide, _BOTTOM - frame.y(share), f"bar s{style % STYLES}")
        for value, share in zip(values, shares, strict=True)
    ]
    if least is not None:
        at = frame.x(least - 0.5)
        bars += [line(at, _TOP, at, _BOTTOM, "claim")]
    said = ", ".join(
        f"{number(float(value))}: {percent(float(share))}" for value, share in zip(values, shares, strict=True)
    )
    return frame.draw(f"{name}: {quantity}. {said}.", quantity, f"{name}: share", bars)


def lines(
    quantity: str,
    says: str,
    series: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64], int]],
    by_chance: float | None,
) -> Markup:
    """What a figure does as something grows, a line for each deployment.

    Args:
        quantity: What grows.
        says: What the figure is.
        series: Name of a deployment to the quantity's values, the figures there, and the line's style.
        by_chance: The figure of whoever sees nothing, if there is one for all.
    """
    xs = np.unique(np.concatenate([one[0] for one in series.values()]))
    ys = np.concatenate([one[1] for one in series.values()])
    shares = _are_shares(ys)
    gaps = np.diff(xs)
    log = bool(len(xs) > 2 and xs[0] > 0 and gaps.max() > 4 * gaps.min())  # 5, 10, 20, 50; not 3, 6, 9, 12, 18
    across = Scale(float(xs[0]), float(xs[-1]), LEFT + 8, RIGHT - 8, log=log)
    frame = Frame(
        x=across,
        y=Scale(min(0.0, float(ys.min())), 1.0 if shares else float(ys.max()) * 1.05 or 1.0, _BOTTOM, _TOP),
        x_ticks=_few(xs, across),
        shares=shares,
    )
    drawn = []
    if by_chance is not None and math.isfinite(by_chance):
        at = frame.y(by_chance)
        drawn += [line(LEFT, at, RIGHT, at, "chance")]
    said = []
    for name, (values, figures, style) in series.items():
        points = [(frame.x(float(x)), frame.y(float(y))) for x, y in zip(values, figures, strict=True)]
        drawn += [path(points, f"line s{style % STYLES}"), *(symbol(*point, style) for point in points)]
        ends = [percent(float(y)) if shares else number(float(y)) for y in (figures[0], figures[-1])]
        said += [f"{name}: {ends[0]} at {number(float(values[0]))}, {ends[1]} at {number(float(values[-1]))}"]
    return frame.draw(f"{says}, over {quantity}. {'; '.join(said)}.", quantity, says, drawn)


def gauge(measurement: Measurement, look: str) -> Markup:
    """A figure with its interval on a small ruler; a notch at chance, or at what is claimed."""
    low, high = measurement.interval
    scale, notch = Scale(0, 1, 5, 115), measurement.chance
    if isinstance(measurement, Bound):
        scale = Scale(0, _reach([measurement]), 5, 115)
        high = measurement.ceiling if math.isfinite(measurement.ceiling) else low
    return picture(
        f"{figure(measurement)}, {interval(measurement)}, {chance(measurement)}",
        (0, 0, 120, 16),
        line(5, 8, 115, 8, "axis"),
        line(scale(notch), 1, scale(notch), 15, "claim") if math.isfinite(notch) else None,
        line(scale(low), 8, scale(high), 8, f"whisker {look}"),
        _dot(scale(measurement.value), look),
    )


def _dot(at: float, look: str) -> Markup:
    return element("circle", cx=at, cy=8.0, r=4.0, class_=f"point {look}")


def _are_shares(values: NDArray[np.float64]) -> bool:
    return bool(values.min() >= 0 and values.max() <= 1)


def _few(values: NDArray[np.float64], scale: Scale) -> list[float]:
    """As many of the values as there is room for their texts."""
    kept: list[float] = []
    for value in values.tolist():
        if not kept or abs(scale(value) - scale(kept[-1])) >= 30:
            kept.append(value)
    return kept
