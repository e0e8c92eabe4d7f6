"""A benchmark as tables: for the terminal, and as Markdown for pages of results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protocols.benchmark import asked
from protocols.benchmark.cohort import after_last_upload
from protocols.benchmark.comparison import client_seconds, ratios
from protocols.benchmark.costs import MEMORY
from protocols.benchmark.stages import CLIENT_STAGES, DROPOUT, PARTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from protocols.benchmark.costs import Fit
    from protocols.benchmark.prediction import Prediction

Table = list[list[str]]
"""Rows of cells, the head first."""

SHORT = (
    "Beside Flower's SecAgg+",
    "Dropouts survived",
    "What is seen",
    "Cohorts",
    "A pruned client among whole ones",
    "Asked and measured",
)
"""The tables for a terminal; the page has all."""


def tables(
    results: Mapping[str, Any], fits: Mapping[str, Mapping[str, Fit]], predicted: Sequence[Prediction]
) -> dict[str, Table]:
    """Title to table; those of which nothing was measured are left out.

    Args:
        results: As ``run.measure``.
        fits: As ``costs.fitted``.
        predicted: As ``prediction.predictions``.
    """
    beside = [row for row in results["stages"] if "flower" in row["seconds"]]
    found = {
        "The machine, one core": _machine(results["machine"]),
        "One client by stage, and the server per dropout: milliseconds (median)": _stages(results["stages"]),
        "Beside Flower's SecAgg+": _beside(beside),
        "Dropouts survived": _dropouts(results.get("flower")),
        "What is seen": _leakage(results.get("flower")),
        "Cohorts": _cohorts(results["cohorts"]),
        "The server by round: milliseconds": _rounds(results["cohorts"]),
        "A pruned client among whole ones": _density(results["density"]),
        "Formulas": _formulas(fits),
        "Predicted, a million coordinates": _predicted(predicted),
        "Asked and measured": _asked(results),
    }
    return {title: table for title, table in found.items() if len(table) > 1}


def page(found: Mapping[str, Table], about: str) -> str:
    """All tables as Markdown.

    Args:
        found: As ``tables``.
        about: Below the title.
    """
    blocks = ["# Benchmark", about]
    for title, table in found.items():
        head, *rows = ([cell.replace("|", "\\|") for cell in row] for row in table)
        rule = ["---", *("--:" for _ in head[1:])]
        blocks += [f"## {title}", "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))]
    return "\n\n".join(blocks) + "\n"


def _machine(machine: Mapping[str, Any]) -> Table:
    rates = machine["bytes_per_second"]
    return [["", "GB/s, median", "fastest"]] + [
        [name, *(f"{rate[kind] / 1e9:.2f}" for kind in ("median", "fastest"))] for name, rate in rates.items()
    ]


def _stages(rows: Iterable[Mapping[str, Any]]) -> Table:
    names = (*CLIENT_STAGES, *PARTS, DROPOUT)
    head = ["d", "k", *names, "bytes a coordinate"]
    return [head] + [
        [
            f"{row['coordinates']:,}",
            f"{row['neighbours']}",
            *(_milliseconds(row["seconds"]["secagg"][name]["median"]) for name in names),
            f"{row['upload_bytes']['secagg']['MaskedInput'] / row['coordinates']:.2f}",
        ]
        for row in rows
    ]


def _beside(rows: Iterable[Mapping[str, Any]]) -> Table:
    table = [["d", "k", "", "secagg", "Flower", "ratio", "ratio of fastest"]]
    for row in rows:
        size = [f"{row['coordinates']:,}", f"{row['neighbours']}"]
        ours, theirs = ({**row["seconds"][side], "client": client_seconds(row["seconds"][side])} for side in _SIDES)
        table += [
            [
                *size,
                f"{stage}, ms",
                _milliseconds(ours[stage]["median"]),
                _milliseconds(theirs[stage]["median"]),
                f"{ratio['median']:.1f}x",
                f"{ratio['fastest']:.1f}x",
            ]
            for stage, ratio in ratios(row).items()
        ]
        sent = [row["upload_bytes"][side]["MaskedInput"] / row["coordinates"] for side in _SIDES]
        table.append(
            [*size, "upload, bytes a coordinate", *(f"{one:.2f}" for one in sent), f"{sent[1] / sent[0]:.1f}x", ""]
        )
    return table


def _dropouts(facts: Mapping[str, Any] | None) -> Table:
    head = ["gone before they answer in", "clients of 10", "secagg", "Flower"]
    rows = facts["dropouts"] if facts else []
    return [head] + [[row["before"], f"{row['clients']}", row["secagg"], row["flower"]] for row in rows]


def _leakage(facts: Mapping[str, Any] | None) -> Table:
    rows = facts["leakage"].items() if facts else []
    return [["", "found"]] + [[name, _said(value)] for name, value in rows]


def _said(value: object) -> str:
    return {"True": "yes", "False": "no"}.get(f"{value}", f"{value}")


def _cohorts(rows: Iterable[Mapping[str, Any]]) -> Table:
    head = [
        "n",
        "k",
        "d",
        "dropped",
        "client s",
        "server s after upload",
        "server CPU s",
        "peak MB",
        "2 processes",
        "exact",
    ]
    table = [head]
    for row in rows:
        server = row["server"]
        one, *others = (server["unmask"][name]["median"] for name in sorted(server["unmask"], key=int))
        table.append(
            [
                f"{row['clients']}",
                f"{row['neighbours']}",
                f"{row['coordinates']:,}",
                f"{row['dropped']}",
                f"{sum(times['median'] for times in row['client'].values()):.3f}",
                f"{after_last_upload(row)['total']:.3f}",
                f"{sum(one['processor'] for one in server['rounds'].values()):.3f}",
                f"{server['peak_bytes'] / 1e6:.0f}",
                *(f"{one / other:.2f}x" for other in others),
                "yes" if row["exact"] else "NO",
            ]
        )
    return table


def _rounds(rows: Iterable[Mapping[str, Any]]) -> Table:
    head = ["n", "k", "d", *(f"{name}, {what}" for name in CLIENT_STAGES for what in ("a message", "close"))]
    return [head] + [
        [
            f"{row['clients']}",
            f"{row['neighbours']}",
            f"{row['coordinates']:,}",
            *(
                _milliseconds(value)
                for name in CLIENT_STAGES
                for one in [row["server"]["rounds"][name]]
                for value in (one["receive"]["median"], one["close"])
            ),
        ]
        for row in rows
    ]


def _density(rows: Iterable[Mapping[str, Any]]) -> Table:
    head = ["density", "MaskedInput ms", "of whole", "session, of whole", "fastest", "bytes", "session's, of whole"]
    return [head] + [
        [
            f"{row['density']:.3f}",
            _milliseconds(row["seconds"]["MaskedInput"]["median"]),
            f"{row['of whole']['vector']['median']:.1%}",
            f"{row['of whole']['session']['median']:.1%}",
            f"{row['of whole']['session']['fastest']:.1%}",
            f"{sum(row['upload_bytes'].values()):,}",
            f"{row['of whole']['session']['bytes']:.1%}",
        ]
        for row in rows
    ]


def _formulas(fits: Mapping[str, Mapping[str, Fit]]) -> Table:
    table = [["role", "stage", "takes", "relative residual", "measurements"]]
    for role, stages in fits.items():
        for stage, one in stages.items():
            unit = _bytes if stage == MEMORY else _seconds
            said = " + ".join(f"{unit(value)} a {name}" for name, value in one.constants.items() if value)
            table.append([role, stage, said, f"{one.residual:.1%}", f"{one.points}"])
    return table


def _predicted(predicted: Iterable[Prediction]) -> Table:
    head = ["n", "shards", "k", "bits", "client sends MB", "receives MB", "client s"]
    head += ["server core-s", "after uploads core-s", "memory MB"]
    return [head] + [
        [
            f"{one.clients:,}",
            f"{one.shards:,}",
            f"{one.neighbours}",
            f"{one.ring_bits}",
            f"{one.upload_bytes / 1e6:.2f}",
            f"{one.download_bytes / 1e6:.2f}",
            f"{one.client_seconds:.3g}",
            f"{one.server_seconds:,.3g}" if one.server_seconds < 1000 else f"{one.server_seconds:,.0f}",
            f"{one.last_seconds:,.3g}" if one.last_seconds < 1000 else f"{one.last_seconds:,.0f}",
            f"{one.server_bytes / 1e6:,.0f}",
        ]
        for one in predicted
    ]


def _asked(results: Mapping[str, Any]) -> Table:
    rows = asked.asked(results)
    return [["", "asked", "measured", "met"]] + [
        [one.what, one.asked, one.measured, {True: "yes", False: "no", None: "smaller"}[one.met]] for one in rows
    ]


_SIDES = ("secagg", "flower")


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def _seconds(value: float) -> str:
    unit, scale = next(
        (unit, scale) for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 0)) if value >= scale
    )
    return f"{value / (scale or 1e-9):.3g} {unit}"


def _bytes(value: float) -> str:
    unit, scale = next((unit, scale) for unit, scale in (("MB", 1e6), ("kB", 1e3), ("B", 0)) if value >= scale)
    return f"{value / (scale or 1):.3g} {unit}"
