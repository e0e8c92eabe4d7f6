"""A comparison as columns of text, and as Markdown for pages of results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protocols.results import SUSTAINED
from protocols.simulation.profiles import outline, profile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from protocols.experiments.comparison import Row, Spread

Columns = dict[str, list[str]]
"""Name of a column to its cells, one a system."""

MEANINGS = {
    "Accuracy %": "on the test set, over a run's last rounds, ± deviation between seeds",
    "Less baseline": "in points, ± 95 % interval over paired seeds",
    "In equal time %": "when the first system had finished, over the time that its last rounds took",
    "Epsilon": "the most that any client has spent by the end, at the delta of the settings",
    "Round s": "simulated; of an asynchronous system, from one evaluation to the next",
    "Speed-up": "1 - T'/T of the baseline's rounds",
    "If stragglers kept up": "speed-up of the baseline with stragglers as fast as the slowest of the others",
    "Staleness": "versions of the model between a client's fetch and its arrival",
    "Slowest trips / fastest": "trips of the slowest client over those of the fastest, at the end",
    "Mean density": "share of the model that a client trains, mean over clients and rounds",
    "Density floor": "the smallest density that a client may have, at the end",
    "Recoveries": "how often the best model was restored, by the end",
    "Server sends MB": "between two evaluations",
    "Whole models MB": "what that would be if each trip began with the whole model",
    "Nobody's": "share of the coordinates where nobody's contribution is left, at the end",
    "Keep ratio": "share of the units, layers or single weights that stragglers train",
    "Compute s": "as up, down and secure, of a round's slowest client that is in time; of an asynchronous system, "
    "compute, up and down are of one trip, and secure is not told apart",
    "Sends MB": "of a client in a round, or between two evaluations",
    "Energy kJ": "of a round's training, all clients together",
    "SDIR": "share of slow participants that are in time",
    "Withheld": "share of the coordinates that too few hold for a session to release",
    "Before %": "mean over clients, each on its own test examples, with the model that the run left it",
    "Masked %": "the same after training on, under the run's mask",
    "Unmasked %": "the same after training on without a mask: dense models",
    "Before: between clients": "standard deviation between clients, as with the other two",
    "Before: worst client": "accuracy of the client that fares worst, as with the other two",
}
"""Name of a column to what it says, where its name does not."""


def results(rows: Sequence[Row], *, stragglers_only: bool) -> Columns:
    """Accuracies and round times; a row alone has no baseline to stand beside.

    Args:
        rows: The comparison, the baseline first.
        stragglers_only: Only stragglers are relieved, so that it tells something how fast rounds are if they keep up.
    """
    alone = len(rows) == 1
    columns = {
        "Accuracy %": [spread(row.accuracy) for row in rows],
        "Less baseline": ["" if row is rows[0] else spread(row.gain, margin=True) for row in rows],
        "In equal time %": [spread(row.accuracy_in_time) for row in rows],
        "Less baseline in time": ["" if row is rows[0] else spread(row.gain_in_time, margin=True) for row in rows],
        "Epsilon": [_number(row.at_end.get("epsilon"), "{:.2f}") for row in rows],
        "Round s": [f"{row.round_seconds:.3f}" for row in rows],
        "Speed-up": [f"{row.speed_up:.1%}" for row in rows],
        "If stragglers kept up": [f"{row.bound:.1%}" for row in rows],
    }
    hidden = set(columns) - {"Accuracy %", "Epsilon", "Round s"} if alone else set()
    hidden |= set() if stragglers_only else {"If stragglers kept up"}
    hidden |= {"Epsilon"} if set(columns["Epsilon"]) == {"-"} else set()
    return _without(columns, hidden)


def times(rows: Sequence[Row]) -> Columns:
    """Seconds to each target accuracy, and how many times sooner than the baseline that is."""
    columns: dict[str, list[str]] = {}
    for target, baseline in rows[0].seconds_to.items():
        reached = [row.seconds_to[target] for row in rows]
        columns[f"{_TO}{100 * target:g} %"] = ["-" if one is None else _seconds(one.mean) for one in reached]
        columns[f"times sooner ({100 * target:g} %)"] = [
            "-" if one is None or baseline is None else f"{baseline.mean / one.mean:.2f}" for one in reached
        ]
    return columns


def personal(rows: Sequence[Row]) -> Columns:
    """How clients fare with models of their own: their mean, the deviation between them, the worst of them."""
    if not all(row.personal for row in rows):
        return {}
    columns: dict[str, list[str]] = {}
    for kind, said in (("before", "Before"), ("masked", "Masked"), ("whole", "Unmasked")):
        own = [row.personal[kind] for row in rows]
        columns[f"{said} %"] = [spread(one.mean) for one in own]
        columns[f"{said}: between clients"] = [spread(one.deviation) for one in own]
        columns[f"{said}: worst client"] = [spread(one.worst) for one in own]
    return columns


def trips(rows: Sequence[Row]) -> Columns:
    """How far asynchronous clients drift apart, how dense they are, and what the server sends; empty without any."""
    columns = {
        "Staleness": [_number(row.details.get("staleness"), "{:.1f}") for row in rows],
        "Slowest trips / fastest": [_number(row.at_end.get(_TRIPS), "{:.3f}") for row in rows],
        "Mean density": [_number(row.details.get("mean density"), "{:.2f}") for row in rows],
        "Density floor": [_number(row.at_end.get("density floor"), "{:.2f}") for row in rows],
        "Recoveries": [_number(row.at_end.get("recoveries"), "{:.1f}") for row in rows],
        "Server sends MB": [_number(row.details.get("server uploads MB"), "{:.1f}") for row in rows],
        "Whole models MB": [_number(row.details.get("whole models MB"), "{:.1f}") for row in rows],
        "Nobody's": [_number(row.at_end.get("missing share"), "{:.1%}") for row in rows],
    }
    return _without(columns, {name for name, cells in columns.items() if set(cells) <= {"-"}})


def costs(rows: Sequence[Row]) -> Columns:
    """What stragglers train, where the time of a round goes, bytes of a client, energy, and what is lost."""
    columns = {
        "Keep ratio": [_number(row.keep, "{:.2f}") for row in rows],
        "Compute s": [f"{row.seconds['compute']:.3g}" for row in rows],
        "Up s": [f"{row.seconds['upload']:.3g}" for row in rows],
        "Down s": [f"{row.seconds['download']:.3g}" for row in rows],
        "Secure s": ["-" if row.asynchronous else f"{row.seconds['secure']:.2g}" for row in rows],
        "Sends MB": [f"{row.upload_bytes / 1e6:.2f}" for row in rows],
        "Straggler sends MB": [
            _number(row.straggler_upload_bytes and row.straggler_upload_bytes / 1e6, "{:.2f}") for row in rows
        ],
        "Energy kJ": [f"{row.joules / 1e3:.3g}" for row in rows],
        "SDIR": [_number(row.inclusion, "{:.2f}") for row in rows],
        "Layers recovered": [_number(row.layers_recovered, "{:.2f}") for row in rows],
        "Withheld": [f"{row.withheld_share:.1%}" for row in rows],
        "Lost rounds": [f"{row.lost_rounds}" for row in rows],
        "Difference to plain": [_number(row.difference, "{:g}") for row in rows],
    }
    return _without(columns, {name for name, cells in columns.items() if set(cells) <= _SILENT.get(name, {"-"})})


def legend(columns: Iterable[str]) -> list[str]:
    """What the columns mean whose names do not say it."""
    names = list(columns)
    said = [f"{name}: {MEANINGS[name]}." for name in names if name in MEANINGS]
    if any(name.startswith(_TO) for name in names):
        said.append(f"Seconds to a target: until it is reached and held for {SUSTAINED} evaluations in a row.")
    return [
        "Times are simulated: operations counted, bytes on the wire, and secure aggregation as calibrated.",
        *said,
    ]


def page(rows: Sequence[Row], title: str, setup: Mapping[str, Any], *, stragglers_only: bool) -> str:
    """Both tables under a title, with the devices and the settings that they belong to.

    Args:
        rows: The comparison, the baseline first.
        title: Above it.
        setup: All that decided the first run of the baseline, as ``experiment.resolved`` tells it.
        stragglers_only: As ``results``.
    """
    labels, devices = [row.label for row in rows], outline(setup["devices"])
    accuracies, where = results(rows, stragglers_only=stragglers_only), costs(rows)
    sooner, own, apart = times(rows), personal(rows), trips(rows)
    blocks = [
        [f"### {title}"],
        [f"Settings: {', '.join(_settings(setup))}; seeds {', '.join(map(str, rows[0].seeds))}."],
        [f"Devices, `{setup['profile']}`: {profile(setup['profile']).about}."],
        _table([str(row["device"]) for row in devices], _speeds(devices)),
        _table(labels, accuracies),
        *(_table(labels, table) for table in (sooner, own, apart) if table),
        _table(labels, where),
        [" ".join(legend([*accuracies, *sooner, *own, *apart, *where]))],
    ]
    return "\n".join("\n".join([*block, ""]) for block in blocks)


def spread(of: Spread | None, *, margin: bool = False) -> str:
    """A share in percent, with its deviation between seeds or the margin of its interval; a dash if it is unknown."""
    if of is None:
        return "-"
    around = of.margin if margin else of.deviation
    sign = "+" if margin else ""
    return f"{100 * of.mean:{sign}.1f}" + ("" if around is None else f" ± {100 * around:.1f}")


def _seconds(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


_TO = "s to "

_TRIPS = "trips of the slowest over the fastest's"

_SILENT = {"Withheld": {"0.0%"}, "Lost rounds": {"0"}}
"""Columns to the cells with which they say nothing; of all others, a dash."""


def _settings(setup: Mapping[str, Any]) -> list[str]:
    """What decides the runs of a comparison, but for the systems."""
    training, params, data = setup["training"], setup["params"], setup["data"]
    skew = f" (alpha {setup['alpha']:g})" if setup["partition"] == "label-skewed" else ""
    named = {
        "of them in a round": setup["participants"],
        "deadline in seconds": setup["deadline"],
        "warm-up rounds": setup["warm_up"],
        "rounds": setup["rounds"],
        "until seconds": setup["until"],
        "fine-tuning steps": setup["fine_tuning"] or None,
        **{name.replace("_", " "): value for name, value in training.items()},
        **{name.replace("_", " "): params[name] for name in ("min_cohort", "max_dropouts")},
    }
    return [
        f"task {setup['dataset']}",
        f"partition {setup['partition']}{skew}",
        f"{data['train']} training and {data[setup['judge']]} {setup['judge']} examples",
        f"{setup['clients']} clients",
        *(f"{name} {value}" for name, value in named.items() if value is not None),
    ]


def _without(columns: Columns, hidden: set[str]) -> Columns:
    return {name: cells for name, cells in columns.items() if name not in hidden}


def _speeds(devices: Sequence[Mapping[str, Any]]) -> Columns:
    names = [name for name in devices[0] if name != "device"]
    return {name: [f"{row[name]:.3g}" for row in devices] for name in names}


def _table(labels: Sequence[str], columns: Mapping[str, Sequence[str]]) -> list[str]:
    head = ["", *columns]
    rows = [[label, *cells] for label, *cells in zip(labels, *columns.values(), strict=True)]
    rule = ["---", *("--:" for _ in columns)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
