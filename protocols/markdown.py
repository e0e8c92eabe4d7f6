"""A comparison as Markdown, for pages of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from protocols.comparison import Row, Spread


def spread(of: Spread, *, margin: bool = False) -> str:
    """A share in percent, with its deviation between seeds or the margin of its interval."""
    around = of.margin if margin else of.deviation
    sign = "+" if margin else ""
    return f"{100 * of.mean:{sign}.1f}" + ("" if around is None else f" ± {100 * around:.1f}")


def results(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Column to cells: accuracies, and round times beside what no pruning exceeds."""
    return _telling(
        {
            "Accuracy %": [spread(row.accuracy) for row in rows],
            "Less baseline": ["" if row is rows[0] else spread(row.gain, margin=True) for row in rows],
            "In equal time %": [spread(row.accuracy_in_time) for row in rows],
            "Round s": [f"{row.round_seconds:.3f}" for row in rows],
            "Speed-up": [f"{row.speed_up:.1%}" for row in rows],
            "Bound": [f"{row.bound:.1%}" for row in rows],
            "Keep ratio": [_number(row.keep, "{:.2f}") for row in rows],
            "Difference to plain": [_number(row.difference, "{:g}") for row in rows],
        }
    )


def costs(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Column to cells: where the time of a round's slowest client goes, bytes of a client, energy, and what is lost."""
    return _telling(
        {
            "Compute s": [f"{row.seconds['compute']:.3g}" for row in rows],
            "Up s": [f"{row.seconds['upload']:.3g}" for row in rows],
            "Down s": [f"{row.seconds['download']:.3g}" for row in rows],
            "Secure s": [f"{row.seconds['secure']:.2g}" for row in rows],
            "Sends MB": [f"{row.upload_bytes / 1e6:.2f}" for row in rows],
            "Straggler sends MB": [
                _number(row.straggler_upload_bytes and row.straggler_upload_bytes / 1e6, "{:.2f}") for row in rows
            ],
            "Energy kJ": [f"{row.joules / 1e3:.3g}" for row in rows],
            "SDIR": [_number(row.inclusion, "{:.2f}") for row in rows],
            "Layers recovered": [_number(row.layers_recovered, "{:.2f}") for row in rows],
            "Withheld": [f"{row.withheld_share:.1%}" for row in rows],
            "Lost rounds": [f"{row.lost_rounds}" for row in rows],
        }
    )


def page(rows: Sequence[Row], title: str, setup: Mapping[str, object]) -> str:
    """Both tables under a title, with the devices and the settings that they belong to."""
    labels = [row.label for row in rows]
    devices = setup["devices"]
    said = ", ".join(f"{name} {value}" for name, value in setup.items() if name in _SAID and value not in ({}, None))
    lines = [f"### {title}", "", f"Settings: {said}; seeds {', '.join(map(str, rows[0].seeds))}.", ""]
    if isinstance(devices, list) and len(devices) <= _MOST_DEVICES:
        lines += [*_table([str(row["device"]) for row in devices], _columns(devices)), ""]
    lines += [*_table(labels, results(rows)), "", *_table(labels, costs(rows)), ""]
    return "\n".join(lines)


_SAID = ("dataset", "profile", "clients", "participants", "deadline", "warm_up", "rounds", "training", "params")
_MOST_DEVICES = 6
_SILENT = {"Less baseline": {""}, "Withheld": {"0.0%"}, "Lost rounds": {"0"}}
"""Columns to the cells with which they say nothing; of all others, a dash."""


def _telling(columns: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: cells for name, cells in columns.items() if set(cells) - _SILENT.get(name, {"-"})}


def _columns(devices: Sequence[Mapping[str, object]]) -> dict[str, list[str]]:
    names = [name for name in devices[0] if name != "device"]
    return {name: [f"{row[name]:.3g}" for row in devices] for name in names}


def _table(labels: Sequence[str], columns: Mapping[str, Sequence[str]]) -> list[str]:
    head = ["", *columns]
    rows = [[label, *cells] for label, *cells in zip(labels, *columns.values(), strict=True)]
    rule = ["---", *("--:" for _ in columns)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
