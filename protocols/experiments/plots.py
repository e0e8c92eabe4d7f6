"""Pictures of runs and comparisons, as PNG."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from protocols.experiments.comparison import Row, Runs
    from protocols.results import Begin, RunResult

# Okabe and Ito's colours, told apart by colour-blind readers too; markers and dashes tell the lines apart in print.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--")
_PARTS = {"download": "#56B4E9", "compute": "#0072B2", "upload": "#E69F00", "secure": "#CC79A7"}


def accuracy_over_time(
    runs: Mapping[str, Runs], path: Path, *, title: str, begins: Mapping[int, Begin] | None = None
) -> None:
    """Draws test accuracy over simulated time, a line a system: the mean over seeds, in a band from least to largest.

    Args:
        runs: Label to seed to run; all seeds of a label have equally many rounds.
        path: Where to write.
        title: Above the picture.
        begins: Seed to where its lines begin; None for at their first rounds.
    """
    figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
    axes: Axes = figure.subplots()
    for number, (label, own) in enumerate(runs.items()):
        lines = [_line(run, (begins or {}).get(seed)) for seed, run in own.items()]
        length = min(len(line) for line in lines)  # rounds may be lost
        seconds, accuracies = np.array([line[:length] for line in lines]).transpose(2, 0, 1)
        axes.plot(
            seconds.mean(axis=0),
            100 * accuracies.mean(axis=0),
            color=_COLOURS[number % len(_COLOURS)],
            linestyle=_DASHES[number // len(_COLOURS) % len(_DASHES)],
            marker=_MARKERS[number % len(_MARKERS)],
            markevery=max(1, length // 10),
            ms=4,
            lw=1.6,
            label=f"{label} ({fmean(run.round_seconds for run in own.values()):.3g} s a round)",
        )
        if len(lines) > 1:
            low, high = 100 * accuracies.min(axis=0), 100 * accuracies.max(axis=0)
            axes.fill_between(seconds.mean(axis=0), low, high, color=_COLOURS[number % len(_COLOURS)], alpha=0.08, lw=0)
    axes.set_xlabel("Simulated time (s)")
    axes.set_ylabel("Test accuracy (%)")
    _finish(axes, title)
    axes.legend(loc="best", frameon=False, fontsize=8)
    figure.savefig(path)


def round_times(rows: Sequence[Row], path: Path, *, title: str, stragglers_only: bool) -> None:
    """Draws where the time of a round's slowest client goes that is in time, a bar a system.

    Args:
        rows: The comparison, the baseline first.
        path: Where to write.
        title: Above the picture.
        stragglers_only: Only stragglers are relieved: draw how long full rounds would be if they kept up, too.
    """
    figure = Figure(figsize=(8, 0.9 + 0.36 * len(rows)), dpi=150, layout="constrained")
    axes: Axes = figure.subplots()
    places, left = np.arange(len(rows)), np.zeros(len(rows))
    for part, colour in _PARTS.items():
        seconds = np.array([row.seconds[part] for row in rows])
        axes.barh(places, seconds, left=left, color=colour, height=0.7, label=part)
        left += seconds
    if stragglers_only:
        kept_up = rows[0].round_seconds * (1 - rows[0].bound)
        axes.axvline(kept_up, color="black", lw=1, ls=":", label="if stragglers\nkept up")
    axes.use_sticky_edges = False  # parts that take no time would end the picture at the longest bar
    axes.set_xlim(left=0)
    axes.set_yticks(places, [row.label for row in rows], fontsize=8)
    axes.invert_yaxis()
    trips = "; asynchronous: of one trip" if any(row.asynchronous for row in rows) else ""
    axes.set_xlabel(f"Seconds of the slowest client in time in a round (simulated{trips})")
    _finish(axes, title)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path)


def gains(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Draws each system's accuracy less the baseline's, with 95 % confidence intervals over paired seeds.

    Args:
        rows: The comparison, the baseline first; it is the line at zero.
        path: Where to write.
        title: Above the picture.
    """
    others = rows[1:]
    figure = Figure(figsize=(8, 0.9 + 0.36 * len(others)), dpi=150, layout="constrained")
    axes: Axes = figure.subplots()
    places = np.arange(len(others))
    means = [100 * row.gain.mean for row in others]
    margins = [100 * (row.gain.margin or 0.0) for row in others]
    axes.axvline(0, color="black", lw=1)
    axes.errorbar(means, places, xerr=margins, fmt="o", color=_COLOURS[0], capsize=3, ms=5)
    axes.set_yticks(places, [row.label for row in others], fontsize=8)
    axes.set_ylim(len(others) - 0.5, -0.5)
    seeds = len(rows[0].seeds)
    over = "one seed" if seeds == 1 else f"95 % interval over {seeds} seeds"
    axes.set_xlabel(f"Test accuracy less that of {rows[0].label} (points, {over})")
    _finish(axes, title)
    figure.savefig(path)


def clients_own(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Draws how clients fare on their own test examples after a run, means over seeds.

    Args:
        rows: The comparison; all rows have ``personal``.
        path: Where to write.
        title: Above the picture.
    """
    figure = Figure(figsize=(8, 1.1 + 0.36 * len(rows)), dpi=150, layout="constrained")
    axes: Axes = figure.subplots()
    places = np.arange(len(rows))
    before, masked = ([row.personal[moment] for row in rows] for moment in ("before", "masked"))
    means = [100 * one.mean.mean for one in before]
    (first,) = axes.plot(
        means, places, "o", color=_COLOURS[0], mfc="none", ms=8, zorder=3, label="mean before fine-tuning"
    )
    after = axes.errorbar(
        [100 * one.mean.mean for one in masked],
        places,
        xerr=[[100 * one.deviation.mean for one in masked], [0.0] * len(rows)],  # to the right it might pass 100 %
        fmt="o",
        color=_COLOURS[0],
        capsize=3,
        ms=5,
        label="after it, under the mask if there is one: mean,\nand a standard deviation between clients below",
    )
    worst = [100 * one.worst.mean for one in masked]
    (last,) = axes.plot(worst, places, _MARKERS[-1], color=_COLOURS[5], ms=5, label="after it the worst client")
    axes.set_yticks(places, [row.label for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("Accuracy on clients' own test examples (%)")
    _finish(axes, title)
    figure.legend(handles=[first, after, last], loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path)


def _line(run: RunResult, begin: Begin | None) -> list[Begin]:
    return [*([begin] if begin else []), *((one.finished_at, one.accuracy) for one in run.rounds)]


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
