"""Pictures of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from protocols.results import RunResult

# Okabe and Ito's colours, told apart by colour-blind readers too; markers tell the lines apart in print.
_STYLES = (("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))


def accuracy_over_time(runs: Sequence[RunResult], path: Path, *, title: str, begins: tuple[float, float]) -> None:
    """Draws test accuracy over simulated time, a line a run, as PNG.

    Args:
        runs: What to draw.
        path: Where to write.
        title: Above the picture.
        begins: Where all lines begin: simulated seconds, and the accuracy at that time.
    """
    figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    for run, (colour, marker) in zip(runs, _STYLES, strict=False):
        seconds = [begins[0], *(one.finished_at for one in run.rounds)]
        percent = [100 * accuracy for accuracy in (begins[1], *(one.accuracy for one in run.rounds))]
        label = f"{run.system} ({run.round_seconds:.2f} s a round)"
        axes.plot(seconds, percent, color=colour, marker=marker, ms=4, lw=1.8, label=label)
    axes.set_xlabel("Simulated time (s)")
    axes.set_ylabel("Test accuracy (%)")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)
