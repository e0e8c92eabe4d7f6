"""What the pictures of a comparison say, read off the figures that are written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from protocols.experiments.comparison import compare
from protocols.experiments.plots import accuracy_over_time, clients_own, gains, round_times
from protocols.results import ClientRound, Personal, RoundResult, RunResult
from protocols.simulation.clock import ClientTime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from protocols.experiments.comparison import Row


def run(accuracies: Sequence[float], details: Mapping[str, float] | None = None) -> RunResult:
    """Rounds of one client that take three seconds each."""
    client = ClientRound(
        keep=1.0,
        parameters=10,
        flops=7,
        download_bytes=40,
        upload_bytes=20,
        seconds=ClientTime(download=0.5, compute=1.5, upload=1.0, secure=0.0),
    )
    rounds = (
        RoundResult(
            number=number,
            accuracy=accuracy,
            finished_at=3.0 * (number + 1),
            seconds=3.0,
            clients={"a": client},
            survivors=("a",),
            withheld_share=0.0,
            difference=None,
            verdict="",
            details=details or {},
        )
        for number, accuracy in enumerate(accuracies)
    )
    return RunResult(system="made up", aggregator="float", stragglers=(), rounds=tuple(rounds))


def rows(seeds: int, details: Mapping[str, float] | None = None) -> tuple[Row, ...]:
    own = {seed: run((0.5, 0.6)) for seed in range(seeds)}
    return compare({"fedavg": own, "clip": {seed: run((0.5, 0.7), details) for seed in own}})


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written from here on."""
    written: list[Figure] = []
    save = Figure.savefig

    def noted(figure: Figure, path: Path, **options: Any) -> None:
        written.append(figure)
        save(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", noted)
    return written


def test_an_interval_is_told_only_where_there_are_several_seeds(tmp_path: Path, figures: list[Figure]) -> None:
    for seeds in (1, 3):
        gains(rows(seeds), tmp_path / "gains.png", title="title")
    said = [figure.axes[0].get_xlabel() for figure in figures]
    assert said == [
        "Test accuracy less that of fedavg (points, one seed)",
        "Test accuracy less that of fedavg (points, 95 % interval over 3 seeds)",
    ]


def test_bars_cover_the_grid(tmp_path: Path, figures: list[Figure]) -> None:
    round_times(rows(1), tmp_path / "time.png", title="title", stragglers_only=False)
    (axes,) = figures[0].axes
    bars = min(patch.get_zorder() for patch in axes.patches)
    assert all(line.get_visible() for line in axes.get_xgridlines())
    assert axes.xaxis.get_zorder() < bars > axes.yaxis.get_zorder()


def test_bars_of_asynchronous_systems_are_of_trips(tmp_path: Path, figures: list[Figure]) -> None:
    for details in ({}, {"staleness": 1.0}):
        round_times(rows(1, details), tmp_path / "time.png", title="title", stragglers_only=False)
    assert ["of one trip" in figure.axes[0].get_xlabel() for figure in figures] == [False, True]


def test_how_clients_fare_is_drawn_with_the_worst_of_them(tmp_path: Path, figures: list[Figure]) -> None:
    own = {
        seed: replace(
            run((0.5,)),
            personal=Personal(
                steps=1,
                before={"a": 0.25, "b": 0.75},
                masked={"a": 0.5, "b": 1.0 - seed / 2},
                whole={"a": 1.0, "b": 1.0},
            ),
        )
        for seed in (0, 1)
    }
    clients_own(compare({"fedavg": own}), tmp_path / "clients.png", title="title")
    (axes,) = figures[0].axes
    drawn = {str(line.get_label()): np.asarray(line.get_xdata()).tolist() for line in axes.get_lines()}
    assert drawn["after it the worst client"] == [50.0]
    assert drawn["mean before fine-tuning"] == [50.0]
    (bars,) = axes.containers
    assert isinstance(bars, ErrorbarContainer)
    masked, ends, _ = bars.lines
    assert [np.asarray(line.get_xdata()).tolist() for line in (masked, *ends)] == [[62.5], [50.0], [62.5]]


@pytest.mark.parametrize("falling", [True, False])
def test_the_names_of_systems_stand_where_no_line_is(tmp_path: Path, figures: list[Figure], *, falling: bool) -> None:
    accuracies = sorted((number / 20 for number in range(20)), reverse=falling)
    accuracy_over_time({"fedavg": {0: run(accuracies)}}, tmp_path / "accuracy.png", title="title")
    (axes,) = figures[0].axes
    legend = axes.get_legend()
    assert legend is not None
    covered = legend.get_window_extent()
    points = axes.transData.transform([(3.0 * (number + 1), 100 * one) for number, one in enumerate(accuracies)])
    assert not covered.count_contains(points)
